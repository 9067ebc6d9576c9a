"""Curves over time as a picture: static SVG, pure text, no library, in the style of ``tests/bench/plot.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

__all__ = ["FOURTH", "OTHER", "OURS", "PLAIN", "Line", "Panel", "Span", "svg"]

#: What the mesh does; what it does otherwise; what it is compared with; and a fourth.
OURS, OTHER, PLAIN, FOURTH = "#0f766e", "#b45309", "#94a3b8", "#1d4ed8"
_FAINT, _TEXT, _GRID, _BAD = "#64748b", "#0f172a", "#e2e8f0", "#fee2e2"
_FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif\""
_PANEL, _LEFT, _RIGHT = 520, 72, 24
_TOP, _PLOT, _AXIS, _LEGEND, _BOTTOM = 104, 200, 52, 20, 36
_TICKS = 5


class Line(msgspec.Struct, frozen=True):
    """One curve. Points whose value is infinite, or not above zero on a logarithmic axis, are left out."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str = OURS


class Span(msgspec.Struct, frozen=True):
    """Where something was wrong, on the horizontal axis."""

    first: float
    last: float


class Panel(msgspec.Struct, frozen=True):
    """One pair of axes. ``top`` is the least that the vertical one reaches up to."""

    title: str
    x: str
    lines: Sequence[Line]
    spans: Sequence[Span] = ()
    log: bool = False
    top: float = 0.0


def svg(title: str, note: str, panels: Sequence[Panel]) -> str:
    """The panels, two in a row, each with its legend below."""
    row = _PLOT + _AXIS + _LEGEND * max(len(panel.lines) for panel in panels) + _BOTTOM
    width, height = _PANEL * min(2, len(panels)), _TOP + row * ((len(panels) + 1) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" {_FONT} role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(24, 36, title, 20, _TEXT, weight=600),
        _text(24, 58, note, 12, _FAINT),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(_PANEL * (number % 2), _TOP + row * (number // 2), panel)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """From values to places, in one direction."""

    def __init__(self, low: float, high: float, begin: float, end: float, *, log: bool = False) -> None:
        self._log = log
        self.low, self.high = low, high
        self._from, self._to = (math.log10(low), math.log10(high)) if log else (low, high)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        place = math.log10(value) if self._log else value
        return self._begin + (self._end - self._begin) * (place - self._from) / (self._to - self._from)

    @property
    def ticks(self) -> list[float]:
        if self._log:
            return [10.0**power for power in range(round(self._from), round(self._to) + 1)]
        step = _step((self.high - self.low) / _TICKS)
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def _step(least: float) -> float:
    """The least of 1, 2, 5, 10, 20 and so on that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(each * power for each in (1.0, 2.0, 5.0, 10.0) if each * power >= least * (1.0 - 1e-9))


def _panel(left: int, top: int, panel: Panel) -> list[str]:
    bottom = top + _PLOT
    shown = {line.label: _shown(line, panel.log) for line in panel.lines}
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    highest = max(panel.top, *ys) or 1.0
    if panel.log:
        low, high = 10.0 ** math.floor(math.log10(min(ys))), 10.0 ** math.ceil(math.log10(highest))
    else:
        low, high = 0.0, highest * 1.05
    horizontal = _Scale(min(xs), max(xs), left + _LEFT, left + _PANEL - _RIGHT)
    vertical = _Scale(low, high, bottom, top, log=panel.log)
    parts = [_text(left + 24, top - 16, panel.title, 13, _TEXT, weight=600)]
    for span in panel.spans:
        begin, end = horizontal.at(span.first), horizontal.at(span.last)
        parts.append(
            f'<rect x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{_PLOT}" fill="{_BAD}"/>'
        )
    for tick in vertical.ticks:
        y = vertical.at(tick)
        parts += [
            f'<line x1="{left + _LEFT}" y1="{y:.1f}" x2="{left + _PANEL - _RIGHT}" y2="{y:.1f}" stroke="{_GRID}"/>',
            _text(left + _LEFT - 8, y + 4, f"{tick:,g}", 11, _FAINT, anchor="end"),
        ]
    for tick in horizontal.ticks:
        parts.append(_text(horizontal.at(tick), bottom + 16, f"{tick:,g}", 11, _FAINT, anchor="middle"))
    parts.append(_text(left + _PANEL - _RIGHT, bottom + 32, panel.x, 11, _FAINT, anchor="end"))
    for line in reversed(panel.lines):  # the first lies on top
        places = " ".join(f"{horizontal.at(x):.1f},{vertical.at(y):.1f}" for x, y in shown[line.label])
        parts.append(f'<polyline points="{places}" fill="none" stroke="{line.colour}" stroke-width="1.8"/>')
    for row, line in enumerate(panel.lines):
        y = bottom + _AXIS + _LEGEND * row
        parts += [
            f'<line x1="{left + _LEFT}" y1="{y - 4}" x2="{left + _LEFT + 28}" y2="{y - 4}" '
            f'stroke="{line.colour}" stroke-width="2.4"/>',
            _text(left + _LEFT + 36, y, line.label, 12, _TEXT),
        ]
    return parts


def _shown(line: Line, log: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in line.points if math.isfinite(y) and (y > 0.0 or not log)]


def _text(
    x: float, y: float, text: str, size: int, colour: str, *, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
