"""From a call that has ended to what is told of it: read off once it is over, and only while somebody listens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from nats_mesh.clock import Clock, rfc3339
from nats_mesh.core.envelope import hashed_key, kept_headers
from nats_mesh.core.tap_filter import OK, Tappable
from nats_mesh.core.telemetry_rules import TapRules
from nats_mesh.errors import Status
from nats_mesh.layers.arrived import attempt_of, endpoint_of, queued_s, trace_of
from nats_mesh.layers.base import Arrival
from nats_mesh.telemetry.tap_bodies import Bodies
from nats_mesh.telemetry.tap_messages import TapCall
from nats_mesh.telemetry.taps import Shown, Taps
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import JSON, by_content_type

__all__ = ["CallTap"]

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
#: For how many lists of hidden fields what hides them is kept.
_MAX_KINDS: Final = 64


class CallTap:
    """Hands the calls of one instance to ``taps``."""

    def __init__(self, taps: Taps, clock: Clock) -> None:
        self._taps = taps
        self._clock = clock
        #: What shows bodies, by the fields that are hidden in them: few, as they come from policies.
        self._bodies: dict[tuple[str, ...], Bodies] = {}

    def __call__(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, ``took_s`` seconds after it came. Never raises: it stands beside what it tells of."""
        try:
            taps, succeeded = self._taps, call.status is _OK
            if took_s < taps.least_s or (succeeded and taps.only_failed):
                taps.pass_by(endpoint_of(call))
                return
            endpoint = endpoint_of(call)
            status = OK if succeeded else str(Status.UNKNOWN if call.status is None else call.status)

            found: list[Collection[tuple[str, str]]] = []

            def headers() -> Collection[tuple[str, str]]:
                if not found:  # read once, however many observers ask for some
                    rules = taps.rules(endpoint)
                    found.append(() if rules is None else _shown(call, None, rules)[0])
                return found[0]

            ended = Tappable(endpoint, call.caller, call.route, status, took_s, headers)
            # Calls without a trace are sampled by where they are answered, which no two calls have in common.
            shown = taps.see(ended, (trace_of(call.headers) or call.reply) if taps.sampling else "")
            if shown is not None:
                taps.tell(self._described(call, ended, shown))
        except Exception:  # noqa: BLE001 - whatever is wrong with what tells of a call, the call is over and answered
            self._taps.fail()

    def _described(self, call: Arrival, ended: Tappable, shown: Shown) -> TapCall:
        block, took_s = call.headers, ended.duration_s
        kept, cut = _shown(call, self._taps.wish.headers, shown.rules)
        key = h.field(block, h.IDEMPOTENCY_KEY)
        now = self._clock.monotonic()
        sent = answered = None
        if shown.body:
            bodies = self._bodies_of(shown.rules)
            codec = by_content_type(h.content_type(block)) if block else JSON
            sent = bodies.show(call.payload, codec, shown.body)
            answered = bodies.show(call.answered, codec if call.status is _OK else JSON, shown.body)
        return TapCall(
            at=rfc3339(self._clock.time() - (now - call.received)),
            endpoint=ended.endpoint,
            caller=call.caller,
            route=call.route,
            status=ended.status,
            duration_s=_seconds(took_s),
            queue_s=_seconds(queued_s(call, took_s)),
            fault_s=_seconds(call.held_s),
            attempt=attempt_of(block),
            mirror=h.field(block, h.MIRROR) is not None,
            refused="" if call.refused is None else str(call.refused),
            injected=call.injected,
            bytes_in=len(call.payload),
            bytes_out=call.sent,
            trace=trace_of(block),
            key="" if key is None else hashed_key(key),
            headers=kept,
            cut=cut,
            sent=sent,
            answered=answered,
            silent=shown.silent,
        )

    def _bodies_of(self, rules: TapRules) -> Bodies:
        bodies = self._bodies.get(rules.fields)
        if bodies is None:
            if len(self._bodies) >= _MAX_KINDS:
                self._bodies.clear()
            bodies = self._bodies[rules.fields] = Bodies(rules.fields)
        return bodies


def _shown(
    call: Arrival, wanted: Collection[str] | None, rules: TapRules
) -> tuple[tuple[tuple[str, str], ...], bool]:
    return kept_headers(h.user_headers(call.headers).pairs(), wanted, rules.redact)


def _seconds(value: float) -> float:
    """To the microsecond, as the instant of a call is."""
    return max(0.0, round(value, 6))
