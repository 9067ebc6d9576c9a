"""How fast a promise is being broken: burn rates over several windows, and from when on somebody is woken.

A promise that 99.9% of the calls go well allows one in a thousand to fail: its budget. A burn rate of 1 uses the
budget up exactly over the promise's window, one of 14.4 uses 2% of thirty days in an hour. A level is reached where
both a long window (it is no moment's trouble) and a short one (it goes on) burn faster than the pair's factor.
Source: Google, The Site Reliability Workbook, ch. 5, "Multiwindow, Multi-Burn-Rate Alerts".

Whoever watches has seen a part of a window only, for as long as he is there. What he has not seen is taken as calls
in the same number of which none failed: so he says nothing that he does not know, and is sure within a minute where
everything fails. What somebody else has said he takes back only once he has seen enough himself.

Rejected: one threshold on the error rate (it wakes somebody for every blip, or is late for a slow leak), and all of the
calls of a window kept one by one (three days of them). Rings of sixty buckets per window cost the same however many
calls there are; a window so covers between 59/60 of its span and all of it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = [
    "CALM_S",
    "PAIRS",
    "SLOTS",
    "Alarm",
    "Ledger",
    "Level",
    "Pair",
    "Reading",
    "Seen",
    "is_whole",
    "pairs_for",
]

#: Buckets of one window.
SLOTS: Final = 60
#: How long nothing may hold any more before a level is left (seconds): hysteresis.
CALM_S: Final = 120.0
#: So much of a window must have been seen before it can be said that it does not burn.
_ENOUGH: Final = 0.9
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


class Level(enum.IntEnum):
    """How urgent it is."""

    OK = 0
    TICKET = 1
    PAGE = 2


class Pair(msgspec.Struct, frozen=True):
    """Two windows (seconds) that must both burn at ``factor`` or faster for ``level``."""

    long_s: float
    short_s: float
    factor: float
    level: Level


#: For a promise over thirty days.
PAIRS: Final = (
    Pair(_HOUR, 5 * _MINUTE, 14.4, Level.PAGE),
    Pair(6 * _HOUR, 30 * _MINUTE, 6.0, Level.PAGE),
    Pair(_DAY, 2 * _HOUR, 3.0, Level.TICKET),
    Pair(3 * _DAY, 6 * _HOUR, 1.0, Level.TICKET),
)


def pairs_for(share: float, window_s: float) -> tuple[Pair, ...]:
    """The pairs for a promise of ``share`` over ``window_s``: those that can hold at all.

    A pair that looks further back than the promise does has no meaning. In a short promise no factor is higher than
    what uses up the whole budget within the long window. Where more calls than there are would have to fail, as for
    14.4 times the budget of 90%, the pair is left out.
    """
    budget = 1.0 - share
    found = []
    for pair in PAIRS:
        factor = min(pair.factor, window_s / pair.long_s)
        if pair.long_s <= window_s and factor * budget < 1.0:
            found.append(msgspec.structs.replace(pair, factor=factor))
    return tuple(found)


def is_whole(seen_s: float, window_s: float) -> bool:
    """Whether as much of a window was seen as its buckets ever hold: all but the oldest one, and a moment."""
    return seen_s >= window_s * (1.0 - 1.5 / SLOTS)


class Seen(msgspec.Struct, frozen=True):
    """What was seen of one window: ``calls``, how many of them were ``bad``, within ``seen_s`` of its ``window_s``."""

    window_s: float
    calls: int
    bad: int
    seen_s: float

    @property
    def part(self) -> float:
        """How much of the window was seen, 0 … 1."""
        return min(1.0, self.seen_s / self.window_s)

    def burn(self, budget: float) -> float:
        """How many times faster than allowed the budget is used, in what was seen."""
        return self.bad / self.calls / budget if self.calls else 0.0

    def sure(self, budget: float) -> float:
        """How fast it is used at least, over the whole window: as if nothing failed in what was not seen."""
        return self.burn(budget) * self.part


class _Ring:
    """One window: calls, bad ones and seconds seen, in buckets."""

    __slots__ = ("_bad", "_calls", "_index", "_seen_s", "_width_s", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._width_s = window_s / SLOTS
        self._index = -SLOTS
        self._calls = [0] * SLOTS
        self._bad = [0] * SLOTS
        self._seen_s = [0.0] * SLOTS

    def _advance(self, now: float) -> None:
        index = math.floor(now / self._width_s)
        for passed in range(max(self._index + 1, index - SLOTS + 1), index + 1):
            at = passed % SLOTS
            self._calls[at] = self._bad[at] = 0
            self._seen_s[at] = 0.0
        self._index = max(self._index, index)

    def add(self, now: float, calls: int, bad: int, seen_s: float) -> None:
        self._advance(now)
        at = self._index % SLOTS
        self._calls[at] += calls
        self._bad[at] += bad
        self._seen_s[at] += seen_s

    def seen(self, now: float) -> Seen:
        self._advance(now)
        seen_s = math.fsum(self._seen_s)
        return Seen(self.window_s, sum(self._calls), sum(self._bad), min(self.window_s, seen_s))


class Ledger:
    """The calls of one promise, over every window that its pairs ask for. Times are monotonic seconds, never
    negative; what comes with an earlier one than before counts as of now."""

    __slots__ = ("_rings",)

    def __init__(self, pairs: Iterable[Pair]) -> None:
        spans = sorted({span for pair in pairs for span in (pair.long_s, pair.short_s)})
        self._rings = {span: _Ring(span) for span in spans}

    def add(self, now: float, calls: int, bad: int, seen_s: float) -> None:
        """``calls`` ended, ``bad`` of them badly, in the ``seen_s`` seconds before ``now``."""
        for ring in self._rings.values():
            ring.add(now, calls, bad, seen_s)

    def seen(self, now: float, window_s: float) -> Seen:
        """One window, as of ``now``."""
        return self._rings[window_s].seen(now)

    def all(self, now: float) -> tuple[Seen, ...]:
        """Every window, the shortest first."""
        return tuple([ring.seen(now) for ring in self._rings.values()])


class Reading(msgspec.Struct, frozen=True):
    """What the pairs say at one moment: the highest level that surely holds, the pair that says so, and the highest
    level of which it is not sure that it does not hold."""

    level: Level
    pair: Pair | None
    possible: Level


class Alarm:
    """The level that is in force. ``since`` is when it was reached (monotonic seconds)."""

    __slots__ = ("_adopted", "_budget", "_calm", "_calm_s", "_pairs", "level", "since")

    def __init__(self, share: float, pairs: Iterable[Pair], *, calm_s: float = CALM_S) -> None:
        self.level = Level.OK
        self.since = 0.0
        self._budget = 1.0 - share
        self._pairs = tuple(pairs)
        self._calm_s = calm_s
        #: Since when nothing of the level in force holds.
        self._calm: float | None = None
        #: Whether somebody else said so, and it was not seen here yet.
        self._adopted = False

    def read(self, ledger: Ledger, now: float) -> Reading:
        """What the pairs say, whatever is in force."""
        holds, by, possible = Level.OK, None, Level.OK
        for pair in self._pairs:
            long, short = ledger.seen(now, pair.long_s), ledger.seen(now, pair.short_s)
            if min(long.sure(self._budget), short.sure(self._budget)) >= pair.factor:
                possible = max(possible, pair.level)
                if pair.level > holds:
                    holds, by = pair.level, pair
            elif not (self._is_clear(long, pair) or self._is_clear(short, pair)):
                possible = max(possible, pair.level)
        return Reading(holds, by, possible)

    def _is_clear(self, seen: Seen, pair: Pair) -> bool:
        return seen.part >= _ENOUGH and seen.burn(self._budget) < pair.factor

    def update(self, ledger: Ledger, now: float) -> tuple[Reading, bool]:
        """Bring the level up to date; true where it has changed.

        Up at once; down where nothing of the level in force has held for ``calm_s``. A level that was taken over is
        left only where it is sure for so long that it does not hold.
        """
        reading = self.read(ledger, now)
        if reading.level >= self.level:
            self._calm, self._adopted = None, False
            return reading, self._go(reading.level, now)
        if self._adopted and reading.possible >= self.level:
            self._calm = None
            return reading, False
        if self._calm is None:
            self._calm = now
        if now - self._calm < self._calm_s:
            return reading, False
        self._calm, self._adopted = None, False
        return reading, self._go(reading.level, now)

    def adopt(self, level: Level, now: float) -> None:
        """Somebody who may have seen more said so: take it over where it is more urgent."""
        if level > self.level:
            self._calm, self._adopted = None, True
            self._go(level, now)

    def _go(self, level: Level, now: float) -> bool:
        if level == self.level:
            return False
        self.level, self.since = level, now
        return True

    def __repr__(self) -> str:
        return f"<Alarm {self.level.name} since {self.since:.0f}>"
