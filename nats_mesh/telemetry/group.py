"""Calls that are shown together: all there ever were, those of the last window, and a minute of history. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from nats_mesh.core.histogram import quantile_of
from nats_mesh.telemetry.snapshots import Red, Trend
from nats_mesh.telemetry.tallies import Tally

__all__ = ["HISTORY_S", "Group"]

#: How far back a trend goes (seconds).
HISTORY_S: Final = 60

#: A second that had calls: when, how many, success, 99th percentile.
_Second: TypeAlias = tuple[int, float, float | None, float | None]


class Group:
    """Some series together. With ``history`` it keeps a minute of it.

    What comes between two looks is added up first, and then put into the window and the total at once: a group of many
    series hears of each of them once a second, and is looked at about as often.

    Its times are whole seconds, and those of what is added only rise: what comes late counts in the latest.
    """

    __slots__ = (
        "_began",
        "_cells",
        "_fresh",
        "_history",
        "_open",
        "_own",
        "_own_fresh",
        "_second",
        "_trend",
        "_trend_at",
        "_when",
        "durations",
        "error_at",
        "history",
        "instances",
        "last_error",
        "muted",
        "row",
        "total",
        "window",
    )

    def __init__(self, *, history: bool = False, durations: bool = False) -> None:
        self.history = history
        #: Whether ``total`` has the durations, too.
        self.durations = durations
        #: Nobody looks at it any more: somebody else tells of the same calls better.
        self.muted = False
        #: Calls that ended, by how.
        self.total = Tally()
        self.window = Tally()
        #: How many members that tell have calls here, and the last error of any.
        self.instances = 0
        self.last_error = ""
        #: When that was (seconds of the observer's clock); ``None`` where nobody says.
        self.error_at: float | None = None
        #: What is shown of it, until it changes.
        self.row: Red | None = None
        #: What has come since the last look.
        self._fresh: Tally | None = None
        self._own_fresh = False
        #: The seconds that are in the window, and what came in each. The last may be open yet. (Pairs of both would be
        #: a third of all objects that the garbage collector goes through.)
        self._when: deque[int] = deque()
        self._cells: deque[Tally] = deque()
        self._open: Tally | None = None
        self._second = 0
        #: Whether ``_open`` is this group's own: what came alone in its second is one object for all of its groups.
        self._own = False
        #: The first second that had calls, and those of the last minute.
        self._began = -1
        self._history: deque[_Second] = deque(maxlen=HISTORY_S + 2)
        self._trend = Trend()
        self._trend_at = -1

    def mute(self) -> None:
        """Count nothing any more, and forget what was counted."""
        self.muted = True
        self.total, self.window, self._fresh, self._open = Tally(), Tally(), None, None
        self.row = None
        self._cells.clear()
        self._when.clear()
        self._history.clear()
        self.row = None

    def listen(self) -> None:
        """Count again, from now on: nobody tells of the same calls better any more."""
        self.muted = False
        self._began = self._trend_at = -1
        self._trend = Trend()
        self.row = None

    def before(self, tally: Tally) -> None:
        """Calls of before the observer came: they count in the total alone."""
        if self.muted:
            return
        if self.durations:
            self.total.add(tally)
        else:
            self.total.count(tally)
        self.row = None

    def fail(self, last_error: str, at: float | None) -> None:
        """A member tells of its last error: the latest of all stays, and what has no time gives way to what has one."""
        before = self.error_at
        if self.last_error and before is not None and (at is None or at < before):
            return
        self.last_error, self.error_at = last_error, at
        self.row = None

    def add(self, tally: Tally, second: int) -> None:
        """Calls that ended in about this second; the tally may be shared, and changes no more."""
        if self.muted:
            return
        if second > self._second:
            self._close()
            self._second = second
        fresh = self._fresh
        if fresh is None:
            self._fresh, self._own_fresh = tally, False
            return
        if not self._own_fresh:
            self._fresh, self._own_fresh = fresh.copy(), True
            fresh = self._fresh
        fresh.add(tally)

    def _settle(self) -> None:
        """Put what has come where it belongs."""
        fresh = self._fresh
        if fresh is None:
            return
        self._fresh = None
        self.row = None
        if self.durations:
            self.total.add(fresh)
        else:
            self.total.count(fresh)
        if not fresh.ok and fresh.others is None:
            return
        self.window.add(fresh)
        if self._open is None:
            self._open, self._own = fresh, self._own_fresh
            self._cells.append(fresh)
            self._when.append(self._second)
            return
        if not self._own:
            self._open, self._own = self._open.copy(), True
            self._cells[-1] = self._open
        self._open.add(fresh)

    def _close(self) -> None:
        """The second is over."""
        self._settle()
        cell = self._open
        if cell is not None and self.history:
            requests, answered = cell.requests, cell.answered
            success = 1.0 - cell.errors / answered if answered else None
            (p99,) = quantile_of(sorted(cell.buckets.items()), (0.99,))
            if self._began < 0:
                self._began = self._second
            self._history.append((self._second, float(requests), success, p99))
        self._open = None

    def tick(self, now: float, window_s: float) -> None:
        """Take in what has come, let go of what is no longer in the window, and close the second that is over."""
        if self.muted:
            return
        if int(now) > self._second:
            self._close()
            self._second = int(now)
        elif self._fresh is not None:
            self._settle()
        when, cells = self._when, self._cells
        while when and when[0] < now - window_s - 1.0:
            when.popleft()
            self.window.take_away(cells.popleft())
            self.row = None

    def seconds(self, first: int) -> list[_Second]:
        """The seconds from ``first`` on that had calls: when, how many, success, 99th percentile; the latest first."""
        found = []
        for each in reversed(self._history):
            if each[0] < first:
                break
            found.append(each)
        return found

    def trend(self, now: float) -> Trend:
        """The last minute by seconds, up to the last one that is over."""
        last = int(now) - 1
        if self._began < 0 or last == self._trend_at:
            return self._trend
        history, first = self._history, max(last - HISTORY_S + 1, self._began)
        while history and history[0][0] < first:
            history.popleft()
        # Words come in between the rows of a snapshot: a second may be over that was not when it began.
        told = [each for each in history if each[0] <= last]
        filled, size = told, last - first + 1
        if len(told) < size:  # there were quiet ones
            filled = [(first + at, 0.0, None, None) for at in range(size)]
            for each in told:
                filled[each[0] - first] = each
        if filled:
            _, rates, success, p99 = zip(*filled, strict=True)
            self._trend = Trend(rates=rates, success=success, p99_s=p99)
        self._trend_at = last
        return self._trend
