"""The last error of each service and endpoint, also where it never came there: a circuit or a route refused the call.

Pure, over a snapshot. What the instances themselves say goes before, unless a circuit to them is open now, or a caller
was told of a later one: then what callers are told is what an operator looks for, where that is anything else.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from nats_mesh.telemetry.reds import is_later
from nats_mesh.telemetry.snapshots import Edge, Red, Snapshot

__all__ = ["LastError", "aged_text", "ago", "error_text", "last_error_of", "last_errors"]

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


class LastError(NamedTuple):
    """What went wrong last, and when (an instant of :attr:`Snapshot.at`'s clock; ``None`` where nobody says)."""

    text: str
    at: float | None

    def age_s(self, now: float) -> float | None:
        """How long ago that was (seconds) at ``now``, an instant of the same clock."""
        return None if self.at is None or not self.text else max(0.0, now - self.at)


def last_error_of(red: Red) -> LastError:
    """The last error of some calls."""
    return LastError(red.last_error, red.last_error_at)


def error_text(error: LastError, now: float) -> str:
    """An error for people, with its age: an old one is no news."""
    return aged_text(error.text, error.age_s(now))


def aged_text(text: str, age_s: float | None) -> str:
    """As :func:`error_text`, of an age that is known already."""
    return text if age_s is None or not text else f"{ago(age_s)} · {text}"


def ago(age_s: float) -> str:
    """How long ago something was, in one unit: that is enough to tell what is new from what is not."""
    for unit, size in _UNITS:
        if age_s >= size:
            return f"{int(age_s // size)}{unit} ago"
    return f"{int(age_s)}s ago"


def last_errors(snapshot: Snapshot) -> dict[tuple[str, str], LastError]:
    """By service and endpoint, which is empty for all of it: those that differ from what the instances say."""
    found: dict[tuple[str, str], LastError] = {}
    callers: dict[str, list[Edge]] = {}
    for edge in snapshot.edges:
        if edge.reporter == "out" and edge.red.last_error:
            callers.setdefault(edge.service, []).append(edge)
    if not callers:
        return found
    for edges in callers.values():
        if len(edges) > 1:  # those with an open circuit before others
            edges.sort(key=_order)
    for service in snapshot.services:
        name, served = service.name, service.served
        for edge in callers.get(name, ()):
            if _counts(edge.red, served, circuits=service.breakers):
                found[name, ""] = _told(edge, edge.red)
                break
    for endpoint in snapshot.endpoints:
        place, served = endpoint.name, endpoint.served
        for edge in callers.get(endpoint.service, ()):
            red = edge.endpoints.get(place)
            if red is not None and _counts(red, served, circuits=endpoint.breakers):
                found[endpoint.service, place] = _told(edge, red)
                break
    return found


def _counts(met: Red, served: Red, *, circuits: dict[str, int]) -> bool:
    """Whether what a caller was told goes before what the instances say."""
    if met.last_error in ("", served.last_error):
        return False
    return bool(circuits.get("OPEN")) or not served.last_error or is_later(met, served)


def _order(edge: Edge) -> tuple[bool, float, str]:
    at = edge.red.last_error_at
    return not edge.breakers.get("OPEN"), math.inf if at is None else -at, edge.source


def _told(edge: Edge, red: Red) -> LastError:
    return LastError(f"{edge.source} was told: {red.last_error}", red.last_error_at)
