"""What a simulation found, as a page to read: the rule, how it was set up, the figures, the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.sim.plot import Panel, svg

__all__ = ["RESULTS", "Report", "files", "quantile", "rates", "tails"]

RESULTS = Path(__file__).resolve().parent / "results"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``rule`` is what the tests hold, ``setup`` what happened, ``rows`` the figures below the words of ``head``;
    ``policies`` are named documents that differ between what is compared."""

    name: str
    title: str
    rule: str
    setup: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    panels: Sequence[Panel]
    policies: Sequence[tuple[str, str]] = ()
    remark: str = ""


def files(report: Report) -> dict[str, str]:
    """The files of a report by name: a picture and the page around it."""
    parts = [
        f"# {report.title}",
        report.rule,
        report.setup,
        f"![{report.title}]({report.name}.svg)",
        _table(report.head, report.rows),
    ]
    if report.remark:
        parts.append(report.remark)
    for title, text in report.policies:
        parts.append(f"{title}:\n\n```yaml\n{text.strip()}\n```")
    parts.append(f"Made by `python -m tests.sim {report.name}`.")
    picture = svg(report.title, report.rule.partition(". ")[0].rstrip(".") + ".", report.panels)
    return {f"{report.name}.md": "\n\n".join(parts) + "\n", f"{report.name}.svg": picture}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest of ``values`` that a share ``q`` of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def rates(instants: Sequence[float], for_s: int, *, every_s: float = 1.0) -> list[tuple[float, float]]:
    """How many of ``instants`` (seconds from 0) fall into each ``every_s``, a second: points of a curve."""
    counts = [0] * int(for_s / every_s)
    for at in instants:
        if 0 <= at < for_s:
            counts[int(at / every_s)] += 1
    return [((number + 0.5) * every_s, count / every_s) for number, count in enumerate(counts)]


def tails(
    timed: Sequence[tuple[float, float]], for_s: int, q: float, *, every_s: float = 1.0
) -> list[tuple[float, float]]:
    """The quantile ``q`` of what was observed in each ``every_s``: points of a curve. ``timed``: instant and value."""
    groups: list[list[float]] = [[] for _ in range(int(for_s / every_s))]
    for at, value in timed:
        if 0 <= at < for_s:
            groups[int(at / every_s)].append(value)
    return [((n + 0.5) * every_s, quantile(group, q)) for n, group in enumerate(groups) if group]
