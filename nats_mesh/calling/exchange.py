"""The two ends of one attempt at the caller: a request made of bytes, and a value made of a reply."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from nats_mesh.calling.watching import Watching
from nats_mesh.context import Context
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S, to_wire_ms
from nats_mesh.core.hedge import Hedger
from nats_mesh.core.router import Fault
from nats_mesh.core.trace import TraceContext, format_traceparent, parse_traceparent
from nats_mesh.endpoint import Contract
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.layers.balance import Balance
from nats_mesh.layers.breaker import Circuit
from nats_mesh.layers.retry import Retries
from nats_mesh.model import CONTROL, PRIORITIES, Headers, Request
from nats_mesh.policy import OutboundRules
from nats_mesh.policy.scopes import Via
from nats_mesh.telemetry.series import Series
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import AS_IT_IS, CODECS, JSON, RAW, Codec, by_content_type, check_codec

__all__ = [
    "Chooses",
    "Declared",
    "Effects",
    "PlainHeads",
    "Target",
    "UsualReplies",
    "UsualReply",
    "decode_value",
    "encode_value",
    "plain_value",
    "raw_reply_decoder",
    "reply_decoder",
    "request_block",
    "span_above",
    "trace_of",
]


class Declared(NamedTuple):
    """What an endpoint declares of itself."""

    timeout_s: float | None = None
    idempotent: bool | None = None
    #: Whether all its instances know each other's idempotency keys.
    keyed: bool = False


class Chooses(Protocol):
    """Says which target a call goes to, see :mod:`nats_mesh.calling.routing`."""

    def choose(self, headers: Headers) -> Target: ...

    def targets(self) -> Iterator[Target]: ...

    def close(self) -> None: ...


class Effects(NamedTuple):
    """What is done to the calls of a target on their way: a ``fault``, and copies to others, each with its share.
    ``by`` is the rule that says the fault: the scope of its route, and its place there."""

    fault: Fault | None
    mirrors: tuple[tuple[Target, float], ...]
    by: tuple[tuple[str, str], int] | None = None


class Target:
    """Everything about a destination that its calls share."""

    __slots__ = (
        "_decodes", "_encodes", "_raw", "_value_codec", "_value_type", "balance", "cancel", "circuit", "codec",
        "contract", "declared", "effects", "endpoint", "hedger", "hedges", "inbox", "keyed", "label", "learn_at",
        "line", "mesh", "retries", "routing", "rules", "sampling", "series", "service",
        "subject", "subset", "timeout_s", "usual", "via", "watching", "where",
    )  # fmt: skip

    def __init__(
        self,
        service: str,
        endpoint: str,
        subject: str,
        cancel: str,
        series: Series,
        contract: Contract | None,
        inbox: str,
        *,
        subset: str = "",
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.subject = subject
        #: Where to say that nobody waits any more; empty for what is not a mesh service.
        self.cancel = cancel
        self.mesh = bool(cancel)
        #: What people call it.
        self.label = f"{service}.{endpoint}" if service else subject
        #: The selection of the service's instances that calls go to; empty: all of them.
        self.subset = subset
        #: Where errors about a call's own arguments say that they are.
        self.where = f"call to {self.label}"
        self.series = series
        self.contract = contract
        #: What its reply subjects begin with, and the commands that publish requests.
        self.inbox = inbox
        self.line = f"HPUB {subject} {inbox}"
        self.codec = contract.codec if contract is not None else JSON.name
        self.timeout_s = (
            DEFAULT_TIMEOUT_S if contract is None or contract.timeout_s is None else contract.timeout_s
        )
        #: When to ask the service again what it declares (monotonic seconds); never for a known contract.
        self.learn_at = 0.0 if self.mesh and contract is None else math.inf
        #: What the service itself says of the endpoint, once it was asked.
        self.declared = Declared()
        #: What policies say of it, and what that makes of its calls; ``None``: the layer is not in its chain.
        self.rules: OutboundRules | None = None
        self.circuit: Circuit | None = None
        self.retries: Retries | None = None
        self.balance: Balance | None = None
        self.hedger: Hedger | None = None
        self.hedges = 0
        #: Where each call goes, if that is asked of the call; and which rules of routes the calls of this target have
        #: met (``None``: whatever there is), with what these do to them.
        self.routing: Chooses | None = None
        self.via: Via | None = None
        self.effects: Effects | None = None
        self.keyed = False
        #: Who is told of its calls, and the share of the traces which begin with one that are sampled.
        self.watching = Watching()
        self.sampling = 0.0
        #: A request with nothing in it but what all of them share; the client makes it, and copies of it.
        self.usual: Request
        #: The decoder of the last usual reply, and for which type and codec it is.
        self._decodes: tuple[Any, Codec | None] = (msgspec.UNSET, None)
        self._raw: Callable[[bytes], Any] = bytes
        #: The encoder of the last value that did not travel as it is, and for which type and codec it is.
        self._encodes: Callable[[Any], bytes] | None = None
        self._value_type: Any = None
        self._value_codec: Codec = JSON

    def encoded(self, value: Any, name: str) -> tuple[bytes, Codec]:
        """As :func:`encode_value`, which is gone through again only where type or codec are not those of before."""
        codec = self._value_codec
        if self._encodes is not None and type(value) is self._value_type and name == codec.name:
            try:
                return self._encodes(value), codec
            except Exception:  # noqa: BLE001
                pass  # whatever is wrong, the careful way says it
        body, codec = encode_value(self.label, value, name)
        if codec.name == name and not isinstance(value, AS_IT_IS):
            self._encodes, self._value_type, self._value_codec = codec.raw_encode, type(value), codec
        return body, codec

    def usual_value(self, codec: Codec, body: bytes, returns: Any) -> Any:
        """The value of a :class:`UsualReply`; :class:`CodecError` where it does not fit."""
        known, known_codec = self._decodes
        if returns is not known or codec is not known_codec:
            self._raw = raw_reply_decoder(codec, returns)
            self._decodes = (returns, codec)
        try:
            return self._raw(body)
        # Whatever is wrong, the careful decoder says it (or finds that an empty body is a value here).
        except Exception:  # noqa: BLE001
            return reply_decoder(codec, codec is not JSON, returns)(body)


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


def encode_value(label: str, value: Any, name: str) -> tuple[bytes, Codec]:
    """The body and the codec it is in; bytes travel raw, ``None`` as an empty body. :class:`CodecError` else."""
    codec = CODECS.get(name) or check_codec(name)
    if isinstance(value, AS_IT_IS):
        return (b"", codec) if value is None else (bytes(value), RAW)
    try:
        return codec.raw_encode(value), codec
    except Exception:  # noqa: BLE001
        pass  # whatever is wrong, the careful way says it
    try:
        return codec.encode(value), codec
    except CodecError as error:
        raise CodecError(f"{label}: {error}") from error.__cause__


class UsualReply(NamedTuple):
    """What the header block of a usual reply says: success, by whom, in which codec; nothing else."""

    instance: str
    codec: Codec


class UsualReplies:
    """Header blocks that were read once: an instance sends the same one with every usual reply, but for the line at
    its end that says how busy it is.

    Bounded; what says anything beyond :class:`UsualReply` is never kept.
    """

    __slots__ = ("_limit", "known")

    def __init__(self, limit: int = 1024) -> None:
        self.known: dict[bytes, UsualReply] = {}
        self._limit = limit

    def learn(self, block: bytes) -> None:
        """Keep ``block`` if it is a usual one, without what it says of the instance's load."""
        found = _USUAL.fullmatch(block)
        if found is None:
            return
        codec = JSON if found[3] is None else by_content_type(found[3])
        if codec is not None and (found[3] is None) == (codec is JSON):
            if len(self.known) >= self._limit:
                del self.known[next(iter(self.known))]
            self.known[found[1] + h.END] = UsualReply(found[2].decode(), codec)

    def of_busy(self, block: bytes) -> UsualReply | None:
        """What ``block`` says beside ``Mesh-Load`` in its last line; ``None`` where it was never read, or has none."""
        at = block.rfind(h.LOAD)
        if at < 0 or block.find(h.END, at + 2) != len(block) - 4:
            return None
        return self.known.get(block[:at] + _END_OF_BLOCK)


