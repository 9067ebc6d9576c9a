"""The figures that the demo shows and sums up, one row for a service and one for an edge."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import msgspec

from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.series import errors_in
from nats_mesh.telemetry.snapshots import NOTHING, Figures, Red, Snapshot

__all__ = ["Own", "Row", "edge_rows", "own_calls", "service_rows"]


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo's own callers asked of a service, as its instances counted: calls, those that failed by the
    service's fault, and how the last of these failed. What strangers try is none of it."""

    calls: int = 0
    errors: int = 0
    last_error: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of a service, or of a caller (``source``) to a service.

    ``reporter`` says who counted: ``out`` the caller, ``in`` the instances. ``recent`` and ``rate_per_s`` cover the
    last window. Of a service all of these are as its callers met it; ``served`` is what its instances counted, all
    callers together, and ``versions`` that by the version that answered.
    """

    source: str = ""
    service: str
    reporter: str = "in"
    rate_per_s: float
    total: Figures
    recent: Figures
    served: Figures = NOTHING.total
    versions: dict[str, Figures] = {}
    own: Own = Own()
    #: What its callers met last.
    last_error: str = ""
    #: How many attempts its calls took: what a circuit refused came nowhere. ``None``: as many as there were calls.
    attempts: int | None = None


def own_calls(answered: Iterable[tuple[str, str, Line]], own: Collection[str]) -> dict[str, Own]:
    """What ``own`` callers asked of each service, out of what its instances answered
    (:meth:`~nats_mesh.telemetry.folding.Fold.answered`)."""
    found: dict[str, Own] = {}
    last: dict[str, float] = {}
    for service, caller, line in answered:
        if caller not in own:
            continue
        known, errors = found.get(service, Own()), errors_in(line.others)
        at = -math.inf if line.error_at is None else line.error_at
        later = bool(errors and line.last_error) and at >= last.get(service, -math.inf)
        if later:
            last[service] = at
        found[service] = Own(
            calls=known.calls + line.ok + sum(line.others.values()),
            errors=known.errors + errors,
            last_error=line.last_error if later else known.last_error,
        )
    return found


def service_rows(snapshot: Snapshot, own: Mapping[str, Own]) -> list[Row]:
    """One for each service that has answered calls; ``own`` as :func:`own_calls` found it."""
    versions: dict[str, dict[str, Figures]] = {}
    for each in snapshot.versions:
        versions.setdefault(each.service, {})[each.version] = each.red.total
    return [
        msgspec.structs.replace(
            _row(service.red, service=service.name),
            served=service.served.total,
            versions=versions[service.name],
            own=own.get(service.name, Own()),
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


def _row(red: Red, *, service: str, source: str = "", reporter: str = "in") -> Row:
    return Row(
        source=source,
        service=service,
        reporter=reporter,
        rate_per_s=red.rate_per_s,
        total=red.total,
        recent=red.recent,
        last_error=red.last_error,
        attempts=red.attempts if reporter == "out" else None,
    )
