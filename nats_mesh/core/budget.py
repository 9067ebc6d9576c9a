"""A retry budget: how many retries a destination can bear, earned by its calls and, slowly, by time.

Retries are a share of the traffic, so that they cannot multiply an outage (Google SRE, ch. 21, "Handling
Overload": at most 10 %). As in Finagle's ``RetryBudget`` and Linkerd, every call deposits ``ratio`` of a retry, a
floor of some a second lets quiet callers retry at all, and what is not used within the window is forgotten.

What holds. Look back from any retry, that one included:

- over the window: retries ≤ ratio × calls + floor × seconds;
- over any shorter time, down to a tenth of the window (1 s by default): the same, and where the floor gives fewer than
  five in that tenth, what is lacking of five on top. With the default floor that is nothing.

So after any idleness at most five are there at once, or what the floor gives in a tenth of the window where that is
more; what a burst finds above it, the calls of that tenth have earned. Attempts stay within 1.1 × calls + 5 a second
from the first second of an outage on. Who asks all the time gets up to one retry in a tenth of the window less than
promised: retries are whole ones, and a bound for every length of time is met from below.

How. Let ``earned(t)`` = ratio × calls + floor × t − retries, all since the beginning. The retries between two moments
are within bounds exactly where ``earned`` is no lower at the second than it was at the first. So a retry is granted
where ``earned`` stays at or above its highest value between a window and a tenth of it ago, and at or above what it
was a window ago. Past values are kept in buckets, a hundredth of the window wide, each with its highest; where only
a part of a bucket is old enough all of it counts, which errs on the safe side. Time in which nothing happened is exact.

Rejected: one sliding window (Finagle's way). Ten seconds of deposits can then be spent in the first second of an
outage and as many again ten seconds later: in 11 s twice what they may have. A token bucket of a fixed size: too
large for a quiet destination or too small for a busy one. Never to forget a retry that was granted: who used up what
a burst of calls had earned would have to earn it a second time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from nats_mesh.core.rules import BudgetRules
from nats_mesh.core.shares import share_text

__all__ = ["BURST", "BURST_SHARE", "RetryBudget"]

#: The part of the window over which retries are bounded already.
BURST_SHARE: Final = 0.1
#: So many retries may be taken at once in any case, where the window has earned them.
BURST: Final = 5.0
_BUCKETS: Final = 100
#: What sums may lose by rounding, in retries.
_ROUNDING: Final = 1e-6
#: The bucket before any other.
_NEVER: Final = -(2**60)
#: From here on the sum is brought back to nothing, so that it stays precise however long it runs.
_LARGE: Final = 1e6


class _Past:
    """A bucket of the past: when it began and ended, the highest ``earned`` in it (the floor's part included), and what
    was earned at its end (without it)."""

    __slots__ = ("earned", "end", "start", "top")

    def __init__(self, start: float, end: float, top: float, earned: float) -> None:
        self.start = start
        self.end = end
        self.top = top
        self.earned = earned


class RetryBudget:
    """The retries of one destination service; not thread-safe. Time before its first use counts as idle."""

    __slots__ = (
        "_burst_s", "_calls", "_earned", "_floor", "_index", "_old", "_old_earned", "_ratio", "_slack", "_start",
        "_top", "_tops", "_until", "_width_s", "_window_s", "_young", "_young_earned",
    )  # fmt: skip

    def __init__(self, rules: BudgetRules) -> None:
        self._ratio = rules.ratio
        self._floor = rules.floor_per_s
        self._window_s = rules.window_s
        self._burst_s = rules.window_s * BURST_SHARE
        self._width_s = rules.window_s / _BUCKETS
        self._slack = max(0.0, BURST - self._floor * self._burst_s)
        #: The present bucket: when it began and ends, its calls that are not in the sum yet, the highest ``earned``
        #: before a retry.
        self._index = _NEVER
        self._start = 0.0
        self._until = -math.inf
        self._calls = 0
        self._top = -math.inf
        #: ``earned`` without the floor's part.
        self._earned = 0.0
        #: Past buckets: those younger than a tenth of the window, and those older, up to a window; of the older ones
        #: once more those that are higher than all after them; and what was earned when the last one left each queue.
        self._young: deque[_Past] = deque()
        self._young_earned = 0.0
        self._old: deque[_Past] = deque()
        self._old_earned = 0.0
        self._tops: deque[_Past] = deque()

    def deposit(self, now: float) -> None:
        """A call (not an attempt) begins."""
        if now >= self._until:
            self._next_bucket(now)
        self._calls += 1

    def withdraw(self, now: float) -> bool:
        """Take one retry, where one is left."""
        if self._left(now) < 1.0 - _ROUNDING:
            return False
        self._top = max(self._top, self._earned + self._floor * now)
        self._earned -= 1.0
        return True

    def left(self, now: float) -> float:
        """How many retries may be taken at once; below one, none."""
        return max(0.0, self._left(now))

    def _left(self, now: float) -> float:
        if now >= self._until:
            self._next_bucket(now)
        else:
            self._grow_old(now)
        if self._calls:
            self._earned += self._ratio * self._calls
            self._calls = 0
        floor = self._floor
        earned = self._earned + floor * now
        highest = self._young_earned + floor * (now - self._burst_s)
        if self._tops and self._tops[0].top > highest:
            highest = self._tops[0].top
        first = self._old_earned + floor * (now - self._window_s)
        if self._old and self._old[0].start <= now - self._window_s:
            first = self._old[0].top
        return min(earned - highest + self._slack, earned - first)

    def _next_bucket(self, now: float) -> None:
        """Put the present bucket away and begin the one of ``now``, which is not before its end."""
        if self._calls:
            self._earned += self._ratio * self._calls
            self._calls = 0
        if self._index > _NEVER:
            top = max(self._top, self._earned + self._floor * self._until)
            self._young.append(_Past(self._start, self._until, top, self._earned))
        if abs(self._earned) > _LARGE:
            self._rebase(self._earned)
        self._index = max(self._index + 1, math.floor(now / self._width_s))
        self._start = self._index * self._width_s
        self._until = self._start + self._width_s
        self._top = -math.inf
        self._grow_old(now)

    def _grow_old(self, now: float) -> None:
        """Move what has become old enough from queue to queue, and forget what is older than a window."""
        young, old, tops = self._young, self._old, self._tops
        before = now - self._burst_s
        while young and young[0].start <= before:
            past = young.popleft()
            self._young_earned = past.earned
            while tops and tops[-1].top <= past.top:
                tops.pop()
            tops.append(past)
            old.append(past)
        before = now - self._window_s
        while old and old[0].end <= before:
            past = old.popleft()
            self._old_earned = past.earned
            if tops[0] is past:
                tops.popleft()

    def _rebase(self, by: float) -> None:
        """Only differences matter: take ``by`` from everything that is remembered."""
        self._earned -= by
        self._young_earned -= by
        self._old_earned -= by
        for queue in (self._young, self._old):  # those of the tops are among the old ones
            for past in queue:
                past.top -= by
                past.earned -= by

    def __repr__(self) -> str:
        return f"<RetryBudget {share_text(self._ratio)} of calls and {self._floor:g} a second>"
