"""What has ended in every series since somebody looked last: for whoever watches differences, and shows no totals.

Pure: messages and the monotonic time go in. Bounded by whoever watches: ``room`` says whether one more is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from nats_mesh.telemetry.counts import Track
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage

__all__ = ["SILENT_S", "Kind", "Tracks"]

#: Of a member that was silent for so long (seconds) nothing is kept.
SILENT_S: Final = 120.0


class Kind(NamedTuple):
    """Whose series it is, and what it counts."""

    member: str
    instance: str
    side: str
    service: str
    endpoint: str
    peer: str
    subset: str


class Tracks:
    """The series of all members, of those kinds that ``concerns`` says, as far as there is ``room``.

    ``overflowed`` counts those that found none, ``stale`` words that came late or again.
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
        #: The same by the numbers that rows call them, of each member.
        self._numbered: dict[tuple[str, str, int], Track] = {}

    def hear(self, message: StatsMessage, now: float) -> None:
        """One message of a member."""
        member, instance = message.service, message.instance
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
            if track is None:
                self._first(key, series, message, now)
                continue
            tally = track.hear(series, message)
            if tally is None:
                self.stale += 1
            else:
                track.put(tally, now)
        for row in message.rows:
            track = self._numbered.get((member, instance, row.number))
            if track is not None and (tally := track.go_on(row, message)) is not None:
                track.put(tally, now)

    def _first(self, key: Kind, series: SeriesSnapshot, message: StatsMessage, now: float) -> None:
        if not self._room(key):
            self.overflowed += 1
            return
        track = self._tracks[key] = Track(now)
        tally = track.hear(series, message)
        # What began since somebody looks counts from its first call; of all else, what comes from now on.
        if tally is not None and series.age_s <= now - self._since:
            track.put(tally, now)
        if track.number >= 0:
            self._numbered[key.member, key.instance, track.number] = track

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
        name = key.member, key.instance, track.number
        if self._numbered.get(name) is track:
            del self._numbered[name]
