"""One of four instances is ten times slower than the others: what that does to calls, by who chooses the instance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from nats_mesh import Context
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel
from tests.sim.report import Report, quantile, rates, tails
from tests.sim.world import Machine, World, destination

__all__ = [
    "BALANCERS",
    "BUSY_PER_S",
    "INSTANCES",
    "QUIET_PER_S",
    "SLOW",
    "longest_gap_s",
    "p99_s",
    "report",
    "slow_instance",
]

INSTANCES = 4
SLOW = "i4"
#: How long a piece of work takes, ± 50 %, and how many of them an instance does at a time.
_WORK_S, _SLOW_S, _SLOTS = 0.04, 0.4, 4
#: An even share of the first is three times what the slow instance can do; of the second, three quarters of it.
BUSY_PER_S, QUIET_PER_S = 120.0, 30.0
BALANCERS = ("queue", "least_request", "peak_ewma")
_COLOURS = {"queue": PLAIN, "least_request": OTHER, "peak_ewma": OURS}


def policy(balancer: str) -> str:
    """All that differs."""
    return destination(f"timeout: 4s\nbalancer: {balancer}")


def slow_instance(balancer: str, *, seed: int, for_s: float, calls_per_s: float = BUSY_PER_S) -> World:
    """So many seconds of it."""

    async def main() -> World:
        machines = {f"i{number}": Machine(_SLOTS) for number in range(1, INSTANCES + 1)}

        async def work(ctx: Context) -> None:
            takes_s = _SLOW_S if ctx.instance == SLOW else _WORK_S
            await machines[ctx.instance].work(takes_s * world.chance.uniform(0.5, 1.5))

        async with World(seed, policy(balancer)) as world:
            await world.serve(work, INSTANCES)
            await world.load(calls_per_s, for_s)
        return world

    return run_virtual(main)


def p99_s(world: World) -> float:
    """Of all calls, those that ran out of time with the time they had."""
    return quantile([call.took for call in world.calls], 0.99)


def longest_gap_s(world: World, instance: str, for_s: float) -> float:
    """The longest time in which an instance got nothing to do."""
    instants = [0.0, *(run.at for run in world.runs if run.instance == instance), for_s]
    return max(later - earlier for earlier, later in pairwise(instants))


def report() -> Report:
    """With seed 1, a minute each."""
    seed, for_s = 1, 60
    rows, slowest, shares = [], [], []
    for load, calls_per_s in (("busy", BUSY_PER_S), ("quiet", QUIET_PER_S)):
        for balancer in BALANCERS:
            world = slow_instance(balancer, seed=seed, for_s=for_s, calls_per_s=calls_per_s)
            took = [call.took for call in world.calls]
            runs = Counter(run.instance for run in world.runs)
            rows.append(
                (
                    f"{balancer}, {load}",
                    f"{len(took):,}",
                    f"{1000 * quantile(took, 0.5):.0f}",
                    f"{1000 * quantile(took, 0.99):.0f}",
                    f"{sum(not call.ok for call in world.calls):,}",
                    f"{runs[SLOW] / len(world.runs):.1%}",
                    f"{longest_gap_s(world, SLOW, for_s):.1f}",
                )
            )
            if load == "busy":
                timed = [(call.began, 1000 * call.took) for call in world.calls]
                slowest.append(Line(balancer, tails(timed, for_s, 0.99), _COLOURS[balancer]))
                at_slow = [run.at for run in world.runs if run.instance == SLOW]
                shares.append(Line(balancer, rates(at_slow, for_s), _COLOURS[balancer]))
    return Report(
        name="slow_instance",
        title="One slow instance",
        rule="With least_request and with peak_ewma, p99 is at most half of what it is with the queue group. "
        "No instance is left without calls for 20 s.",
        setup=f"{INSTANCES} instances with {_SLOTS} slots and a line before them; work takes {_WORK_S * 1000:.0f} ms "
        f"± 50 %, at {SLOW} {_SLOW_S * 1000:.0f} ms ± 50 %. Busy is {BUSY_PER_S:g} calls a second, of which an even "
        f"share is three times what {SLOW} can do; quiet is {QUIET_PER_S:g}. Timeout 4 s. {for_s} s, seed {seed}.",
        head=(
            "",
            "calls",
            "p50 ms",
            "p99 ms",
            "failed",
            f"share of {SLOW}",
            f"longest time without work at {SLOW}, s",
        ),
        rows=rows,
        remark="Quiet, least_request still sends a tenth of the calls to the slow instance: with nothing under way "
        "anywhere, one is as good as another. Sending fewer takes a balancer that knows how long calls take.",
        panels=(
            Panel("p99 in ms, by the second of the call (busy)", "seconds", slowest, log=True),
            Panel(f"Attempts a second that reached {SLOW} (busy)", "seconds", shares),
        ),
        policies=[(f"`{balancer}`", policy(balancer)) for balancer in BALANCERS],
    )
