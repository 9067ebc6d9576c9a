"""What ``stat`` and ``edges`` show, as records: out of a snapshot of the mesh and what is known of objectives. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.last_errors import last_errors
from nats_mesh_cli.measured import (
    edge_record,
    endpoint_record,
    numbers,
    reporter,
    service_record,
    version_record,
)
from nats_mesh_cli.output import Record
from nats_mesh_cli.promised import Promised

__all__ = ["By", "edge_records", "service_records"]

By: TypeAlias = Literal["service", "endpoint", "version"]

_UNKNOWN = Promised()


def service_records(
    snapshot: Snapshot, by: By, services: Sequence[str] = (), promised: Promised = _UNKNOWN
) -> list[Record]:
    """A record for each service, or for each endpoint or version of one. ``objectives`` of a service is the worst level
    of them; ``None`` where nothing is promised of it, or nobody watches."""
    worst, errors, at = promised.worst, last_errors(snapshot), snapshot.at
    if by == "service":
        found = [
            service_record(each, at, worst.get(each.name), errors.get((each.name, "")))
            for each in snapshot.services
        ]
    elif by == "endpoint":
        found = [
            endpoint_record(each, at, errors.get((each.service, each.name))) for each in snapshot.endpoints
        ]
    else:
        found = [version_record(each, at) for each in snapshot.versions]
    return [record for record in found if not services or record["service"] in services]


def edge_records(snapshot: Snapshot, by: By, services: Sequence[str] = ()) -> list[Record]:
    """A record for each caller and service, or for each endpoint of it; ``services`` at either end."""
    found: list[Record] = []
    for edge in snapshot.edges:
        if services and edge.source not in services and edge.service not in services:
            continue
        if by == "endpoint":
            found += [
                {
                    "source": edge.source,
                    "service": edge.service,
                    "endpoint": name,
                    "reporter": reporter(edge),
                    **numbers(red, snapshot.at),
                }
                for name, red in edge.endpoints.items()
            ]
        else:
            found.append(edge_record(edge, snapshot.at))
    return found
