"""Numbers of many series put together as they come.

A word of a series is turned into what is new in it (:mod:`nats_mesh.telemetry.lines`), and that is added wherever
it belongs. So what a view costs depends on how much it shows, and not on how many instances tell of it. Pure;
durations are seconds.

Rejected: to sum up the series whenever somebody looks. It is exact, too,
but with thousands of series it holds up a terminal for a tenth of a second each time. (Edges are summed up then, to
services and endpoints, as far as any of them has changed: there are few of them.)
"""

from __future__ import annotations

import math
from typing import Final

from nats_mesh.core.histogram import BOUNDS, quantile_of
from nats_mesh.errors import Status
from nats_mesh.telemetry.series import FAILURES
from nats_mesh.telemetry.snapshots import Figures

__all__ = ["MICRO", "Tally", "in_order"]

#: Rates are kept in millionths of a call per second: whole numbers add up and go away again without a rest.
MICRO: Final = 1_000_000
_OK: Final = str(Status.OK)
_CANCELLED: Final = "CANCELLED"
_UPPER: Final = (*BOUNDS, math.inf)


class Tally:
    """Counts under addition: calls by status, attempts, flags, and durations by bucket.

    Calls that went well are a number beside the table of all other statuses, which like flags and retries is ``None``
    where there were none: of most words of most series nothing else is made.

    ``rate``, ``tried`` (:data:`MICRO`) and ``in_flight`` are those of now: of calls that are added, by how much they
    change.
    """

    __slots__ = (
        "_figures",
        "attempts",
        "buckets",
        "flags",
        "in_flight",
        "ok",
        "others",
        "rate",
        "retries",
        "sum_ns",
        "tried",
    )

    def __init__(self) -> None:
        #: What :meth:`figures` has made of it, until it changes.
        self._figures: Figures | None = None
        self.ok = 0
        self.others: dict[str, int] | None = None
        self.attempts = 0
        self.retries: dict[str, int] | None = None
        self.flags: dict[str, int] | None = None
        self.buckets: dict[int, int] = {}
        self.sum_ns = 0
        self.rate = 0
        self.tried = 0
        self.in_flight = 0

    def add(self, other: Tally) -> None:
        """Add what ``other`` holds."""
        self.count(other)
        self.sum_ns += other.sum_ns
        if other.buckets:
            mine = self.buckets
            for bucket, count in other.buckets.items():
                mine[bucket] = mine.get(bucket, 0) + count

    def count(self, other: Tally) -> None:
        """As :meth:`add`, without the durations."""
        self._figures = None
        self.ok += other.ok
        self.attempts += other.attempts
        self.rate += other.rate
        self.tried += other.tried
        self.in_flight += other.in_flight
        if other.others is not None:
            self.others = _sum(self.others, other.others)
        if other.flags is not None:
            self.flags = _sum(self.flags, other.flags)
        if other.retries is not None:
            self.retries = _sum(self.retries, other.retries)

    def take_away(self, other: Tally) -> None:
        """Take away the calls and durations that were added; what is left of now stays."""
        self._figures = None
        self.ok -= other.ok
        self.attempts -= other.attempts
        self.sum_ns -= other.sum_ns
        mine = self.buckets
        for bucket, count in other.buckets.items():
            left = mine.get(bucket, 0) - count
            if left:
                mine[bucket] = left
            else:
                mine.pop(bucket, None)
        if other.others is not None:
            self.others = _rest(self.others, other.others)
        if other.flags is not None:
            self.flags = _rest(self.flags, other.flags)
        if other.retries is not None:
            self.retries = _rest(self.retries, other.retries)

    def copy(self) -> Tally:
        """The same numbers in another object."""
        made = Tally()
        made.ok, made.attempts, made.sum_ns = self.ok, self.attempts, self.sum_ns
        made.rate, made.tried, made.in_flight = self.rate, self.tried, self.in_flight
        made.buckets = self.buckets.copy()
        made.others = None if self.others is None else self.others.copy()
        made.flags = None if self.flags is None else self.flags.copy()
        made.retries = None if self.retries is None else self.retries.copy()
        return made

    @property
    def statuses(self) -> dict[str, int]:
        """The calls by how they ended, in a table of their own."""
        if self.others is None:
            return {_OK: self.ok} if self.ok else {}
        return {_OK: self.ok, **self.others} if self.ok else self.others.copy()

    @property
    def requests(self) -> int:
        """How many calls there are."""
        return self.ok if self.others is None else self.ok + sum(self.others.values())

    @property
    def errors(self) -> int:
        """How many of them failed by the service's fault."""
        if self.others is None:
            return 0
        return sum([count for status, count in self.others.items() if status in FAILURES])

    @property
    def answered(self) -> int:
        """How many of them their callers did not give up: whether the others would have gone well nobody knows."""
        requests = self.requests
        return requests if self.others is None else requests - self.others.get(_CANCELLED, 0)

    def figures(self) -> Figures:
        """The same for a table."""
        if self._figures is not None:
            return self._figures
        requests, errors, answered = self.requests, self.errors, self.answered
        pairs = sorted(self.buckets.items())
        p50, p90, p95, p99 = quantile_of(pairs, _SHARES) if pairs else _NO_QUANTILES
        self._figures = made = Figures(
            requests=requests,
            errors=errors,
            statuses=in_order(self.statuses),
            success=1.0 - errors / answered if answered else None,
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


def in_order(counts: dict[str, int] | None) -> dict[str, int]:
    """A copy, sorted by name."""
    if counts is None:
        return {}
    return dict(sorted(counts.items())) if len(counts) > 1 else counts.copy()


def _sum(mine: dict[str, int] | None, theirs: dict[str, int]) -> dict[str, int]:
    """``theirs`` added to ``mine``."""
    if mine is None:
        return theirs.copy()
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count
    return mine


def _rest(mine: dict[str, int] | None, theirs: dict[str, int]) -> dict[str, int] | None:
    """``mine`` without ``theirs``."""
    if mine is None:
        mine = {}
    for key, count in theirs.items():
        left = mine.get(key, 0) - count
        if left:
            mine[key] = left
        else:
            mine.pop(key, None)
    return mine or None
