"""How long a message waited before it was read, without comparing clocks of two machines.

The sender stamps its own monotonic clock. The difference (received − sent) of one connection has a
minimum, reached by messages that did not wait; what exceeds that minimum is age. Two machines' clocks
drift apart by some parts per million, so the minimum is let rise slowly: a plain all-time minimum
would, after a day of a slower sender, call every message seconds old.

The idea of judging delay by a running minimum of one-way differences is that of LEDBAT (RFC 6817,
"base delay"); the rejected alternative, synchronised wall clocks, fails where clocks jump.
"""

from __future__ import annotations

__all__ = ["DRIFT", "AgeGauge"]

#: How much the base may rise: seconds per second. Crystal clocks differ by at most about 100 ppm each.
DRIFT = 200e-6


#: From this age on (seconds) a message counts as held up, and when everything of a connection has been held up
#: for so long (seconds), it was not the messages that waited: the sender's clock stood still (a suspended machine).
HELD_UP_S = 0.25
REBASE_S = 10.0


class _Known:
    """What is known of one connection: the base difference, when it was judged, and the present run of late ones."""

    __slots__ = ("at", "base", "late_floor", "late_since")

    def __init__(self, base: float, at: float) -> None:
        self.base = base
        self.at = at
        self.late_since = -1.0
        self.late_floor = 0.0


class AgeGauge:
    """The base difference of every known connection; beyond ``limit`` the one known longest is forgotten."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int = 4096) -> None:
        self._known: dict[str, _Known] = {}
        self._limit = limit

    def age(self, connection: str, sent_s: float, received_s: float, fallback_s: float = 0.0) -> float:
        """Seconds this message waited; ``fallback_s`` for a connection of which nothing is known yet.

        ``sent_s`` is the sender's clock, ``received_s`` ours; only differences within one connection count.
        ``fallback_s`` is how long our own loop just stood still. What arrived meanwhile waited for some part
        of that, nobody knows which, and so it makes no base: one that is too low would make the
        connection's messages old for hours.
        """
        difference = received_s - sent_s
        known = self._known.get(connection)
        if known is None:
            if fallback_s > 0.0:
                return fallback_s
            if len(self._known) >= self._limit:
                del self._known[next(iter(self._known))]
            self._known[connection] = _Known(difference, received_s)
            return 0.0
        if received_s > known.at:
            known.base += (received_s - known.at) * DRIFT
            known.at = received_s
        age = difference - known.base
        if age <= HELD_UP_S:
            known.late_since = -1.0
            if age <= 0.0:
                known.base, age = difference, 0.0
            return age
        return self._late(known, difference, received_s)

    def _late(self, known: _Known, difference: float, received_s: float) -> float:
        if known.late_since < 0.0:
            known.late_since, known.late_floor = received_s, difference
        known.late_floor = min(known.late_floor, difference)
        if received_s - known.late_since >= REBASE_S:
            known.base, known.late_since = known.late_floor, -1.0
        return difference - known.base

    def __contains__(self, connection: str) -> bool:
        return connection in self._known

    def __len__(self) -> int:
        return len(self._known)
