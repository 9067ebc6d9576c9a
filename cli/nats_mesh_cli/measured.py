"""What was measured of a mesh as records: the one vocabulary of every ``-o json`` that shows it. Pure.

Units are in the names: rates a second, durations in seconds, shares between 0 and 1; what is not known is ``None``. The
words are those of the metrics where these have one (docs/observability.md): ``concurrency_limit``, ``queue_depth``,
``in_flight``, ``reporter``. A record that names a service, an endpoint or an instance does so under that word.
"""

from __future__ import annotations

import math
from typing import Final

from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.snapshots import (
    Capacity,
    Edge,
    Endpoint,
    Member,
    Red,
    Service,
    Trend,
    VersionRow,
)
from nats_mesh_cli.last_errors import LastError, last_error_of
from nats_mesh_cli.output import Record

__all__ = [
    "called_text",
    "capacity_record",
    "edge_record",
    "endpoint_record",
    "member_record",
    "numbers",
    "recent_record",
    "reporter",
    "service_record",
    "trend_record",
    "version_record",
]

_REPORTERS: Final = {"out": "source", "in": "destination"}
#: For people; no name of a service has a blank in it.
_PLAIN_TEXT: Final = "plain NATS"


def called_text(service: str) -> str:
    """Whom an edge leads to, for people: a service, or subjects that are no service's. Records have ``_PLAIN``, as the
    metrics do; which subjects nobody counts, as there may be any number of them."""
    return _PLAIN_TEXT if service == PLAIN else service


def numbers(red: Red, at: float, last_error: LastError | None = None) -> Record:
    """What everything has that is called: of the window, and in ``total`` of all calls that were ever counted.
    ``at`` is the snapshot's. ``last_error`` where callers know a better one
    (:func:`nats_mesh_cli.last_errors.last_errors`)."""
    last = last_error or last_error_of(red)
    return {
        "success": red.success,
        "rate_per_s": red.rate_per_s,
        "attempts_per_s": red.attempts_per_s,
        "errors_per_s": red.errors_per_s,
        "retry_share": red.retry_share,
        "gave_up_share": red.gave_up,
        "p50_s": red.p50_s,
        "p90_s": red.p90_s,
        "p95_s": red.p95_s,
        "p99_s": red.p99_s,
        "in_flight": red.in_flight,
        "statuses": red.recent.statuses,
        "flags": red.flags,
        "last_error": last.text,
        "last_error_age_s": last.age_s(at),
        "total": {
            "calls": red.total.requests,
            "errors": red.total.errors,
            "attempts": red.attempts,
            "retries": red.retries,
            "statuses": red.total.statuses,
            "success": red.total.success,
        },
    }


def recent_record(red: Red) -> Record:
    """The window's calls one by one, as far as they are told apart: how many durations were at most ``le_s`` (``None``:
    however long) and above the bound before."""
    return {
        "calls": red.recent.requests,
        "errors": red.recent.errors,
        "duration_sum_s": red.recent.sum_s,
        "histogram": [
            {"le_s": bound if math.isfinite(bound) else None, "count": count}
            for bound, count in red.recent.buckets
        ],
    }


def trend_record(trend: Trend) -> Record:
    """The last minute, a value a second, the oldest first."""
    return {"rate_per_s": trend.rates, "success": trend.success, "p99_s": trend.p99_s}


def capacity_record(capacity: Capacity) -> Record:
    """How much of a limit is used."""
    return {
        "concurrency_limit": capacity.limit,
        "in_flight": capacity.in_flight,
        "queue_depth": capacity.queue,
        "busy": capacity.busy,
        "utilisation": capacity.utilisation,
        "headroom_per_s": capacity.headroom_per_s,
    }


def service_record(
    service: Service, at: float, objectives: str | None, last_error: LastError | None = None
) -> Record:
    """A service. ``objectives`` is the worst level of them; ``None``: nothing is promised, or nobody watches."""
    return {
        "service": service.name,
        "versions": service.versions,
        "instances": service.instances,
        "ready": service.ready,
        "suspect": service.suspect,
        "draining": service.draining,
        "breakers": service.breakers,
        "ejected": service.ejected,
        "objectives": objectives,
        **numbers(service.red, at, last_error),
        "served": numbers(service.served, at),
        "capacity": capacity_record(service.capacity),
    }


def endpoint_record(endpoint: Endpoint, at: float, last_error: LastError | None = None) -> Record:
    """One operation of a service."""
    return {
        "service": endpoint.service,
        "endpoint": endpoint.name,
        "instances": endpoint.instances,
        "breakers": endpoint.breakers,
        **numbers(endpoint.red, at, last_error),
        "served": numbers(endpoint.served, at),
        "capacity": capacity_record(endpoint.capacity),
    }


def version_record(row: VersionRow, at: float) -> Record:
    """One version of a service."""
    return {
        "service": row.service,
        "version": row.version,
        "instances": row.instances,
        **numbers(row.red, at),
    }


def reporter(edge: Edge) -> str:
    """Who counts an edge's calls, by the label of the metrics."""
    return _REPORTERS[edge.reporter]


def edge_record(edge: Edge, at: float) -> Record:
    """Who calls whom."""
    return {
        "source": edge.source,
        "service": edge.service,
        "reporter": reporter(edge),
        "breakers": edge.breakers,
        **numbers(edge.red, at),
    }


def member_record(member: Member, at: float, head: tuple[int, int]) -> Record:
    """An instance of a service, or a client; ``sync`` is where it stands with the policies, of which ``head`` is the
    revision that holds."""
    verdict = member.verdict(head)
    return {
        "instance": member.id,
        "service": member.service,
        "host_pid": member.name,
        "kind": member.kind,
        "version": member.version,
        "state": member.state,
        "labels": member.labels,
        "started": member.started,
        "heard_s": member.heard_s,
        "reports": member.reports,
        "rtt_s": member.rtt_s,
        "reconnects": member.reconnects,
        "policy_source": member.policy_source,
        "sync": verdict.state,
        "revision": member.revision[1] if verdict.follows else None,
        "reason": verdict.reason,
        **numbers(member.red, at),
        "capacity": capacity_record(member.capacity),
        "endpoints": [
            {"endpoint": name, "capacity": capacity_record(each)} for name, each in member.endpoints.items()
        ],
    }
