"""Which events are trouble, for everything that shows some. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.telemetry.kinds import EventKind

__all__ = ["is_bad"]

_BAD: Final = frozenset(
    str(kind)
    for kind in (
        EventKind.ALERT_FIRING,
        EventKind.BREAKER_OPEN,
        EventKind.CONFIG_REJECTED,
        EventKind.EJECTION_BEGAN,
        EventKind.EJECTION_PANIC,
        EventKind.FAULT_SET,
        EventKind.INSTANCE_GONE,
        EventKind.INSTANCE_SUSPECT,
        EventKind.POLICY_REJECTED,
        EventKind.RETRY_DENIED,
        EventKind.ROLLOUT_FAILING,
        EventKind.ROLLOUT_RETURNING,
    )
)


def is_bad(kind: str) -> bool:
    """Whether an event of this kind wants somebody's attention."""
    return kind in _BAD
