"""Spans on the bus: what an observer asks for, and what members tell. Pure: bytes to structs and back."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Name, Version
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.span_columns import SpanColumns, spans_of_columns
from nats_mesh.telemetry.span_parts import MAX_SPANS, RecordedSpan, Span
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.vouching import check_claims

__all__ = [
    "MAX_BYTES",
    "UNSAID",
    "Chunk",
    "Dropped",
    "SpanHead",
    "SpanMessage",
    "SpanWish",
    "decode_span_wish",
    "decode_spans",
    "encode_span",
    "encode_spans",
    "let_go",
    "spans_of",
]

#: The largest body that is sent or read.
MAX_BYTES: Final = 512 * 1024
_MAX_WISH: Final = 1024

#: By whatever clock, seconds: what is beyond is no instant.
_Seconds = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


_Reason = Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{1,20}\Z")]


class SpanWish(msgspec.Struct, frozen=True, kw_only=True):
    """What an observer wants, the body of its lease: ``sampling`` is the share of traces to sample while it runs, where
    policies sample fewer. 0: as they are."""

    sampling: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    wire: Literal[1] = 1


#: The reason where a member says none that is known here.
UNSAID: Final = "unsaid"


class Dropped(enum.StrEnum):
    """Why a span is not told: more came than are told in that time, nobody took it and later ones were kept, or there
    is a defect in what tells of it."""

    RATE = "rate"
    UNTAKEN = "untaken"
    DEFECT = "defect"


class SpanHead(msgspec.Struct, frozen=True, kw_only=True):
    """Who tells of spans. ``seq`` counts its messages; ``dropped`` spans were let go since the message before, and
    ``dropped_for`` says how many for which reason."""

    instance: Name
    service: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    dropped: Count = 0
    dropped_for: Annotated[dict[_Reason, Count], msgspec.Meta(max_length=8)] = {}
    #: What its wall clock (since 1970) says more than the clock of its rows, seconds.
    clock_s: _Seconds = 0.0


class SpanMessage(SpanHead, frozen=True, kw_only=True):
    """Spans of one member; those of rows are among them once it is read."""

    spans: Annotated[tuple[Span, ...], msgspec.Meta(max_length=MAX_SPANS)] = ()
    groups: Annotated[tuple[SpanColumns, ...], msgspec.Meta(max_length=MAX_SPANS)] = ()
    wire: Literal[1] = 1


_decode_wish = at_first_use(lambda: JSON.decoder(SpanWish))
_decode_spans = at_first_use(lambda: JSON.decoder(SpanMessage))


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Spans that are told together: how many, and as JSON: spans of their own, or ``rows``."""

    size: int
    body: bytes
    rows: bool


def encode_span(span: Span) -> bytes:
    """A span as its JSON."""
    return JSON.encode(span)


def encode_spans(
    head: SpanHead, spans: Sequence[bytes], groups: Sequence[bytes], max_bytes: int
) -> list[bytes]:
    """The bodies that carry ``spans`` and ``groups``, each as its JSON: one, or several of one ``seq`` where it is
    larger than ``max_bytes``. What was dropped stands in the first."""
    said = JSON.encode(head)[:-1]
    body = b'%b,"wire":1,"spans":[%b],"groups":[%b]}' % (said, b",".join(spans), b",".join(groups))
    if len(body) <= max_bytes or len(spans) + len(groups) <= 1:
        return [body]
    half, of_groups = len(spans) // 2, len(groups) // 2
    if not half and not of_groups:
        half = 1  # one of each
    other = msgspec.structs.replace(head, dropped=0, dropped_for={})
    return encode_spans(head, spans[:half], groups[:of_groups], max_bytes) + encode_spans(
        other, spans[half:], groups[of_groups:], max_bytes
    )


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
    check_claims("spans", message, service=service, instance=instance, namespace=namespace)
    if message.groups:
        spans = [
            *message.spans,
            *[span for group in message.groups for span in spans_of_columns(group, message.clock_s)],
        ]
        if len(spans) > MAX_SPANS:
            raise CodecError(f"spans: {len(spans)} spans in one message, at most {MAX_SPANS} are read")
        message = msgspec.structs.replace(message, spans=tuple(spans), groups=())
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


def let_go(message: SpanMessage) -> dict[str, int]:
    """How many spans its member let go, by the reason. Whatever words members have for that, there are no more reasons
    here than are known, and they come to no more than ``dropped``."""
    found: dict[str, int] = {}
    left = message.dropped
    for reason in Dropped:
        count = min(left, message.dropped_for.get(reason, 0))
        if count:
            found[str(reason)] = count
            left -= count
    if left:
        found[UNSAID] = left
    return found
