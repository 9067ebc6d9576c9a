"""Rollouts on a real server: who carries one out, what callers see of it, and what stands in its way."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import Mesh, MeshError, PolicyError
from nats_mesh.core.rollout import Hold, Phase
from nats_mesh.policy.bus.revisions import ConflictError
from nats_mesh.rollout import Runner
from nats_mesh.rollout.book import UnreadableError
from nats_mesh.rollout.record import encode_record
from nats_mesh.rollout.route import InTheWayError
from nats_mesh.rollout.starting import NotStartedError
from nats_mesh.telemetry.events import decode_recent
from nats_mesh.testing import NatsServer
from nats_mesh.wire.kv import KvConflictError, KvError
from tests.harness import eventually
from tests.rawnats import raw_nats
from tests.rollouts import Stage, rollout, staged, until
from tests.stored import document, standing

pytestmark = pytest.mark.anyio

V1 = [{"split": [{"subset": "v1"}]}]
V2 = [{"split": [{"subset": "v2"}]}]
LONG: dict[str, Any] = {"steps": [{"weight": 5, "for": "1h"}, {"weight": 50, "for": "1h"}]}


@pytest.fixture
async def stage(nats_server: NatsServer, mesh_namespace: str, anyio_backend: object) -> AsyncIterator[Stage]:
    """A shop in two versions."""
    with anyio.fail_after(100):
        async with staged(nats_server.url, mesh_namespace) as found:
            yield found


@asynccontextmanager
async def running(stage: Stage, *runners: Runner, per_s: float = 100.0) -> AsyncIterator[Mesh]:
    """These runners, under load; the caller that makes it."""
    web = await stage.caller()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.load, web, per_s)
        for runner in runners:
            tasks.start_soon(runner.run)
        yield web
        tasks.cancel_scope.cancel()


async def renewed(stage: Stage, times: int) -> None:
    """Wait until whoever carries the rollout out has looked at it so many times more."""
    revision = (await stage.entry()).revision
    await until(stage.entry, lambda entry: entry.revision >= revision + times)


async def test_a_good_version_is_promoted(stage: Stage) -> None:
    """Step by step to 100 %, without a failed call; events and audit records tell of it, the store of each write."""
    runner = await stage.runner("ci")
    async with raw_nats(
        stage.settings.servers[0], f"mesh.{stage.settings.namespace}.audit.rollout.>"
    ) as audit:
        await stage.start()
        async with running(stage, runner):
            await stage.phase(Phase.PROMOTED)
            calls = stage.calls
            await eventually(lambda: stage.calls > calls + 100)  # each user twice
        assert await stage.route() == V2
        assert [word for word in stage.words() if word != "waiting"] == ["started", "step", "step", "ended"]
        assert stage.failures == []
        assert {answers[-1] for answers in stage.answers.values()} == {"v2"}
        assert await stage.writers() == [
            ("ci", f"rollout shop: {weight}% to v2") for weight in (0, 5, 50, 100)
        ]
        await eventually(lambda: len(audit.messages) == len(stage.told))
        subjects = {message.subject for message in audit.messages}
        assert len(subjects) == 1
        assert subjects.pop().startswith(f"mesh.{stage.settings.namespace}.audit.rollout.ci.")
        bodies = [json.loads(message.payload) for message in audit.messages]
        assert [body["kind"] for body in bodies] == [f"rollout.{word}" for word in stage.words()]
        assert sorted({body["weight"] for body in bodies}) == [0, 5, 50, 100]
        assert {body["runner"] for body in bodies} == {"ci"}
        assert all(message.reply.startswith("_INBOX.ci.") for message in audit.messages)
    entry = await stage.entry()
    assert (entry.record.holder, entry.record.routed) == ("", 100)


async def test_a_bad_version_is_rolled_back(stage: Stage) -> None:
    """By itself, in the first step, with the figures that it was judged by; the calls after that all succeed."""
    stage.bad.add("v2")
    await stage.start()
    async with running(stage, await stage.runner("ci")) as web:
        at = await stage.phase(Phase.ROLLED_BACK)
        assert (at.step, at.weight) == (0, 0)
        assert "calls failed" in at.reason
        written = (await stage.op.store.snapshot()).expected["Route.shop"]
        await eventually(lambda: standing(web).revision[1] >= written)
        heard = stage.calls
        await eventually(lambda: stage.calls > heard + 20)  # what began before has ended
        failed = len(stage.failures)
        calls = stage.calls
        await eventually(lambda: stage.calls > calls + 50)
        assert len(stage.failures) == failed
    assert await stage.route() == V1
    assert stage.words()[-2:] == ["returning", "ended"]
    # Every call to the bad version fails, and the gate judges by no fewer than it asks for (minCalls: 3).
    numbers = stage.told[-2].numbers
    assert numbers["failures"] == numbers["calls"] >= 3.0


async def test_only_one_of_several_carries_it_out(stage: Stage) -> None:
    """The lease is one runner's; given back, another one has it at once, and goes on in the step it was in."""
    first, second = await stage.runner("first"), await stage.runner("second")
    await stage.start(rollout(**LONG))
    web = await stage.caller()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.load, web)
        async with anyio.create_task_group() as group:
            group.start_soon(first.run)
            await stage.phase(Phase.STEP)
            tasks.start_soon(second.run)
            await eventually(lambda: second._looks > 25)  # for longer than a lease lasts
            assert (len(first.carried), len(second.carried)) == (1, 0)
            group.cancel_scope.cancel()
        entry = await until(stage.entry, lambda entry: entry.record.holder.startswith("second/"))
        assert (entry.record.progress.phase, entry.record.progress.step) == (Phase.STEP, 0)
        assert entry.record.progress.spent_s > 1.0
        assert stage.words() == ["started", "step", "taken"]
        tasks.cancel_scope.cancel()
    assert {operator for operator, _ in await stage.writers()} == {"first"}  # there was nothing to write


