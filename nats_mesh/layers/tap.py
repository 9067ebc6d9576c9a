"""From a call that has ended to what is told of it: read off once it is over, and only while somebody records."""

from __future__ import annotations

from nats_mesh.clock import Clock, rfc3339
from nats_mesh.core.envelope import Envelope, hashed_key, kept_headers
from nats_mesh.core.trace import parse_traceparent
from nats_mesh.errors import Status
from nats_mesh.layers.base import Arrival
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.taps import Taps
from nats_mesh.wire import headers as h

__all__ = ["CallTap"]


class CallTap:
    """Hands the calls of one instance to ``taps``."""

    def __init__(self, taps: Taps, clock: Clock) -> None:
        self._taps = taps
        self._clock = clock

    def __call__(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, ``took_s`` seconds after it came. Never raises: it stands beside what it tells of."""
        try:
            trace = _trace(call.headers)
            # Calls without a trace are sampled by where they are answered, which no two calls have in common.
            if self._taps.see(trace or call.reply):
                self._taps.tell(self._envelope(call, took_s, trace))
        except Exception:  # noqa: BLE001 - whatever is wrong with what tells of a call, the call is over and answered
            self._taps.fail()

    def _envelope(self, call: Arrival, took_s: float, trace: str) -> Envelope:
        block = call.headers
        kept, cut = kept_headers(h.user_headers(block).pairs(), self._taps.wish.headers)
        key = h.field(block, h.IDEMPOTENCY_KEY)
        now = self._clock.monotonic()
        return Envelope(
            at=rfc3339(self._clock.time() - (now - call.received)),
            endpoint=OTHER if call.kind is None else call.kind.endpoint.name,
            caller=call.caller,
            route=call.route,
            status=str(Status.UNKNOWN if call.status is None else call.status),
            duration_s=_seconds(took_s),
            queue_s=_seconds(call.started - call.received if call.started else took_s),
            attempt=_attempt(block),
            mirror=h.field(block, h.MIRROR) is not None,
            refused="" if call.refused is None else str(call.refused),
            injected=call.injected,
            bytes_in=len(call.payload),
            bytes_out=call.sent,
            trace=trace,
            key="" if key is None else hashed_key(key),
            headers=kept,
            cut=cut,
        )


def _seconds(value: float) -> float:
    """To the microsecond, as the instant of a call is."""
    return max(0.0, round(value, 6))


def _trace(block: bytes) -> str:
    parent = h.field(block, h.TRACEPARENT)
    found = None if parent is None else parse_traceparent(parent.decode("ascii", "replace"))
    return "" if found is None else found.trace_id


def _attempt(block: bytes) -> int:
    try:
        attempt = h.int_field(block, h.ATTEMPT)
    except ValueError:
        return 1
    return 1 if attempt is None else min(max(1, attempt), 2**31)
