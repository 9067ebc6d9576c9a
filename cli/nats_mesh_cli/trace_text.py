"""A trace as a waterfall: who called whom, when, and for how long. Pure."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from nats_mesh.clock import rfc3339
from nats_mesh.core.sampling import failed
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.spans import Placed, Trace, summary_of
from nats_mesh_cli.output import counted, millis
from nats_mesh_cli.trace_document import notes_of, took_text, where_of

__all__ = ["NARROWEST", "waterfall"]

#: Fewer columns than this are not drawn for.
NARROWEST: Final = 60
_SHORT = 8
_INDENT, _DEEPEST = 2, 12
_STYLES: Final = {"client": "cyan", "attempt": "magenta", "server": "green"}
_BLOCKS: Final = {"client": "▒", "attempt": "░", "server": "█"}
_SHOWN_WHERE = 5


def waterfall(trace: Trace, width: int, *, color: bool = False, wide: bool = False) -> str:
    """The whole text, ``width`` columns wide; ``wide`` names instances, routes and rules in full."""
    width = max(NARROWEST, width)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(Group(_head(trace), _body(trace, width, wide), *_foot(trace)))
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join([line.rstrip() for line in file.getvalue().splitlines()])


def _head(trace: Trace) -> Text:
    summary = summary_of(trace)
    text = Text()
    text.append(f"trace {trace.trace}\n", "bold")
    text.append(f"{summary.service}.{summary.endpoint}", "cyan")
    text.append(f" called by {summary.caller} at {rfc3339(trace.start_us / 1e6)}\n")
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
    text.append(" · ".join(facts))
    text.append(" · ")
    text.append(_status(summary.status), "bold red" if failed(summary.status) else "bold")
    return text


def _status(status: str) -> str:
    return f"✗ {status}" if failed(status) else status


def _body(trace: Trace, width: int, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=True, header_style="dim")
    bar = max(16, width // 3)
    table.add_column("SPAN", no_wrap=not wide, overflow="ellipsis", ratio=1)
    table.add_column("TIME", justify="right", no_wrap=True)
    table.add_column(_scale(trace.took_us, bar), no_wrap=True, width=bar)
    for placed in trace.placed:
        span = placed.span
        style = "red" if failed(span.status) else _STYLES[span.kind]
        table.add_row(
            _label(placed, wide),
            Text(millis(span.took_us / 1e6)),
            Text(_bar(placed, trace.took_us, bar), style),
        )
    return table


def _scale(took_us: int, size: int) -> Text:
    end = millis(took_us / 1e6)
    return Text(f"0{' ' * max(1, size - 1 - len(end))}{end}", "dim")


def _label(placed: Placed, wide: bool) -> Text:
    span = placed.span
    text = Text(" " * _INDENT * min(placed.depth, _DEEPEST))
    if placed.lost:
        text.append("… ", "yellow")
    text.append(_what(span, wide), _STYLES[span.kind])
    details = _details(span, wide)
    if failed(span.status):
        text.append(f" ✗ {span.status}", "red")
    elif span.status != "OK":
        text.append(f" {span.status}", "yellow")
    if details:
        text.append(f" {details}", "dim")
    return text


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


def _foot(trace: Trace) -> list[Text]:
    lines = []
    errors: dict[str, None] = {}
    for span in trace.spans:
        if failed(span.status) and span.error:
            who = f"{span.service}.{span.endpoint}"
            told = f"at {who}" if span.kind == "server" else f"{span.caller} calling {who}"
            errors.setdefault(f"✗ {told}: {span.status}, {span.error}")
    lines += [Text(line, "red") for line in list(errors)[:_SHOWN_WHERE]]
    where = where_of(trace)
    if len(where) > 1:
        shown = [f"{each['service']} {millis(each['own_ms'] / 1e3)}" for each in where[:_SHOWN_WHERE]]
        lines.append(Text(f"own time: {', '.join(shown)}"))
    lines += [Text(f"note: {each}", "yellow") for each in notes_of(trace)]
    return lines
