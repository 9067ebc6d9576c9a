"""What a request says beside its value: its header block, and the whole command before it where there is not much."""

from __future__ import annotations

import random
from typing import Final

from nats_mesh.context import Context
from nats_mesh.core.deadline import to_wire_ms
from nats_mesh.core.trace import TraceContext, format_traceparent, parse_traceparent
from nats_mesh.errors import ConfigError
from nats_mesh.model import CONTROL, PRIORITIES, Request
from nats_mesh.wire.codecs import CODECS, JSON, RAW, Codec

__all__ = ["PlainHeads", "plain_value", "request_block", "span_above", "trace_of"]


class PlainHeads:
    """Writes whole commands for requests that have nothing to say but the time, the trace and the codec: what most
    have. The header block is the one that :func:`request_block` makes, in one text with the line before it.

    What calls of one millisecond have in common is written once. Ids of new traces are drawn for several calls at a
    time, because drawing costs the same for one as for many.
    """

    __slots__ = ("_at", "_codec", "_end", "_middle", "_rng", "_sent_ms", "_size", "_timeout_ms", "_drawn")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._timeout_ms = -1
        self._sent_ms = -1
        self._size = -1
        self._codec: Codec | None = None
        self._middle = ""
        self._end = ""
        #: Ids that were drawn (digits: 32 of a trace and 16 of its first span each), and how many digits are used up.
        self._drawn = ""
        self._at = 48 * _DRAWN

    def head(
        self,
        line: str,
        number: int,
        size: int,
        codec: Codec,
        ids: str,
        sampled: bool,
        remaining_s: float,
        now: float,
    ) -> str:
        """``line`` is the target's, ``number`` the reply's, ``size`` the payload's (bytes), ``ids`` of :meth:`ids`."""
        timeout_ms = int(remaining_s * 1000.0) or 1
        sent_ms = int(now * 1000.0)
        if (
            timeout_ms != self._timeout_ms
            or sent_ms != self._sent_ms
            or size != self._size
            or codec is not self._codec
        ):
            self._timeout_ms, self._sent_ms, self._size, self._codec = timeout_ms, sent_ms, size, codec
            times = f"{timeout_ms}\r\nMesh-Sent-Ms: {sent_ms}"
            kind = _PLAIN_KINDS[codec.name]
            length = len(times) + len(kind) + _PLAIN_LENGTH
            self._middle = (
                f" {length} {length + size}\r\nNATS/1.0\r\nMesh-Timeout-Ms: {times}\r\ntraceparent: 00-"
            )
            self._end = f"\r\n{kind}\r\n"
        flags = "-01" if sampled else "-00"
        return f"{line}{number}{self._middle}{ids}{flags}{self._end}"

    def ids(self, trace_id: str = "") -> str:
        """Ids of a span, as they stand in a ``traceparent``: of ``trace_id``, or the first one of a new trace."""
        at = self._at
        if at >= 48 * _DRAWN:
            self._drawn, at = self._rng.randbytes(24 * _DRAWN).hex(), 0
        self._at = end = at + 48
        drawn, middle = self._drawn, at + 32
        return f"{trace_id or drawn[at:middle]}-{drawn[middle:end]}"


#: How many ids of traces are drawn at a time.
_DRAWN: Final = 32
#: How a plain block says its codec.
_PLAIN_KINDS = {
    codec.name: "" if codec is JSON else f"content-type: {codec.content_type}\r\n"
    for codec in CODECS.values()
}
#: The length of a plain block, without its two times.
_PLAIN_LENGTH = len("NATS/1.0\r\nMesh-Timeout-Ms: \r\ntraceparent: 00--00\r\n\r\n") + 32 + 1 + 16


def request_block(
    request: Request,
    parent: Context | None,
    codec: Codec,
    *,
    ids: str,
    sampled: bool,
    remaining_s: float,
    now: float,
    mirror: bool = False,
) -> bytes:
    """The header block of one attempt: time left, our clock, trace, baggage, and the user's own headers.

    ``ids`` and ``sampled`` are the trace's, see :func:`trace_of`. A ``mirror`` has no idempotency key: it is another
    call, and must not answer for the one it is a copy of.
    """
    pairs = request.headers.pairs()
    names = [name.lower() for name, _ in pairs]
    extra = ""
    priority = request.priority
    if parent is not None:
        if (baggage := parent.baggage_header()) and "baggage" not in names:
            extra = f"baggage: {baggage}\r\n"
        if parent.tracestate and "tracestate" not in names and "traceparent" not in names:
            extra += f"tracestate: {CONTROL.sub(' ', parent.tracestate)}\r\n"
        if priority is None and parent.priority != "default":
            priority = parent.priority
    if request.attempt > 1:
        extra += f"Mesh-Attempt: {request.attempt}\r\n"
    if mirror:
        extra += "Mesh-Mirror: true\r\n"
    elif request.idempotency_key is not None:
        extra += f"Mesh-Idempotency-Key: {plain_value('idempotency_key', request.idempotency_key)}\r\n"
    if priority is not None:
        if not isinstance(priority, str) or priority not in PRIORITIES:
            raise ConfigError(f"priority {priority!r}: use one of {', '.join(sorted(PRIORITIES))}")
        extra += f"Mesh-Priority: {priority}\r\n"
    if codec is not JSON and (codec is not RAW or "content-type" not in names):
        extra += f"content-type: {codec.content_type}\r\n"
    for (name, value), lower in zip(pairs, names, strict=True):
        if lower == "content-type":
            if codec is RAW:  # bytes may be anything; what the mesh encoded is what the mesh says
                extra += f"content-type: {value}\r\n"
        elif lower != "traceparent":
            extra += f"{name}: {value}\r\n"
    return (
        f"NATS/1.0\r\nMesh-Timeout-Ms: {to_wire_ms(remaining_s)}\r\nMesh-Sent-Ms: {int(now * 1000)}\r\n"
        f"traceparent: 00-{ids}-{'01' if sampled else '00'}\r\n{extra}\r\n"
    ).encode()


def trace_of(request: Request, parent: Context | None) -> TraceContext | None:
    """The trace a call belongs to: of a header the user gave, or of the call it is made from; ``None``: a new one."""
    known = None
    for name, value in request.headers.pairs():
        if name.lower() == "traceparent":
            known = parse_traceparent(value)
            break
    if known is None and parent is not None:
        known = parse_traceparent(format_traceparent(parent.trace))  # a handler may have set anything there
    return known


def span_above(request: Request, parent: Context | None) -> TraceContext | None:
    """The span that a call is made from: of a header the user gave, or of the call that is being answered."""
    for name, value in () if request.plain else request.headers.pairs():
        if name.lower() == "traceparent" and (known := parse_traceparent(value)) is not None:
            return known
    if parent is None:
        return None
    return TraceContext(parent.trace_id, parent.span_id, parent.trace.sampled)


def plain_value(what: str, value: object) -> str:
    """``value`` where it can stand in a header of the mesh's own; :class:`ConfigError` naming ``what`` else."""
    if (
        not isinstance(value, str)
        or not value
        or len(value) > 256
        or not value.isprintable()
        or not value.isascii()
    ):
        raise ConfigError(f"{what} {value!r}: use 1 to 256 printable ASCII characters")
    return value
