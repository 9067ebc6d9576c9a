"""The live view as a pure function: a state and a size in, exactly that many lines of at most that width out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.text import Text

from nats_mesh.core.shares import share_text
from nats_mesh_cli.demo.layout import (
    Cell,
    Column,
    fit_columns,
    join_fitting,
    line,
    shorten,
    sparkline,
    two_sided,
)
from nats_mesh_cli.demo.state import Event, InstanceLine, Mark, Phase, Recent, ServiceLine, Size, ViewState
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.output import counted, millis
from nats_mesh_cli.top.words import success_cell

__all__ = ["MIN_SIZE", "render"]

MIN_SIZE = Size(50, 10)
_MAX_ROWS = 12
_MIN_EVENTS = 2
_TREND = 8
_MIN_TITLE = 16
_HEAD = "bold"
_NAMES = "bold cyan"

_PHASES: dict[Phase, Cell] = {
    "starting": Cell("○ starting", "yellow"),
    "running": Cell("● running", "green"),
    "stopping": Cell("○ stopping", "yellow"),
}
_STATES = {
    "joining": Cell("○ joining", "yellow"),
    "ready": Cell("● ready", "green"),
    "draining": Cell("○ draining", "yellow"),
    "suspect": Cell("▲ suspect", "yellow"),
    "ended": Cell("✗ ended", "red"),
}
_MARKS = {
    Mark.JOIN: Cell("+ joined", "green"),
    Mark.LEAVE: Cell("- left", "yellow"),
    Mark.CHANGE: Cell("~ changed", "cyan"),
    Mark.WARN: Cell("▲ warning", "yellow"),
    Mark.ERROR: Cell("✗ error", "red"),
    Mark.INFO: Cell("· info", "dim"),
}

_FIRST = 21
_NUMBERS = (
    Column(key="rate", head="CALLS/S", width=8),
    Column(key="success", head="SUCCESS", width=8),
    Column(key="p50", head="P50", width=8, drop=2),
    Column(key="p99", head="P99", width=8),
    Column(key="calls", head="CALLS", width=8, drop=3),
)
_SERVICES = (
    Column(key="name", head="SERVICES", width=_FIRST, right=False),
    Column(key="ready", head="READY", width=6, drop=1),
    *_NUMBERS,
    Column(key="trend", head="TREND", width=_TREND, right=False, drop=4),
    Column(key="shares", head="ANSWERED BY", width=29, right=False, drop=5),
)
_EDGES = (
    Column(key="name", head="EDGES", width=_FIRST, right=False),
    Column(key="ready", head="", width=6, drop=1),
    *_NUMBERS,
)
_INSTANCES = (
    Column(key="name", head="INSTANCES", width=_FIRST, right=False),
    Column(key="state", head="STATE", width=11, right=False),
    Column(key="flight", head="IN FLIGHT", width=9, drop=2),
    Column(key="calls", head="CALLS", width=8, drop=1),
    Column(key="pid", head="PID", width=8),
)


def render(state: ViewState, size: Size) -> Text:
    """Draw ``state``. Sections that find no room are left out, the instances first; the newest events stay."""
    if size.width < MIN_SIZE.width or size.height < MIN_SIZE.height:
        return _too_small(size)
    top = [_title(state, size.width), _pages(state, size.width)]
    sections = [
        _table(_SERVICES, [_service(each) for each in state.services], size.width),
        _table(
            _EDGES,
            [
                {"name": Cell(f"{e.source} → {called_text(e.service)}"), **_recent(e.recent)}
                for e in state.edges
            ],
            size.width,
        ),
        _table(_INSTANCES, [_instance(each) for each in state.instances], size.width),
    ]
    least_events = 1 + _MIN_EVENTS
    while len(sections) > 1 and len(top) + sum(map(len, sections)) + least_events > size.height:
        sections.pop()
    room = size.height - len(top) - sum(map(len, sections)) - least_events
    spaced = room >= len(sections) + 1
    lines = list(top)
    for section in sections:
        lines += [Text(""), *section] if spaced else section
    lines += [Text("")] if spaced else []
    lines += _events(state.events, size.width, size.height - len(lines))
    return _exactly(lines, size)


def _title(state: ViewState, width: int) -> Text:
    phase = _PHASES[state.phase]
    clock = ""
    if state.phase != "starting":
        clock = f" {_clock(state.elapsed_s)}"
        if state.duration_s is not None:
            clock += f" of {_clock(state.duration_s)}"
    right = join_fitting(
        [
            Cell(phase.text + clock, phase.style),
            *([Cell("t top", "dim")] if state.phase == "running" else []),
            Cell("q quits", "dim"),
        ],
        width - _MIN_TITLE,
        "  ",
    )
    left = join_fitting(
        [Cell("nats-mesh demo", _NAMES), Cell(state.url), Cell("Bookinfo", "dim")],
        width - right.cell_len - 2,
        "  ",
    )
    return two_sided(left, right, width)


def _pages(state: ViewState, width: int) -> Text:
    pages = state.pages
    edge = next((e.recent for e in state.edges if e.source == "web"), Recent())
    troubles = [
        Cell(f"{glyph} {count} {word}", style)
        for glyph, count, word, style in (
            ("✗", pages.failed, "failed", "red"),
            ("▲", pages.degraded, "incomplete", "yellow"),
            ("▲", pages.skipped, "skipped", "yellow"),
        )
        if count
    ]
    segments = [
        Cell(f"{edge.rate_per_s:.1f} of {pages.asked_per_s:g} pages/s", "bold"),
        success_cell(edge.success),
        *troubles,
        Cell(f"p99 {millis(edge.p99_s)}"),
        Cell(f"{pages.in_flight} in flight"),
        Cell(counted(pages.calls, "page")),
    ]
    return join_fitting(segments, width)


def _table(columns: Sequence[Column], rows: Sequence[dict[str, Cell]], width: int) -> list[Text]:
    shown = fit_columns(columns, width)
    lines = [line(shown, {column.key: Cell(column.head, _HEAD) for column in shown})]
    kept = rows if len(rows) <= _MAX_ROWS else rows[: _MAX_ROWS - 1]
    lines += [line(shown, row) for row in kept]
    if len(kept) < len(rows):
        lines.append(Text(f"… and {len(rows) - len(kept)} more", "dim"))
    return lines


def _service(service: ServiceLine) -> dict[str, Cell]:
    ready = f"{service.ready}/{service.instances}"
    return {
        "name": Cell(service.name, _NAMES),
        "ready": Cell(ready) if service.ready == service.instances else Cell(f"▲ {ready}", "yellow"),
        **_recent(service.recent),
        "trend": Cell(sparkline(service.trend, _TREND), "cyan"),
        "shares": Cell(" ".join(f"{version} {share_text(share, 2)}" for version, share in service.shares)),
    }


def _instance(instance: InstanceLine) -> dict[str, Cell]:
    return {
        "name": Cell(f"{instance.service} {instance.version}"),
        "state": _STATES.get(instance.state, Cell(instance.state)),
        "flight": Cell(str(instance.in_flight)),
        "calls": Cell(str(instance.calls)),
        "pid": Cell(instance.pid, "dim"),
    }


def _recent(recent: Recent) -> dict[str, Cell]:
    return {
        "rate": Cell(f"{recent.rate_per_s:.1f}"),
        "success": success_cell(recent.success),
        "p50": Cell(millis(recent.p50_s)),
        "p99": Cell(millis(recent.p99_s)),
        "calls": Cell(str(recent.calls)),
    }


def _events(events: Sequence[Event], width: int, height: int) -> list[Text]:
    lines = [Text("EVENTS", _HEAD)]
    for event in events[-(height - 1) :]:
        mark = _MARKS[event.mark]
        text = Text(no_wrap=True)
        text.append(f"{event.time}  ", "dim")
        text.append(f"{mark.text:<11}", mark.style)
        again = f" ×{event.count}" if event.count > 1 else ""
        text.append(shorten(event.text, width - text.cell_len - len(again)) + again)
        lines.append(text)
    return lines


def _too_small(size: Size) -> Text:
    """Says so in whole words, as far as there is room for them."""
    need = f"{MIN_SIZE.width}×{MIN_SIZE.height}"
    words = f"This window is {size.width}×{size.height}; make it {need} or more. q quits."
    lines = [Text(part) for part in textwrap.wrap(words, max(1, size.width), break_long_words=False)]
    return _exactly([each for each in lines if each.cell_len <= size.width], size)


def _exactly(lines: list[Text], size: Size) -> Text:
    lines = lines[: size.height]
    lines += [Text("")] * (size.height - len(lines))
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
