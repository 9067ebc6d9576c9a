"""The pace of presence follows the size of the service."""

from __future__ import annotations

import json

import anyio
import pytest

from nats_mesh import Service
from nats_mesh.clock import ManualClock
from nats_mesh.discovery.messages import nominal_interval_s
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
