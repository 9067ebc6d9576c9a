"""A trace as a waterfall: who called whom, when, and for how long. Pure.

How its lines share the room of a terminal is in :mod:`nats_mesh_cli.trace_lines`; a pipe gets all of them whole.
"""

from __future__ import annotations

from typing import Final

from nats_mesh.clock import rfc3339
from nats_mesh.core.sampling import failed
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.spans import Placed, Trace, summary_of
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.output import counted, millis, paint
from nats_mesh_cli.trace_document import notes_of, sampled, took_text, where_of
from nats_mesh_cli.trace_lines import Label, Plan, painted, plan_for

__all__ = ["NARROWEST", "waterfall"]

#: Fewer columns than this are not drawn for, and more are not used (cells).
NARROWEST: Final = 40
_WIDEST: Final = 200
_SHORT: Final = 8
_STYLES: Final = {"client": "name", "attempt": "part", "server": "ok"}
_BLOCKS: Final = {"client": "▒", "attempt": "░", "server": "█"}
_SHOWN_WHERE: Final = 5


def waterfall(trace: Trace, columns: int | None, *, color: bool = False, wide: bool = False) -> str:
    """The whole text, at most ``columns`` cells wide (``None``: as wide as it is); ``wide`` names instances, routes and
    rules in full, on several lines where there is no room for them on one."""
    room = None if columns is None else min(_WIDEST, max(NARROWEST, columns))
    head = [fitted(line, room) for line in _head(trace, color)]
    foot = [fitted(line, room) for line in _foot(trace, color)]
    lines = [*head, *_body(trace, room, color, wide), *foot]
    return "\n".join([line.rstrip() for line in lines])


def _head(trace: Trace, color: bool) -> list[str]:
    summary = summary_of(trace)
    facts = [
        took_text(summary),
        counted(summary.spans, "span"),
        counted(len(summary.services), "service"),
    ]
    if summary.retries:
        facts.append(counted(summary.retries, "retry", "retries"))
    if summary.errors:
        facts.append(counted(summary.errors, "failure"))
    if summary.slow:
        facts.append("slow")
    bad = failed(summary.status)
    facts.append(paint(f"{'✗ ' if bad else ''}{summary.status}", "bad" if bad else "bold", color))
    target = paint(f"{summary.service}.{summary.endpoint}", "name", color)
    return [
        paint(f"trace {trace.trace}", "bold", color),
        f"{target} called by {summary.caller} at {rfc3339(trace.start_us / 1e6)}",
        " · ".join(facts),
    ]


def _body(trace: Trace, room: int | None, color: bool, wide: bool) -> list[str]:
    labels = [_label(placed, wide) for placed in trace.placed]
    times = [millis(placed.span.took_us / 1e6) for placed in trace.placed]
    plan = plan_for(labels, times, room, wide=wide)
    lines = [_line(plan, "SPAN", "TIME", _scale(trace.took_us, plan.bar), "dim", "dim", color)]
    for placed, label, took in zip(trace.placed, labels, times, strict=True):
        first, *rest = painted(label, plan, color)
        style = "bad" if failed(placed.span.status) else _STYLES[placed.span.kind]
        lines.append(_line(plan, first, took, _bar(placed, trace.took_us, plan.bar), "", style, color))
        lines += rest
    return lines


def _line(plan: Plan, label: str, took: str, bar: str, style: str, bar_style: str, color: bool) -> str:
    """One line; ``label`` may have its colours already."""
    line = f"{plan.padded(paint(label, style, color))} {paint(took.rjust(plan.time), style, color)}"
    return f"{line} {paint(bar, bar_style, color)}" if plan.bar else line


def _scale(took_us: int, size: int) -> str:
    end = millis(took_us / 1e6)
    return f"0{' ' * max(1, size - 1 - len(end))}{end}"


def _label(placed: Placed, wide: bool) -> Label:
    span = placed.span
    status = ""
    if span.status != "OK":
        status = f"✗ {span.status}" if failed(span.status) else span.status
    return Label(
        depth=placed.depth,
        lost=placed.lost,
        what=one_line(_what(span, wide)),
        style=_STYLES[span.kind],
        status=one_line(status),
        status_style="bad" if failed(span.status) else "warn",
        details=one_line(_details(span, wide)),
    )


def _what(span: RecordedSpan, wide: bool) -> str:
    if span.kind == "attempt":
        return f"attempt {span.attempt}"
    if span.kind == "client":
        return f"{span.caller} → {span.service}.{span.endpoint}"
    who = span.member_instance if wide else span.member_instance[:_SHORT]
    return f"{span.service}.{span.endpoint} @{who}"


def _details(span: RecordedSpan, wide: bool) -> str:
    found = []
    if span.flags:
        found.append(span.flags)
    if span.refused:
        found.append(f"refused: {span.refused}")
    if span.injected:
        found.append(f"injected {span.injected}")
    if span.kind == "client" and span.attempt > 1:
        found.append(f"{span.attempt} attempts")
    if span.kind == "server" and span.attempt > 1:
        found.append(f"attempt {span.attempt}")
    if span.why == "slow":
        found.append("slow")
    if span.kind != "attempt" and span.route not in ("all", ""):
        found.append(f"to {span.route}" if span.kind == "client" else f"by {span.route}")
    if span.fault_us:
        found.append(f"held {millis(span.fault_us / 1e6)} on purpose")
    if span.queue_us >= 1000 and 10 * span.queue_us >= span.took_us:
        found.append(f"waited {millis(span.queue_us / 1e6)}")
    if wide:
        found += [f"by {rule}" for rule in span.rules]
        if span.kind == "server":
            found.append(f"version {span.version}")
        if span.error:
            found.append(span.error)
    return ", ".join(found)


def _bar(placed: Placed, took_us: int, size: int) -> str:
    """Where in the trace a span lies; whatever is too short to be seen has a mark of its own."""
    if took_us <= 0:
        return _BLOCKS[placed.span.kind] * size
    first = min(size - 1, int(placed.offset_us * size / took_us))
    last = min(size, round((placed.offset_us + placed.span.took_us) * size / took_us))
    if last <= first:
        return f"{' ' * first}▏"
    return f"{' ' * first}{_BLOCKS[placed.span.kind] * (last - first)}"


def _foot(trace: Trace, color: bool) -> list[str]:
    errors: dict[str, None] = {}
    for span in trace.spans:
        if failed(span.status) and span.error:
            who = f"{span.service}.{span.endpoint}"
            told = f"at {who}" if span.kind == "server" else f"{span.caller} calling {who}"
            errors.setdefault(one_line(f"✗ {told}: {span.status}, {span.error}"))
    lines = [paint(line, "bad", color) for line in list(errors)[:_SHOWN_WHERE]]
    where = where_of(trace)
    if len(where) > 1:
        shown = [f"{each['service']} {millis(each['own_ms'] / 1e3)}" for each in where[:_SHOWN_WHERE]]
        most = "" if sampled(trace) else " at most"
        lines.append(f"own time{most}: {', '.join(shown)}")
    return [*lines, *(paint(f"note: {each}", "warn", color) for each in notes_of(trace))]
