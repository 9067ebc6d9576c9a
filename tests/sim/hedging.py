"""A handler that now and then takes twenty times as long: what asking a second instance does to the slowest calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from nats_mesh import Context
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel
from tests.sim.report import Report, quantile, rates
from tests.sim.world import World, destination

__all__ = ["POLICIES", "WAYS", "Way", "hedging", "more_attempts", "p99_s", "report"]

Way: TypeAlias = Literal["after 30 ms", "after the 90th percentile", "not hedged"]
WAYS: tuple[Way, ...] = ("after 30 ms", "after the 90th percentile", "not hedged")
POLICIES: Mapping[Way, str] = {
    "after 30 ms": destination("idempotent: true\nhedge: {delay: 30ms}"),
    "after the 90th percentile": destination("idempotent: true\nhedge: {quantile: 90%}"),
    "not hedged": destination("idempotent: true"),
}
_COLOURS: Mapping[Way, str] = {
    "after 30 ms": OURS, "after the 90th percentile": OTHER, "not hedged": PLAIN,
}  # fmt: skip

_INSTANCES: Final = 4
_CALLS_PER_S: Final = 100.0
_WORK_S: Final = 0.02
_SLOW_SHARE: Final = 0.05
_SLOW_FACTOR: Final = 20.0


def hedging(way: Way, *, seed: int, for_s: float) -> World:
    """So many seconds of it. Whether an attempt is slow is a matter of chance, not of the call or of the instance."""

    async def main() -> World:
        async def work(ctx: Context) -> None:
            takes_s = _WORK_S * world.chance.uniform(0.8, 1.2)
            await asyncio.sleep(takes_s * (_SLOW_FACTOR if world.chance.random() < _SLOW_SHARE else 1.0))

        async with World(seed, POLICIES[way]) as world:
            await world.serve(work, _INSTANCES)
            await world.load(_CALLS_PER_S, for_s)
        return world

    return run_virtual(main)


def p99_s(world: World) -> float:
    """Of all calls."""
    return quantile([call.took for call in world.calls], 0.99)


def more_attempts(world: World) -> float:
    """How many more attempts there were than calls, as a share of these."""
    return len(world.attempts) / len(world.calls) - 1.0


def report() -> Report:
    """With seed 1, a minute each."""
    seed, for_s = 1, 60
    rows, lines, sent = [], [], []
    for way in WAYS:
        world = hedging(way, seed=seed, for_s=for_s)
        took = [1000 * call.took for call in world.calls]
        steps = [number / 1000 for number in range(900, 1000)]
        lines.append(Line(way, [(100 * q, quantile(took, q)) for q in steps], _COLOURS[way]))
        attempts = [attempt.at for attempt in world.attempts]
        sent.append(Line(way, rates(attempts, for_s, every_s=5.0), _COLOURS[way]))
        cells = [f"{quantile(took, q):.0f}" for q in (0.5, 0.9, 0.95, 0.99, 0.999)]
        rows.append((way, f"{len(took):,}", *cells, f"{more_attempts(world):.1%}"))
    return Report(
        name="hedging",
        title="Hedged calls",
        rule="Hedging lowers p99 by 40 % or more, at 10 % more attempts or fewer.",
        setup=f"{_INSTANCES} instances; work takes {1000 * _WORK_S:.0f} ms ± 20 %, {_SLOW_SHARE:.0%} of the attempts "
        f"take {_SLOW_FACTOR:g} times as long. {_CALLS_PER_S:g} calls a second, {for_s} s, seed {seed}.",
        head=("", "calls", "p50 ms", "p90", "p95", "p99", "p99.9", "more attempts"),
        rows=rows,
        remark="The percentile must lie below the slow answers: where 5 % are slow, the 95th may be a slow one.",
        panels=(
            Panel("What so many per cent of the calls do not exceed, ms", "per cent", lines, log=True),
            Panel("Attempts a second", "seconds", sent),
        ),
        policies=[(way.capitalize(), POLICIES[way]) for way in WAYS],
    )
