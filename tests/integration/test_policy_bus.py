"""Members follow the store on a real server: hints, reads, acknowledgements, what is refused and what survives."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import Mesh, Service
from nats_mesh.discovery.acks import Acks, Report
from nats_mesh.policy import PolicySet, parse
from nats_mesh.policy.bus.sync import Reach
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from tests.harness import Bus, eventually, open_bus
from tests.stored import Operator, destination, document, followed, limit, operator, standing, sync_of

pytestmark = pytest.mark.anyio


def shop() -> Service:
    """A service with one endpoint."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def get() -> int:
        return 1

    return service


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server with one caller on it."""
    with anyio.fail_after(90):
        async with open_bus(request, "nats", mesh_namespace) as bus:
            yield bus


@pytest.fixture
async def ops(bus: Bus) -> AsyncIterator[Operator]:
    """An operator with an open store."""
    async with operator(bus.url, bus.namespace) as ops:
        yield ops


@pytest.fixture
async def acks(ops: Operator) -> AsyncIterator[Acks]:
    """Somebody who hears acknowledgements."""
    client = ops.mesh.client
    acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
    await acks.open()
    yield acks
    acks.close()


def at(member: Mesh | Instance) -> tuple[int, int]:
    """The revision that a member has applied."""
    return standing(member).revision


def timeout_of(member: Mesh | Instance, service: str) -> float | None:
    """What a member gives calls of a service."""
    return followed(member).outbound(service, "get", "web").timeout_s


async def test_a_change_reaches_everybody_and_everybody_says_so(bus: Bus, ops: Operator, acks: Acks) -> None:
    """Instances and pure clients; calls obey it from then on, and limits hold at the instance."""
    instance = await bus.serve(shop())
    members = await acks.roll_call()
    assert {(member.service, member.kind, member.source) for member in members} == {
        ("shop", "service", "bus"), ("web", "client", "bus"),
    }  # fmt: skip
    applied = await ops.put(destination("shop", "3s"), limit("shop", 7))
    report = await acks.wait(applied.epoch, applied.sequences, timeout_s=5.0)
    assert {member.place.partition("/")[0] for member in report.applied} == {"shop", "web"}
    assert report.elsewhere == ()  # who asks is left out
    assert report.done
    assert timeout_of(bus.mesh, "shop") == 3.0
    assert instance.dispatcher.served["get"].concurrency.limit == 7
    assert await bus.mesh.call("shop.get") == 1
    gone = await ops.put(delete=("Limit.shop", "Destination.shop"))
    assert (await acks.wait(gone.epoch, gone.sequences, timeout_s=5.0)).done
    assert instance.dispatcher.served["get"].concurrency.limit == 256
    assert len(followed(bus.mesh)) == 0


async def test_the_event_says_which_revision_and_what_it_changed(bus: Bus, ops: Operator, acks: Acks) -> None:
    """By the number that `policy status` shows: as text for people, and as a number with the store's epoch."""
    instance = await bus.serve(shop())
    await acks.roll_call()
    for values in ((destination("shop", "3s"),), (destination("shop", "4s"),), ()):
        change = await ops.put(*values, delete=() if values else ("Destination.shop",))
        assert (await acks.wait(change.epoch, change.sequences, timeout_s=5.0)).done
        event = [each for each in instance.events.recent if each.kind == "policy.applied"][-1]
        assert (event.target, event.numbers) == (
            f"revision {change.sequence}",
            {"epoch": change.epoch, "revision": change.sequence},
        )
    told = [each.detail for each in instance.events.recent if each.kind == "policy.applied"]
    assert told == ["new Destination/shop", "changed Destination/shop", "deleted Destination/shop"]


async def test_who_starts_later_begins_with_what_stands_there(bus: Bus, ops: Operator) -> None:
    """From its first call on, and with one read."""
    applied = await ops.put(destination("shop", "3s"))
    late = await bus.caller("late")
    assert timeout_of(late, "shop") == 3.0
    assert at(late) == (applied.epoch, applied.sequence)
    assert sync_of(late).reads == 1


async def test_a_store_that_is_made_later_is_followed_at_once(bus: Bus) -> None:
    """Whoever started without one hears of it."""
    assert sync_of(bus.mesh).reach is Reach.ABSENT
    async with operator(bus.url, bus.namespace) as ops:
        await ops.put(destination("shop", "3s"))
        await eventually(lambda: timeout_of(bus.mesh, "shop") == 3.0)


