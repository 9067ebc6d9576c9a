"""What one series of one member has counted, as an observer knows it, and what each word of it adds. Pure.

Numbers on the bus are cumulative: what a word adds is the difference from the word before, so that one that was lost
loses nothing, and one that comes again adds nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec import UNSET

from nats_mesh.core.buckets import SIZE, HistogramSnapshot
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
        "base",
        "buckets",
        "extra",
        "flags",
        "in_flight",
        "number",
        "ok",
        "others",
        "retries",
        "sum_ns",
        "told_s",
        "unusual",
    )

    def __init__(self) -> None:
        #: How old it was in its latest word that told all of it (seconds), and its member in its latest word.
        self.age_s = 0.0
        self.told_s = 0.0
        #: What rows call it (below 0: nothing), and the number of the message that told all of it and of all others.
        self.number = -1
        self.base = 0
        #: Calls that went well, and all others by status.
        self.ok = 0
        self.others: dict[str, int] = {}
        #: Attempts beyond one a call.
        self.extra = 0
        #: Whether there ever was anything beside calls that went well.
        self.unusual = False
        self.in_flight = 0
        self.sum_ns = 0
        #: How many calls took how long, of each bucket: a list is quicker than a table, and for most no larger.
        self.buckets: list[int] = [0] * SIZE
        self.flags: dict[str, int] = {}
        self.retries: dict[str, int] = {}

    def only_ok(self, new: SeriesSnapshot) -> int:
        """How many calls went well, by a word that says nothing else beside; below 0 where there is more to it."""
        statuses = new.statuses
        if self.unusual or new.attempts is not UNSET or new.flags is not UNSET or new.retries is not UNSET:
            return -1
        if not statuses:
            return 0
        return statuses.get(_OK, -1) if len(statuses) == 1 else -1

    def told(self, new: SeriesSnapshot, message: StatsMessage) -> None:
        """A word of ``message`` has told all of it."""
        self.age_s = new.age_s
        self.told_s = message.since_s
        self.base = message.seq if message.base is UNSET else 0
        if self.number < 0 and new.number is not UNSET:
            self.number = new.number

    def add_well(self, ok: int, histogram: HistogramSnapshot, tally: Tally, total: Tally | None) -> None:
        """So many calls went well by now, which took so long: add those that are new to both."""
        more = ok - self.ok
        self.ok = ok
        sum_ns = histogram.sum_ns - self.sum_ns
        self.sum_ns += sum_ns
        known, added = self.buckets, tally.buckets
        tally.ok += more
        tally.attempts += more
        tally.sum_ns += sum_ns
        if total is None:
            for bucket, count in histogram.buckets:
                new = count - known[bucket]
                if new > 0:
                    known[bucket] = count
                    added[bucket] = added.get(bucket, 0) + new
            return
        total.ok += more
        total.attempts += more
        total.sum_ns += sum_ns
        summed = total.buckets
        for bucket, count in histogram.buckets:
            new = count - known[bucket]
            if new > 0:
                known[bucket] = count
                added[bucket] = added.get(bucket, 0) + new
                summed[bucket] = summed.get(bucket, 0) + new

    def hear(self, new: SeriesSnapshot, message: StatsMessage) -> Tally | None:
        """What has been added to it by a word of ``message``; ``None`` where this is no later one (it counts
        backwards)."""
        requests = 0
        for count in new.statuses.values():
            requests += count
        if requests < self.ok + sum(self.others.values()) or new.age_s < self.age_s:
            return None
        extra = 0 if new.attempts is UNSET else new.attempts - requests
        tally = Tally()
        others = dict(new.statuses) if new.statuses.keys() <= _STATUSES else _in_known_words(new.statuses)
        ok = others.pop(_OK, 0)
        if ok != self.ok or others != self.others or extra != self.extra:
            self._change(tally, new, ok, others, extra)
        tally.in_flight = new.in_flight - self.in_flight
        self.in_flight = new.in_flight
        self.told(new, message)
        return tally

    def _change(self, tally: Tally, new: SeriesSnapshot, ok: int, others: dict[str, int], extra: int) -> None:
        tally.ok = ok - self.ok
        tally.others = _more(others, self.others) or None
        tally.attempts = tally.requests + extra - self.extra
        tally.sum_ns = new.histogram.sum_ns - self.sum_ns
        self.ok, self.others, self.extra, self.sum_ns = ok, others, extra, new.histogram.sum_ns
        known, added = self.buckets, tally.buckets
        for bucket, count in new.histogram.buckets:
            more = count - known[bucket]
            if more > 0:
                known[bucket] = count
                added[bucket] = more
        if new.flags:
            flags = {each: count for each, count in new.flags.items() if _are_flags(each)}
            tally.flags, self.flags = _more(flags, self.flags) or None, flags
        if new.retries:
            retries = {each: count for each, count in new.retries.items() if each in _RETRIES}
            tally.retries, self.retries = _more(retries, self.retries) or None, retries
        if others or extra or self.flags or self.retries:
            self.unusual = True


class Track(Counts):
    """One series: as last heard, and what has come since it was looked at last."""

    __slots__ = ("further", "heard", "news")

    def __init__(self, heard: float) -> None:
        super().__init__()
        self.heard = heard
        self.news: Tally | None = None
        #: The same series as it was told before it was begun anew, where it had come further there.
        self.further: Track | None = None

    @property
    def requests(self) -> int:
        """How many calls it has counted."""
        return self.ok + sum(self.others.values())

    def begin_anew(self, before: Track) -> None:
        """It stands in the place of ``before`` from its first word on: what has come there stays, and so does how far
        it was told."""
        self.news, before.news = before.news, None
        furthest = before
        if before.further is not None and before.further.requests > before.requests:
            furthest = before.further
        before.further = None
        self.further = furthest if furthest.requests > self.requests else None

    def gone_on_from(self, requests: int) -> Track:
        """What a word of so many calls goes on from: the one before where it comes that far, or this. Nobody knows
        which of the two was made up; this way no call counts twice, and one word at most counts in part."""
        further = self.further
        if further is None or requests < further.requests:
            return self
        further.news, further.heard = self.news, self.heard
        # Ages and numbers are those of who tells now.
        further.age_s, further.told_s = min(further.age_s, self.age_s), min(further.told_s, self.told_s)
        further.number = -1
        return further

    def put(self, tally: Tally, now: float) -> None:
        """Something was heard of it."""
        self.heard = now
        if self.news is None:
            self.news = tally
        else:
            self.news.add(tally)

    def go_on(self, row: SeriesRow, message: StatsMessage, now: float) -> None:
        """Put what a row of ``message`` adds; nothing where this is no later one, or goes on from what was not
        heard, or where the next word that tells all has to say from what it does (:meth:`gone_on_from`)."""
        if self.base != message.base or row.ok < self.ok or message.since_s < self.told_s:
            return
        if self.further is not None and row.ok >= self.further.requests:
            return
        self.told_s = message.since_s
        self.in_flight = row.in_flight
        self.heard = now
        if self.news is None:
            self.news = Tally()
        if row.ok != self.ok:
            self.add_well(row.ok, row.histogram, self.news, None)

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
