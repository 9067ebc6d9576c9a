"""What the guard says of figures: compared with the committed ones, as a table and as sentences. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

__all__ = [
    "LIMIT",
    "Committed",
    "Figure",
    "Figures",
    "Row",
    "Verdict",
    "accepted",
    "cheapest",
    "compare",
    "middle",
    "report",
    "table",
]

#: By which part of the committed figure a call may become dearer or cheaper before it is said.
LIMIT = 0.10

_ACCEPT = "python -m tests.bench.guard --accept"
_UNITS = {"instructions": "instructions", "time": "CPU time"}


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call costs on one side: in pieces of reference work, and in instructions where they were counted."""

    ratio: float
    instructions: int | None = None


#: By case, then by side.
Figures: TypeAlias = dict[str, dict[str, Figure]]


class Committed(msgspec.Struct, frozen=True):
    """The content of guard.json: by minor version of Python, then by method."""

    about: str
    figures: dict[str, dict[str, Figures]]


class Verdict(enum.Enum):
    """How a figure stands to the committed one."""

    SAME = enum.auto()
    DEARER = enum.auto()
    CHEAPER = enum.auto()
    NEW = enum.auto()


class Row(msgspec.Struct, frozen=True):
    """One figure beside the committed one; ``change`` is 0.1 where it became 10 % dearer."""

    case: str
    side: str
    measured: Figure
    committed: Figure | None
    change: float
    verdict: Verdict


def compare(
    measured: Figures, committed: Mapping[str, Mapping[str, Figure]], limit: float = LIMIT
) -> list[Row]:
    """Each measured figure by its ratio; what was never committed is new."""
    rows = []
    for case, sides in measured.items():
        for side, figure in sides.items():
            known = committed.get(case, {}).get(side)
            if known is None:
                rows.append(Row(case, side, figure, None, 0.0, Verdict.NEW))
                continue
            change = figure.ratio / known.ratio - 1.0
            verdict = Verdict.SAME
            # Rounded, so that the tenth itself is allowed whatever its binary fraction.
            if round(abs(change), 9) > limit:
                verdict = Verdict.DEARER if change > 0 else Verdict.CHEAPER
            rows.append(Row(case, side, figure, known, change, verdict))
    return rows


def cheapest(first: Figures, second: Figures) -> Figures:
    """Of two measurements the cheaper figures: noise makes a call dearer, never cheaper."""
    return {
        case: {
            side: min(figure, second.get(case, {}).get(side, figure), key=lambda f: f.ratio)
            for side, figure in sides.items()
        }
        for case, sides in first.items()
    }


def middle(measurements: Sequence[Figures]) -> Figures:
    """Of an odd number of measurements of the same cases the median figures, which are what to commit."""
    return {
        case: {
            side: sorted((m[case][side] for m in measurements), key=lambda f: f.ratio)[len(measurements) // 2]
            for side in sides
        }
        for case, sides in measurements[0].items()
    }


def accepted(old: Committed, minor: str, method: str, measured: Figures, *, whole: bool) -> Committed:
    """``old`` with the measured figures in place; ``whole`` drops those of cases that are gone."""
    methods = old.figures.get(minor, {})
    kept = {} if whole else methods.get(method, {})
    figures = {**old.figures, minor: {**methods, method: {**kept, **measured}}}
    return Committed(old.about, figures)


def table(rows: Sequence[Row]) -> str:
    """All figures of a run, one line each."""
    cells = [("case", "side", "instructions", "ratio", "committed", "change")]
    for row in rows:
        instructions = row.measured.instructions
        cells.append(
            (
                row.case,
                row.side,
                "-" if instructions is None else f"{instructions:,}",
                f"{row.measured.ratio:.3f}",
                "-" if row.committed is None else f"{row.committed.ratio:.3f}",
                "new" if row.committed is None else f"{row.change:+.1%}",
            )
        )
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def report(
    rows: Sequence[Row], method: str, minor: str, gone: Sequence[str] = (), limit: float = LIMIT
) -> str:
    """What to say below the table; empty where every figure is about the committed one."""
    said: list[str] = []
    dearer = [row for row in rows if row.verdict is Verdict.DEARER]
    cheaper = [row for row in rows if row.verdict is Verdict.CHEAPER]
    new = [row for row in rows if row.verdict is Verdict.NEW]
    if dearer:
        said.append(
            f"guard: a call became dearer by more than {limit:.0%} ({_UNITS[method]}, Python {minor}):"
        )
        said.extend(_line(row) for row in dearer)
        said.append(
            f"  where it goes:   python -m tests.bench.guard --profile --only '{dearer[0].case}'\n"
            f"  again, alone:    python -m tests.bench.guard --only '{dearer[0].case}'\n"
            f"  if it must cost: {_ACCEPT}, and commit tests/bench/guard.json with the reason"
        )
    if cheaper:
        said.append(f"guard: well done, a call became cheaper by more than {limit:.0%}:")
        said.extend(_line(row) for row in cheaper)
        said.append(f"  keep it so:      {_ACCEPT}, and commit tests/bench/guard.json")
    if new and len(new) == len(rows):
        said.append(
            f"guard: nothing is committed for Python {minor} by {_UNITS[method]}, so nothing was compared; "
            f"to commit these figures: {_ACCEPT}"
        )
    elif new:
        names = ", ".join(f"{row.case} ({row.side})" for row in new)
        said.append(f"guard: no committed figure yet for {names}; to commit them: {_ACCEPT}")
    if gone:
        said.append(f"guard: committed, but measured no more: {', '.join(gone)}; to forget them: {_ACCEPT}")
    return "\n".join(said)


def _line(row: Row) -> str:
    assert row.committed is not None
    now, then = row.measured, row.committed
    text = f"  {row.case}, {row.side}: {now.ratio:.3f} times the reference, committed {then.ratio:.3f}"
    text += f" ({row.change:+.1%}"
    if now.instructions is not None and then.instructions is not None:
        text += f"; {now.instructions:,} instructions, committed {then.instructions:,}"
    return text + ")"