async def test_other_sources_are_not_touched_by_the_store(
    bus: Bus, ops: Operator, acks: Acks, tmp_path: Path
) -> None:
    """A set given in code, a folder, `False`, and a switch in the environment: the bus is not even listened to."""
    (tmp_path / "shop.yaml").write_text(destination("shop", "9s").decode())
    given = await bus.caller(
        "given", policies=PolicySet.of(parse(destination("shop", "8s")), namespace=bus.namespace)
    )
    files = await bus.caller("files", policies=tmp_path)
    off = await bus.caller("off", policies=False)
    settings = msgspec.structs.replace(bus.settings, follow=False)
    async with Mesh("switched", settings=settings) as switched:
        applied = await ops.put(destination("shop", "3s"))
        assert [timeout_of(each, "shop") for each in (given, files, off, switched)] == [8.0, 9.0, None, None]
        await acks.roll_call()
        report = await acks.wait(applied.epoch, applied.sequences, timeout_s=5.0)
    assert {(m.service, m.source) for m in report.elsewhere} == {
        ("given", "given"), ("files", "files"), ("off", "off"), ("switched", "off"),
    }  # fmt: skip


def hostile(namespace: str) -> dict[str, bytes]:
    """Values that are no policies, by the key they are stored under."""
    good = destination("good")
    return {
        "Destination.malformed": b'{"apiVersion":',
        "Destination.empty": b"",
        "Destination.text": b"timeout: 1s",
        "Destination.list": b"[]",
        "Destination.twice": destination("twice") + b"\n---\n" + destination("other"),
        "Destination.lines": destination("lines") + b"\n" + destination("lines"),
        "Destination.wrongkey": good,
        "Limit.good": good,
        "Nonsense.kind": document("Nonsense", "kind", {}),
        "Destination.field": document("Destination", "field", {"timeOut": "1s"}),
        "Destination.namespace": document(
            "Destination", "namespace", {"timeout": "1s"}, namespace="elsewhere"
        ),
        "Destination.nested": b"[" * 5000 + b"]" * 5000,
        "Destination.surrogate": b'{"apiVersion":"mesh/v1","kind":"\xed\xa0\x80"}',
        "Destination.version": destination("version").replace(b"mesh/v1", b"mesh/v9"),
        "Destination.zero": document("Destination", "zero", {"timeout": "0s"}),
        "a.b.c.d": good,
        "Destination": good,
    }


async def test_hostile_documents_are_never_applied_and_every_one_is_named(
    bus: Bus, ops: Operator, acks: Acks
) -> None:
    """What is good goes on taking effect beside them; who refused, and why, is acknowledged, told and announced."""
    await ops.put(destination("shop", "3s"))
    values = hostile(bus.namespace)
    for key, value in values.items():
        await ops.raw(key, value)
    await ops.put(limit("shop", 7))
    await eventually(lambda: len(followed(bus.mesh)) == 2)
    assert timeout_of(bus.mesh, "shop") == 3.0
    await eventually(lambda: standing(bus.mesh).rejected == len(values), lambda: standing(bus.mesh))
    named = {each.policy for each in standing(bus.mesh).rejections}
    assert named == set(values)
    assert all(each.reason for each in standing(bus.mesh).rejections)
    member = acks.members["web", bus.mesh.client.transport.connection]
    await eventually(lambda: {each.policy for each in member.rejections} == set(values))
    told = {
        event.target.partition("@")[0] for event in bus.mesh.events.recent if event.kind == "policy.rejected"
    }
    assert told == set(values)
    for key in values:
        await ops.raw(key, b"", "KV-Operation: DEL\r\n")
    await eventually(lambda: standing(bus.mesh).rejected == 0)
    assert len(followed(bus.mesh)) == 2


