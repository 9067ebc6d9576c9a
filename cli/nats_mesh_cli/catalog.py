"""What is there: the answers to ``$SRV.INFO`` made into records of instances, services and endpoints. Pure.

Records are plain dictionaries as ``-o json`` shows them: raw numbers with their unit in the name.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from nats_mesh.core.presence import Announcement, EndpointInfo, Kind
from nats_mesh.core.shares import share_text
from nats_mesh.discovery.announced import announced
from nats_mesh.discovery.services_api import EndpointReply, InfoReply, parse_info
from nats_mesh.errors import UNREADABLE, CodecError
from nats_mesh_cli.output import Record
from nats_mesh_cli.schemas import type_name

__all__ = [
    "FOREIGN",
    "MESH",
    "announcement_of",
    "endpoint_records",
    "fault_text",
    "instance_record",
    "read_infos",
    "service_records",
    "version_key",
    "visible",
]

MESH, FOREIGN = "mesh", "foreign"


class _Fault(msgspec.Struct):
    """A fault as an instance lists it in its metadata; ``endpoint`` is empty for all of them."""

    endpoint: str = ""
    delay_ms: float = 0.0
    abort: str | None = None
    share: float = 1.0
    left_ms: float = 0.0


_decode_faults = msgspec.json.Decoder(list[_Fault]).decode


def read_infos(payloads: Iterable[bytes]) -> tuple[list[InfoReply], int]:
    """The legible answers, ordered, each instance once; and how many were not legible."""
    found: dict[tuple[str, str], InfoReply] = {}
    bad = 0
    for payload in payloads:
        try:
            info = parse_info(payload)
        except CodecError:
            bad += 1
            continue
        if info.metadata.get("mesh.kind", "service") == "service":
            found[info.name, info.id] = info
    return [found[key] for key in sorted(found)], bad


def visible(infos: Iterable[InfoReply], namespace: str | None) -> list[InfoReply]:
    """Those of one namespace and all that belong to none; everything where ``namespace`` is ``None``."""
    return [i for i in infos if namespace is None or i.metadata.get("mesh.namespace", namespace) == namespace]


def instance_record(info: InfoReply, now_s: float) -> Record:
    """One instance; ``now_s`` is the wall time. What a foreign service does not say is ``None``."""
    meta = info.metadata
    mesh = "mesh.namespace" in meta
    started = meta.get("mesh.started")
    return {
        "instance": info.id,
        "service": info.name,
        "host_pid": meta.get("mesh.instance", ""),
        "namespace": meta.get("mesh.namespace"),
        "kind": MESH if mesh else FOREIGN,
        "version": info.version,
        "state": meta.get("mesh.state", "ready"),
        "in_flight": _number(meta.get("mesh.in_flight")),
        "limit": _number(meta.get("mesh.limit")),
        "endpoints": [endpoint.name for endpoint in info.endpoints],
        "started": started,
        "age_s": _age_s(started, now_s),
        "labels": {key: value for key, value in meta.items() if not key.startswith("mesh.")},
        "wire": _number(meta.get("mesh.wire")),
        "full": meta.get("mesh.full") == "true",
        "metrics_port": _port(meta.get("mesh.metrics.port")),
        "faults": _faults(meta.get("mesh.faults")),
        "plugins": {side: _names(meta.get(f"mesh.plugins.{side}", "")) for side in ("inbound", "outbound")},
    }


def fault_records(instances: Sequence[Record]) -> list[Record]:
    """A record for each fault that an operator set at an instance."""
    return [
        {
            "service": each["service"],
            "instance": each["instance"],
            "host_pid": each["host_pid"],
            "namespace": each["namespace"],
            "kind": each["kind"],
            **fault,
        }
        for each in instances
        for fault in each["faults"]
    ]


def fault_text(fault: Record) -> str:
    """A fault for people: ``place: delay 200 ms, abort UNAVAILABLE for 10% (53 s left)``."""
    left_s = max(0.0, fault["left_ms"]) / 1000.0
    what, share = fault_effect(fault), share_text(fault["share"], 6)
    return f"{fault['endpoint'] or 'all'}: {what} for {share} ({left_s:.0f} s left)"


def fault_effect(fault: Record) -> str:
    """What a fault does to the calls that it hits: ``delay 200 ms, abort UNAVAILABLE``."""
    parts = []
    if fault["delay_ms"]:
        parts.append(f"delay {fault['delay_ms']:g} ms")
    if fault["abort"]:
        parts.append(f"abort {fault['abort']}")
    return ", ".join(parts)


def service_records(instances: Sequence[Record]) -> list[Record]:
    """One record for each service of a namespace, out of its instances' records."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for each in instances:
        groups.setdefault((each["service"], each["namespace"] or "", each["kind"]), []).append(each)
    return [_service(groups[key]) for key in sorted(groups)]


