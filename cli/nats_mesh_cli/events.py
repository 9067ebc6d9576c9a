"""``events``: what happened lately, and what happens, as members tell it; who comes and goes, as presence says."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

import anyio

from nats_mesh import CallError, Mesh
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Instance
from nats_mesh.core.presence import Announcement, incarnation
from nats_mesh.discovery.messages import rfc3339
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import CodecError
from nats_mesh.model import check_name
from nats_mesh.telemetry.events import Event, decode_event, decode_recent, is_kind
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of
from nats_mesh_cli.bus import CALLER, QUESTION_S, ask, connected
from nats_mesh_cli.catalog import announcement_of, visible
from nats_mesh_cli.errors import CliError, did_you_mean
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import listed
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted
from nats_mesh_cli.past_events import merged, past_events
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.rows import Rows
from nats_mesh_cli.silent import silent_text
from nats_mesh_cli.silent_watch import look_for_silent
from nats_mesh_cli.together import records_together
from nats_mesh_cli.trouble import is_bad

__all__ = ["Feed", "events", "membership", "record_of"]

#: How far back the audit is looked at where nothing is said.
_LATELY = "-1h"
_MAX_SEEN = 50_000
_MAX_WAITING = 10_000
_SHORT = 8
_KINDS = {
    ChangeKind.JOINED: EventKind.INSTANCE_JOINED,
    ChangeKind.GONE: EventKind.INSTANCE_GONE,
    ChangeKind.SUSPECT: EventKind.INSTANCE_SUSPECT,
    ChangeKind.ALIVE: EventKind.INSTANCE_ALIVE,
}

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


def record_of(event: Event) -> Record:
    """An event as ``-o json`` shows it."""
    return {
        "at": event.at,
        "kind": event.kind,
        "service": event.service,
        "instance": event.instance,
        "namespace": event.namespace,
        "target": event.target,
        "detail": event.detail,
        "numbers": dict(event.numbers),
        "seq": event.seq,
        "missed": event.missed,
    }


def membership(change: Change, at: str) -> Record | None:
    """A change of membership as an event of the instance; ``None`` for what instances tell themselves."""
    kind, instance = _KINDS.get(change.kind), change.instance
    if kind is None:
        return None
    detail = f"{instance.name}, version {instance.version}"
    if change.reason is not None:
        detail = f"{detail}: {change.reason}"
    return _membership(kind, at, instance, instance.id, detail)


def joins(infos: Iterable[InfoReply], namespace: str) -> list[Record]:
    """When each instance of the mesh that is there has come, as it says itself."""
    found = []
    for info in visible(infos, namespace):
        told = announcement_of(info)
        if told is not None:
            detail = f"{told.name}, version {told.version}"
            found.append(_membership(EventKind.INSTANCE_JOINED, told.started, told, told.instance, detail))
    return found


def _membership(kind: EventKind, at: str, of: Announcement | Instance, instance: str, detail: str) -> Record:
    return {
        "at": at,
        "kind": kind.value,
        "service": of.service,
        "instance": instance,
        "namespace": of.namespace,
        "target": instance,
        "detail": detail,
        "numbers": {},
        "seq": None,
        "missed": 0,
    }


def _detail(record: Record) -> str:
    missed = f" ({record['missed']} more before it were too many)" if record["missed"] else ""
    return f"{record['detail']}{missed}"


class Feed:
    """Takes in what members tell and hands it out once, in the order in which it came.

    ``ignored`` counts what was not believed or could not be read, ``lost`` what came faster than it was shown.
    """

    def __init__(
        self, mesh: Mesh, service: str | None, *, kinds: Sequence[str] = (), since: str = ""
    ) -> None:
        self.service = service
        self._kinds = tuple(kinds)
        self._since = incarnation(since) if since else ""
        self.ignored = 0
        self.lost = 0
        #: Whether it is known who was there before: whoever is new from now on has come.
        self.introduced = False
        self._mesh = mesh
        self._seen: dict[tuple[str, str, int, str, str], None] = {}
        self._waiting: deque[Record] = deque()
        self._news = anyio.Event()

    def take(self, event: Event) -> None:
        """One event, however often it comes."""
        # Not the number alone: whoever says the next ones in another's name would keep what happens there from us.
        key = (event.service, event.instance, event.seq, event.at, event.kind)
        if key in self._seen or event.namespace != self._mesh.namespace:
            return
        if self.service not in (None, event.service):
            return
        if len(self._seen) >= _MAX_SEEN:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = None
        self.put(record_of(event))

    def wanted(self, record: Record) -> bool:
        """Whether it is of a kind, a time and a service that are asked for."""
        kind = str(record["kind"])
        if self._kinds and not any(kind == each or kind.startswith(f"{each}.") for each in self._kinds):
            return False
        if self.service is not None and self.service not in (record["service"], record["target"]):
            return False
        return not self._since or incarnation(str(record["at"])) >= self._since

    def put(self, record: Record) -> None:
        """Something to show, where it is wanted."""
        if not self.wanted(record):
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(record)
        self._news.set()

    def taken(self) -> list[Record]:
        """What came since the last time."""
        records = list(self._waiting)
        self._waiting.clear()
        self._news = anyio.Event()
        return records

    async def news(self) -> None:
        """Return when there is something to show."""
        await self._news.wait()

    def on_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a member's event subject."""
        whose = member_of(subject, reply, enforced=self._mesh.settings.enforced)
        if whose is None:
            self.ignored += 1
            return
        try:
            self.take(
                decode_event(payload, service=whose[0], instance=whose[1], namespace=self._mesh.namespace)
            )
        except CodecError:
            self.ignored += 1

    def on_change(self, change: Change) -> None:
        """Somebody came or went."""
        record = membership(change, rfc3339(time.time()))
        if self.introduced and record is not None:
            self.put(record)

    async def ask(self, timeout_s: float) -> None:
        """Ask everybody for what they remember; this is also a lease."""
        want = self._mesh.client.subjects.want("event", self.service or ALL, self._mesh.name)
        replies = await ask(self._mesh, want, timeout_s=timeout_s, destination="telemetry")
        found: list[Event] = []
        for payload in replies.payloads:
            try:
                found += decode_recent(payload, service=self.service, namespace=self._mesh.namespace)
            except CodecError:
                self.ignored += 1
        for event in sorted(found, key=lambda each: (each.at, each.service, each.seq)):
            self.take(event)


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
        check_name("service", service)
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
        there = joins(await fetch(mesh, options, out), mesh.namespace)
        named = [] if service is None else [service]
        records, silent = await asyncio.gather(
            _before(mesh, feed, options, out, since, there),
            look_for_silent(mesh, options, out, services=named),
        )
        if service is not None and not records:
            await must_be_there(mesh, options, out, service, callers=True)
    nothing = "nothing has happened lately, as far as anybody here remembers"
    out.rows(_shown(records, fmt), _COLUMNS, fmt, name=str, nothing=nothing)
    if silent:
        out.note(f"note: {silent_text(silent)}", "bad")
    _complain(feed, out)


