"""How long a message waited before it was read, without comparing clocks of two machines.

The sender stamps its own monotonic clock. The difference (received − sent) of one connection has a
minimum, reached by messages that did not wait; what exceeds that minimum is age. Two machines' clocks
drift apart by some parts per million, so the minimum is let rise slowly: a plain all-time minimum
would, after a day of a slower sender, call every message seconds old.

The idea of judging delay by a running minimum of one-way differences is that of LEDBAT (RFC 6817,
"base delay"); the rejected alternative, synchronised wall clocks, fails where clocks jump.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["DRIFT", "AgeGauge"]

#: How much the base may rise: seconds per second. Crystal clocks differ by at most about 100 ppm each.
DRIFT = 200e-6


class AgeGauge:
    """The base difference of every known connection; the least recently heard ones are forgotten first."""

    __slots__ = ("_base", "_limit")

    def __init__(self, limit: int = 4096) -> None:
        self._base: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._limit = limit

    def age(self, connection: str, sent_s: float, received_s: float, fallback_s: float = 0.0) -> float:
        """Seconds this message waited; ``fallback_s`` for a connection of which nothing is known yet.

        ``sent_s`` is the sender's clock, ``received_s`` ours; only differences within one connection count.
        ``fallback_s`` is how long our own loop just stood still. What arrived meanwhile waited for some part
        of that, nobody knows which, and so it makes no base: one that is too low would make the
        connection's messages old for hours.
        """
        difference = received_s - sent_s
        known = self._base.get(connection)
        if known is None:
            if fallback_s > 0.0:
                return fallback_s
            self._base[connection] = (difference, received_s)
            if len(self._base) > self._limit:
                self._base.popitem(last=False)
            return 0.0
        base, at = known
        base += max(0.0, received_s - at) * DRIFT
        age = difference - base
        if age <= 0.0:
            base, age = difference, 0.0
        self._base[connection] = (base, received_s)
        self._base.move_to_end(connection)
        return age

    def __len__(self) -> int:
        return len(self._base)