def _service(instances: list[Record]) -> Record:
    first = instances[0]
    ready = sum(each["state"] == "ready" for each in instances)
    versions: dict[str, int] = {}
    telling = [each for each in instances if each["state"] != "silent"] or instances
    for each in sorted(telling, key=lambda record: version_key(record["version"])):
        versions[each["version"]] = versions.get(each["version"], 0) + 1
    ages = [each["age_s"] for each in instances if each["age_s"] is not None]
    loads = [each["in_flight"] for each in instances if each["in_flight"] is not None]
    states = {each["state"] for each in instances}
    return {
        "service": first["service"],
        "namespace": first["namespace"],
        "kind": first["kind"],
        "versions": versions,
        "ready": ready,
        "instances": len(instances),
        "endpoints": sorted({name for each in instances for name in each["endpoints"]}),
        "state": "ready" if ready == len(instances) else "partial" if ready else "/".join(sorted(states)),
        "in_flight": sum(loads) if loads else None,
        "age_s": max(ages, default=None),
        "labels": _common([each["labels"] for each in telling]),
    }


def endpoint_records(infos: Sequence[InfoReply]) -> list[Record]:
    """One record for each endpoint, as the instance of the newest version that has it describes it."""
    groups: dict[tuple[str, str, str], list[tuple[InfoReply, EndpointReply]]] = {}
    for info in infos:
        for endpoint in info.endpoints:
            key = (info.name, info.metadata.get("mesh.namespace", ""), endpoint.name or endpoint.subject)
            groups.setdefault(key, []).append((info, endpoint))
    return [_endpoint(groups[key]) for key in sorted(groups)]


def _endpoint(found: list[tuple[InfoReply, EndpointReply]]) -> Record:
    info, endpoint = max(found, key=lambda pair: version_key(pair[0].version))
    meta = endpoint.metadata
    mesh = "mesh.namespace" in info.metadata
    name = endpoint.name or endpoint.subject
    request, response = (_schema(meta.get(f"mesh.schema.{which}")) for which in ("request", "response"))
    return {
        "endpoint": f"{info.name}.{name}",
        "service": info.name,
        "name": name,
        "namespace": info.metadata.get("mesh.namespace"),
        "kind": MESH if mesh else FOREIGN,
        "versions": sorted({pair[0].version for pair in found}, key=version_key),
        "instances": len({pair[0].id for pair in found}),
        "timeout_ms": _number(meta.get("mesh.timeout_ms")),
        "idempotent": meta["mesh.idempotent"] == "true" if "mesh.idempotent" in meta else None,
        "concurrency": _number(meta.get("mesh.concurrency")),
        "concurrency_source": meta.get("mesh.concurrency.source", ""),
        "request": type_name(request) if request is not None else None,
        "response": type_name(response) if response is not None else None,
        "subject": meta.get("mesh.subject", endpoint.subject),
        "queue": endpoint.queue_group,
        "schema_hash": meta.get("mesh.schema.hash", ""),
        "schemas": sorted({pair[1].metadata.get("mesh.schema.hash", "") for pair in found}),
        "schema_omitted": meta.get("mesh.schema.omitted", ""),
        "request_schema": request,
        "response_schema": response,
    }


def announcement_of(info: InfoReply) -> Announcement | None:
    """What a mesh instance answered, as if it had announced it; ``None`` for what is not of the mesh, or cannot be."""
    return announced(Kind.JOIN, info, [_endpoint_info(each) for each in info.endpoints])


def _endpoint_info(endpoint: EndpointReply) -> EndpointInfo:
    meta = endpoint.metadata
    return EndpointInfo(
        name=endpoint.name,
        subject="" if "mesh.subject" in meta else endpoint.subject,
        timeout_ms=_number(meta.get("mesh.timeout_ms")),
        idempotent=meta.get("mesh.idempotent") == "true",
        concurrency=_number(meta.get("mesh.concurrency")) or 0,
        schema=meta.get("mesh.schema.hash", ""),
    )


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions the way people read them: numbers by value, a pre-release before its release."""
    core, _, pre = version.partition("+")[0].partition("-")
    parts = [*core.split("."), *(pre.split(".") if pre else [])]
    key = tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
    return key if pre else (*key, (2, 0, ""))


def _common(labels: list[dict[str, str]]) -> dict[str, str]:
    return {key: value for key, value in labels[0].items() if all(each.get(key) == value for each in labels)}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) <= 15 else None


def _port(text: str | None) -> int | None:
    port = _number(text)
    return port if port is not None and 0 < port < 65_536 else None


def _age_s(started: str | None, now_s: float) -> float | None:
    if started is None:
        return None
    try:
        begun = datetime.datetime.fromisoformat(started)
    except ValueError:
        return None
    if begun.tzinfo is None:
        return None
    return round(max(0.0, now_s - begun.timestamp()), 3)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _faults(text: str | None) -> list[Record]:
    """The faults that an operator injected into an instance; what cannot be read is left out."""
    if text is None:
        return []
    try:
        return [msgspec.to_builtins(each) for each in _decode_faults(text)]
    except UNREADABLE:
        return []


def _schema(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return None
