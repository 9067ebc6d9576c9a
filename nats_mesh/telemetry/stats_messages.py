"""Statistics as they travel: what a member tells of its calls and of itself, and how it is read.

Everything is cumulative: a lost message loses nothing, a repeated one adds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.buckets import LAYOUT, HistogramSnapshot
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Name, State, Version
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.series import MAX_ERROR, OTHER, Side
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.vouching import check_claims

__all__ = [
    "MAX_BYTES",
    "MAX_LISTED",
    "WHOLE_EVERY",
    "Condition",
    "Ejected",
    "EndpointLoad",
    "OpenBreaker",
    "Outgoing",
    "SeriesRow",
    "SeriesSnapshot",
    "StatsMessage",
    "Told",
    "ToldRow",
    "decode_stats",
    "encode_stats",
]

#: The largest body of one message; a snapshot that is larger travels in several.
MAX_BYTES: Final = 512 * 1024
#: How much one message tells at most, in rows; and how many of these a series that is told as a whole counts for. What
#: an observer does for it must not hold up the keys of a terminal, nor what else waits: one who hears a thousand
#: members gets to breathe between two messages.
_ROWS_PER_MESSAGE: Final = 12
_ROWS_PER_SERIES: Final = 3
#: The most breakers, and the most ejected instances, that one message names; those beyond are not told.
MAX_LISTED: Final = 256
#: Every so many messages one has all series.
WHOLE_EVERY: Final = 8
_MAX_AGE_S: Final = 1e10

_Part = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
_Age = Annotated[float, msgspec.Meta(ge=0.0, le=_MAX_AGE_S)]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z_]{1,20}\Z")]
_Flags = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{1,8}(,[A-Z]{1,8}){0,3}\Z")]


#: What a name or the name of a status is, and an error's text. Patterns in the types would be searched for each series
#: of each message, at three times the cost of all the rest; the same few hundred words come again and again.
_IS_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}").fullmatch
_IS_STATUS: Final = re.compile(r"[A-Z_]{1,40}").fullmatch
_IS_LINE: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{0,{MAX_ERROR}}}").fullmatch
#: Words that were looked at and are in order.
_names: set[str] = set()
_status_names: set[str] = set()
_MAX_KEPT: Final = 20_000


class SeriesSnapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A series as it travels; every number counts from the series' first call, ``age_s`` ago.

    ``service``, ``endpoint`` and ``peer`` are names, which :func:`decode_stats` sees to.

    ``error_age_s`` is how long ago the last error was; left out where there was none, or by who does not know.
    ``subset`` is there where a route sent the calls to one: those of one endpoint then stand in several series.
    ``attempts`` is there where they are not as many as the calls, ``retries`` where there were some, by what came
    of them (``success``, ``failure``; ``denied`` for want of budget), ``flags`` where the mesh itself ended calls, by
    why. By ``number`` rows of later messages mean it; without one, none do.
    """

    side: Side
    service: str
    endpoint: str
    peer: str
    age_s: _Age
    statuses: Annotated[dict[str, Count], msgspec.Meta(max_length=32)] = {}
    histogram: HistogramSnapshot = HistogramSnapshot()
    in_flight: Count = 0
    last_error: str = ""
    error_age_s: _Age | UnsetType = UNSET
    subset: Name | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET
    retries: Annotated[dict[_Word, Count], msgspec.Meta(max_length=8)] | UnsetType = UNSET
    flags: Annotated[dict[_Flags, Count], msgspec.Meta(max_length=64)] | UnsetType = UNSET
    number: Count | UnsetType = UNSET

    @property
    def requests(self) -> int:
        """How many calls finished."""
        return sum(self.statuses.values())

    @property
    def tried(self) -> int:
        """How many attempts they took; as many as there were calls where nobody says."""
        return self.requests if self.attempts is UNSET else self.attempts


class SeriesRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a series has gone on since the message that told it as a whole, where nothing has happened in it but calls
    that went well: how many of these there were ever, how many calls run now, the buckets that have changed since, and
    the sum of all durations."""

    number: Count
    ok: Count
    in_flight: Count
    histogram: HistogramSnapshot


class EndpointLoad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How busy one endpoint of an instance is: how many calls it runs at a time at most and now, and how many wait to
    begin."""

    limit: Count = 0
    in_flight: Count = 0
    queue: Count = 0


class OpenBreaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The circuit of a destination that is not CLOSED at this member. ``retry_after_s`` is in how many seconds an OPEN
    one lets a probe pass; one that is due passes with the next call."""

    service: Name
    endpoint: Name
    subset: Name | UnsetType = UNSET
    state: Literal["OPEN", "HALF_OPEN"]
    retry_after_s: _Age | UnsetType = UNSET


class Ejected(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a service that gets no calls from this member for now."""

    service: Name
    instance: Name


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a member is, beside its calls: what views show and nobody adds up.

    ``kind``: whether it serves (``instance``) or only calls (``client``). ``source``, ``revision`` and ``rejected`` are
    where it stands with its policies, ``rtt_s`` is its way to the server and back.
    """

    kind: Literal["instance", "client"] = "instance"
    name: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{0,160}\Z")] = ""
    source: _Word | Literal[""] = ""
    revision: tuple[Count, Count] = (0, 0)
    rejected: Count = 0
    rtt_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] | None = None
    reconnects: Count = 0
    endpoints: Annotated[dict[Name, EndpointLoad], msgspec.Meta(max_length=1024)] = {}
    breakers: Annotated[tuple[OpenBreaker, ...], msgspec.Meta(max_length=MAX_LISTED)] = ()
    ejected: Annotated[tuple[Ejected, ...], msgspec.Meta(max_length=MAX_LISTED)] = ()


class StatsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance publishes while somebody wants its statistics.

    ``seq`` grows with every snapshot; a large one travels as several messages of one ``seq``, each with other series,
    of which the first has the ``condition``; ``part`` says which of how many it is. ``since_s`` is the age of the
    counters in seconds, ``layout`` names the histogram's bounds. Series in which nothing has happened since the last
    message may be left out of every message but each :data:`WHOLE_EVERY`-th. One that has a ``base`` is not whole:
    ``rows`` go on from what message ``base`` said, which was.
    """

    instance: Name
    service: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    since_s: _Age
    state: State = State.READY
    in_flight: Count = 0
    series: Annotated[tuple[SeriesSnapshot, ...], msgspec.Meta(max_length=4096)] = ()
    base: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] | UnsetType = UNSET
    part: tuple[_Part, _Part] | UnsetType = UNSET
    rows: Annotated[tuple[SeriesRow, ...], msgspec.Meta(max_length=4096)] = ()
    condition: Condition | UnsetType = UNSET
    layout: Literal[1] = LAYOUT
    wire: Literal[1] = 1


