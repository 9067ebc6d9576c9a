"""One series of one member, as a view follows it: how it goes, and where it counts. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from nats_mesh.telemetry.counts import Counts
from nats_mesh.telemetry.groups import Intake
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage
from nats_mesh.telemetry.tallies import MICRO, Tally

__all__ = ["Line"]

_POINTS: Final = 32
#: What is shorter (seconds) has no rate: ages are what somebody says, and by next to nothing numbers become infinite.
_INSTANT_S: Final = 1e-4


class Line(Counts):
    """The latest word of a series, how it went in the last window, and the groups it counts in."""

    __slots__ = ("_intake", "_points", "_rate", "_running", "_tried", "groups", "last_error", "seq", "side")

    def __init__(self, side: str, intake: Intake) -> None:
        super().__init__()
        self.side = side
        #: Where its calls count, beside where all calls of its member's side do.
        self._intake = intake
        self.groups = intake.groups
        #: The number of the message which told of it last.
        self.seq = 0
        self.last_error = ""
        #: Its age, its calls and its attempts then, up to a window ago.
        self._points: deque[tuple[float, int, int]] = deque()
        #: What its groups have of it now.
        self._rate = self._tried = self._running = 0

    def begin(self, age_s: float) -> None:
        """No call had ended yet when it was of this age, which may be below nothing."""
        self._points.append((age_s, 0, 0))

    def take(
        self, new: SeriesSnapshot, message: StatsMessage, before_s: float, window_s: float
    ) -> Tally | None:
        """What has happened since the word before; ``None`` where nothing has, and where this is no later one.

        ``before_s`` is how old the member was when it told the message before this one."""
        tally = self.hear(new, message)
        return tally if tally is not None and self.moved(tally, before_s, window_s) else None

    def moved(self, tally: Tally, before_s: float, window_s: float) -> bool:
        """It is as old now as its latest word says, which added this much: say by how much what is true of now has
        changed; false where nothing has."""
        running = self.in_flight
        tally.in_flight = running - self._running
        self._running = running
        happened = tally.ok or tally.others is not None or tally.attempts
        if not happened and not self._rate and not self._tried:  # it rests as before
            return bool(tally.in_flight)
        points = self._points
        if points:
            rested_s, requests, attempts = points[-1]
            before_s -= self.born_s
            # The message before this one did not tell of it: until then it rested.
            if before_s > rested_s + _INSTANT_S:
                points.append((before_s, requests, attempts))
        self._move(tally, self.age_s, window_s)
        return bool(happened or tally.rate or tally.tried or tally.in_flight)

    def count(self, tally: Tally, second: int, sums: dict[str, Tally]) -> None:
        """Add what is new in it wherever it counts, and to the sum of its side."""
        total = sums.get(self.side)
        if total is None:
            total = sums[self.side] = Tally()
        total.add(tally)
        self._intake.add(tally, second)

    def rest(self, window_s: float) -> Tally | None:
        """A message without it came: nothing has happened there. ``None`` where it rested before."""
        if not self._rate and not self._tried:
            return None
        tally = Tally()
        self._move(tally, self._points[-1][0] + 1.0, window_s)
        return tally

    def leave(self) -> Tally | None:
        """Its member tells no more: what it has of now is no longer so."""
        if not self._rate and not self._tried and not self._running:
            return None
        tally = Tally()
        tally.rate, tally.tried, tally.in_flight = -self._rate, -self._tried, -self._running
        self._rate = self._tried = self._running = 0
        return tally

    def _move(self, tally: Tally, age_s: float, window_s: float) -> None:
        """It is of this age now: say by how much its rates change."""
        points, own, tries = self._points, self.requests, self.attempts
        # All of those that are too close: ages are what somebody says, and may stand still.
        while len(points) > 1 and age_s - points[-2][0] < window_s / _POINTS:
            points.pop()
        points.append((age_s, own, tries))
        start_s = age_s - window_s
        while len(points) > 2 and points[1][0] <= start_s:
            points.popleft()
        begun_s, requests, attempts = points[0]
        if begun_s < start_s and points[1][1] == requests and points[1][2] == attempts:
            begun_s = start_s  # it rested then, and perhaps long before
        span_s = age_s - begun_s
        rate = tried = 0
        if span_s >= _INSTANT_S:
            rate = int((own - requests) * MICRO / span_s)
            same = attempts == requests and tries == own
            tried = rate if same else int((tries - attempts) * MICRO / span_s)
        tally.rate, tally.tried = rate - self._rate, tried - self._tried
        self._rate, self._tried = rate, tried
