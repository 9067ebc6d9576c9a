"""What happened: a breaker that opened, an instance that drains, a fault that was injected. Told while somebody
listens, remembered for whoever comes later.

A member keeps its last :data:`MAX_EVENTS` events. They are published while an observer's lease on ``event`` runs,
and whoever asks with an inbox gets those that are kept in answer. What happens while its connection is away, that one
being lost and back as well, it tells with the next lease after that. Telling an event must never be a burden on
what it tells of, so it costs a few microseconds, is bounded in rate by kind, and never raises.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Instant, Name
from nats_mesh.core.refill import Refill
from nats_mesh.discovery.messages import rfc3339
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.answering import Answering
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.wants import Wants
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport
from nats_mesh.wire.vouching import check_claims, check_own

__all__ = [
    "BURST",
    "MAX_BYTES",
    "MAX_EVENTS",
    "RATE_PER_S",
    "Event",
    "Events",
    "Recent",
    "decode_event",
    "decode_recent",
    "is_kind",
]

log = logging.getLogger("nats_mesh.events")

#: How many events a member keeps.
MAX_EVENTS: Final = 256
#: How many events of one kind may come at once, and how many a second after that; what is beyond is counted.
BURST: Final = 32.0
RATE_PER_S: Final = 5.0
#: The largest body that is read.
MAX_BYTES: Final = 512 * 1024
_MAX_KINDS: Final = 64
_MAX_TARGET, _MAX_DETAIL, _MAX_NUMBERS = 200, 400, 8
_WANT: Final = "event"
_WORD: Final = "[a-z][a-z0-9.-]{0,39}"
#: Who connects with a name and a password, or a token, in an address.
_SECRET: Final = re.compile(r"//[^/@\s]*@")
_TEXT: Final = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"

_Text = Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=_MAX_DETAIL)]
_Kind = Annotated[str, msgspec.Meta(pattern=rf"\A{_WORD}\Z")]


def is_kind(word: str) -> bool:
    """Whether this may be a kind of event: of the mesh, or of an application."""
    return _is_kind(word) is not None


_is_kind = re.compile(_WORD).fullmatch


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to, or was noticed by, ``instance`` of ``service`` (a service or a named client).

    ``seq`` counts the instance's events, so that who hears one twice knows. ``at`` is the wall time, for people.
    ``target`` is what it is about (a service, ``service.endpoint`` or an instance), ``numbers`` go with ``detail``.
    ``missed`` events of this kind before this one were too many to be kept.
    """

    kind: _Kind
    at: Instant
    service: Name
    instance: Name
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    target: _Text = ""
    detail: _Text = ""
    numbers: Annotated[dict[Name, float], msgspec.Meta(max_length=_MAX_NUMBERS)] = {}
    missed: Count = 0
    wire: Literal[1] = 1


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """What a member remembers, oldest first: the answer to whoever asks for it."""

    events: Annotated[tuple[Event, ...], msgspec.Meta(max_length=MAX_EVENTS)] = ()
    wire: Literal[1] = 1


class _Bucket:
    """How many more events of a kind may come; ``missed`` is how many were too many."""

    __slots__ = ("_room", "missed")

    def __init__(self, now: float) -> None:
        self._room = Refill(RATE_PER_S, BURST, now)
        self.missed = 0

    def take(self, now: float) -> bool:
        if self._room.room(now) < 1:
            self.missed += 1
            return False
        self._room.take(1)
        return True