def _shown(records: Sequence[Record], fmt: Format) -> Sequence[Record]:
    """For people what several members tell alike is one row; programs get every event."""
    return records if fmt.structured else records_together(records)


async def _before(
    mesh: Mesh, feed: Feed, options: Options, out: Out, since: str | None, there: Sequence[Record]
) -> list[Record]:
    """What members remember, and what the audit knows that they do not, or those ``there`` say of themselves."""
    timeout_s = options.timeout_s or QUESTION_S
    await feed.ask(timeout_s)
    remembered = feed.taken()
    begin = instant(since or _LATELY)
    past, problem = await past_events(mesh, begin, timeout_s=timeout_s)
    if problem and since is not None:
        out.note(f"note: who went before, and what was changed, is not known: {problem}", "warn")
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
    connection = _Connection(feed, out)
    client.transport.add_listener(connection)
    rows = Rows(out, options.format, _COLUMNS, _LEAST)
    try:
        before = await _before(mesh, feed, options, out, since, joins(infos, mesh.namespace))
        rows.show(_shown(before, options.format))
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


class _Connection:
    """Says when the bus goes away, and remembers that it is back."""

    def __init__(self, feed: Feed, out: Out) -> None:
        self.back = False
        self._out = out
        self._came = anyio.Event()

    async def wait(self) -> None:
        """Return when the bus is back."""
        await self._came.wait()

    def on_disconnect(self, reason: str) -> None:
        self._out.note(f"the connection is lost ({reason}); events may be missing", "warn")

    def on_reconnect(self) -> None:
        self._out.note("connected again", "ok")
        self.back = True
        self._came.set()
        self._came = anyio.Event()

    def on_denied(self, operation: str, subject: str) -> None:
        self._out.note(f"the server's permissions refuse {operation} on {subject}", "bad")
