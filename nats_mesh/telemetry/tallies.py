"""Numbers of many series put together as they come.

A word of a series is turned into what is new in it (:mod:`nats_mesh.telemetry.lines`), and that is added wherever
it belongs. So what a view costs depends on how much it shows, and not on how many instances tell of it. Pure;
durations are seconds.

Rejected: to sum up the series whenever somebody looks, as :mod:`nats_mesh.telemetry.aggregate` does. It is exact, too,
but with thousands of series it holds up a terminal for a tenth of a second each time.
"""

from __future__ import annotations

import math
from typing import Any, Final

from nats_mesh.core.histogram import BOUNDS, quantile_of
from nats_mesh.errors import Status
from nats_mesh.telemetry.aggregate import Figures
from nats_mesh.telemetry.series import FAILURES

__all__ = ["MICRO", "Tally", "in_order"]

#: Rates are kept in millionths of a call per second: whole numbers add up and go away again without a rest.
MICRO: Final = 1_000_000
_OK: Final = str(Status.OK)
_UPPER: Final = (*BOUNDS, math.inf)


class Tally:
    """Counts under addition: calls by status, attempts, flags, and durations by bucket.

    ``rate``, ``tried`` (:data:`MICRO`) and ``in_flight`` are those of now: of calls that are added, by how much they
    change.
    """

    __slots__ = (
        "_figures",
        "attempts",
        "buckets",
        "flags",
        "in_flight",
        "rate",
        "retries",
        "statuses",
        "sum_ns",
        "tried",
    )

    def __init__(self) -> None:
        #: What :meth:`figures` has made of it, until it changes.
        self._figures: Figures | None = None
        self.statuses: dict[str, int] = {}
        self.attempts = 0
        self.retries: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.buckets: dict[int, int] = {}
        self.sum_ns = 0
        self.rate = 0
        self.tried = 0
        self.in_flight = 0

    def add(self, other: Tally) -> None:
        """Add what ``other`` holds."""
        self.count(other)
        if other.buckets:
            mine = self.buckets
            for bucket, count in other.buckets.items():
                mine[bucket] = mine.get(bucket, 0) + count
            self.sum_ns += other.sum_ns

    def count(self, other: Tally) -> None:
        """As :meth:`add`, without the durations."""
        if other.statuses:
            self._figures = None
            mine = self.statuses
            for status, count in other.statuses.items():
                mine[status] = mine.get(status, 0) + count
            if other.flags:
                _add(self.flags, other.flags)
        if other.retries:
            _add(self.retries, other.retries)
        self.attempts += other.attempts
        self.rate += other.rate
        self.tried += other.tried
        self.in_flight += other.in_flight

    def take_away(self, other: Tally) -> None:
        """Take away the calls and durations that were added; what is left of now stays."""
        self._figures = None
        _take(self.statuses, other.statuses)
        _take(self.buckets, other.buckets)
        if other.flags:
            _take(self.flags, other.flags)
        if other.retries:
            _take(self.retries, other.retries)
        self.attempts -= other.attempts
        self.sum_ns -= other.sum_ns

    def copy(self) -> Tally:
        """The same numbers in another object."""
        made = Tally()
        made.statuses, made.flags = self.statuses.copy(), self.flags.copy()
        made.retries, made.buckets = self.retries.copy(), self.buckets.copy()
        made.attempts, made.sum_ns = self.attempts, self.sum_ns
        made.rate, made.tried, made.in_flight = self.rate, self.tried, self.in_flight
        return made

    @property
    def requests(self) -> int:
        """How many calls there are."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """How many of them failed by the service's fault."""
        statuses = self.statuses
        if len(statuses) == 1 and _OK in statuses:
            return 0
        return sum([count for status, count in statuses.items() if status in FAILURES])

    def figures(self) -> Figures:
        """The same for a table."""
        if self._figures is not None:
            return self._figures
        requests, errors = self.requests, self.errors
        pairs = sorted(self.buckets.items())
        p50, p90, p95, p99 = quantile_of(pairs, _SHARES) if pairs else _NO_QUANTILES
        self._figures = made = Figures(
            requests=requests,
            errors=errors,
            statuses=in_order(self.statuses),
            success=1.0 - errors / requests if requests else None,
            p50_s=p50,
            p90_s=p90,
            p95_s=p95,
            p99_s=p99,
            buckets=tuple([(_UPPER[bucket], count) for bucket, count in pairs]),
            sum_s=self.sum_ns / 1e9,
        )
        return made


_SHARES: Final = (0.5, 0.9, 0.95, 0.99)
_NO_QUANTILES: Final = (None, None, None, None)


def in_order(counts: dict[str, int]) -> dict[str, int]:
    """A copy, sorted by name."""
    return dict(sorted(counts.items())) if len(counts) > 1 else counts.copy()


def _add(mine: dict[str, int], theirs: dict[str, int]) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count


def _take(mine: dict[Any, int], theirs: dict[Any, int]) -> None:
    for key, count in theirs.items():
        left = mine.get(key, 0) - count
        if left:
            mine[key] = left
        else:
            mine.pop(key, None)