async def test_forged_hints_do_nothing_but_a_bounded_number_of_reads(bus: Bus, ops: Operator) -> None:
    """Whatever they carry: documents, sequences, other subjects; and the change among them is taken at once."""
    await ops.put(destination("shop", "3s"))
    await eventually(lambda: timeout_of(bus.mesh, "shop") == 3.0)
    sync = sync_of(bus.mesh)
    reads, transport = sync.reads, ops.mesh.client.transport
    subject = f"mesh.{bus.namespace}.control.policy"
    block = (
        f"NATS/1.0\r\nNats-Stream: {ops.log.stream}\r\nNats-Subject: {ops.log.prefix}Destination.shop\r\n"
        "Nats-Sequence: 999999\r\nNats-Last-Sequence: 999998\r\nMesh-Operator: root\r\n\r\n"
    ).encode()
    started = anyio.current_time()
    for number in range(10_000):
        transport.publish(f"{subject}.Destination.shop", destination("shop", "9s"), "", block)
        if number % 500 == 0:
            transport.publish(f"{subject}.>" if number else f"{subject}.x", b"\xff" * 1000, "", b"")
            await transport.fence()
    await ops.put(destination("shop", "4s"))
    await eventually(lambda: timeout_of(bus.mesh, "shop") == 4.0)
    took_s = anyio.current_time() - started
    assert sync.hints > 9_000
    assert sync.reads - reads <= 25 + 21 * took_s
    assert sync.replica.applied < 100
    assert standing(bus.mesh).rejected == 0


async def test_headers_that_forge_the_servers_own_change_nothing(bus: Bus, ops: Operator) -> None:
    """Whoever may write one key cannot make another of it, nor another revision, nor hide it in a batch."""
    await ops.put(destination("shop", "3s"))
    lines = (
        f"Nats-Subject: {ops.log.prefix}Destination.shop\r\nNats-Sequence: 999999\r\nNats-Time-Stamp: never\r\n"
        "Nats-Num-Pending: 5\r\nNats-UpTo-Sequence: 999999\r\n"
    )
    await ops.raw("Destination.other", destination("shop", "9s"), lines)
    await eventually(lambda: standing(bus.mesh).rejected == 1)
    assert timeout_of(bus.mesh, "shop") == 3.0
    applied = await ops.put(destination("shop", "4s"))
    await eventually(lambda: at(bus.mesh) == (applied.epoch, applied.sequence))
    assert timeout_of(bus.mesh, "shop") == 4.0


async def test_half_of_a_change_is_none(bus: Bus, ops: Operator) -> None:
    """One bad document in a batch of three: the two others do not take effect either; a later change mends it."""
    await ops.put(destination("a", "1s"), destination("b", "1s"))
    snapshot = await ops.store.snapshot()
    bad = document("Destination", "c", {"target": {"service": "c"}, "timeout": "never"})
    await ops.put(destination("a", "2s"), bad, delete=("Destination.b",))
    await eventually(lambda: standing(bus.mesh).rejected == 3, lambda: standing(bus.mesh))
    assert (timeout_of(bus.mesh, "a"), timeout_of(bus.mesh, "b")) == (1.0, 1.0)
    late = await bus.caller("late")
    assert standing(late).rejected == 3
    assert len(followed(late)) == 0
    await ops.put(destination("a", "2s"), destination("c", "3s"), delete=("Destination.b",))
    await eventually(lambda: len(followed(bus.mesh)) == 2 and standing(bus.mesh).rejected == 0)
    assert (timeout_of(bus.mesh, "a"), timeout_of(bus.mesh, "b"), timeout_of(bus.mesh, "c")) == (
        2.0,
        None,
        3.0,
    )
    assert snapshot.sequence < at(bus.mesh)[1]


async def test_of_two_that_contradict_each_other_the_newer_is_refused(bus: Bus, ops: Operator) -> None:
    """Whatever they are called."""
    await ops.put(destination("z", "1s", service="shop"))
    await ops.put(destination("a", "2s", service="shop"))
    await eventually(lambda: standing(bus.mesh).rejected == 1)
    assert standing(bus.mesh).rejections[0].policy == "Destination.a"
    assert timeout_of(bus.mesh, "shop") == 1.0


async def test_the_store_made_anew_is_the_new_truth(bus: Bus, ops: Operator) -> None:
    """Another epoch: what stood in the one before is gone, also where the new log is as long as the old one."""
    await ops.put(destination("a"), destination("b"))
    await eventually(lambda: len(followed(bus.mesh)) == 2)
    before = at(bus.mesh)
    await ops.log.api(f"STREAM.DELETE.{ops.log.stream}", None, timeout_s=5.0)
    await ops.store.open()
    await ops.put(destination("c"), destination("d"), destination("e"))
    await eventually(
        lambda: [p.name for p in followed(bus.mesh).policies] == [f"Destination/{n}" for n in "cde"]
    )
    assert at(bus.mesh)[0] > before[0]


