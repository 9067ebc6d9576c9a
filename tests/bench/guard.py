"""Is a call as cheap as when its cost was last committed? ``python -m tests.bench.guard``, part of ``make check``.

Instructions are counted by valgrind over the real client and instance without sockets; each figure is divided by that
of a fixed piece of work counted in the same run, so that another build of Python moves it little. Other load on the
machine disturbs them little: timers find more to do. Where valgrind is missing, CPU time in many pairs stands in. What
looks like a regression is measured again before it is believed. Garbage collection is off meanwhile.

Status 0: within 10 % of guard.json, cheaper, or nothing committed for this Python. Status 1: dearer, or not measurable.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import msgspec

from tests.bench.guard_compare import (
    Committed,
    Figures,
    Verdict,
    accepted,
    cheapest,
    compare,
    middle,
    report,
    table,
)
from tests.bench.guard_measure import GuardError, count_instructions, measure_time, profile, valgrind

__all__ = ["main"]

_FILE = Path(__file__).with_name("guard.json")
_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: How often a case is measured, each time in a new process, before it counts as a regression; CPU time also before it
#: is committed.
_ATTEMPTS = 3
_ABOUT = (
    "Cost of a call by minor version of Python, method, case and side. ratio: by the guard's reference work, "
    "which is what is compared; instructions: for information. Written by python -m tests.bench.guard --accept."
)


def committed() -> Committed:
    """What guard.json says; nothing where there is none."""
    if not _FILE.exists():
        return Committed(_ABOUT, {})
    try:
        return msgspec.json.decode(_FILE.read_bytes(), type=Committed)
    except msgspec.MsgspecError as error:
        raise GuardError(f"{_FILE.name} cannot be read ({error}); write it anew with --accept") from None


def method_for(program: str | None, *, ci: bool) -> str:
    """How to measure here; :class:`GuardError` where the build machine lacks valgrind."""
    if program is not None:
        return "instructions"
    if ci:
        raise GuardError("valgrind is missing, and CI must count instructions: install it (Debian: valgrind)")
    print(
        "guard: valgrind is missing (Debian: valgrind), so CPU time stands in for instructions",
        file=sys.stderr,
    )
    return "time"


def measure(method: str, only: list[str], known: Figures) -> Figures:
    """The figures; what looks like a regression is measured again, up to three times in all."""
    count = count_instructions if method == "instructions" else measure_time
    figures = count(only)
    for _ in range(_ATTEMPTS - 1):
        dear = {row.case for row in compare(figures, known) if row.verdict is Verdict.DEARER}
        if not dear:
            break
        figures = cheapest(figures, count(sorted(dear)))
    return figures


def check(method: str, only: list[str]) -> bool:
    """Measure, print, and say whether all is well."""
    start = time.monotonic()
    known = committed().figures.get(_MINOR, {}).get(method, {})
    figures = measure(method, only, known)
    if not figures:
        raise GuardError(f"no case is called anything like {' or '.join(only)}")
    rows = compare(figures, known)
    gone = [] if any(only) else [case for case in known if case not in figures]
    print(table(rows))
    print(f"measured in {time.monotonic() - start:.0f} s: {method}, Python {_MINOR}")
    if text := report(rows, method, _MINOR, gone):
        print(text)
    return all(row.verdict is not Verdict.DEARER for row in rows)


def accept(methods: list[str], only: list[str]) -> None:
    """Measure anew and write guard.json."""
    known = committed()
    for method in methods:
        if method == "instructions":
            figures = count_instructions(only)
        else:
            figures = middle([measure_time(only) for _ in range(_ATTEMPTS)])
        if not figures:
            raise GuardError(f"no case is called anything like {' or '.join(only)}")
        print(table(compare(figures, known.figures.get(_MINOR, {}).get(method, {}))))
        known = accepted(known, _MINOR, method, figures, whole=not any(only))
    _FILE.write_bytes(msgspec.json.format(msgspec.json.encode(known, order="sorted"), indent=1) + b"\n")
    print(f"guard: {_FILE.name} has the figures of Python {_MINOR} by {' and '.join(methods)}; commit it")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.guard", description=__doc__.split("\n")[0])
    parser.add_argument("--accept", action="store_true", help="write the measured figures to guard.json")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="only cases whose name contains it"
    )
    parser.add_argument(
        "--method", choices=("instructions", "time"), help="default: instructions if valgrind is there"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print where the time goes, and compare nothing"
    )
    args = parser.parse_args()
    try:
        if args.profile:
            profile(args.only)
            return 0
        if args.accept:
            here = ["instructions", "time"] if valgrind() is not None else ["time"]
            accept([args.method] if args.method else here, args.only)
            return 0
        method = args.method or method_for(valgrind(), ci=os.environ.get("CI") == "true")
        return 0 if check(method, args.only) else 1
    except GuardError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
