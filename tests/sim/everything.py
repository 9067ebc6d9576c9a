"""A little of everything at once, for the trace alone: balanced, hedged, retried and ejected calls."""

from __future__ import annotations

import asyncio

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.trace import Trace
from tests.sim.world import World, destination

__all__ = ["everything"]

_POLICY = destination(
    "timeout: 1s\nidempotent: true\nbalancer: peak_ewma\nhedge: {delay: 60ms}\n"
    "retry: {attempts: 3}\nejection: {base: 2s, verdicts: {callers: 2}}\nbreaker: {minCalls: 10, open: 1s}"
)


def everything(seed: int, *, for_s: float = 12.0) -> Trace:
    """The trace of so many seconds."""

    async def main() -> Trace:
        async def work(ctx: Context) -> None:
            drawn = world.chance.random()
            if drawn < 0.1 or (ctx.instance == "i3" and drawn < 0.6) or 6.0 < world.now < 8.0:
                raise ApplicationError("out of order", status=Status.UNAVAILABLE)
            await asyncio.sleep(3600.0 if drawn < 0.2 else 0.1 * drawn)

        trace = Trace()
        async with World(seed, _POLICY, trace=trace) as world:
            await world.serve(work, 4, concurrency=8)
            await world.load(60.0, for_s, callers=3)
        return trace

    return run_virtual(main)
