"""The calls that ended between two looks, by service and endpoint: differences of what members count.

The calls of an edge are those that their caller counts, refusals and what never reached an instance included; where a
caller tells nothing, those that the instances count for him. Numbers on the bus are cumulative: a lost message loses
nothing, and a series that was there before somebody looked counts from its first message on.

Pure: messages and the monotonic time go in. Bounded: beyond :data:`MAX_TRACKS` kinds of calls what is new is left out,
and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from nats_mesh.core.histogram import Histogram
from nats_mesh.telemetry.series import errors_in
from nats_mesh.telemetry.stats import SeriesSnapshot, StatsMessage

__all__ = ["MAX_OF_ONE", "MAX_TRACKS", "SILENT_S", "Ended", "EndedCalls"]

MAX_TRACKS: Final = 20_000
#: How many of them one service or client may fill: whoever makes up names leaves room for the others.
MAX_OF_ONE: Final = MAX_TRACKS // 2
#: Of a member that was silent for so long (seconds) nothing is kept.
SILENT_S: Final = 120.0

#: The member, its instance, the side, service, endpoint, peer and subset.
_Key = tuple[str, str, str, str, str, str, str]


class Ended:
    """Calls that ended: how many, how many failed, how long those took that began."""

    __slots__ = ("calls", "failures", "took")

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.took = Histogram()

    def __repr__(self) -> str:
        return f"<Ended {self.failures} of {self.calls} failed>"


class _Track:
    __slots__ = ("heard", "latest", "taken")

    def __init__(self, latest: SeriesSnapshot, taken: SeriesSnapshot | None, heard: float) -> None:
        self.latest = latest
        self.taken = taken
        self.heard = heard


class EndedCalls:
    """What a watcher has heard since ``now``. ``overflowed`` counts series that found no room, ``stale`` those that
    came late or again."""

    def __init__(self, now: float) -> None:
        self.overflowed = 0
        self.stale = 0
        self._since = now
        self._tracks: dict[_Key, _Track] = {}
        #: How many of them are whose.
        self._of_one: Counter[str] = Counter()
        #: Who tells of his own calls, and of which service, and when he did last.
        self._callers: dict[tuple[str, str], float] = {}

    def hear(self, message: StatsMessage, now: float) -> None:
        """One message of a member."""
        for series in message.series:
            key = (
                message.service,
                message.instance,
                series.side,
                series.service,
                series.endpoint,
                series.peer,
                series.subset or "",
            )
            track = self._tracks.get(key)
            if series.side == "out" and (track is not None or self._has_room(message.service)):
                self._callers[message.service, series.service] = now
            if track is None:
                self._first(key, series, now)
            elif series.age_s >= track.latest.age_s and series.requests >= track.latest.requests:
                track.latest, track.heard = series, now
            else:
                self.stale += 1

    def _has_room(self, member: str) -> bool:
        return len(self._tracks) < MAX_TRACKS and self._of_one[member] < MAX_OF_ONE

    def _first(self, key: _Key, series: SeriesSnapshot, now: float) -> None:
        if not self._has_room(key[0]):
            self.overflowed += 1
            return
        self._of_one[key[0]] += 1
        began_before = series.age_s > now - self._since
        self._tracks[key] = _Track(series, series if began_before else None, now)

    def skip(self, now: float) -> None:
        """Nobody listened for a while: what ended meanwhile is not known to have ended now."""
        self._since = now
        for track in self._tracks.values():
            track.taken = track.latest
        self._tracks = {key: track for key, track in self._tracks.items() if now - track.heard <= SILENT_S}
        self._of_one = Counter(key[0] for key in self._tracks)

    def take(self, now: float) -> dict[tuple[str, str], Ended]:
        """What has ended since this was asked last, by service and endpoint."""
        found: dict[tuple[str, str], Ended] = {}
        for key, track in list(self._tracks.items()):
            if track.latest is not track.taken:
                if not self._is_told(key, now):
                    _add(found.setdefault((key[3], key[4]), Ended()), track)
                track.taken = track.latest
            elif now - track.heard > SILENT_S:
                del self._tracks[key]
                self._of_one[key[0]] -= 1
        self._of_one = +self._of_one  # names of whom nothing is left go, too
        if len(self._callers) > MAX_TRACKS // 2:
            self._callers = {each: heard for each, heard in self._callers.items() if now - heard <= SILENT_S}
        return found

    def _is_told(self, key: _Key, now: float) -> bool:
        """Whether an instance counts what its caller counts, too."""
        if key[2] == "out":
            return False
        heard = self._callers.get((key[5], key[3]))
        return heard is not None and now - heard <= SILENT_S

    def __len__(self) -> int:
        return len(self._tracks)

    def __repr__(self) -> str:
        return f"<EndedCalls of {len(self)} series>"


def _add(ended: Ended, track: _Track) -> None:
    latest, taken = track.latest, track.taken
    took = Histogram()
    took.add(latest.histogram)
    calls, failures = latest.requests, errors_in(latest.statuses)
    if taken is not None:
        took.subtract(taken.histogram)
        calls -= taken.requests
        failures -= errors_in(taken.statuses)
    ended.calls += max(0, calls)
    ended.failures += max(0, failures)
    ended.took.merge(took)
