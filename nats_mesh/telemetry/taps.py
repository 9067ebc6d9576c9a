"""Calls on the bus: told in batches while an observer's lease on ``tap`` runs, nothing otherwise.

While nobody listens, no call is asked anything. While somebody does, what is told is bounded in rate and in number, and
what found no room is counted, and the count told. A caller never waits for an observer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from nats_mesh.clock import Clock
from nats_mesh.core.presence import MAX_ENDPOINTS
from nats_mesh.core.tap_filter import Tappable
from nats_mesh.core.telemetry_rules import TapRules
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.tap_messages import (
    MAX_BYTES,
    MAX_CALLS,
    MAX_OBSERVER,
    MAX_RATE,
    TapCall,
    TapMessage,
    Wish,
    decode_wish,
    encode_tap,
    together,
)
from nats_mesh.telemetry.tap_places import BURST_S, Held, Places
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["BATCH_S", "Shown", "Taps"]

log = logging.getLogger("nats_mesh.instance")

#: How long calls are collected for one message (seconds).
BATCH_S: Final = 0.1
#: What is collected is sent before its time where the bodies in it are more than this (characters).
_MAX_BODIES: Final = 512 * 1024
_KIND: Final = "tap"


class Shown(msgspec.Struct, frozen=True):
    """What to tell of a call: so many characters of its bodies; ``silent``: somebody asked for them, and no policy
    allows it. ``rules`` say what is hidden."""

    rules: TapRules
    body: int = 0
    silent: bool = False


class Taps:
    """Tells of the calls of one instance. ``record`` is called with true once somebody wants to hear of them, and with
    false once nobody does. Every method belongs to the event loop's thread.

    ``witness`` is told before an observer sees the bodies of calls, with its name and its wish; where it returns false
    none are shown. ``failed`` counts calls that could not be told of for a defect in what tells of them.
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
        witness: Callable[[str, Wish], bool],
    ) -> None:
        self.failed = 0
        #: What all observers together ask for; whether any of them asks for a part of the traces alone.
        self.wish = Wish()
        self.sampling = False
        #: What no observer asks for, whoever it is: calls that took less (seconds), and those that went well.
        self.least_s = 0.0
        self.only_failed = False
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
        self._witness = witness
        self._find: Callable[[str], TapRules | None] = _default_rules
        self._rules: dict[str, TapRules | None] = {}
        self._recording = False
        self._wishes = Places()
        self._crowded = False
        self._calls: list[TapCall] = []
        self._bodies = 0
        self._seq = 0
        self._seen = 0
        #: The same by endpoint.
        self._seen_by: Counter[str] = Counter()
        self._dropped = 0
        self._withheld = 0
        #: Of the instance's own bound: how many seconds of its rate are left.
        self._left_s = BURST_S
        self._filled = 0.0
        self._batch: Timer | None = None
        self._end: Timer | None = None
        wants.on(_KIND, self._on_want, wish=self._on_wish)

    def follow(self, find: Callable[[str], TapRules | None]) -> None:
        """Show of an endpoint's calls what ``find`` says of its name; ``None``: nothing."""
        self._find = find
        self._rules.clear()

    def rules(self, endpoint: str) -> TapRules | None:
        """What may be seen of the calls of an endpoint."""
        if endpoint not in self._rules:
            self._rules[endpoint] = self._find(endpoint)
        return self._rules[endpoint]

    def pass_by(self, endpoint: str) -> None:
        """A call of ``endpoint`` has ended that nobody asks for."""
        self._seen += 1
        self._seen_by[endpoint] += 1
        if self._batch is None:
            self._batch = call_later(BATCH_S, self._send)

    def see(self, call: Tappable, trace: str) -> Shown | None:
        """A call of ``trace`` has ended: what to tell of it, with :meth:`tell`; ``None``: nothing."""
        self.pass_by(call.endpoint)
        wanted = [held for held in self._wishes if held.wants(call, trace)]
        if not wanted:
            return None
        rules = self.rules(call.endpoint)
        if rules is None:
            self._withheld += 1
            return None
        now = self._now()
        if len(self._calls) >= MAX_CALLS or not self._room(rules, now):
            self._dropped += 1
            return None
        taken = [held for held in wanted if held.take(now)]
        if not taken:
            self._dropped += 1
            return None
        self._left_s -= _cost_s(rules)
        curious = [held for held in taken if held.wish.body]
        if not curious:
            return Shown(rules)
        if not rules.payloads:
            return Shown(rules, silent=True)
        told = [held.wish.body for held in curious if self._write_down(held)]
        return Shown(rules, body=max(told, default=0), silent=not told)

    def _room(self, rules: TapRules, now: float) -> bool:
        """Whether the instance itself may tell of one more call: one costs more of its time the lower its rate is."""
        cost_s = _cost_s(rules)
        self._left_s = min(max(BURST_S, cost_s), self._left_s + max(0.0, now - self._filled))
        self._filled = now
        return self._left_s >= cost_s

    def _write_down(self, held: Held) -> bool:
        if not held.written:
            held.written = self._witness(held.name, held.wish)
        return held.written

    def tell(self, call: TapCall) -> None:
        """One more call for the next message."""
        self._calls.append(call)
        for body in (call.sent, call.answered):
            if body is not None:
                self._bodies += len(body.text)
        if self._bodies >= _MAX_BODIES:
            self._send()

    def fail(self) -> None:
        """A call could not be described; it counts as dropped."""
        self.failed += 1
        self._dropped += 1
        if self.failed == 1:
            log.warning("%s: a call could not be told of", self._service, exc_info=True)

    def _on_wish(self, observer: str, body: bytes) -> bool:
        """An observer's lease says what it wants; whether that can be."""
        now = self._now()
        self._wishes.forget(now)
        try:
            wish = decode_wish(body)
        except CodecError:
            return False
        if wish.body and not wish.why.strip():
            wish = msgspec.structs.replace(wish, body=0)  # nobody sees bodies without saying why
        self._wishes.put(observer, wish, now + LEASE_S, now)
        self._settle()
        return True

    def _on_want(self, observer: str, reply: str) -> None:
        if not self._recording:
            self._recording = True
            self._left_s, self._filled = BURST_S, self._now()
            self._record(True)
        if self._end is None:
            self._end = call_later(LEASE_S, self._look)

    def _look(self) -> None:
        """Whether anybody still listens."""
        self._end = None
        now = self._now()
        self._wishes.forget(now)
        if self._wishes and self._wants.wanted(_KIND):
            self._settle()
            last = max(held.until for held in self._wishes)
            self._end = call_later(max(0.01, last - now), self._look)
        else:
            self._stop()

    def _settle(self) -> None:
        wishes = [held.wish for held in self._wishes]
        self.wish = together(wishes)
        self.sampling = any(wish.sample < 1.0 for wish in wishes)
        self.least_s = min(wish.only.slow_s for wish in wishes)
        self.only_failed = all(wish.only.failed for wish in wishes)
        crowded = self._wishes.crowded
        if crowded and not self._crowded:
            who = ", ".join(f"{_short(name)} {count}" for name, count in crowded.items())
            log.warning(
                "%s: more observers ask for calls than are told apart; those without a place share one rate. "
                "Who has how many: %s",
                self._service,
                who,
            )
        self._crowded = bool(crowded)

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
        seen, dropped, withheld = self._seen, self._dropped, self._withheld
        seen_by, self._seen_by = self._seen_by, Counter()
        self._seen = self._dropped = self._withheld = self._bodies = 0
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
                seen_by=dict(seen_by) if len(seen_by) <= MAX_ENDPOINTS else UNSET,
                sample=self.wish.sample,
                headers=self.wish.headers,
                concurrency={
                    name: self._concurrency[name]
                    for name in {call.endpoint for call in calls}
                    if name in self._concurrency
                },
                calls=calls,
                filtered=True,
                withheld=withheld,
                crowded={_short(name): count for name, count in self._wishes.crowded.items()},
            )
            for body in encode_tap(message, min(MAX_BYTES, self._transport.max_payload)):
                self._transport.publish(self._subject, body, self._mux.one_way("telemetry"))
        except CallError:
            self._seen += seen
            self._seen_by += seen_by
            self._withheld += withheld
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


def _short(observer: str) -> str:
    """A name as it may be shown: in open mode it is what anybody typed."""
    return one_line(observer, MAX_OBSERVER)


def _default_rules(endpoint: str) -> TapRules:
    return TapRules()


def _cost_s(rules: TapRules) -> float:
    rate = rules.rate_per_s
    return 1.0 / (MAX_RATE if rate is None else min(rate, MAX_RATE))
