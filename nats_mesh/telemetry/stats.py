"""The plain numbers of one Service or Mesh: what it did as an instance and what it saw as a caller.

Counting stands on the path of every call, so it is integers in slots and nothing else; rates, ratios and
quantiles are made by whoever reads. Everything sent to observers is cumulative: a lost message loses
nothing, a repeated one adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.histogram import LAYOUT, HistogramSnapshot
from nats_mesh.core.presence import Count, Name, State, Version
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.telemetry.series import FAILURES, MAX_ERROR, OTHER, Key, Series, Side, errors_in
from nats_mesh.wire.codecs import JSON

__all__ = [
    "FAILURES",
    "MAX_BYTES",
    "MAX_LISTED",
    "OTHER",
    "WHOLE_EVERY",
    "Condition",
    "Ejected",
    "EndpointLoad",
    "EndpointTotals",
    "OpenBreaker",
    "Series",
    "SeriesSnapshot",
    "Side",
    "Stats",
    "StatsMessage",
    "decode_stats",
    "encode_stats",
    "retries_of",
    "snapshot_of",
]

#: The largest body of one message; a snapshot that is larger travels in several.
MAX_BYTES: Final = 512 * 1024
#: The most breakers, and the most ejected instances, that one message names; those beyond are not told.
MAX_LISTED: Final = 256
#: Every so many messages one has all series.
WHOLE_EVERY: Final = 4
_MAX_AGE_S: Final = 1e10

_Age = Annotated[float, msgspec.Meta(ge=0.0, le=_MAX_AGE_S)]
_StatusName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z_]{1,20}\Z")]
_Flags = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{1,8}(,[A-Z]{1,8}){0,3}\Z")]


class SeriesSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A series as it travels; every number counts from the series' first call, ``age_s`` ago.

    ``subset`` is there where a route sent the calls to one: those of one endpoint then stand in several series.
    ``attempts`` is there where they are not as many as the calls, ``retries`` where there were some, by what came
    of them (``success``, ``failure``; ``denied`` for want of budget), ``flags`` where the mesh itself ended calls, by
    why.
    """

    side: Side
    service: Name
    endpoint: Name
    peer: Name
    age_s: _Age
    statuses: Annotated[dict[_StatusName, Count], msgspec.Meta(max_length=32)] = {}
    histogram: HistogramSnapshot = HistogramSnapshot()
    in_flight: Count = 0
    last_error: Annotated[
        str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=MAX_ERROR)
    ] = ""
    subset: Name | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET
    retries: Annotated[dict[_Word, Count], msgspec.Meta(max_length=8)] | UnsetType = UNSET
    flags: Annotated[dict[_Flags, Count], msgspec.Meta(max_length=64)] | UnsetType = UNSET

    @property
    def requests(self) -> int:
        """How many calls finished."""
        return sum(self.statuses.values())

    @property
    def tried(self) -> int:
        """How many attempts they took; as many as there were calls where nobody says."""
        return self.requests if self.attempts is UNSET else self.attempts


def snapshot_of(series: Series, now: float) -> SeriesSnapshot:
    """What observers get of a series at ``now``, an instant of the clock its ``since`` is of."""
    statuses = series.by_status
    retried = series.retried_ok or series.retried_failed or series.retries_denied
    return SeriesSnapshot(
        side=series.side,
        service=series.service,
        endpoint=series.endpoint,
        peer=series.peer,
        age_s=max(0.0, now - series.since),
        statuses=statuses,
        histogram=series.histogram.snapshot(),
        in_flight=max(0, series.in_flight),
        last_error=series.last_error,
        subset=series.subset or UNSET,
        attempts=max(0, sum(statuses.values()) + series.extra) if series.extra else UNSET,
        retries=retries_of(series) if retried else UNSET,
        flags=_by_flags(series) if series.is_flagged else UNSET,
    )


def retries_of(series: Series) -> dict[str, int]:
    """The retries of a series by what came of them."""
    return {
        "success": series.retried_ok,
        "failure": series.retried_failed,
        "denied": series.retries_denied,
    }


def _by_flags(series: Series) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (_, flags), count in series.flagged.items():
        counts[flags] = counts.get(flags, 0) + count
    return counts


class EndpointLoad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How busy one endpoint of an instance is: how many calls it runs at a time at most and now, and how many wait to
    begin."""

    limit: Count = 0
    in_flight: Count = 0
    queue: Count = 0


class OpenBreaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The circuit of a destination that is not CLOSED at this member."""

    service: Name
    endpoint: Name
    subset: Name | UnsetType = UNSET
    state: Literal["OPEN", "HALF_OPEN"]


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

    ``seq`` grows with every snapshot; a large one travels as several messages of one ``seq``, each with
    other series, of which the first has the ``condition``. ``since_s`` is the age of the counters in seconds,
    ``layout`` names the histogram's bounds. Series in which nothing has happened since the last message may be left out
    of every message but each :data:`WHOLE_EVERY`-th.
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
    condition: Condition | UnsetType = UNSET
    layout: Literal[1] = LAYOUT
    wire: Literal[1] = 1


class EndpointTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint over all its peers."""

    requests: int
    errors: int
    busy_s: float
    in_flight: int
    last_error: str


class Stats:
    """All series of one Service or Mesh: one identity, one object.

    Beyond ``max_series`` what is new falls into one series of its side, named :data:`OTHER` throughout;
    ``overflowed`` counts how often that was asked for.
    """

    __slots__ = (
        "_clock",
        "_max_series",
        "_order",
        "_others",
        "_seq",
        "_series",
        "_started",
        "_told",
        "overflowed",
    )

    def __init__(self, *, max_series: int = 1000, clock: Clock = SYSTEM_CLOCK) -> None:
        if max_series < 1:
            raise ConfigError(f"max_series must be at least 1, got {max_series}")
        self._max_series = max_series
        self._clock = clock
        self._started = clock.monotonic()
        self._series: dict[Key, Series] = {}
        self._others: dict[Side, Series] = {}
        self._order = [0]
        self._seq = 0
        #: How every series (which lives as long as this) was when it was told last.
        self._told: dict[int, tuple[int, int, int, int]] = {}
        self.overflowed = 0

    def series(self, side: Side, service: str, endpoint: str, peer: str, subset: str = "") -> Series:
        """The series of a kind of call; keep it where the same kind comes again.

        ``in``: ``service`` is one's own, ``peer`` the caller. ``out``: ``service`` and ``endpoint`` are the
        destination, ``peer`` is one's own name, ``subset`` the one that a route sends the calls to.
        """
        found = self._series.get((side, service, endpoint, peer, subset))
        return found if found is not None else self._add((side, service, endpoint, peer, subset))

    def _add(self, key: Key) -> Series:
        side = key[0]
        if len(self._series) < self._max_series:
            self._series[key] = made = Series(key, self._clock.monotonic(), self._order)
            return made
        self.overflowed += 1
        if side not in self._others:
            self._others[side] = Series((side, OTHER, OTHER, OTHER, ""), self._clock.monotonic(), self._order)
        return self._others[side]

    def __iter__(self) -> Iterator[Series]:
        yield from self._series.values()
        yield from self._others.values()

    def __len__(self) -> int:
        return len(self._series) + len(self._others)

    @property
    def in_flight(self) -> int:
        """Calls that are being answered now."""
        return sum(series.in_flight for series in self if series.side == "in")

    def totals(self, side: Side) -> tuple[int, int]:
        """Calls finished and failed (:data:`FAILURES`) on one side."""
        mine = [series.by_status for series in self if series.side == side]
        return sum(sum(statuses.values()) for statuses in mine), sum(errors_in(statuses) for statuses in mine)

    def by_endpoint(self, side: Side) -> dict[str, EndpointTotals]:
        """The calls of one side by endpoint; those beyond the table stand under :data:`OTHER`."""
        groups: dict[str, list[Series]] = {}
        for series in self:
            if series.side == side:
                groups.setdefault(series.endpoint, []).append(series)
        return {
            endpoint: EndpointTotals(
                requests=sum(each.requests for each in group),
                errors=sum(each.errors for each in group),
                busy_s=sum(each.histogram.sum_ns for each in group) / 1e9,
                in_flight=sum(each.in_flight for each in group),
                last_error=max(group, key=lambda each: each.error_order).last_error,
            )
            for endpoint, group in groups.items()
        }

    def snapshot(
        self,
        *,
        instance: str,
        service: str,
        version: str,
        namespace: str,
        state: State = State.READY,
        condition: Condition | UnsetType = UNSET,
        whole: bool = True,
    ) -> StatsMessage:
        """Everything counted so far, under the next number; where not ``whole``, without the series in which nothing
        has happened since the snapshot before."""
        now = self._clock.monotonic()
        self._seq += 1
        told, self._told = self._told, {}
        series = []
        for each in self:
            mark = each.mark
            self._told[id(each)] = mark
            if whole or told.get(id(each)) != mark:
                series.append(snapshot_of(each, now))
        return StatsMessage(
            instance=instance,
            service=service,
            version=version,
            namespace=namespace,
            seq=self._seq,
            since_s=max(0.0, now - self._started),
            state=state,
            in_flight=max(0, self.in_flight),
            series=tuple(series),
            condition=condition,
        )


def encode_stats(message: StatsMessage) -> list[bytes]:
    """The bodies that carry a snapshot: one, or several where it is larger than :data:`MAX_BYTES`."""
    body = JSON.encode(message)
    if len(body) <= MAX_BYTES or len(message.series) <= 1:
        return [body]
    half = len(message.series) // 2
    first = msgspec.structs.replace(message, series=message.series[:half])
    second = msgspec.structs.replace(message, series=message.series[half:], condition=UNSET)
    return [*encode_stats(first), *encode_stats(second)]


_decode = JSON.decoder(StatsMessage)


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
    for what, said, claimed in (
        ("service", service, message.service),
        ("instance", instance, message.instance),
        ("namespace", namespace, message.namespace),
    ):
        if said is not None and said != claimed:
            raise CodecError(f"statistics: the body says {what} {claimed!r}, its subject says {said!r}")
    for series in message.series:
        own = series.service if series.side == "in" else series.peer
        if own not in (message.service, OTHER):
            raise CodecError(f"statistics: {message.service!r} reports a call of {own!r}")
    return message
