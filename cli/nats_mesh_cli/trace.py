"""``trace``: what traces there were lately, and one of them drawn; from the members themselves, and from the stream
that keeps their spans for minutes."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import rfc3339
from nats_mesh.model import check_name
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.span_messages import RecordedSpan, SpanWish
from nats_mesh.telemetry.span_store import MAX_AGE_S, SpanStore
from nats_mesh.telemetry.spans import MAX_TRACE, Summary, Trace, assemble, summary_of, traces_of
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.kv import KvAbsentError, KvError
from nats_mesh.wire.subjects import ALL, reply_allowed
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, column_widths, dump, millis, row, table
from nats_mesh_cli.trace_document import document_of, record_of
from nats_mesh_cli.trace_text import waterfall

__all__ = ["SHOWN", "Found", "Query", "look", "one_of", "trace"]

#: How many traces are listed where nothing is said.
SHOWN = 50
#: How long members get to tell what they have kept (seconds), and how long a trace that is watched must have been
#: quiet to be shown.
_TELL_S = 0.4
_QUIET_S = 1.0
_LOOK_S = 0.25
#: Traces that are watched at a time, and spans that come while the stream is read; beyond, the oldest go.
_MAX_OPEN = 5000
_MAX_HEARD = 200_000
_MAX_SHOWN_IDS = 100_000
_DIGITS = frozenset("0123456789abcdef")
_WIDEST, _USUAL = 200, 100
_ID = 12


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which traces: those in which ``service`` has a part, that took ``slow_s`` or longer, in which something failed,
    that began after ``since``; the latest ``limit``. ``sampling``: so many are sampled while they are watched."""

    service: str | None = None
    slow_s: float = 0.0
    error: bool = False
    since: str = "-15m"
    limit: int = SHOWN
    watch: bool = False
    sampling: float = 0.0
    keep: bool = True

    def takes(self, summary: Summary) -> bool:
        """Whether it is about such a trace."""
        return (
            (self.service is None or self.service in summary.services or self.service == summary.caller)
            and summary.took_us >= self.slow_s * 1e6
            and (not self.error or summary.errors > 0)
        )


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: spans by their traces, and what to say of it."""

    traces: Mapping[str, Mapping[str, RecordedSpan]]
    notes: tuple[str, ...] = ()


_COLUMNS = (
    Column("TIME", lambda r: shown_time(str(r["at"]))),
    Column("TRACE", lambda r: str(r["trace"])[:_ID], style=lambda r: "name"),
    Column("CALL", lambda r: f"{r['service']}.{r['endpoint']}"),
    Column("FROM", lambda r: str(r["caller"])),
    Column("DURATION", lambda r: millis(r["duration_ms"] / 1e3), right=True),
    Column("SPANS", lambda r: str(r["spans"]), right=True),
    Column("ERRORS", lambda r: str(r["errors"]), right=True, style=lambda r: "bad" if r["errors"] else ""),
    Column(
        "RETRIES", lambda r: str(r["retries"]), right=True, style=lambda r: "warn" if r["retries"] else ""
    ),
    Column("STATUS", lambda r: _status(r), style=lambda r: "" if r["status"] == "OK" else "bad"),
    Column("SERVICES", lambda r: ",".join(r["services"]), wide=True),
    Column("ID", lambda r: str(r["trace"]), wide=True),
)
_LEAST = (24, _ID, 24, 12, 9, 5, 6, 7, 6, 16, 32)


def _status(record: Record) -> str:
    slow = " slow" if record["slow"] else ""
    return f"{record['status']}{slow}"


async def trace(options: Options, out: Out, which: str | None, query: Query, *, name: str | None) -> int:
    """List traces, draw one, or show them as they come; the exit code is 1 where there is not what was asked for."""
    _check(options, which, query)
    async with connected(options, name or CALLER) as mesh:
        if query.watch:
            return await _watch(mesh, options, out, query)
        found = await look(mesh, query, timeout_s=options.timeout_s or 5.0)
    for note in found.notes:
        out.note(note, "dim")
    if which is not None:
        _draw(assemble(one_of(found, which).values()), options, out)
        return OK
    return _list(found, options, out, query)


def _check(options: Options, which: str | None, query: Query) -> None:
    if query.service is not None:
        check_name("service", query.service)
    if which is not None and query.watch:
        raise CliError("trace: --watch shows traces that come, not one", hint="leave the id out, or --watch")
    if query.sampling and not query.watch:
        raise CliError("trace: --sample holds while you watch", hint="add --watch")
    if query.watch and options.format in (Format.JSON, Format.YAML):
        raise CliError(
            f"--watch goes on for ever, which -o {options.format} cannot",
            hint="use -o jsonl: one trace a line",
        )


class _Heard:
    """Takes in what members tell."""

    def __init__(self, mesh: Mesh, store: SpanStore) -> None:
        self.spans: list[RecordedSpan] = []
        self.lost = 0
        self.ignored = 0
        self._mesh = mesh
        self._store = store

    def on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a member's span subject."""
        parts = subject.split(".")
        if len(parts) != 6 or not reply_allowed(reply, parts[4], enforced=self._mesh.settings.enforced):
            self.ignored += 1
            return
        spans = self._store.spans(parts[4], parts[5], payload)
        if len(self.spans) + len(spans) > _MAX_HEARD:
            self.lost += len(spans)
            return
        self.spans += spans

    def taken(self) -> list[RecordedSpan]:
        """What came since the last time."""
        spans, self.spans = self.spans, []
        return spans


