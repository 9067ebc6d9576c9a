"""What the page of one service is told, beside what all views have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.core.histogram import BOUNDS
from nats_mesh.telemetry.snapshots import Endpoint, Member, Red, Snapshot
from nats_mesh_cli.dashboard.figures import capacity_of, millis, red_of
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.output import Record
from nats_mesh_cli.trouble import breakers_level, member_level

__all__ = ["service_document"]

#: How many bars a histogram has at most.
_BARS: Final = 16


def service_document(snapshot: Snapshot, name: str) -> Record | None:
    """Everything known of one service; ``None`` where nothing is: no service, and nobody who calls."""
    service = next((each for each in snapshot.services if each.name == name), None)
    edges = [edge for edge in snapshot.edges if name in (edge.source, called_text(edge.service))]
    if service is None and not edges:
        return None
    return {
        "name": name,
        "statuses": {} if service is None else service.red.recent.statuses,
        "flags": {} if service is None else service.red.flags,
        "total": _total(None if service is None else service.red),
        "histogram": [] if service is None else _histogram(service.red.recent.buckets),
        "endpoints": [_endpoint(each, snapshot.at) for each in snapshot.endpoints if each.service == name],
        "versions": [
            {"version": each.version, "instances": each.instances, **red_of(each.red, snapshot.at)}
            for each in snapshot.versions
            if each.service == name
        ],
        "instances": [_instance(each, snapshot.at) for each in snapshot.members if each.service == name],
        "calls": [
            {
                "source": edge.source,
                "service": called_text(edge.service),
                "endpoint": endpoint,
                **red_of(red, snapshot.at),
            }
            for edge in edges
            for endpoint, red in sorted(edge.endpoints.items())
        ],
        "breakers": [
            {
                "caller": each.caller,
                "instance": each.instance,
                "endpoint": each.endpoint,
                "subset": each.subset,
                "state": each.state.value,
            }
            for each in snapshot.breakers
            if each.service == name
        ],
        "ejections": [
            {"caller": each.caller, "instance": each.instance, "ejected": each.ejected}
            for each in snapshot.ejections
            if each.service == name
        ],
    }


def _total(red: Red | None) -> Record:
    return {
        "requests": 0 if red is None else red.total.requests,
        "errors": 0 if red is None else red.total.errors,
    }


def _histogram(buckets: Sequence[tuple[float, int]]) -> list[Record]:
    """Bars from the shortest to the longest call, those that nobody fell in too: a gap is something to see.

    ``le_ms`` is a bar's upper bound, ``None`` for what is beyond the last one.
    """
    filled = dict(buckets)
    beyond = sum(count for bound, count in filled.items() if bound > BOUNDS[-1])
    inside = [at for at, bound in enumerate(BOUNDS) if filled.get(bound)]
    if not inside:
        return [{"le_ms": None, "count": beyond}] if beyond else []
    first, last = inside[0], inside[-1]
    width = 1
    while (last - first) // width >= _BARS:
        width *= 2
    bars = [
        {
            "le_ms": millis(BOUNDS[min(at + width - 1, len(BOUNDS) - 1)]),
            "count": sum(filled.get(bound, 0) for bound in BOUNDS[at : at + width]),
        }
        for at in range(first, last + 1, width)
    ]
    return [*bars, {"le_ms": None, "count": beyond}] if beyond else bars


def _endpoint(endpoint: Endpoint, at: float) -> Record:
    return {
        "name": endpoint.name,
        "instances": endpoint.instances,
        "breakers": dict(endpoint.breakers),
        "breakers_level": breakers_level(endpoint.breakers),
        "capacity": capacity_of(endpoint.capacity),
        **red_of(endpoint.red, at),
    }


def _instance(member: Member, at: float) -> Record:
    return {
        "id": member.id,
        "name": member.name,
        "version": member.version,
        "state": member.state,
        "level": member_level(member),
        "labels": dict(member.labels),
        "started": member.started,
        "heard_s": round(member.heard_s, 1),
        "reports": member.reports,
        "rtt_ms": millis(member.rtt_s),
        "capacity": capacity_of(member.capacity),
        **red_of(member.red, at),
    }
