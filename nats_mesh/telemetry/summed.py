"""Calls of several edges together, as these tell of them: all of a mesh, and those to one service or endpoint. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nats_mesh.telemetry.group import HISTORY_S, Group
from nats_mesh.telemetry.reds import red_of, red_of_all
from nats_mesh.telemetry.snapshots import NOTHING, Red, Trend

__all__ = ["Summed"]


class Summed:
    """What was summed up before: seconds that are over change no more, nor do figures of which none has changed."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float, float | None, float | None]] = deque(maxlen=HISTORY_S)
        self._until: int | None = None
        #: The figures of each group at the last look, and of all of them.
        self._reds: list[Red] = []
        self._red = NOTHING

    def red(self, groups: Sequence[Group]) -> Red:
        """All their calls."""
        reds = [red_of(group) for group in groups]
        before = self._reds
        if len(reds) != len(before) or any(new is not old for new, old in zip(reds, before, strict=True)):
            self._reds, self._red = reds, red_of_all(groups)
        return self._red

    def trend(self, groups: Sequence[Group], now: float) -> Trend:
        """Rates add up, success is weighted by them, and of the slowest the worst is kept."""
        last = int(now) - 1
        first = last - HISTORY_S + 1 if self._until is None else self._until + 1
        if first <= last:
            self._take(groups, max(first, last - HISTORY_S + 1), last)
            self._until = last
        return Trend(
            rates=tuple([rate for _, rate, _, _ in self._seconds]),
            success=tuple([share for _, _, share, _ in self._seconds]),
            p99_s=tuple([slowest for _, _, _, slowest in self._seconds]),
        )

    def _take(self, groups: Sequence[Group], first: int, last: int) -> None:
        size = last - first + 1
        calls, known, good, slowest = [0.0] * size, [0.0] * size, [0.0] * size, [0.0] * size
        for group in groups:
            for second, requests, share, p99_s in group.seconds(first):
                if second <= last:
                    at = second - first
                    calls[at] += requests
                    if share is not None:
                        known[at] += requests
                        good[at] += requests * share
                    slowest[at] = max(slowest[at], p99_s or 0.0)
        for at in range(size):
            if self._seconds or calls[at]:  # it begins with the first second that had any
                rate = calls[at]
                self._seconds.append(
                    (first + at, rate, good[at] / known[at] if known[at] else None, slowest[at] or None)
                )
        while self._seconds and self._seconds[0][0] <= last - HISTORY_S:
            self._seconds.popleft()
