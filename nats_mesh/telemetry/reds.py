"""Rate, errors and duration of a group of calls, as a view shows them. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.telemetry.group import Group
from nats_mesh.telemetry.snapshots import Red
from nats_mesh.telemetry.tallies import MICRO, Tally, in_order

__all__ = ["NOTHING", "red", "red_of"]

NOTHING: Final = Red(recent=Tally().figures(), total=Tally().figures())
_NOBODY: Final = Group()


def red_of(group: Group | None, rate: float | None = None, tried: float | None = None) -> Red:
    """The calls of a group; ``rate`` and ``tried`` where its callers know better."""
    if group is None:
        if not rate:
            return NOTHING
        group = _NOBODY
    total = group.total
    own = total.rate / MICRO
    rates = (own if rate is None else rate, total.tried / MICRO if tried is None else tried)
    if group.row is not None and group.row_of == rates:
        return group.row
    made = red(group.window, total, *rates, own, group.last_error)
    if group is not _NOBODY:
        group.row, group.row_of = made, rates
    return made


def red(window: Tally, total: Tally, rate: float, tried: float, own: float, last_error: str) -> Red:
    """Calls of the last window and of ever; ``own`` is the rate of whoever counted them."""
    recent = window.figures()
    return Red(
        rate_per_s=rate,
        attempts_per_s=tried,
        errors_per_s=own * recent.errors / recent.requests if recent.requests else 0.0,
        success=recent.success,
        p50_s=recent.p50_s,
        p90_s=recent.p90_s,
        p95_s=recent.p95_s,
        p99_s=recent.p99_s,
        in_flight=total.in_flight,
        retry_share=max(0.0, 1.0 - rate / tried) if tried > 0.0 else 0.0,
        flags=in_order(window.flags),
        last_error=last_error,
        recent=recent,
        total=total.figures(),
        attempts=total.attempts,
        retries=in_order(total.retries),
    )
