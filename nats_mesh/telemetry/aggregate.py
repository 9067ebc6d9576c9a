"""Statistics of many instances put together by an observer: totals that are exact, and the last seconds.

Pure: messages and the monotonic time go in, rows come out. Totals are the latest cumulative numbers of
every instance ever heard, so losses and repeats do not matter. The recent past is the difference
between two messages of one series, over the time that its sender measured.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from nats_mesh.core.histogram import BOUNDS
from nats_mesh.errors import ConfigError
from nats_mesh.telemetry.stats import FAILURES, OTHER, SeriesSnapshot, Side, StatsMessage
from nats_mesh.telemetry.tracks import Slot, Sum, Track

__all__ = ["Aggregate", "Figures", "Row"]

#: Silent for so long (seconds), an instance may be folded into the totals of the departed.
_SILENT_S: Final = 60.0
_REMEMBERED: Final = 10
_UPPER: Final = (*BOUNDS, math.inf)


class Figures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Calls counted over some time. ``errors`` are the service's faults; ratio and quantiles (seconds)
    are ``None`` where there was no call. ``buckets`` are the durations: an upper bound in seconds, and how many fell
    under it and above the one before; those without any are left out, and refused calls have no duration."""

    requests: int
    errors: int
    statuses: dict[str, int]
    success: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    p95_s: float | None = None
    buckets: tuple[tuple[float, int], ...] = ()
    sum_s: float = 0.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a table. ``source``, ``endpoint`` and ``version`` are empty where the row spans all of them.

    ``reporter`` says who counted: ``out`` the caller, ``in`` the instances. ``versions`` counts requests
    by the version of the reporting instances, ``recent`` and ``rate_per_s`` cover the last window,
    ``last_error`` is that of any one series in the row.
    """

    source: str
    service: str
    endpoint: str
    version: str
    reporter: Side
    instances: int
    in_flight: int
    rate_per_s: float
    total: Figures
    recent: Figures
    versions: dict[str, int]
    last_error: str


_RowKey = tuple[str, str, str, str]


class _Source:
    __slots__ = ("heard", "seq", "service", "tracks", "version")

    def __init__(self, message: StatsMessage) -> None:
        self.service = message.service
        self.version = message.version
        self.seq = 0
        self.heard = 0.0
        self.tracks: dict[tuple[str, ...], Track] = {}


class _Group:
    __slots__ = ("in_flight", "instances", "last_error", "rate", "recent", "total", "versions")

    def __init__(self) -> None:
        self.total = Sum()
        self.recent = Sum()
        self.rate = 0.0
        self.in_flight = 0
        self.instances: set[tuple[str, str]] = set()
        self.versions: dict[str, int] = {}
        self.last_error = ""

    def add(self, instance: tuple[str, str], track: Track, now: float, window_s: float) -> None:
        latest = track.latest
        self.total.add(latest)
        self._count(track.slot.version, latest.requests)
        self.last_error = latest.last_error or self.last_error
        if now - track.points[-1].heard > window_s:
            return
        self.instances.add(instance)
        self.in_flight += latest.in_flight
        base, elapsed_s = track.recent(now, window_s)
        fresh = Sum()
        fresh.add(latest)
        if base.snapshot is not None:
            fresh.subtract(base.snapshot)
        self.recent.merge(fresh)
        if elapsed_s > 0:
            self.rate += fresh.requests / elapsed_s

    def add_departed(self, version: str, numbers: Sum) -> None:
        self.total.merge(numbers)
        self._count(version, numbers.requests)

    def _count(self, version: str, requests: int) -> None:
        self.versions[version] = self.versions.get(version, 0) + requests


class Aggregate:
    """What an observer knows of the calls of a mesh.

    An instance counts by service and id, and an id stands for one life of a process. Beyond
    ``max_instances`` the longest silent one is folded into the totals of the departed; where none is
    silent the new one is left out. Beyond ``max_series`` new series are left out.

    Counters: ``stale`` messages without news, ``overflowed`` instances' or series' words left out,
    ``late`` words of instances already folded.
    """

    def __init__(
        self, *, window_s: float = 10.0, max_instances: int = 2000, max_series: int = 20_000
    ) -> None:
        if min(max_instances, max_series) < 1 or not window_s > 0:
            raise ConfigError("aggregate: every bound must be at least 1 and window_s above 0")
        self._window_s = window_s
        self._max_instances = max_instances
        self._max_series = max_series
        self._sources: dict[tuple[str, str], _Source] = {}
        self._series = 0
        self._departed: dict[Slot, Sum] = {}
        self._folded: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.stale = 0
        self.overflowed = 0
        self.late = 0

    def apply(self, message: StatsMessage, now: float) -> bool:
        """Take in one message; false where it brought nothing new or found no room."""
        key = (message.service, message.instance)
        if key in self._folded:
            self.late += 1
            return False
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= self._max_instances and not self._fold_one(now):
                self.overflowed += 1
                return False
            source = self._sources[key] = _Source(message)
        # A snapshot may travel in several messages of one number, each with series of its own.
        news = message.seq > source.seq
        if message.seq >= source.seq:
            for snapshot in message.series:
                news |= self._take(source, snapshot, message.seq, now)
        if not news:
            self.stale += 1
            return False
        source.seq = message.seq
        source.heard = now
        return True

    def services(self, now: float) -> list[Row]:
        """One row per service, as its instances count it."""
        return self._rows("in", now, lambda slot: ("", slot.service, "", ""))

    def versions(self, now: float) -> list[Row]:
        """One row per version of each service."""
        return self._rows("in", now, lambda slot: ("", slot.service, "", slot.version))

    def endpoints(self, now: float) -> list[Row]:
        """One row per endpoint of each service."""
        return self._rows("in", now, lambda slot: ("", slot.service, slot.endpoint, ""))

    def edges(self, now: float, *, by_endpoint: bool = False) -> list[Row]:
        """One row per caller and service (and endpoint): what the caller saw, or where it reports nothing,
        what the instances counted for it."""

        def key(slot: Slot) -> _RowKey:
            return (slot.source, slot.service, slot.endpoint if by_endpoint else "", "")

        seen = self._rows("out", now, key)
        told = {(row.source, row.service) for row in seen}
        seen += [row for row in self._rows("in", now, key) if (row.source, row.service) not in told]
        return sorted(seen, key=lambda row: (row.source, row.service, row.endpoint))

    def total(self, side: Side) -> Figures:
        """All calls ever counted on one side."""
        everything = Sum()
        for _, track in self._tracks():
            if track.slot.side == side:
                everything.add(track.latest)
        for slot, numbers in self._departed.items():
            if slot.side == side:
                everything.merge(numbers)
        return _figures(everything)

    def answered(self, service: str, instance: str) -> int:
        """How many calls an instance has answered, as far as it has told."""
        source = self._sources.get((service, instance))
        tracks = [] if source is None else source.tracks.values()
        return sum(track.latest.requests for track in tracks if track.slot.side == "in")

    def __len__(self) -> int:
        return len(self._sources)

    def _tracks(self) -> Iterator[tuple[tuple[str, str], Track]]:
        for key, source in self._sources.items():
            for track in source.tracks.values():
                yield key, track

    def _take(self, source: _Source, snapshot: SeriesSnapshot, seq: int, now: float) -> bool:
        subset = snapshot.subset or ""
        name = (snapshot.side, snapshot.service, snapshot.endpoint, snapshot.peer, subset)
        track = source.tracks.get(name)
        if track is None:
            if self._series >= self._max_series:
                self.overflowed += 1
                return False
            # Whose calls these are is what the subject says, not the body.
            own, other = source.service, snapshot.peer if snapshot.side == "in" else snapshot.service
            ends = (other, own) if snapshot.side == "in" else (own, other)
            track = Track(Slot(snapshot.side, *ends, snapshot.endpoint, source.version))
            source.tracks[name] = track
            self._series += 1
        return track.take(snapshot, seq, now, self._window_s)

    def _rows(self, side: Side, now: float, key: Callable[[Slot], _RowKey]) -> list[Row]:
        groups: dict[_RowKey, _Group] = {}
        for instance, track in self._tracks():
            if track.slot.side == side:
                groups.setdefault(key(track.slot), _Group()).add(instance, track, now, self._window_s)
        for slot, numbers in self._departed.items():
            if slot.side == side:
                groups.setdefault(key(slot), _Group()).add_departed(slot.version, numbers)
        return [
            Row(
                source=source,
                service=service,
                endpoint=endpoint,
                version=version,
                reporter=side,
                instances=len(group.instances),
                in_flight=group.in_flight,
                rate_per_s=group.rate,
                total=_figures(group.total),
                recent=_figures(group.recent),
                versions=dict(sorted(group.versions.items())),
                last_error=group.last_error,
            )
            for (source, service, endpoint, version), group in sorted(groups.items())
        ]

    def _fold_one(self, now: float) -> bool:
        """Make room by adding the longest silent instance to the departed; false where all still speak."""
        key = min(self._sources, key=lambda each: self._sources[each].heard)
        if now - self._sources[key].heard < _SILENT_S:
            return False
        source = self._sources.pop(key)
        for track in source.tracks.values():
            slot = track.slot
            if slot not in self._departed and len(self._departed) >= self._max_series:
                slot = Slot(slot.side, OTHER, OTHER, OTHER, "")
            self._departed.setdefault(slot, Sum()).add(track.latest)
        self._series -= len(source.tracks)
        self._folded[key] = None
        if len(self._folded) > _REMEMBERED * self._max_instances:
            self._folded.popitem(last=False)
        return True


def _figures(numbers: Sum) -> Figures:
    requests = numbers.requests
    errors = sum(count for status, count in numbers.statuses.items() if status in FAILURES)
    quantile = numbers.histogram.quantile
    return Figures(
        requests=requests,
        errors=errors,
        statuses={status: count for status, count in sorted(numbers.statuses.items()) if count},
        success=1.0 - errors / requests if requests else None,
        p50_s=quantile(0.5),
        p90_s=quantile(0.9),
        p99_s=quantile(0.99),
        p95_s=quantile(0.95),
        buckets=tuple(
            (bound, count) for bound, count in zip(_UPPER, numbers.histogram.counts, strict=True) if count
        ),
        sum_s=numbers.histogram.sum_s,
    )