async def test_an_emptied_bucket_takes_nothing_away_until_it_has_a_new_epoch(bus: Bus, ops: Operator) -> None:
    """A purge of the whole stream leaves no epoch: the last good set stays; a new epoch makes the emptiness true."""
    await ops.put(destination("a"), destination("b"))
    await eventually(lambda: len(followed(bus.mesh)) == 2)
    await ops.log.api(f"STREAM.PURGE.{ops.log.stream}", None, timeout_s=5.0)
    sync = sync_of(bus.mesh)
    sync.on_reconnect()
    await eventually(lambda: sync.reach is Reach.EMPTY)
    assert len(followed(bus.mesh)) == 2
    await ops.store.renew()
    await eventually(lambda: len(followed(bus.mesh)) == 0)


async def test_a_key_that_is_purged_is_gone(bus: Bus, ops: Operator) -> None:
    """As by `nats kv purge`; its history goes with it."""
    await ops.put(destination("a"), destination("b"))
    await ops.raw("Destination.b", b"", "KV-Operation: PURGE\r\nNats-Rollup: sub\r\n")
    await eventually(lambda: [p.name for p in followed(bus.mesh).policies] == ["Destination/a"])
    assert [each.value for each in await ops.store.history("Destination.b")] == [None]


async def test_a_new_epoch_makes_members_read_everything(bus: Bus, ops: Operator) -> None:
    """Also what was taken out of the log without a mark."""
    await ops.put(destination("a"), destination("b"))
    await eventually(lambda: len(followed(bus.mesh)) == 2)
    question = {"filter": f"{ops.log.prefix}Destination.a"}
    await ops.log.api(f"STREAM.PURGE.{ops.log.stream}", question, timeout_s=5.0)
    epoch = await ops.store.renew()
    await eventually(lambda: [p.name for p in followed(bus.mesh).policies] == ["Destination/b"])
    await eventually(lambda: at(bus.mesh)[0] == epoch)


async def test_presence_and_roll_calls_carry_where_a_member_stands(bus: Bus, ops: Operator) -> None:
    """The applied revision and what was refused; pure clients are never taken for instances."""
    instance = await bus.serve(shop())
    namesake = await bus.caller("shop")  # a client that is called as the service
    applied = await ops.put(destination("shop", "3s"))
    await ops.raw("Destination.bad", b"{}")
    await eventually(lambda: standing(instance).rejected == 1)
    replies = await bus.mesh.client.directory.ask("$SRV.PING", timeout_s=1.0)
    pings = [json.loads(body) for _, body in replies]
    ours = {each["id"]: each for each in pings if each["metadata"].get("mesh.namespace") == bus.namespace}
    assert ours[instance.id]["metadata"]["mesh.kind"] == "service"
    assert ours[namesake.client.transport.connection]["metadata"]["mesh.kind"] == "client"
    assert ours[instance.id]["metadata"]["mesh.revision"] == f"{applied.epoch}.{applied.sequence + 1}"
    assert ours[instance.id]["metadata"]["mesh.rejected"] == "1"
    by_name = await bus.mesh.client.directory.ask("$SRV.PING.shop", timeout_s=1.0)
    assert [json.loads(body)["id"] for _, body in by_name] == [instance.id]
    gathered = await bus.mesh.gather("shop.get", returns=int, timeout=1.0)
    assert len(gathered.answers) == 1
    heard: list[dict[str, Any]] = []
    transport = ops.mesh.client.transport
    transport.subscribe(
        ops.store.subjects.presence_of("shop"),
        lambda subject, reply, headers, body: heard.append(json.loads(body)),
    )
    await transport.fence()
    assert instance._parts.announcer is not None
    instance._parts.announcer.report()
    await eventually(lambda: heard)
    assert heard[0]["revision"] == [applied.epoch, applied.sequence + 1]
    assert [each["policy"] for each in heard[0]["rejections"]] == ["Destination.bad"]


