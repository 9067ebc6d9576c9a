"""The figures that the demo shows and sums up, one row for a service and one for an edge."""

from __future__ import annotations

import msgspec

from nats_mesh.telemetry.snapshots import Figures, Red, Snapshot

__all__ = ["Row", "edge_rows", "service_rows"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of a service, or of a caller (``source``) to a service.

    ``reporter`` says who counted: ``out`` the caller, ``in`` the instances. ``versions`` counts the calls by the
    version that answered, ``recent`` and ``rate_per_s`` cover the last window; of a service these are as its callers
    met it, ``total`` is what its instances counted.
    """

    source: str = ""
    service: str
    reporter: str = "in"
    rate_per_s: float
    total: Figures
    recent: Figures
    versions: dict[str, int] = {}
    last_error: str = ""
    #: How many attempts its calls took: what a circuit refused came nowhere. ``None``: as many as there were calls.
    attempts: int | None = None


def service_rows(snapshot: Snapshot) -> list[Row]:
    """One for each service that has answered calls."""
    versions: dict[str, dict[str, int]] = {}
    for each in snapshot.versions:
        versions.setdefault(each.service, {})[each.version] = each.red.total.requests
    return [
        msgspec.structs.replace(
            _row(service.red, service=service.name, versions=versions[service.name]),
            total=service.served.total,
            last_error=service.served.last_error,
        )
        for service in snapshot.services
        if service.name in versions
    ]


def edge_rows(snapshot: Snapshot) -> list[Row]:
    """One for each caller and service."""
    return [
        _row(edge.red, source=edge.source, service=edge.service, reporter=edge.reporter)
        for edge in snapshot.edges
    ]


def _row(
    red: Red,
    *,
    service: str,
    source: str = "",
    reporter: str = "in",
    versions: dict[str, int] | None = None,
) -> Row:
    return Row(
        source=source,
        service=service,
        reporter=reporter,
        rate_per_s=red.rate_per_s,
        total=red.total,
        recent=red.recent,
        versions=versions or {},
        last_error=red.last_error,
        attempts=red.attempts if reporter == "out" else None,
    )
