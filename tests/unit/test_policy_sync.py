"""Following the store on a bus in memory and in virtual time: when it is asked, what is said, what is kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import Mesh
from nats_mesh.calling.holding import HOLD_S
from nats_mesh.core.presence import Standing
from nats_mesh.core.replica import Record
from nats_mesh.policy.bus.acking import Acker
from nats_mesh.policy.bus.cache import Cached, CacheError, PolicyCache
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.bus.sync import CHECK_S, Reach
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.memory import MemoryBus
from tests.harness import eventually
from tests.stored import Operator, destination, document, followed, limit, standing, sync_of

_BUCKET = "mesh_policy_default"
_GET = f"$JS.API.DIRECT.GET.KV_{_BUCKET}"


class Rig:
    """A member ``web``, an operator, and every message that passes."""

    def __init__(self, mesh: MemoryMesh, ops: Operator) -> None:
        self.mesh = mesh
        self.ops = ops
        self.passed: list[tuple[str, str, bytes, bytes]] = []
        mesh.bus.recorded = self.passed

    @property
    def web(self) -> Mesh:
        """The member."""
        return self.mesh.mesh

    def count(self, subject: str) -> int:
        """How many messages passed on a subject, or below it."""
        return sum(each[0].startswith(subject) for each in self.passed)

    def acks(self) -> list[dict[str, Any]]:
        """What members acknowledged."""
        return [json.loads(each[3]) for each in self.passed if ".control.ack." in each[0]]


def run(main: Callable[[Rig], Awaitable[None]], *, make: bool = True) -> None:
    """Run ``main`` in virtual time."""

    async def whole() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh.client("ops", policies=False) as ops:
            client = ops.client
            store = PolicyStore("default", transport=client.transport, mux=client.mux)
            if make:
                await store.open()
            async with mesh:
                await main(Rig(mesh, Operator(ops, store)))

    run_virtual(whole)


async def settle() -> None:
    """Let everything that is on its way arrive."""
    await anyio.sleep(0.01)


def test_a_change_is_one_read_and_one_acknowledgement() -> None:
    """Of a batch as of a single document, however many hints it makes."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await settle()
        reads, acks = sync_of(rig.web).reads, len(rig.acks())
        await rig.ops.put(destination("b"), destination("c"), limit("c", 3))
        await settle()
        assert len(followed(rig.web)) == 4
        assert sync_of(rig.web).reads - reads <= 2  # its three hints come in one turn, or while it reads
        await anyio.sleep(2.0)
        assert len(rig.acks()) - acks == 1

    run(main)


def test_a_change_is_acknowledged_once_it_is_in_effect() -> None:
    """A route to a subset that has only just come is not followed yet, and not acknowledged; what is wrong is said at
    once all the same, and what no route waits for as ever."""

    async def main(rig: Rig) -> None:
        subsets = {"target": {"service": "a"}, "subsets": {"new": {"version": "1.0.0"}}}
        rules = {"target": {"service": "a"}, "rules": [{"split": [{"subset": "new"}]}]}
        await rig.ops.put(document("Destination", "a", subsets), document("Route", "a", rules))
        await settle()
        assert rig.acks() == []
        assert standing(rig.web).revision[1] == 1
        await rig.ops.raw("Limit.b", b"{}")
        await settle()
        (refused,) = rig.acks()
        assert [each["policy"] for each in refused["rejections"]] == ["Limit.b"]
        assert refused["revision"][1] == 1
        await anyio.sleep(HOLD_S)
        assert len(rig.acks()) == 2
        assert rig.acks()[-1]["revision"] == list(standing(rig.web).revision)
        assert standing(rig.web).revision[1] == rig.acks()[-1]["revision"][1] > 0
        await rig.ops.put(destination("c"))
        await settle()
        assert len(rig.acks()) == 3

    run(main)


