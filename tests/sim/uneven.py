"""Instances of uneven size under one load: refusing what is too much, against leaving the queue group while full."""

from __future__ import annotations

import asyncio

from nats_mesh import Context
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel
from tests.sim.report import Report, quantile, rates, tails
from tests.sim.world import SERVICE, World, destination

__all__ = ["LOADS", "POLICIES", "SLOTS", "p99_s", "refusals", "report", "uneven"]

#: How many pieces of work each instance takes at a time.
SLOTS = (2, 4, 12)
#: How long one takes, ± 50 %.
_WORK_S = 0.5
#: Of what all of them can do together. An even share of the first is more than the smallest can do.
LOADS = (0.3, 0.5, 0.75)

_RETRIES = "retry: {attempts: 4}\ntimeout: 4s\nbreaker: off\n"


def _leaving() -> str:
    return (
        destination(_RETRIES)
        + f"---\napiVersion: mesh/v1\nkind: Limit\nmetadata: {{name: {SERVICE}}}\nspec:\n"
        + f"  target: {{service: {SERVICE}}}\n  concurrency: {{leaveQueue: true}}\n"
    )


POLICIES = {
    "refuse": destination(_RETRIES),
    "leave": _leaving(),
    "least_request": destination(f"{_RETRIES}balancer: least_request"),
}
"""A full instance refuses, and its callers try again; it leaves the queue group; callers choose by load."""

_COLOURS = {"refuse": PLAIN, "leave": OURS, "least_request": OTHER}


def uneven(policy: str, *, seed: int, for_s: float, load: float = LOADS[0]) -> World:
    """So many seconds of it; ``load`` is a part of what all instances together can do."""

    async def main() -> World:
        async def work(ctx: Context) -> None:
            await asyncio.sleep(_WORK_S * world.chance.uniform(0.5, 1.5))

        async with World(seed, POLICIES[policy]) as world:
            for slots in SLOTS:
                await world.serve(work, 1, concurrency=slots)
            await world.load(load * sum(SLOTS) / _WORK_S, for_s, callers=4)
        return world

    return run_virtual(main)


def refusals(world: World) -> int:
    """Attempts that reached no handler."""
    return len(world.attempts) - len(world.runs)


def p99_s(world: World) -> float:
    """Of all calls, failed ones with the time they took to fail."""
    return quantile([call.took for call in world.calls], 0.99)


def report() -> Report:
    """With seed 1, a minute each."""
    seed, for_s = 1, 60
    rows, slowest, tried = [], [], []
    for load in LOADS:
        for name in POLICIES:
            world = uneven(name, seed=seed, for_s=for_s, load=load)
            took = [call.took for call in world.calls]
            rows.append(
                (
                    f"{name}, {load:.0%}",
                    f"{len(took):,}",
                    f"{1000 * quantile(took, 0.5):.0f}",
                    f"{1000 * quantile(took, 0.99):.0f}",
                    f"{refusals(world):,}",
                    f"{sum(not call.ok for call in world.calls):,}",
                )
            )
            if load == LOADS[0]:
                timed = [(call.began, 1000 * call.took) for call in world.calls]
                slowest.append(Line(name, tails(timed, for_s, 0.99), _COLOURS[name]))
                tried.append(Line(name, rates([each.at for each in world.attempts], for_s), _COLOURS[name]))
    slots = ", ".join(str(each) for each in SLOTS)
    return Report(
        name="uneven",
        title="Uneven instances",
        rule="At the lowest load, with leaveQueue at most a third of the refusals, a lower p99, and no more failed "
        "calls than where full instances refuse; with least_request at most half of the refusals.",
        setup=f"Instances with {slots} slots and no line before them; work takes {_WORK_S * 1000:.0f} ms ± 50 %. "
        f"4 callers; {', '.join(f'{load:.0%}' for load in LOADS)} of what all can do together; up to four attempts. "
        f"{for_s} s, seed {seed}.",
        head=("", "calls", "p50 ms", "p99 ms", "refusals", "failed"),
        rows=rows,
        remark="The server deals a queue group's calls out evenly, whatever its members can take: the small instances "
        "are full most of the time, and a refused call goes back to the same lottery. Who has left is not in it. Where "
        "the largest instance cannot carry everything alone there is little to win by leaving: a caller that knows "
        "who has room does better.",
        panels=(
            Panel("p99 in ms, by the second of the call (lowest load)", "seconds", slowest, log=True),
            Panel("Attempts a second (lowest load)", "seconds", tried),
        ),
        policies=[(f"`{name}`", text) for name, text in POLICIES.items()],
    )
