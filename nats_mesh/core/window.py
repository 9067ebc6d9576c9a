"""How many calls ended lately, and how: a ring of buckets over time.

What is older than the span is forgotten a bucket at a time, so that a window of ten buckets holds between nine
tenths of its span and all of it. Every step costs the same however many calls there are.

Rejected: a list of single outcomes. It is exact, but costs memory by the call and has to be cleared one by one.
A window of the last n calls (resilience4j's other kind): a quiet endpoint would be judged by last week's failures.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

__all__ = ["OutcomeWindow", "Totals"]

#: The bucket before any other.
_NEVER: Final = -(2**60)


class Totals(msgspec.Struct, frozen=True):
    """Outcomes of the window: all of them, those that failed, and those that took long (failed or not)."""

    calls: int
    failures: int
    slow: int


class OutcomeWindow:
    """Outcomes of the last ``span_s`` seconds. ``calls``, ``failures`` and ``slow`` are right as of the last
    :meth:`advance` or :meth:`record`; ``until`` is when the present bucket ends (monotonic seconds)."""

    __slots__ = ("_calls", "_failures", "_index", "_slow", "_width_s", "calls", "failures", "slow", "until")

    def __init__(self, span_s: float, buckets: int = 10) -> None:
        if not (math.isfinite(span_s) and span_s > 0.0):
            raise ValueError(f"a window spans a positive number of seconds, got {span_s!r}")
        if buckets < 1:
            raise ValueError(f"a window has at least one bucket, got {buckets!r}")
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.until = -math.inf
        self._width_s = span_s / buckets
        self._index = _NEVER
        self._calls = [0] * buckets
        self._failures = [0] * buckets
        self._slow = [0] * buckets

    def record(self, now: float, failed: bool, slow: bool = False) -> None:
        """Count one outcome, in the present bucket where ``now`` is before it."""
        if now >= self.until:
            self.advance(now)
        at = self._index % len(self._calls)
        self._calls[at] += 1
        self.calls += 1
        if failed:
            self._failures[at] += 1
            self.failures += 1
        if slow:
            self._slow[at] += 1
            self.slow += 1

    def succeeded(self, count: int) -> None:
        """Count successes that ended in the present bucket: those since the last :meth:`record`, before ``until``."""
        self._calls[self._index % len(self._calls)] += count
        self.calls += count

    def advance(self, now: float) -> None:
        """Forget what is older than the span; nothing happens where ``now`` is not after the present bucket."""
        if now < self.until:
            return
        size = len(self._calls)
        index = max(self._index + 1, math.floor(now / self._width_s))
        if index - self._index >= size:
            self.clear()
        else:
            for each in range(self._index + 1, index + 1):
                at = each % size
                self.calls -= self._calls[at]
                self.failures -= self._failures[at]
                self.slow -= self._slow[at]
                self._calls[at] = self._failures[at] = self._slow[at] = 0
        self._index = index
        self.until = (index + 1) * self._width_s

    def totals(self, now: float) -> Totals:
        """What the window holds at ``now``."""
        self.advance(now)
        return Totals(self.calls, self.failures, self.slow)

    def clear(self) -> None:
        """Forget everything."""
        self.calls = self.failures = self.slow = 0
        size = len(self._calls)
        self._calls = [0] * size
        self._failures = [0] * size
        self._slow = [0] * size

    def __repr__(self) -> str:
        return f"<OutcomeWindow {self.failures} of {self.calls} failed, {self.slow} slow>"
