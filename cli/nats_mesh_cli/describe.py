"""``describe``: everything known of a service, an endpoint or an instance, as a document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nats_mesh import CallError, Mesh
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.discovery.services_api import InfoReply, StatsReply, Verb, parse_stats, request_subject
from nats_mesh.endpoint import DEFAULT_CONCURRENCY
from nats_mesh.errors import CodecError
from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh_cli.bus import ask, connected
from nats_mesh_cli.catalog import endpoint_records, instance_record, service_records, visible
from nats_mesh_cli.describe_text import render
from nats_mesh_cli.errors import FAILED, CliError, did_you_mean
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import listed, missing_endpoint, missing_service
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump

__all__ = ["describe", "document_of", "effective_options"]

_STATS_S = 1.0


async def describe(options: Options, out: Out, what: str) -> None:
    """Print what is known of ``what``; exit code 1 where there is no such thing."""
    if options.format is Format.NAME:
        raise CliError("describe: -o name has nothing to show", hint="use -o json, yaml, or leave -o out")
    async with connected(options) as mesh:
        everything = await fetch(mesh, options, out)
        infos = visible(everything, mesh.namespace)
        document = document_of(what, infos, time.time())
        if document is None:
            raise _missing(what, infos, everything, mesh.namespace)
        _add_statistics(document, await _statistics(mesh, document["service"]))
    if options.format.structured:
        out.data(dump(document, options.format, pretty=out.tty))
    else:
        out.data(render(document, color=out.color))


def document_of(what: str, infos: Sequence[InfoReply], now_s: float) -> Record | None:
    """The document of a service, a ``service.endpoint`` or an instance; ``None`` for what is not there.

    :class:`nats_mesh.ConfigError` where the beginning of an id fits several instances.
    """
    own = [info for info in infos if info.name == what]
    if own:
        return _service(own, now_s)
    for record in endpoint_records(infos):
        if record["endpoint"] == what:
            return {"kind": "endpoint", **_endpoint(record), "layers": _layers(record["kind"])}
    return _instance(what, infos, now_s)


def _service(own: Sequence[InfoReply], now_s: float) -> Record:
    instances = [instance_record(info, now_s) for info in own]
    summary = service_records(instances)[0]
    return {
        "kind": "service",
        "service": summary["service"],
        "origin": summary["kind"],
        "namespace": summary["namespace"],
        "description": next((info.description for info in own if info.description), ""),
        "versions": summary["versions"],
        "state": summary["state"],
        "ready": summary["ready"],
        "labels": summary["labels"],
        "instances": instances,
        "endpoints": [_endpoint(record) for record in endpoint_records(own)],
        "layers": _layers(summary["kind"]),
    }


def _endpoint(record: Record) -> Record:
    kept = ("endpoint", "service", "name", "namespace", "versions", "instances", "request", "response")
    return {
        **{key: record[key] for key in kept},
        "origin": record["kind"],
        "subject": record["subject"],
        "queue": record["queue"],
        "schema_hash": record["schema_hash"],
        "schema_differs": len(record["schemas"]) > 1,
        "schema_omitted": record["schema_omitted"],
        "request_schema": record["request_schema"],
        "response_schema": record["response_schema"],
        "options": effective_options(record),
    }


def effective_options(record: Record) -> Record:
    """What applies to calls of an endpoint, each value with its source: ``endpoint`` (declared) or ``default``."""
    if record["kind"] != "mesh":
        return {"timeout_s": {"value": DEFAULT_TIMEOUT_S, "source": "default"}}
    timeout_ms, concurrency = record["timeout_ms"], record["concurrency"]
    declared = concurrency is not None and concurrency != DEFAULT_CONCURRENCY
    return {
        "timeout_s": {
            "value": DEFAULT_TIMEOUT_S if timeout_ms is None else timeout_ms / 1000.0,
            "source": "default" if timeout_ms is None else "endpoint",
        },
        "idempotent": {
            "value": bool(record["idempotent"]),
            "source": "endpoint" if record["idempotent"] else "default",
        },
        "concurrency": {
            "value": DEFAULT_CONCURRENCY if concurrency is None else concurrency,
            "source": "endpoint" if declared else "default",
        },
    }


def _instance(prefix: str, infos: Sequence[InfoReply], now_s: float) -> Record | None:
    records = {(info.name, info.id): instance_record(info, now_s) for info in infos}
    exact = [r for r in records.values() if prefix in (r["instance"], r["host_pid"])]
    found = exact or [
        r
        for r in records.values()
        if r["instance"].startswith(prefix) or (r["host_pid"] or "").startswith(prefix)
    ]
    if not prefix or not found:
        return None
    if len(found) > 1:
        names = [f"{r['service']} {r['instance']} ({r['host_pid'] or 'foreign'})" for r in found]
        raise CliError(
            f"{prefix!r} fits {len(found)} instances", hint=f"give more of the id: {listed(names)}"
        )
    record = found[0]
    own = [info for info in infos if (info.name, info.id) == (record["service"], record["instance"])]
    return {
        **record,
        "kind": "instance",
        "origin": record["kind"],
        "endpoints": [_endpoint(each) for each in endpoint_records(own)],
        "layers": _layers(record["kind"]),
    }


def _layers(origin: str) -> Record:
    """The chain that a call passes; a service outside the mesh has the caller's side alone."""
    inbound = INBOUND if origin == "mesh" else ()
    return {
        "outbound": [{"layer": position.name, "why": position.why} for position in OUTBOUND],
        "inbound": [{"layer": position.name, "why": position.why} for position in inbound],
    }


def _missing(
    what: str, infos: Sequence[InfoReply], everything: Sequence[InfoReply], namespace: str
) -> CliError:
    service, dot, endpoint = what.partition(".")
    text = f"there is no service, endpoint or instance {what!r} in namespace {namespace!r}"
    if dot and any(info.name == service for info in infos):
        return CliError(text, hint=missing_endpoint(service, endpoint, infos), code=FAILED)
    known = [r["endpoint"] for r in endpoint_records(infos)] + sorted({info.name for info in infos})
    hint = missing_service(service, everything, namespace)
    if "use -n" not in hint and (guess := did_you_mean(what, known)):
        hint = guess
    return CliError(text, hint=hint, code=FAILED)


async def _statistics(mesh: Mesh, service: str) -> dict[str, StatsReply]:
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


def _add_statistics(document: Record, statistics: dict[str, StatsReply]) -> None:
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
