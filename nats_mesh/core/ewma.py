"""Moving averages of something observed at irregular moments, weighted by age and not by number.

With a weight per observation instead, a busy instance would forget in milliseconds what a quiet one remembers for
hours. A decay of ``d`` seconds means that an observation counts 1/e of a new one after ``d``.
"""

from __future__ import annotations

import math

__all__ = ["Ewma", "PeakEwma"]


def _check(decay_s: float) -> float:
    if not (math.isfinite(decay_s) and decay_s > 0.0):
        raise ValueError(f"a decay is a positive number of seconds, got {decay_s!r}")
    return decay_s


class Ewma:
    """The mean of what was observed, each observation weighted by its age; 0 before the first.

    Kept as a sum and a weight that decay together, so that observations of one moment all count.
    """

    __slots__ = ("_at", "_decay_s", "_sum", "_weight")

    def __init__(self, decay_s: float) -> None:
        self._decay_s = _check(decay_s)
        self._at = -math.inf
        self._sum = 0.0
        self._weight = 0.0

    def observe(self, now: float, value: float) -> None:
        """Take in a value of this moment."""
        if now > self._at:
            kept = math.exp((self._at - now) / self._decay_s)
            self._sum *= kept
            self._weight *= kept
            self._at = now
        self._sum += value
        self._weight += 1.0

    def value(self, now: float) -> float:
        """The mean. It does not change with time alone: all weights age alike."""
        return self._sum / self._weight if self._weight else 0.0


class PeakEwma:
    """A cost that jumps to a higher value at once and forgets it slowly; 0 before the first observation.

    Finagle's ``PeakEwma`` (M. Eriksen): bad news counts at once, good news has to last. With nothing observed it
    decays towards 0, so that an instance that was slow once gets another chance.
    """

    __slots__ = ("_at", "_cost", "_decay_s")

    def __init__(self, decay_s: float) -> None:
        self._decay_s = _check(decay_s)
        self._at = -math.inf
        self._cost = 0.0

    def observe(self, now: float, value: float) -> None:
        """Take in a value of this moment."""
        kept = math.exp(min(0.0, self._at - now) / self._decay_s)
        self._cost = value if value > self._cost * kept else self._cost * kept + value * (1.0 - kept)
        self._at = max(self._at, now)

    def value(self, now: float) -> float:
        """The cost, decayed up to now."""
        return self._cost * math.exp(min(0.0, self._at - now) / self._decay_s)
