"""A report as a picture: a static SVG of two panels of bars. Pure text, no library."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

from tests.bench.figures import Report, cell_of

__all__ = ["svg"]

_WIDTH = 1080
_LABEL, _BAR, _VALUE = 190, 230, 100
_PANEL = _LABEL + _BAR + _VALUE
_ROW, _TOP, _BOTTOM = 30, 112, 56
_FIRST, _OURS, _OTHERS, _FAINT, _TEXT = "#64748b", "#0f766e", "#94a3b8", "#64748b", "#0f172a"
_FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif\""


class _Bar(msgspec.Struct, frozen=True):
    title: str
    value: float | None
    low: float
    high: float
    colour: str


def svg(report: Report, *, size: int = 128) -> str:
    """Calls a second at 64 in flight, and p50 at 1 in flight, both with the spread of the rounds.

    Where the run has no such cell, the nearest that it has stands in, and the panel's title says so.
    """
    most = _nearest(report.plan.in_flight, 64)
    least = _nearest(report.plan.in_flight, 1)
    if size not in report.plan.sizes:
        size = report.plan.sizes[0]
    rates = _bars(report, size, most, latency=False)
    latencies = _bars(report, size, least, latency=True)
    height = _TOP + _ROW * len(report.peers) + _BOTTOM
    where = f"{report.machine.cores} cores, {report.machine.cpu} · {report.versions.get('python', '')}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" {_FONT} role="img">',
        f"<title>{escape(f'Calls between two processes, {size} B')}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(24, 38, f"Calls between two processes, {size} B", 20, _TEXT, weight=600),
        _text(24, 60, f"{where} · {report.taken[:10]}", 12, _FAINT),
        *_panel(0, f"Calls a second, {most} in flight (more is better)", rates),
        *_panel(_PANEL + 20, f"p50 in µs, {least} in flight (less is better)", latencies),
        _text(
            24,
            height - 20,
            f"Medians of {report.plan.rounds} interleaved rounds; the thin line is their lowest and highest.",
            12,
            _FAINT,
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _nearest(choices: Sequence[int], wanted: int) -> int:
    return min(choices, key=lambda each: abs(each - wanted))


def _bars(report: Report, size: int, in_flight: int, *, latency: bool) -> list[_Bar]:
    found = []
    for number, peer in enumerate(report.peers):
        cell = cell_of(report.cells, peer.name, size, in_flight)
        colour = _OURS if peer.name.startswith("mesh") else _OTHERS if number else _FIRST
        if cell is None:
            found.append(_Bar(peer.title, None, 0.0, 0.0, colour))
            continue
        spread = cell.p50_us if latency else cell.rate_per_s
        found.append(_Bar(peer.title, spread.median, spread.low, spread.high, colour))
    return found


def _panel(left: int, title: str, bars: Sequence[_Bar]) -> list[str]:
    top = max((bar.high for bar in bars), default=0.0) or 1.0
    parts = [_text(left + 24, _TOP - 20, title, 13, _TEXT, weight=600)]
    for number, bar in enumerate(bars):
        y = _TOP + number * _ROW
        zero = left + _LABEL
        parts.append(_text(zero - 8, y + 14, bar.title, 12, _TEXT, anchor="end"))
        if bar.value is None:
            parts.append(_text(zero, y + 14, "not measured", 12, _FAINT))
            continue
        length, low, high = (_BAR * each / top for each in (bar.value, bar.low, bar.high))
        parts += [
            f'<rect x="{zero}" y="{y}" width="{max(1.0, length):.1f}" height="20" rx="2" fill="{bar.colour}"/>',
            f'<line x1="{zero + low:.1f}" y1="{y + 10}" x2="{zero + high:.1f}" y2="{y + 10}" '
            'stroke="#0f172a" stroke-width="1.5" stroke-opacity="0.6"/>',
            _text(zero + max(length, high) + 6, y + 14, f"{bar.value:,.0f}", 12, _TEXT),
        ]
    return parts


def _text(
    x: float, y: float, text: str, size: int, colour: str, *, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
