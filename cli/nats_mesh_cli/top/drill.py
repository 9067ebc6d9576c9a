"""Looking into a service, or into one caller's calls to it: latency, errors, objectives, endpoints, callers,
instances. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace
from rich.cells import cell_len

from nats_mesh.telemetry.snapshots import Edge, Endpoint, Red, Service
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.last_errors import aged_text, last_error_of
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.output import counted
from nats_mesh_cli.top import words
from nats_mesh_cli.top.buckets import Bar, bars_of, bounds_for
from nats_mesh_cli.top.columns import GAVE_UP, red_cells
from nats_mesh_cli.top.following import Facts, facts_of
from nats_mesh_cli.top.frame import Line
from nats_mesh_cli.top.grid import Field, clip, wrap
from nats_mesh_cli.top.model import ARROW, Data
from nats_mesh_cli.top.objectives import objective_lines
from nats_mesh_cli.top.section import section
from nats_mesh_cli.trouble import is_bad, status_level, tells_of_trouble

__all__ = ["errors_of", "latency_lines", "lines_of", "name_of", "red_of"]

_MAX_ERRORS: Final = 50
#: On how many lines the last of them stands.
_ERROR_LINES: Final = 3
#: How many lines the latency has on the page.
_CLASSES: Final = 12
_BAR: Final = "█"
_PARTS: Final = " ▏▎▍▌▋▊▉"

_ENDPOINTS: Final = (
    Field(key="name", head="ENDPOINT", width=14, most=40, right=False),
    Field(key="success", head="SUCCESS", width=8),
    Field(key="rate", head="RPS", width=5),
    Field(key="p50", head="P50", width=6, drop=4),
    Field(key="p95", head="P95", width=6, drop=3),
    Field(key="p99", head="P99", width=6),
    Field(key="flight", head="IN FLT", width=6, drop=5),
    Field(key="breaker", head="BREAKER", width=7, right=False, drop=2),
    Field(key="retry", head="RETRY%", width=6, drop=6),
    replace(GAVE_UP, drop=1),
    Field(key="trend", head="TREND", width=6, most=30, right=False, tail=True, drop=7),
)
_CALLERS: Final = (Field(key="name", head="CALLER", width=14, most=40, right=False), *_ENDPOINTS[1:])
_INSTANCES: Final = (
    Field(key="name", head="INSTANCE", width=14, most=40, right=False),
    Field(key="success", head="SUCCESS", width=8),
    Field(key="rate", head="RPS", width=5),
    Field(key="p50", head="P50", width=6, drop=4),
    Field(key="p99", head="P99", width=6),
    Field(key="flight", head="IN FLT", width=6, drop=5),
    Field(key="state", head="STATE", width=10, right=False),
    Field(key="sync", head="POLICIES", width=10, right=False, drop=6),
)


def name_of(drill: str) -> tuple[str, str]:
    """The caller (empty: all) and the service that are looked into."""
    caller, arrow, service = drill.partition(ARROW)
    return (caller, service) if arrow else ("", drill)


def title_of(drill: str) -> str:
    """What is looked into, for people."""
    caller, service = name_of(drill)
    return words.clean(f"{caller} → {called_text(service)}" if caller else service)


def red_of(drill: str, data: Data) -> tuple[Red | None, Service | None, Edge | None]:
    """The numbers of what is looked into, and where they are from; ``None`` where it is gone."""
    caller, name = name_of(drill)
    service = next((each for each in data.mesh.services if each.name == name), None)
    if not caller:
        return (None if service is None else service.red), service, None
    edge = next((each for each in data.mesh.edges if (each.source, each.service) == (caller, name)), None)
    return (None if edge is None else edge.red), service, edge


def latency_lines(red: Red | None, width: int, height: int) -> list[Line]:
    """How long calls took: a line for each class of durations, as long as their share; coarse where it is low."""
    bars = bars_of(red.recent, bounds_for(height)) if red is not None else ()
    if not bars:
        return [[Cell("no calls in the last seconds", words.DIM)]][:height]
    return [_bar_line(bar, width) for bar in bars[:height]]


def _bar_line(bar: Bar, width: int) -> Line:
    head = f"{bar.label:>7} "
    tail = f" {words.count_text(bar.count):>5}"
    room = max(0, width - len(head) - len(tail) - 5)
    eighths = math.ceil(bar.share * room * 8) if bar.count else 0
    whole, part = divmod(eighths, 8)
    drawn = _BAR * whole + (_PARTS[part] if part else "")
    share = f"{_whole(bar.share):>4}" if bar.count else "    "
    return [
        Cell(head, words.DIM),
        Cell(drawn, "cyan"),
        Cell(" " * max(0, room - len(drawn))),
        Cell(f" {share}"),
        Cell(tail, words.DIM),
    ]


def _whole(share: float) -> str:
    """Whole percents in at most four cells; what is some is not drawn as nothing, nor what is not all as all."""
    percent = round(share * 100.0)
    if share > 0.0 and not percent:
        return "<1%"
    return ">99%" if share < 1.0 and percent >= 100 else f"{percent}%"


def errors_of(drill: str, data: Data, width: int, height: int) -> list[Line]:
    """The last errors, and what went wrong or is well again, the newest first; where nothing did that is said."""
    caller, name = name_of(drill)
    red, _, _ = red_of(drill, data)
    lines: list[Line] = []
    if red is not None:
        for status, count in sorted(red.recent.statuses.items(), key=lambda pair: -pair[1]):
            if status != "OK":
                sign = words.leveled("", status_level(status))
                lines.append([sign, Cell(clip(f"{status} ×{count}", width - 2))])
        better = None if caller else facts_of(data).errors.get((name, ""))
        error = better or last_error_of(red)
        last = aged_text(error.text, error.age_s(data.mesh.at), brief=True)
        lines += _broken(words.clean(last), width - 2) if last else []
    for event in reversed(data.mesh.events):
        if len(lines) >= _MAX_ERRORS:
            break
        about = event.target.partition(".")[0]
        if (
            not tells_of_trouble(event.kind)
            or name not in (about, event.service)
            or (caller and caller not in (event.service, about))
        ):
            continue
        bad = is_bad(event.kind)
        text = f"{words.clock(event.at)} {event.kind} {event.target} {event.detail}"
        lines.append(
            [
                Cell("✗ " if bad else "· ", words.BAD if bad else words.DIM),
                Cell(clip(words.clean(text), width - 2)),
            ]
        )
    if not lines:
        lines = [[Cell("✓ none lately", words.GOOD)]]
    return lines[:height]


def _broken(text: str, width: int) -> list[Line]:
    """An error on a few lines: its reason stands at its end."""
    parts = wrap(text, width)
    if len(parts) > _ERROR_LINES:
        parts = [*parts[: _ERROR_LINES - 1], " ".join(parts[_ERROR_LINES - 1 :])]
    return [[Cell("  " if at else "✗ ", words.BAD), Cell(clip(part, width))] for at, part in enumerate(parts)]


def lines_of(drill: str, data: Data, width: int) -> list[Line]:
    """The whole page."""
    return facts_of(data).table(("page", drill, width), lambda: _lines_of(drill, data, width))


def _lines_of(drill: str, data: Data, width: int) -> list[Line]:
    caller, name = name_of(drill)
    red, service, edge = red_of(drill, data)
    if red is None:
        who = f"no calls from {caller} to {name}" if caller else f"{name} is gone"
        return [[Cell(words.clean(who), words.WARN)], [Cell("esc goes back", words.DIM)]]
    lines = [[part] for part in _facts(red, service, edge, width)]
    if edge is None:
        lines += objective_lines(name, data.promised, width)
    lines += _latency_and_errors(drill, red, data, width)
    facts = facts_of(data)
    called, callers = [
        [each for each in some if facts.some_gave_up or each.key != GAVE_UP.key]
        for some in (_ENDPOINTS, _CALLERS)
    ]
    if edge is not None:
        rows = [
            {"name": Cell(words.clean(each), words.NAME), **_red(one)}
            for each, one in sorted(edge.endpoints.items())
        ]
        lines += section("ENDPOINTS", called, rows, width)
    else:
        lines += section("ENDPOINTS", called, _endpoint_rows(name, data), width)
        lines += section("CALLERS", callers, _caller_rows(name, data), width)
    fields = [each for each in _INSTANCES if facts.policed or each.key != "sync"]
    lines += section("INSTANCES", fields, _instance_rows(name, facts), width)
    return lines


def _facts(red: Red, service: Service | None, edge: Edge | None, width: int) -> list[Cell]:
    """What is to be said in words."""
    facts = [
        f"{words.rate_text(red.rate_per_s)} calls/s",
        f"{words.rate_text(red.attempts_per_s)} tries/s",
        f"p50 {words.duration_text(red.p50_s)}",
        f"p95 {words.duration_text(red.p95_s)}",
        f"p99 {words.duration_text(red.p99_s)}",
        f"{red.in_flight} in flight",
        f"{counted(red.total.requests, 'call')} in all",
    ]
    told = [Cell(_fitting(facts, width), words.HEAD)]
    if edge is not None:
        who = (
            "the caller counts" if edge.reporter == "out" else "the instances count: the caller tells nothing"
        )
        told.append(Cell(clip(who, width), words.DIM))
    if service is not None:
        capacity = service.capacity
        versions = ", ".join(f"{words.clean(each)}×{count}" for each, count in service.versions.items())
        more = [f"{service.ready}/{service.instances} ready", f"versions {versions or '-'}"]
        if capacity.limit:
            more.append(f"limit {capacity.limit}")
        if capacity.queue:
            more.append(f"{capacity.queue} queued")
        if capacity.utilisation is not None:
            more.append(f"{_whole(capacity.utilisation)} busy")
        if capacity.headroom_per_s is not None:
            more.append(f"room for {words.rate_text(capacity.headroom_per_s)}/s more")
        told.append(Cell(_fitting(more, width)))
    if red.gave_up > 0.0:
        cell = words.gave_up_cell(red.gave_up)
        told.append(Cell(clip(f"{cell.text} of the calls were given up by their callers", width), cell.style))
    if red.flags:
        flags = "  ".join(f"{name} ×{count}" for name, count in sorted(red.flags.items()))
        told.append(Cell(clip(f"flags  {flags}", width), words.WARN))
    return told


def _fitting(facts: Sequence[str], width: int) -> str:
    """As many of the facts as fit, each whole; the first one in any case."""
    kept = clip(facts[0], width)
    for fact in facts[1:]:
        if cell_len(kept) + 2 + cell_len(fact) <= width:
            kept = f"{kept}  {fact}"
    return kept


def _latency_and_errors(drill: str, red: Red, data: Data, width: int) -> list[Line]:
    """Side by side where there is room."""
    height = _CLASSES
    if width < 70:
        head: list[Line] = [[], [Cell("LATENCY", words.HEAD)]]
        below: list[Line] = [[], [Cell("LAST ERRORS", words.HEAD)]]
        return [*head, *latency_lines(red, width, height), *below, *errors_of(drill, data, width, height)]
    left = (width - 2) // 2
    right = width - left - 2
    one, other = latency_lines(red, left, height), errors_of(drill, data, right, height)
    lines: list[Line] = [[], _beside([Cell("LATENCY", words.HEAD)], [Cell("LAST ERRORS", words.HEAD)], left)]
    for at in range(max(len(one), len(other))):
        lines.append(_beside(one[at] if at < len(one) else [], other[at] if at < len(other) else [], left))
    return lines


def _beside(one: Line, other: Line, left: int) -> Line:
    used = sum(cell_len(part.text) for part in one)
    return [*one, Cell(" " * max(0, left - used + 2)), *other]


def _red(red: Red) -> dict[str, Cell]:
    nothing = Cell("")
    return {
        **red_cells(red),
        "flight": Cell(str(red.in_flight)),
        "breaker": nothing,
        "trend": nothing,
        "state": nothing,
        "sync": nothing,
    }


def _endpoint_rows(name: str, data: Data) -> list[dict[str, Cell]]:
    return [_called(each, each.name) for each in data.mesh.endpoints if each.service == name]


def _caller_rows(name: str, data: Data) -> list[dict[str, Cell]]:
    return [_called(each, each.source) for each in data.mesh.edges if each.service == name]


def _called(what: Endpoint | Edge, name: str) -> dict[str, Cell]:
    return {
        **_red(what.red),
        "name": Cell(words.clean(name), words.NAME),
        "breaker": words.breaker_cell(what.breakers),
        "gave": words.gave_up_cell(what.red.gave_up),
        "trend": Cell(words.trend_text(what.trend.rates, 30), "cyan"),
    }


def _instance_rows(name: str, facts: Facts) -> list[dict[str, Cell]]:
    return [
        {
            **_red(each.red),
            "name": Cell(words.clean(f"{each.id[:8]} {each.version}"), words.NAME),
            "state": words.state_cell(each.state),
            "sync": words.state_cell(each.verdict(facts.data.head).state),
        }
        for each in facts.data.mesh.members
        if each.service == name and each.kind == "instance"
    ]
