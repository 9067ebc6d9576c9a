"""Calls leave nothing behind: 500 and 5,000 in ``make test``, 10⁵ and 10⁶ in ``make verify``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from nats_mesh import ApplicationError, CallError, Context, Mesh, Service
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.discovery.observer import Observer
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from tests.harness import eventually
from tests.tools import is_full_run, scaled

pytestmark = pytest.mark.anyio

FEW, MANY = scaled(500, 100_000), scaled(5_000, 1_000_000)
IN_FLIGHT = 64
TIMEOUT_S = 2.0
#: What the interpreter itself may hold on to between two counts of its objects.
SLACK = 200
MAX_GROWTH_BYTES = 2 << 20


class NoSuch(ApplicationError, status="NOT_FOUND"):
    """A declared error."""

    key: int


def _service() -> Service:
    service = Service("soaked", version="1.0.0")

    @service.endpoint(raises=(NoSuch,))
    async def get(key: int, ctx: Context) -> int:
        ctx.reply_headers["x-key"] = str(key)
        if key % 7 == 0:
            raise NoSuch(key=key)
        if key % 11 == 0:
            return int(await ctx.call("soaked.double", key, returns=int))
        if key % 13 == 0:
            await anyio.sleep(0.05)
        return key

    @service.endpoint()
    async def double(key: int) -> int:
        return key * 2

    return service


async def _round(mesh: Mesh, first: int, last: int, outcomes: Counter[str]) -> None:
    """Every kind of ending: values, declared errors, timeouts, cancellations, nobody there."""
    keys = iter(range(first, last))

    async def worker() -> None:
        for key in keys:
            try:
                if key % 17 == 0:
                    await mesh.call("nobody.here", key, timeout=TIMEOUT_S)
                elif key % 19 == 0:
                    with anyio.move_on_after(0.001):
                        await mesh.call("soaked.get", 13, returns=int, timeout=TIMEOUT_S)
                else:
                    await mesh.call(
                        "soaked.get",
                        key,
                        returns=int,
                        timeout=0.02 if key % 13 == 0 else TIMEOUT_S,
                        raises=(NoSuch,),
                    )
                outcomes["ended"] += 1
            except CallError as error:
                outcomes[str(error.status)] += 1

    async with anyio.create_task_group() as workers:
        for _ in range(IN_FLIGHT):
            workers.start_soon(worker)


def _held(mesh: Mesh, instance: Instance, observer: Observer) -> dict[str, int]:
    """Tables, tasks, descriptors."""
    return {
        "pending at the caller": mesh.client.mux.pending,
        "pending at the service": instance.client.mux.pending,
        "in flight": instance.dispatcher.in_flight,
        "slots": sum(served.concurrency.in_flight for served in instance.dispatcher.served.values()),
        "instances observed": len(observer.registry),
        "peers": instance.peers,
        "series": len(mesh.stats.by_endpoint("out")) + len(instance.stats.by_endpoint("in")),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
    }


def _timers() -> int:
    """Timers that will fire; asyncio keeps cancelled ones for a while, uvloop shows none."""
    return sum(not timer.cancelled() for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()))


async def _rest() -> None:
    """Return once the loop holds no cancelled timers any more: each goes at the time at which it would have fired."""
    loop = asyncio.get_running_loop()
    await eventually(lambda: not any(timer.cancelled() for timer in getattr(loop, "_scheduled", ())))


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def _rss_bytes() -> int:
    """Resident memory of this process; 0 where /proc does not tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(3_600)
async def test_ten_times_the_calls_leave_nothing_more_behind(
    nats_server: NatsServer, mesh_namespace: str, record_property: Callable[[str, object], None]
) -> None:
    """Tables, timers, tasks, descriptors, objects and memory are the same after ten times as many calls."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    outcomes: Counter[str] = Counter()
    async with Mesh("soak", settings=settings) as mesh, _observing(mesh) as observer:
        await mesh.client.transport.fence()
        async with Instance(_service(), settings=settings) as instance:
            await eventually(lambda: len(observer.registry) == 1)
            timers = _timers()
            await _round(mesh, 1, 1 + FEW, outcomes)
            # A timer may outlive its call and serve the next one; none outlives the longest timeout.
            await eventually(lambda: _timers() <= timers and instance.dispatcher.in_flight == 0, _timers)
            await _rest()
            objects, before, rss = _objects(), _held(mesh, instance, observer), _rss_bytes()
            await _round(mesh, 1 + FEW, 1 + MANY, outcomes)
            await eventually(lambda: _timers() <= timers, _timers)
            with contextlib.suppress(AssertionError):
                await eventually(lambda: _held(mesh, instance, observer) == before)
            assert _held(mesh, instance, observer) == before
            await _rest()
            assert _objects() - objects <= SLACK
            grown = _rss_bytes() - rss
            record_property("rss_growth_bytes", grown)
            # Few calls do not yet fill what an interpreter fills once: its free lists, the allocator's arenas.
            assert grown <= (MAX_GROWTH_BYTES if is_full_run() else 8 * MAX_GROWTH_BYTES)
            answered = sum(total.requests for total in instance.stats.by_endpoint("in").values())
    assert sum(outcomes.values()) == MANY
    assert {"ended", "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED"} <= set(outcomes)
    assert answered > MANY // 2


@contextlib.asynccontextmanager
async def _observing(mesh: Mesh) -> AsyncIterator[Observer]:
    client = mesh.client
    observer = Observer(
        subjects=client.subjects, transport=client.transport, mux=client.mux, clock=SYSTEM_CLOCK
    )
    try:
        yield observer
    finally:
        observer.close()