class Told(msgspec.Struct, kw_only=True):
    """What a :class:`SeriesSnapshot` is read from, with parts that change."""

    side: Side
    service: str
    endpoint: str
    peer: str
    age_s: float
    statuses: dict[str, int]
    histogram: list[Any]
    in_flight: int
    last_error: str
    error_age_s: float | UnsetType
    subset: str | UnsetType
    attempts: int | UnsetType
    retries: dict[str, int] | UnsetType
    flags: dict[str, int] | UnsetType
    number: int


class ToldRow(msgspec.Struct, array_like=True):
    """What a :class:`SeriesRow` is read from, with parts that change."""

    number: int
    ok: int
    in_flight: int
    histogram: list[Any]


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A :class:`StatsMessage` on its way out, to be encoded before anything else is counted."""

    instance: str
    service: str
    version: str
    namespace: str
    seq: int
    since_s: float
    state: State
    in_flight: int
    series: list[Told]
    base: int | UnsetType
    rows: list[ToldRow] | UnsetType
    condition: Condition | UnsetType
    part: tuple[int, int] | UnsetType = UNSET
    layout: int = LAYOUT
    wire: int = 1


def encode_stats(message: StatsMessage | Outgoing, max_bytes: int = MAX_BYTES) -> list[bytes]:
    """The bodies that carry a snapshot: one, or several where it is larger than ``max_bytes``, or tells of so many
    series that whoever reads it would be held up (12 rows)."""
    weight = _ROWS_PER_MESSAGE
    while True:
        bodies = [JSON.encode(each) for each in _parted(message, weight)]
        if weight == 1 or all(len(body) <= max_bytes for body in bodies):
            return bodies
        weight //= 2


def _parted(message: StatsMessage | Outgoing, weight: int) -> list[StatsMessage | Outgoing]:
    series, rows = message.series, message.rows or ()
    most, found = max(1, weight // _ROWS_PER_SERIES), [(series, rows)]
    if len(series) * _ROWS_PER_SERIES + len(rows) > weight:
        found = [(series[at : at + most], rows[:0]) for at in range(0, len(series), most)]
        found += [(series[:0], rows[at : at + weight]) for at in range(0, len(rows), weight)]
    if len(found) == 1:
        return [message]
    return [
        msgspec.structs.replace(
            message,
            series=some,
            rows=told or UNSET,
            part=(number, len(found)),
            condition=message.condition if number == 1 else UNSET,
        )
        for number, (some, told) in enumerate(found, 1)
    ]


_decode = at_first_use(lambda: JSON.decoder(StatsMessage))


def decode_stats(
    data: bytes,
    *,
    service: str | None = None,
    instance: str | None = None,
    namespace: str | None = None,
) -> StatsMessage:
    """Read a body, or raise :class:`CodecError` saying what is wrong with it.

    The keyword arguments are what the message's subject says. An instance speaks of its own calls
    alone: answered ones must be its service's, made ones its own.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"statistics: {len(data)} bytes, at most {MAX_BYTES} are read")
    message: StatsMessage = _decode(data)
    check_claims("statistics", message, service=service, instance=instance, namespace=namespace)
    if message.part is not UNSET and message.part[0] > message.part[1]:
        raise CodecError(f"statistics: `part` {message.part[0]} of {message.part[1]} is none")
    own = message.service
    for series in message.series:
        if series.service not in _names or series.endpoint not in _names or series.peer not in _names:
            _check("service", _IS_NAME, (series.service,), _names)
            _check("endpoint", _IS_NAME, (series.endpoint,), _names)
            _check("peer", _IS_NAME, (series.peer,), _names)
        for status in series.statuses:
            if status not in _status_names:
                _check("statuses", _IS_STATUS, series.statuses, _status_names)
        if series.last_error:
            _check("last_error", _IS_LINE, (series.last_error,), None)
        of = series.service if series.side == "in" else series.peer
        if of != own and of != OTHER:
            raise CodecError(f"statistics: {own!r} reports a call of {of!r}")
    return message


def _check(
    field: str, allowed: Callable[[str], object], words: Iterable[str], known: set[str] | None
) -> None:
    """Whether words are what they should be; those that are need no second look."""
    for word in words:
        if allowed(word) is None:
            raise CodecError(f"statistics: {word[:80]!r} is not what `{field}` of a series may be")
        if known is not None:
            if len(known) >= _MAX_KEPT:
                known.clear()
            known.add(word)