def test_without_hints_it_looks_every_half_minute() -> None:
    """Give or take a fifth; what was written meanwhile is found then."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if ".control.policy." in subject else None
        before = rig.count(_GET)
        await rig.ops.put(destination("a"))
        asked = rig.count(_GET) - before  # by the operator
        await anyio.sleep(CHECK_S * 0.79)
        assert rig.count(_GET) - before == asked
        assert len(followed(rig.web)) == 0
        await anyio.sleep(CHECK_S * 0.42)
        assert len(followed(rig.web)) == 1
        before = rig.count(_GET)
        await anyio.sleep(600.0)
        assert 600 / (1.2 * CHECK_S) - 1 <= rig.count(_GET) - before <= 600 / (0.8 * CHECK_S) + 1

    run(main)


def test_one_read_is_under_way_and_hints_meanwhile_make_one_more() -> None:
    """A store that takes a second to answer is not asked ten times."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        rig.mesh.bus.fault = lambda subject, publisher: 1.0 if publisher == "$JS" else None
        before = sync_of(rig.web).reads
        transport = rig.ops.mesh.client.transport
        for _ in range(10):
            transport.publish("mesh.default.control.policy.x")
            await anyio.sleep(0.05)
        assert sync_of(rig.web).reads - before == 1
        await anyio.sleep(0.75)
        assert sync_of(rig.web).reads - before == 2

    run(main)


def test_a_hint_that_brings_nothing_is_followed_by_a_few_looks() -> None:
    """The server that answers may be behind the one that told; then it is quiet again."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        before = sync_of(rig.web).reads
        rig.ops.mesh.client.transport.publish("mesh.default.control.policy.x")
        await anyio.sleep(1.0)
        assert sync_of(rig.web).reads - before == 4
        await anyio.sleep(20.0)
        assert sync_of(rig.web).reads - before == 4

    run(main)


def test_a_server_that_has_one_of_two_changes_is_asked_again_for_the_other() -> None:
    """Two hints and one message: the copy that answered lags behind, and nobody waits half a minute for the second."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        sync = sync_of(rig.web)
        after, lags = sync._log.after, [True]

        async def lagging(sequence: int, **options: Any) -> Any:
            page = await after(sequence, **options)
            if lags and len(page.messages) > 2:
                lags.pop()
                return page._replace(messages=page.messages[:-1])
            return page

        sync._log.after = lagging  # type: ignore[method-assign]  # a stand-in for this test
        rig.mesh.bus.fault = lambda subject, publisher: 0.01 if ".control.policy." in subject else None
        await rig.ops.put(destination("b"))
        await rig.ops.put(destination("c"))
        await anyio.sleep(0.5)
        assert not lags
        assert len(followed(rig.web)) == 3
        reads = sync.reads
        await anyio.sleep(20.0)
        assert sync.reads == reads

    run(main)


def test_a_flood_of_hints_is_bounded_in_rate() -> None:
    """Twenty reads at once, twenty a second after that; a change among them still arrives at once."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        before = sync_of(rig.web).reads
        for _ in range(10):
            for _ in range(1000):
                rig.ops.mesh.client.transport.publish("mesh.default.control.policy.x", destination("a", "9s"))
                await anyio.sleep(0.001)
            assert followed(rig.web).outbound("a", "get", "web").timeout_s == 2.0
        assert sync_of(rig.web).reads - before <= 20 + 20 * 10 + 1
        await rig.ops.put(destination("a", "4s"))
        await anyio.sleep(0.1)
        assert followed(rig.web).outbound("a", "get", "web").timeout_s == 4.0

    run(main)


def test_ten_thousand_hostile_updates_are_refused_within_a_second_each_and_nothing_of_them_applied() -> None:
    """Written at a thousand a second; the acknowledgements stay at one a second, with how many there are."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        said = len(rig.acks())
        for number in range(10_000):
            value = (b"{}", b"", b"\xff", destination("a"))[number % 4]
            rig.ops.mesh.client.transport.publish(f"$KV.{_BUCKET}.Destination.d{number % 100}", value)
            if number % 100 == 99:
                await anyio.sleep(0.1)
        await anyio.sleep(1.1)
        acks = rig.acks()[said:]
        assert [policy.name for policy in followed(rig.web).policies] == ["Destination/a"]
        assert len(acks) <= 4 + 12
        assert acks[-1]["rejected"] == standing(rig.web).rejected == 100
        assert len(acks[-1]["rejections"]) == 64
        assert acks[-1]["revision"] == list(standing(rig.web).revision)

    run(main)


