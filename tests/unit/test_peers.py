"""The pace of presence follows the size of the service."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import anyio
import pytest

from nats_mesh import CallError, Context, Service
from nats_mesh.clock import ManualClock
from nats_mesh.discovery.messages import nominal_interval_s
from nats_mesh.discovery.overdue import (
    MAX_CALLED,
    MAX_OVERDUE,
    Overdue,
    called_in,
    called_metadata,
    overdue_in,
    overdue_metadata,
)
from nats_mesh.discovery.peers import Peers
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions


def _service() -> Service:
    service = Service("many", version="1.0.0")

    @service.endpoint()
    async def ping() -> None:
        return None

    return service


def test_everybody_knows_how_many_there_are() -> None:
    """Each instance counts the others from their presence, and those that leave no more."""

    async def main() -> None:
        async with MemoryMesh() as mesh:
            instances = [await mesh.serve(_service()) for _ in range(5)]
            await anyio.sleep(10)  # virtual: everybody has beaten at least once
            assert [i.peers for i in instances] == [5] * 5
            await instances[0].drain()
            await anyio.sleep(1)
            assert [i.peers for i in instances[1:]] == [4] * 4

    run_virtual(main)


def test_a_large_service_beats_more_slowly() -> None:
    """Many instances promise a longer interval; silent ones are forgotten, forged ones never counted."""

    async def main() -> None:
        bus, clock = MemoryBus(), ManualClock()
        transport = await bus.connect(ConnectOptions(name="many"))
        peers = Peers(
            service="many", subjects=Subjects("default"), transport=transport, clock=clock, enforced=True
        )
        for number in range(1000):
            transport.publish(f"mesh.default.presence.many.i{number}", b"{}", "_INBOX.many.c.s.0")
        transport.publish("mesh.default.presence.many.forged", b"{}", "_INBOX.other.c.s.0")
        await transport.fence()
        assert peers.count() == 1000
        assert nominal_interval_s(peers.count()) == 50.0
        clock.advance(4 * 50.0 + 1)
        assert peers.count() == 1

    run_virtual(main)


@pytest.mark.anyio
async def test_the_others_say_whether_they_take_calls() -> None:
    """Ready ones serve, draining ones stand aside, until two beats are missed; who leaves is neither. It is read while
    anybody asks for it."""
    bus, clock = MemoryBus(), ManualClock()
    transport = await bus.connect(ConnectOptions(name="many"))
    peers = Peers(
        service="many",
        instance="me",
        subjects=Subjects("default"),
        transport=transport,
        clock=clock,
        enforced=True,
    )

    async def say(instance: str, **fields: object) -> None:
        body = {"type": "beat", "state": "ready", "interval_s": 5.0, **fields}
        subject = f"mesh.default.presence.many.{instance}"
        transport.publish(subject, json.dumps(body).encode(), "_INBOX.many.c.s.0")
        await transport.fence()

    peers.watch(True, "verdicts")
    peers.watch(True)
    for instance in ("me", "a", "b"):
        await say(instance)
    await say("c", state="draining")
    await say("d", state="joining")
    await say("e", state="asleep")
    assert peers.others() == ({"a", "b"}, {"c"})
    await say("b", type="leave", state="draining")
    peers.watch(False)
    await say("c")
    assert peers.others() == ({"a", "c"}, set())
    clock.advance(12.9)
    assert peers.others() == ({"a", "c"}, set())
    clock.advance(0.2)
    assert peers.others() == (set(), set())
    await say("a")
    peers.watch(False, "verdicts")
    assert peers.others() == (set(), set())
    assert not peers.watching


@pytest.mark.anyio
async def test_who_goes_by_credit_knows_who_has_room() -> None:
    """Ready, not full, heard lately and believed: only those count, never oneself, and a change is told."""
    bus, clock, told = MemoryBus(), ManualClock(), list[int]()
    transport = await bus.connect(ConnectOptions(name="many"))
    peers = Peers(
        service="many",
        instance="me",
        subjects=Subjects("default"),
        transport=transport,
        clock=clock,
        enforced=True,
        on_room=lambda: told.append(1),
    )

    async def say(instance: str, reply: str = "_INBOX.many.c.s.0", **fields: object) -> None:
        body = {"type": "beat", "state": "ready", "interval_s": 5.0, "load": {"in_flight": 1, "limit": 2}}
        transport.publish(
            f"mesh.default.presence.many.{instance}", json.dumps({**body, **fields}).encode(), reply
        )
        await transport.fence()

    await say("a")
    assert (peers.with_room(), told) == (0, []), "nothing is read until somebody asks for it"
    peers.watch(True)
    await say("a")
    assert (peers.with_room(), len(told)) == (1, 1)
    await say("me")
    assert (peers.with_room(), len(told)) == (1, 1)
    await say("b", load={"in_flight": 2, "limit": 2})
    await say("c", load={"in_flight": 1, "limit": 2, "full": True})
    await say("d", state="draining")
    await say("e", reply="_INBOX.other.c.s.0")
    await say("f", type="leave")
    await say("g", load="heavy")
    assert peers.with_room() == 1
    clock.advance(6.4)
    assert peers.with_room() == 1
    clock.advance(0.2)
    assert peers.with_room() == 0, "one beat was missed"
    await say("a")
    await say("a", type="leave")
    assert peers.with_room() == 0
    await say("a")
    peers.watch(False)
    assert peers.with_room() == 0


@pytest.mark.anyio
async def test_those_not_heard_for_the_longest_are_told_of() -> None:
    """By id and name, the longest silence first; never the instance itself, nor who has left, nor for ever; of many
    the first ones."""
    bus, clock = MemoryBus(), ManualClock()
    transport = await bus.connect(ConnectOptions(name="many"))
    peers = Peers(
        service="many",
        instance="me",
        subjects=Subjects("default"),
        transport=transport,
        clock=clock,
        enforced=True,
    )

    async def say(instance: str, kind: str = "beat", name: object = "host-1") -> None:
        body = json.dumps({"type": kind, "name": name}).encode()
        transport.publish(f"mesh.default.presence.many.{instance}", body, "_INBOX.many.c.s.0")
        await transport.fence()

    assert peers.overdue() == []
    await say("hung", name="host-7")
    await say("left")
    clock.advance(2.0)
    await say("me")
    await say("well", name=7)
    await say("left", "leave")
    await say("no~name")
    assert peers.overdue() == [
        Overdue(instance="hung", name="host-7", heard_s=2.0), Overdue(instance="well", heard_s=0.0),
    ]  # fmt: skip
    for _ in range(119):
        clock.advance(5.0)
        await say("me")
        await say("well")
        assert peers.count() in (2, 3)
    assert [each.instance for each in peers.overdue()] == ["hung", "well"]
    clock.advance(5.0)
    assert [each.instance for each in peers.overdue()] == ["well"]
    for number in range(2 * MAX_OVERDUE):
        await say(f"i{number:02}")
    assert [each.instance for each in peers.overdue()] == [
        "well",
        *(f"i{n:02}" for n in range(MAX_OVERDUE - 1)),
    ]
    clock.advance(1.0)
    await say("hung")
    assert "hung" not in [each.instance for each in peers.overdue()]  # it was heard just now


@pytest.mark.anyio
async def test_of_many_that_fell_silent_the_latest_are_remembered() -> None:
    """Nobody who makes up instances makes a table grow."""
    bus, clock = MemoryBus(), ManualClock()
    transport = await bus.connect(ConnectOptions(name="many"))
    peers = Peers(
        service="many", subjects=Subjects("default"), transport=transport, clock=clock, enforced=True
    )
    for number in range(200):
        transport.publish(f"mesh.default.presence.many.i{number:03}", b"{}", "_INBOX.many.c.s.0")
        await transport.fence()
        clock.advance(0.01)
    clock.advance(60.0)
    assert peers.count() == 1
    assert [each.instance for each in peers.overdue()] == [
        f"i{200 - MAX_OVERDUE // 2 + n}" for n in range(MAX_OVERDUE // 2)
    ]


def test_what_members_say_of_others_is_read_as_far_as_it_can_be() -> None:
    """What is written is read again; of what anybody makes up nothing is taken that is no name, and not without end."""
    told = [Overdue(instance="a1", name="host-7", heard_s=1.5), Overdue(instance="b2", heard_s=0.0)]
    assert overdue_in(overdue_metadata(told)) == told
    assert overdue_metadata([]) == {}
    assert called_in(called_metadata(["stock", "orders", "stock"])) == ["orders", "stock"]
    assert called_metadata([]) == {}
    assert len(called_in(called_metadata([f"s{n}" for n in range(500)]))) == MAX_CALLED
    good = {"instance": "a", "name": "", "heard_s": 1}
    for bad in (
        "", "x", "{}", "[1]", json.dumps([{**good, "instance": "a.b"}]), json.dumps([{**good, "name": "a b"}]),
        json.dumps([{**good, "heard_s": -1}]), json.dumps([good] * 2000),
    ):  # fmt: skip
        assert overdue_in({"mesh.peers": bad}) == []
    beside = [{**good, "instance": "a.b"}, good, 7]
    assert overdue_in({"mesh.peers": json.dumps(beside)}) == [Overdue(instance="a", heard_s=1.0)]
    assert len(overdue_in({"mesh.peers": json.dumps([good] * 100)})) == MAX_OVERDUE
    assert called_in({"mesh.calls": "a,b.c,,\x1b[0m,d"}) == ["a", "d"]
    assert called_in({"mesh.calls": "a," * 20_000}) == []


def test_a_member_says_whom_it_calls() -> None:
    """An instance does to who asks about it, a pure client to who asks everybody; plain subjects are no services."""

    async def main() -> None:
        async with MemoryMesh() as mesh, AsyncExitStack() as stack:
            await mesh.serve(_service())
            relay = Service("relay", version="1.0.0")

            @relay.endpoint()
            async def pass_on(ctx: Context) -> None:
                await ctx.call("many.ping")

            await mesh.serve(relay)
            caller = await stack.enter_async_context(mesh.client("front"))
            await caller.call("relay.pass_on")
            with pytest.raises(CallError):
                await caller.call("nats://plain.subject", timeout=0.1)
            transport = await mesh.bus.connect(ConnectOptions(name="observer"))
            answers: list[bytes] = []
            transport.subscribe("_INBOX.observer.c.s.0", lambda *message: answers.append(message[-1]))
            for subject in ("$SRV.INFO", "$SRV.PING"):
                transport.publish(subject, b"", "_INBOX.observer.c.s.0")
            await transport.fence()
            await anyio.sleep(1.0)  # virtual
            told = [json.loads(each) for each in answers]
            calls = {
                (each["name"], each["type"].split(".")[-1][:4]): called_in(each["metadata"]) for each in told
            }
            assert calls[("relay", "info")] == ["many"]
            assert calls[("many", "info")] == []
            assert calls[("front", "ping")] == ["relay"]

    run_virtual(main)


@pytest.mark.anyio
async def test_who_crashes_again_and_again_hides_nobody_who_hangs() -> None:
    """Half of the places are for those that are peers still, however many have ended without leaving."""
    bus, clock = MemoryBus(), ManualClock()
    transport = await bus.connect(ConnectOptions(name="many"))
    peers = Peers(
        service="many", subjects=Subjects("default"), transport=transport, clock=clock, enforced=True
    )
    for number in range(60):
        transport.publish(f"mesh.default.presence.many.crashed{number}", b"{}", "_INBOX.many.c.s.0")
    await transport.fence()
    clock.advance(4 * nominal_interval_s(60) + 1.0)
    assert peers.count() == 1
    transport.publish("mesh.default.presence.many.hung", b"{}", "_INBOX.many.c.s.0")
    await transport.fence()
    clock.advance(1.0)
    told = [each.instance for each in peers.overdue()]
    assert "hung" in told
    assert len(told) == MAX_OVERDUE // 2 + 1
