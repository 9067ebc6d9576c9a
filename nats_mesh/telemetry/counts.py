"""What one series of one member has counted, as an observer knows it, and what each word of it adds. Pure.

Numbers on the bus are cumulative: what a word adds is the difference from the word before, so that one that was lost
loses nothing, and one that comes again adds nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec import UNSET

from nats_mesh.core.buckets import HistogramSnapshot
from nats_mesh.core.histogram import Histogram
from nats_mesh.errors import Status
from nats_mesh.telemetry.flags import FLAGS
from nats_mesh.telemetry.stats_messages import SeriesRow, SeriesSnapshot, StatsMessage
from nats_mesh.telemetry.tallies import Tally

__all__ = ["Counts", "Track"]

#: What calls end with. Of any other word a member may have nothing is kept but that it was one: words that are made up
#: would never be forgotten.
_STATUSES: Final = frozenset(map(str, Status))
_OK: Final = str(Status.OK)
_UNKNOWN: Final = str(Status.UNKNOWN)
_RETRIES: Final = frozenset({"success", "failure", "denied"})
_MOST_FLAGS: Final = 3


class Counts:
    """The latest word of a series."""

    __slots__ = (
        "age_s",
        "attempts",
        "base",
        "born_s",
        "buckets",
        "flags",
        "in_flight",
        "number",
        "requests",
        "retries",
        "statuses",
        "sum_ns",
    )

    def __init__(self) -> None:
        #: How old it was in its latest word (seconds), and how old its member was when it began.
        self.age_s = 0.0
        self.born_s = 0.0
        #: What rows call it (below 0: nothing), and the number of the message that told all of it and of all others.
        self.number = -1
        self.base = 0
        self.requests = 0
        self.attempts = 0
        self.in_flight = 0
        self.sum_ns = 0
        self.statuses: dict[str, int] = {}
        self.buckets: dict[int, int] = {}
        self.flags: dict[str, int] = {}
        self.retries: dict[str, int] = {}

    def hear(self, new: SeriesSnapshot, message: StatsMessage) -> Tally | None:
        """What has been added to it by a word of ``message``; ``None`` where this is no later one (it counts
        backwards)."""
        requests = 0
        for count in new.statuses.values():
            requests += count
        if requests < self.requests or new.age_s < self.age_s:
            return None
        attempts = requests if new.attempts is UNSET else new.attempts
        tally = Tally()
        if requests != self.requests or attempts != self.attempts:
            statuses = (
                dict(new.statuses) if new.statuses.keys() <= _STATUSES else _in_known_words(new.statuses)
            )
            added, self.statuses = _more(statuses, self.statuses), statuses
            tally.ok = added.pop(_OK, 0)
            tally.others = added or None
            tally.attempts = attempts - self.attempts
            tally.sum_ns = new.histogram.sum_ns - self.sum_ns
            self._fill(tally, new.histogram.buckets)
            if new.flags:
                flags = {each: count for each, count in new.flags.items() if _are_flags(each)}
                tally.flags, self.flags = _more(flags, self.flags) or None, flags
            if new.retries:
                retries = {each: count for each, count in new.retries.items() if each in _RETRIES}
                tally.retries, self.retries = _more(retries, self.retries) or None, retries
            self.requests, self.attempts, self.sum_ns = requests, attempts, new.histogram.sum_ns
        self.age_s = new.age_s
        self.born_s = message.since_s - new.age_s
        self.base = message.seq if message.base is UNSET else 0
        if self.number < 0 and new.number is not UNSET:
            self.number = new.number
        self.in_flight = new.in_flight
        return tally

    def go_on(self, row: SeriesRow, message: StatsMessage) -> Tally | None:
        """What has been added to it by a row of ``message``; ``None`` where this is no later one, or goes on from what
        was not heard."""
        ok = self.statuses.get(_OK, 0)
        age_s = message.since_s - self.born_s
        more = row.ok - ok
        if self.base != message.base or more < 0 or age_s < self.age_s:
            return None
        tally = Tally()
        if more:
            self.statuses[_OK] = row.ok
            tally.ok = more
            tally.attempts = more
            self.requests += more
            self.attempts += more
            histogram = row.histogram
            tally.sum_ns = histogram.sum_ns - self.sum_ns
            self.sum_ns = histogram.sum_ns
            self._fill(tally, histogram.buckets)
        self.age_s = age_s
        self.in_flight = row.in_flight
        return tally

    def _fill(self, tally: Tally, buckets: tuple[tuple[int, int], ...]) -> None:
        known, added = self.buckets, tally.buckets
        for bucket, count in buckets:
            more = count - known.get(bucket, 0)
            if more > 0:
                added[bucket] = more
                known[bucket] = count


class Track(Counts):
    """One series: as last heard, and what has come since it was looked at last."""

    __slots__ = ("heard", "news")

    def __init__(self, heard: float) -> None:
        super().__init__()
        self.heard = heard
        self.news: Tally | None = None

    def put(self, tally: Tally, now: float) -> None:
        """Something was heard of it."""
        self.heard = now
        if self.news is None:
            self.news = tally
        else:
            self.news.add(tally)

    def take(self) -> tuple[int, int, Histogram] | None:
        """What has come: calls, how many of them failed, how long those took that began; ``None`` where nothing was
        heard."""
        news, self.news = self.news, None
        if news is None:
            return None
        took = Histogram()
        took.add(HistogramSnapshot(tuple(news.buckets.items()), max(0, news.sum_ns)))
        return max(0, news.requests), max(0, news.errors), took


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
