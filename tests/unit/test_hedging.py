"""Races: who answers first is believed, everybody else is told to stop, and nothing is left behind, however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from nats_mesh import (
    CallError,
    Context,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    RemoteError,
    Service,
)
from nats_mesh.errors import OverloadedError
from nats_mesh.mesh import Mesh
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual

#: A hedge after 100 ms, another one 100 ms later, and no retries.
POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: hedged}
spec:
  idempotent: true
  breaker: off
  retry: {attempts: 1}
  hedge: {delay: 100ms, maxExtra: 2, maxRatio: 100%}
"""
NEVER = 3600.0


class Shop:
    """A service whose attempts, in the order of their coming, take as long as ``naps`` says; negative: then fail."""

    def __init__(self, *naps: float) -> None:
        self.naps = list(naps)
        self.came = 0
        self.stopped = 0
        self.service = Service("shop", version="1.0.0")
        self.service.endpoint()(self.get)

    async def get(self, ctx: Context) -> int:
        """Which attempt it is."""
        number = self.came
        self.came += 1
        nap = self.naps[number]
        try:
            await anyio.sleep(abs(nap))
        except anyio.get_cancelled_exc_class():
            self.stopped += 1
            raise
        if nap < 0.0:
            raise RuntimeError("on purpose")
        return number


def run(shop: Shop, work: Callable[[MemoryMesh, Mesh], Awaitable[None]], **options: Any) -> None:
    """``work`` with a caller under the policy, in virtual time; afterwards nobody waits for anything."""

    async def whole() -> None:
        async with MemoryMesh(shop.service) as mesh:
            async with mesh.client("web", policies=PolicySet.of(parse(POLICY))) as caller:
                naps, shop.naps = shop.naps, [0.0] * 4
                for _ in range(4):  # each call earns one hedge
                    await caller.call("shop.get")
                shop.naps, shop.came = naps, 0
                await work(mesh, caller)
                assert caller.client.mux.pending == 0
            await anyio.sleep(1.0)

    run_virtual(whole)


def test_a_quick_answer_needs_no_race() -> None:
    """One attempt, in its own time."""
    shop = Shop(0.099)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        reply = await caller.request("shop.get")
        assert (reply.value, reply.attempts) == (0, 1)

    run(shop, work)
    assert (shop.came, shop.stopped) == (1, 0)


@pytest.mark.parametrize(
    ("naps", "answer", "took_s", "stopped"),
    [
        pytest.param((NEVER, 0.05), 1, 0.15, 1, id="the second"),
        pytest.param((0.15, NEVER), 0, 0.15, 1, id="the first after all"),
        pytest.param((NEVER, NEVER, 0.05), 2, 0.25, 2, id="the third"),
        pytest.param((0.25, NEVER, NEVER), 0, 0.25, 2, id="the first after two hedges"),
    ],
)
def test_the_first_answer_counts(naps: tuple[float, ...], answer: int, took_s: float, stopped: int) -> None:
    """It ends the call at once, and the instances hear that nobody waits for the others."""
    shop = Shop(*naps)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        reply = await caller.request("shop.get")
        assert (reply.value, reply.attempts) == (answer, len(naps))
        assert reply.duration_s == pytest.approx(took_s, abs=0.01)

    run(shop, work)
    assert (shop.came, shop.stopped) == (len(naps), stopped)


def test_an_error_is_an_answer() -> None:
    """What a handler ended with is not covered up by asking another one."""
    shop = Shop(-0.15, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        with pytest.raises(RemoteError, match="internal error") as caught:
            await caller.call("shop.get")
        assert (caught.value.attempts, caught.value.executed) == (2, Executed.YES)

    run(shop, work)
    assert shop.stopped == 1


def test_answers_of_one_turn_are_both_taken_back() -> None:
    """The second one of the same instant changes nothing."""
    shop = Shop(0.2, 0.1)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        assert await caller.call("shop.get") in (0, 1)

    run(shop, work)
    assert shop.came in (2, 3)


def test_when_time_is_up_everybody_is_told() -> None:
    """The deadline is the call's, for each of its attempts."""
    shop = Shop(NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await caller.call("shop.get", timeout=1.0)
        assert anyio.current_time() - start == pytest.approx(1.0, abs=0.01)
        assert caught.value.attempts == 3

    run(shop, work)
    assert shop.stopped == 3


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.25])
def test_a_call_that_is_cancelled_cancels_all_its_attempts(after_s: float) -> None:
    """Before the race, with one hedge, with two."""
    shop = Shop(NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        with anyio.move_on_after(after_s):
            await caller.call("shop.get")

    run(shop, work)
    assert shop.came == shop.stopped == 1 + int(after_s / 0.1)


def test_closing_ends_a_race() -> None:
    """Whoever closes the client does not leave a call behind."""
    shop = Shop(NEVER, NEVER, NEVER)
    caught: list[CallError] = []

    async def whole() -> None:
        async with MemoryMesh(shop.service) as mesh, anyio.create_task_group() as tasks:

            async def call(caller: Mesh) -> None:
                try:
                    await caller.call("shop.get")
                except CallError as error:
                    caught.append(error)

            async with mesh.client("web", policies=PolicySet.of(parse(POLICY))) as caller:
                tasks.start_soon(call, caller)
                await anyio.sleep(0.15)
                caller.client.mux.on_disconnect("on purpose")
                await anyio.sleep(0.01)

    run_virtual(whole)
    (error,) = caught
    assert isinstance(error, DisconnectedError)
    assert (error.attempts, error.executed) == (2, Executed.MAYBE)


def test_where_everybody_refuses_the_last_refusal_is_told() -> None:
    """A refusal is no answer while another attempt runs; the last one is."""
    shop = Shop(0.15, NEVER)
    shop.service = Service("shop", version="1.0.0")
    shop.service.endpoint(concurrency=1)(shop.get)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        reply = await caller.request("shop.get")  # the hedge is refused at once, the first goes on
        assert (reply.value, reply.attempts) == (0, 2)
        async with anyio.create_task_group() as tasks:
            shop.naps = [NEVER, NEVER]
            tasks.start_soon(lambda: caller.call("shop.get", timeout=10.0, idempotent=False))
            await anyio.sleep(0.01)
            with pytest.raises(OverloadedError):
                await caller.call("shop.get")
            tasks.cancel_scope.cancel()

    run(shop, work)