def test_a_store_that_falls_silent_changes_nothing_and_is_asked_less_and_less() -> None:
    """Until a hint or a reconnect; the last good set stays."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await settle()
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if publisher == "$JS" else None
        before = sync_of(rig.web).reads
        await anyio.sleep(300.0)
        assert sync_of(rig.web).reach is Reach.SILENT
        assert len(followed(rig.web)) == 1
        assert sync_of(rig.web).reads - before < 20
        rig.mesh.bus.fault = None
        rig.mesh.cut("web")
        rig.mesh.mend("web")
        await settle()
        assert sync_of(rig.web).reach is Reach.READ

    run(main)


def test_what_is_missed_while_away_is_read_after_the_reconnect() -> None:
    """And acknowledged again."""

    async def main(rig: Rig) -> None:
        await rig.ops.put(destination("a"))
        await settle()
        rig.mesh.cut("web")
        await rig.ops.put(destination("b"))
        assert len(followed(rig.web)) == 1
        rig.mesh.mend("web")
        await settle()
        assert len(followed(rig.web)) == 2

    run(main)


def test_a_bus_without_a_store_costs_one_question_at_the_start() -> None:
    """And one each half minute."""

    async def main(rig: Rig) -> None:
        assert sync_of(rig.web).reach is Reach.ABSENT
        assert sync_of(rig.web).reads == 1
        await anyio.sleep(100.0)
        assert sync_of(rig.web).reads <= 6
        assert rig.acks() == []
        assert standing(rig.web) == Standing(source="bus")

    run(main, make=False)


def test_a_start_waits_a_second_for_a_store_that_does_not_answer() -> None:
    """And no longer."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if publisher == "$JS" else None
        start = anyio.current_time()
        async with rig.mesh.client("late") as late:
            assert 0.9 <= anyio.current_time() - start <= 1.5
            assert len(followed(late)) == 0

    run(main)


def test_something_unexpected_does_not_end_following() -> None:
    """It is logged, told as a rejection, and the next turn begins anew."""

    async def main(rig: Rig) -> None:
        sync = sync_of(rig.web)
        build = sync._builder.build
        failing = [True]

        def broken(*args: Any) -> Any:
            if failing[0]:
                raise ZeroDivisionError("on purpose")
            return build(*args)

        sync._builder.build = broken  # type: ignore[method-assign, assignment]  # a stand-in for this test
        await rig.ops.put(destination("a"))
        await anyio.sleep(5.0)
        assert "on purpose" in standing(rig.web).rejections[0].reason
        failing[0] = False
        await rig.ops.put(destination("b"))
        await settle()
        assert len(followed(rig.web)) == 2
        assert standing(rig.web).rejected == 0

    run(main)


def test_acknowledgements_a_few_at_once_then_one_a_second_and_never_an_old_one_last() -> None:
    """In bulk the newest state is what is said."""

    async def main(rig: Rig) -> None:
        client = rig.web.client
        acker = Acker(
            service="web", instance="i1", kind="client", subjects=client.subjects,
            transport=client.transport, mux=client.mux, now=anyio.current_time,
        )  # fmt: skip
        said = len(rig.acks())
        for number in range(1, 1001):
            acker.say(Standing(source="bus", revision=(1, number)))
            await anyio.sleep(0.01)
        acks = rig.acks()[said:]
        assert [ack["revision"][1] for ack in acks[:4]] == [1, 2, 3, 4]
        assert len(acks) <= 4 + 11
        await anyio.sleep(1.1)
        assert rig.acks()[-1]["revision"] == [1, 1000]
        acker.close()

    run(main)


