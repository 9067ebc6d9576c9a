"""Calls on the bus: told in batches while an observer's lease on ``tap`` runs, nothing otherwise.

While nobody records, no call is asked anything. While somebody does, what is told is bounded in rate and in number, and
what found no room is counted, and the count told. A caller never waits for an observer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from nats_mesh.clock import Clock
from nats_mesh.core.envelope import Envelope, sampled
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.tap_messages import (
    MAX_BYTES,
    MAX_CALLS,
    TapMessage,
    Wish,
    decode_wish,
    encode_tap,
    together,
)
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["BATCH_S", "MAX_OBSERVERS", "Taps"]

log = logging.getLogger("nats_mesh.instance")

#: How long calls are collected for one message (seconds).
BATCH_S: Final = 0.1
#: How many observers' wishes are kept one by one; those of whoever comes beyond that are put together as they come.
#: To turn them away would let anybody who can ask shut out everybody else, and one alone may ask for as much.
MAX_OBSERVERS: Final = 16
#: A burst may be this long at the full rate (seconds).
_BURST_S: Final = 0.5
_KIND: Final = "tap"
#: Whose wish all those beyond the table are; no observer is called so.
_OTHERS: Final = ""


class Taps:
    """Tells of the calls of one instance. ``record`` is called with true once somebody wants to hear of them, and with
    false once nobody does. Every method belongs to the event loop's thread.

    ``failed`` counts calls that could not be told of for a defect in what tells of them.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        version: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        wants: Wants,
        clock: Clock,
        concurrency: Mapping[str, int],
        record: Callable[[bool], None],
    ) -> None:
        self.failed = 0
        #: What all observers together ask for.
        self.wish = Wish()
        self._service = service
        self._instance = instance
        self._version = version
        self._subject = subjects.telemetry(_KIND, service, instance)
        self._namespace = subjects.namespace
        self._transport = transport
        self._mux = mux
        self._wants = wants
        self._now = clock.monotonic
        self._concurrency = dict(concurrency)
        self._record = record
        self._recording = False
        self._wishes: dict[str, tuple[float, Wish]] = {}
        self._calls: list[Envelope] = []
        self._seq = 0
        self._seen = 0
        self._dropped = 0
        self._left = 0.0
        self._filled = 0.0
        self._batch: Timer | None = None
        self._end: Timer | None = None
        wants.on(_KIND, self._on_want, wish=self._on_wish)

    def see(self, trace: str) -> bool:
        """A call of ``trace`` has ended; whether to tell of it, with :meth:`tell`."""
        self._seen += 1
        if self._batch is None:
            self._batch = call_later(BATCH_S, self._send)
        wish = self.wish
        if not sampled(trace, wish.sample):
            return False
        now = self._now()
        most = max(1.0, wish.rate * _BURST_S)
        self._left = min(most, self._left + max(0.0, now - self._filled) * wish.rate)
        self._filled = now
        if self._left < 1.0 or len(self._calls) >= MAX_CALLS:
            self._dropped += 1
            return False
        self._left -= 1.0
        return True

    def tell(self, call: Envelope) -> None:
        """One more call for the next message."""
        self._calls.append(call)

    def fail(self) -> None:
        """A call could not be described; it counts as dropped."""
        self.failed += 1
        self._dropped += 1
        if self.failed == 1:
            log.warning("%s: a call could not be recorded", self._service, exc_info=True)

    def _on_wish(self, observer: str, body: bytes) -> bool:
        """An observer's lease says what it wants; whether that can be."""
        now = self._now()
        self._forget(now)
        try:
            wish = decode_wish(body)
        except CodecError:
            return False
        if observer not in self._wishes and len(self._wishes) >= MAX_OBSERVERS:
            observer = _OTHERS
            if _OTHERS in self._wishes:
                wish = together([self._wishes[_OTHERS][1], wish])
        self._wishes[observer] = now + LEASE_S, wish
        self._settle()
        return True

    def _on_want(self, reply: str) -> None:
        if not self._recording:
            self._recording = True
            self._left = max(1.0, self.wish.rate * _BURST_S)
            self._filled = self._now()
            self._record(True)
        if self._end is None:
            self._end = call_later(LEASE_S, self._look)

    def _look(self) -> None:
        """Whether anybody still listens."""
        self._end = None
        now = self._now()
        self._forget(now)
        if self._wishes and self._wants.wanted(_KIND):
            self._settle()
            last = max(until for until, _ in self._wishes.values())
            self._end = call_later(max(0.01, last - now), self._look)
        else:
            self._stop()

    def _forget(self, now: float) -> None:
        self._wishes = {name: held for name, held in self._wishes.items() if held[0] > now}

    def _settle(self) -> None:
        self.wish = together([wish for _, wish in self._wishes.values()])

    def _stop(self) -> None:
        if self._recording:
            self._recording = False
            self._record(False)
        self._send()

    def _send(self) -> None:
        """Send what was collected; what cannot be sent counts as dropped, and the next message says so."""
        if self._batch is not None:
            self._batch.cancel()
            self._batch = None
        if not self._seen and not self._calls:
            return
        calls, self._calls = tuple(self._calls), []
        seen, dropped = self._seen, self._dropped
        self._seen = self._dropped = 0
        self._seq += 1
        try:
            message = TapMessage(
                instance=self._instance,
                service=self._service,
                version=self._version,
                namespace=self._namespace,
                seq=self._seq,
                seen=seen,
                dropped=dropped,
                sample=self.wish.sample,
                headers=self.wish.headers,
                concurrency={
                    name: self._concurrency[name]
                    for name in {call.endpoint for call in calls}
                    if name in self._concurrency
                },
                calls=calls,
            )
            for body in encode_tap(message, min(MAX_BYTES, self._transport.max_payload)):
                self._transport.publish(self._subject, body, self._mux.one_way("telemetry"))
        except CallError:
            self._seen += seen
            self._dropped += dropped + len(calls)

    def close(self) -> None:
        """Send what there is, and tell of nothing any more."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self._wishes.clear()
        self._stop()
        if self._batch is not None:
            self._batch.cancel()
            self._batch = None