@asynccontextmanager
async def _listening(mesh: Mesh, store: SpanStore, query: Query) -> AsyncIterator[_Heard]:
    """Hear what members tell while it is wanted: what they have kept at once, and then what comes."""
    client, heard = mesh.client, _Heard(mesh, store)
    subscription = client.transport.subscribe(client.subjects.telemetry_of("span"), heard.on_message)
    await client.transport.fence()
    want = client.subjects.want("span", ALL, mesh.name)
    body = JSON.encode(SpanWish(sampling=query.sampling))
    try:
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                await hold_lease(want, body, transport=client.transport, mux=client.mux)

            tasks.start_soon(hold)
            yield heard
            tasks.cancel_scope.cancel()
    finally:
        client.transport.unsubscribe(subscription)


async def look(mesh: Mesh, query: Query, *, timeout_s: float = 5.0) -> Found:
    """What members have kept and what the stream has. Where there is no stream it is made, unless ``query`` says no."""
    client = mesh.client
    store = SpanStore(
        client.subjects, transport=client.transport, mux=client.mux, timeout_s=min(timeout_s, 5.0)
    )
    since = instant(query.since)
    notes: list[str] = []
    if query.keep:
        try:
            if await store.make():
                minutes = MAX_AGE_S // 60
                notes.append(
                    f"made the stream {store.log.name}: from now on spans are kept for {minutes} minutes"
                )
        except KvError as error:
            notes.append(f"spans are not kept, here is what members remember: {error}")
    async with _listening(mesh, store, query) as heard:
        await anyio.sleep(_TELL_S)
    spans = heard.taken()
    try:
        spans += await store.read(since=since)
    except KvAbsentError:
        if not notes:
            notes.append("spans are not kept, here is what members remember; without --no-keep they are")
    except KvError as error:
        notes.append(f"the stream of spans cannot be read: {error}")
    notes += _warnings(store, heard)
    return Found(traces=_since(traces_of(spans), since), notes=tuple(dict.fromkeys(notes)))


def _since(traces: dict[str, dict[str, RecordedSpan]], since: str) -> dict[str, dict[str, RecordedSpan]]:
    """Those of which anything ended after an instant."""
    return {
        name: spans
        for name, spans in traces.items()
        if rfc3339(max(span.end_us for span in spans.values()) / 1e6) >= since
    }


def _warnings(store: SpanStore, heard: _Heard) -> list[str]:
    notes = []
    if store.dropped:
        notes.append(f"note: {store.dropped} spans found no room at their members: traces may have gaps")
    if store.untrusted or heard.ignored:
        count = store.untrusted.total() + heard.ignored
        notes.append(f"note: {count} messages were no spans, or not their publisher's, and are left out")
    if store.cut or heard.lost:
        notes.append("note: there is more than is read at once: the oldest is left out")
    return notes


