"""An instance that is bad for some of its callers: when the others leave it alone, too."""

from __future__ import annotations

from typing import Final

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.plot import OURS, PLAIN, Line, Panel
from tests.sim.report import Report, rates
from tests.sim.world import World, destination

__all__ = [
    "BAD",
    "BEGINS_S",
    "CALLERS",
    "NEEDED",
    "POLICY",
    "fleet_ejection",
    "judged_at",
    "of_the_others",
    "report",
]

_INSTANCES: Final = 5
BAD: Final = "i5"
CALLERS: Final = 6
#: So many callers must agree.
NEEDED: Final = 3
_CALLS_PER_S: Final = 60.0
#: From here on the instance is bad for some.
BEGINS_S: Final = 5.0
POLICY = destination(
    f"balancer: round_robin\nretry: {{attempts: 1}}\nbreaker: off\nejection: {{verdicts: {{callers: {NEEDED}}}}}"
)


def fleet_ejection(affected: int, *, seed: int, for_s: float) -> World:
    """So many seconds of it. What ``BAD`` answers to the first ``affected`` callers is an error."""

    async def main() -> World:
        names = {f"web{number}" for number in range(1, affected + 1)}

        async def work(ctx: Context) -> None:
            if ctx.instance == BAD and ctx.caller in names and world.now >= BEGINS_S:
                raise ApplicationError("out of order", status=Status.INTERNAL)

        async with World(seed, POLICY) as world:
            await world.serve(work, _INSTANCES)
            await world.load(_CALLS_PER_S, for_s, callers=CALLERS)
        return world

    return run_virtual(main)


def of_the_others(world: World, affected: int) -> list[float]:
    """When callers for whom it is well called the bad instance."""
    names = {f"web{number}" for number in range(affected + 1, CALLERS + 1)}
    return [each.at for each in world.attempts if each.instance == BAD and each.caller in names]


def judged_at(world: World) -> dict[str, float]:
    """When each caller first said that the instance is bad."""
    found: dict[str, float] = {}
    for verdict in world.verdicts:
        if verdict.instance == BAD:
            found.setdefault(verdict.caller, verdict.at)
    return found


def report() -> Report:
    """With seed 1."""
    seed, for_s = 1, 60
    rows, lines, errors = [], [], []
    for affected in (NEEDED - 1, NEEDED):
        world = fleet_ejection(affected, seed=seed, for_s=for_s)
        others = of_the_others(world, affected)
        calls = sum(call.began >= BEGINS_S for call in world.calls)
        failed = sum(not call.ok for call in world.calls)
        per_s = len([at for at in others if at >= BEGINS_S]) / (for_s - BEGINS_S) / (CALLERS - affected)
        label = f"bad for {affected} of {CALLERS} callers"
        rows.append((label, f"{calls:,}", f"{failed}", f"{per_s:.2f}"))
        points = [(x, y / (CALLERS - affected)) for x, y in rates(others, for_s)]
        colour = OURS if affected == NEEDED else PLAIN
        lines.append(Line(label, points, colour))
        errors.append(Line(label, rates([c.ended for c in world.calls if not c.ok], for_s), colour))
    return Report(
        name="fleet_ejection",
        title="Callers that agree",
        rule=f"Where {NEEDED} callers must agree, {NEEDED - 1} never move the others, and with {NEEDED} all leave the "
        "instance alone.",
        setup=f"{_INSTANCES} instances, round robin, {CALLERS} callers with {_CALLS_PER_S / CALLERS:g} calls a second "
        f"each, seed {seed}. From second {BEGINS_S:g} on {BAD} answers some of the callers with an error, and the "
        "others well.",
        head=("", "calls since", "failed", f"calls a second at {BAD}, of a caller for whom it is well"),
        rows=rows,
        panels=(
            Panel(f"Calls a second at {BAD}, of a caller for whom it is well", "seconds", lines),
            Panel("Failed calls a second", "seconds", errors),
        ),
        policies=[("All callers", POLICY)],
    )
