"""An outage at four fifths of what a service can do: how many attempts it meets, and how soon it works again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.plot import FOURTH, OTHER, OURS, PLAIN, Line, Panel, Span
from tests.sim.report import Report, rates
from tests.sim.world import World, destination

__all__ = [
    "BEGINS_S", "CALLS_PER_S", "ENDS_S", "FOR_S", "KINDS", "POLICIES", "WAYS", "Kind", "Way", "excess",
    "healed_after_s", "report", "storm",
]  # fmt: skip

Kind: TypeAlias = Literal["fails", "hangs"]
"""What becomes of an attempt during the outage: it fails at once, or never ends."""
KINDS: tuple[Kind, ...] = ("fails", "hangs")
Way: TypeAlias = Literal["defaults", "probing often", "budget alone", "neither"]
WAYS: tuple[Way, ...] = ("defaults", "probing often", "budget alone", "neither")

POLICIES: Mapping[Way, str] = {
    "defaults": destination("idempotent: true"),
    "probing often": destination("idempotent: true\nbreaker: {maxOpen: 5s}"),
    "budget alone": destination("idempotent: true\nbreaker: off"),
    "neither": destination(
        "idempotent: true\nbreaker: off\nretry: {attempts: 3, budget: {ratio: 100%, floor: 1000000/s}}"
    ),
}
_COLOURS: Mapping[Way, str] = {
    "defaults": FOURTH, "probing often": OURS, "budget alone": OTHER, "neither": PLAIN,
}  # fmt: skip

#: Capacity: two instances, each with so many slots, each slot taken for so long: 75 calls a second.
_INSTANCES: Final = 2
_SLOTS: Final = 30
_WORK_S: Final = 0.8
CALLS_PER_S: Final = 60.0
#: The outage (seconds of the load), and how long all of it takes.
BEGINS_S, ENDS_S, FOR_S = 10, 20, 40
#: What the budget of the defaults allows.
_RATIO: Final = 0.1
_FLOOR_PER_S: Final = 5.0


def storm(kind: Kind, way: Way, *, seed: int) -> World:
    """All of it."""

    async def main() -> World:
        async def work(ctx: Context) -> None:
            if BEGINS_S <= world.now < ENDS_S:
                if kind == "fails":
                    raise ApplicationError("out of order", status=Status.UNAVAILABLE)
                await asyncio.sleep(3600.0)
            await asyncio.sleep(_WORK_S)

        async with World(seed, POLICIES[way]) as world:
            await world.serve(work, _INSTANCES, concurrency=_SLOTS)
            await world.load(CALLS_PER_S, FOR_S)
        return world

    return run_virtual(main)


def _by_second(instants: Sequence[float]) -> list[int]:
    found = [0] * FOR_S
    for at in instants:
        if at < FOR_S:
            found[int(at)] += 1
    return found


def excess(world: World, first_s: int, last_s: int, *, least_s: int, pause_s: int = 0) -> float:
    """By how many the attempts exceed 1.1 × calls + 5 a second, in the worst window of whole seconds within these that
    is ``least_s`` or longer; not above zero where the rule holds.

    A retry is granted up to ``pause_s`` before it is sent: a window is allowed what was earned in that time before it.
    """
    attempts = _by_second([attempt.at for attempt in world.attempts])
    calls = _by_second([call.began for call in world.calls])
    over = [a - (1.0 + _RATIO) * c - _FLOOR_PER_S for a, c in zip(attempts, calls, strict=True)]
    sums = [0.0, *accumulate(over)]
    earned = [0.0, *accumulate(_RATIO * c + _FLOOR_PER_S for c in calls)]
    return max(
        sums[end] - sums[begin] - (earned[begin] - earned[max(0, begin - pause_s)])
        for begin in range(first_s, last_s)
        for end in range(begin + least_s, last_s + 1)
    )


def healed_after_s(world: World) -> float:
    """So many whole seconds after the outage 95 % of the calls of that second succeed, and of all that follow."""
    calls = _by_second([call.began for call in world.calls])
    good = _by_second([call.began for call in world.calls if call.ok])
    for second in range(ENDS_S, FOR_S):
        if good[second] >= 0.95 * calls[second] and sum(good[second:]) >= 0.95 * sum(calls[second:]):
            return second - ENDS_S
    return math.inf


def _row(kind: Kind, way: Way, seed: int, world: World) -> tuple[str, ...]:
    attempts = sum(BEGINS_S <= attempt.at < ENDS_S for attempt in world.attempts)
    calls = sum(BEGINS_S <= call.began < ENDS_S for call in world.calls)
    return (
        f"{kind}, {way}, seed {seed}",
        f"{calls:,}",
        f"{attempts:,}",
        f"{attempts / calls:.2f}",
        f"{excess(world, BEGINS_S, ENDS_S, least_s=10):+.1f}",
        f"{excess(world, 0, FOR_S, least_s=1, pause_s=1):+.1f}",
        f"{healed_after_s(world):.0f}",
    )


def report() -> Report:
    """With three seeds; the curves are of the first."""
    rows, panels = [], []
    for kind in KINDS:
        attempts, good = [], []
        for way in WAYS:
            for seed in (1, 2, 3):
                world = storm(kind, way, seed=seed)
                rows.append(_row(kind, way, seed, world))
                if seed == 1:
                    sent, ended = ([a.at for a in world.attempts], [c.ended for c in world.calls if c.ok])
                    attempts.append(Line(way, rates(sent, FOR_S), _COLOURS[way]))
                    good.append(Line(way, rates(ended, FOR_S), _COLOURS[way]))
        outage = (Span(BEGINS_S, ENDS_S),)
        panels += [
            Panel(f"Attempts a second, where an attempt {kind}", "seconds", attempts, outage),
            Panel(f"Calls that succeeded a second, where an attempt {kind}", "seconds", good, outage),
        ]
    return Report(
        name="retry_storm",
        title="Retries in an outage",
        rule="Attempts never exceed 1.1 × calls + 5 a second, and 10 s after the outage 95 % of the calls succeed. "
        "The second part is held by a breaker that probes often.",
        setup=f"{_INSTANCES} instances with {_SLOTS} slots, work takes {_WORK_S} s: "
        f"{_INSTANCES * _SLOTS / _WORK_S:.0f} calls a second at most; {CALLS_PER_S:g} are made, {FOR_S} s long. From "
        f"second {BEGINS_S} to {ENDS_S} every attempt fails with UNAVAILABLE at once, or hangs. One caller, "
        "an idempotent endpoint, a timeout of 5 s.",
        head=(
            "",
            "calls in the outage",
            "attempts",
            "per call",
            "over 1.1 × calls + 5/s, whole outage",
            "worst window of 1 s and more, with a pause of up to 1 s",
            "healed after, s",
        ),
        rows=rows,
        remark="The breaker of the defaults opens for 5 s ± 20 %, once more for as long where its first probe fails, "
        "and for twice as long each time after that. With `maxOpen: 5s` it goes on probing every 5 s.",
        panels=panels,
        policies=[(f"{way.capitalize()}", POLICIES[way]) for way in WAYS],
    )
