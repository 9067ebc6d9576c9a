"""The last error of each service and endpoint, also where it never came there: a circuit or a route refused the call.

Pure, over a snapshot. What the instances themselves say goes before, unless a circuit to them is open now: then what
its callers are told is what an operator looks for, where that is anything else.
"""

from __future__ import annotations

from nats_mesh.telemetry.snapshots import Edge, Snapshot

__all__ = ["last_errors"]


def last_errors(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """By service and endpoint, which is empty for all of it: those that differ from what the instances say."""
    found: dict[tuple[str, str], str] = {}
    callers: dict[str, list[Edge]] = {}
    for edge in snapshot.edges:
        if edge.reporter == "out" and edge.red.last_error:
            callers.setdefault(edge.service, []).append(edge)
    if not callers:
        return found
    for edges in callers.values():
        if len(edges) > 1:  # those with an open circuit before others
            edges.sort(key=lambda edge: (not edge.breakers.get("OPEN"), edge.source))
    for service in snapshot.services:
        if service.breakers.get("OPEN") or not service.served.last_error:
            told = [
                _told(edge, edge.red.last_error)
                for edge in callers.get(service.name, ())
                if edge.red.last_error != service.served.last_error
            ]
            if told:
                found[service.name, ""] = told[0]
    for endpoint in snapshot.endpoints:
        if endpoint.breakers.get("OPEN") or not endpoint.served.last_error:
            told = [
                _told(edge, error)
                for edge in callers.get(endpoint.service, ())
                if endpoint.name in edge.endpoints
                and (error := edge.endpoints[endpoint.name].last_error)
                not in ("", endpoint.served.last_error)
            ]
            if told:
                found[endpoint.service, endpoint.name] = told[0]
    return found


def _told(edge: Edge, error: str) -> str:
    return f"{edge.source} was told: {error}"
