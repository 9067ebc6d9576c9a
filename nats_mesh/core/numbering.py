"""Whether a numbered message is news of its sender, where not everybody who says a number is to be believed.

A sender counts its messages; whoever hears one twice, or an older one, leaves it out, and knows of gaps. Where the bus
does not check who publishes, anybody may say a number far ahead in another's name, and the sender would seem to repeat
itself for the rest of its life. So a number is followed only as far as a sender can have come meanwhile, and what
stands elsewhere begins another track: the sender's own goes on beside it. Rejected: to begin anew at whatever is lower
(every message that comes twice would), and to ask presence (it can be forged by the same people). Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["AHEAD", "AHEAD_PER_S", "SILENT_S", "TRACKS", "Numbering"]

#: How far a sender may be ahead of what was heard last: at once, and for each second since.
AHEAD: Final = 1000
AHEAD_PER_S: Final = 50.0
#: How many tracks are followed of one sender; the one that was followed last longest ago makes room.
TRACKS: Final = 4
#: Silent for so long (seconds), a sender makes room for another one.
SILENT_S: Final = 60.0


class Numbering:
    """The numbers of ``most`` senders; while all of them are heard, of more it takes nothing. ``lost`` counts numbers
    between that never came."""

    __slots__ = ("_most", "_tracks", "lost")

    def __init__(self, most: int) -> None:
        self.lost = 0
        self._most = most
        #: Of each sender: the last number of each track and when it came, the one followed last at the end; who was
        #: heard longest ago comes first.
        self._tracks: dict[Hashable, list[tuple[int, float]]] = {}

    def __len__(self) -> int:
        """How many senders are known."""
        return len(self._tracks)

    def is_news(self, sender: Hashable, number: int, now: float) -> bool:
        """Whether a message of this ``number`` is to be taken, at ``now`` (seconds). One number may come several times
        in a row: a large message is several of one."""
        tracks = self._tracks.pop(sender, None)
        if tracks is None:
            if len(self._tracks) >= self._most:
                longest = next(iter(self._tracks))
                if now - self._tracks[longest][-1][1] < SILENT_S:
                    return False
                del self._tracks[longest]
            self._tracks[sender] = [(number, now)]
            return True
        self._tracks[sender] = tracks
        for at in range(len(tracks) - 1, -1, -1):
            last, since = tracks[at]
            if 0 <= number - last <= AHEAD + AHEAD_PER_S * max(0.0, now - since):
                self.lost += max(0, number - last - 1)
                del tracks[at]
                tracks.append((number, now))
                return True
        ahead = number > max(last for last, _ in tracks)
        if len(tracks) >= TRACKS:
            del tracks[0]
        # Not the one followed last: who is heard all the time is the last to make room.
        tracks.insert(len(tracks) - 1, (number, now))
        return ahead
