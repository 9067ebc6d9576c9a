"""Races: who answers first is believed, everybody else is told to stop, and nothing is left behind, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from nats_mesh import (
    Context,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    RemoteError,
    Service,
)
from nats_mesh.calling.sending import Sender
from nats_mesh.errors import OverloadedError, PermissionDeniedError, Status
from nats_mesh.mesh import Mesh
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.outcome import encode_error

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
CHOSEN = f"{POLICY}  balancer: round_robin\n"
NEVER = 3600.0


class Shop:
    """A service whose attempts, in the order of their coming, take as long as ``naps`` says; negative: then fail.

    ``policy`` is what its caller follows, ``instances`` how many serve.
    """

    def __init__(self, policy: str, *naps: float, instances: int = 3, concurrency: int = 64) -> None:
        self.policy = PolicySet.of(parse(policy))
        self.balanced = policy == CHOSEN
        self.naps = list(naps)
        self.came = 0
        self.stopped = 0
        self.asked: list[str] = []
        self.services = [
            Service("shop", version="1.0.0", instance=f"i{number + 1}") for number in range(instances)
        ]
        for service in self.services:
            service.endpoint(concurrency=concurrency)(self._endpoint())

    def _endpoint(self) -> Callable[[Context], Awaitable[int]]:
        async def get(ctx: Context) -> int:
            """Which attempt it is."""
            number = self.came
            self.came += 1
            self.asked.append(ctx.instance)
            nap = self.naps[number]
            try:
                await anyio.sleep(abs(nap))
            except anyio.get_cancelled_exc_class():
                self.stopped += 1
                raise
            if nap < 0.0:
                raise RuntimeError("on purpose")
            return number

        return get


def under_way(caller: Mesh) -> list[int]:
    """How many calls of the shop the caller thinks each instance holds."""
    balance = caller.client._targets["shop.get"].balance
    return [] if balance is None else [each.in_flight for each in balance.group.members.values()]


def run(shop: Shop, work: Callable[[MemoryMesh, Mesh], Awaitable[None]]) -> None:
    """``work`` with a caller under the policy, in virtual time; afterwards nobody waits for anything."""

    async def whole() -> None:
        async with MemoryMesh(*shop.services) as mesh:
            async with mesh.client("web", policies=shop.policy) as caller:
                naps, shop.naps = shop.naps, [0.0] * 5
                for _ in range(5):  # each call earns one hedge
                    await caller.call("shop.get")
                    await anyio.sleep(1.0)
                shop.naps, shop.came, shop.asked = naps, 0, []
                await work(mesh, caller)
                assert caller.client.mux.pending == 0
                assert not any(under_way(caller))
                if shop.balanced:
                    assert len(under_way(caller)) == len(shop.services)
                    assert len(set(shop.asked)) == len(shop.asked), "nobody is asked twice"
            await anyio.sleep(1.0)

    run_virtual(whole)


@pytest.fixture(params=[POLICY, CHOSEN], ids=["queue", "round_robin"])
def policy(request: pytest.FixtureRequest) -> str:
    """The queue group's choice, and a balancer's."""
    text: str = request.param
    return text


def test_a_quick_answer_needs_no_race(policy: str) -> None:
    """One attempt, in its own time."""
    shop = Shop(policy, 0.099)

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
def test_the_first_answer_counts(
    policy: str, naps: tuple[float, ...], answer: int, took_s: float, stopped: int
) -> None:
    """It ends the call at once, and the instances hear that nobody waits for the others."""
    shop = Shop(policy, *naps)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        reply = await caller.request("shop.get")
        assert (reply.value, reply.attempts) == (answer, len(naps))
        assert reply.duration_s == pytest.approx(took_s, abs=0.01)

    run(shop, work)
    assert (shop.came, shop.stopped) == (len(naps), stopped)


def test_an_error_is_an_answer(policy: str) -> None:
    """What a handler ended with is not covered up by asking another one."""
    shop = Shop(policy, -0.15, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        with pytest.raises(RemoteError, match="internal error") as caught:
            await caller.call("shop.get")
        assert (caught.value.attempts, caught.value.executed) == (2, Executed.YES)

    run(shop, work)
    assert shop.stopped == 1


def test_answers_of_one_turn_are_both_taken_back(policy: str) -> None:
    """The second one of the same instant changes nothing."""
    shop = Shop(policy, 0.2, 0.1)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        assert await caller.call("shop.get") in (0, 1)

    run(shop, work)
    assert shop.came in (2, 3)


def test_when_time_is_up_everybody_is_told(policy: str) -> None:
    """The deadline is the call's, for each of its attempts."""
    shop = Shop(policy, NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await caller.call("shop.get", timeout=1.0)
        assert anyio.current_time() - start == pytest.approx(1.0, abs=0.01)
        assert caught.value.attempts == 3

    run(shop, work)
    assert shop.stopped == 3


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.25])
def test_a_call_that_is_cancelled_cancels_all_its_attempts(policy: str, after_s: float) -> None:
    """Before the race, with one hedge, with two."""
    shop = Shop(policy, NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        with anyio.move_on_after(after_s):
            await caller.call("shop.get")

    run(shop, work)
    assert shop.came == shop.stopped == 1 + int(after_s / 0.1)


def test_a_connection_that_is_lost_ends_a_race(policy: str) -> None:
    """Nobody knows what became of either attempt."""
    shop = Shop(policy, NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        meanwhile = asyncio.ensure_future(cut(caller))
        with pytest.raises(DisconnectedError) as caught:
            await caller.call("shop.get")
        await meanwhile
        assert (caught.value.attempts, caught.value.executed) == (2, Executed.MAYBE)

    async def cut(caller: Mesh) -> None:
        await anyio.sleep(0.15)
        caller.client.mux.on_disconnect("on purpose")

    run(shop, work)


def test_a_denied_publish_ends_a_race(policy: str) -> None:
    """The server's refusal comes late, when both attempts were written; nothing of them is left behind."""
    shop = Shop(policy, NEVER, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        meanwhile = asyncio.ensure_future(deny(caller))
        with pytest.raises(PermissionDeniedError):
            await caller.call("shop.get")
        await meanwhile

    async def deny(caller: Mesh) -> None:
        await anyio.sleep(0.15)
        for _, subject, _ in list(caller.client.mux.calls.values()):
            caller.client.mux.on_denied("publish", subject)

    run(shop, work)


@pytest.mark.parametrize("what", ["answer", "disconnect"])
def test_a_call_that_is_cancelled_as_it_is_decided_gives_everything_back(policy: str, what: str) -> None:
    """Its task is cancelled in the turn of the loop in which the race ended."""
    shop = Shop(policy, NEVER, 0.05, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        task = asyncio.ensure_future(caller.call("shop.get"))
        await anyio.sleep(0.14)
        mux = caller.client.mux
        if what == "disconnect":
            mux.on_disconnect("on purpose")
        else:
            mux._on_message(next(iter(mux.calls)), "", b"NATS/1.0\r\nMesh-Instance: i1\r\n\r\n", b"0")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(shop, work)


def test_a_refusal_is_no_answer_while_another_attempt_runs(policy: str) -> None:
    """The hedge is refused at once, and the first goes on; where everybody refuses, the last refusal is told."""
    shop = Shop(policy, 0.15, NEVER, NEVER, NEVER, instances=1, concurrency=1)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        reply = await caller.request("shop.get")
        # Where the balancer knows that nobody else is there, nobody else is asked.
        assert (reply.value, reply.attempts) == (0, 1 if shop.balanced else 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: caller.call("shop.get", timeout=10.0, idempotent=False))
            await anyio.sleep(0.01)
            with pytest.raises(OverloadedError):
                await caller.call("shop.get")
            tasks.cancel_scope.cancel()
        shop.asked.clear()

    run(shop, work)


def test_an_injected_error_does_not_hide_that_another_attempt_may_have_run(policy: str) -> None:
    """The hedge is aborted before its handler; the first attempt was under way."""
    shop = Shop(policy, NEVER, NEVER)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        async def answer() -> None:
            await anyio.sleep(0.15)
            mux = caller.client.mux
            block, body = encode_error(Status.UNAVAILABLE, "injected", instance="i1")
            mux._on_message(list(mux.calls)[-1], "", block[:-2] + b"Mesh-Fault: abort\r\n\r\n", body)

        meanwhile = asyncio.ensure_future(answer())
        with pytest.raises(RemoteError, match="injected") as caught:
            await caller.call("shop.get")
        await meanwhile
        assert caught.value.executed is Executed.MAYBE

    run(shop, work)


def test_what_cannot_be_written_leaves_the_first_attempt_alone(
    policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stands in the way of a hedge: the call goes on, and the log says why there was none."""
    shop = Shop(policy, 0.3)

    async def work(mesh: MemoryMesh, caller: Mesh) -> None:
        def broken(*args: Any) -> None:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "on purpose")

        monkeypatch.setattr(Sender, "hedge", broken)
        reply = await caller.request("shop.get")
        assert (reply.value, reply.attempts) == (0, 1)

    run(shop, work)
    assert "a hedge could not be written" in caplog.text
