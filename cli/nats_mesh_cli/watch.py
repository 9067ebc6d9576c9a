"""``get -w``: what is there, and every change: a table that is drawn anew on a terminal, lines in a pipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import anyio
from msgspec.structs import replace

from nats_mesh.core.members import Reason
from nats_mesh_cli.bus import connected
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.get import Kind, fetch, kind_of, records_of, short_ids
from nats_mesh_cli.hints import namespace_text
from nats_mesh_cli.live import Live, difference
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, drawn, dump, layout
from nats_mesh_cli.silent import SILENT, services_meant, silent_info
from nats_mesh_cli.silent_watch import SilentWatch
from nats_mesh_cli.tables import Layout

__all__ = ["Key", "View", "must_go_on", "view_of", "watch"]

_FRAME_S = 0.5
Key = tuple[str, str, str]


class View(Protocol):
    """What a list that goes on is shown with."""

    def update(self, records: dict[Key, Record]) -> None:
        """Show what is there now."""

    def close(self) -> None:
        """Leave the terminal in order."""


async def watch(options: Options, out: Out, word: str, name: str | None, *, everywhere: bool) -> None:
    """Show what is there and go on until Ctrl-C."""
    kind = kind_of(word)
    must_go_on(options)
    async with connected(options) as mesh:
        namespace = None if everywhere else mesh.namespace
        live = Live(mesh, namespace, lambda: fetch(mesh, options, out))
        mesh.client.transport.add_listener(Connection(out))
        await mesh.client.transport.fence()
        await live.refresh()
        view = view_of(options, out, kind, live.reasons)
        silence = SilentWatch(mesh, options, out)
        await silence.look(services_meant(name))
        if not _chosen(kind, live, silence, name):
            out.note(f"no {kind.plural} in {namespace_text(namespace)} yet; waiting", "dim")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live.follow)
            tasks.start_soon(silence.follow, lambda: services_meant(name))
            try:
                while True:
                    view.update(_chosen(kind, live, silence, name))
                    await live.change(_FRAME_S)
            finally:
                view.close()


def _chosen(kind: Kind, live: Live, silence: SilentWatch, name: str | None) -> dict[Key, Record]:
    """What is to be shown. Who is silent stays, as long as others know of him: calls still reach him."""
    infos = {(info.name, info.id): info for info in live.infos()}
    here = {service for service, _ in infos}
    for each in silence.found:
        known = infos.get(each.key)
        if known is not None:
            if known.metadata.get("mesh.state") == "suspect":
                infos[each.key] = replace(known, metadata={**known.metadata, "mesh.state": SILENT})
        elif each.instance or (kind.plural == "services" and each.service not in here):
            infos[each.key] = silent_info(each, live.namespace)
    records = records_of(kind, list(infos.values()))
    return {
        (record["namespace"] or "", record["kind"], kind.name(record)): record
        for record in records
        if name is None or kind.matches(record, name)
    }


def view_of(options: Options, out: Out, kind: Kind, reasons: Mapping[str, str]) -> View:
    """How a list that goes on is shown. ``reasons``: why an instance that is gone is gone."""
    if options.format in (Format.JSONL, Format.NAME):
        return _Lines(out, kind, reasons, options.format)
    wide = options.format is Format.WIDE
    return _Screen(out, kind, wide) if out.tty else _Rows(out, kind, reasons, wide)


def must_go_on(options: Options) -> None:
    """:class:`CliError` for a form of output that has an end."""
    if options.format in (Format.JSON, Format.YAML):
        raise CliError(
            f"-w goes on for ever, which -o {options.format} cannot", hint="use -o jsonl: one change a line"
        )


class _Changes(ABC):
    """Turns states into events, and tells each to ``_tell``."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._before: dict[Key, Record] | None = None

    def update(self, records: dict[Key, Record]) -> None:
        if self._before is None:
            events = [("present", record) for record in records.values()]
        else:
            events = difference(self._before, records)
        self._before = records
        for event, record in events:
            reason = self._reasons.get(str(record.get("instance", ""))) if event == "removed" else None
            self._tell(event, record if reason is None else {**record, "reason": reason})

    @abstractmethod
    def _tell(self, event: str, record: Record) -> None:
        """Print one change."""

    def close(self) -> None:  # noqa: B027 - most views hold nothing
        """Nothing to leave."""


class _Lines(_Changes):
    """One change a line: an object, or a name."""

    def __init__(self, out: Out, kind: Kind, reasons: Mapping[str, str], fmt: Format) -> None:
        super().__init__(reasons)
        self._out, self._kind, self._format = out, kind, fmt

    def _tell(self, event: str, record: Record) -> None:
        if self._format is Format.NAME:
            if event in ("present", "added"):
                self._out.data(self._kind.name(record))
        else:
            self._out.data(dump({"event": event, **record}, Format.JSONL))


class _Rows(_Changes):
    """A table that grows by a row with each change; for pipes and files."""

    def __init__(self, out: Out, kind: Kind, reasons: Mapping[str, str], wide: bool) -> None:
        super().__init__(reasons)
        self._out, self._wide = out, wide
        self._columns = [Column("EVENT", _event_text), *kind.columns]
        self._layout: Layout | None = None
        #: The longest event that there may be: of an instance that goes it is said why.
        self._longest: Record = {"event": "changed"}
        if kind.plural == "instances":
            self._longest = {"event": "removed", "reason": max(map(str, Reason), key=len)}
        #: Rows that the columns have room for.
        self._room: list[Record] = []

    def update(self, records: dict[Key, Record]) -> None:
        self._room = [{**record, **self._longest} for record in records.values()] or self._room
        super().update(records)

    def _tell(self, event: str, record: Record) -> None:
        row = {**record, "event": event}
        if self._layout is None or not self._layout.fits(row):
            # What comes later may be wider than all before it: under a head of its own the columns are straight again.
            self._layout = layout([*self._room, row], self._columns, wide=self._wide)
            self._out.data(self._layout.head())
        self._out.data(self._layout.row(row))


def _event_text(record: Record) -> str:
    return f"{record['event']} ({record['reason']})" if "reason" in record else str(record["event"])


class _Screen:
    """A table drawn anew in place, twice a second; for terminals."""

    def __init__(self, out: Out, kind: Kind, wide: bool) -> None:
        from rich.console import Console
        from rich.live import Live as Drawing

        self._kind, self._wide, self._out = kind, wide, out
        console = Console(file=out.stdout, no_color=not out.color, highlight=False)
        self._drawing = Drawing(console=console, auto_refresh=False, transient=False)
        self._drawing.start()

    def update(self, records: dict[Key, Record]) -> None:
        from rich.text import Text

        rows = list(records.values())
        shown: list[Any] = short_ids(rows) if self._kind.plural == "instances" else rows
        text = drawn(shown, self._kind.columns, self._out, wide=self._wide)
        self._drawing.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._drawing.stop()
