"""``audit``: who changed what, when and why, and who came and went, as the namespace's audit stream has it.

Records are shown as they are read, so that a long stream costs no memory; those that are not believed are shown as
such, and what is missing is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio

from nats_mesh import Mesh
from nats_mesh.audit.reading import AuditReader, Entry
from nats_mesh.audit.records import KINDS, PresenceRecord
from nats_mesh.audit.stream import make_stream
from nats_mesh.core.presence import incarnation
from nats_mesh.wire.kv import KvDeniedError, KvError
from nats_mesh_cli.audit_records import is_about, records_of
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted, dump
from nats_mesh_cli.rows import Growing
from nats_mesh_cli.store_errors import store_errors

__all__ = ["audit", "reading"]

#: How often --follow looks although nothing was heard (seconds), and how many rows set the widths of a table.
_LOOK_S: Final = 5.0
_FIRST: Final = 200
_COPIES: Final = 3
_MAX_PASSED: Final = 1000

_STYLES = {"created": "ok", "configured": "warn", "deleted": "bad", "join": "ok", "leave": "dim"}
_COLUMNS = (
    Column("TIME", lambda r: shown_time(str(r["time"])), drop=1),
    Column("KIND", lambda r: str(r["kind"]), style=lambda r: "name" if r["believed"] else "bad", drop=15),
    Column("ACTION", lambda r: str(r["action"]), style=lambda r: _STYLES.get(str(r["action"]), ""), drop=2),
    Column("WHAT", lambda r: str(r["what"]), drop=0),
    Column("WHO", lambda r: str(r["who"]), drop=3),
    Column("WHY", lambda r: _why(r), drop=5, short=12),
    Column("SEQUENCE", lambda r: str(r["sequence"]), right=True, wide=True, drop=40),
    Column("INSTANCE", lambda r: str(r["instance"]), wide=True, drop=30),
)
_LEAST = (24, 8, 10, 24, 16, 0, 8, 22)


def _why(record: Record) -> str:
    if not record["believed"]:
        return f"not believed: {record['problem']}"
    missing = (
        f" ({counted(record['missing'], 'record before it is', 'records before it are')} missing)"
        if record["missing"]
        else ""
    )
    return f"{record['why']}{missing}"


@asynccontextmanager
async def reading(options: Options, name: str | None = None) -> AsyncIterator[tuple[Mesh, AuditReader]]:
    """The audit of the namespace; what goes wrong with it is told in this program's words."""
    async with connected(options, name or CALLER) as mesh:
        client = mesh.client
        reader = AuditReader(
            client.subjects,
            transport=client.transport,
            mux=client.mux,
            timeout_s=options.timeout_s or 5.0,
        )
        with store_errors(mesh.namespace, "audit", "audit --make", make=False, unsure=""):
            yield mesh, reader


async def audit(
    options: Options,
    out: Out,
    *,
    about: str | None,
    since: str,
    kind: str | None,
    signs: bool,
    follow: bool,
    make: bool,
    name: str | None,
) -> int:
    """Show what was recorded since an instant, of one thing where ``about`` names it; with ``follow`` go on until
    Ctrl-C. The exit code: 1 where nothing is known of what was named."""
    fmt = options.format
    if kind is not None and kind not in KINDS:
        raise CliError(f"audit: there are no records of kind {kind!r}", hint=nearest(kind, KINDS))
    if fmt is Format.NAME:
        raise CliError("audit: a record has no name", hint="use -o json, jsonl, yaml, or leave -o out")
    if follow and fmt in (Format.JSON, Format.YAML):
        raise CliError(f"-f goes on for ever, which -o {fmt} cannot", hint="use -o jsonl: one record a line")
    moment = instant(since)
    async with reading(options, name) as (mesh, reader):
        if make:
            servers = mesh.client.transport.known_servers
            made = await make_stream(
                reader.log, replicas=_COPIES if servers >= _COPIES else 1, timeout_s=options.timeout_s or 5.0
            )
            out.note(f"the audit stream {reader.log.name} {'was made' if made else 'is there already'}")
        info = await reader.info()
        if incarnation(moment) < incarnation(info.since) and not fmt.structured:
            out.note(f"the audit begins at {info.since}: nothing is known of the time before", "dim")
        rows = _Rows(out, fmt, about)
        last = info.last
        try:
            async for entry in reader.entries(kind=kind or "", since=moment, upto=info.last):
                rows.show(_shown(entry, signs or about == str(entry.sequence)))
            rows.flush()
            if follow:
                await _follow(mesh, reader, rows, kind or "", signs, last)
        finally:
            rows.close()
            _complain(reader, out)
    if not rows.count and about is not None:
        raise CliError(
            f"nothing was recorded of {about!r} since then",
            hint=nearest(about, rows.passed)
            or "--since -30d looks further back, --signs at signs of life, too",
            code=FAILED,
        )
    if not rows.count and not fmt.structured:
        out.note("nothing was recorded since then", "dim")
    return OK


