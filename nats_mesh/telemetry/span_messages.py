"""Spans on the bus: what an observer asks for, and what members tell. Pure: bytes to structs and back."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from nats_mesh.core.presence import Count, Name, Version
from nats_mesh.core.sampling import Reason
from nats_mesh.errors import CodecError
from nats_mesh.wire.codecs import JSON

__all__ = [
    "MAX_BYTES",
    "MAX_SPANS",
    "RecordedSpan",
    "Span",
    "SpanMessage",
    "SpanWish",
    "decode_span_wish",
    "decode_spans",
    "encode_spans",
    "spans_of",
]

#: The largest body that is sent or read, and how many spans one message has.
MAX_BYTES: Final = 512 * 1024
MAX_SPANS: Final = 512
#: The longest text of an error, characters.
MAX_ERROR: Final = 200
_MAX_WISH: Final = 1024
_LONGEST_US: Final = 10**13

_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_Parent = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{0,40}\Z")]
_Maybe = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,63}\Z")]
_Micros = Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_US)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Line = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=MAX_ERROR)]


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a trace: a call as its caller saw it (``client``), one of several attempts of it (``attempt``), or
    as the instance saw it (``server``).

    ``start_us`` is its wall time (microseconds since 1970, by the clock of whoever tells), ``took_us`` its length.
    ``why`` says why it was kept: the trace is sampled, the call failed, or it was slow. ``service`` and ``endpoint``
    are what was called, ``caller`` who called; ``instance`` is who answered, as the caller learned it. ``attempt``
    counts from 1; of a ``client`` span it is how many were made. ``queue_us`` is how long a call waited at the
    instance, ``refused`` why it was not let in, ``injected`` what an operator did to it. ``flags`` are those of the
    metrics. ``route`` is how it was sent (``all``, a subset, ``direct``, ``plain``), ``rules`` the policies' rules that
    sent it there, ``error`` what its caller was told.
    """

    trace: _TraceId
    id: _SpanId
    kind: Literal["client", "attempt", "server"]
    service: Name
    endpoint: Name
    caller: Name
    start_us: Count
    took_us: _Micros
    status: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")] = "OK"
    parent: _Parent = ""
    why: Reason = "sampled"
    instance: _Maybe = ""
    attempt: _Number = 1
    queue_us: _Micros = 0
    route: _Maybe = "all"
    refused: _Word = ""
    injected: _Word = ""
    flags: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z,]{0,32}\Z")] = ""
    rules: Annotated[tuple[_Line, ...], msgspec.Meta(max_length=8)] = ()
    error: _Line = ""

    @property
    def name(self) -> str:
        """What tools call it."""
        return f"{self.service}/{self.endpoint}"

    @property
    def end_us(self) -> int:
        """When it was over, by the same clock."""
        return self.start_us + self.took_us


class RecordedSpan(Span, frozen=True, kw_only=True, omit_defaults=True):
    """A span, and who told it: a service's instance, or a client by its name and connection."""

    member: Name
    member_instance: Name
    version: Version = "0.0.0"

    @property
    def clock(self) -> tuple[str, str]:
        """Whose clock its instants are of."""
        return self.member, self.member_instance


class SpanWish(msgspec.Struct, frozen=True, kw_only=True):
    """What an observer wants, the body of its lease: ``sampling`` is the share of traces to sample while it runs, where
    policies sample fewer. 0: as they are."""

    sampling: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    wire: Literal[1] = 1


class SpanMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Spans of one member. ``seq`` counts its messages; ``dropped`` spans found no room since the message before."""

    instance: Name
    service: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    dropped: Count = 0
    spans: Annotated[tuple[Span, ...], msgspec.Meta(max_length=MAX_SPANS)] = ()
    wire: Literal[1] = 1


_decode_wish = JSON.decoder(SpanWish)
_decode_spans = JSON.decoder(SpanMessage)


def encode_spans(message: SpanMessage, max_bytes: int) -> list[bytes]:
    """The bodies that carry a message: one, or several of one ``seq`` where it is larger than ``max_bytes``. What was
    dropped stands in the first."""
    body = JSON.encode(message)
    if len(body) <= max_bytes or len(message.spans) <= 1:
        return [body]
    half = len(message.spans) // 2
    first = msgspec.structs.replace(message, spans=message.spans[:half])
    second = msgspec.structs.replace(message, spans=message.spans[half:], dropped=0)
    return encode_spans(first, max_bytes) + encode_spans(second, max_bytes)


def decode_span_wish(data: bytes) -> SpanWish:
    """What an observer wants, or :class:`CodecError`."""
    if not data:
        return SpanWish()
    if len(data) > _MAX_WISH:
        raise CodecError(f"spans: a wish of {len(data)} bytes, at most {_MAX_WISH} are read")
    wish: SpanWish = _decode_wish(data)
    return wish


def decode_spans(
    data: bytes, *, service: str | None = None, instance: str | None = None, namespace: str | None = None
) -> SpanMessage:
    """Read a body, or raise :class:`CodecError`. The keyword arguments are what the message's subject says; a member
    tells of its own calls alone: of those it answered, and of those it made."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"spans: {len(data)} bytes, at most {MAX_BYTES} are read")
    message: SpanMessage = _decode_spans(data)
    for what, said, claimed in (
        ("service", service, message.service),
        ("instance", instance, message.instance),
        ("namespace", namespace, message.namespace),
    ):
        if said is not None and said != claimed:
            raise CodecError(f"spans: the body says {what} {claimed!r}, its subject says {said!r}")
    for span in message.spans:
        own = span.service if span.kind == "server" else span.caller
        if own != message.service:
            raise CodecError(f"spans: {message.service!r} tells of a call of {own!r}")
    return message


def spans_of(message: SpanMessage) -> list[RecordedSpan]:
    """The spans of a message, each with who told it."""
    return [
        RecordedSpan(
            member=message.service,
            member_instance=message.instance,
            version=message.version,
            **{name: getattr(span, name) for name in Span.__struct_fields__},
        )
        for span in message.spans
    ]
