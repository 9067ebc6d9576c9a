"""Numbers and states as cells: short, and with a glyph or a word beside every colour. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.last_errors import LastError, error_text
from nats_mesh_cli.output import millis, part_text, percent_text, rate_text, success_text
from nats_mesh_cli.trouble import (
    Level,
    breakers_level,
    gave_up_level,
    met_level,
    ready_level,
    retry_level,
    status_level,
)

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
    "gave_up_cell",
    "leveled",
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

#: How each level looks: never by its colour alone.
_SIGNS: Final[dict[Level, tuple[str, str]]] = {
    "bad": ("✗", BAD),
    "warn": ("▲", WARN),
    "ok": ("✓", GOOD),
    "": ("", ""),
}
_LEVELS: Final = {
    "page": Cell("✗ PAGE", BAD),
    "ticket": Cell("▲ TICKET", WARN),
    "soon": Cell("▲ soon", WARN),
    "ok": Cell("✓ ok", GOOD),
}
_STATES: Final = {
    "ready": Cell("● ready", GOOD),
    "joining": Cell("○ joining", WARN),
    "draining": Cell("○ draining", WARN),
    "suspect": Cell("✗ suspect", BAD),
    "silent": Cell("✗ silent", BAD),
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


def leveled(text: str, level: Level, *, gap: str = " ") -> Cell:
    """``text`` with the sign and the colour of a level."""
    sign, style = _SIGNS[level]
    return Cell(f"{sign}{gap}{text}" if sign else text, style)


def duration_text(seconds: float | None) -> str:
    """As :func:`~nats_mesh_cli.output.millis`, without the blank: at most six cells."""
    return millis(seconds).replace(" ", "")


def count_text(count: int) -> str:
    """How many, in at most five cells: exact below a thousand."""
    return str(count) if count < 1000 else rate_text(float(count))


def success_cell(share: float | None, gave_up: float = 0.0) -> Cell:
    """Rounded down: 100 % means that nothing failed. Where many calls were given up, answers that are well are no sign
    that all is."""
    if share is None:
        return leveled("-", gave_up_level(gave_up)) if gave_up else _NOTHING
    return leveled(success_text(share), met_level(share, gave_up))


def ready_cell(ready: int, instances: int) -> Cell:
    """How many instances can be called."""
    return leveled(f"{ready}/{instances}", ready_level(ready, instances), gap="")


def breaker_cell(breakers: Mapping[str, int]) -> Cell:
    """The worst of some circuits."""
    level = breakers_level(breakers)
    if not level:
        return _NOTHING
    count, word = (breakers["OPEN"], "OPEN") if level == "bad" else (breakers["HALF_OPEN"], "HALF")
    if count == 1:
        return leveled(word, level)
    return leveled(f"{word}×{count}" if count < 10 else f"{word}9+", level, gap="")  # no column has more room


def retry_cell(share: float) -> Cell:
    """The share of repetitions among the attempts, in percent."""
    if share <= 0.0:
        return _NOTHING
    return leveled(percent_text(share), retry_level(share))


def gave_up_cell(share: float) -> Cell:
    """The share of calls that their callers gave up."""
    return leveled(part_text(share), gave_up_level(share)) if share > 0.0 else _NOTHING


def error_cell(error: LastError, now: float) -> Cell:
    """The last error with its age at ``now``."""
    return Cell(clean(error_text(error, now)), DIM)


def alert_cell(level: str | None) -> Cell:
    """How an objective stands, or the worst of some; ``None`` where nothing is promised, or nobody watches; ``soon``:
    it is well and will not be for long."""
    return _NOTHING if level is None else _LEVELS[level]


def state_cell(state: str) -> Cell:
    """A state of an instance, or of one who follows policies."""
    return _STATES.get(state) or Cell(clean(state))


def status_cell(status: str) -> Cell:
    """How a call ended."""
    return leveled(clean(status), status_level(status))


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
