"""Whether a numbered message is news of its sender, where not everybody who says a number is to be believed.

A sender counts its messages; whoever hears one that came already leaves it out, and knows of gaps. Where the bus does
not check who publishes, anybody may say any number in another's name, so that no number may decide for long who is
heard. Two ways, by what messages are:

- each says something of its own (:class:`Numbering`): then what was said decides, and whoever made up a thousand
  numbers has muted nobody. Numbers tell of gaps, each followed only as far as a sender can have come meanwhile.
  Rejected: to leave out what is older than the newest, of one track or of several (whoever follows more numbers than
  there are tracks would mute the sender), and to ask presence (it can be forged by the same people).
- each is the sum of all before it (:class:`Succession`): then the order counts, and two who speak in one name would
  be added up wrongly. A number that the sender cannot have come to is not followed, and lower ones begin anew once the
  higher ones have been silent for a while.

Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from typing import Final

__all__ = ["AHEAD", "AHEAD_PER_S", "ANEW_S", "KEPT", "SILENT_S", "TRACKS", "Numbering", "Step", "Succession"]

#: How far a sender may be ahead of what was heard last: at once, and for each second since.
AHEAD: Final = 1000
AHEAD_PER_S: Final = 50.0
#: Silent for so long (seconds), whoever told high numbers makes room for lower ones.
ANEW_S: Final = 5.0
#: How many tracks are followed of one sender; the one that was followed last longest ago makes room.
TRACKS: Final = 4
#: How many of its latest messages are known again.
KEPT: Final = 16
#: Silent for so long (seconds), a sender makes room for another one.
SILENT_S: Final = 60.0


def _can_have_come(number: int, last: int, since: float, now: float) -> bool:
    """Whether who said ``last`` at ``since`` may say ``number`` at ``now``, if it is not lower."""
    return number - last <= AHEAD + AHEAD_PER_S * max(0.0, now - since)


class _Sender:
    """The last number of each track and when it came, the one followed last at the end; and what was said last."""

    __slots__ = ("said", "tracks")

    def __init__(self) -> None:
        self.tracks: list[tuple[int, float]] = []
        self.said: dict[int, None] = {}

    def is_new(self, body: bytes) -> bool:
        """Whether it has not said this lately."""
        key = hash(body)
        if key in self.said:
            return False
        if len(self.said) >= KEPT:
            del self.said[next(iter(self.said))]
        self.said[key] = None
        return True

    def gap(self, number: int, now: float) -> int:
        """How many numbers are missing before this one, in the track that it goes on with."""
        tracks = self.tracks
        for at in range(len(tracks) - 1, -1, -1):
            last, since = tracks[at]
            if number >= last and _can_have_come(number, last, since, now):
                del tracks[at]
                tracks.append((number, now))
                return max(0, number - last - 1)
        if len(tracks) >= TRACKS:
            del tracks[0]
        # Not the one followed last: who is heard all the time is the last to make room.
        tracks.insert(max(0, len(tracks) - 1), (number, now))
        return 0


class Numbering:
    """The messages of ``most`` senders; while all of them are heard, of more it takes nothing. ``lost`` counts numbers
    between that never came, as far as numbers are to be believed."""

    __slots__ = ("_most", "_senders", "lost")

    def __init__(self, most: int) -> None:
        self.lost = 0
        self._most = most
        #: Each with when it was heard last; who was heard longest ago comes first.
        self._senders: dict[Hashable, tuple[_Sender, float]] = {}

    def __len__(self) -> int:
        """How many senders are known."""
        return len(self._senders)

    def is_news(self, sender: Hashable, number: int, body: bytes, now: float) -> bool:
        """Whether a message of this ``number`` that says ``body`` is to be taken, at ``now`` (seconds): it is, unless
        it was heard already. One number may stand on several: a large message is several of one."""
        known = self._senders.pop(sender, None)
        if known is not None:
            found = known[0]
        elif len(self._senders) < self._most or self._make_room(now):
            found = _Sender()
        else:
            return False
        self._senders[sender] = found, now
        if not found.is_new(body):
            return False
        self.lost += found.gap(number, now)
        return True

    def _make_room(self, now: float) -> bool:
        """Forget who was heard longest ago, if that is long enough."""
        longest = next(iter(self._senders))
        if now - self._senders[longest][1] < SILENT_S:
            return False
        del self._senders[longest]
        return True


class Step(Enum):
    """What a number is to the one before it."""

    #: Late, or of somebody else: not to be taken.
    REFUSED = auto()
    #: The same one: another part of a large message, or the same part again.
    SAME = auto()
    NEXT = auto()
    #: Lower, after a silence: what was heard before is not of whoever tells now.
    ANEW = auto()


class Succession:
    """The numbers of one sender whose messages are sums; ``last`` is the one that was taken last (0: none)."""

    __slots__ = ("_since", "last")

    def __init__(self) -> None:
        self.last = 0
        self._since = 0.0

    def take(self, number: int, now: float) -> Step:
        """A message of this ``number`` (1 at least) has come at ``now`` (seconds)."""
        last, since = self.last, self._since
        if last and number > last and not _can_have_come(number, last, since, now):
            return Step.REFUSED
        if number < last and now - since < ANEW_S:
            return Step.REFUSED
        self.last, self._since = number, now
        if number < last:
            return Step.ANEW
        return Step.SAME if number == last else Step.NEXT