async def test_a_runner_that_was_held_up_writes_nothing_any_more(stage: Stage) -> None:
    """Another one takes over when the record stands still; the first one's next write fails, and it stops."""
    first, second = await stage.runner("first"), await stage.runner("second")
    held, go = anyio.Event(), anyio.Event()
    await stage.start(rollout(**LONG))
    async with running(stage, first):
        await stage.phase(Phase.STEP)
        (carrier,) = first.carried.values()
        write = first.book.write

        async def slow(record: Any, expected: int) -> int:
            held.set()
            await go.wait()
            return await write(record, expected)

        first.book.write = slow  # type: ignore[method-assign]  # a stand-in for this test
        await held.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.run)
            await until(stage.entry, lambda entry: entry.record.holder.startswith("second/"))
            await stage.starting.book.wish("shop", "abort", "ops", "")
            await stage.phase(Phase.ABORTED)
            go.set()
            await eventually(lambda: not first.carried)
            tasks.cancel_scope.cancel()
    assert carrier.course.progress.phase is Phase.STEP  # it never knew
    assert await stage.route() == V1
    assert [operator for operator, _ in await stage.writers()] == ["first", "first", "second"]


async def test_a_write_that_was_held_up_cannot_undo_what_a_successor_wrote(stage: Stage) -> None:
    """Frozen right before the route is written, the old runner wakes to a revision that is not the one it meant."""
    first, second = await stage.runner("first"), await stage.runner("second")
    held, go = anyio.Event(), anyio.Event()
    await stage.start(rollout(**LONG))
    async with running(stage), anyio.create_task_group() as group:
        group.start_soon(first.run)
        await until(stage.entry, lambda entry: first.carried)
        (carrier,) = first.carried.values()
        apply = carrier._store.apply
        conflicts: list[KvConflictError] = []

        async def slow(changes: Any, **options: Any) -> Any:
            if "5%" in options["message"]:
                held.set()
                await go.wait()
            try:
                return await apply(changes, **options)
            except KvConflictError as error:
                conflicts.append(error)
                raise

        carrier._store.apply = slow  # type: ignore[method-assign]  # a stand-in for this test
        await held.wait()
        group.start_soon(second.run)
        await until(stage.entry, lambda entry: entry.record.holder.startswith("second/"))
        await until(stage.entry, lambda entry: entry.record.routed == 5)
        go.set()
        await eventually(lambda: not first.carried)
        assert len(conflicts) == 1
        group.cancel_scope.cancel()
    assert await stage.writers() == [
        ("first", "rollout shop: 0% to v2"),
        ("second", "rollout shop: 5% to v2"),
    ]


