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
from nats_mesh.telemetry.stats_messages import StatsMessage
from nats_mesh.telemetry.tracks import SILENT_S, Kind, Tracks

__all__ = ["MAX_OF_ONE", "MAX_TRACKS", "SILENT_S", "Ended", "EndedCalls"]

MAX_TRACKS: Final = 20_000
#: How many of them one service or client may fill: whoever makes up names leaves room for the others.
MAX_OF_ONE: Final = MAX_TRACKS // 2


class Ended:
    """Calls that ended: how many, how many failed, how long those took that began."""

    __slots__ = ("calls", "failures", "took")

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.took = Histogram()

    def __repr__(self) -> str:
        return f"<Ended {self.failures} of {self.calls} failed>"


class EndedCalls:
    """What a watcher has heard since ``now``."""

    def __init__(self, now: float) -> None:
        self._tracks = Tracks(now, room=self._has_room)
        #: How many of them are whose.
        self._of_one: Counter[str] = Counter()
        #: Who tells of his own calls, and of which service, and when he did last.
        self._callers: dict[tuple[str, str], float] = {}

    @property
    def overflowed(self) -> int:
        """Series that found no room."""
        return self._tracks.overflowed

    @property
    def stale(self) -> int:
        """Words that came late or again."""
        return self._tracks.stale

    def hear(self, message: StatsMessage, now: float) -> None:
        """One message of a member."""
        if not self._tracks.hear(message, now):
            return
        member, instance = message.service, message.instance
        for each in message.series:
            if each.side == "out":
                key = Kind(member, instance, "out", each.service, each.endpoint, each.peer, each.subset or "")
                if key in self._tracks:
                    self._callers[member, each.service] = now

    def _has_room(self, key: Kind) -> bool:
        if len(self._tracks) >= MAX_TRACKS or self._of_one[key.member] >= MAX_OF_ONE:
            return False
        self._of_one[key.member] += 1
        return True

    def skip(self, now: float) -> None:
        """Nobody listened for a while: what ended meanwhile is not known to have ended now."""
        self._tracks.skip(now)
        for key, track in self._tracks:
            if now - track.heard > SILENT_S:
                self._forget(key)

    def take(self, now: float) -> dict[tuple[str, str], Ended]:
        """What has ended since this was asked last, by service and endpoint."""
        found: dict[tuple[str, str], Ended] = {}
        for key, track in self._tracks:
            news = track.take()
            if news is not None:
                if not self._is_told(key, now):
                    ended = found.setdefault((key.service, key.endpoint), Ended())
                    calls, failures, took = news
                    ended.calls += calls
                    ended.failures += failures
                    ended.took.merge(took)
            elif now - track.heard > SILENT_S:
                self._forget(key)
        if len(self._callers) > MAX_TRACKS // 2:
            self._callers = {each: heard for each, heard in self._callers.items() if now - heard <= SILENT_S}
        return found

    def _forget(self, key: Kind) -> None:
        self._tracks.forget(key)
        self._of_one[key.member] -= 1
        if not self._of_one[key.member]:
            del self._of_one[key.member]

    def _is_told(self, key: Kind, now: float) -> bool:
        """Whether an instance counts what its caller counts, too."""
        if key.side == "out":
            return False
        heard = self._callers.get((key.peer, key.service))
        return heard is not None and now - heard <= SILENT_S

    def __len__(self) -> int:
        return len(self._tracks)

    def __repr__(self) -> str:
        return f"<EndedCalls of {len(self)} series>"
