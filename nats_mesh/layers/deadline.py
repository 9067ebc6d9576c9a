"""Expired work is refused on arrival: before it is decoded, before it takes a slot."""

from __future__ import annotations

from typing import Final

from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import MAX_TIMEOUT_S
from nats_mesh.core.durations import duration_text
from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival, Refusal
from nats_mesh.wire import headers as h

__all__ = ["DeadlineGate"]

#: Only an inbox ``_INBOX.<caller>.<connection>.<secret>.<n>`` says whose clock ``Mesh-Sent-Ms`` is.
_INBOX_DOTS = 4
_MAX_BEGINNINGS: Final = 256
#: The end of a block from its trace on, where nothing stands behind that.
_TRACE_BEGINS: Final = h.TRACEPARENT + b" "
_TRACE_AT: Final = len(_TRACE_BEGINS)
_TRACE_LENGTH: Final = _TRACE_AT + 55 + 4
_CR: Final = ord("\r")
_LF: Final = ord("\n")


def _is_inbox(reply: str) -> bool:
    return reply.count(".") == _INBOX_DOTS and reply[-1] != "."


class DeadlineGate:
    """Turns the remaining time on the wire, less the age of the message, into a deadline of this process."""

    name = "deadline"
    holds = False
    present = True

    def __init__(self, default_timeout_s: float, gauge: AgeGauge) -> None:
        self.default_timeout_s = default_timeout_s
        self._gauge = gauge
        #: What usual requests began with, up to their trace, and the two times (s, ms) that this says. Calls of one
        #: caller within one millisecond begin alike.
        self._beginnings: dict[bytes, tuple[float, int]] = {}

    def enter(self, call: Arrival) -> Refusal | None:
        headers = call.headers
        # A trace, and nothing behind it, has one length.
        at = len(headers) - _TRACE_LENGTH
        times = self._beginnings.get(headers[:at]) if at > 0 else None
        if times is not None and (
            headers[at : at + _TRACE_AT] != _TRACE_BEGINS
            or headers.find(b"\r\n", at + _TRACE_AT) != len(headers) - 4
            or headers[-1] != _LF
            or headers[-2] != _CR
        ):
            times = None
        if times is not None:
            call.plain = True
            timeout_s = times[0]
            sent_ms: int | None = times[1]
        elif (usual := h.usual_request(headers)) is not None:
            timeout, sent, call.content_type = usual.groups()
            call.plain = True
            timeout_s = int(timeout) / 1000.0
            sent_ms = int(sent)
            if call.content_type is None:
                if len(self._beginnings) >= _MAX_BEGINNINGS:
                    self._beginnings.clear()
                self._beginnings[headers[:at]] = (timeout_s, sent_ms)
        else:
            beginning = h.usual_beginning(headers)
            try:
                if beginning is not None:
                    timeout_ms: int | None = int(beginning[1])
                    sent_ms = int(beginning[2])
                else:
                    timeout_ms = h.int_field(headers, h.TIMEOUT_MS)
                    sent_ms = h.int_field(headers, h.SENT_MS)
                attempt = h.int_field(headers, h.ATTEMPT)
            except ValueError as error:
                return Refusal(Status.INVALID_ARGUMENT, Refused.INVALID, str(error))
            timeout_s = self.default_timeout_s if timeout_ms is None else timeout_ms / 1000.0
            if attempt is not None:
                call.attempt = max(1, attempt)
        if timeout_s > MAX_TIMEOUT_S:
            timeout_s = MAX_TIMEOUT_S
        reply = call.reply
        connection = reply[: reply.rfind(".") + 1]
        if sent_ms is not None and (connection in self._gauge or _is_inbox(reply)):
            age_s = self._gauge.age(connection, sent_ms / 1000.0, call.received, call.stall_s)
        else:
            age_s = call.stall_s
        call.deadline = call.received + timeout_s - age_s
        now = call.started or call.received
        if call.deadline <= now:
            waited = age_s + now - call.received
            had = f"{duration_text(timeout_s)} were left when it was sent"
            return Refusal(
                Status.DEADLINE_EXCEEDED,
                Refused.DEADLINE,
                f"expired on arrival: {had}, it waited {duration_text(waited)}",
            )
        return None

    def leave(self, call: Arrival) -> None:
        """Nothing was taken."""
