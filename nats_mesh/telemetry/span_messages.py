"""Spans on the bus: what an observer asks for, and what members tell. Pure: bytes to structs and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Name, Version
from nats_mesh.core.sampling import Reason
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.notes import Row
from nats_mesh.wire.codecs import JSON

__all__ = [
    "MAX_BYTES",
    "MAX_SPANS",
    "Chunk",
    "RecordedSpan",
    "Span",
    "SpanHead",
    "SpanMessage",
    "SpanWish",
    "decode_span_wish",
    "decode_spans",
    "encode_alike",
    "encode_rows",
    "encode_span",
    "encode_spans",
    "read_rows",
    "spans_of",
]

#: The largest body that is sent or read, and how many spans one message has.
MAX_BYTES: Final = 512 * 1024
MAX_SPANS: Final = 512
#: The longest text of an error, characters.
MAX_ERROR: Final = 200
_MAX_WISH: Final = 1024
_LONGEST_US: Final = 10**13
#: What rows may have in common.
_COMMON: Final = ("kind", "service", "endpoint", "caller", "rules")

_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_Parent = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{0,40}\Z")]
_Maybe = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,63}\Z")]
_Micros = Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_US)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
#: By whatever clock, seconds: what is beyond is no instant.
_Seconds = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
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


class SpanHead(msgspec.Struct, frozen=True, kw_only=True):
    """Who tells of spans. ``seq`` counts its messages; ``dropped`` spans found no room since the message before."""

    instance: Name
    service: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    dropped: Count = 0
    #: What its wall clock (since 1970) says more than the clock of its rows, seconds.
    clock_s: _Seconds = 0.0


class SpanRows(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled calls that went well at their first attempt, of which there is nothing else to say, in short: what they
    have ``alike``, and a row of each (:data:`~nats_mesh.telemetry.notes.Row`)."""

    alike: dict[str, msgspec.Raw]
    rows: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_SPANS)]


class SpanMessage(SpanHead, frozen=True, kw_only=True):
    """Spans of one member; those of rows are among them once it is read."""

    spans: Annotated[tuple[Span, ...], msgspec.Meta(max_length=MAX_SPANS)] = ()
    groups: Annotated[tuple[SpanRows, ...], msgspec.Meta(max_length=MAX_SPANS)] = ()
    wire: Literal[1] = 1


_decode_wish = at_first_use(lambda: JSON.decoder(SpanWish))
_decode_spans = at_first_use(lambda: JSON.decoder(SpanMessage))
_decode_group = at_first_use(lambda: msgspec.json.Decoder(SpanRows).decode)
#: As :data:`Row`, from whoever it may be.
_decode_row = JSON.decoder(tuple[str, str, str, str, _Seconds, _Seconds, _Seconds])
#: What stands in an object as it is was not looked into when that was read.
_decode_any = JSON.decoder(Any)


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Spans that are told together: how many, and as JSON: spans of their own, or ``rows``."""

    size: int
    text: str
    rows: bool


def encode_span(span: Span) -> str:
    """A span as its JSON."""
    return JSON.encode(span).decode()


def encode_alike(span: Span) -> str:
    """What rows have in common, as JSON: whatever ``span`` says that a row does not."""
    return JSON.encode({name: getattr(span, name) for name in _COMMON if getattr(span, name)}).decode()


def encode_rows(alike: str, rows: Sequence[Row]) -> str:
    """Rows with what they have in common, as JSON."""
    return f'{{"alike":{alike},"rows":{JSON.encode(rows).decode()}}}'


def encode_spans(head: SpanHead, spans: Sequence[str], groups: Sequence[str], max_bytes: int) -> list[bytes]:
    """The bodies that carry ``spans`` and ``groups``, each as its JSON: one, or several of one ``seq`` where it is
    larger than ``max_bytes``. What was dropped stands in the first."""
    text = f',"wire":1,"spans":[{",".join(spans)}],"groups":[{",".join(groups)}]}}'
    body = JSON.encode(head)[:-1] + text.encode()
    if len(body) <= max_bytes or len(spans) + len(groups) <= 1:
        return [body]
    half, of_groups = len(spans) // 2, len(groups) // 2
    if not half and not of_groups:
        half = 1  # one of each
    other = msgspec.structs.replace(head, dropped=0)
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
    for what, said, claimed in (
        ("service", service, message.service),
        ("instance", instance, message.instance),
        ("namespace", namespace, message.namespace),
    ):
        if said is not None and said != claimed:
            raise CodecError(f"spans: the body says {what} {claimed!r}, its subject says {said!r}")
    if message.groups:
        spans = [
            *message.spans,
            *[span for group in message.groups for span in _read_rows(group, message.clock_s)],
        ]
        if len(spans) > MAX_SPANS:
            raise CodecError(f"spans: {len(spans)} spans in one message, at most {MAX_SPANS} are read")
        message = msgspec.structs.replace(message, spans=tuple(spans), groups=())
    for span in message.spans:
        own = span.service if span.kind == "server" else span.caller
        if own != message.service:
            raise CodecError(f"spans: {message.service!r} tells of a call of {own!r}")
    return message


def read_rows(text: str, clock_s: float) -> list[Span]:
    """The spans of what :func:`encode_rows` wrote."""
    return _read_rows(_decode_group(text), clock_s)


def _read_rows(group: SpanRows, clock_s: float) -> list[Span]:
    """Its spans. A row whose ids are none is that of a caller who sent no valid ``traceparent``: it has no trace."""
    common = {name: _decode_any(bytes(value)) for name, value in group.alike.items() if name in _COMMON}
    kind = common.get("kind")
    if kind not in ("client", "server"):
        raise CodecError(f"spans: rows of kind {kind!r}")
    spans: list[Span] = []
    for raw in group.rows:
        try:
            ids, other, route, instance, start, served, end = _decode_row(bytes(raw))
        except CodecError as error:
            raise CodecError(f"spans: a row: {error}") from None
        parts = ids.split("-")
        if len(parts) < 2 or parts[0] == "0" * 32 or parts[1] == "0" * 16:
            continue
        own, parent = (parts[1], other) if kind == "client" else (other, parts[1])
        try:
            span = msgspec.convert(
                {
                    **common,
                    "trace": parts[0],
                    "id": own,
                    "parent": parent,
                    "route": route,
                    "instance": instance,
                    "start_us": max(0, round((start + clock_s) * 1e6)),
                    "took_us": max(0, round((end - start) * 1e6)),
                    "queue_us": max(0, round((served - start) * 1e6)),
                },
                Span,
            )
        except msgspec.ValidationError:
            continue
        spans.append(span)
    return spans


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
