"""Numbers of many series put together as they come: all there ever were, the last window, and a minute of history.

A word of a series is turned into what is new in it (:func:`difference`), and that is added wherever it belongs. So what
a view costs depends on how much it shows, and not on how many instances tell of it. Pure; durations are seconds.

Rejected: to sum up the series whenever somebody looks, as :mod:`nats_mesh.telemetry.aggregate` does. It is exact, too,
but with thousands of series it holds up a terminal for a tenth of a second each time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

from nats_mesh.core.histogram import BOUNDS, quantile_of
from nats_mesh.telemetry.aggregate import Figures
from nats_mesh.telemetry.series import FAILURES
from nats_mesh.telemetry.snapshots import Trend
from nats_mesh.telemetry.stats import SeriesSnapshot

__all__ = ["HISTORY_S", "Group", "Tally", "difference"]

#: How far back a trend goes (seconds).
HISTORY_S: Final = 60
_UPPER: Final = (*BOUNDS, math.inf)


class Tally:
    """Counts under addition: calls by status, attempts, flags, and durations by bucket."""

    __slots__ = ("_figures", "attempts", "buckets", "flags", "retries", "statuses", "sum_ns")

    def __init__(self) -> None:
        #: What :meth:`figures` has made of it, until it changes.
        self._figures: Figures | None = None
        self.statuses: dict[str, int] = {}
        self.attempts = 0
        self.retries: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.buckets: dict[int, int] = {}
        self.sum_ns = 0

    def add(self, other: Tally, sign: int = 1) -> None:
        """Add, or with -1 take away, what ``other`` holds."""
        self.count(other, sign)
        _add(self.buckets, other.buckets, sign)
        self.sum_ns += sign * other.sum_ns

    def count(self, other: Tally, sign: int = 1) -> None:
        """As :meth:`add`, without the durations."""
        self._figures = None
        _add(self.statuses, other.statuses, sign)
        if other.flags:
            _add(self.flags, other.flags, sign)
        if other.retries:
            _add(self.retries, other.retries, sign)
        self.attempts += sign * other.attempts

    def copy(self) -> Tally:
        """The same numbers in another object."""
        made = Tally()
        made.statuses, made.flags = self.statuses.copy(), self.flags.copy()
        made.retries, made.buckets = self.retries.copy(), self.buckets.copy()
        made.attempts, made.sum_ns = self.attempts, self.sum_ns
        return made

    @property
    def requests(self) -> int:
        """How many calls there are."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """How many of them failed by the service's fault."""
        return sum([count for status, count in self.statuses.items() if status in FAILURES])

    def figures(self) -> Figures:
        """The same for a table."""
        if self._figures is not None:
            return self._figures
        requests, errors = self.requests, self.errors
        pairs = sorted(self.buckets.items())
        p50, p90, p95, p99 = quantile_of(pairs, (0.5, 0.9, 0.95, 0.99))
        self._figures = made = Figures(
            requests=requests,
            errors=errors,
            statuses=dict(sorted(self.statuses.items())),
            success=1.0 - errors / requests if requests else None,
            p50_s=p50,
            p90_s=p90,
            p95_s=p95,
            p99_s=p99,
            buckets=tuple([(_UPPER[bucket], count) for bucket, count in pairs]),
            sum_s=self.sum_ns / 1e9,
        )
        return made


def _add(mine: dict[Any, int], theirs: dict[Any, int], sign: int) -> None:
    get = mine.get
    if sign > 0:
        for key, count in theirs.items():
            mine[key] = get(key, 0) + count
        return
    for key, count in theirs.items():
        left = get(key, 0) - count
        if left:
            mine[key] = left
        else:
            mine.pop(key, None)


def difference(new: SeriesSnapshot, old: SeriesSnapshot | None) -> Tally:
    """What happened in a series between two of its words; all of ``new`` where there is none before."""
    tally = Tally()
    tally.statuses = dict(new.statuses)
    tally.attempts = new.tried
    tally.flags = dict(new.flags) if new.flags else {}
    tally.retries = dict(new.retries) if new.retries else {}
    tally.buckets = dict(new.histogram.buckets)
    tally.sum_ns = new.histogram.sum_ns
    if old is not None:
        _add(tally.statuses, old.statuses, -1)
        _add(tally.buckets, dict(old.histogram.buckets), -1)
        if old.flags:
            _add(tally.flags, old.flags, -1)
        if old.retries:
            _add(tally.retries, old.retries, -1)
        tally.attempts -= old.tried
        tally.sum_ns -= old.histogram.sum_ns
    return tally


class Group:
    """Some series together."""

    __slots__ = (
        "_cells",
        "_history",
        "_open",
        "_open_second",
        "_own",
        "_trend",
        "_trend_at",
        "total",
        "window",
    )

    def __init__(self) -> None:
        #: Calls that ended, by how; their durations are those of the window alone.
        self.total = Tally()
        self.window = Tally()
        #: The seconds that are in the window: when, and what came in it.
        self._cells: deque[tuple[int, Tally]] = deque()
        #: The seconds of the last minute that had calls: when, how many, success, 99th percentile.
        self._history: deque[tuple[int, int, float | None, float | None]] = deque(maxlen=HISTORY_S + 2)
        self._open: Tally | None = None
        self._open_second = 0
        #: Whether ``_open`` is this group's own: what came alone in its second is one object for all of its groups.
        self._own = False
        self._trend = Trend()
        self._trend_at = -1

    def before(self, tally: Tally) -> None:
        """Calls of before the observer came: they count in the total alone."""
        self.total.count(tally)

    def add(self, tally: Tally, now: float) -> None:
        """Calls that ended in about the last second."""
        self.total.count(tally)
        self.window.add(tally)
        second = int(now)
        if self._open is None or second != self._open_second:
            self._close()
            self._open, self._open_second, self._own = tally, second, False
            self._cells.append((second, tally))
            return
        if not self._own:
            self._open, self._own = self._open.copy(), True
            self._cells[-1] = (second, self._open)
        self._open.add(tally)

    def _close(self) -> None:
        cell = self._open
        if cell is not None:
            requests = cell.requests
            success = 1.0 - cell.errors / requests if requests else None
            (p99,) = quantile_of(sorted(cell.buckets.items()), (0.99,))
            self._history.append((self._open_second, requests, success, p99))
            self._open = None

    def tick(self, now: float, window_s: float) -> None:
        """Let go of what is no longer in the window, and close the second that is over."""
        if self._open is not None and int(now) != self._open_second:
            self._close()
        cells = self._cells
        while cells and cells[0][0] < now - window_s - 1.0:
            self.window.add(cells.popleft()[1], -1)

    def trend(self, now: float) -> Trend:
        """The last minute by seconds, up to the last one that is over."""
        last = int(now) - 1
        if not self._history or last == self._trend_at:
            return self._trend
        first = max(last - HISTORY_S + 1, self._history[0][0])
        size = max(0, last - first + 1)
        rates = [0.0] * size
        success: list[float | None] = [None] * size
        p99: list[float | None] = [None] * size
        for second, requests, share, slowest in self._history:
            if first <= second <= last:
                at = second - first
                rates[at], success[at], p99[at] = float(requests), share, slowest
        self._trend = Trend(rates=tuple(rates), success=tuple(success), p99_s=tuple(p99))
        self._trend_at = last
        return self._trend
