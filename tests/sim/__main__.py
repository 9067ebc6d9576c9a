"""``python -m tests.sim [NAME …]``: run the simulations and write their results anew, the same ones each time."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence

from tests.sim.report import RESULTS, Report, files

__all__ = ["SIMULATIONS", "main"]

#: One module each, with a function ``report``.
SIMULATIONS = (
    "slow_instance", "retry_storm", "overload", "flapping", "hedging", "fleet_ejection", "dead_service",
    "uneven", "fleet_breaker",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run those that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SIMULATIONS)} (default: all)"
    )
    names = parser.parse_args(arguments).names or SIMULATIONS
    if unknown := sorted(set(names) - set(SIMULATIONS)):
        parser.error(f"no simulation {', '.join(unknown)}; there are {', '.join(SIMULATIONS)}")
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        began = time.process_time()
        report: Callable[[], Report] = importlib.import_module(f"tests.sim.{name}").report
        for file, text in files(report()).items():
            (RESULTS / file).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {time.process_time() - began:.1f} s of CPU\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
