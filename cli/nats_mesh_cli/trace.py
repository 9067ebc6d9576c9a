"""``trace``: what traces there were lately, one of them drawn, or those that come while one looks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import anyio

from nats_mesh import Mesh
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.telemetry.spans import MAX_TRACE, Summary, Trace, assemble, summary_of, traces_of
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import OK, CliError
from nats_mesh_cli.hints import service_given
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.rows import Rows
from nats_mesh_cli.trace_document import document_of, record_of
from nats_mesh_cli.trace_finding import Found, Query, digits_of, listening, look, one_of
from nats_mesh_cli.trace_rows import LEAST, columns_for, together
from nats_mesh_cli.trace_text import waterfall

__all__ = ["show_list", "trace"]

#: How long a trace that is watched must have been quiet to be shown, and how often that is looked at (seconds).
_QUIET_S = 1.0
_LOOK_S = 0.25
#: Traces that are watched at a time, and ids of those that were shown; beyond, the oldest go.
_MAX_OPEN = 5000
_MAX_SHOWN_IDS = 100_000


async def trace(options: Options, out: Out, which: str | None, query: Query, *, name: str | None) -> int:
    """List traces, draw one, or show them as they come; the exit code is 1 where there is not what was asked for."""
    _check(options, which, query)
    async with connected(options, name or CALLER) as mesh:
        if query.watch:
            await must_be_there(mesh, options, out, query.service or "", later=True, callers=True)
            return await _watch(mesh, options, out, query)
        found = await look(mesh, query, timeout_s=options.timeout_s or 5.0)
        if query.service is not None and which is None and not _knows(found, query.service):
            await must_be_there(mesh, options, out, query.service, callers=True)
    for note in found.notes:
        out.note(note, "dim")
    if which is not None:
        _draw(assemble(one_of(found, which).values()), options, out)
        return OK
    return show_list(found, options, out, query)


def _knows(found: Found, name: str) -> bool:
    """Whether any trace has a part of ``name``, as a service or as who called first."""
    return any(
        name in (span.service, span.caller, span.member)
        for spans in found.traces.values()
        for span in spans.values()
    )


def _check(options: Options, which: str | None, query: Query) -> None:
    if query.service is not None:
        service_given(query.service, "trace --service {}")
    if which is not None:
        digits_of(which)  # before anything is made or asked
    if which is not None and query.watch:
        raise CliError("trace: --watch shows traces that come, not one", hint="leave the id out, or --watch")
    if query.sampling and not query.watch:
        raise CliError("trace: --sample holds while you watch", hint="add --watch")
    if query.watch and options.format in (Format.JSON, Format.YAML):
        raise CliError(
            f"--watch goes on for ever, which -o {options.format} cannot",
            hint="use -o jsonl: one trace a line",
        )


def _draw(found: Trace, options: Options, out: Out) -> None:
    if options.format.structured:
        out.data(dump(document_of(found), options.format, pretty=out.tty))
    elif options.format is Format.NAME:
        out.data(found.trace)
    else:
        out.data(waterfall(found, out.columns, color=out.color, wide=options.format is Format.WIDE))


def show_list(found: Found, options: Options, out: Out, query: Query) -> int:
    """List what was found of what ``query`` is about, and what to know of the list; the exit code."""
    summaries = [summary_of(assemble(spans.values())) for spans in found.traces.values()]
    chosen = sorted([each for each in summaries if query.takes(each)], key=lambda each: each.start_us)
    if out.tty and options.format is Format.TABLE and not query.each:
        records, shown = together(chosen, query.limit)
    else:
        records = [record_of(each) for each in chosen[-query.limit :]]
        shown = len(records)
    nothing = "no traces: nothing was sampled, failed or was slow lately"
    if summaries:
        nothing = f"none of {counted(len(summaries), 'trace')} is such a one"
    columns = columns_for(records, slow=bool(query.slow_s))
    out.rows(records, columns, options.format, name=lambda r: str(r["trace"]), nothing=nothing)
    if not options.format.structured:
        if len(chosen) > shown:
            out.note(f"the latest {shown} of {len(chosen)}; --limit shows more", "dim")
        if shown > len(records):
            out.note(
                "neighbours that say the same are one row, the latest of them with their COUNT, and so are all such "
                "refusals; --each shows every one",
                "dim",
            )
        _note_refusals(chosen, chosen[-shown:], out)
        if not summaries:
            out.note(
                "--watch --sample 100% samples every trace while you watch; a Telemetry policy says how many else",
                "dim",
            )
    return OK


def _note_refusals(chosen: Sequence[Summary], listed: Sequence[Summary], out: Out) -> None:
    """Where most of what is listed was only refused, how to see the others, such as what failed by itself."""
    refused = sum([each.only_refused for each in listed])
    if 2 * refused <= len(listed):
        return
    others = sum([not each.only_refused for each in chosen])
    if others:
        out.note(
            f"most failed for nothing but a refusal (an open circuit, a limit): --no-refused lists the other {others}",
            "dim",
        )


async def _watch(mesh: Mesh, options: Options, out: Out, query: Query) -> int:
    client = mesh.client
    store = SpanStore(client.subjects, transport=client.transport, mux=client.mux)
    columns = columns_for((), slow=bool(query.slow_s))
    rows = Rows(out, options.format, columns, LEAST, name=lambda r: str(r["trace"]))
    growing: dict[str, tuple[float, dict[str, RecordedSpan]]] = {}
    shown: dict[str, None] = {}
    start_us = (time.time() - _QUIET_S) * 1e6
    async with listening(mesh, store, query) as heard:
        while True:
            await anyio.sleep(_LOOK_S)
            now = time.monotonic()
            for name, spans in traces_of(heard.taken()).items():
                _, known = growing.pop(name, (0.0, {}))
                if len(known) < MAX_TRACE:
                    known |= spans
                growing[name] = now, known
            while len(growing) > _MAX_OPEN:
                growing.pop(next(iter(growing)))
            done = [name for name, (at, _) in growing.items() if now - at >= _QUIET_S]
            rows.show(_news([growing.pop(name)[1] for name in done], query, shown, start_us))


def _news(
    traces: Iterable[Mapping[str, RecordedSpan]], query: Query, shown: dict[str, None], start_us: float
) -> list[Record]:
    """What to show of traces that have become quiet: those that began lately, each once."""
    records = []
    for spans in traces:
        summary = summary_of(assemble(spans.values()))
        if summary.trace in shown or summary.start_us < start_us or not query.takes(summary):
            continue
        if len(shown) >= _MAX_SHOWN_IDS:
            shown.pop(next(iter(shown)))
        shown[summary.trace] = None
        records.append(record_of(summary))
    return sorted(records, key=lambda each: str(each["at"]))
