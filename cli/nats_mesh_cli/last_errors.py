"""The last error of each service and endpoint, also where it never came there: a circuit or a route refused the call.

Pure, over a snapshot. What the instances themselves say goes before, unless a circuit to them is open now, or a caller
was told of a later one: then what callers are told is what an operator looks for, where that is anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nats_mesh.telemetry.reds import goes_before
from nats_mesh.telemetry.snapshots import Edge, Red, Snapshot
from nats_mesh_cli.output import age

__all__ = ["LastError", "aged_text", "error_text", "last_error_of", "last_errors"]


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


def aged_text(text: str, age_s: float | None, *, brief: bool = False) -> str:
    """As :func:`error_text`, of an age that is known already; ``brief``: where the text needs the room."""
    return text if age_s is None or not text else f"{age(age_s)}{'' if brief else ' ago'} · {text}"


def last_errors(snapshot: Snapshot) -> dict[tuple[str, str], LastError]:
    """By service and endpoint, which is empty for all of it: those that differ from what the instances say."""
    found: dict[tuple[str, str], LastError] = {}
    callers: dict[str, list[Edge]] = {}
    for edge in snapshot.edges:
        if edge.reporter == "out" and edge.red.last_error:
            callers.setdefault(edge.service, []).append(edge)
    for service in snapshot.services if callers else ():
        met = [(edge, edge.red) for edge in callers.get(service.name, ())]
        if error := _latest(met, service.served, service.breakers):
            found[service.name, ""] = error
    for endpoint in snapshot.endpoints if callers else ():
        name = endpoint.name
        met = [
            (edge, edge.endpoints[name])
            for edge in callers.get(endpoint.service, ())
            if name in edge.endpoints
        ]
        if error := _latest(met, endpoint.served, endpoint.breakers):
            found[endpoint.service, name] = error
    return found


def _latest(met: Sequence[tuple[Edge, Red]], served: Red, breakers: Mapping[str, int]) -> LastError | None:
    """What a caller was told, where that says more than what the instances do: of who has an open circuit, then the
    latest."""
    is_open = bool(breakers.get("OPEN"))
    told = [
        (edge, red)
        for edge, red in met
        if goes_before(red, served) or (is_open and red.last_error not in ("", served.last_error))
    ]
    if not told:
        return None
    edge, red = min(told, key=_order)
    return LastError(f"{edge.source} was told: {red.last_error}", red.last_error_at)


def _order(met: tuple[Edge, Red]) -> tuple[bool, float, str]:
    edge, red = met
    at = red.last_error_at
    return not edge.breakers.get("OPEN"), math.inf if at is None else -at, edge.source
