"""``top --once``: what the view would show, for scripts and for pipes. Pure, but for who prints it."""

from __future__ import annotations

import msgspec

from nats_mesh.clock import rfc3339
from nats_mesh.telemetry.snapshots import Red, Trend
from nats_mesh_cli.event_records import record_of
from nats_mesh_cli.last_errors import aged_text, last_errors
from nats_mesh_cli.measured import (
    called_text,
    edge_record,
    endpoint_record,
    member_record,
    numbers,
    recent_record,
    service_record,
    trend_record,
    version_record,
)
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Record, dump, millis, percent_text, rate_text, success_text, table
from nats_mesh_cli.promised import LEVEL_STYLES
from nats_mesh_cli.stat_table import GAVE_UP, with_seldom
from nats_mesh_cli.top.following import followers
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.sheets import listed
from nats_mesh_cli.top.state import View, start
from nats_mesh_cli.trouble import breakers_level, met_level

__all__ = ["document", "report"]


def document(data: Data) -> Record:
    """Everything as one object in the words of :mod:`nats_mesh_cli.measured`; ``mesh`` is all of it together, lists
    are by name. ``recent`` and ``trend`` are what ``stat`` has not."""
    mesh, worst, errors = data.mesh, data.promised.worst, last_errors(data.mesh)
    at = mesh.at
    return {
        "mesh": {
            "at": rfc3339(mesh.wall_s),
            "namespace": mesh.namespace,
            "server": mesh.server,
            "connected": mesh.connected,
            "away_s": mesh.away_s,
            "rtt_s": mesh.rtt_s,
            "window_s": mesh.window_s,
            "ignored": mesh.ignored,
            "overflowed": mesh.overflowed,
            **numbers(mesh.red, at),
            **_detail(mesh.red, mesh.trend),
        },
        "services": [
            {
                **service_record(each, at, worst.get(each.name), errors.get((each.name, ""))),
                **_detail(each.red, each.trend),
            }
            for each in mesh.services
        ],
        "endpoints": [
            {
                **endpoint_record(each, at, errors.get((each.service, each.name))),
                **_detail(each.red, each.trend),
            }
            for each in mesh.endpoints
        ],
        "versions": [version_record(each, at) for each in mesh.versions],
        "edges": [
            {
                **edge_record(each, at),
                **_detail(each.red, each.trend),
                "endpoints": [{"endpoint": name, **numbers(red, at)} for name, red in each.endpoints.items()],
            }
            for each in mesh.edges
        ],
        "silent": [
            {
                "service": each.service,
                "instance": each.instance or None,
                "host_pid": each.name or None,
                "heard_s": each.heard_s,
            }
            for each in data.silent
        ],
        "members": [member_record(each, at, data.head) for each in mesh.members],
        "breakers": [msgspec.to_builtins(each) for each in mesh.breakers],
        "ejections": [msgspec.to_builtins(each) for each in mesh.ejections],
        "policies": _policies(data),
        "objectives": {
            "watched": data.promised.live,
            "at": data.promised.at or None,
            "alerts": [msgspec.to_builtins(each) for each in data.promised.alerts],
        },
        "events": [record_of(each) for each in mesh.events],
    }


def _detail(red: Red, trend: Trend) -> Record:
    return {"recent": recent_record(red), "trend": trend_record(trend)}


def _policies(data: Data) -> Record:
    epoch, revision = data.head
    return {
        "revision": revision,
        "epoch": epoch,
        "problem": data.store or None,
        "members": [
            {
                "service": each.service,
                "instance": each.id,
                "host_pid": each.name,
                "sync": each.state,
                "revision": each.revision,
                "reason": each.reason,
            }
            for each in followers(data)
        ],
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


def report(data: Data, fmt: Format, *, pretty: bool = False, color: bool = False) -> str:
    """``data`` in the form asked for: as tables the services and the edges, the worst first."""
    if fmt is Format.NAME:
        return "\n".join(each.name for each in data.mesh.services)
    if fmt.structured:
        return dump(document(data), fmt, pretty=pretty)
    wide = fmt is Format.WIDE
    state = start(data)
    worst, at = data.promised.worst, data.mesh.at
    errors = last_errors(data.mesh)
    services = [
        service_record(each, at, worst.get(each.name), errors.get((each.name, ""))) for each in listed(state)
    ]
    edges = [edge_record(each, at) for each in listed(msgspec.structs.replace(state, view=View.EDGES))]
    parts = [
        table(services, with_seldom(_SERVICES, services), wide=wide, color=color) if services else "",
        table(edges, with_seldom(_EDGES, edges), wide=wide, color=color) if edges else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _circuits(breakers: dict[str, int]) -> str:
    return ", ".join(f"{state} {count}" for state, count in sorted(breakers.items(), reverse=True))


def _success(record: Record) -> str:
    share = record["success"]
    return "-" if share is None else success_text(share)


def _verdict(record: Record) -> str:
    return met_level(record["success"], record["gave_up_share"])


_NUMBERS = (
    Column("SUCCESS", _success, right=True, style=_verdict),
    Column("RPS", lambda r: rate_text(r["rate_per_s"]), right=True),
    Column("TRIES/S", lambda r: rate_text(r["attempts_per_s"]), right=True, wide=True),
    Column("P50", lambda r: millis(r["p50_s"]), right=True),
    Column("P95", lambda r: millis(r["p95_s"]), right=True),
    Column("P99", lambda r: millis(r["p99_s"]), right=True),
    Column("RETRY%", lambda r: percent_text(r["retry_share"]), right=True),
    GAVE_UP,
    Column("BREAKER", lambda r: _circuits(r["breakers"]), style=lambda r: breakers_level(r["breakers"])),
    Column("LAST ERROR", lambda r: aged_text(r["last_error"], r["last_error_age_s"]), wide=True),
)
_SERVICES = (
    Column("SERVICE", lambda r: str(r["service"]), style=lambda r: "name"),
    Column("VERSION", lambda r: ",".join(r["versions"])),
    Column("READY", lambda r: f"{r['ready']}/{r['instances']}", right=True),
    *_NUMBERS,
    Column(
        "OBJECTIVES",
        lambda r: r["objectives"] or "-",
        wide=True,
        style=lambda r: LEVEL_STYLES.get(r["objectives"], ""),
    ),
)
_EDGES = (
    Column("EDGE", lambda r: f"{r['source']} → {called_text(r['service'])}", style=lambda r: "name"),
    *_NUMBERS,
)
