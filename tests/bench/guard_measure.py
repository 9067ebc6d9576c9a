"""The two ways to the guard's figures: instructions that valgrind counts, or CPU time in pairs."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from tests.bench.guard_compare import Figure, Figures

__all__ = [
    "GuardError",
    "Label",
    "Run",
    "count_instructions",
    "count_marked",
    "differences",
    "figures_of",
    "mark",
    "measure_time",
    "parts_of",
    "profile",
    "valgrind",
]

_ROOT = Path(__file__).resolve().parents[2]
_DRIVER = ["-m", "tests.bench.guard_driver"]
#: Callgrind writes down what it counted whenever this function of the C library is entered.
_MARK = "--dump-before=getppid"
_PART = re.compile(r"^part: (\d+)$", re.MULTILINE)
_TRIGGER = re.compile(r"^desc: Trigger: (.*)$", re.MULTILINE)
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)
#: The longest that one measurement may take, in seconds.
_PATIENCE_S = 900.0

#: Case, side, ``all`` or ``server``, number of calls: what a mark ends; empty where it ends nothing.
Label = tuple[str, str, str, int]

#: How often to do a piece of work in, how often it was done out.
Run = Callable[[int], Awaitable[int]]

#: Case, side, CPU seconds of a call in each chunk, and of a piece of reference work in the chunk beside it.
Timing = tuple[str, str, list[float], list[float]]


class GuardError(Exception):
    """The guard could not measure; says what to do."""


def valgrind() -> str | None:
    """Where valgrind is, if anywhere."""
    return shutil.which("valgrind")


def count_instructions(only: Sequence[str] = ("",)) -> Figures:
    """Count, for all cases whose name contains one of ``only``. Takes about a minute."""
    return figures_of(*count_marked([*_DRIVER, "marked", "--only", *only]))


def count_marked(work: Sequence[str]) -> tuple[list[Label], list[int]]:
    """Run a Python with these arguments under valgrind: what stands before each of its marks, by what it prints as JSON
    in its last line, and the instructions counted there."""
    program = valgrind()
    if program is None:
        raise GuardError("valgrind is missing: install it (Debian: valgrind)")
    # First without valgrind: what is wrong shows at once, and no compiling of modules is ever counted.
    _labels(_run([sys.executable, *work]))
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        out = Path(folder, "out")
        command = [program, "--quiet", "--tool=callgrind", _MARK, f"--callgrind-out-file={out}"]
        labels = _labels(_run([*command, sys.executable, *work]))
        counts = parts_of(path.read_text("utf-8", "replace") for path in Path(folder).iterdir())
    return labels, counts


async def mark(labels: list[Label], what: tuple[str, str, str], run: Run, sizes: tuple[int, int]) -> None:
    """Do a piece of work between marks, in both sizes, where callgrind counts; ``labels`` get what stands before each.

    A mark is a call of getppid: callgrind writes down there what it counted since the last.
    """
    await run(sizes[0])
    for size in sizes:
        gc.collect()
        os.getppid()
        labels.append(("", "", "", 0))
        done = await run(size)
        os.getppid()
        labels.append((*what, done))


def measure_time(only: Sequence[str] = ("",), pairs: int = 200) -> Figures:
    """CPU time of the cheapest chunk of calls by the cheapest chunk of reference work, of ``pairs`` pairs.

    The cheapest, because noise makes a chunk dearer, never cheaper; a median moves with the load of the
    machine, which a call feels more than the small reference work. Takes about half a minute for all cases.
    """
    output = _run([sys.executable, *_DRIVER, "paired", "--pairs", str(pairs), "--only", *only])
    return times_of(msgspec.json.decode(output.splitlines()[-1], type=list[Timing]))


def times_of(timings: Sequence[Timing]) -> Figures:
    """Ratios of CPU time from chunks of calls and chunks of reference work."""
    figures: Figures = {}
    for case, side, calls, pieces in timings:
        figures.setdefault(case, {})[side] = Figure(round(min(calls) / min(pieces), 4))
    return figures


def profile(only: Sequence[str] = ("",)) -> None:
    """Print where the time of each side goes."""
    subprocess.run(
        [sys.executable, *_DRIVER, "profiled", "--only", *only], cwd=_ROOT, env=_environment(), check=True
    )


def parts_of(texts: Iterable[str]) -> list[int]:
    """The counts that callgrind wrote at the marks, in their order, from the texts of all its files."""
    parts: dict[int, int] = {}
    for text in texts:
        trigger, part, totals = _TRIGGER.search(text), _PART.search(text), _TOTALS.search(text)
        if trigger is None or trigger[1] != _MARK:
            continue  # what it counted after the last mark
        if part is None or totals is None:
            raise GuardError(f"callgrind wrote something that cannot be read: {text[:300]!r}")
        parts[int(part[1])] = int(totals[1])
    return [parts[number] for number in sorted(parts)]


def figures_of(labels: Sequence[Label], counts: Sequence[int]) -> Figures:
    """Instructions per call: the difference of two sizes, less the server's part, by the reference work."""
    each = differences(labels, counts)
    reference = each.pop(("reference", "", "all"))
    figures: Figures = {}
    for (case, side, part), instructions in each.items():
        if part == "all":
            own = instructions - each[case, side, "server"]
            figures.setdefault(case, {})[side] = Figure(round(own / reference, 4), round(own))
    return figures


def differences(labels: Sequence[Label], counts: Sequence[int]) -> dict[tuple[str, str, str], float]:
    """Instructions of one piece of work, by the two sizes in which it was counted."""
    if len(labels) != len(counts):
        raise GuardError(
            f"callgrind saw {len(counts)} marks of {len(labels)}: does something else call getppid?"
        )
    sized: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for (case, side, part, calls), count in zip(labels, counts, strict=True):
        if case:
            sized.setdefault((case, side, part), []).append((calls, count))
    each: dict[tuple[str, str, str], float] = {}
    for key, ((few, low), (many, high)) in sized.items():
        each[key] = (high - low) / (many - few)
    return each


def _labels(output: str) -> list[Label]:
    return msgspec.json.decode(output.splitlines()[-1], type=list[Label])


def _environment() -> dict[str, str]:
    """Ours, without what would steer Python or the mesh, and with what makes a run repeatable."""
    steering = ("PYTHON", "MESH_", "NATS_", "OTEL_", "LD_PRELOAD", "VALGRIND_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    # valgrind does not know io_uring, which uvloop would try.
    return {**kept, "PYTHONHASHSEED": "0", "UV_USE_IO_URING": "0"}


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GuardError(f"no end after {_PATIENCE_S:g} s: {' '.join(command)}") from None
    if done.returncode or not done.stdout.strip():
        tail = done.stderr.strip()[-3000:]
        raise GuardError(f"{' '.join(command)} ended with status {done.returncode}:\n{tail}")
    return done.stdout