async def test_what_cannot_be_put_into_effect_is_refused_and_following_goes_on(
    bus: Bus, ops: Operator
) -> None:
    """A data path that raises keeps the last good set, says so, and takes the next one."""
    await ops.put(destination("shop", "1s"))
    await eventually(lambda: timeout_of(bus.mesh, "shop") == 1.0)
    follower = bus.mesh._follower
    assert follower is not None
    taken: list[PolicySet] = []
    original = follower._apply

    def apply(policies: PolicySet) -> None:
        taken.append(policies)
        if len(taken) == 1:
            raise RuntimeError("on purpose")
        original(policies)

    follower._apply = apply
    await ops.put(destination("shop", "2s"))
    await eventually(lambda: standing(bus.mesh).rejected == 1)
    assert "on purpose" in standing(bus.mesh).rejections[0].reason
    assert timeout_of(bus.mesh, "shop") == 1.0
    await ops.put(destination("shop", "3s"))
    await eventually(lambda: timeout_of(bus.mesh, "shop") == 3.0)
    assert standing(bus.mesh).rejected == 0


# -- the store away -----------------------------------------------------------------------------------


async def test_without_jetstream_a_member_starts_at_once_with_the_defaults(
    mesh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so once."""
    caplog.set_level(logging.INFO, "nats_mesh.policies")
    async with NatsServer(jetstream=False) as server:
        settings = Settings(servers=(server.url,), namespace=mesh_namespace)
        with anyio.fail_after(5):
            async with Mesh("web", settings=settings) as mesh:
                assert len(followed(mesh)) == 0
                assert sync_of(mesh).reads == 1
    assert len([record for record in caplog.records if "policy store" in record.message]) == 1


async def test_the_store_dying_leaves_the_last_good_set_and_comes_back_with_the_new_one(
    mesh_namespace: str,
) -> None:
    """The server is killed, restarted without JetStream's data changed; calls go on under what was known."""
    async with NatsServer() as server:
        settings = Settings(servers=(server.url,), namespace=mesh_namespace)
        async with Mesh("web", settings=settings) as mesh, Instance(shop(), settings=settings) as instance:
            async with operator(server.url, mesh_namespace) as ops:
                await ops.put(destination("shop", "3s"))
                await eventually(lambda: timeout_of(mesh, "shop") == 3.0)
            await server.kill()
            assert timeout_of(mesh, "shop") == 3.0
            await server.restart()
            async with operator(server.url, mesh_namespace) as ops:
                await ops.put(destination("shop", "4s"))
            await eventually(lambda: mesh.client.transport.connected and instance.transport.connected)
            await eventually(lambda: timeout_of(mesh, "shop") == 4.0)
            assert await mesh.call("shop.get") == 1


@pytest.fixture
def cached(tmp_path: Path) -> Callable[[NatsServer, str], Settings]:
    """Settings of a member that keeps policies on disk."""

    def settings(server: NatsServer, namespace: str) -> Settings:
        return Settings(servers=(server.url,), namespace=namespace, cache_dir=str(tmp_path / "cache"))

    return settings


async def test_a_start_while_the_store_is_down_uses_the_copy_on_disk(
    mesh_namespace: str, cached: Callable[[NatsServer, str], Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """The same server without JetStream; when it is back, what is new there is followed."""
    async with NatsServer() as server:
        settings = cached(server, mesh_namespace)
        async with operator(server.url, mesh_namespace) as ops, Mesh("web", settings=settings) as mesh:
            await ops.put(destination("shop", "3s"))
            await eventually(lambda: timeout_of(mesh, "shop") == 3.0)
            revision = at(mesh)
        server.jetstream = False
        await server.restart()
        async with Mesh("web", settings=settings) as mesh:
            assert timeout_of(mesh, "shop") == 3.0
            assert standing(mesh).source == "cache"
            assert at(mesh) == revision
            server.jetstream = True
            await server.restart()
            await eventually(lambda: mesh.client.transport.connected)
            async with operator(server.url, mesh_namespace) as ops:
                await ops.put(destination("shop", "4s"))
            await eventually(lambda: timeout_of(mesh, "shop") == 4.0)
            assert standing(mesh).source == "bus"
    assert "come from the cache" in caplog.text


async def test_with_a_copy_on_disk_only_what_is_new_is_read(
    nats_server: NatsServer, mesh_namespace: str, cached: Callable[[NatsServer, str], Settings]
) -> None:
    """And what was deleted since is deleted."""
    settings = cached(nats_server, mesh_namespace)
    async with operator(nats_server.url, mesh_namespace) as ops:
        await ops.put(*(destination(f"d{n}") for n in range(300)))
        async with Mesh("web", settings=settings) as mesh:
            assert len(followed(mesh)) == 300
        await ops.put(destination("d7", "9s"), delete=("Destination.d8",))
        received = []
        async with Mesh("web", settings=settings) as mesh:
            received.append(mesh.client.transport.stats.in_messages)
            assert len(followed(mesh)) == 299
            assert timeout_of(mesh, "d7") == 9.0
        assert received[0] < 50


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "foreign", "unreadable folder", "a folder in its place"]
)
async def test_a_cache_that_cannot_be_used_is_a_warning(
    nats_server: NatsServer,
    mesh_namespace: str,
    cached: Callable[[NatsServer, str], Settings],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And never keeps a member from starting."""
    settings = cached(nats_server, mesh_namespace)
    folder = Path(settings.cache_dir)
    async with operator(nats_server.url, mesh_namespace) as ops:
        await ops.put(destination("shop", "3s"))
        if damage == "unreadable folder":
            folder.write_text("a file where a folder should be")
        else:
            async with Mesh("web", settings=settings):
                pass
            (file,) = folder.iterdir()
            data = file.read_bytes()
            if damage == "cut":
                file.write_bytes(data[:-1])
            elif damage == "flipped":
                file.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
            elif damage == "foreign":
                file.write_bytes(b"something else")
            else:
                file.unlink()
                file.mkdir()
        async with Mesh("web", settings=settings) as mesh:
            assert timeout_of(mesh, "shop") == 3.0
    assert "cache" in caplog.text or "not kept on disk" in caplog.text


async def test_permissions_that_forbid_it_are_said_and_nothing_else_fails(
    mesh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No hints: policies are read at the start all the same. No reading: the defaults hold."""
    ns = mesh_namespace
    hints = f'"mesh.{ns}.control.policy.>"'
    config = f"""
    authorization {{ users: [
      {{ user: root, password: x }}
      {{ user: deaf, password: x, permissions: {{ subscribe: {{ deny: [{hints}, "$SRV.PING"] }} }} }}
      {{ user: blind, password: x, permissions: {{ publish: {{ deny: "$JS.>" }} }} }}
    ] }}"""
    async with NatsServer(config=config) as server:
        root, deaf, blind = (
            Settings(servers=(server.url,), namespace=ns, user=user, password="x")
            for user in ("root", "deaf", "blind")
        )
        async with operator(_with(server.url, "root"), ns) as ops:
            await ops.put(destination("shop", "3s"))
            async with Mesh("web", settings=deaf) as mesh:
                assert timeout_of(mesh, "shop") == 3.0
            async with Mesh("web", settings=blind) as mesh, Instance(shop(), settings=root):
                assert sync_of(mesh).reach is Reach.DENIED
                assert await mesh.call("shop.get") == 1
    assert "hints may not be heard" in caplog.text
    assert "answers no roll call" in caplog.text


def _with(url: str, user: str) -> str:
    return url.replace("nats://", f"nats://{user}:x@")


async def test_the_silent_are_named(bus: Bus, ops: Operator, acks: Acks) -> None:
    """A member that does not follow any more is reported when the time is up, by name, and the others are not."""
    instance = await bus.serve(shop())
    await acks.roll_call()
    await sync_of(instance).close()
    applied = await ops.put(destination("shop", "3s"))
    report: Report = await acks.wait(applied.epoch, applied.sequences, timeout_s=0.5)
    assert not report.done
    assert [member.place for member in report.silent] == [f"shop/{instance.name}"]
    assert [member.service for member in report.applied] == ["web"]
    await ops.raw("Destination.bad", b"{}")
    await eventually(lambda: standing(bus.mesh).rejected)
    bad = (await ops.store.revision("Destination.bad")).sequence  # type: ignore[union-attr]  # there is one here
    report = await acks.wait(applied.epoch, {"Destination.bad": bad}, timeout_s=0.5)
    assert [member.service for member, _ in report.rejected] == ["web"]
