"""Numbers and states as cells: short, and with a glyph or a word beside every colour. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.output import success_text
from nats_mesh_cli.top.model import BAD_SUCCESS

__all__ = [
    "BAD",
    "DIM",
    "GOOD",
    "HEAD",
    "NAME",
    "WARN",
    "alert_cell",
    "breaker_cell",
    "clean",
    "clock",
    "count_text",
    "duration_text",
    "rate_text",
    "ready_cell",
    "retry_cell",
    "state_cell",
    "status_cell",
    "success_cell",
    "trend_text",
]

HEAD: Final = "bold"
NAME: Final = "bold cyan"
DIM: Final = "dim"
GOOD, WARN, BAD = "green", "yellow", "red"
_NOTHING: Final = Cell("-", DIM)
_BARS: Final = "▁▂▃▄▅▆▇█"

_LEVELS: Final = {
    "page": Cell("✗ PAGE", BAD),
    "ticket": Cell("▲ TICKET", WARN),
    "ok": Cell("✓ ok", GOOD),
}
_STATES: Final = {
    "ready": Cell("● ready", GOOD),
    "joining": Cell("○ joining", WARN),
    "draining": Cell("○ draining", WARN),
    "suspect": Cell("▲ suspect", BAD),
    "SYNCED": Cell("✓ SYNCED", GOOD),
    "STALE": Cell("▲ STALE", WARN),
    "REJECTED": Cell("✗ REJECTED", BAD),
    "ELSEWHERE": Cell("· ELSEWHERE", DIM),
}


def clean(text: str) -> str:
    """``text`` with a blank for whatever a terminal would obey, or that would turn the direction of a line."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else " " for c in text])


def duration_text(seconds: float | None) -> str:
    """A duration in at most five cells: ``420µs``, ``4.2ms``, ``41ms``, ``1.3s``, ``12s``, ``5m``, ``3h``."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f}µs"
    if seconds < 0.999_5:
        ms = seconds * 1e3
        return f"{ms:.1f}ms" if ms < 9.95 else f"{ms:.0f}ms"
    if seconds < 99.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5970 else f"{seconds / 3600:.0f}h"


def rate_text(per_s: float) -> str:
    """How many a second, in at most five cells: ``0``, ``4.2``, ``310``, ``1.2k``, ``3.4M``."""
    if not math.isfinite(per_s) or per_s <= 0.0:
        return "0"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if per_s >= 0.9995 * size:
            scaled = per_s / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{per_s:.1f}" if per_s < 9.95 else f"{per_s:.0f}"


def count_text(count: int) -> str:
    """How many, in at most five cells: exact below a thousand."""
    return str(count) if count < 1000 else rate_text(float(count))


def success_cell(share: float | None) -> Cell:
    """Rounded down: 100 % means that nothing failed."""
    if share is None:
        return _NOTHING
    if share >= 1.0:
        return Cell("✓ 100%", GOOD)
    text = success_text(share)
    return Cell(f"▲ {text}", WARN) if share >= BAD_SUCCESS else Cell(f"✗ {text}", BAD)


def ready_cell(ready: int, instances: int) -> Cell:
    """How many instances can be called."""
    text = f"{ready}/{instances}"
    if ready == 0:
        return Cell(f"✗{text}", BAD)
    return Cell(text) if ready >= instances else Cell(f"▲{text}", WARN)


def breaker_cell(breakers: Mapping[str, int]) -> Cell:
    """The worst of some circuits."""
    if opened := breakers.get("OPEN", 0):
        return Cell("✗ OPEN" if opened == 1 else f"✗ {opened} OPEN", BAD)
    if half := breakers.get("HALF_OPEN", 0):
        return Cell("▲ HALF" if half == 1 else f"▲ {half} HALF", WARN)
    return _NOTHING


def retry_cell(share: float) -> Cell:
    """The share of repetitions among the attempts, in percent."""
    if share <= 0.0:
        return _NOTHING
    text = f"{share * 100:.1f}"
    return Cell(f"▲ {text}", WARN) if share >= 0.1 else Cell(text)


def alert_cell(level: str | None) -> Cell:
    """How an objective stands, or the worst of some; ``None`` where nothing is promised, or nobody watches."""
    return _NOTHING if level is None else _LEVELS[level]


def state_cell(state: str) -> Cell:
    """A state of an instance, or of one who follows policies."""
    return _STATES.get(state) or Cell(clean(state))


def status_cell(status: str, *, failed: bool) -> Cell:
    """How a call ended."""
    if status == "OK":
        return Cell("✓ OK", GOOD)
    return Cell(f"✗ {status}", BAD) if failed else Cell(f"▲ {status}", WARN)


def trend_text(values: tuple[float, ...], width: int) -> str:
    """The last ``width`` values as bars, a steady one at two thirds; blanks where there is nothing yet."""
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0.0) * 1.4
    if not top > 0.0 or not math.isfinite(top):
        return ""
    return "".join([_BARS[max(0, min(7, int(value / top * 8)))] for value in shown])


def clock(at: str) -> str:
    """The time of the day of an instant, UTC."""
    return clean(at[11:19]) if len(at) >= 19 else clean(at)
