"""``top --once``: what the view would show, for scripts and for pipes. Pure, but for who prints it."""

from __future__ import annotations

import msgspec

from nats_mesh.telemetry.snapshots import Edge, Red, Service
from nats_mesh_cli.last_errors import last_errors
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Record, dump, millis, success_text, table
from nats_mesh_cli.promised import LEVEL_STYLES
from nats_mesh_cli.top.following import followers
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.sheets import listed
from nats_mesh_cli.top.state import View, start
from nats_mesh_cli.top.words import rate_text
from nats_mesh_cli.trouble import breakers_level, success_level

__all__ = ["document", "report"]


def document(data: Data) -> Record:
    """Everything as one object: rates per second, durations in seconds, shares between 0 and 1; lists by name."""
    found: Record = msgspec.to_builtins(data.mesh)
    for name in ("at", "policies"):
        found.pop(name)
    epoch, revision = data.head
    policies = {
        "revision": revision,
        "epoch": epoch,
        "problem": data.store or None,
        "members": [msgspec.to_builtins(each) for each in followers(data)],
        "policies": [
            {
                "policy": each.name,
                "target": each.target,
                "revision": each.revision,
                "time": each.at,
                "operator": each.operator,
                "message": each.message,
            }
            for each in data.policies
        ],
    }
    promised = data.promised
    objectives = {
        "watched": promised.live,
        "at": promised.at or None,
        "alerts": [msgspec.to_builtins(each) for each in promised.alerts],
    }
    return {**found, "policies": policies, "objectives": objectives}


def report(data: Data, fmt: Format, *, pretty: bool = False, color: bool = False) -> str:
    """``data`` in the form asked for: as tables the services and the edges, the worst first."""
    if fmt is Format.NAME:
        return "\n".join(each.name for each in data.mesh.services)
    if fmt.structured:
        return dump(document(data), fmt, pretty=pretty)
    wide = fmt is Format.WIDE
    state = start(data)
    worst = data.promised.worst
    errors = last_errors(data.mesh)
    services = [
        {
            **_service(each),
            "alert": worst.get(each.name),
            "error": errors.get((each.name, ""), each.red.last_error),
        }
        for each in listed(state)
    ]
    edges = [_edge(each) for each in listed(msgspec.structs.replace(state, view=View.EDGES))]
    parts = [
        table(services, _SERVICES, wide=wide, color=color) if services else "",
        table(edges, _EDGES, wide=wide, color=color) if edges else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _numbers(red: Red) -> Record:
    return {
        "success": red.success,
        "rate": red.rate_per_s,
        "tries": red.attempts_per_s,
        "p50": red.p50_s,
        "p95": red.p95_s,
        "p99": red.p99_s,
        "retry": red.retry_share,
        "error": red.last_error,
    }


def _service(service: Service) -> Record:
    return {
        "service": service.name,
        "versions": ",".join(service.versions),
        "ready": service.ready,
        "instances": service.instances,
        "breaker": _circuits(service.breakers),
        "breakers": service.breakers,
        **_numbers(service.red),
    }


def _edge(edge: Edge) -> Record:
    return {
        "edge": f"{edge.source} → {edge.service}",
        "breaker": _circuits(edge.breakers),
        "breakers": edge.breakers,
        **_numbers(edge.red),
    }


def _circuits(breakers: dict[str, int]) -> str:
    return ", ".join(f"{state} {count}" for state, count in sorted(breakers.items(), reverse=True))


def _success(record: Record) -> str:
    share = record["success"]
    return "-" if share is None else success_text(share)


def _verdict(record: Record) -> str:
    return success_level(record["success"])


_NUMBERS = (
    Column("SUCCESS", _success, right=True, style=_verdict),
    Column("RPS", lambda r: rate_text(r["rate"]), right=True),
    Column("TRIES/S", lambda r: rate_text(r["tries"]), right=True, wide=True),
    Column("P50", lambda r: millis(r["p50"]), right=True),
    Column("P95", lambda r: millis(r["p95"]), right=True),
    Column("P99", lambda r: millis(r["p99"]), right=True),
    Column("RETRY%", lambda r: f"{r['retry'] * 100:.1f}", right=True),
    Column("BREAKER", lambda r: str(r["breaker"]), style=lambda r: breakers_level(r["breakers"])),
    Column("LAST ERROR", lambda r: str(r["error"]), wide=True),
)
_SERVICES = (
    Column("SERVICE", lambda r: str(r["service"]), style=lambda r: "name"),
    Column("VERSION", lambda r: str(r["versions"])),
    Column("READY", lambda r: f"{r['ready']}/{r['instances']}", right=True),
    *_NUMBERS,
    Column(
        "OBJECTIVES", lambda r: r["alert"] or "-", wide=True, style=lambda r: LEVEL_STYLES.get(r["alert"], "")
    ),
)
_EDGES = (Column("EDGE", lambda r: str(r["edge"]), style=lambda r: "name"), *_NUMBERS)
