"""So many a second in the long run, and so many at once: a token bucket, for what may be left out."""

from __future__ import annotations

__all__ = ["Refill"]


class Refill:
    """Room for ``rate_per_s`` in the long run and for ``burst`` at once. Instants are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_left", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._left = burst
        self._at = now

    def room(self, now: float) -> int:
        """How many there is room for at ``now``."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate_per_s)
        self._at = max(self._at, now)
        return int(self._left)

    def take(self, count: int) -> None:
        """So many went out."""
        self._left = max(0.0, self._left - count)