def _shown(entry: Entry, signs: bool) -> list[Record]:
    record = entry.record
    if isinstance(record, PresenceRecord) and record.event == "sign" and not (signs or entry.missing):
        return []
    return records_of(entry)


async def _follow(mesh: Mesh, reader: AuditReader, rows: _Rows, kind: str, signs: bool, last: int) -> None:
    """Show what comes: a message on the bus is a hint, what is shown is what the stream has."""
    client = mesh.client
    news = _News()
    prefix = client.subjects.audit_of.removesuffix(">")
    client.transport.subscribe(f"{prefix}{kind}.>" if kind else client.subjects.audit_of, news.heard)
    await client.transport.fence()
    while True:
        try:
            async for entry in reader.entries(kind=kind, after=last):
                last = entry.sequence
                rows.show(_shown(entry, signs))
            rows.flush()
        except KvDeniedError:
            raise
        except KvError as error:  # its leader is away, or the bus: what is kept meanwhile is shown afterwards
            news.complain(rows, error)
        with anyio.move_on_after(_LOOK_S):
            await news.wait()


def _complain(reader: AuditReader, out: Out) -> None:
    if reader.missing:
        out.note(
            f"note: {counted(reader.missing, 'record is', 'records are')} missing, by their writers' numbers",
            "warn",
        )
    if reader.untrusted:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(reader.untrusted.items()))
        out.note(f"note: not to be believed: {reasons}", "warn")


class _News:
    """Hears that something was published."""

    def __init__(self) -> None:
        self._came = anyio.Event()
        self._complained = ""

    def heard(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A hint; what it says is not used."""
        self._came.set()

    async def wait(self) -> None:
        """Return when something came."""
        await self._came.wait()
        self._came = anyio.Event()

    def complain(self, rows: _Rows, error: KvError) -> None:
        """Say what is wrong, once."""
        if str(error) != self._complained:
            self._complained = str(error)
            rows.note(f"the audit cannot be read for now: {error}")


class _Rows:
    """Records one by one: lines of JSON, the items of one JSON or YAML list, or a table that grows."""

    def __init__(self, out: Out, fmt: Format, about: str | None) -> None:
        self.count = 0
        #: What else there was, where one thing alone is asked for; so many names at most.
        self.passed: set[str] = set()
        self._about = about
        self._out, self._format = out, fmt
        self._growing = Growing(out, _COLUMNS, _LEAST, wide=fmt is Format.WIDE)
        self._begun = False
        self._first: list[Record] = []

    def show(self, records: Iterable[Record]) -> None:
        """Show these, or keep them until it is known how wide the table is."""
        for record in records:
            if self._about is not None and not is_about(record, self._about):
                if len(self.passed) < _MAX_PASSED:
                    self.passed.add(str(record["what"]))
                continue
            self.count += 1
            if self._format is Format.JSONL:
                self._out.data(dump(record, Format.JSONL))
            elif self._format is Format.YAML:
                self._out.data(dump([record], Format.YAML).rstrip("\n"))
            elif self._format is Format.JSON:
                self._out.data(f"{'[' if self.count == 1 else ','}{dump(record, Format.JSON)}")
            elif self._begun:
                self._rows([record])
            else:
                self._first.append(record)
                if len(self._first) >= _FIRST:
                    self.flush()

    def flush(self) -> None:
        """Show what was kept back."""
        if not self._first:
            return
        first, self._first, self._begun = self._first, [], True
        self._rows(first)

    def _rows(self, records: Sequence[Record]) -> None:
        head, note = self._growing.take(records)
        if head:
            self._out.data(head)
        if note:
            self._out.note(note, "dim")
        for record in records:
            self._out.data(self._growing.row(record))

    def close(self) -> None:
        """The end."""
        self.flush()
        if self._format is Format.JSON:
            self._out.data("]" if self.count else "[]")
        elif self._format is Format.YAML and not self.count:
            self._out.data("[]")

    def note(self, text: str) -> None:
        """Something for the person at the terminal."""
        self._out.note(text, "warn")
