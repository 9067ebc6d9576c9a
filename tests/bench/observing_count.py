"""What it costs to be seen, piece by piece: ``python -m tests.bench.observing_count``.

Counting, a statistics message and a scrape are small beside the calls of a second, smaller than what CPU times of
whole processes tell apart (``tests.bench.observing``). So each is measured alone, and its share of a second's calls
follows: in CPU time beside a call over sockets, and in instructions (valgrind) beside one without them, whose share is
larger as the kernel's part is left out. A statistics message is the mean of one that tells everything and the seven
that follow it, of both ends, as published; a scrape is the text of both ends as Prometheus 3 asks for it, every five
seconds as in ``compose/``, without the HTTP around it.

Status 0: within the budgets at the rate, 1: beyond one, 2: it could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import operator
import subprocess
import sys
import time
from functools import partial
from typing import Final

import msgspec

from tests.bench.guard_measure import GuardError, count_marked, differences

__all__ = ["CALLS", "main", "shares"]

#: What may cost how much of the calls (share).
BUDGETS: Final = {"metrics": 0.03, "statistics": 0.02}
SCRAPE_EVERY_S: Final = 5.0
#: A call alone, as calls are where there are some hundred a second, and one of many.
CALLS: Final = ("json x1", "json x64")
#: From so many calls a second on they are taken for such (they are rarely alone).
_MANY_PER_S: Final = 2000.0

_DRIVER: Final = ("-m", "tests.bench.observing_count")


def shares(call: float, pieces: dict[str, float], rate: float) -> dict[str, float]:
    """What each costs of the calls of a second, of which there are ``rate``; all in one unit."""
    calls = rate * call
    return {
        "metrics": (pieces["counting"] * rate + pieces["scrape"] / SCRAPE_EVERY_S) / calls,
        "statistics": pieces["message"] / calls,
    }


_RATES: Final = (50.0, 200.0, 1000.0, 5000.0)


def _table(title: str, unit: str, scale: float, calls: dict[float, float], pieces: dict[str, float]) -> None:
    print(title)
    told = {f"a call at {rate:g}/s, both ends": call for rate, call in calls.items()}
    told |= {
        "counting it, at both ends": pieces["counting"],
        "one statistics message of each end": pieces["message"],
        "one scrape of both ends": pieces["scrape"],
    }
    for what, cost in told.items():
        print(f"  {what:36} {cost * scale:10.1f} {unit}")
    for what, budget in BUDGETS.items():
        parts = [f"{shares(call, pieces, rate)[what]:.2%} at {rate:g}/s" for rate, call in calls.items()]
        print(f"  {what:12} at most {budget:.0%}: " + ", ".join(parts))


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.observing_count", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second (default 200)")
    parser.add_argument("--work", choices=("counted", "timed"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        _work(args.work)
        return 0
    driver = [*_DRIVER, "--work"]
    try:
        each = differences(*count_marked([*driver, "counted"]))
        work = subprocess.run(
            [sys.executable, *driver, "timed"], capture_output=True, text=True, check=True, timeout=300.0
        )
        times = msgspec.json.decode(work.stdout.splitlines()[-1], type=dict[str, float])
        plain_cost = importlib.import_module("tests.bench.observing").plain_cost
        call: float = asyncio.run(plain_cost(args.rate, 5.0, 3))
    except (GuardError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        print(f"observing: {error}", file=sys.stderr)
        return 2
    instructions = {name: each[name, "", "all"] for name in ("counting", "message", "scrape")}
    alone, many = (each[name, "", "all"] - each[name, "", "server"] for name in CALLS)
    # Where there are some hundred a second, calls are alone; where there are thousands, hardly ever.
    _table(
        "Instructions, without the kernel:", "k", 1e-3,
        {rate: many if rate >= _MANY_PER_S else alone for rate in _RATES}, instructions,
    )  # fmt: skip
    _table("\nCPU time, calls over sockets:", "µs", 1e6, {args.rate: call}, times)
    found = shares(call, times, args.rate)
    return 0 if all(found[what] <= budget for what, budget in BUDGETS.items()) else 1


def _work(how: str) -> None:
    """One of the two ways to measure, in a process of its own, on a clock that stands still."""
    # Before anything of the mesh is imported: its modules keep the function itself. C, as the real one.
    vars(time)["monotonic"] = partial(operator.getitem, [1000.0], 0)
    pieces = importlib.import_module("tests.bench.observing_pieces")
    loop = importlib.import_module("tests.bench.guard_server").GuardLoop()
    try:
        print(json.dumps(loop.run_until_complete(pieces.counted() if how == "counted" else pieces.timed())))
    finally:
        loop.close()


if __name__ == "__main__":
    sys.exit(main())
