"""How many calls of each series of one member ended in its last window: what rates are made of. Pure.

Time here is the member's own: how old it says it is in its messages, so that neither the way they take nor when an
observer reads them changes a rate.

Rejected: a window of each series. Messages tell of all series at once, and what is the same for a hundred of them is
kept and moved once.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from nats_mesh.telemetry.intake import Intake
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.tallies import MICRO

__all__ = ["Moment", "Pace"]

#: In how many moments a window is told apart at most.
_MOMENTS: Final = 32
#: What is shorter (seconds) has no rate: ages are what somebody says, and by next to nothing numbers become infinite.
_INSTANT_S: Final = 1e-4


class Moment:
    """What was told by a member of ``age_s`` (seconds), and not before: calls of each series, and attempts beyond one a
    call."""

    __slots__ = ("age_s", "calls", "extra")

    def __init__(self, age_s: float) -> None:
        self.age_s = age_s
        self.calls: dict[Line, int] = {}
        self.extra: dict[Line, int] = {}


class Pace:
    """The moments of one member's last ``window_s`` (seconds). Ages may stand still, jump, or be made up: it is bounded
    whatever they are."""

    __slots__ = ("_active", "_before_s", "_moments", "_stirred", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._moments: deque[Moment] = deque()
        #: How old the member was at the last moment that is not in the window any more.
        self._before_s = -math.inf
        #: The series that have calls in the window, or a rate.
        self._active: dict[Line, None] = {}
        #: Whether something was told since the rates were made.
        self._stirred = False

    def __len__(self) -> int:
        """How many moments are kept."""
        return len(self._moments)

    def moment(self, age_s: float) -> Moment:
        """The one that a message of this age is of: parts of one message, and what is told at next to the same time,
        are one."""
        self._stirred = True
        moments = self._moments
        if moments:
            last = moments[-1]
            if age_s <= last.age_s:
                return last
            before_s = moments[-2].age_s if len(moments) > 1 else self._before_s
            if age_s - before_s < self._window_s / _MOMENTS:
                last.age_s = age_s
                return last
            if len(moments) > _MOMENTS:
                self._move(age_s)
        made = Moment(age_s)
        moments.append(made)
        return made

    def add(self, moment: Moment, line: Line, calls: int) -> None:
        """So many calls of a series ended."""
        known = moment.calls
        known[line] = known.get(line, 0) + calls
        line.recent += calls
        self._active[line] = None

    def add_extra(self, moment: Moment, line: Line, extra: int) -> None:
        """They took so many attempts beyond one a call."""
        moment.extra[line] = moment.extra.get(line, 0) + extra
        line.recent_extra += extra
        self._active[line] = None

    def _move(self, age_s: float) -> None:
        """The window ends at this age: let go of what is before it."""
        moments, start_s = self._moments, age_s - self._window_s
        while moments and moments[0].age_s <= start_s:
            moment = moments.popleft()
            self._before_s = moment.age_s
            for line, calls in moment.calls.items():
                line.recent -= calls
            for line, extra in moment.extra.items():
                line.recent_extra -= extra

    def settle(self, second: int, sides: dict[str, Intake]) -> None:
        """Say wherever the series count by how much their rates have changed, as of this second."""
        if not self._stirred:
            return
        self._stirred = False
        age_s = self._moments[-1].age_s
        self._move(age_s)
        before_s = self._before_s
        rests: list[Line] = []
        for line in self._active:
            span_s = age_s - (line.from_s if line.from_s > before_s else before_s)
            rate = tried = 0
            if span_s >= _INSTANT_S:
                rate = tried = int(line.recent * MICRO / span_s)
                if line.recent_extra:
                    tried = int((line.recent + line.recent_extra) * MICRO / span_s)
            if rate != line.rate or tried != line.tried:
                for tally in (line.intake.of_now(second), sides[line.side].of_now(second)):
                    tally.rate += rate - line.rate
                    tally.tried += tried - line.tried
                line.rate, line.tried = rate, tried
            if not line.recent and not line.recent_extra:
                rests.append(line)
        for line in rests:
            del self._active[line]

    def stop(self) -> None:
        """Its member tells no more: rates are not said until it does again."""
        self._stirred = False
