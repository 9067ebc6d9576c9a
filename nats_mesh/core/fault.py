"""Faults that an operator puts into an instance on purpose: which of its calls wait, which are answered with an error.

One fault per endpoint, and one for all endpoints that have none of their own; a new one takes the place of
the old, so that the table is never larger than the service. Every fault ends by itself.

Rejected: a list of faults that all apply, in order. What two shares of 10 % come to is nothing that anybody
who looks at a failing call wants to work out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from nats_mesh.core.shares import share_text
from nats_mesh.errors import ConfigError, Status

__all__ = ["EVERY", "MAX_DELAY_S", "MAX_FAULT_S", "Fault", "Faults"]

#: Stands for every endpoint.
EVERY = ""
#: The longest delay, and the longest time for which a fault may be set (seconds).
MAX_DELAY_S = 3_600.0
MAX_FAULT_S = 86_400.0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """``share`` of the calls wait for ``delay_s`` seconds first, and end with ``abort`` then, where those are set.

    ``until`` is an instant of the instance's monotonic clock (seconds). What cannot work is a :class:`ConfigError`.
    """

    until: float
    delay_s: float = 0.0
    abort: Status | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.delay_s <= MAX_DELAY_S:
            raise ConfigError(f"fault: the delay must be from 0 to {MAX_DELAY_S:g} s, got {self.delay_s!r}")
        if not self.delay_s and self.abort is None:
            raise ConfigError("fault: it does nothing; give it a delay, an abort, or both")
        if self.abort is Status.OK:
            raise ConfigError("fault: OK is no error to abort with")
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"fault: the share must be above 0% and at most 100%, got {self.share!r}")
        if not math.isfinite(self.until):
            raise ConfigError("fault: it must end at some time")

    def __str__(self) -> str:
        parts = []
        if self.delay_s:
            parts.append(f"delay {self.delay_s * 1000:g} ms")
        if self.abort is not None:
            parts.append(f"abort {self.abort}")
        return f"{', '.join(parts)} for {share_text(self.share, 6)} of calls"


class Faults:
    """The faults of one instance, by endpoint."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def set(self, endpoint: str, fault: Fault) -> None:
        """From now on, for ``endpoint`` or for :data:`EVERY` one that has none of its own."""
        self._faults[endpoint] = fault

    def clear(self, endpoint: str) -> list[str]:
        """End the fault of ``endpoint``, or with :data:`EVERY` all of them; the endpoints whose fault it was."""
        if endpoint != EVERY:
            return [endpoint] if self._faults.pop(endpoint, None) is not None else []
        ended, self._faults = list(self._faults), {}
        return ended

    def of(self, endpoint: str, now: float) -> Fault | None:
        """What applies to calls of ``endpoint`` at ``now``: its own fault, else that of all."""
        for name in (endpoint, EVERY):
            fault = self._faults.get(name)
            if fault is not None and now < fault.until:
                return fault
        return None

    def draw(self, endpoint: str, now: float, chance: Callable[[], float]) -> Fault | None:
        """What is done to this call; ``chance`` is asked only where a fault applies to a share of the calls."""
        fault = self.of(endpoint, now)
        if fault is None or (fault.share < 1.0 and chance() >= fault.share):
            return None
        return fault

    def expire(self, now: float) -> list[str]:
        """Forget what is over; the endpoints whose fault it was."""
        over = [name for name, fault in self._faults.items() if now >= fault.until]
        for name in over:
            del self._faults[name]
        return over

    def next_end(self) -> float | None:
        """The instant at which the next one ends; ``None`` where there is none."""
        return min((fault.until for fault in self._faults.values()), default=None)

    def active(self, now: float) -> list[tuple[str, Fault]]:
        """What is set at ``now``, by endpoint, that of all first."""
        return sorted(
            ((name, fault) for name, fault in self._faults.items() if now < fault.until),
            key=lambda pair: pair[0],
        )

    def __len__(self) -> int:
        return len(self._faults)
