"""One of five instances fails for two seconds out of every four: what ejecting it spares, and that it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.plot import OURS, PLAIN, Line, Panel, Span
from tests.sim.report import Report, rates
from tests.sim.world import World, destination

__all__ = [
    "FAILING",
    "FLAPS_FOR_S",
    "FOR_S",
    "POLICIES",
    "WAYS",
    "Way",
    "back_after_s",
    "error_rate",
    "flapping",
    "report",
]

Way: TypeAlias = Literal["ejected", "kept"]
WAYS: tuple[Way, ...] = ("ejected", "kept")
#: Nothing is retried, so that every failure is seen.
POLICIES: Mapping[Way, str] = {
    "ejected": destination("balancer: round_robin\nretry: {attempts: 1}"),
    "kept": destination(
        "balancer: round_robin\nretry: {attempts: 1}\n"
        "ejection: {consecutive: 1000000, successRatio: 0%, silent: 1000000}"
    ),
}
_COLOURS: Mapping[Way, str] = {"ejected": OURS, "kept": PLAIN}

_INSTANCES: Final = 5
FAILING: Final = "i5"
_CALLS_PER_S: Final = 40.0
#: It is well for the first half of each period, and fails in the second one; from a moment on it is well for good.
_PERIOD_S: Final = 4.0
FLAPS_FOR_S, FOR_S = 40, 80


def flapping(way: Way, *, seed: int) -> World:
    """All of it."""

    async def main() -> World:
        async def work(ctx: Context) -> None:
            now = world.now
            if ctx.instance == FAILING and now < FLAPS_FOR_S and now % _PERIOD_S >= _PERIOD_S / 2.0:
                raise ApplicationError("out of order", status=Status.UNAVAILABLE)

        async with World(seed, POLICIES[way]) as world:
            await world.serve(work, _INSTANCES)
            await world.load(_CALLS_PER_S, FOR_S)
        return world

    return run_virtual(main)


def error_rate(world: World) -> float:
    """The share of the calls that failed, while it flapped."""
    calls = [call for call in world.calls if call.began < FLAPS_FOR_S]
    return sum(not call.ok for call in calls) / len(calls)


def back_after_s(world: World) -> float:
    """How long after its last failure the instance got a call again."""
    return min(
        [run.at - FLAPS_FOR_S for run in world.runs if run.instance == FAILING and run.at >= FLAPS_FOR_S]
    )


def report() -> Report:
    """With seed 1 for the curves, and two more for the figures."""
    rows, panels = [], []
    errors, shares = [], []
    for way in WAYS:
        for seed in (1, 2, 3):
            world = flapping(way, seed=seed)
            failed = [call for call in world.calls if not call.ok]
            here = [run.at for run in world.runs if run.instance == FAILING]
            rows.append(
                (
                    f"{way}, seed {seed}",
                    f"{len(failed)}",
                    f"{error_rate(world):.2%}",
                    f"{len(here) / len(world.runs):.1%}",
                    f"{back_after_s(world):.1f}",
                )
            )
            if seed == 1:
                errors.append(Line(way, rates([call.ended for call in failed], FOR_S), _COLOURS[way]))
                shares.append(Line(way, rates(here, FOR_S), _COLOURS[way]))
    bad = [Span(at + 2, at + 4) for at in range(0, FLAPS_FOR_S, 4)]
    panels = [
        Panel("Failed calls a second", "seconds", errors, bad),
        Panel(f"Calls a second at {FAILING}", "seconds", shares, bad),
    ]
    return Report(
        name="flapping",
        title="An instance that comes and goes",
        rule="With ejection the error rate is at most a third of what it is without. "
        "The instance gets calls again once it is well.",
        setup=f"{_INSTANCES} instances, round robin, {_CALLS_PER_S:g} calls a second, nothing is retried. "
        f"{FAILING} fails from second 2 to 4 of every 4, until second {FLAPS_FOR_S}; the error rate is of that time.",
        head=("", "failed calls", "error rate", f"share of {FAILING}", "back after its last failure, s"),
        rows=rows,
        panels=panels,
        policies=[(way.capitalize(), POLICIES[way]) for way in WAYS],
    )
