"""The document of ``describe`` as text for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats_mesh_cli.catalog import fault_effect, fault_text
from nats_mesh_cli.chain_text import options_table, side
from nats_mesh_cli.get import short_ids
from nats_mesh_cli.output import Column, age, counted, millis, paint, table, width
from nats_mesh_cli.schemas import definitions, type_name
from nats_mesh_cli.silent import SILENT
from nats_mesh_cli.told import is_said, told_table

__all__ = ["render"]

_INDENT = "  "
_ORDER = (
    "timeout and idempotent: what a call itself says wins, then a Route, a Destination, the function that is called, "
    "the endpoint's declaration, the default"
)
_UNHEARD = "so what its endpoints declare is not known; this is what policies and defaults say"

_HOST_PID = Column("HOST-PID", lambda r: str(r["host_pid"]))
_INSTANCES = (
    Column("INSTANCE", lambda r: str(r.get("short") or r["instance"])),
    _HOST_PID,
    Column("VERSION", lambda r: str(r["version"])),
    Column("STATE", lambda r: str(r["state"])),
    Column("IN FLIGHT", lambda r: _of(r["in_flight"], r["limit"]), right=True),
    Column("REQUESTS", lambda r: _text(r.get("requests")), right=True),
    Column("ERRORS", lambda r: _text(r.get("errors")), right=True),
    Column("AGE", lambda r: age(r["age_s"]), right=True),
    Column("FAULTS", lambda r: "; ".join(map(fault_effect, r["faults"])), style=lambda _: "bad"),
)


def render(document: dict[str, Any], *, color: bool = False, columns: int | None = None) -> str:
    """The whole text; ``columns`` is how wide tables may be (cells), where that matters."""
    kind = document["kind"]
    lines = _facts(document, color)
    if kind == "service" and document["running"]:
        lines += _section("Instances", [_instances(document["instances"], color, columns)], color)
    if kind == "endpoint":
        lines += _chain(document, color)
    else:
        for endpoint in document["endpoints"]:
            lines += ["", *_endpoint_head(endpoint, document, color)]
            lines.append(_indented(options_table(endpoint["options"], color=color)))
            if is_said(endpoint["telemetry"]):
                lines.append(_indented(told_table(endpoint["telemetry"], color=color)))
        lines += _layers(document["layers"], color)
    if faults := document["faults"]:
        texts = [f"{_INDENT}{fault['instance']}  {fault_text(fault)}" for fault in faults]
        lines += _section("Faults that operators injected", texts, color)
    return "\n".join(lines)


def _instances(records: Sequence[dict[str, Any]], color: bool, columns: int | None) -> str:
    """Their table; where there is no room, ids are as short as tells them apart, and then nothing else names them."""
    short = short_ids(records)
    with_faults = _INSTANCES if any(each["faults"] for each in records) else _INSTANCES[:-1]
    narrow = tuple(each for each in with_faults if each is not _HOST_PID)
    for rows, shown in ((records, with_faults), (short, with_faults), (short, narrow)):
        size = max(width(line) for line in table(rows, shown).split("\n"))
        if columns is None or size + len(_INDENT) <= columns:
            break
    return _indented(table(rows, shown, color=color))


def _facts(document: dict[str, Any], color: bool) -> list[str]:
    kind = document["kind"]
    name = document["service"] if kind == "service" else document[kind]
    facts: dict[str, str] = {}
    if document["origin"] == "foreign":
        facts["origin"] = "a NATS Services API service outside the mesh"
    else:
        facts["namespace"] = str(document["namespace"])
    facts["policies"] = _policies(document)
    if not document["running"]:
        what = (
            f"silent: an instance of {document['service']!r} is connected and answers nothing"
            if document["state"] == SILENT
            else f"not running: nobody serves {document['service']!r} here"
        )
        facts["state"] = f"{what}, {_UNHEARD}"
    elif kind == "service":
        facts["description"] = document["description"]
        facts["versions"] = ", ".join(f"{v} ({count})" for v, count in document["versions"].items())
        facts["state"] = f"{document['state']}, {document['ready']} of {len(document['instances'])} ready"
    elif kind == "instance":
        facts["service"] = f"{document['service']} {document['version']}"
        facts["host-pid"] = document["host_pid"]
        facts["state"] = document["state"]
        facts["in flight"] = _of(document["in_flight"], document["limit"])
        facts["requests"] = f"{_text(document.get('requests'))}, errors {_text(document.get('errors'))}"
        facts["started"] = f"{document['started'] or '-'} (up {age(document['age_s'])})"
        if document["metrics_port"] is not None:
            facts["metrics"] = f"/metrics, /healthz, /readyz on port {document['metrics_port']}"
    else:
        facts["versions"] = ", ".join(document["versions"])
        facts["instances"] = str(document["instances"])
    for which, names in document["plugins"].items():
        facts[f"plug-ins, {which}"] = ", ".join(names)
    if kind == "instance" and document["full"]:
        facts["full"] = "it asks for no more calls from the queue for now"
    if faults := document["faults"]:
        where = len({each["instance"] for each in faults})
        facts["faults"] = paint(
            f"{counted(len(faults), 'fault is', 'faults are')} in force, at {counted(where, 'instance')}: see below",
            "bad",
            color,
        )
    if labels := document.get("labels"):
        facts["labels"] = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    if kind == "endpoint" and document["running"]:
        facts |= _endpoint_facts(document)
    lines = [f"{kind} {paint(name, 'name', color)}", *_pairs(facts)]
    return lines + _definitions(document) if kind == "endpoint" else lines


def _endpoint_head(endpoint: dict[str, Any], document: dict[str, Any], color: bool) -> list[str]:
    name = paint(endpoint["endpoint"], "name", color)
    if not document["running"]:
        return [f"endpoint {name}{'  (any other)' if endpoint['name'] == '*' else ''}"]
    return [f"endpoint {name}", *_pairs(_endpoint_facts(endpoint)), *_definitions(endpoint)]


def _policies(document: dict[str, Any]) -> str:
    policies = document["policies"]
    if policies["source"] is None:
        return "none: there is no store on the bus, and no --policies DIR or MESH_POLICIES"
    source = policies["source"]
    if source.startswith("bus,"):
        return f"{policies['count']} on the {source}"
    return f"{policies['count']} in {source} (revision {policies['revision']}), for processes that follow this folder"


def _endpoint_facts(endpoint: dict[str, Any]) -> dict[str, str]:
    def shown(which: str) -> str:
        schema = endpoint[f"{which}_schema"]
        if schema is not None:
            return type_name(schema)
        return (
            f"too large to be shown ({endpoint['schema_omitted']})"
            if endpoint["schema_omitted"]
            else "not declared"
        )

    statistics = endpoint.get("statistics") or {}
    facts = {
        "subject": endpoint["subject"],
        "queue": endpoint["queue"],
        "takes": shown("request"),
        "returns": shown("response"),
    }
    if endpoint["schema_differs"]:
        facts["note"] = "instances differ in their schemas; that of the newest version is shown"
    if statistics.get("requests"):
        told = (counted(statistics["requests"], "request"), counted(statistics["errors"], "error"))
        facts["so far"] = f"{', '.join(told)}, {millis(statistics['average_ms'] / 1e3)} on average"
    if statistics.get("last_error"):
        facts["last error"] = statistics["last_error"]
    return facts


def _definitions(endpoint: dict[str, Any]) -> list[str]:
    found = definitions(endpoint["request_schema"], endpoint["response_schema"])
    return _pairs(dict(found), indent=_INDENT * 2) if found else []


def _chain(document: dict[str, Any], color: bool) -> list[str]:
    """Both sides' layers with their parameters, and who would have a word in them."""
    layers = document["layers"]
    who = "the caller" if document["caller"] is None else f"the caller {document['caller']}"
    lines = side(f"At {who}, in the order in which a call meets it", layers["outbound"], color=color)
    if layers["inbound"]:
        lines += side(
            "At the instance, in the order in which a request meets it", layers["inbound"], color=color
        )
    told = [_indented(told_table(document["telemetry"], color=color))]
    lines += _section("What is told of its calls, on both sides", told, color)
    return [*lines, "", paint(_ORDER, "dim", color)]


def _layers(layers: dict[str, Sequence[dict[str, str]]], color: bool) -> list[str]:
    lines: list[str] = []
    titles = {"outbound": "Layers at the caller", "inbound": "Layers at the instance"}
    for which, title in titles.items():
        if layers[which]:
            lines += _section(title, _pairs({each["layer"]: each["why"] for each in layers[which]}), color)
    return lines


def _section(title: str, lines: list[str], color: bool) -> list[str]:
    return ["", paint(title, "bold", color), *lines]


def _pairs(facts: dict[str, str], indent: str = _INDENT) -> list[str]:
    size = max(map(len, facts), default=0)
    return [f"{indent}{key.ljust(size)}  {value}" for key, value in facts.items() if value]


def _indented(text: str) -> str:
    return "\n".join(f"{_INDENT}{line}" for line in text.split("\n"))


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _of(value: object, limit: object) -> str:
    return "-" if value is None else f"{value} of {limit}" if limit else str(value)
