"""What has ended in every series since somebody looked last: for whoever watches differences, and shows no totals.

Pure: messages and the monotonic time go in. Bounded by whoever watches: ``room`` says whether one more is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from nats_mesh.core.numbering import Step, Succession
from nats_mesh.telemetry.counts import Track
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage

__all__ = ["MAX_SILENT", "SILENT_S", "Kind", "Tracks"]

#: Of a member that was silent for so long (seconds) nothing is kept but when it was heard last.
SILENT_S: Final = 120.0
#: Of how many of them that is known.
MAX_SILENT: Final = 4096


class Kind(NamedTuple):
    """Whose series it is, and what it counts."""

    member: str
    instance: str
    side: str
    service: str
    endpoint: str
    peer: str
    subset: str


class _Member:
    """Whoever told at least one of the series."""

    __slots__ = ("anew", "keys", "numbered", "order")

    def __init__(self) -> None:
        self.order = Succession()
        self.keys: set[Kind] = set()
        #: Its series by the numbers that rows call them.
        self.numbered: dict[int, Track] = {}
        #: Those of which nothing that was heard holds any more, and nothing has been heard since.
        self.anew: set[Kind] = set()


class Tracks:
    """The series of all members, of those kinds that ``concerns`` says, as far as there is ``room``.

    Messages of one member count in their order (:class:`~nats_mesh.core.numbering.Succession`), and no call of it
    counts twice, whatever others say in its name (:meth:`~nats_mesh.telemetry.counts.Track.gone_on_from`).
    ``overflowed`` counts series that found no room, ``stale`` words that came late or again, or a number that nobody
    can have come to.
    """

    def __init__(
        self,
        now: float,
        *,
        room: Callable[[Kind], bool],
        concerns: Callable[[SeriesSnapshot], bool] = lambda series: True,
    ) -> None:
        self.overflowed = 0
        self.stale = 0
        self._since = now
        self._room = room
        self._concerns = concerns
        self._tracks: dict[Kind, Track] = {}
        self._members: dict[tuple[str, str], _Member] = {}
        #: When members of which nothing is kept any more were heard last, in the order in which that came about.
        self._silent: dict[tuple[str, str], float] = {}

    def hear(self, message: StatsMessage, now: float) -> bool:
        """One message of a member; false where it is not to be believed, or late."""
        member, instance = message.service, message.instance
        known = self._members.get((member, instance))
        if known is None:
            known = _Member()
        step = known.order.take(message.seq, now)
        if step is Step.REFUSED:
            self.stale += 1
            return False
        if step is Step.ANEW:
            # What was told is no longer believed to be of whoever tells now.
            known.anew = set(known.keys)
            known.numbered.clear()
        for series in message.series:
            if not self._concerns(series):
                continue
            key = Kind(
                member,
                instance,
                series.side,
                series.service,
                series.endpoint,
                series.peer,
                series.subset or "",
            )
            track = self._tracks.get(key)
            if track is None or key in known.anew:
                self._first(known, key, series, message, now)
                continue
            if track.further is not None:
                if known.numbered.get(track.number) is track:
                    del known.numbered[track.number]
                track = self._tracks[key] = track.gone_on_from(sum(series.statuses.values()))
            tally = track.hear(series, message)
            if tally is None:
                self.stale += 1
            else:
                track.put(tally, now)
                if track.number >= 0:
                    known.numbered[track.number] = track
        for row in message.rows:
            track = known.numbered.get(row.number)
            if track is not None:
                track.go_on(row, message, now)
        return True

    def _first(
        self, known: _Member, key: Kind, series: SeriesSnapshot, message: StatsMessage, now: float
    ) -> None:
        before = self._tracks.get(key)
        if before is None:
            if not self._room(key):
                self.overflowed += 1
                return
            known.keys.add(key)
            self._members[key.member, key.instance] = known
        track = self._tracks[key] = Track(now)
        tally = track.hear(series, message)
        if before is not None:
            # What ended before counts; of what is told now nobody knows how much of it that is.
            known.anew.discard(key)
            track.begin_anew(before)
        # What began since somebody looks counts from its first call; of all else, what comes from now on.
        elif tally is not None and now - series.age_s >= self._heard_by(key):
            track.put(tally, now)
        if track.number >= 0:
            known.numbered[track.number] = track

    def _heard_by(self, key: Kind) -> float:
        """Up to when calls of this member have counted, or shall not."""
        return max(self._since, self._silent.get((key.member, key.instance), -math.inf))

    def skip(self, now: float) -> None:
        """Nobody listened for a while: what ended meanwhile is not known to have ended now."""
        self._since = now
        for track in self._tracks.values():
            track.news = None

    def __iter__(self) -> Iterator[tuple[Kind, Track]]:
        yield from list(self._tracks.items())

    def __contains__(self, key: object) -> bool:
        return key in self._tracks

    def __len__(self) -> int:
        return len(self._tracks)

    def forget(self, key: Kind) -> None:
        """Keep nothing more of a series."""
        track = self._tracks.pop(key)
        name = key.member, key.instance
        known = self._members[name]
        self._silent[name] = max(track.heard, self._silent.pop(name, -math.inf))
        if len(self._silent) > MAX_SILENT:
            # It may come back: what began before is nobody's from here on.
            self._since = max(self._since, self._silent.pop(next(iter(self._silent))))
        known.keys.discard(key)
        known.anew.discard(key)
        if not known.keys:
            del self._members[name]
        elif known.numbered.get(track.number) is track:
            del known.numbered[track.number]
