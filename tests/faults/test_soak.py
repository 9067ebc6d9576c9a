"""Many calls leave nothing behind: 4,000 in ``make test``, 200,000 in ``make verify``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections import Counter

import anyio
import pytest

from nats_mesh import ApplicationError, CallError, Context, Mesh, Service
from nats_mesh.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from tests.harness import eventually
from tests.tools import scaled

pytestmark = pytest.mark.anyio

CALLS = scaled(4_000, 200_000)
IN_FLIGHT = 32
#: What the interpreter itself may hold on to between two counts of its objects.
SLACK = 200


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
                    await mesh.call("nobody.here", key)
                elif key % 19 == 0:
                    with anyio.move_on_after(0.001):
                        await mesh.call("soaked.get", 13, returns=int)
                else:
                    await mesh.call(
                        "soaked.get",
                        key,
                        returns=int,
                        timeout=0.02 if key % 13 == 0 else 5.0,
                        raises=(NoSuch,),
                    )
                outcomes["ended"] += 1
            except CallError as error:
                outcomes[str(error.status)] += 1

    async with anyio.create_task_group() as workers:
        for _ in range(IN_FLIGHT):
            workers.start_soon(worker)


def _held(mesh: Mesh, instance: Instance) -> dict[str, int]:
    """Tables, tasks, descriptors."""
    return {
        "pending at the caller": mesh.client.mux.pending,
        "pending at the service": instance.client.mux.pending,
        "in flight": instance.dispatcher.in_flight,
        "slots": sum(served.concurrency.in_flight for served in instance.dispatcher.served.values()),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
    }


async def test_many_calls_leave_nothing_behind(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Tables, tasks, file descriptors and objects are the same after many calls as after a few."""
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    outcomes: Counter[str] = Counter()
    async with Instance(_service(), settings=settings) as instance, Mesh("soak", settings=settings) as mesh:
        await _round(mesh, 1, 1 + CALLS // 4, outcomes)
        await eventually(lambda: instance.dispatcher.in_flight == 0)
        before, objects = _held(mesh, instance), _objects()
        await _round(mesh, 1 + CALLS // 4, 1 + CALLS, outcomes)
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: _held(mesh, instance) == before)
        assert _held(mesh, instance) == before
        assert abs(_objects() - objects) <= SLACK
        assert sum(outcomes.values()) == CALLS
        assert {"ended", "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED"} <= set(outcomes)
        answered = sum(total.requests for total in instance.stats.by_endpoint("in").values())
        assert answered > CALLS // 2


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
