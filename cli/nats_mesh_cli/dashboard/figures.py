"""Numbers as the page has them: rounded to what a person can see. Pure."""

from __future__ import annotations

from nats_mesh.telemetry.snapshots import Capacity, Red
from nats_mesh_cli.last_errors import error_text, last_error_of
from nats_mesh_cli.output import Record
from nats_mesh_cli.trouble import gave_up_level, met_level

__all__ = ["capacity_of", "millis", "red_of"]


def red_of(red: Red, at: float) -> Record:
    """What everything has that is called. ``at`` is the snapshot's."""
    return {
        "rate_per_s": round(red.rate_per_s, 1 if red.rate_per_s >= 10 else 2),
        "attempts_per_s": round(red.attempts_per_s, 1 if red.attempts_per_s >= 10 else 2),
        "errors_per_s": round(red.errors_per_s, 2),
        "success": None if red.success is None else round(red.success, 5),
        "p50_ms": millis(red.p50_s),
        "p90_ms": millis(red.p90_s),
        "p99_ms": millis(red.p99_s),
        "in_flight": red.in_flight,
        "retry_share": _some(red.retry_share),
        "gave_up": _some(red.gave_up),
        "gave_up_level": gave_up_level(red.gave_up),
        "success_level": met_level(red.success, red.gave_up),
        "last_error": error_text(last_error_of(red), at),
    }


def capacity_of(capacity: Capacity) -> Record:
    """How much of a limit is used."""
    used = capacity.utilisation
    return {
        "limit": capacity.limit,
        "in_flight": capacity.in_flight,
        "queue": capacity.queue,
        "utilisation": None if used is None else _some(used),
        "headroom_per_s": None if capacity.headroom_per_s is None else round(capacity.headroom_per_s),
    }


def _some(share: float) -> float:
    """A share without digits that nobody sees: what is some is neither nothing nor all."""
    return min(max(round(share, 6), 1e-6), 1.0 - 1e-6) if 0.0 < share < 1.0 else share


def millis(seconds: float | None) -> float | None:
    """A duration in milliseconds, in three digits."""
    return None if seconds is None else float(f"{seconds * 1e3:.3g}")
