"""A latency histogram that costs one bisection to feed and adds up exactly.

Counts and the sum (whole nanoseconds) are integers, so merging in any order gives the same result. The bounds are in
:mod:`nats_mesh.core.buckets`.

Rejected: HDR histograms (finer than anything shown here, at many times the memory and bytes) and
t-digests (smaller errors at the tails, but merging depends on the order and feeding costs far more).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from nats_mesh.core.buckets import BOUNDS, LAYOUT, SIZE, HistogramSnapshot
from nats_mesh.errors import CodecError

__all__ = ["BOUNDS", "LAYOUT", "Histogram", "HistogramSnapshot", "quantile_of"]

_LAST: Final = SIZE - 1
#: So many durations are counted one by one sooner than they are sorted.
_FEW: Final = 4
#: What a quantile answers for a bucket: the geometric middle; at the open ends the bound itself.
_MIDDLES: Final[tuple[float, ...]] = (
    BOUNDS[0],
    *(math.sqrt(low * high) for low, high in pairwise(BOUNDS)),
    BOUNDS[-1],
)


def quantile_of(buckets: Sequence[tuple[int, int]], shares: Sequence[float]) -> list[float | None]:
    """The durations (seconds) that ``shares`` of all do not exceed, both in rising order; ``None`` while empty.

    As :meth:`Histogram.quantile`, for the filled buckets alone and for several shares at once.
    """
    reached = list(accumulate([count for _, count in buckets]))
    if not reached or not reached[-1]:
        return [None] * len(shares)
    total = reached[-1]
    return [_MIDDLES[buckets[bisect_left(reached, max(1, math.ceil(share * total)))][0]] for share in shares]


class Histogram:
    """Durations in seconds. Not thread-safe: it lives on one event loop."""

    __slots__ = ("_filled", "_listed", "_pairs", "_since", "counts", "sum_ns")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * SIZE
        self.sum_ns = 0
        #: The buckets that hold something, in order; ``None``: to be found out. They hardly ever change, and looking
        #: through all buckets for them is most of the work of a snapshot.
        self._filled: list[int] | None = None
        #: What :meth:`pairs` answers, also by bucket; empty where nobody has asked yet, or all have to be put in anew.
        self._listed: list[list[int]] = []
        self._pairs: dict[int, list[int]] = {}
        #: Those that have changed since :meth:`pairs` was asked last.
        self._since: dict[int, list[int]] = {}

    def record(self, seconds: float) -> None:
        """Count one duration: a difference of monotonic readings, so finite and not negative."""
        self.sum_ns += int(seconds * 1e9)
        self._add(bisect_left(BOUNDS, seconds), 1)

    def record_all(self, durations_s: list[float]) -> None:
        """As :meth:`record` for each; may sort the list, so that one bisection serves a whole bucket."""
        if len(durations_s) <= _FEW:
            for seconds in durations_s:
                self.record(seconds)
            return
        durations_s.sort()
        # Exact to the nanosecond; turning each into one costs more than all else here.
        self.sum_ns += int(math.fsum(durations_s) * 1e9)
        at, end = 0, len(durations_s)
        bucket = bisect_left(BOUNDS, durations_s[0])
        while True:
            after = end if bucket == _LAST else bisect_right(durations_s, BOUNDS[bucket], at, end)
            self._add(bucket, after - at)
            if after == end:
                return
            at = after
            bucket += 1  # mostly the next one
            if bucket != _LAST and durations_s[at] > BOUNDS[bucket]:
                bucket = bisect_left(BOUNDS, durations_s[at], bucket + 1)

    def _add(self, bucket: int, count: int) -> None:
        counts, pairs = self.counts, self._pairs
        before = counts[bucket]
        counts[bucket] = before + count
        if not before:
            self._filled = None
        if pairs:
            pair = pairs.get(bucket)
            if pair is None:
                pair = pairs[bucket] = [bucket, 0]
                self._listed = []
            pair[1] = before + count
            self._since[bucket] = pair

    def _forget(self) -> None:
        """Anything may have changed."""
        self._filled = None
        if self._pairs:
            self._pairs = {}

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts)

    @property
    def sum_s(self) -> float:
        """All durations together, in seconds."""
        return self.sum_ns / 1e9

    def copy(self) -> Histogram:
        """The same numbers in another one."""
        made = Histogram()
        made.counts, made.sum_ns = self.counts.copy(), self.sum_ns
        return made

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` holds."""
        self._forget()
        self.counts[:] = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns

    def add(self, snapshot: HistogramSnapshot) -> None:
        """Add what a snapshot holds."""
        self._forget()
        for bucket, count in snapshot.buckets:
            self.counts[bucket] += count
        self.sum_ns += snapshot.sum_ns

    def quantile(self, q: float) -> float | None:
        """The duration in seconds that a share ``q`` (0 … 1) of all does not exceed; ``None`` while empty.

        Within 9.1 % from 50 µs to 120 s; what is longer than 131 s answers 131 s.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, got {q!r}")
        total = self.count
        if total == 0:
            return None
        rank = max(1, math.ceil(q * total))
        for bucket, reached in enumerate(accumulate(self.counts)):
            if reached >= rank:
                return _MIDDLES[bucket]
        raise AssertionError("unreachable: the last running total is the count")

    def at_most(self, seconds: float) -> int:
        """How many durations are at most ``seconds``: exact where that is one of :data:`BOUNDS`, else those
        of the buckets that lie wholly below."""
        return sum(self.counts[: bisect_left(BOUNDS, math.nextafter(seconds, math.inf))])

    def snapshot(self) -> HistogramSnapshot:
        """What travels and what :meth:`from_snapshot` reads."""
        counts = self.counts
        return HistogramSnapshot(tuple([(bucket, counts[bucket]) for bucket in self._order()]), self.sum_ns)

    def pairs(self) -> list[list[int]]:
        """The filled buckets, each with its count, as a snapshot has them. It is this histogram's own list, for who
        passes it on at once: only what has changed since it was asked last is put in anew."""
        if not self._pairs:
            counts = self.counts
            self._pairs = {bucket: [bucket, counts[bucket]] for bucket in self._order()}
            self._listed = list(self._pairs.values())
        elif not self._listed:
            self._listed = [self._pairs[bucket] for bucket in self._order()]
        if self._since:
            self._since = {}
        return self._listed

    def pairs_since(self) -> list[list[int]]:
        """Of :meth:`pairs`, in any order, those that have changed since that was asked last; where they are not known
        any more, all of them."""
        if not self._pairs:
            found = self.pairs()
            self._since = dict(self._pairs)
            return found
        return list(self._since.values())

    def _order(self) -> list[int]:
        """The buckets that hold something, in order."""
        filled = self._filled
        if filled is None:
            filled = self._filled = [bucket for bucket, count in enumerate(self.counts) if count]
        return filled

    @classmethod
    def from_snapshot(cls, snapshot: HistogramSnapshot) -> Histogram:
        """Rebuild a histogram; :class:`CodecError` where a bucket does not exist or a count is no count."""
        histogram = cls()
        for bucket, count in snapshot.buckets:
            if not 0 <= bucket < SIZE or count < 0:
                raise CodecError(
                    f"histogram: bucket {bucket} with {count} entries; buckets are 0 … {SIZE - 1}"
                )
        if snapshot.sum_ns < 0:
            raise CodecError(f"histogram: the sum of {snapshot.sum_ns} ns is negative")
        histogram.add(snapshot)
        return histogram

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self.counts == other.counts and self.sum_ns == other.sum_ns

    __hash__ = None  # type: ignore[assignment]  # it changes, so it cannot be a key

    def __repr__(self) -> str:
        return f"<Histogram {self.count} durations, {self.sum_s:.6f} s>"
