"""What everybody reads off a call that has ended at an instance, whatever he tells of it."""

from __future__ import annotations

from typing import Final

from nats_mesh.layers.base import Arrival
from nats_mesh.telemetry.series import OTHER
from nats_mesh.wire import headers as h

__all__ = ["attempt_of", "endpoint_of", "queued_s", "trace_of"]

_MAX_ATTEMPT: Final = 2**31


def endpoint_of(call: Arrival) -> str:
    """What was called; one name for everything that does not exist."""
    name: str = OTHER if call.kind is None else call.kind.endpoint.name
    return name


def queued_s(call: Arrival, took_s: float) -> float:
    """How long a call of ``took_s`` seconds waited before anything looked at it; what an injected delay held it
    (``held_s``) is no part of that."""
    return max(0.0, (call.started - call.received if call.started else took_s) - call.held_s)


def trace_of(block: bytes) -> str:
    """The trace that a request belongs to; empty where it says nothing valid of that."""
    parent = h.trace_parent(block)
    return "" if parent is None else parent.trace_id


def attempt_of(block: bytes) -> int:
    """Which attempt of its caller's a request is; 1 where it does not say, or nonsense."""
    try:
        attempt = h.int_field(block, h.ATTEMPT)
    except ValueError:
        return 1
    return 1 if attempt is None else min(max(1, attempt), _MAX_ATTEMPT)