async def test_a_write_that_was_held_up_cannot_undo_an_abort_either(stage: Stage) -> None:
    """Where the weight was never written, the abort has nothing to change in the route; it takes away its revision
    all the same, for which the old runner's write is still on its way."""
    first, second = await stage.runner("first"), await stage.runner("second")
    held, go, woken = anyio.Event(), anyio.Event(), anyio.Event()
    await stage.start(rollout(**LONG))
    async with running(stage), anyio.create_task_group() as group:
        group.start_soon(first.run)
        await until(stage.entry, lambda entry: first.carried)
        (carrier,) = first.carried.values()
        apply = carrier._store.apply
        refused: list[KvConflictError] = []

        async def slow(changes: Any, **options: Any) -> Any:
            if "5%" not in options["message"]:
                return await apply(changes, **options)
            held.set()
            await go.wait()
            try:
                return await apply(changes, **options)
            except KvConflictError as error:
                refused.append(error)
                raise
            finally:
                woken.set()

        carrier._store.apply = slow  # type: ignore[method-assign]  # a stand-in for this test
        await held.wait()
        await stage.starting.book.wish("shop", "abort", "ops", "")
        group.start_soon(second.run)
        await stage.phase(Phase.ABORTED)
        go.set()
        await woken.wait()
        await eventually(lambda: not first.carried)
        group.cancel_scope.cancel()
    assert len(refused) == 1
    assert await stage.route() == V1
    assert [who for who, _ in await stage.writers()] == ["first", "second"]


async def test_a_route_that_somebody_changed_is_not_overwritten(stage: Stage) -> None:
    """It pauses and says who did it. Resumed, it goes on from the route as it stands; aborted, it goes back."""
    await stage.start(rollout(**LONG))
    async with running(stage, await stage.runner("ci")):
        await stage.phase(Phase.STEP)
        theirs = [
            {"split": [{"subset": "v1", "weight": 70}, {"subset": "v2", "weight": 30}], "timeout": "3s"}
        ]
        while True:  # the rollout itself may have written at the same moment
            with contextlib.suppress(ConflictError):
                await stage.op.put(
                    document("Route", "shop", {"target": {"service": "shop"}, "rules": theirs})
                )
                break
        at = await stage.phase(Phase.PAUSED)
        assert at.hold is Hold.ROUTE
        assert "Route/shop was changed by ops" in at.reason
        await renewed(stage, 10)
        assert await stage.route() == theirs
        await stage.starting.book.wish("shop", "resume", "ops", "")
        await stage.phase(Phase.STEP)
        (rule,) = await until(stage.route, lambda rules: rules != theirs)
        assert rule == {
            "split": [{"subset": "v1", "weight": 95}, {"subset": "v2", "weight": 5}],
            "timeout": "3s",
        }
        await stage.op.put(delete=("Route.shop",))
        assert "deleted" in (await stage.phase(Phase.PAUSED)).reason
        await stage.starting.book.wish("shop", "abort", "ops", "enough")
        await stage.phase(Phase.ABORTED)
    assert await stage.route() == V1


async def test_a_route_that_was_changed_before_the_first_write_is_not_overwritten_either(
    stage: Stage,
) -> None:
    """What stood there when the rollout was started is what it may replace."""
    await stage.start(rollout(**LONG))
    theirs = [{"split": [{"subset": "v1", "weight": 70}, {"subset": "v2", "weight": 30}]}]
    await stage.op.put(document("Route", "shop", {"target": {"service": "shop"}, "rules": theirs}))
    async with running(stage, await stage.runner("ci")):
        at = await stage.phase(Phase.PAUSED)
        assert (at.hold, at.before) == (Hold.ROUTE, Phase.WAITING)
        await renewed(stage, 5)
    assert await stage.route() == theirs


async def test_records_of_somebody_else_stop_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """What stands beside the record of a rollout and is none, or says that it is one of this service, changes nothing:
    it is carried out, and what cannot be read is counted and named."""
    client, bucket = stage.op.mesh.client, stage.starting.book._bucket
    started = await stage.start(rollout(**LONG))
    good = started.entry.record
    held = msgspec.structs.replace(good, holder="nobody/X", term=9)
    forged = {
        "rollout.zzz": encode_record(held),
        "rollout.aaa": encode_record(held),
        "rollout.bad": b"{",
        "rollout.deep": b"[" * 100_000,
        "rollout.null": b"null",
        "rollout.a.b": b"\xff\x1b[2J",
        "other": b"1",
    }
    for key, value in forged.items():
        await bucket.put(key, value, expected=0, timeout_s=5.0)
    runner = await stage.runner("ci")
    async with running(stage, runner):
        await stage.phase(Phase.STEP)
        assert (await stage.entry()).record.holder.startswith("ci/")
    assert runner.book.unreadable >= 6
    assert "stands where another one's belongs" in caplog.text
    assert "\x1b" not in caplog.text
    entries = await stage.starting.book.all()
    assert [entry.record.service for entry in entries] == ["shop"]
    with pytest.raises(UnreadableError, match=r"nats kv del mesh_lease_\S+ rollout\.bad"):
        await stage.starting.book.read("bad")
    assert client.transport.connected


