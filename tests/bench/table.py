"""The report as a person reads it: plain text for a terminal, markdown for the results. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.figures import Cell, PeerInfo, Report, Spread, Verdict, cell_of, ratio

__all__ = ["markdown", "plain"]

_NONE = "–"
_HEAD = (
    "",
    "calls/s",
    "lowest–highest",
    "ratio",
    "p50 µs",
    "ratio",
    "p99 µs",
    "CPU µs: caller",
    "service",
    "between",
    "peak MiB: caller",
    "service",
)
_LAYER_HEAD = ("", "cost µs", "quartiles", "CPU µs", "calls/s")
_BUDGET_HEAD = ("", "ratio", "must", "aim", "")

Row = Sequence[str]
_Tabulate = Callable[[Row, Sequence[Row]], str]


def plain(report: Report) -> str:
    """Columns in line."""
    return _render(report, _aligned, "{}", "  {}")


def markdown(report: Report) -> str:
    """Tables and headings."""
    return "# Speed\n\n" + _render(report, _piped, "## {}\n", "- {}")


def _render(report: Report, table: _Tabulate, heading: str, item: str) -> str:
    parts = [_facts(report, item)]
    for size, in_flight in dict.fromkeys((cell.size, cell.in_flight) for cell in report.cells):
        title = f"{_size(size)}, {in_flight} in flight"
        parts.append(f"{heading.format(title)}\n{table(_HEAD, _cells(report, size, in_flight))}")
    if report.layers:
        rows = [
            (
                c.title,
                f"{c.cost_us.median:+.1f}",
                f"{c.cost_us.low:+.1f} … {c.cost_us.high:+.1f}",
                f"{c.cpu_us.median:.1f}",
                _number(c.rate_per_s),
            )
            for c in report.layers
        ]
        title = "Layers, one by one: CPU of both ends per call, over the plainest (128 B, 64 in flight)"
        parts.append(f"{heading.format(title)}\n{table(_LAYER_HEAD, rows)}")
    parts.append(f"{heading.format('Budgets')}\n{table(_BUDGET_HEAD, [_budget(v) for v in report.budgets])}")
    notes = [item.format(note) for note in _notes(report)]
    if notes:
        parts.append(heading.format("Notes") + "\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _aligned(head: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in (head, *rows)
    )


def _piped(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _facts(report: Report, item: str) -> str:
    where, plan = report.machine, report.plan
    length = f"{plan.calls:,} calls" if plan.calls else f"{plan.seconds:g} s"
    cores = f"{where.cores} core{'s' * (where.cores != 1)}"
    lines = [
        f"{report.taken}; {cores}, {where.cpu}, {where.architecture}, {where.kernel}; "
        f"load before {where.load_before:g}",
        f"{plan.rounds} interleaved rounds, {length} a cell; {plan.warm_up_s:g} s of warming up "
        f"in new processes, {plan.settle_s:g} s before every cell; medians of the rounds",
        ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    ]
    return "\n".join(item.format(line) for line in lines)


def _cells(report: Report, size: int, in_flight: int) -> list[Row]:
    first = cell_of(report.cells, report.peers[0].name, size, in_flight)
    return [_cell(report, peer, first, size, in_flight) for peer in report.peers]


def _cell(report: Report, peer: PeerInfo, first: Cell | None, size: int, in_flight: int) -> Row:
    cell = cell_of(report.cells, peer.name, size, in_flight)
    if cell is None:
        reason = peer.missing.partition(":")[0] or "not measured"
        return (peer.title, reason, *[_NONE] * (len(_HEAD) - 2))
    return (
        peer.title + (f" ({cell.errors} failed)" if cell.errors else ""),
        _number(cell.rate_per_s),
        _range(cell.rate_per_s),
        _ratio(ratio(cell.rate_per_s, first.rate_per_s if first else None)),
        _number(cell.p50_us),
        _ratio(ratio(cell.p50_us, first.p50_us if first else None)),
        _number(cell.p99_us),
        _number(cell.cpu_caller_us, 1),
        _number(cell.cpu_service_us, 1),
        _number(cell.cpu_between_us, 1),
        _number(cell.rss_caller_mib),
        _number(cell.rss_service_mib),
    )


def _budget(verdict: Verdict) -> Row:
    sign = "≤" if verdict.at_most else "≥"
    said = {True: "met", False: "NOT MET", None: "not measured"}[verdict.met]
    aim = _NONE if verdict.aim is None else f"{sign} {verdict.aim:g}"
    return (verdict.name, _ratio(verdict.ratio), f"{sign} {verdict.must:g}", aim, said)


def _notes(report: Report) -> list[str]:
    found = [f"{p.title}: {p.missing or p.note}" for p in report.peers if p.missing or p.note]
    found += [
        f"{cell.peer}, {_size(cell.size)}, {cell.in_flight} in flight: {cell.errors} failed, the first with "
        f"{cell.first_error}"
        for cell in report.cells
        if cell.errors
    ]
    return found


def _size(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 and size % 1024 == 0 else f"{size} B"


def _number(spread: Spread | None, digits: int = 0) -> str:
    return _NONE if spread is None else f"{spread.median:,.{digits}f}"


def _range(spread: Spread, digits: int = 0) -> str:
    return f"{spread.low:,.{digits}f} – {spread.high:,.{digits}f}"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"
