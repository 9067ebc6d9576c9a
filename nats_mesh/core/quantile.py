"""Quantiles of what was observed lately: two histograms that take turns.

The younger one is fed; when it has covered half of the span, it becomes the older one and what was older is
forgotten. A quantile is of both together, so of between half of the span and all of it.

Rejected: the P² algorithm and t-digests. They never forget, or have to be restarted and then know nothing.
"""

from __future__ import annotations

import math

from nats_mesh.core.histogram import Histogram

__all__ = ["LatencyWindow"]


class LatencyWindow:
    """Durations of the last ``span_s`` seconds, to within 9.1 % each (see :mod:`nats_mesh.core.histogram`).

    What is old is forgotten when something new is observed. ``count``: how many durations it holds.
    """

    __slots__ = ("_earlier", "_earlier_count", "_half_s", "_present", "_present_count", "_until")

    def __init__(self, span_s: float) -> None:
        if not (math.isfinite(span_s) and span_s > 0.0):
            raise ValueError(f"a window spans a positive number of seconds, got {span_s!r}")
        self._half_s = span_s / 2.0
        self._until = -math.inf
        self._present = Histogram()
        self._present_count = 0
        self._earlier = Histogram()
        self._earlier_count = 0

    @property
    def count(self) -> int:
        """How many durations it holds."""
        return self._present_count + self._earlier_count

    def observe(self, now: float, seconds: float) -> None:
        """Take in one duration, finite and not negative."""
        if now >= self._until:
            self._turn(now)
        self._present.record(seconds)
        self._present_count += 1

    def _turn(self, now: float) -> None:
        if now < self._until + self._half_s:
            self._earlier, self._earlier_count = self._present, self._present_count
            self._until += self._half_s
        else:
            self._earlier, self._earlier_count = Histogram(), 0
            self._until = now + self._half_s
        self._present, self._present_count = Histogram(), 0

    def quantile(self, q: float) -> float | None:
        """What a share ``q`` (0 … 1) of the durations does not exceed, seconds; ``None`` where there are none."""
        if not self._earlier_count:
            return self._present.quantile(q)
        both = Histogram()
        both.merge(self._earlier)
        both.merge(self._present)
        return both.quantile(q)
