"""``stat`` and ``edges``: rate, errors and durations of services and between them, from what members tell on the bus.

Members count all the time and tell only while somebody asks, so each command asks, listens for its window and shows
that. Totals count from each member's start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import anyio

from nats_mesh import Mesh
from nats_mesh.errors import PermissionDeniedError
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.breakers import breakers_table
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import BUS, DENIED, FAILED, CliError
from nats_mesh_cli.get import Kind, fetch
from nats_mesh_cli.heard import SETTLE_S, listened, untold
from nats_mesh_cli.hints import missing_service, namespace_text, nearest, service_given
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, drawn, dump, render_list
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.promised import Promised, PromisedReader
from nats_mesh_cli.silent import Silent, silent_text
from nats_mesh_cli.silent_view import silent_now, with_silent
from nats_mesh_cli.silent_watch import SilentWatch, look_for_silent
from nats_mesh_cli.stat_records import By
from nats_mesh_cli.stat_table import Shown, edges_table, stat_table
from nats_mesh_cli.watch import must_go_on, view_of

__all__ = ["Look", "breakers", "edges", "follow", "stat"]

#: How long is listened where nothing is said: once, and while it goes on (seconds).
ONCE_S = 3.0
WATCH_S = 10.0
SHORTEST_S = 2.0
_EVERY_S = 1.0


async def stat(
    options: Options, out: Out, services: Sequence[str], *, by: By, window_s: float | None, watch: bool
) -> None:
    """Show the figures of services; exit code 1 where one that is named is neither here nor was called."""
    for service in services:
        service_given(service, "stat {} --by endpoint")
    await _show(options, out, services, stat_table(by, services), window_s, watch)


async def edges(
    options: Options, out: Out, services: Sequence[str], *, by: By, window_s: float | None, watch: bool
) -> None:
    """Show who calls whom, and how that goes."""
    for service in services:
        service_given(service, "edges {} --by endpoint")
    await _show(options, out, services, edges_table(by, services), window_s, watch)


async def breakers(options: Options, out: Out, name: str | None, *, watch: bool) -> None:
    """Show the circuits that are not closed, and who gets no calls: all, or those of a service at either end."""
    if name is not None:
        service_given(name, "get breakers {}")
    await _show(options, out, [] if name is None else [name], breakers_table(name), None, watch)


async def _show(
    options: Options, out: Out, services: Sequence[str], view: Shown, window_s: float | None, watch: bool
) -> None:
    if window_s is not None and window_s < SHORTEST_S:
        raise CliError(
            f"--window {window_s:g}s is too short",
            hint=f"members tell once a second: {SHORTEST_S:g}s or more",
        )
    if watch and view.key is not None:
        must_go_on(options)
    elif watch and options.format in (Format.JSON, Format.YAML, Format.NAME):
        raise CliError(
            f"--watch goes on for ever, which -o {options.format} cannot", hint="use -o jsonl: one row a line"
        )
    if window_s is None:
        window_s = WATCH_S if watch else ONCE_S
    async with connected(options, CALLER) as mesh:
        try:
            async with MeshView(mesh, window_s=window_s) as seen:
                told = view.promises and options.format not in (Format.TABLE, Format.NAME)
                promised = PromisedReader(mesh) if told else None
                if watch:
                    in_place = _in_place(options, out)
                    silence = SilentWatch(mesh, options, out, services, told=not in_place)
                    for service in services:
                        await must_be_there(mesh, options, out, service, later=True)
                    if not in_place:  # what is drawn anew says it itself
                        mesh.client.transport.add_listener(Connection(out))
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(silence.follow, lambda: _waited_for(seen.snapshot()))
                        await follow(Look(seen, promised, view, silence), options, out)
                else:
                    await _once(mesh, Look(seen, promised, view), options, out, services, window_s)
        except PermissionDeniedError as error:
            raise CliError(
                f"this credential may not listen to statistics: {error.message}",
                hint="use one of an operator (--creds)",
                code=DENIED,
            ) from None


class Look:
    """What is seen of the mesh, how what is promised stands, where that shows (else it is not asked for), and who is
    silent, where that is looked for."""

    def __init__(
        self,
        seen: MeshView,
        promised: PromisedReader | None,
        view: Shown,
        silence: SilentWatch | None = None,
    ) -> None:
        self.seen = seen
        self.view = view
        self._silence = silence
        self._promised = promised

    def head(self, snapshot: Snapshot) -> str:
        """What stands above the rows: who is silent; empty where nobody is known to be."""
        text = silent_text(self._silent(snapshot))
        return f"{text}\n" if text else ""

    def _silent(self, snapshot: Snapshot) -> tuple[Silent, ...]:
        return () if self._silence is None else silent_now(snapshot, self._silence.found)

    async def records(self, snapshot: Snapshot) -> list[Record]:
        """The rows of a snapshot."""
        snapshot = with_silent(snapshot, self._silent(snapshot))
        if self._promised is None:
            return self.view.records(snapshot, Promised())
        await self._promised.refresh()
        return self.view.records(snapshot, self._promised.now())


def _waited_for(snapshot: Snapshot) -> list[str]:
    """The services that are called, and of which nobody was heard."""
    return [
        each.name
        for each in snapshot.services
        if not each.instances and each.name != OTHER and (each.red.in_flight or each.red.recent.requests)
    ]


async def _once(
    mesh: Mesh, look: Look, options: Options, out: Out, services: Sequence[str], window_s: float
) -> None:
    seen, view = look.seen, look.view
    await seen.settled(1.0)  # who is there has said a first word
    if not await listened(seen, window_s, settle_s=options.timeout_s or SETTLE_S):
        out.note(untold(seen.late), "warn")
    snapshot = seen.snapshot()
    if not snapshot.connected:
        raise CliError("the bus went away meanwhile", code=BUS)
    _complain(seen, snapshot, out)
    silent = await look_for_silent(mesh, options, out, _waited_for(snapshot), services=services)
    if silent:
        out.note(f"note: {silent_text(silent)}", "bad")
    known = {each.name for each in snapshot.services} | {each.source for each in snapshot.edges}
    for service in services:
        if service not in known:
            raise CliError(
                f"there is no service {service!r} here, and none of that name was called",
                hint=nearest(service, known),
                code=FAILED,
            )
    records = await look.records(with_silent(snapshot, silent_now(snapshot, silent)))
    nothing = view.nothing if records else f"{view.nothing}{await _elsewhere(mesh, options, out)}"
    out.rows(records, view.shown(records), options.format, name=view.name, nothing=nothing)


async def _elsewhere(mesh: Mesh, options: Options, out: Out) -> str:
    """Where was looked, and where services are; empty where some are here."""
    infos = await fetch(mesh, options, out)
    if visible(infos, mesh.namespace):
        return ""
    return f" ({namespace_text(mesh.namespace)}); {missing_service('', infos, mesh.namespace)}"


def _complain(seen: MeshView, snapshot: Snapshot, out: Out) -> None:
    if snapshot.ignored:
        out.note(
            f"note: {counted(snapshot.ignored, 'message was', 'messages were')} not believed, or could not be read",
            "warn",
        )
    if snapshot.overflowed:
        out.note(
            f"note: there is more than is kept here: {counted(snapshot.overflowed, 'word')} found no room",
            "warn",
        )
    if silent := seen.silent:
        named = ", ".join(sorted({service for service, _ in silent})[:8])
        out.note(
            f"note: {counted(len(silent), 'instance tells', 'instances tell')} no statistics (of {named})",
            "warn",
        )


async def follow(look: Look, options: Options, out: Out) -> None:
    """Show what there is and go on, from when it is known how often anything is called."""
    fmt, view = options.format, look.view
    # It takes two words of a member to know a rate: until then nothing would look as if it were called.
    await look.seen.settled(options.timeout_s or SETTLE_S)
    if _in_place(options, out):
        await _screen(look, out, wide=fmt is Format.WIDE)
    elif view.key is not None:
        await _changes(look, view.key, options, out)
    elif fmt is Format.JSONL:
        await _lines(look, out)
    else:
        while True:
            snapshot = look.seen.snapshot()
            records = await look.records(snapshot)
            text = render_list(records, view.shown(records), fmt, name=view.name)
            out.data(f"{_away(snapshot)}{text or view.nothing}\n")
            await anyio.sleep(_EVERY_S)


def _in_place(options: Options, out: Out) -> bool:
    """Whether what goes on is one table that is drawn anew, and not line below line."""
    return out.tty and options.format in (Format.TABLE, Format.WIDE)


async def _changes(
    look: Look, key: Callable[[Record], tuple[str, str, str]], options: Options, out: Out
) -> None:
    """What is there, and then each change of it."""
    view = look.view
    kind = Kind("records", view.columns, view.name, lambda *_: True)
    told = view_of(options, out, kind, {})
    waits = True
    while True:
        snapshot = look.seen.snapshot()
        if snapshot.connected:  # else nothing is known of now, and nothing has changed that is
            records = {key(each): each for each in await look.records(snapshot)}
            if waits and not records:
                out.note(f"{view.nothing}; waiting", "dim")
            waits = False
            told.update(records)
        await anyio.sleep(_EVERY_S)


async def _lines(look: Look, out: Out) -> None:
    while True:
        snapshot = look.seen.snapshot()
        at = datetime.fromtimestamp(snapshot.wall_s, UTC).isoformat(timespec="milliseconds")
        for record in await look.records(snapshot):
            out.data(dump({"at": at.replace("+00:00", "Z"), **record}, Format.JSONL))
        await anyio.sleep(_EVERY_S)


async def _screen(look: Look, out: Out, *, wide: bool) -> None:
    """A table drawn anew in place, once a second."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    view = look.view
    console = Console(file=out.stdout, no_color=not out.color, highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as drawing:
        while True:
            snapshot = look.seen.snapshot()
            records = await look.records(snapshot)
            text = drawn(records, view.shown(records), out, wide=wide) if records else view.nothing
            text = f"{_away(snapshot)}{look.head(snapshot)}{text}"
            drawing.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            await anyio.sleep(_EVERY_S)


def _away(snapshot: Snapshot) -> str:
    """A line that says that nothing of now is shown; empty where it is."""
    if snapshot.connected:
        return ""
    return f"the bus is away for {snapshot.away_s:.0f} s; these are the last figures\n"
