"""What it costs to be seen, in instructions: ``python -m tests.bench.observing_count``.

Counting, a statistics message and a scrape are small beside the calls of a second, smaller than what CPU times of
whole processes tell apart (``tests.bench.observing``). So each is counted alone under valgrind, beside calls of the
same process (both ends; without the kernel, so that all shares are too large rather than too small), and its share of
a second's calls follows. A statistics message is the mean of one that tells everything and the seven that follow it, of
both ends, as published; a scrape is the text of both ends as Prometheus 3 asks for it, every five seconds as in
``compose/``, without the HTTP around it.

Status 0: within the budgets at the rate, 1: beyond one, 2: it could not be counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import operator
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from tests.bench.guard_measure import GuardError, count_marked, differences

__all__ = ["main", "report"]

#: What may cost how much of the calls (share), and how often a second it is done; 0: with each call, at both ends.
BUDGETS: Final = {"metrics": 0.03, "statistics": 0.02}
SCRAPE_EVERY_S: Final = 5.0
#: So many times each piece is done in the two runs whose difference counts; messages come in turns of eight.
FEW, MANY = 64, 192
_TURNS_FEW, _TURNS_MANY = 2, 6
_SCRAPES_FEW, _SCRAPES_MANY = 3, 9

#: A call alone, as calls are where there are some hundred a second, and one of many.
_CALLS: Final = ("json x1", "json x64")
#: From so many calls a second on they are taken for such (they are rarely alone).
_MANY_PER_S: Final = 2000.0

_Label = tuple[str, str, str, int]


async def work() -> list[_Label]:
    """Each piece between marks, which callgrind counts between."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.openmetrics.exposition import ALLOWUTF8, generate_latest

    from nats_mesh.errors import Status
    from nats_mesh.telemetry.collector import MeshCollector
    from nats_mesh.telemetry.stats import Stats
    from nats_mesh.telemetry.stats_messages import WHOLE_EVERY
    from tests.bench.guard_cases import CASES, opened

    labels: list[_Label] = []
    chance = random.Random(7)
    ok = Status.OK  # looking it up costs as much as counting

    async def measure(
        case: str, part: str, run: Callable[[int], Awaitable[int]], sizes: tuple[int, int]
    ) -> None:
        await run(sizes[0])
        for size in sizes:
            gc.collect()
            os.getppid()
            labels.append(("", "", "", 0))
            done = await run(size)
            os.getppid()
            labels.append((case, "", part, done))

    async with opened() as bench:
        gc.disable()
        for case in CASES:
            if case.name in _CALLS:
                await bench.prepare(case)
                rounds = (FEW // case.in_flight, MANY // case.in_flight)
                await measure(case.name, "all", partial(bench.run, case, "round trip"), rounds)
                await measure(case.name, "server", partial(bench.run_server, case, "round trip"), rounds)

        series = Stats().series("in", "guarded", "echo", "guard")
        durations = [0.002 * chance.lognormvariate(0.0, 0.5) for _ in range(512)]

        async def count(many: int) -> int:
            for _ in range(many):
                for took_s in durations:
                    series.in_flight += 1
                    series.record(took_s, ok)
                    series.in_flight -= 1
            return many * len(durations)

        await measure("counting", "all", count, (2, 6))

        publishers = [bench.mesh._publisher, bench.serving._parts.publisher]

        async def tell(turns: int) -> int:
            for _ in range(turns):
                for number in range(WHOLE_EVERY):
                    for stats in (bench.mesh.stats, bench.serving.stats):
                        for each in stats:
                            each.record(chance.choice(durations), ok)
                    for publisher in publishers:
                        assert publisher is not None
                        publisher.publish_once(whole=not number)
                    await asyncio.sleep(0)
            return turns * WHOLE_EVERY

        await measure("message", "all", tell, (_TURNS_FEW, _TURNS_MANY))

        registry = CollectorRegistry()
        registry.register(MeshCollector(bench.mesh, bench.serving))

        async def scrape(many: int) -> int:
            for _ in range(many):
                generate_latest(registry, ALLOWUTF8)  # type: ignore[no-untyped-call]
            return many

        await measure("scrape", "all", scrape, (_SCRAPES_FEW, _SCRAPES_MANY))
        gc.enable()
    return labels


def shares(each: dict[tuple[str, str, str], float], rate: float) -> dict[str, float]:
    """What each costs of the calls of a second, of which there are ``rate``."""
    calls = rate * _call(each, _CALLS[rate >= _MANY_PER_S])
    counting, message, scrape = (each[name, "", "all"] for name in ("counting", "message", "scrape"))
    return {
        "metrics": (2 * counting * rate + scrape / SCRAPE_EVERY_S) / calls,
        "statistics": message / calls,
    }


def _call(each: dict[tuple[str, str, str], float], case: str) -> float:
    return each[case, "", "all"] - each[case, "", "server"]


def report(each: dict[tuple[str, str, str], float], rate: float) -> bool:
    """Print what was counted; whether everything is within its budget at ``rate``."""
    pieces = {
        "a call alone, both ends": _call(each, "json x1"),
        "a call, 64 in flight": _call(each, "json x64"),
        "counting it, at one end": each["counting", "", "all"],
        "one statistics message of each end": each["message", "", "all"],
        "one scrape of both ends": each["scrape", "", "all"],
    }
    for what, instructions in pieces.items():
        print(f"{what:36} {instructions / 1000:10.1f} k instructions")
    rates = sorted({rate, 50.0, 1000.0, 5000.0})
    print(f"\n{'share of the calls':20} {'at most':>8} " + " ".join(f"{f'{at:g}/s':>10}" for at in rates))
    well = True
    for what, budget in BUDGETS.items():
        found = {at: shares(each, at)[what] for at in rates}
        met = found[rate] <= budget
        well = well and met
        print(
            f"{what:20} {budget:8.0%} " + " ".join(f"{found[at]:10.2%}" for at in rates),
            f"  {'met' if met else 'NOT MET'} at {rate:g}/s",
        )
    return well


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.observing_count", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second (default 200)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        # Before anything of the mesh is imported: its modules keep the function itself. C, as the real one.
        vars(time)["monotonic"] = partial(operator.getitem, [1000.0], 0)
        from tests.bench.guard_server import GuardLoop

        loop = GuardLoop()
        done: Any = work()
        try:
            print(json.dumps(loop.run_until_complete(done)))
        finally:
            loop.close()
        return 0
    try:
        labels, counts = count_marked(["-m", "tests.bench.observing_count", "--work"])
    except GuardError as error:
        print(f"observing: {error}", file=sys.stderr)
        return 2
    return 0 if report(differences(labels, counts), args.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
