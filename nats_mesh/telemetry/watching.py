"""One observer for all views: ``async with MeshView(mesh) as view: … view.snapshot()``.

It holds the leases on statistics and events, follows presence, and folds what it hears
(:mod:`nats_mesh.telemetry.folding`); a view takes a :class:`Snapshot` whenever it draws. Any number of observers costs
a member one message a second; when the last one leaves, none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.members import Change, ChangeKind
from nats_mesh.core.presence import Kind
from nats_mesh.discovery.announced import announced
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import Verb, request_subject
from nats_mesh.discovery.services_replies import parse_ping
from nats_mesh.errors import CallError, CodecError, ConfigError
from nats_mesh.model import check_name
from nats_mesh.telemetry.events import decode_event, decode_recent
from nats_mesh.telemetry.folding import Bus, Fold, Gone
from nats_mesh.telemetry.snapshots import (
    Breaker,
    Capacity,
    Edge,
    Ejection,
    Endpoint,
    Member,
    PolicySync,
    Red,
    Service,
    Snapshot,
    Trend,
    VersionRow,
)
from nats_mesh.telemetry.stats import decode_stats
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, Subjects, reply_allowed
from nats_mesh.wire.transport import Subscription, Transport

__all__ = [
    "Breaker",
    "Capacity",
    "Edge",
    "Ejection",
    "Endpoint",
    "Member",
    "MeshView",
    "PolicySync",
    "Red",
    "Service",
    "Snapshot",
    "Trend",
    "VersionRow",
]

#: A snapshot is made anew this long after the one before (seconds).
_SNAPSHOT_S: Final = 0.25
_SLOWEST_S: Final = 1.0
#: How often it is asked again who is there (seconds).
_ASK_EVERY_S: Final = 30.0
_TOKENS: Final = 6
#: A message may have been on its way when a moment was; the one after it cannot.
_SETTLED_AFTER: Final = 2
#: How long a first word of whoever nobody knows yet is waited for (seconds).
_FIRST_WORD_S: Final = 0.5


_Take: TypeAlias = Callable[[bytes], None]


class _Answers:
    """Takes what answers a question as it comes."""

    def __init__(self, subject: str, take: _Take) -> None:
        self.subject = subject
        self._take = take

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """Empty is what the server says where nobody is there."""
        if payload:
            self._take(payload)

    def on_failure(self, error: CallError) -> None:
        """The bus is away: it is asked again."""


class _Settings(Protocol):
    @property
    def enforced(self) -> bool: ...


class _Client(Protocol):
    @property
    def transport(self) -> Transport: ...

    @property
    def mux(self) -> ReplyMux: ...


class Watchable(Protocol):
    """What a view looks through: an open :class:`nats_mesh.Mesh`."""

    @property
    def name(self) -> str: ...

    @property
    def namespace(self) -> str: ...

    @property
    def settings(self) -> _Settings: ...

    @property
    def client(self) -> _Client: ...


class MeshView:
    """What an open ``mesh`` (:class:`nats_mesh.Mesh`) can see of its namespace, while the block runs.

    ``services`` narrows the leases (statistics of all others are not asked for); none: all. The view never calls and
    never changes anything. Entering raises :class:`PermissionDeniedError` where the credential may not listen.
    """

    def __init__(
        self,
        mesh: Watchable,
        *,
        services: Sequence[str] = (),
        window_s: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._mesh = mesh
        self._services = [check_name("service", each) for each in services]
        self._clock = clock
        self._now = clock.monotonic
        self._fold = Fold(namespace=mesh.namespace, window_s=window_s)
        self._made: Snapshot | None = None
        self._rest_s = _SNAPSHOT_S
        self._news = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._observer: Observer | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: Transport | None = None
        self._asked: list[str] = []
        #: Of instances that presence knows, and that there is room for: their services by their ids.
        self._service_of: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        if self._transport is not None:
            raise ConfigError("this view was opened already; make another one")
        client = self._mesh.client
        transport = self._transport = client.transport
        subjects = Subjects(self._mesh.namespace)
        try:
            self._subscriptions = [
                transport.subscribe(subjects.telemetry_of("stats"), self._on_stats),
                transport.subscribe(subjects.telemetry_of("event"), self._on_event),
            ]
            self._observer = Observer(
                subjects=subjects,
                transport=transport,
                mux=client.mux,
                clock=self._clock,
                enforced=self._mesh.settings.enforced,
                on_change=self._on_change,
                on_heard=self._on_heard,
            )
            transport.add_listener(self)
            await transport.fence()
        except BaseException:
            self._close()
            raise
        self._bus()
        self._task = asyncio.get_running_loop().create_task(self._ask(subjects))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (failure := task.exception()) is not None:
                self._close()
                raise failure
        self._close()

    def _close(self) -> None:
        transport = self._transport
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        if transport is not None:
            transport.remove_listener(self)
            for subscription in self._subscriptions:
                transport.unsubscribe(subscription)
        self._subscriptions = []
        for inbox in self._asked:
            self._mesh.client.mux.close(inbox)
        self._asked = []

    # -- what is known ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is known now. Made at most four times a second, in a very large mesh once; in between the same
        object comes again."""
        now = self._now()
        if self._made is None or now - self._made.at >= self._rest_s:
            if self._transport is not None and self._transport.connected:
                self._bus()
            self._made = self._fold.snapshot(now, self._clock.time())
            # A large mesh is looked at less often: members tell once a second, and keys must be heard in between.
            self._rest_s = min(_SLOWEST_S, max(_SNAPSHOT_S, 5.0 * (self._now() - now)))
        return self._made

    async def news(self, timeout_s: float) -> bool:
        """Return once something was heard that a snapshot would show (true), or after ``timeout_s`` (false)."""
        news = self._news
        try:
            async with asyncio.timeout(timeout_s):
                await news.wait()
        except TimeoutError:
            return False
        self._news = asyncio.Event()
        return True

    async def settled(self, timeout_s: float) -> bool:
        """Return once every member that is there has told what it had counted at this moment; false after the time."""
        end = self._now() + timeout_s
        first_word = self._now() + _FIRST_WORD_S
        wanted: dict[tuple[str, str], int] = {}
        while True:
            now = self._now()
            for key, known in self._fold.members.items():
                if key not in wanted and (known.seq or now < first_word):
                    wanted[key] = known.seq + _SETTLED_AFTER
            members = self._fold.members
            waits = [key for key, seq in wanted.items() if key in members and members[key].seq < seq]
            if not waits and now >= first_word:
                return True
            if now >= end:
                return False
            await self.news(min(0.1, end - now))

    @property
    def silent(self) -> list[tuple[str, str]]:
        """The instances (service and id) that presence knows and whose statistics have never come."""
        return [key for key, known in self._fold.members.items() if not known.seq]

    # -- asking -------------------------------------------------------------------------------------

    async def _ask(self, subjects: Subjects) -> None:
        """Hold the leases until cancelled; ask now and then who is there, and what has happened."""
        name, enough = self._mesh.name, 0.0
        wants = [
            subjects.want(kind, service, name)
            for kind in ("stats", "event")
            for service in self._services or [ALL]
        ]
        mux = self._mesh.client.mux
        while True:
            transport = self._mesh.client.transport
            ask = self._now() >= enough and transport.connected
            if ask:
                enough = self._now() + _ASK_EVERY_S
                self._question(request_subject(Verb.PING), "$SRV", self._on_ping)
            for want in wants:
                try:
                    if ask and ".want.event." in want:
                        self._question(want, "telemetry", self._on_recent)
                    else:
                        transport.publish(want, b"", mux.one_way("telemetry"))
                except CallError:
                    pass  # the bus is away: the next one is in time, and the view says that it is away
            await asyncio.sleep(LEASE_S / 2)
            self._news.set()

    def _question(self, subject: str, destination: str, take: _Take) -> None:
        """Ask everybody; answers are taken as they come, for a while."""
        mux = self._mesh.client.mux
        for inbox in self._asked[:-4]:  # whoever has not answered by now does not
            mux.close(inbox)
        self._asked = self._asked[-4:]
        try:
            inbox = mux.open(destination, _Answers(subject, take))
            self._asked.append(inbox)
            self._mesh.client.transport.publish(subject, b"", inbox)
        except CallError:
            pass  # as above

    # -- hearing ------------------------------------------------------------------------------------

    def _on_stats(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        named = self._named(subject, reply)
        if named is None:
            return
        try:
            message = decode_stats(
                payload, service=named[0], instance=named[1], namespace=self._mesh.namespace
            )
        except CodecError:
            self._fold.ignored += 1
            return
        if not self._services or named[0] in self._services:
            self._took(self._fold.apply(message, self._now()))

    def _on_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        named = self._named(subject, reply)
        if named is None:
            return
        try:
            event = decode_event(payload, service=named[0], instance=named[1], namespace=self._mesh.namespace)
        except CodecError:
            self._fold.ignored += 1
            return
        self._took(self._fold.apply(event, self._now()))

    def _named(self, subject: str, reply: str) -> tuple[str, str] | None:
        """Whose subject it is; ``None`` where the message is not its publisher's."""
        parts = subject.split(".")
        if len(parts) != _TOKENS or not reply_allowed(reply, parts[4], enforced=self._mesh.settings.enforced):
            self._fold.ignored += 1
            return None
        return parts[4], parts[5]

    def _on_recent(self, payload: bytes) -> None:
        try:
            events = decode_recent(payload)
        except CodecError:
            self._fold.ignored += 1
            return
        for event in events:
            self._took(self._fold.apply(event, self._now()))

    def _on_ping(self, payload: bytes) -> None:
        """Who answers a question is there; foreign services have no presence, and are not shown."""
        try:
            announcement = announced(Kind.BEAT, parse_ping(payload))
        except CodecError:
            self._fold.ignored += 1
            return
        if announcement is not None and announcement.namespace == self._mesh.namespace and self._observer:
            self._observer.hearsay(announcement)

    def _on_heard(self, instance: str) -> None:
        """Presence has a word of somebody: what the registry makes of it is taken with its change, or here."""
        observer, service = self._observer, self._service_of.get(instance)
        if observer is not None and service is not None:
            found = observer.registry.exactly(service, instance)
            if found is not None:
                self._took(self._fold.apply(found, self._now()))

    def _on_change(self, change: Change) -> None:
        instance = change.instance
        if self._services and instance.service not in self._services:
            return
        if change.kind is ChangeKind.GONE:
            self._service_of.pop(instance.id, None)
            self._took(self._fold.apply(Gone(instance.service, instance.id), self._now()))
        elif self._fold.apply(instance, self._now()):
            self._service_of[instance.id] = instance.service
            self._took(True)

    def _took(self, news: bool) -> None:
        if news:
            self._news.set()

    # -- the connection -----------------------------------------------------------------------------

    def _bus(self) -> None:
        transport = self._transport
        if transport is not None:
            bus = Bus(transport.connected, transport.server, transport.stats.rtt_s)
            self._fold.apply(bus, self._now())

    def on_disconnect(self, reason: str) -> None:
        """The view says that the bus is away, and shows what it knows."""
        bus = self._fold.bus
        self._fold.apply(Bus(False, bus.server), self._now())
        self._made = None
        self._news.set()

    def on_reconnect(self) -> None:
        """Everybody is heard again with the next lease."""
        self._bus()
        self._made = None
        self._news.set()

    def on_denied(self, operation: str, subject: str) -> None:
        """Whoever opened the view learns it from the fence."""
