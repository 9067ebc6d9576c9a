"""What one of many does at a time: one holds it, another takes over, nobody believes that he still has it."""

from __future__ import annotations

import anyio
import pytest

from nats_mesh.mesh import Mesh
from nats_mesh.rollout import Book
from nats_mesh.telemetry.duty import Duty
from nats_mesh.wire.kv import KvAbsentError
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio

#: Short enough that a test waits for it, long enough for a slow machine.
LEASE_S = 1.5


class Member:
    """A member that would do it, with what it was handed."""

    def __init__(self, mesh: Mesh) -> None:
        self.handed: list[bytes] = []
        self.duty = Duty(
            "watch",
            mesh.namespace,
            transport=mesh.client.transport,
            mux=mesh.client.mux,
            lease_s=LEASE_S,
        )
        self._name = mesh.name.encode()

    async def turn(self) -> bool:
        """Renew or take it."""
        return await self.duty.turn(lambda: self._name, self.handed.append)


async def _pair(bus: Bus) -> tuple[Member, Member]:
    meshes = [await bus.caller(name) for name in ("one", "two")]
    client = meshes[0].client
    await Book(bus.namespace, transport=client.transport, mux=client.mux).make()
    return Member(meshes[0]), Member(meshes[1])


async def test_one_holds_it_and_the_other_waits(bus: Bus) -> None:
    """The first to take it has it for as long as it renews it."""
    one, two = await _pair(bus)
    assert await one.turn()
    for _ in range(3):
        assert not await two.turn()
        assert await one.turn()
        await anyio.sleep(LEASE_S / 3)
    assert (one.duty.held, two.duty.held, two.handed) == (True, False, [])
    found = await two.duty.read()
    assert found is not None
    assert found.value == b"one"


async def test_it_is_taken_over_from_the_silent(bus: Bus) -> None:
    """Who falls silent loses it after a lease, what he wrote is handed over, and his next turn says that it is gone."""
    one, two = await _pair(bus)
    assert await one.turn()
    taken = False

    async def take() -> bool:
        nonlocal taken
        taken = taken or await two.turn()
        return taken

    with anyio.fail_after(30):
        while not await take():
            await anyio.sleep(0.1)
    assert (two.handed, two.duty.held) == ([b"one"], True)
    await eventually(lambda: not one.duty.held)
    assert not await one.turn()
    assert not one.duty.held


async def test_it_is_left_for_the_next(bus: Bus) -> None:
    """Who releases it leaves a last word, and holds it no more."""
    one, two = await _pair(bus)
    assert await one.turn()
    await one.duty.release(b"the last word")
    assert not one.duty.held
    with anyio.fail_after(30):
        while not await two.turn():
            await anyio.sleep(0.1)
    assert two.handed == [b"the last word"]


async def test_without_a_bucket_nobody_has_it(bus: Bus) -> None:
    """Where there is no bucket that is said, not passed over."""
    member = Member(await bus.caller("one"))
    with pytest.raises(KvAbsentError):
        await member.turn()
    assert not member.duty.held
