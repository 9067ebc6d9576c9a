"""Rate, errors and duration of calls, as a view shows them: of a group, and of several together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.snapshots import NOTHING, Red
from nats_mesh.telemetry.tallies import MICRO, Tally, in_order

__all__ = ["goes_before", "red_of", "red_of_all"]

#: An error at both ends of a call is told by both, in messages of any delay (seconds).
_BOTH_ENDS_S: Final = 2.0


def goes_before(met: Red, served: Red) -> bool:
    """Whether the last error that callers met says more than the one that the instances told of: these told of none,
    or the callers' surely came after it."""
    if met.last_error in ("", served.last_error):
        return False
    if not served.last_error:
        return True
    if met.last_error_at is None or served.last_error_at is None:
        return False
    return met.last_error_at > served.last_error_at + _BOTH_ENDS_S


def red_of(group: Group | None) -> Red:
    """The calls of a group, as whoever counted them tells; the same object as long as nothing has changed."""
    if group is None:
        return NOTHING
    if group.row is None:
        group.row = _red(group.window, group.total, group.last_error, group.error_at)
    return group.row


def red_of_all(groups: Sequence[Group]) -> Red:
    """The calls of several groups that have none in common."""
    if len(groups) < 2:
        return red_of(groups[0]) if groups else NOTHING
    window, total = Tally(), Tally()
    last: Group | None = None
    for group in groups:
        window.add(group.window)
        total.add(group.total)  # it has durations only where the view wants those of totals
        if group.last_error and (last is None or _when(group) >= _when(last)):
            last = group
    text, at = ("", None) if last is None else (last.last_error, last.error_at)
    return _red(window, total, text, at)


def _when(group: Group) -> float:
    """When its last error was; what has no time came before all others."""
    return -math.inf if group.error_at is None else group.error_at


def _red(window: Tally, total: Tally, last_error: str, error_at: float | None) -> Red:
    """Calls of the last window and of ever."""
    recent = window.figures()
    rate, tried = total.rate / MICRO, total.tried / MICRO
    return Red(
        rate_per_s=rate,
        attempts_per_s=tried,
        errors_per_s=rate * recent.errors / recent.requests if recent.requests else 0.0,
        success=recent.success,
        p50_s=recent.p50_s,
        p90_s=recent.p90_s,
        p95_s=recent.p95_s,
        p99_s=recent.p99_s,
        in_flight=total.in_flight,
        retry_share=max(0.0, 1.0 - rate / tried) if tried > 0.0 else 0.0,
        flags=in_order(window.flags),
        last_error=last_error,
        last_error_at=error_at,
        recent=recent,
        total=total.figures(),
        attempts=total.attempts,
        retries=in_order(total.retries),
    )
