"""Whether a full instance keeps its seat in the queue group: credit-based dispatch as a pure decision.

A queue group gives each member the same share, whatever it can take. An instance without a free slot can
refuse, which costs its caller a round trip and a pause, or leave the group for a while, so that the server
gives its share to the others. It leaves only while another instance has room: a group without members
would turn "full" into "nobody there".

It does so in two steps. What is full is *spent*: it says so to the other instances and stays. A moment later
(``settle_s``) it has *left*, where it is still full and another still has room. Two instances that fill up
in the same moment so hear of each other before either leaves. Away it stays for ``hold_s`` at least, and it
leaves at most once in that time, because every subscription that comes or goes empties caches in the server.
Where nobody else has room any more it is back at once.

Rejected: credit in numbers, as streams have it (an instance grants n calls, callers spend them). It needs an
account per caller and instance and a message per grant; here the server's queue group does the sharing, and
the only thing said is "not me, for now". The idea of leaving is that of Jini and of work-stealing pools: who
is busy does not compete for work.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["Credit", "Seat", "is_full", "is_roomy"]


class Seat(enum.StrEnum):
    """``open``: takes calls. ``spent``: full, and says so. ``left``: out of the queue group."""

    OPEN = "open"
    SPENT = "spent"
    LEFT = "left"


def is_full(loads: Iterable[tuple[int, int]]) -> bool:
    """Whether one of these (in flight, limit) has no free slot."""
    return any(in_flight >= limit for in_flight, limit in loads)


def is_roomy(loads: Iterable[tuple[int, int]]) -> bool:
    """Whether each of these (in flight, limit) has a quarter of its slots free, one at least.

    More than one free slot of many, so that what comes back is not full again with the next call.
    """
    return all(in_flight <= limit - max(1, limit // 4) for in_flight, limit in loads)


class Credit:
    """The seat of one instance. Feed it with :meth:`look` whenever a call came or went, when another instance
    spoke, and a few times a second while the seat is not open. Instants are seconds of one monotonic clock."""

    def __init__(self, *, settle_s: float = 0.05, hold_s: float = 1.0) -> None:
        self.seat = Seat.OPEN
        self._settle_s = settle_s
        self._hold_s = hold_s
        self._spent_at = 0.0
        self._left_at: float | None = None

    def look(self, now: float, loads: Iterable[tuple[int, int]], others: bool) -> Seat:
        """The seat from now on. ``loads``: in flight and limit of each endpoint that asks for credit (none: the
        seat is open); ``others``: whether another instance of the service has room."""
        loads = list(loads)
        if not loads:
            self.seat = Seat.OPEN
        elif self.seat is Seat.OPEN:
            if is_full(loads):
                self.seat, self._spent_at = Seat.SPENT, now
        elif self.seat is Seat.SPENT:
            if now - self._spent_at >= self._hold_s and is_roomy(loads):
                self.seat = Seat.OPEN
            elif others and self._may_leave(now) and is_full(loads):
                self.seat, self._left_at = Seat.LEFT, now
        elif not others:
            # Back at once, also before its time: somebody must sit there.
            self.seat = Seat.OPEN if is_roomy(loads) else Seat.SPENT
            self._spent_at = now
        elif self._left_at is not None and now - self._left_at >= self._hold_s and is_roomy(loads):
            self.seat = Seat.OPEN
        return self.seat

    def _may_leave(self, now: float) -> bool:
        # Differences, because they are exact where sums are rounded: `hold_s` is never cut short.
        settled = now - self._spent_at >= self._settle_s
        return settled and (self._left_at is None or now - self._left_at >= self._hold_s)
