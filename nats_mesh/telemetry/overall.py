"""Calls of several edges together, as these tell of them: all of a mesh, and those to one service or endpoint. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence

from nats_mesh.telemetry.group import HISTORY_S, Group
from nats_mesh.telemetry.reds import NOTHING, red, red_of
from nats_mesh.telemetry.snapshots import Red, Trend
from nats_mesh.telemetry.tallies import MICRO, Tally

__all__ = ["Overall"]


class Overall:
    """What has been summed up of the seconds that are over: they change no more."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float, float | None, float | None]] = deque(maxlen=HISTORY_S)
        self._until: int | None = None
        self._parts: dict[tuple[str, ...], Overall] = {}

    def part(self, name: tuple[str, ...]) -> Overall:
        """The same for the calls to one service, or to one of its endpoints."""
        return self._parts.get(name) or self._parts.setdefault(name, Overall())

    def keep(self, names: Collection[tuple[str, ...]]) -> None:
        """Forget every part that is not one of ``names``: nobody is left who has calls there."""
        for name in [name for name in self._parts if name not in names]:
            del self._parts[name]

    def red(self, groups: Sequence[Group]) -> Red:
        """All calls: the groups are those of edges."""
        if len(groups) < 2:
            return red_of(groups[0]) if groups else NOTHING
        window, total = Tally(), Tally()
        last: Group | None = None
        for group in groups:
            window.add(group.window)
            total.count(group.total)
            if group.last_error and (last is None or _when(group) >= _when(last)):
                last = group
        rate = total.rate / MICRO
        text, at = ("", None) if last is None else (last.last_error, last.error_at)
        return red(window, total, rate, total.tried / MICRO, text, at)

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
        calls, good, slowest = [0.0] * size, [0.0] * size, [0.0] * size
        for group in groups:
            for second, requests, share, p99_s in group.seconds(first):
                if second <= last:
                    at = second - first
                    calls[at] += requests
                    good[at] += requests * (share or 0.0)
                    slowest[at] = max(slowest[at], p99_s or 0.0)
        for at in range(size):
            if self._seconds or calls[at]:  # it begins with the first second that had any
                rate = calls[at]
                self._seconds.append(
                    (first + at, rate, good[at] / rate if rate else None, slowest[at] or None)
                )
        while self._seconds and self._seconds[0][0] <= last - HISTORY_S:
            self._seconds.popleft()


def _when(group: Group) -> float:
    """When its last error was; what has no time came before all others."""
    return -math.inf if group.error_at is None else group.error_at
