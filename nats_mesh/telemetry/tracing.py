"""Spans on the bus: noted when a call ends, made of notes a moment later, told where somebody keeps or wants them.

The path of a call pays for one tuple at most. Everything else happens in a batch: what is kept is chosen, written and
published, bounded in rate and in number, and what found no room is counted and the count told.

Whether anybody takes spans is learned by sending some: a stream acknowledges a message, and where nobody listens the
server says so at once. Then a member keeps its latest ones and tries again now and then; an observer's lease, or a
stream that is there again, gets them. A caller never waits for an observer.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from nats_mesh.clock import Clock
from nats_mesh.core.refill import Refill
from nats_mesh.core.sampling import kept
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.notes import ROW, Notes, trace_of
from nats_mesh.telemetry.span_columns import encode_columns
from nats_mesh.telemetry.span_messages import (
    MAX_BYTES,
    Chunk,
    Dropped,
    SpanHead,
    SpanWish,
    decode_span_wish,
    encode_span,
    encode_spans,
)
from nats_mesh.telemetry.span_parts import MAX_SPANS, Span
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.headers import NO_RESPONDERS, server_status
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["BATCH_S", "BURST", "KEPT", "RATE_PER_S", "Export", "Tracing"]

log = logging.getLogger("nats_mesh.telemetry")

#: How long calls are collected for one batch (seconds).
BATCH_S: Final = 0.25
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

#: How many rows stand together at most.
_ROWS: Final = 128


#: Takes the chunks of a batch, beside the bus, and what the wall clock says more than that of rows (seconds); must be
#: quick and must not raise.
Export = Callable[[Sequence[Chunk], float], None]


class Tracing:
    """Tells of the spans of one member: a service's instance, or a client.

    ``boost`` is called with the share of traces that observers want sampled, whenever that changes. ``failed`` counts
    calls that could not be told of for a defect in what tells of them, ``lost`` all spans that were let go, by the
    reason. Every method belongs to the event loop's thread.
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
        self.lost: Counter[Dropped] = Counter()
        #: How many of those members were told of.
        self._told: Counter[Dropped] = Counter()
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
        self._sides: list[Notes] = []
        self._refill = Refill(RATE_PER_S, BURST, self._now())
        #: What is told next, and how many spans that is.
        self._chunks: deque[Chunk] = deque()
        self.waiting = 0
        #: What was sent without knowing whether anybody takes it.
        self._tried: list[Chunk] = []
        self._tried_told: Counter[Dropped] = Counter()
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

    def side(
        self, read: Callable[[Any, float], list[Span]], alike: Callable[[Any], bytes], *, server: bool
    ) -> Notes:
        """Where calls of one side are noted; see :class:`~nats_mesh.telemetry.notes.Notes`."""
        notes = Notes(self._begin, read, alike, server=server)
        self._sides.append(notes)
        return notes

    @property
    def dropped(self) -> int:
        """How many spans were let go of which nobody was told yet."""
        return (self.lost - self._told).total()

    def _count(self, reason: Dropped, count: int) -> None:
        if count:
            self.lost[reason] += count

    # -- batches ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = call_later(BATCH_S, self._batch)

    def flush(self) -> None:
        """Tell of what was noted now, and not in a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._batch()

    def _batch(self) -> None:
        self._timer = None
        wall = self._clock.time() - self._now()
        made = self._make(wall)
        if made:
            if self._export is not None:
                self._export(made, wall)
            self._chunks.extend(made)
            self.waiting += sum([chunk.size for chunk in made])
        self._publish(wall)
        self._keep_latest()

    def _keep_latest(self) -> None:
        while self.waiting > KEPT:
            over = self._chunks.popleft()
            self.waiting -= over.size
            self.lost[Dropped.UNTAKEN] += over.size

    def _make(self, wall: float) -> list[Chunk]:
        """Spans of what was noted, as far as there is room for them."""
        room = self._refill.room(self._now())
        noted = sum([len(side.notes) + side.count for side in self._sides])
        made: list[Chunk] = []
        most = told = 0
        for side in self._sides:
            notes, rows, count = side.taken()
            seen = len(notes) + count + side.dropped
            if not seen:
                side.below = ""
                continue
            if noted > room:
                notes, rows, count = _kept(notes, rows, room * (len(notes) + count) // noted)
            most = max(most, seen)
            side.below = _below(RATE_PER_S * BATCH_S / seen) if seen > _FEW else ""
            self._count(Dropped.RATE, seen - len(notes) - count)
            side.dropped = 0
            told += len(notes) + count
            for note in notes:
                try:
                    spans = side.read(note, wall)
                    body = b",".join([encode_span(span) for span in spans])
                # Whatever is wrong with what tells of a call, the call is over and answered.
                except Exception:
                    self.failed += 1
                    self.lost[Dropped.DEFECT] += 1
                    if self.failed == 1:
                        log.warning("%s: a call could not be told as a span", self._member, exc_info=True)
                    continue
                if spans:
                    made.append(Chunk(len(spans), body, False))
            for key, alike in rows.items():
                common = side.alike(key)
                for at in range(0, len(alike), _ROWS * ROW):
                    some = alike[at : at + _ROWS * ROW]
                    made.append(
                        Chunk(len(some) // ROW, encode_columns(common, some, server=side.server), True)
                    )
        self._refill.take(told)
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

    def _publish(self, wall: float) -> None:
        now = self._now()
        known = now < self._taken_until or (self._wants is not None and self._wants.wanted(_KIND))
        if not self._chunks or self._transport.congested or not self._transport.connected:
            return
        if not known and now < self._try_at:
            return
        self._try_at = now + _TRY_S
        while self._chunks:
            some, told = self._next(), self._told
            if not self._send(some, wall):
                self._put_back(some)
                return
            if not known:  # one message is enough to learn it
                self._tried, self._tried_told = some, told
                return

    def _next(self) -> list[Chunk]:
        """Take what fits into one message."""
        some: list[Chunk] = []
        count = 0
        while self._chunks and (not some or count + self._chunks[0].size <= MAX_SPANS):
            chunk = self._chunks.popleft()
            some.append(chunk)
            count += chunk.size
        self.waiting -= count
        return some

    def _put_back(self, some: list[Chunk]) -> None:
        self._chunks.extendleft(reversed(some))
        self.waiting += sum([chunk.size for chunk in some])

    def _send(self, some: list[Chunk], wall: float) -> bool:
        untold, before = self.lost - self._told, self._told
        self._told = self.lost.copy()
        self._seq += 1
        head = SpanHead(
            instance=self._instance,
            service=self._member,
            version=self._version,
            namespace=self._namespace,
            seq=self._seq,
            dropped=untold.total(),
            dropped_for={str(reason): count for reason, count in untold.items()},
            clock_s=wall,
        )
        spans = [chunk.body for chunk in some if not chunk.rows]
        groups = [chunk.body for chunk in some if chunk.rows]
        try:
            for body in encode_spans(head, spans, groups, min(MAX_BYTES, self._transport.max_payload)):
                reply = self._mux.one_way(_DESTINATION, self._on_answer)
                self._transport.publish(self._subject, body, reply)
        except CallError:
            self._told = before
            return False
        return True

    def _on_answer(self, headers: bytes, payload: bytes) -> None:
        """A stream took a message, or nobody was there for it."""
        tried, self._tried = self._tried, []
        if server_status(headers) != NO_RESPONDERS:
            self._taken_until = self._now() + _TAKEN_S
            if self._chunks:
                self._begin()
            return
        self._taken_until = 0.0
        if not tried:
            return
        self._told = self._tried_told
        self._put_back(tried)
        self._keep_latest()

    # -- what is wanted -----------------------------------------------------------------------------

    def _on_wish(self, observer: str, body: bytes) -> bool:
        try:
            wish = decode_span_wish(body)
        except CodecError:
            return False
        self._forget()
        until = self._now() + LEASE_S
        if observer not in self._wishes and len(self._wishes) >= _MAX_OBSERVERS:
            # To turn whoever comes last away would let anybody who makes observers up shut out everybody else.
            observer = _OTHERS
            _, before = self._wishes.get(observer, (until, wish))
            wish = max(wish, before, key=lambda each: each.sampling)
        self._wishes[observer] = until, wish
        self._settle()
        return True

    def _on_want(self, observer: str, reply: str) -> None:
        self._tried = []
        self.flush()

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
        if self._end is not None:
            self._end.cancel()
        self._end = None
        self.flush()


#: So many calls of a batch are never too many to be noted.
_FEW: Final = int(RATE_PER_S * BATCH_S) * 2
#: The least share of traces that is sampled, however many calls there are.
_LEAST: Final = 0.001


def _kept(
    notes: list[Any], rows: dict[Any, list[Any]], room: int
) -> tuple[list[Any], dict[Any, list[Any]], int]:
    """What there is room for, and how many rows that is."""
    flat = [(key, at) for key, alike in rows.items() for at in range(0, len(alike), ROW)]
    notes, places = kept(notes, [trace_of(rows[key][at]) for key, at in flat], room)
    found: dict[Any, list[Any]] = {}
    for place in places:
        key, at = flat[place]
        found.setdefault(key, []).extend(rows[key][at : at + ROW])
    return notes, found, len(places)


def _below(share: float) -> str:
    """The digits of a trace below which this share of all traces lies; empty: all of them."""
    return "" if share >= 1.0 else f"{int(share * 16**8):08x}"


#: How many observers' wishes are kept one by one; of those beyond that the largest is kept for all.
_MAX_OBSERVERS: Final = 64
#: Whose wish that is; no observer is called so.
_OTHERS: Final = ""
