"""A service that is dead for two minutes: how many attempts a breaker lets through, and when it notices the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel, Span
from tests.sim.report import Report, rates
from tests.sim.world import World, destination

__all__ = [
    "FOR_S",
    "POLICIES",
    "WAYS",
    "Way",
    "attempts_per_call",
    "dead_service",
    "healed_after_s",
    "report",
]

Way: TypeAlias = Literal["fails", "hangs", "fails, no breaker"]
WAYS: tuple[Way, ...] = ("fails", "hangs", "fails, no breaker")
POLICIES: Mapping[Way, str] = {
    "fails": destination("idempotent: true"),
    "hangs": destination("idempotent: true"),
    "fails, no breaker": destination("idempotent: true\nbreaker: off"),
}
_COLOURS: Mapping[Way, str] = {"fails": OURS, "hangs": OTHER, "fails, no breaker": PLAIN}

_INSTANCES: Final = 2
_CALLS_PER_S: Final = 10.0
#: Dead from the first of these seconds to the second.
_DIES_S, _HEALS_S, FOR_S = 10, 130, 210


def dead_service(way: Way, *, seed: int) -> World:
    """All of it."""

    async def main() -> World:
        async def work(ctx: Context) -> None:
            if _DIES_S <= world.now < _HEALS_S:
                if way == "hangs":
                    await asyncio.sleep(3600.0)
                raise ApplicationError("out of order", status=Status.UNAVAILABLE)

        async with World(seed, POLICIES[way]) as world:
            await world.serve(work, _INSTANCES)
            await world.load(_CALLS_PER_S, FOR_S)
        return world

    return run_virtual(main)


def attempts_per_call(world: World) -> float:
    """In the second minute of the outage."""
    first, last = _DIES_S + 60, _DIES_S + 120
    attempts = sum(first <= attempt.at < last for attempt in world.attempts)
    return attempts / sum(first <= call.began < last for call in world.calls)


def healed_after_s(world: World) -> float:
    """How long after the outage the last call fails."""
    return max([call.ended - _HEALS_S for call in world.calls if not call.ok])


def report() -> Report:
    """With three seeds; the curves are of the first."""
    rows, lines, good = [], [], []
    for way in WAYS:
        for seed in (1, 2, 3):
            world = dead_service(way, seed=seed)
            during = [a.at for a in world.attempts if _DIES_S <= a.at < _HEALS_S]
            calls = sum(_DIES_S <= call.began < _HEALS_S for call in world.calls)
            rows.append(
                (
                    f"{way}, seed {seed}",
                    f"{calls:,}",
                    f"{len(during):,}",
                    f"{attempts_per_call(world):.1%}",
                    f"{max(0.0, healed_after_s(world)):.0f}",
                )
            )
            if seed == 1:
                sent, ended = [a.at for a in world.attempts], [c.ended for c in world.calls if c.ok]
                lines.append(Line(way, rates(sent, FOR_S, every_s=2.0), _COLOURS[way]))
                good.append(Line(way, rates(ended, FOR_S, every_s=2.0), _COLOURS[way]))
    outage = (Span(_DIES_S, _HEALS_S),)
    return Report(
        name="dead_service",
        title="A breaker in front of a dead service",
        rule="In the second minute of an outage there are attempts for at most 5 % of the calls.",
        setup=f"{_INSTANCES} instances, {_CALLS_PER_S:g} calls a second, an idempotent endpoint. "
        f"From second {_DIES_S} to {_HEALS_S} every attempt fails at once with UNAVAILABLE, or hangs.",
        head=(
            "",
            "calls in the outage",
            "attempts",
            "attempts per call, second minute",
            "last failure after the outage, s",
        ),
        rows=rows,
        remark="The price of asking rarely: after a long outage the breaker may stay open for up to another 72 s.",
        panels=(
            Panel("Attempts a second", "seconds", lines, outage),
            Panel("Calls that succeeded a second", "seconds", good, outage),
        ),
        policies=[(way.capitalize(), POLICIES[way]) for way in WAYS],
    )
