"""The records of the audit: bytes to records and back, each with its bounds, and which of them are believed.

A record stands on ``audit.<kind>.<writer>.<instance>``. The server vouches for the writer in the subject, so a body
that names another one is refused. That a record came from its writer's own connection and not from JetStream, talked
into it by somebody else, cannot be seen from its reply subject, which a stream does not keep. It is seen from what
JetStream itself adds: an answer to a read has a header that says of which stream it was.
"""

from __future__ import annotations

import datetime
import functools
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, EndpointInfo, Instant, Labels, Name, State, Version
from nats_mesh.errors import CodecError
from nats_mesh.model import is_name
from nats_mesh.wire.codecs import JSON

__all__ = [
    "KINDS",
    "MAX_BYTES",
    "MAX_WITHIN_S",
    "ChangeRecord",
    "DocumentChange",
    "Event",
    "PresenceRecord",
    "Record",
    "RolloutRecord",
    "Stood",
    "TapRecord",
    "Writer",
    "decode_record",
    "encode_record",
    "endpoint_names",
    "writer_of",
]

#: The largest record that is read: the server's own default limit of a message.
MAX_BYTES: Final = 1 << 20
#: The longest promise of a sign of life (seconds).
MAX_WITHIN_S: Final = 1500.0
KINDS: Final = ("policy", "config", "presence", "rollout", "tap")

_MAX_DOCUMENTS: Final = 1000
_MAX_DETAIL: Final = 4096
_NO_CONTROLS: Final = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
_TOKENS: Final = 3
#: Subjects that are remembered, so that each is taken apart once.
_WRITERS: Final = 8192

Line: TypeAlias = Annotated[str, msgspec.Meta(pattern=_NO_CONTROLS, max_length=1024)]
Detail: TypeAlias = Annotated[str, msgspec.Meta(max_length=_MAX_DETAIL)]
Hash: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]*\Z", max_length=64)]
Event: TypeAlias = Literal["join", "sign", "change", "leave"]


class Writer(msgspec.Struct, frozen=True):
    """Who wrote a record, as its subject says."""

    kind: str
    writer: str
    instance: str


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every record says. ``seq`` counts the records on its subject from 1 on, so that what is missing is seen.

    ``at`` is the writer's own clock and for people alone: order and time are the stream's. ``prev`` is kept free for
    the hash of the record before it.
    """

    namespace: Name
    at: Instant
    seq: Count = 0
    prev: Hash = ""
    wire: Literal[1] = 1


class Stood(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stood under a key: exactly the bytes that were stored, as ``text`` or, where they are none, as ``data``.

    ``revision`` is the store's and ``time`` the server's instant of it (empty: not known). ``deleted``: the mark of a
    deletion. ``omitted``: so many bytes that a record cannot have them; ``sha256`` is their hash.
    """

    revision: Count
    time: Annotated[str, msgspec.Meta(pattern=r"\A[0-9TZ:.-]*\Z", max_length=40)] = ""
    text: str | None = None
    data: bytes | None = None
    deleted: bool = False
    omitted: Count = 0
    sha256: Hash = ""

    @property
    def value(self) -> bytes | None:
        """The bytes; ``None`` where it was deleted, or they are not in the record (``omitted``)."""
        if self.text is not None:
            return self.text.encode()
        return self.data


class DocumentChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key of a change: what stood there ``before`` (``None``: nothing ever did) and ``after``."""

    key: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,63}\.[A-Za-z0-9_-]{1,63}\Z")]
    after: Stood
    before: Stood | None = None


class ChangeRecord(_Record, frozen=True, kw_only=True):
    """A change of policies or of a configuration (the kind is the subject's), or a part of one that is large.

    ``who`` is the operator as they call themselves, ``why`` their message. ``epoch`` is the store's. ``change`` is the
    id of the change as the store's history has it.
    """

    who: Line
    why: Line = ""
    change: Line = ""
    epoch: Count = 0
    part: Count = 1
    parts: Count = 1
    documents: Annotated[tuple[DocumentChange, ...], msgspec.Meta(min_length=1, max_length=_MAX_DOCUMENTS)]


class PresenceRecord(_Record, frozen=True, kw_only=True):
    """A sign of an instance: it joined, changed, left, or is simply there (``sign``).

    Each stands for itself and says everything but the names of the endpoints, which are ``None`` in most signs:
    ``endpoints_hash`` tells which they are. The next one comes within ``within_s`` seconds.
    """

    event: Event
    service: Name
    instance: Name
    name: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,160}\Z")]
    version: Version
    started: Instant
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_WITHIN_S)]
    state: State
    labels: Labels = {}
    endpoints: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1024)] | None = None
    endpoints_hash: Hash = ""
    revision: tuple[Count, Count] = (0, 0)


class RolloutRecord(_Record, frozen=True, kw_only=True):
    """A step of a rollout, as far as the audit shows it."""

    kind: Line
    runner: Name
    instance: Name
    service: Name
    rollout: Line = ""
    detail: Detail = ""
    weight: int = 0
    revision: Count = 0


class TapRecord(_Record, frozen=True, kw_only=True):
    """An instance is about to show an observer (``who``) what is sent and answered in calls: of which ``calls``, in
    words, up to so many ``characters`` each, and ``why``, in the observer's own words."""

    who: Line
    why: Line
    service: Name
    instance: Name
    calls: Line = ""
    characters: Count = 0


Record: TypeAlias = ChangeRecord | PresenceRecord | RolloutRecord | TapRecord

_DECODERS: Final = {
    "policy": at_first_use(lambda: JSON.decoder(ChangeRecord)),
    "config": at_first_use(lambda: JSON.decoder(ChangeRecord)),
    "presence": at_first_use(lambda: JSON.decoder(PresenceRecord)),
    "rollout": at_first_use(lambda: JSON.decoder(RolloutRecord)),
    "tap": at_first_use(lambda: JSON.decoder(TapRecord)),
}


def encode_record(record: Record) -> bytes:
    """The bytes of a record."""
    return JSON.encode(record)


@functools.lru_cache(maxsize=_WRITERS)
def writer_of(key: str) -> Writer | None:
    """Who wrote on ``<kind>.<writer>.<instance>``; ``None`` where that is no place for a record."""
    parts = key.split(".")
    if len(parts) != _TOKENS or not all(is_name(part) for part in parts):
        return None
    return Writer(*parts)


def decode_record(data: bytes, *, writer: Writer, namespace: str) -> Record:
    """Read a record, or raise :class:`CodecError` saying why it is not believed.

    A record of a kind that is not known here is such an error, too.
    """
    decode = _DECODERS.get(writer.kind)
    if decode is None:
        raise CodecError(f"a record of kind {writer.kind!r} is not known here")
    if len(data) > MAX_BYTES:
        raise CodecError(f"a record of {len(data)} bytes, at most {MAX_BYTES} are read")
    record: Record = decode(data)
    said = [("namespace", record.namespace, namespace)]
    if isinstance(record, PresenceRecord):
        _check_started(record.started)
        said += [("service", record.service, writer.writer), ("instance", record.instance, writer.instance)]
    elif isinstance(record, TapRecord):
        said += [("service", record.service, writer.writer), ("instance", record.instance, writer.instance)]
    elif isinstance(record, RolloutRecord):
        said += [("runner", record.runner, writer.writer), ("instance", record.instance, writer.instance)]
    for what, claimed, vouched in said:
        if claimed != vouched:
            raise CodecError(f"the record says {what} {claimed!r}, where its subject says {vouched!r}")
    return record


def _check_started(started: str) -> None:
    """An age is made of it, so it must be in some calendar."""
    try:
        datetime.datetime.fromisoformat(started)
    except ValueError:
        raise CodecError(f"started is no instant: {started!r}") from None


def endpoint_names(endpoints: tuple[EndpointInfo, ...]) -> tuple[str, ...]:
    """The names of endpoints, in order."""
    return tuple(sorted(endpoint.name for endpoint in endpoints))
