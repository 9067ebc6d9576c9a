"""Spans on the bus: noted when a call ends, made of notes a moment later, told where somebody keeps or wants them.

The path of a call pays for one tuple at most. Everything else happens in a batch: what is kept is chosen, written and
published, bounded in rate and in number, and what found no room is counted and the count told.

Whether anybody takes spans is learned by sending some: a stream acknowledges a message, and where nobody listens the
server says so at once. Then a member keeps its latest ones and tries again now and then; an observer's lease, or a
stream that is there again, gets them. A caller never waits for an observer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from nats_mesh.clock import Clock
from nats_mesh.core.sampling import Refill, kept
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.span_messages import (
    MAX_BYTES,
    MAX_SPANS,
    Span,
    SpanMessage,
    SpanWish,
    decode_span_wish,
    encode_spans,
)
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.headers import server_status
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["BATCH_S", "BURST", "KEPT", "RATE_PER_S", "Export", "Notes", "Tracing"]

log = logging.getLogger("nats_mesh.telemetry")

#: How long calls are collected for one batch (seconds), and how many of each side it may have.
BATCH_S: Final = 0.25
MAX_NOTES: Final = 2048
#: How many spans a second one member tells of in the long run, and at once.
RATE_PER_S: Final = 500.0
BURST: Final = 1000.0
#: How many of its latest spans a member keeps while nobody takes them.
KEPT: Final = 512
#: How long to leave it where nobody takes them, and for how long a stream that took some is believed to take more.
_TRY_S: Final = 10.0
_TAKEN_S: Final = 30.0
_KIND: Final = "span"
_DESTINATION: Final = "spans"
_NO_RESPONDERS: Final = 503

N = TypeVar("N", bound=tuple[Any, ...])
#: Takes the spans of a batch, beside the bus; must be quick and must not raise.
Export = Callable[[Sequence[Span]], None]


class Notes(Generic[N]):
    """Calls that have ended and shall leave spans. ``read`` makes them of a note, once it is its turn; a note is a
    tuple as :func:`~nats_mesh.core.sampling.kept` wants it."""

    __slots__ = ("_begin", "below", "dropped", "notes", "read")

    def __init__(self, read: Callable[[N, float], list[Span]], begin: Callable[[], None]) -> None:
        self.read = read
        self.notes: list[N] = []
        #: Calls that were not noted, or found no room.
        self.dropped = 0
        #: Where there were more than fit lately: of what may be left out, only traces below these digits are noted.
        self.below = ""
        self._begin = begin

    def add(self, note: N) -> None:
        """One more call, on its own path."""
        notes = self.notes
        if not notes:
            self._begin()
        elif len(notes) >= MAX_NOTES:
            self.dropped += 1
            return
        notes.append(note)


class Tracing:
    """Tells of the spans of one member: a service's instance, or a client.

    ``boost`` is called with the share of traces that observers want sampled, whenever that changes. ``failed`` counts
    calls that could not be told of for a defect in what tells of them. Every method belongs to the event loop's thread.
    """

    def __init__(
        self,
        *,
        member: str,
        instance: str,
        version: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        wants: Wants | None,
        clock: Clock,
        boost: Callable[[float], None],
        export: Export | None = None,
    ) -> None:
        self.failed = 0
        self.dropped = 0
        self._member = member
        self._instance = instance
        self._version = version
        self._namespace = subjects.namespace
        self._subject = subjects.telemetry(_KIND, member, instance)
        self._transport = transport
        self._mux = mux
        self._wants = wants
        self._clock = clock
        self._now = clock.monotonic
        self._boost = boost
        self._export = export
        self._sides: list[Notes[Any]] = []
        self._refill = Refill(RATE_PER_S, BURST, self._now())
        self._spans: deque[Span] = deque()
        #: What was sent without knowing whether anybody takes it.
        self._tried: tuple[Span, ...] = ()
        self._taken_until = 0.0
        self._try_at = 0.0
        self._seq = 0
        #: The share of traces that it makes sense to sample at all: more would find no room. Told to ``on_share``.
        self.share = 1.0
        self.on_share: Callable[[float], None] | None = None
        self._wishes: dict[str, tuple[float, SpanWish]] = {}
        self._sampling = 0.0
        self._timer: Timer | None = None
        self._end: Timer | None = None
        self._closed = False
        if wants is not None:
            wants.on(_KIND, self._on_want, wish=self._on_wish)

    def side(self, read: Callable[[N, float], list[Span]]) -> Notes[N]:
        """Where calls of one side are noted. ``read`` gets a note, and what the wall clock says more than the monotonic
        one (seconds)."""
        notes = Notes(read, self._begin)
        self._sides.append(notes)
        return notes

    # -- batches ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = call_later(BATCH_S, self._batch)

    def _batch(self) -> None:
        self._timer = None
        made = self._make()
        if made:
            if self._export is not None:
                self._export(made)
            self._spans.extend(made)
        self._publish()
        over = len(self._spans) - KEPT
        for _ in range(over):
            self._spans.popleft()
        if over > 0:
            self.dropped += over

    def _make(self) -> list[Span]:
        """Spans of what was noted, as far as there is room for them."""
        room = self._refill.room(self._now())
        noted = sum([len(side.notes) for side in self._sides])
        wall = self._clock.time() - self._now()
        made: list[Span] = []
        most = 0
        for side in self._sides:
            notes, side.notes = side.notes, []
            chosen = kept(notes, room if noted <= room else room * len(notes) // noted)
            seen = len(notes) + side.dropped
            most = max(most, seen)
            side.below = _below(RATE_PER_S * BATCH_S / seen) if seen > _FEW else ""
            self.dropped += seen - len(chosen)
            side.dropped = 0
            for note in chosen:
                try:
                    made += side.read(note, wall)
                # Whatever is wrong with what tells of a call, the call is over and answered.
                except Exception:
                    self.failed += 1
                    self.dropped += 1
                    if self.failed == 1:
                        log.warning("%s: a call could not be told as a span", self._member, exc_info=True)
        self._refill.take(len(made))
        self._adjust(most)
        return made

    def _adjust(self, seen: int) -> None:
        """After a batch of ``seen`` calls of one side: sample as many traces as there will be room for. What
        is sampled and finds no room has cost all the same."""
        share = min(1.0, self.share * min(2.0, RATE_PER_S * BATCH_S / max(1, seen)))
        if share < self.share and seen <= _FEW:
            return
        if share != self.share:
            self.share = max(_LEAST, share)
            if self.on_share is not None:
                self.on_share(self.share)

    # -- telling ------------------------------------------------------------------------------------

    def _publish(self) -> None:
        now = self._now()
        known = now < self._taken_until or (self._wants is not None and self._wants.wanted(_KIND))
        if not self._spans or self._transport.congested or not self._transport.connected:
            return
        if not known and now < self._try_at:
            return
        self._try_at = now + _TRY_S
        while self._spans:
            spans = tuple(islice(self._spans, MAX_SPANS))
            if not self._send(spans):
                return
            for _ in spans:
                self._spans.popleft()
            if not known:  # one message is enough to learn it
                self._tried = spans
                return

    def _send(self, spans: tuple[Span, ...]) -> bool:
        dropped, self.dropped = self.dropped, 0
        self._seq += 1
        message = SpanMessage(
            instance=self._instance,
            service=self._member,
            version=self._version,
            namespace=self._namespace,
            seq=self._seq,
            dropped=dropped,
            spans=spans,
        )
        try:
            for body in encode_spans(message, min(MAX_BYTES, self._transport.max_payload)):
                reply = self._mux.one_way(_DESTINATION, self._on_answer)
                self._transport.publish(self._subject, body, reply)
        except CallError:
            self.dropped += dropped
            return False
        return True

    def _on_answer(self, headers: bytes, payload: bytes) -> None:
        """A stream took a message, or nobody was there for it."""
        tried, self._tried = self._tried, ()
        if server_status(headers) != _NO_RESPONDERS:
            self._taken_until = self._now() + _TAKEN_S
            if self._spans:
                self._begin()
            return
        self._taken_until = 0.0
        self._spans.extendleft(reversed(tried[max(0, len(tried) + len(self._spans) - KEPT) :]))

    # -- what is wanted -----------------------------------------------------------------------------

    def _on_wish(self, observer: str, body: bytes) -> bool:
        try:
            wish = decode_span_wish(body)
        except CodecError:
            return False
        self._forget()
        if observer in self._wishes or len(self._wishes) < _MAX_OBSERVERS:
            self._wishes[observer] = self._now() + LEASE_S, wish
        self._settle()
        return True

    def _on_want(self, reply: str) -> None:
        self._tried = ()
        if self._timer is not None:
            self._timer.cancel()
        self._batch()

    def _forget(self) -> None:
        now = self._now()
        self._wishes = {name: held for name, held in self._wishes.items() if held[0] > now}

    def _settle(self) -> None:
        """What all observers together want sampled; looked at again when their leases end."""
        sampling = max([wish.sampling for _, wish in self._wishes.values()], default=0.0)
        if sampling != self._sampling:
            self._sampling = sampling
            self._boost(sampling)
        if sampling and self._end is None:
            self._end = call_later(LEASE_S, self._look)

    def _look(self) -> None:
        self._end = None
        self._forget()
        self._settle()

    def close(self) -> None:
        """Tell what there is, where somebody takes it, and nothing any more."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._timer, self._end):
            if timer is not None:
                timer.cancel()
        self._end = None
        self._batch()


#: So many calls of a batch are never too many to be noted.
_FEW: Final = int(RATE_PER_S * BATCH_S) * 2
#: The least share of traces that is sampled, however many calls there are.
_LEAST: Final = 0.001


def _below(share: float) -> str:
    """The digits of a trace below which this share of all traces lies; empty: all of them."""
    return "" if share >= 1.0 else f"{int(share * 16**8):08x}"


#: How many observers' wishes are kept one by one; those of whoever comes beyond that change nothing.
_MAX_OBSERVERS: Final = 64
