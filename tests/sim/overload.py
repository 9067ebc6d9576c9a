"""Twice as many calls as a service can do: what is still done in time, refusing at once or waiting in line."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from nats_mesh import Context
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel
from tests.sim.report import Report, quantile, rates, tails
from tests.sim.world import Machine, World, destination

__all__ = ["CAPACITY_PER_S", "POLICIES", "WAYS", "Way", "goodput_per_s", "overload", "report"]

Way: TypeAlias = Literal["refused at once", "a line, and a breaker", "a line"]
WAYS: tuple[Way, ...] = ("refused at once", "a line, and a breaker", "a line")
POLICIES: Mapping[Way, str] = {
    "refused at once": destination("timeout: 3s"),
    "a line, and a breaker": destination("timeout: 3s"),
    "a line": destination("timeout: 3s\nbreaker: off"),
}
_COLOURS: Mapping[Way, str] = {"refused at once": OURS, "a line, and a breaker": OTHER, "a line": PLAIN}

_INSTANCES: Final = 2
_SLOTS: Final = 25
_WORK_S: Final = 1.0
CAPACITY_PER_S: Final = _INSTANCES * _SLOTS / _WORK_S
#: How long it takes until it is as it stays, seconds.
SETTLED_S: Final = 10


def overload(way: Way, *, seed: int, for_s: float) -> World:
    """So many seconds of it. In a line, as many as come may wait; the slots are the same."""

    async def main() -> World:
        machines = {f"i{number}": Machine(_SLOTS) for number in range(1, _INSTANCES + 1)}

        async def sleep(ctx: Context) -> None:
            await asyncio.sleep(_WORK_S)

        async def wait_and_sleep(ctx: Context) -> None:
            await machines[ctx.instance].work(_WORK_S)

        async with World(seed, POLICIES[way]) as world:
            if way == "refused at once":
                await world.serve(sleep, _INSTANCES, concurrency=_SLOTS)
            else:
                await world.serve(wait_and_sleep, _INSTANCES, concurrency=1_000_000)
            await world.load(2.0 * CAPACITY_PER_S, for_s)
        return world

    return run_virtual(main)


def goodput_per_s(world: World, for_s: float) -> float:
    """Calls that ended well, a second, once it is as it stays."""
    return sum(call.ok and SETTLED_S <= call.ended < for_s for call in world.calls) / (for_s - SETTLED_S)


def report() -> Report:
    """With seed 1, a minute each."""
    seed, for_s = 1, 60
    rows, good, waits = [], [], []
    for way in WAYS:
        world = overload(way, seed=seed, for_s=for_s)
        late = [call for call in world.calls if SETTLED_S <= call.ended < for_s]
        ends = Counter(call.status for call in late)
        failed = [call.took for call in late if not call.ok]
        rows.append(
            (
                way,
                f"{goodput_per_s(world, for_s):.1f}",
                f"{goodput_per_s(world, for_s) / CAPACITY_PER_S:.0%}",
                f"{quantile(failed, 0.5):.3f}",
                ", ".join(f"{status} {count / len(late):.0%}" for status, count in sorted(ends.items())),
            )
        )
        colour = _COLOURS[way]
        good.append(Line(way, rates([c.ended for c in world.calls if c.ok], for_s, every_s=2.0), colour))
        timed = [(call.began, call.took) for call in world.calls]
        waits.append(Line(way, tails(timed, for_s, 0.5, every_s=2.0), colour))
    return Report(
        name="overload",
        title="Twice the load it can bear",
        rule="Where full instances refuse at once, goodput stays at 90 % of capacity or more.",
        setup=f"{_INSTANCES} instances with {_SLOTS} slots, work takes {_WORK_S:g} s: {CAPACITY_PER_S:g} calls a "
        f"second at most; {2 * CAPACITY_PER_S:g} are made, {for_s} s long, seed {seed}. Timeout 3 s. Counted from "
        f"second {SETTLED_S} on.",
        head=("", "goodput a second", "of capacity", "a failed call took, s (median)", "how calls ended"),
        rows=rows,
        remark="In the line everybody waits so long that the time that is left does not suffice: the slots are busy "
        "all the time with work that is stopped before it is done.",
        panels=(
            Panel("Calls that succeeded a second", "seconds", good, top=CAPACITY_PER_S),
            Panel("How long a call took, s (median, by when it began)", "seconds", waits),
        ),
        policies=[(way.capitalize(), POLICIES[way]) for way in WAYS],
    )
