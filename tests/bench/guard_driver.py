"""What the guard runs in a process of its own, under valgrind or without: ``python -m tests.bench.guard_driver``.

The clock stands still meanwhile: under valgrind everything takes fifty times as long, and neither a stall
of the loop nor a deadline may come of that.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import importlib
import json
import operator
import pstats
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.bench.guard_measure import Label, Run, mark

if TYPE_CHECKING:
    from tests.bench.guard_cases import Bench, Case

__all__ = ["main"]

#: Calls of one case and side, that the difference is taken of; both whole rounds of every case.
FEW, MANY = 64, 192
#: Calls and pieces of reference work in a chunk: a few milliseconds each.
_CHUNK, _REFERENCE_CHUNK = 64, 300


def _rounds(calls: int, case: Case) -> int:
    return max(1, calls // case.in_flight)


def _is_wanted(case: Case, only: list[str]) -> bool:
    return any(text in case.name for text in only)


def _sides(bench: Bench, case: Case) -> Iterator[tuple[str, str, Run]]:
    from tests.bench.guard_cases import SIDES

    for side in SIDES:
        yield side, "all", partial(bench.run, case, side)
        yield side, "server", partial(bench.run_server, case, side)


async def marked(cases: list[Case]) -> list[Label]:
    """Everything once, between marks; returns what stands before each: case, side, part and number of calls."""
    from tests.bench.guard_cases import opened, reference

    labels: list[Label] = []
    async with opened() as bench:
        gc.disable()
        await mark(labels, ("reference", "", "all"), reference, (FEW, MANY))
        for case in cases:
            await bench.prepare(case)
            for side, part, run in _sides(bench, case):
                await mark(labels, (case.name, side, part), run, (_rounds(FEW, case), _rounds(MANY, case)))
        gc.enable()
    return labels


async def paired(cases: list[Case], pairs: int) -> list[tuple[str, str, list[float], list[float]]]:
    """CPU seconds of a call and of a piece of reference work, in ``pairs`` pairs of chunks side by side."""
    from tests.bench.guard_cases import SIDES, opened, reference

    async def took(run: Run, rounds: int) -> float:
        start = time.process_time()
        done = await run(rounds)
        return (time.process_time() - start) / done

    found: list[tuple[str, str, list[float], list[float]]] = []
    async with opened() as bench:
        gc.disable()
        for case in cases:
            await bench.prepare(case)
            rounds = _rounds(_CHUNK, case)
            for side in SIDES:
                calls: list[float] = []
                pieces: list[float] = []
                run = partial(bench.run, case, side)
                await took(run, rounds)
                for number in range(pairs):
                    # Neither always has the caches as the other left them.
                    if number % 2:
                        calls.append(await took(run, rounds))
                        pieces.append(await took(reference, _REFERENCE_CHUNK))
                    else:
                        pieces.append(await took(reference, _REFERENCE_CHUNK))
                        calls.append(await took(run, rounds))
                    if number % 32 == 0:
                        gc.collect()
                found.append((case.name, side, calls, pieces))
        gc.enable()
    return found


async def profiled(cases: list[Case], calls: int) -> None:
    """Print where the time of each side goes, function by function."""
    from tests.bench.guard_cases import SIDES, opened

    async with opened() as bench:
        for case in cases:
            await bench.prepare(case)
            for side in SIDES[:2]:
                print(f"\n{case.name}, {side}: {calls} calls", flush=True)
                profile = cProfile.Profile()
                profile.enable()
                await bench.run(case, side, _rounds(calls, case))
                profile.disable()
                pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(25)


def main() -> None:
    """Measure and print, as JSON in the last line where it is for the guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("marked", "paired", "profiled"))
    parser.add_argument("--only", nargs="*", default=[""], help="only cases whose name contains one of these")
    parser.add_argument("--pairs", type=int, default=200)
    args = parser.parse_args()
    # Before anything of the mesh is imported: its modules keep the function itself. C, as the real one.
    vars(time)["monotonic"] = partial(operator.getitem, [1000.0], 0)
    cases = [c for c in importlib.import_module("tests.bench.guard_cases").CASES if _is_wanted(c, args.only)]
    loop = importlib.import_module("tests.bench.guard_server").GuardLoop()
    work: Any
    if args.mode == "marked":
        work = marked(cases)
    elif args.mode == "paired":
        work = paired(cases, args.pairs)
    else:
        work = profiled(cases, 4096)
    try:
        print(json.dumps(loop.run_until_complete(work)))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