async def test_operators_pause_resume_and_abort_at_any_moment(stage: Stage) -> None:
    """Each is answered within the second; what makes no sense is refused with the reason."""
    book = stage.starting.book

    async def wish(word: Any) -> str:
        asked = await book.wish("shop", word, "ops", "because")
        entry = await until(stage.entry, lambda entry: entry.record.answered == asked.record.wished)
        return str(entry.record.answer)

    await stage.start(rollout(**LONG))
    async with running(stage, await stage.runner("ci")):
        await stage.phase(Phase.STEP)
        assert await wish("resume") == "it is not paused: it is step"
        assert await wish("pause") == "done"
        assert (await stage.at()).reason == "by ops: because"
        assert await wish("pause") == "done"
        assert await wish("resume") == "done"
        assert (await stage.at()).phase is Phase.STEP
        assert await wish("pause") == "done"
        assert await wish("abort") == "done"
        await stage.phase(Phase.ABORTED)
    assert await stage.route() == V1
    assert stage.failures == []


async def test_it_begins_when_the_first_instance_is_there(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Until then all calls go to the old subset, also those of who would have gone to anybody."""
    async with staged(nats_server.url, mesh_namespace, versions=("v1",)) as stage:
        await stage.start()
        async with running(stage, await stage.runner("ci")):
            await eventually(lambda: "waiting" in stage.words())
            assert await stage.route() == V1
            await stage.version("v2")
            await stage.phase(Phase.PROMOTED)
        assert stage.failures == []


async def test_who_is_sticky_never_goes_back(stage: Stage) -> None:
    """Each user sees the old version, then the new one, and never the old one again."""
    steps = [{"weight": weight, "for": "1s"} for weight in (5, 20, 50, 80)]
    await stage.op.put(document("Route", "shop", {"target": {"service": "shop"}, "rules": V1}))
    await stage.start(rollout(steps=steps, sticky={"header": "end-user"}))
    async with running(stage, await stage.runner("ci"), per_s=200.0):
        await stage.phase(Phase.PROMOTED)
        calls = stage.calls
        await eventually(lambda: stage.calls > calls + 100)
    for user, answers in stage.answers.items():
        first = answers.index("v2")
        assert set(answers[first:]) == {"v2"}, user
    assert stage.failures == []


async def test_the_events_are_the_runners(stage: Stage) -> None:
    """Whoever asks for events gets those of the rollout, from the member that carries it out."""
    runner = await stage.runner("ci")
    await stage.start(rollout(gates=None, interval=None))
    async with running(stage, runner):
        await stage.phase(Phase.PROMOTED)
        client = stage.op.mesh.client
        found: list[bytes] = []

        class Sink:
            subject = ""

            def on_reply(self, headers: bytes, payload: bytes) -> None:
                found.append(payload)

            def on_failure(self, error: Any) -> None:
                raise error

        inbox = client.mux.open("telemetry", Sink())
        client.transport.publish(client.subjects.want("event", "ci", "ops"), b"", inbox)
        await eventually(lambda: found)
        client.mux.close(inbox)
    kinds = [event.kind for event in decode_recent(found[0]) if event.kind.startswith("rollout.")]
    assert kinds == ["rollout.started", "rollout.step", "rollout.step", "rollout.ended"]


@pytest.mark.parametrize(
    ("spec", "others", "said"),
    [
        ({"to": "v3"}, [], "shop has no subset v3; there are: v1, v2"),
        (
            {},
            [("Route", "buy", {"target": {"service": "shop", "endpoints": ["buy"]}, "rules": V1})],
            "Route/buy says where calls of shop.buy go",
        ),
        (
            {},
            [
                (
                    "Route",
                    "any",
                    {"target": {"service": "shop"}, "rules": [{"redirect": {"service": "other"}}]},
                )
            ],
            "Route/any redirects every call",
        ),
        (
            {},
            [("Route", "shop", {"target": {"service": "other"}, "rules": [{"timeout": "1s"}]})],
            "Route/shop is there and about something else",
        ),
    ],
)
async def test_what_cannot_begin_is_said_and_nothing_is_stored(
    stage: Stage, spec: dict[str, Any], others: list[tuple[str, str, dict[str, Any]]], said: str
) -> None:
    """Before anything is stored."""
    if others:
        await stage.op.put(*[document(*each) for each in others])
    before = await stage.op.store.snapshot()
    with pytest.raises((PolicyError, NotStartedError, InTheWayError), match=said):
        await stage.start(rollout(**spec))
    assert await stage.op.store.snapshot() == before
    assert await stage.starting.book.all() == []


async def test_a_service_has_one_rollout_at_a_time(stage: Stage) -> None:
    """Another one is refused while one is under way; afterwards it takes the place of the older policy."""
    await stage.start(rollout(**LONG))
    with pytest.raises(NotStartedError, match="under way"):
        await stage.start(rollout("again"))
    async with running(stage, await stage.runner("ci")):
        await stage.phase(Phase.STEP)
        await stage.starting.book.wish("shop", "abort", "ops", "")
        await stage.phase(Phase.ABORTED)
        started = await stage.start(rollout("again"))
        assert started.replaced == ("Rollout.shop",)
        await stage.phase(Phase.PROMOTED)
    assert [key for key in (await stage.op.store.snapshot()).policies if key.startswith("Rollout")] == [
        "Rollout.again"
    ]
    started = await stage.start("shop")  # the one that is stored, by its service
    assert started.entry.record.rollout == "again"


async def test_a_record_that_cannot_be_read_stops_nobody_else(stage: Stage) -> None:
    """It is counted and left alone; the rollouts of other services go on."""
    book = stage.starting.book
    await book.make()
    bucket = book._bucket
    await bucket.put("rollout.other", b"{", expected=0, timeout_s=2.0)
    with pytest.raises(MeshError, match=r"rollout\.other"):
        await book.read("other")
    await stage.start(rollout(gates=None, interval=None))
    runner = await stage.runner("ci")
    async with running(stage, runner):
        await stage.phase(Phase.PROMOTED)
    assert runner.book.unreadable >= 1


async def test_whoever_dies_whenever_each_weight_is_written_once(stage: Stage) -> None:
    """Runners die at any moment, with the lease, and answers of the store are lost: in the end every weight stands in
    the route's history once, in order, and nobody's write was taken for somebody else's."""
    chance = random.Random(7)
    lost = 0
    steps = [{"weight": weight, "for": "1s"} for weight in (5, 30, 60)]
    await stage.start(rollout(steps=steps, gates=None, interval=None))

    async def forgetful(runner: Runner) -> None:
        """Half of the answers about routes are lost after the write."""
        nonlocal lost
        while True:
            for carrier in runner.carried.values():
                if not hasattr(carrier, "lossy"):
                    apply = carrier._store.apply

                    async def lossy(changes: Any, apply: Any = apply, **options: Any) -> Any:
                        nonlocal lost
                        done = await apply(changes, **options)
                        if chance.random() < 0.5:
                            lost += 1
                            raise KvError("the answer was lost", maybe=True)
                        return done

                    carrier._store.apply = lossy  # type: ignore[method-assign]  # a stand-in for this test
                    carrier.lossy = True  # type: ignore[attr-defined]  # a mark of this test

                    async def dead() -> None:
                        """Nobody gives anything back."""

                    carrier.release = dead  # type: ignore[method-assign]  # a stand-in for this test
            await anyio.sleep(0)

    async with running(stage, per_s=150.0):
        for number in range(60):
            runner = await stage.runner(f"r{number}", lease_s=0.4, renew_s=0.05)
            with anyio.move_on_after(chance.uniform(0.1, 1.2)):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(forgetful, runner)
                    tasks.start_soon(runner.run)
                    await stage.phase(Phase.PROMOTED)
                    tasks.cancel_scope.cancel()
            if (await stage.at()).phase.ended:
                break
    at = await stage.at()
    assert at.phase is Phase.PROMOTED, at
    weights = [message for _, message in await stage.writers()]
    assert weights == [f"rollout shop: {weight}% to v2" for weight in (0, 5, 30, 60, 100)]
    assert "paused" not in stage.words()
    assert stage.failures == []
    assert number > 1
    assert lost


async def test_a_lost_answer_does_not_bar_the_way_back(stage: Stage) -> None:
    """A weight that was written and never confirmed is one's own, also for an abort that comes right behind it."""
    await stage.start(rollout(**LONG))
    runner = await stage.runner("ci")
    async with running(stage), anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await eventually(lambda: runner.carried)
        (carrier,) = runner.carried.values()
        apply = carrier._store.apply

        async def lossy(changes: Any, **options: Any) -> Any:
            done = await apply(changes, **options)
            if "5%" in options["message"]:
                carrier.record = msgspec.structs.replace(
                    carrier.record, wish="abort", wished=1, wished_by="ops"
                )
                raise KvError("the answer was lost", maybe=True)
            return done

        carrier._store.apply = lossy  # type: ignore[method-assign]  # a stand-in for this test
        await stage.phase(Phase.ABORTED)
        tasks.cancel_scope.cancel()
    assert [message for _, message in await stage.writers()] == [
        f"rollout shop: {weight}% to v2" for weight in (0, 5, 0)
    ]
    assert await stage.route() == V1