class Events:
    """The events of one Service instance or Mesh. It remembers from the start, and tells once it is connected.

    Every method belongs to the event loop's thread.
    """

    def __init__(
        self, member: str, namespace: str, *, instance: str = "unknown", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._failed = 0
        self.recent: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._member = member
        self._namespace = namespace
        self._instance = instance
        self._clock = clock
        self._seq = 0
        self._buckets: dict[str, _Bucket] = {}
        self._answering: Answering[Event] = Answering(_encode_recent, MAX_BYTES, clock.monotonic)
        self._subject = ""
        self._transport: Transport | None = None
        self._mux: ReplyMux | None = None
        self._wants: Wants | None = None
        #: What nobody was told because the connection was away, and since when it is (by the monotonic clock).
        self._untold: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._lost_at: float | None = None

    @property
    def failed(self) -> int:
        """Events that could not be made or sent."""
        return self._failed + self._answering.failed

    def connect(
        self, *, instance: str, subjects: Subjects, transport: Transport, mux: ReplyMux, wants: Wants
    ) -> None:
        """Tell, from now on, whoever holds a lease."""
        self._instance = instance
        self._subject = subjects.telemetry(_WANT, self._member, instance)
        self._transport, self._mux, self._wants = transport, mux, wants
        # What was noticed before there was a connection was this instance's already.
        kept = [msgspec.structs.replace(event, instance=instance) for event in self.recent]
        self.recent = deque(kept, maxlen=MAX_EVENTS)
        wants.on(_WANT, self._on_want)
        transport.add_listener(self)

    def emit(self, kind: str, target: str, detail: str, **numbers: float) -> None:
        """Remember that this happened, and tell it where somebody listens. Never raises.

        ``kind`` is a word of lower-case letters, digits, points and hyphens; texts are cut to fit, and control
        characters in them become blanks.
        """
        try:
            self._emit(kind, target, detail, numbers)
        # An event is told beside what it is about, which must not fail for it.
        except Exception:
            self._failed += 1
            log.warning("the event %r of %r could not be told", kind, target, exc_info=True)

    def _emit(self, kind: str, target: str, detail: str, numbers: dict[str, float]) -> None:
        now = self._clock.monotonic()
        bucket = self._buckets.get(kind)
        if bucket is None:
            if _is_kind(kind) is None:
                raise ValueError(f"{kind!r} is no kind of event: use a word of lower-case letters")
            if len(self._buckets) >= _MAX_KINDS:
                kind = "other"
            bucket = self._buckets.setdefault(kind, _Bucket(now))
        if not bucket.take(now):
            return
        self._seq += 1
        event = Event(
            kind=kind,
            at=rfc3339(self._clock.time()),
            service=self._member,
            instance=self._instance,
            namespace=self._namespace,
            seq=self._seq,
            target=_line(target, _MAX_TARGET),
            detail=_line(detail, _MAX_DETAIL),
            numbers={
                name: float(value)
                for name, value in list(numbers.items())[:_MAX_NUMBERS]
                if math.isfinite(value)
            },
            missed=bucket.missed,
        )
        bucket.missed = 0
        self.recent.append(event)
        transport, wants = self._transport, self._wants
        if transport is None or wants is None:
            return
        if not transport.connected or self._untold:  # what is told later keeps its order
            self._untold.append(event)
        elif wants.wanted(_WANT):
            self._publish(event, transport)
        if wants.wanted(_WANT):
            self._tell_untold(transport)

    def _publish(self, event: Event, transport: Transport) -> None:
        mux = self._mux
        if mux is None:
            return
        try:
            transport.publish(self._subject, JSON.encode(event), mux.one_way("telemetry"))
        except CallError:
            self._failed += 1  # away: whoever comes back asks for what is kept

    def _tell_untold(self, transport: Transport) -> None:
        while self._untold and transport.connected:
            self._publish(self._untold.popleft(), transport)

    def _on_want(self, observer: str, reply: str) -> None:
        if self._transport is not None:
            self._answering.lease(reply, tuple(self.recent), self._transport)
            self._tell_untold(self._transport)

    # -- the connection -----------------------------------------------------------------------------

    def on_disconnect(self, reason: str) -> None:
        """It is lost: remembered now, told once it is back."""
        self._lost_at = self._clock.monotonic()
        self.emit(EventKind.BUS_LOST, self._server(), _SECRET.sub("//", reason))

    def on_reconnect(self) -> None:
        """It is back: tell both, with the next lease where none runs any more."""
        if self._lost_at is None:
            return
        away_s, self._lost_at = self._clock.monotonic() - self._lost_at, None
        self.emit(
            EventKind.BUS_BACK, self._server(), f"it was away for {away_s:.1f} s", away_s=round(away_s, 3)
        )

    def on_denied(self, operation: str, subject: str) -> None:
        """The transport has logged it."""

    def _server(self) -> str:
        return "" if self._transport is None else self._transport.server

    def close(self) -> None:
        """Tell nobody any more; what is kept stays."""
        if self._transport is not None:
            self._transport.remove_listener(self)
        self._transport = self._mux = self._wants = None
        self._untold.clear()


def _line(text: str, limit: int) -> str:
    return one_line(text, limit) if text else ""


def _encode_recent(events: Sequence[Event]) -> bytes:
    return JSON.encode(Recent(events=tuple(events)))


_decode_event = at_first_use(lambda: JSON.decoder(Event))
_decode_recent = at_first_use(lambda: JSON.decoder(Recent))


def decode_event(
    data: bytes, *, service: str | None = None, instance: str | None = None, namespace: str | None = None
) -> Event:
    """Read one event, or raise :class:`CodecError`. The keyword arguments are what its subject says."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"event: {len(data)} bytes, at most {MAX_BYTES} are read")
    event: Event = _decode_event(data)
    check_claims("event", event, service=service, instance=instance, namespace=namespace)
    return event


def decode_recent(
    data: bytes, *, service: str | None = None, namespace: str | None = None
) -> tuple[Event, ...]:
    """Read what a member remembers, or raise :class:`CodecError`, also where it tells of another's events beside its
    own. The keyword arguments are whom the question named.

    Whoever answers could claim to be anybody; who must know who it was listens to the subjects instead.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"events: {len(data)} bytes, at most {MAX_BYTES} are read")
    recent: Recent = _decode_recent(data)
    check_own("events", recent.events, service=service, namespace=namespace)
    return recent.events
