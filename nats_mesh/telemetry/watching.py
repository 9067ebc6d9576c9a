"""One observer for all views: ``async with MeshView(mesh) as view: … view.snapshot()``.

It holds the leases on statistics and events, follows presence, and folds what it hears
(:mod:`nats_mesh.telemetry.folding`); a view takes a :class:`Snapshot` whenever it draws. Any number of observers costs
a member one message a second; when the last one leaves, none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.discovery.observer import Observer
from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name
from nats_mesh.telemetry.asking import Asking
from nats_mesh.telemetry.folding import Bus, Fold
from nats_mesh.telemetry.hearing import Hearing
from nats_mesh.telemetry.known import Known
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
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
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
#: Where making one takes longer, it is made bit by bit, and others get their turn after so long (seconds).
_AT_ONCE_S: Final = 0.02
_BIT_S: Final = 0.01
#: A message may have been on its way when a moment was; the one after it cannot.
_SETTLED_AFTER: Final = 2
#: How long a first word of whoever nobody knows yet is waited for (seconds).
_FIRST_WORD_S: Final = 0.5


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
        self._hearing = Hearing(
            self._fold,
            services=self._services,
            enforced=mesh.settings.enforced,
            now=clock.monotonic,
            on_news=self._on_news,
            on_joined=self._on_joined,
        )
        self._made: Snapshot | None = None
        self._rest_s = _SNAPSHOT_S
        #: How long the snapshot before took to make (seconds), and what makes the next one.
        self._cost_s = 0.0
        self._making: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._late: list[tuple[str, str]] = []
        self._subscriptions: list[Subscription] = []
        self._observer: Observer | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: Transport | None = None
        self._asking: Asking | None = None

    async def __aenter__(self) -> Self:
        if self._transport is not None:
            raise ConfigError("this view was opened already; make another one")
        client = self._mesh.client
        transport = self._transport = client.transport
        subjects = Subjects(self._mesh.namespace)
        hearing = self._hearing
        try:
            self._subscriptions = [
                transport.subscribe(subjects.telemetry_of("stats"), hearing.on_stats),
                transport.subscribe(subjects.telemetry_of("event"), hearing.on_event),
            ]
            self._observer = hearing.observer = Observer(
                subjects=subjects,
                transport=transport,
                mux=client.mux,
                clock=self._clock,
                enforced=self._mesh.settings.enforced,
                on_change=hearing.on_change,
                on_heard=hearing.on_heard,
            )
            transport.add_listener(self)
            await transport.fence()
        except BaseException:
            self._close()
            raise
        self._bus()
        self._asking = Asking(
            name=self._mesh.name,
            subjects=subjects,
            services=self._services,
            transport=lambda: self._mesh.client.transport,
            mux=client.mux,
            now=self._now,
            on_recent=hearing.on_recent,
            on_ping=hearing.on_ping,
        )
        self._task = asyncio.get_running_loop().create_task(self._asking.run(self._on_news))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
            await asyncio.wait([making])
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
            self._observer = self._hearing.observer = None
        if transport is not None:
            transport.remove_listener(self)
            for subscription in self._subscriptions:
                transport.unsubscribe(subscription)
        self._subscriptions = []
        if self._asking is not None:
            self._asking.close()
            self._asking = None

    # -- what is known ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is known now. Made at most four times a second, in between the same object comes again.

        In a very large mesh it is made about once a second, and bit by bit: until the next one is there, the one before
        comes again, and keys are heard in between.
        """
        now, making = self._now(), self._making
        if making is not None and making.done():
            self._making = None
            making.result()  # what went wrong there is not to be lost
        if self._made is None or (now - self._made.at >= self._rest_s and self._cost_s <= _AT_ONCE_S):
            if self._making is not None:  # it began before
                self._making.cancel()
                self._making = None
            self._look()
            self._made = self._fold.snapshot(now, self._clock.time())
            self._took(self._now() - now)
        elif now - self._made.at >= self._rest_s and self._making is None:
            self._making = asyncio.get_running_loop().create_task(self._make())
        return self._made

    async def _make(self) -> None:
        """Make the next snapshot bit by bit."""
        self._look()
        cost_s, begun = 0.0, self._now()
        for made in self._fold.snapshot_by_bits(begun, self._clock.time()):
            spent_s = self._now() - begun
            if made is not None:
                self._took(cost_s + spent_s)
                self._made = made
                self._on_news()
            elif spent_s >= _BIT_S:
                cost_s += spent_s
                await asyncio.sleep(0)
                begun = self._now()

    def _look(self) -> None:
        if self._transport is not None and self._transport.connected:
            self._bus()

    def _took(self, cost_s: float) -> None:
        """A large mesh is looked at less often: members tell once a second."""
        self._cost_s = cost_s
        self._rest_s = min(_SLOWEST_S, max(_SNAPSHOT_S, 5.0 * cost_s))

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
        """Return once every member that is there has told what it had counted at this moment; false after the time
        (:attr:`late` has those that had not). Who leaves meanwhile is not waited for, nor are other observers: those of
        the same name that have made no calls."""
        end = self._now() + timeout_s
        first_word = self._now() + _FIRST_WORD_S
        wanted: dict[tuple[str, str], int] = {}
        while True:
            now = self._now()
            for key, known in self._fold.members.items():
                if key not in wanted and (known.seq or now < first_word):
                    wanted[key] = known.seq + _SETTLED_AFTER
            members = self._fold.members
            waits = [
                key
                for key, seq in wanted.items()
                if key in members and not members[key].has_told(seq) and self._matters(key, members[key])
            ]
            self._late = waits
            if not waits and now >= first_word:
                self._made = None  # the next one shows it all
                return True
            if now >= end:
                return False
            await self.news(min(0.1, end - now))

    def _matters(self, key: tuple[str, str], known: Known) -> bool:
        """Whether it may have something to tell that is not known yet."""
        looks_on = key[0] == self._mesh.name and not known.serves and not known.lines
        return not known.left and not looks_on

    @property
    def late(self) -> list[tuple[str, str]]:
        """The members (service and id) that :meth:`settled` last waited for in vain."""
        return list(self._late)

    @property
    def told(self) -> frozenset[tuple[str, str]]:
        """The members (service and id) that have told how they are, since the view was opened."""
        return frozenset(
            key for key, known in self._fold.members.items() if known.seq and known.condition is not None
        )

    @property
    def silent(self) -> list[tuple[str, str]]:
        """The instances (service and id) that presence knows and whose statistics have never come."""
        return [key for key, known in self._fold.members.items() if not known.seq]

    def _on_news(self) -> None:
        self._news.set()

    def _on_joined(self) -> None:
        if self._asking is not None:
            self._asking.soon()

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
        """Everybody is heard again with the next lease; what has happened meanwhile is asked for."""
        self._bus()
        if self._asking is not None:
            self._asking.again()
        self._made = None
        self._news.set()

    def on_denied(self, operation: str, subject: str) -> None:
        """Whoever opened the view learns it from the fence."""
