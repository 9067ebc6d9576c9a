"""Which calls are slow, and where the time of one went.

What is normal for an endpoint is learned from its own calls: the 99th percentile of the last one to two minutes, from
two histograms of which the older is forgotten when the newer is full of time. A call is held against those before it,
so that the first slow one stands out. An endpoint of which fewer than :data:`MIN_CALLS` calls are known is not judged
by its own p99: the slowest of ten is no percentile.

Rejected: a moving average with deviations (latencies are no bell: a normal tail would be called slow for ever), and a
window of single durations, which costs a sort for what the histogram answers within 9 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from nats_mesh.core.histogram import Histogram
from nats_mesh.core.telemetry_rules import SlowRules

__all__ = ["MIN_CALLS", "WINDOW_S", "Slow", "Slowness", "Tail", "stood", "uncovered"]

#: How long calls count at least, and at most twice as long (seconds).
WINDOW_S: Final = 60.0
#: With fewer calls nobody knows what is normal.
MIN_CALLS: Final = 100
#: How many durations are taken together into the histogram, and how many calls the answer may be behind: fewer while
#: there is no answer yet.
_FOLD_AT: Final = 512
_FIRST_AT: Final = 64
_QUANTILE: Final = 0.99


class Slow(NamedTuple):
    """Why a call is slow: it took ``threshold_s`` and more; ``p99_s`` is its endpoint's own, where it is known."""

    threshold_s: float
    p99_s: float | None


class Tail:
    """The 99th percentile of the calls of one endpoint. Instants are monotonic seconds."""

    __slots__ = ("_before", "_began", "_folded", "_now", "_took", "p99_s")

    def __init__(self, now: float) -> None:
        self._now = Histogram()
        self._before = Histogram()
        self._began = self._folded = now
        self._took: list[float] = []
        #: ``None`` while too few calls are known.
        self.p99_s: float | None = None

    @property
    def calls(self) -> int:
        """How many calls are known."""
        return self._before.count + self._now.count + len(self._took)

    def take(self, took_s: float, now: float) -> None:
        """One more call that ran."""
        if now - self._began >= WINDOW_S:
            self._turn(now)
        self._took.append(took_s)
        took = len(self._took)
        if took >= _FOLD_AT or (took >= _FIRST_AT and (self.p99_s is None or now - self._folded >= 1.0)):
            self._fold(now)

    def _turn(self, now: float) -> None:
        """The window is over; what it holds counts for one more, unless that has passed, too."""
        self._now.record_all(self._took)
        self._took = []
        self._before = self._now if now - self._began < 2 * WINDOW_S else Histogram()
        self._now = Histogram()
        self._began = now
        self._fold(now)

    def _fold(self, now: float) -> None:
        self._folded = now
        self._now.record_all(self._took)
        self._took = []
        both = Histogram()
        both.merge(self._before)
        both.merge(self._now)
        self.p99_s = both.quantile(_QUANTILE) if both.count >= MIN_CALLS else None


class Slowness:
    """Looks at the calls of one endpoint under ``rules``."""

    __slots__ = ("rules", "tail")

    def __init__(self, rules: SlowRules, now: float) -> None:
        self.rules = rules
        self.tail = Tail(now)

    @property
    def learning(self) -> int | None:
        """How many calls are known where nothing is slow yet, because it goes by a p99 that so few do not tell;
        ``None``: calls are judged."""
        if self.rules.threshold_s is not None or self.rules.times_p99 is None or self.tail.p99_s is not None:
            return None
        return self.tail.calls

    def look(self, took_s: float, now: float, *, ran: bool = True) -> Slow | None:
        """Why a call that took so long is slow, ``None`` where it is not. What never ``ran`` says nothing about what is
        normal."""
        tail, rules = self.tail, self.rules
        p99_s = tail.p99_s
        if rules.threshold_s is not None:
            threshold_s = rules.threshold_s
        elif rules.times_p99 is not None and p99_s is not None:
            threshold_s = rules.times_p99 * p99_s
        else:
            threshold_s = -1.0
        if ran:
            tail.take(took_s, now)
        return Slow(threshold_s, p99_s) if took_s >= threshold_s >= 0.0 else None


def uncovered(start: float, end: float, parts: Iterable[tuple[float, float]]) -> float:
    """How much of the time from ``start`` to ``end`` lies in none of ``parts`` (start, end), which may overlap."""
    left, at = 0.0, start
    for begin, stop in sorted(parts):
        begin, stop = max(begin, start), min(stop, end)
        if stop <= begin:
            continue
        if begin > at:
            left += begin - at
        at = max(at, stop)
    return left + max(0.0, end - at)


def stood(
    start: float, end: float, parts: Iterable[tuple[float, float]], stalls: Iterable[tuple[float, float]]
) -> float:
    """How much of the time from ``start`` to ``end`` lies in any of ``stalls``, which do not overlap, and in any of
    ``parts``, which may."""
    parts, both = list(parts), 0.0
    for begin, stop in stalls:
        begin, stop = max(begin, start), min(stop, end)
        if stop > begin:
            both += stop - begin - uncovered(begin, stop, parts)
    return both
