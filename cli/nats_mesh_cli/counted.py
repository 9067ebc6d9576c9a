"""What instances counted so far (``$SRV.STATS``), put where ``describe`` shows it."""

from __future__ import annotations

import time
from typing import Any

from nats_mesh import CallError, Mesh
from nats_mesh.discovery.services_api import StatsReply, Verb, parse_stats, request_subject
from nats_mesh.errors import CodecError
from nats_mesh_cli.bus import ask
from nats_mesh_cli.output import Record

__all__ = ["add_statistics", "statistics_of"]

_STATS_S = 1.0


async def statistics_of(mesh: Mesh, service: str) -> dict[str, StatsReply]:
    """What each instance counted, by its id; empty where that cannot be asked."""
    try:
        replies = await ask(mesh, request_subject(Verb.STATS, service), timeout_s=_STATS_S)
    except CallError:
        return {}  # counting is extra: who may not ask for it still sees the rest
    found = {}
    for payload in replies.payloads:
        try:
            stats = parse_stats(payload)
        except CodecError:
            continue
        found[stats.id] = stats
    return found


def add_statistics(document: Record, statistics: dict[str, StatsReply]) -> None:
    """Put the counters where they belong: into endpoints (summed over instances) and instances."""
    if document["kind"] == "instance":
        statistics = {k: v for k, v in statistics.items() if k == document["instance"]}
    endpoints = [document] if document["kind"] == "endpoint" else document["endpoints"]
    for endpoint in endpoints:
        counters = [c for stats in statistics.values() for c in stats.endpoints if c.name == endpoint["name"]]
        requests = sum(counter.requests for counter in counters)
        endpoint["statistics"] = {
            "requests": requests,
            "errors": sum(counter.errors for counter in counters),
            "average_ms": round(sum(c.busy_ns for c in counters) / requests / 1e6, 3) if requests else None,
            "last_error": next((c.last_error for c in counters if c.last_error), ""),
        }
    if document["kind"] == "service":
        for instance in document["instances"]:
            _fill_instance(instance, statistics.get(instance["instance"]))
    elif document["kind"] == "instance":
        _fill_instance(document, statistics.get(document["instance"]))


def _fill_instance(instance: dict[str, Any], stats: StatsReply | None) -> None:
    instance["requests"] = None if stats is None else sum(c.requests for c in stats.endpoints)
    instance["errors"] = None if stats is None else sum(c.errors for c in stats.endpoints)
    if stats is not None and stats.started is not None and instance["started"] is None:
        instance["started"] = stats.started.isoformat().replace("+00:00", "Z")
        instance["age_s"] = round(max(0.0, time.time() - stats.started.timestamp()), 3)