_USUAL = re.compile(
    rb"(NATS/1\.0\r\nMesh-Instance: ([A-Za-z0-9_-]{1,63})\r\n(?:content-type: ([a-z/-]{1,64})\r\n)?)"
    rb"(?:Mesh-Load: [0-9/]{1,31}\r\n)?\r\n"
)
_END_OF_BLOCK = b"\r\n\r\n"


def decode_value(headers: bytes, body: bytes, returns: Any) -> Any:
    """The value of a reply as ``returns``; :class:`CodecError` where it does not fit."""
    content_type = h.content_type(headers) if headers else None
    codec = by_content_type(content_type)
    if codec is None and returns not in (bytes, None, type(None), Any):
        raise CodecError(f"the reply is {content_type!r}, which is no codec of the mesh; use returns=bytes")
    return reply_decoder(codec, content_type is not None, returns)(body)


def reply_decoder(codec: Codec | None, named: bool, returns: Any) -> Callable[[bytes], Any]:
    """From the body of a reply to ``returns``. ``named``: whether the reply says which codec it is in."""
    if returns is bytes or codec is None:
        return _nothing if returns is None or returns is type(None) else bytes
    if returns is None or returns is type(None):
        return _nothing
    decode = codec.decoder(returns)

    def typed(body: bytes) -> Any:
        try:
            return decode(body)
        except CodecError as error:
            raise CodecError(f"the reply does not fit {returns!r}: {error}") from None

    def anything(body: bytes) -> Any:
        if not body and codec is not RAW:  # raw bytes may be none, and are bytes all the same
            return None
        try:
            return decode(body)
        except CodecError as error:
            if codec is JSON and not named:
                return body  # a foreign answer without a content type that is not JSON: handed on as it is
            raise CodecError(f"the reply does not fit {returns!r}: {error}") from None

    return anything if returns is Any else typed


def raw_reply_decoder(codec: Codec, returns: Any) -> Callable[[bytes], Any]:
    """As :func:`reply_decoder`, without its errors and without its care for what is empty."""
    if returns is bytes:
        return bytes
    if returns is None or returns is type(None):
        return _nothing
    return codec.raw_decoder(returns)


def _nothing(body: bytes) -> None:
    """What ``returns=None`` makes of any reply."""