def one_of(found: Found, which: str) -> Mapping[str, RecordedSpan]:
    """The trace whose id begins with ``which``; :class:`CliError` where there is none, or more than one."""
    digits = which.strip().lower().replace("-", "")
    if not digits or not _DIGITS.issuperset(digits) or len(digits) > 32:
        raise CliError(
            f"{which!r} is no id of a trace", hint="it has 32 hexadecimal digits; the first of them will do"
        )
    names = [name for name in found.traces if name.startswith(digits)]
    if len(names) == 1:
        return found.traces[names[0]]
    if not names:
        raise CliError(
            f"no trace {which!r} is known",
            hint=nearest(digits, [name[:_ID] for name in found.traces])
            or "traces are kept for minutes; 'nats-mesh trace' lists those that are",
            code=FAILED,
        )
    shown = ", ".join(sorted(names)[:3])
    raise CliError(f"{len(names)} traces begin with {which!r}: {shown}", hint="say more digits", code=FAILED)


def _draw(found: Trace, options: Options, out: Out) -> None:
    if options.format.structured:
        out.data(dump(document_of(found), options.format, pretty=out.tty))
    elif options.format is Format.NAME:
        out.data(found.trace)
    else:
        width = min(_WIDEST, shutil.get_terminal_size().columns) if out.tty else _USUAL
        out.data(waterfall(found, width, color=out.color, wide=options.format is Format.WIDE))


def _list(found: Found, options: Options, out: Out, query: Query) -> int:
    summaries = [summary_of(assemble(spans.values())) for spans in found.traces.values()]
    chosen = sorted([each for each in summaries if query.takes(each)], key=lambda each: each.start_us)
    records = [record_of(each) for each in chosen[-query.limit :]]
    nothing = "no traces: nothing was sampled, failed or was slow lately"
    if summaries:
        nothing = f"none of {len(summaries)} traces is such a one"
    out.rows(records, _COLUMNS, options.format, name=lambda r: str(r["trace"]), nothing=nothing)
    if not options.format.structured:
        if len(chosen) > query.limit:
            out.note(f"the latest {query.limit} of {len(chosen)}; --limit shows more", "dim")
        if not summaries:
            out.note(
                "--watch --sample 100% samples every trace while you watch; a Telemetry policy says how many else",
                "dim",
            )
    return OK


async def _watch(mesh: Mesh, options: Options, out: Out, query: Query) -> int:
    client = mesh.client
    store = SpanStore(client.subjects, transport=client.transport, mux=client.mux)
    rows = _Rows(out, options.format)
    growing: dict[str, tuple[float, dict[str, RecordedSpan]]] = {}
    shown: dict[str, None] = {}
    start_us = (time.time() - _QUIET_S) * 1e6
    async with _listening(mesh, store, query) as heard:
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


class _Rows:
    """Traces one a line: objects, ids, or a table that grows."""

    def __init__(self, out: Out, fmt: Format) -> None:
        self._out, self._format = out, fmt
        self._columns = tuple(each for each in _COLUMNS if fmt is Format.WIDE or not each.wide)
        self._sizes: list[int] = []

    def show(self, records: list[Record]) -> None:
        """Some more."""
        for record in records:
            if self._format is Format.JSONL:
                self._out.data(dump(record, Format.JSONL))
            elif self._format is Format.NAME:
                self._out.data(str(record["trace"]))
            else:
                self._row(record)

    def _row(self, record: Record) -> None:
        if not self._sizes:
            least = [size for size, each in zip(_LEAST, _COLUMNS, strict=True) if each in self._columns]
            found = column_widths([record], self._columns)
            self._sizes = [max(pair) for pair in zip(found, least, strict=True)]
            self._out.data(table([], self._columns, wide=True, sizes=self._sizes, color=self._out.color))
        self._out.data(row(record, self._columns, self._sizes, color=self._out.color))
