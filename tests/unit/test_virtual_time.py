"""The event loop whose clock jumps: hours take no time, order and worker threads are as in real time."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time

import anyio
import anyio.to_thread
import pytest

from nats_mesh.testing import LoopClock, VirtualTimeLoop, run_virtual, virtual
from nats_mesh.wire.loop import in_thread


def test_a_day_passes_at_once_and_exactly() -> None:
    """Sleeping moves the clock by what was asked for; the real clock hardly moves."""

    async def main() -> tuple[float, float]:
        clock = LoopClock()
        before, wall = clock.monotonic(), clock.time()
        await anyio.sleep(86_400.0)
        return clock.monotonic() - before, clock.time() - wall

    start = time.monotonic()
    assert run_virtual(main) == (86_400.0, 86_400.0)
    assert time.monotonic() - start < 60.0


def test_timers_fire_in_order_whatever_the_order_they_were_set_in() -> None:
    """Each at its own instant, those of one instant in the order they were set."""

    async def main() -> list[tuple[int, float]]:
        loop, fired = asyncio.get_running_loop(), list[tuple[int, float]]()
        start = loop.time()

        def note(number: int) -> None:
            fired.append((number, loop.time() - start))

        for number, delay in enumerate([5.0, 1.0, 3.0, 1.0, 0.5]):
            loop.call_later(delay, note, number)
        await anyio.sleep(10.0)
        return fired

    assert run_virtual(main) == [(4, 0.5), (1, 1.0), (3, 1.0), (2, 3.0), (0, 5.0)]


def test_time_stands_still_while_anything_can_run() -> None:
    """Work between two instants takes none of it, however much it is."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time() - start

    assert run_virtual(main) == 0.0


def test_timeouts_hold_in_virtual_time() -> None:
    """asyncio's and anyio's, at their exact instant."""

    async def main() -> list[float]:
        loop, ends = asyncio.get_running_loop(), list[float]()
        start = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.0):
                await asyncio.Event().wait()
        ends.append(loop.time() - start)
        with anyio.move_on_after(3.0):
            await anyio.sleep_forever()
        ends.append(loop.time() - start)
        return ends

    assert run_virtual(main) == [7.0, 10.0]


def test_two_runs_are_the_same() -> None:
    """A hundred tasks that sleep by a seeded chance interleave in the same way, to the last digit."""

    async def main(seed: int) -> list[tuple[float, int]]:
        rng, steps = random.Random(seed), list[tuple[float, int]]()
        loop = asyncio.get_running_loop()

        async def walk(number: int) -> None:
            for _ in range(10):
                await asyncio.sleep(rng.random())
                steps.append((loop.time(), number))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(walk, number)
        return steps

    assert run_virtual(main, 1) == run_virtual(main, 1) != run_virtual(main, 2)


def test_a_worker_thread_is_waited_for() -> None:
    """While a handler runs in a thread the clock does not jump over it, even with a timer pending."""

    async def main() -> tuple[str, float, bool]:
        loop = asyncio.get_running_loop()
        start, timed_out = loop.time(), threading.Event()
        loop.call_later(0.001, timed_out.set)
        release = threading.Event()

        def work() -> str:
            release.wait(0.05)
            return "done"

        result = await in_thread(work, anyio.CapacityLimiter(1))
        return result, loop.time() - start, timed_out.is_set()

    assert run_virtual(main) == ("done", 0.0, False)


def test_sockets_are_served_before_the_clock_moves() -> None:
    """Bytes that are there are read at the instant they are there."""

    async def main() -> tuple[bytes, float]:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            loop = asyncio.get_running_loop()
            start = loop.time()
            theirs.send(b"now")
            async with asyncio.timeout(5.0):
                data = await reader.read(3)
            took = loop.time() - start
            writer.close()
            await writer.wait_closed()
        return data, took

    assert run_virtual(main) == (b"now", 0.0)


def test_a_test_that_can_never_go_on_fails_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer, nothing ready, no thread: that is said, after a moment of real time."""
    monkeypatch.setattr(virtual, "_STUCK_S", 0.05)
    loop = VirtualTimeLoop()

    async def stuck() -> None:
        await loop.create_future()

    task = loop.create_task(stuck())
    try:
        with pytest.raises(RuntimeError, match="nothing will ever happen"):
            loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    finally:
        loop.close()


def test_the_clock_of_an_ordinary_loop_is_real() -> None:
    """A LoopClock follows whatever loop it was made on."""

    async def main() -> None:
        clock = LoopClock()
        assert abs(clock.monotonic() - asyncio.get_running_loop().time()) < 60.0
        before = clock.monotonic()
        await asyncio.sleep(0.001)
        assert clock.monotonic() > before

    asyncio.run(main())
