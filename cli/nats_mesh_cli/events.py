"""``events``: what happened lately, and what happens, as members tell it; who comes and goes, as presence says."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from nats_mesh import CallError, Mesh
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.presence import incarnation
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.telemetry.events import is_kind
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.subjects import ALL
from nats_mesh_cli.bus import CALLER, QUESTION_S, connected
from nats_mesh_cli.catalog import announcement_of, visible
from nats_mesh_cli.connection import Connection
from nats_mesh_cli.errors import CliError, did_you_mean
from nats_mesh_cli.event_feed import Feed
from nats_mesh_cli.event_records import joins, not_heard
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import listed, service_given
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted
from nats_mesh_cli.past_events import merged, past_events
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.rows import Rows
from nats_mesh_cli.silence import called_by_clients, unheard
from nats_mesh_cli.silent import Unheard, silent_text
from nats_mesh_cli.together import records_together
from nats_mesh_cli.trouble import is_bad

__all__ = ["events"]

#: How far back the audit is looked at where nothing is said.
_LATELY = "-1h"
_SHORT = 8
_COLUMNS = (
    Column("TIME", lambda r: shown_time(str(r["at"])), drop=1, brief=lambda r: shown_time(str(r["at"]))[11:]),
    Column("KIND", lambda r: str(r["kind"]), style=lambda r: "bad" if is_bad(r["kind"]) else "name", drop=0),
    Column("SERVICE", lambda r: str(r["service"]), drop=0),
    Column("INSTANCE", lambda r: str(r["instance"])[:_SHORT], drop=15),
    Column("TARGET", lambda r: str(r["target"]), drop=5),
    Column("DETAIL", lambda r: _detail(r), drop=4, short=16),
)
#: What a column takes at least where rows come one by one.
_LEAST = (24, 18, 10, _SHORT, 16, 0)


def _detail(record: Record) -> str:
    missed = f" ({record['missed']} more before it were too many)" if record["missed"] else ""
    return f"{record['detail']}{missed}"


async def events(
    options: Options,
    out: Out,
    *,
    service: str | None,
    follow: bool,
    name: str | None,
    kinds: Sequence[str] = (),
    since: str | None = None,
) -> None:
    """Show what is remembered, of these kinds (`breaker`: all of `breaker.…`), from an instant on; with ``follow`` go
    on until Ctrl-C."""
    fmt = options.format
    kinds = [kind.strip() for given in kinds for kind in given.split(",")]
    for kind in kinds:
        if not is_kind(kind):
            raise CliError(
                f"--kind {kind!r}: no event can be of that kind",
                hint="a kind is a word of lower-case letters, digits, points and hyphens, such as breaker.open",
            )
    moment = "" if since is None else instant(since)
    if service is not None:
        service_given(service, "events {}")
    if fmt is Format.NAME:
        raise CliError("events: an event has no name", hint="use -o json, jsonl, yaml, or leave -o out")
    if follow and fmt in (Format.JSON, Format.YAML):
        raise CliError(f"-f goes on for ever, which -o {fmt} cannot", hint="use -o jsonl: one event a line")
    async with connected(options, name or CALLER) as mesh:
        feed = Feed(mesh, service, kinds=kinds, since=moment)
        _look_at_kinds(kinds, out)
        if follow:
            await _follow(mesh, feed, options, out, since)
            return
        infos = await fetch(mesh, options, out)
        found = await _unheard(mesh, infos, service)
        records = await _before(mesh, feed, options, out, since, infos, found)
        if service is not None and not records:
            await must_be_there(mesh, options, out, service, callers=True)
    nothing = "nothing has happened lately, as far as anybody here remembers"
    out.rows(_shown(records, fmt), _COLUMNS, fmt, name=str, nothing=nothing)
    if found.silent:
        out.note(f"note: {silent_text(found.silent)}", "bad")
    _complain(feed, out)


async def _unheard(mesh: Mesh, infos: Sequence[InfoReply], service: str | None) -> Unheard:
    """Who does not answer, as those know who answered (``infos``) and those who call; of ``service`` alone, where one
    is named."""
    named = [] if service is None else [service]
    found = await unheard(mesh, infos, [named, *await called_by_clients(mesh)])
    return Unheard(*([each for each in told if service in (None, each.service)] for told in found))


def _shown(records: Sequence[Record], fmt: Format) -> Sequence[Record]:
    """For people what several members tell alike is one row; programs get every event."""
    return records if fmt.structured else records_together(records)


async def _before(
    mesh: Mesh,
    feed: Feed,
    options: Options,
    out: Out,
    since: str | None,
    infos: Sequence[InfoReply],
    found: Unheard,
) -> list[Record]:
    """What members remember, and what the audit knows that they do not, those who answer (``infos``) say of themselves,
    or peers of those who do not."""
    timeout_s = options.timeout_s or QUESTION_S
    await feed.ask(timeout_s)
    remembered = feed.taken()
    begin = instant(since or _LATELY)
    past, problem = await past_events(mesh, begin, timeout_s=timeout_s)
    if problem and since is not None:
        out.note(f"note: who went before, and what was changed, is not known: {problem}", "warn")
    there = joins(infos, mesh.namespace) + not_heard(found, SYSTEM_CLOCK.time(), mesh.namespace)
    past = merged(past, [each for each in there if incarnation(each["at"]) >= incarnation(begin)])
    return merged(remembered, [record for record in past if feed.wanted(record)])


def _look_at_kinds(kinds: Sequence[str], out: Out) -> None:
    """Applications tell of kinds of their own: a word that the mesh does not know is no error."""
    known = {word for kind in EventKind for word in (str(kind), str(kind).partition(".")[0])}
    for kind in kinds:
        if kind not in known:
            hint = did_you_mean(kind, known) or f"it tells of {listed(known - set(EventKind))}"
            out.note(f"note: the mesh itself tells of no {kind!r}; {hint}", "warn")


def _complain(feed: Feed, out: Out) -> None:
    if feed.lost:
        out.note(f"note: {counted(feed.lost, 'event')} came faster than they could be shown", "warn")
    if feed.ignored:
        out.note(
            f"note: {counted(feed.ignored, 'message')} told of no event, or came from nobody who may: left out",
            "warn",
        )


async def _follow(mesh: Mesh, feed: Feed, options: Options, out: Out, since: str | None) -> None:
    client = mesh.client
    await must_be_there(mesh, options, out, feed.service or "", later=True, callers=True)
    client.transport.subscribe(client.subjects.telemetry_of("event", feed.service or "*"), feed.on_event)
    observer = Observer(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        clock=SYSTEM_CLOCK,
        service=feed.service or "*",
        enforced=mesh.settings.enforced,
        on_change=feed.on_change,
    )
    await client.transport.fence()
    infos = await fetch(mesh, options, out)
    for info in visible(infos, mesh.namespace):
        announcement = announcement_of(info)
        if announcement is not None and feed.service in (None, announcement.service):
            observer.take(announcement)
    feed.introduced = True
    connection = _Connection(out)
    client.transport.add_listener(connection)
    rows = Rows(out, options.format, _COLUMNS, _LEAST)
    try:
        found = await _unheard(mesh, infos, feed.service)
        before = await _before(mesh, feed, options, out, since, infos, found)
        rows.show(_shown(before, options.format))
        if found.silent:
            out.note(f"note: {silent_text(found.silent)}", "bad")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_lease, mesh, feed, connection)
            while True:
                rows.show(_shown(feed.taken(), options.format))
                await feed.news()
    finally:
        observer.close()
        _complain(feed, out)


async def _lease(mesh: Mesh, feed: Feed, connection: _Connection) -> None:
    """Hold the lease; after a reconnect ask for what was missed."""
    client = mesh.client
    want = client.subjects.want("event", feed.service or ALL, mesh.name)
    while True:
        try:
            if connection.back:
                connection.back = False
                await feed.ask(QUESTION_S)
            else:
                client.transport.publish(want, b"", client.mux.one_way("telemetry"))
        except CallError:
            pass  # the bus is away; what happens meanwhile is remembered, and asked for
        with anyio.move_on_after(LEASE_S / 2):
            await connection.wait()


class _Connection(Connection):
    """As that, and remembers that the bus is back."""

    def __init__(self, out: Out) -> None:
        super().__init__(out, "events may be missing")
        self.back = False
        self._came = anyio.Event()

    async def wait(self) -> None:
        """Return when the bus is back."""
        await self._came.wait()

    def on_reconnect(self) -> None:
        """What was missed is asked for."""
        super().on_reconnect()
        self.back = True
        self._came.set()
        self._came = anyio.Event()
