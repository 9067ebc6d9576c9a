"""Rate, errors and duration of a group of calls, as a view shows them. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.snapshots import UNSERVED, Red
from nats_mesh.telemetry.tallies import MICRO, Tally, in_order

__all__ = ["NOTHING", "is_later", "red", "red_of"]

#: An error at both ends of a call is told by both, in messages of any delay (seconds).
_BOTH_ENDS_S: Final = 2.0

NOTHING: Final = UNSERVED


def is_later(met: Red, served: Red) -> bool:
    """Whether the last error of callers is surely not the one that the instances told of last, but came after it."""
    if not met.last_error or met.last_error_at is None:
        return False
    return served.last_error_at is not None and met.last_error_at > served.last_error_at + _BOTH_ENDS_S


def red_of(group: Group | None) -> Red:
    """The calls of a group, as whoever counted them tells."""
    if group is None:
        return NOTHING
    total = group.total
    rates = total.rate / MICRO, total.tried / MICRO
    if group.row is None or group.row_of != rates:
        group.row, group.row_of = red(group.window, total, *rates, group.last_error, group.error_at), rates
    return group.row


def red(
    window: Tally, total: Tally, rate: float, tried: float, last_error: str, error_at: float | None
) -> Red:
    """Calls of the last window and of ever."""
    recent = window.figures()
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
