"""What an observer keeps of each series: its latest numbers, its last seconds, and sums of many."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from nats_mesh.core.histogram import Histogram
from nats_mesh.telemetry.stats import SeriesSnapshot, Side

__all__ = ["Point", "Slot", "Sum", "Track"]

#: An instance whose last message is older (seconds) is taken to have done nothing since.
_LATE_S: Final = 2.5
_POINTS: Final = 32


class Point(NamedTuple):
    """A series when it was ``age_s`` old; ``heard`` is the observer's instant."""

    age_s: float
    heard: float
    snapshot: SeriesSnapshot | None  # None: before the first call


class Slot(NamedTuple):
    """What a row can be grouped by."""

    side: Side
    source: str
    service: str
    endpoint: str
    version: str


class Track:
    """One series of one instance: its latest numbers, and those of up to a window before."""

    __slots__ = ("points", "seq", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.seq = 0
        self.points: deque[Point] = deque()

    @property
    def latest(self) -> SeriesSnapshot:
        """The series as last heard."""
        snapshot = self.points[-1].snapshot
        assert snapshot is not None  # a track is made together with its first message
        return snapshot

    def take(self, snapshot: SeriesSnapshot, seq: int, now: float, window_s: float) -> bool:
        """Add a message's word; false where it is no news, or counts backwards."""
        points = self.points
        if seq <= self.seq:
            return False
        if points and (snapshot.requests < self.latest.requests or snapshot.age_s < points[-1].age_s):
            return False
        self.seq = seq
        if not points and snapshot.age_s <= window_s:
            points.append(Point(0.0, now - snapshot.age_s, None))
        if len(points) > 1 and snapshot.age_s - points[-2].age_s < window_s / _POINTS:
            points.pop()
        points.append(Point(snapshot.age_s, now, snapshot))
        while len(points) > 2 and points[1].age_s <= snapshot.age_s - window_s:
            points.popleft()
        return True

    def recent(self, now: float, window_s: float) -> tuple[Point, float]:
        """The point that the last window begins at, and how many seconds ago its sender was there."""
        last = self.points[-1]
        lag_s = now - last.heard
        age_now = last.age_s + (lag_s if lag_s > _LATE_S else 0.0)
        base = self.points[0]
        for point in self.points:
            if point.age_s > age_now - window_s:
                break
            base = point
        return base, age_now - base.age_s


class Sum:
    """Numbers under addition."""

    __slots__ = ("histogram", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.histogram = Histogram()

    def add(self, snapshot: SeriesSnapshot) -> None:
        """Add a series."""
        for status, count in snapshot.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.histogram.add(snapshot.histogram)

    def merge(self, other: Sum) -> None:
        """Add another sum."""
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.histogram.merge(other.histogram)

    def subtract(self, snapshot: SeriesSnapshot) -> None:
        """Take away what a series held earlier."""
        for status, count in snapshot.statuses.items():
            self.statuses[status] = max(0, self.statuses.get(status, 0) - count)
        self.histogram.subtract(snapshot.histogram)

    @property
    def requests(self) -> int:
        """How many calls there are."""
        return sum(self.statuses.values())
