"""One series of one member, as an observer follows it: what is new in each word of it. Pure."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Final

from msgspec import UNSET

from nats_mesh.errors import Status
from nats_mesh.telemetry.flags import FLAGS
from nats_mesh.telemetry.groups import Group
from nats_mesh.telemetry.stats_messages import SeriesSnapshot
from nats_mesh.telemetry.tallies import MICRO, Tally

__all__ = ["Line"]

_POINTS: Final = 32
#: What calls end with. Of any other word a member may have nothing is kept but that it was one: words that are made up
#: would never be forgotten.
_STATUSES: Final = frozenset(map(str, Status))
_UNKNOWN: Final = str(Status.UNKNOWN)
_RETRIES: Final = frozenset({"success", "failure", "denied"})
_MOST_FLAGS: Final = 3


class Line:
    """The latest word of a series, how it went in the last window, and the groups it counts in."""

    __slots__ = (
        "_attempts",
        "_buckets",
        "_flags",
        "_in_flight",
        "_points",
        "_rate",
        "_requests",
        "_retries",
        "_statuses",
        "_sum_ns",
        "_tried",
        "age_s",
        "groups",
        "last_error",
        "seq",
        "side",
    )

    def __init__(self, side: str, groups: tuple[Group, ...]) -> None:
        self.side = side
        #: Where its calls count, beside where all calls of its member's side do.
        self.groups = groups
        #: How old it was in its latest word (seconds), and the number of the message which had that.
        self.age_s = 0.0
        self.seq = 0
        self.last_error = ""
        self._requests = self._attempts = self._sum_ns = 0
        self._statuses: dict[str, int] = {}
        self._buckets: dict[int, int] = {}
        self._flags: dict[str, int] = {}
        self._retries: dict[str, int] = {}
        #: Its age, its calls and its attempts then, up to a window ago.
        self._points: deque[tuple[float, int, int]] = deque()
        #: What its groups have of it now.
        self._rate = self._tried = self._in_flight = 0

    def begin(self, age_s: float) -> None:
        """No call had ended yet when it was of this age, which may be below nothing."""
        self._points.append((age_s, 0, 0))

    def take(self, new: SeriesSnapshot, window_s: float) -> Tally | None:
        """What has happened since the word before; ``None`` where nothing has, and where this is no later one (it
        counts backwards)."""
        requests = sum(new.statuses.values())
        if requests < self._requests or new.age_s < self.age_s:
            return None
        attempts = requests if new.attempts is UNSET else new.attempts
        tally = Tally()
        if requests != self._requests or attempts != self._attempts:
            statuses = new.statuses if new.statuses.keys() <= _STATUSES else _in_known_words(new.statuses)
            tally.statuses, self._statuses = _more(statuses, self._statuses), statuses
            tally.attempts = attempts - self._attempts
            tally.sum_ns = new.histogram.sum_ns - self._sum_ns
            tally.buckets = buckets = {}
            known = self._buckets
            for bucket, count in new.histogram.buckets:
                more = count - known.get(bucket, 0)
                if more > 0:
                    buckets[bucket] = more
                    known[bucket] = count
            if new.flags:
                flags = {each: count for each, count in new.flags.items() if _are_flags(each)}
                tally.flags, self._flags = _more(flags, self._flags), flags
            if new.retries:
                retries = {each: count for each, count in new.retries.items() if each in _RETRIES}
                tally.retries, self._retries = _more(retries, self._retries), retries
            self._requests, self._attempts, self._sum_ns = requests, attempts, new.histogram.sum_ns
        self.age_s = new.age_s
        tally.in_flight = new.in_flight - self._in_flight
        self._in_flight = new.in_flight
        self._move(tally, new.age_s, window_s)
        if tally.statuses or tally.attempts or tally.rate or tally.tried or tally.in_flight:
            return tally
        return None

    def rest(self, window_s: float) -> Tally | None:
        """A message without it came: nothing has happened there. ``None`` where it rested before."""
        if not self._rate and not self._tried:
            return None
        tally = Tally()
        self._move(tally, self._points[-1][0] + 1.0, window_s)
        return tally

    def leave(self) -> Tally | None:
        """Its member tells no more: what it has of now is no longer so."""
        if not self._rate and not self._tried and not self._in_flight:
            return None
        tally = Tally()
        tally.rate, tally.tried, tally.in_flight = -self._rate, -self._tried, -self._in_flight
        self._rate = self._tried = self._in_flight = 0
        return tally

    def _move(self, tally: Tally, age_s: float, window_s: float) -> None:
        """It is of this age now: say by how much its rates change."""
        points = self._points
        if len(points) > 1 and age_s - points[-2][0] < window_s / _POINTS:
            points.pop()
        points.append((age_s, self._requests, self._attempts))
        while len(points) > 2 and points[1][0] <= age_s - window_s:
            points.popleft()
        begun_s, requests, attempts = points[0]
        span_s = age_s - begun_s
        rate = tried = 0
        if span_s > 0.0:
            rate = int((self._requests - requests) * MICRO / span_s)
            tried = (
                rate
                if attempts == requests and self._attempts == self._requests
                else int((self._attempts - attempts) * MICRO / span_s)
            )
        tally.rate, tally.tried = rate - self._rate, tried - self._tried
        self._rate, self._tried = rate, tried


def _in_known_words(statuses: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for status, count in statuses.items():
        word = status if status in _STATUSES else _UNKNOWN
        found[word] = found.get(word, 0) + count
    return found


@lru_cache(maxsize=1024)
def _are_flags(word: str) -> bool:
    flags = word.split(",")
    return len(flags) <= _MOST_FLAGS and all(each in FLAGS for each in flags)


def _more(new: dict[str, int], old: dict[str, int]) -> dict[str, int]:
    """What has been added."""
    if not old:
        return dict(new)
    return {word: count - old.get(word, 0) for word, count in new.items() if count != old.get(word, 0)}