# -- on disk ------------------------------------------------------------------------------------------


def kept(epoch: int = 7, count: int = 3) -> Cached:
    """Something to keep."""
    records = tuple(
        Record(n, f"Limit.l{n}", None if n == 2 else b"%d" % n, f"t{n}", "", False, "c", 1)
        for n in range(1, count + 1)
    )
    return Cached(epoch, count, f"t{count}", records)


def test_what_is_kept_is_what_is_found(tmp_path: Path) -> None:
    """By the same namespace, servers and account; by no other."""
    cache = PolicyCache(str(tmp_path / "deep" / "er"), "default", ("nats://a:1", "web"))
    assert cache.load() is None
    cache.save(kept())
    assert PolicyCache(cache.folder, "default", ("nats://a:1", "web")).load() == kept()
    assert PolicyCache(cache.folder, "default", ("nats://a:1", "other")).load() is None
    assert PolicyCache(cache.folder, "prod", ("nats://a:1", "web")).load() is None
    assert [path.name for path in Path(cache.folder).iterdir()] == [Path(cache.path).name]


@pytest.mark.parametrize("at", range(0, 200, 9))
def test_every_damaged_byte_is_noticed(tmp_path: Path, at: int) -> None:
    """Cut, or changed: it counts as none."""
    cache = PolicyCache(str(tmp_path), "default", ())
    cache.save(kept())
    data = Path(cache.path).read_bytes()
    where = at % len(data)
    for damaged in (data[:where], data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]):
        Path(cache.path).write_bytes(damaged)
        with pytest.raises(CacheError):
            cache.load()


def test_a_cache_of_something_else_is_not_used(tmp_path: Path) -> None:
    """Well-formed, with a right digest, and of another namespace or without an epoch."""
    other = PolicyCache(str(tmp_path), "prod", ())
    other.save(kept())
    mine = PolicyCache(str(tmp_path), "default", ())
    Path(other.path).rename(mine.path)
    with pytest.raises(CacheError, match="not of this store"):
        mine.load()
    mine.save(kept(epoch=0))
    with pytest.raises(CacheError, match="not of this store"):
        PolicyCache(str(tmp_path), "default", ()).load()


def test_where_it_cannot_be_written_it_says_so(tmp_path: Path) -> None:
    """A folder that is a file; what stood there before stays."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="cannot be written"):
        PolicyCache(str(tmp_path / "file"), "default", ()).save(kept())


@pytest.mark.anyio
async def test_a_start_with_a_copy_that_is_ahead_of_the_store_does_not_wait_for_certainty(
    tmp_path: Path,
) -> None:
    """A server that is behind, or a store that was restored: the copy holds until it is certain, and then the store."""
    bus = MemoryBus()
    settings = Settings(servers=("nats://memory",), cache_dir=str(tmp_path))
    async with Mesh("ops", settings=settings, connector=bus.connect, policies=False) as ops:
        store = PolicyStore("default", transport=ops.client.transport, mux=ops.client.mux)
        await store.open()
        value = destination("a", "9s")
        record = Record(40, "Destination.a", value, "t40", "", False, "c", len(value))
        cache = PolicyCache(str(tmp_path), "default", ("nats://memory", "", ""))
        cache.save(Cached((await store.snapshot()).epoch, 40, "t40", (record,)))
        with anyio.fail_after(2.5):
            async with Mesh("web", settings=settings, connector=bus.connect) as mesh:
                assert standing(mesh).source == "cache"
                assert len(followed(mesh)) == 1
        async with Mesh("web", settings=settings, connector=bus.connect) as mesh:
            await eventually(lambda: len(followed(mesh)) == 0)
            assert standing(mesh).source == "bus"
