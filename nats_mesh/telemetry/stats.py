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
    "OTHER",
    "EndpointTotals",
    "Series",
    "SeriesSnapshot",
    "Side",
    "Stats",
    "StatsMessage",
    "decode_stats",
    "encode_stats",
    "snapshot_of",
]

#: The largest body of one message; a snapshot that is larger travels in several.
MAX_BYTES: Final = 512 * 1024
_MAX_AGE_S: Final = 1e10

_Age = Annotated[float, msgspec.Meta(ge=0.0, le=_MAX_AGE_S)]
_StatusName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")]


class SeriesSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A series as it travels; every number counts from the series' first call, ``age_s`` ago.

    ``subset`` is there where a route sent the calls to one: those of one endpoint then stand in several series.
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

    @property
    def requests(self) -> int:
        """How many calls finished."""
        return sum(self.statuses.values())


def snapshot_of(series: Series, now: float) -> SeriesSnapshot:
    """What observers get of a series at ``now``, an instant of the clock its ``since`` is of."""
    return SeriesSnapshot(
        side=series.side,
        service=series.service,
        endpoint=series.endpoint,
        peer=series.peer,
        age_s=max(0.0, now - series.since),
        statuses=series.by_status,
        histogram=series.histogram.snapshot(),
        in_flight=max(0, series.in_flight),
        last_error=series.last_error,
        subset=series.subset or UNSET,
    )


class StatsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance publishes while somebody wants its statistics.

    ``seq`` grows with every snapshot; a large one travels as several messages of one ``seq``, each with
    other series. ``since_s`` is the age of the counters in seconds, ``layout`` names the histogram's bounds.
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

    __slots__ = ("_clock", "_max_series", "_order", "_others", "_seq", "_series", "_started", "overflowed")

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
        self, *, instance: str, service: str, version: str, namespace: str, state: State = State.READY
    ) -> StatsMessage:
        """Everything counted so far, under the next number."""
        now = self._clock.monotonic()
        self._seq += 1
        return StatsMessage(
            instance=instance,
            service=service,
            version=version,
            namespace=namespace,
            seq=self._seq,
            since_s=max(0.0, now - self._started),
            state=state,
            in_flight=max(0, self.in_flight),
            series=tuple(snapshot_of(series, now) for series in self),
        )


def encode_stats(message: StatsMessage) -> list[bytes]:
    """The bodies that carry a snapshot: one, or several where it is larger than :data:`MAX_BYTES`."""
    body = JSON.encode(message)
    if len(body) <= MAX_BYTES or len(message.series) <= 1:
        return [body]
    half = len(message.series) // 2
    return [
        part
        for series in (message.series[:half], message.series[half:])
        for part in encode_stats(msgspec.structs.replace(message, series=series))
    ]


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
