"""What ``stat`` and ``edges`` show, as records: out of a snapshot of the mesh and what is known of objectives. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from nats_mesh.telemetry.snapshots import Capacity, Red, Snapshot
from nats_mesh_cli.last_errors import last_errors
from nats_mesh_cli.output import Record
from nats_mesh_cli.promised import Promised

__all__ = ["By", "edge_records", "service_records"]

By: TypeAlias = Literal["service", "endpoint", "version"]

_REPORTERS = {"out": "source", "in": "destination"}
_UNKNOWN = Promised()


def service_records(
    snapshot: Snapshot, by: By, services: Sequence[str] = (), promised: Promised = _UNKNOWN
) -> list[Record]:
    """A record for each service, or for each endpoint or version of one. ``objectives`` of a service is the worst level
    of them; ``None`` where nothing is promised of it, or nobody watches."""
    found: list[Record] = []
    worst, errors = promised.worst, last_errors(snapshot)
    if by == "service":
        found = [
            _record(
                {
                    "service": each.name,
                    "versions": each.versions,
                    "instances": each.instances,
                    "ready": each.ready,
                    "breakers": each.breakers,
                    "ejected": each.ejected,
                    "objectives": worst.get(each.name),
                },
                each.red,
                each.capacity,
                errors.get((each.name, "")),
            )
            for each in snapshot.services
        ]
    elif by == "endpoint":
        found = [
            _record(
                {
                    "service": each.service,
                    "endpoint": each.name,
                    "instances": each.instances,
                    "breakers": each.breakers,
                },
                each.red,
                each.capacity,
                errors.get((each.service, each.name)),
            )
            for each in snapshot.endpoints
        ]
    else:
        found = [
            _record(
                {"service": each.service, "version": each.version, "instances": each.instances},
                each.red,
                None,
            )
            for each in snapshot.versions
        ]
    return [record for record in found if not services or record["service"] in services]


def edge_records(snapshot: Snapshot, by: By, services: Sequence[str] = ()) -> list[Record]:
    """A record for each caller and service, or for each endpoint of it; ``services`` at either end."""
    found = []
    for edge in snapshot.edges:
        if services and edge.source not in services and edge.service not in services:
            continue
        ends = {"source": edge.source, "service": edge.service}
        if by == "endpoint":
            found += [
                _record({**ends, "endpoint": name, "reporter": _REPORTERS[edge.reporter]}, red, None)
                for name, red in edge.endpoints.items()
            ]
        else:
            own = {**ends, "reporter": _REPORTERS[edge.reporter], "breakers": edge.breakers}
            found.append(_record(own, edge.red, None))
    return found


def _record(names: Record, red: Red, capacity: Capacity | None, error: str | None = None) -> Record:
    record = {
        **names,
        "success": red.success,
        "rate_per_s": red.rate_per_s,
        "attempts_per_s": red.attempts_per_s,
        "errors_per_s": red.errors_per_s,
        "retry_share": red.retry_share,
        "p50_s": red.p50_s,
        "p90_s": red.p90_s,
        "p95_s": red.p95_s,
        "p99_s": red.p99_s,
        "in_flight": red.in_flight,
        "statuses": red.recent.statuses,
        "flags": red.flags,
        "last_error": red.last_error if error is None else error,
        "total": {
            "calls": red.total.requests,
            "errors": red.total.errors,
            "attempts": red.attempts,
            "retries": red.retries,
            "statuses": red.total.statuses,
            "success": red.total.success,
        },
    }
    if capacity is not None:
        record["capacity"] = {
            "concurrency_limit": capacity.limit,
            "in_flight": capacity.in_flight,
            "queue": capacity.queue,
            "busy": capacity.busy,
            "utilisation": capacity.utilisation,
            "headroom_per_s": capacity.headroom_per_s,
        }
    return record
