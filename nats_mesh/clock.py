"""Injected time. Nothing outside this module and the event loop asks what time it is.

Only monotonic instants are compared, each with itself; wall time is for tokens and log lines.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock", "rfc3339"]


class Clock(Protocol):
    """Two readings: ``monotonic()`` for deadlines and ages, ``time()`` (wall) for logs and tokens; seconds."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class SystemClock:
    """The machine's clocks. The readings are the C functions themselves: no wrapper on the path of a call."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM_CLOCK = SystemClock()


class ManualClock:
    """A clock that moves when told, for tests of pure cores."""

    def __init__(self, start_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now = start_s
        self._wall = wall_s - start_s

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now + self._wall

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``; a monotonic clock never goes back, so a negative step is refused."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._now += seconds


def rfc3339(wall_s: float) -> str:
    """A wall time (seconds since 1970) as RFC 3339 in UTC.

    Always with six digits after the point: some decoders insist on a fraction and refuse nanoseconds.
    """
    moment = datetime.datetime.fromtimestamp(wall_s, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
