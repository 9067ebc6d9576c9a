"""``get``: what is there, once. Watching it change is in ``watch.py``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio.lowlevel

from nats_mesh import Mesh
from nats_mesh.core.shares import share_text
from nats_mesh.discovery.services_api import InfoReply, Verb, request_subject
from nats_mesh.model import check_name
from nats_mesh_cli.bus import QUESTION_S, ask, connected
from nats_mesh_cli.catalog import (
    FOREIGN,
    endpoint_records,
    fault_effect,
    fault_records,
    fault_text,
    instance_record,
    read_infos,
    service_records,
    visible,
)
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.hints import missing_service, namespace_text, nearest
from nats_mesh_cli.naming import is_instance
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Column, Out, Record, age, counted
from nats_mesh_cli.silence import called_by_clients, silent_among
from nats_mesh_cli.silent import SILENT, services_meant, silent_error, silent_info, silent_text

__all__ = [
    "KINDS",
    "OTHERS",
    "Kind",
    "columns_for",
    "fetch",
    "get",
    "kind_of",
    "plural_of",
    "read_in_turns",
    "records_of",
    "short_ids",
    "show",
]

_SHORT = 8
#: How many answers are read before others get their turn.
_AT_ONCE: Final = 100
_STATES = {
    "ready": "ok",
    "partial": "warn",
    "draining": "warn",
    "joining": "warn",
    "suspect": "bad",
    SILENT: "bad",
    "gone": "bad",
}


def _state(record: Record) -> str:
    return _STATES.get(str(record["state"]), "warn")


def _text(key: str) -> Callable[[Record], str]:
    return lambda record: "" if record[key] is None else str(record[key])


def _metrics(record: Record) -> str:
    port = record["metrics_port"]
    return "" if port is None else str(port)


def _faults(record: Record) -> str:
    return "; ".join(fault_text(fault) for fault in record["faults"])


def _labels(record: Record) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(record["labels"].items()))


def _versions(record: Record) -> str:
    versions = record["versions"]
    if isinstance(versions, dict) and len(versions) > 1:
        return ",".join(f"{version}×{count}" for version, count in versions.items())
    return ",".join(versions)


def _in_flight(record: Record) -> str:
    if record["in_flight"] is None:
        return "-"
    return f"{record['in_flight']}/{record['limit']}" if record.get("limit") else str(record["in_flight"])


def _timeout(record: Record) -> str:
    return "default" if record["timeout_ms"] is None else f"{record['timeout_ms'] / 1000:g}s"


def _yes(record: Record) -> str:
    return "-" if record["idempotent"] is None else "yes" if record["idempotent"] else "no"


def _namespace(record: Record) -> str:
    return "-" if record["kind"] == FOREIGN else record["namespace"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that ``get`` lists: its columns, the word for ``-o name``, and who answers to a name."""

    plural: str
    columns: tuple[Column, ...]
    name: Callable[[Record], str]
    matches: Callable[[Record, str], bool]


_AGE = Column("AGE", lambda r: age(r["age_s"]), right=True, drop=14)
_NAMESPACE = Column("NAMESPACE", _namespace, wide=True, drop=15)
_KIND = Column("KIND", _text("kind"), style=lambda r: "dim" if r["kind"] == FOREIGN else "", drop=45)
#: Shown by itself where an operator set some.
_FAULTS = Column("FAULTS", _faults, wide=True, style=lambda r: "bad", drop=4, short=12)

KINDS = {
    "services": Kind(
        "services",
        (
            Column("SERVICE", _text("service"), style=lambda _: "name", drop=0),
            Column("VERSION", _versions, drop=12),
            Column("READY", lambda r: f"{r['ready']}/{r['instances']}", right=True, drop=3),
            Column("ENDPOINTS", lambda r: str(len(r["endpoints"])), right=True, drop=35),
            Column("STATE", _text("state"), style=_state, drop=2),
            Column("IN FLIGHT", _in_flight, right=True, drop=10),
            _AGE,
            _KIND,
            _NAMESPACE,
            Column("LABELS", _labels, wide=True, drop=60, short=12),
            Column("ENDPOINT NAMES", lambda r: ",".join(r["endpoints"]), wide=True, drop=65, short=16),
        ),
        lambda r: str(r["service"]),
        lambda r, name: bool(r["service"] == name),
    ),
    "instances": Kind(
        "instances",
        (
            Column(
                "INSTANCE", lambda r: str(r.get("short") or r["instance"]), style=lambda _: "name", drop=0
            ),
            Column("SERVICE", _text("service"), drop=0),
            Column("VERSION", _text("version"), drop=12),
            Column("STATE", _text("state"), style=_state, drop=2),
            Column("ENDPOINTS", lambda r: str(len(r["endpoints"])), right=True, drop=35),
            Column("IN FLIGHT", _in_flight, right=True, drop=10),
            _AGE,
            _KIND,
            Column("ID", _text("instance"), wide=True, drop=50),
            Column("HOST-PID", _text("host_pid"), wide=True, drop=20),
            Column("FULL", lambda r: "yes" if r["full"] else "", wide=True, style=lambda r: "warn", drop=5),
            Column("METRICS", _metrics, right=True, wide=True, drop=40),
            _FAULTS,
            _NAMESPACE,
            Column("LABELS", _labels, wide=True, drop=60, short=12),
        ),
        lambda r: str(r["instance"]),
        lambda r, name: bool(r["service"] == name) or is_instance(r, name),
    ),
    "endpoints": Kind(
        "endpoints",
        (
            Column("ENDPOINT", _text("endpoint"), style=lambda _: "name", drop=0),
            Column("VERSION", _versions, drop=12),
            Column("INSTANCES", _text("instances"), right=True, drop=10),
            Column("TIMEOUT", _timeout, right=True, drop=14),
            Column("IDEMPOTENT", _yes, drop=16),
            Column("CONCURRENCY", _text("concurrency"), right=True, drop=18),
            Column("REQUEST", _text("request"), drop=30, short=8),
            Column("RESPONSE", _text("response"), drop=31, short=8),
            _KIND,
            _NAMESPACE,
            Column("SUBJECT", _text("subject"), wide=True, drop=50),
            Column("QUEUE", _text("queue"), wide=True, drop=55),
            Column("SCHEMA", _text("schema_hash"), wide=True, drop=60),
        ),
        lambda r: str(r["endpoint"]),
        lambda r, name: bool(name in (r["service"], r["endpoint"])),
    ),
    "faults": Kind(
        "faults",
        (
            Column("SERVICE", _text("service"), style=lambda _: "name", drop=0),
            Column("INSTANCE", lambda r: str(r["host_pid"] or r["instance"]), drop=0),
            Column("ENDPOINT", lambda r: str(r["endpoint"] or "all"), drop=0),
            Column("EFFECT", fault_effect, style=lambda _: "bad", drop=2),
            Column("SHARE", lambda r: share_text(r["share"], 6), right=True, drop=5),
            Column("LEFT", lambda r: age(max(0.0, r["left_ms"]) / 1000.0), right=True, drop=6),
            Column("ID", _text("instance"), wide=True, drop=50),
            _NAMESPACE,
        ),
        lambda r: f"{r['service']}/{r['instance']}" + (f".{r['endpoint']}" if r["endpoint"] else ""),
        lambda r, name: (
            bool(name in (r["service"], f"{r['service']}.{r['endpoint']}")) or is_instance(r, name)
        ),
    ),
}
#: What is there that no instance's answer tells of: it stands in the store, or is counted.
OTHERS: Final = ("policies", "edges", "breakers")
_ALIASES = {
    "svc": "services",
    "inst": "instances",
    "ep": "endpoints",
    "policy": "policies",
    "circuit": "breakers",
    "circuits": "breakers",
} | {each[:-1]: each for each in (*KINDS, *OTHERS)}


def plural_of(word: str) -> str:
    """The kind called ``word`` (plural, singular or short), or :class:`CliError` with the nearest."""
    plural = _ALIASES.get(word.lower(), word.lower())
    if plural not in KINDS and plural not in OTHERS:
        raise CliError(f"get: no kind {word!r}", hint=nearest(word, (*KINDS, *OTHERS)))
    return plural


def kind_of(word: str) -> Kind:
    """What instances' answers tell of; :class:`CliError` for every other word."""
    plural = plural_of(word)
    if plural in OTHERS:
        raise CliError(f"get: {plural} are not what instances answer with")
    return KINDS[plural]


async def fetch(mesh: Mesh, options: Options, out: Out, service: str | None = None) -> list[InfoReply]:
    """Everything that answers ``$SRV.INFO``, of any namespace; what could not be read is said."""
    subject = request_subject(Verb.INFO, None if service is None else check_name("service", service))
    replies = await ask(mesh, subject, timeout_s=options.timeout_s or QUESTION_S)
    infos, illegible = await read_in_turns(replies.payloads)
    if illegible:
        out.note(
            f"note: left out {counted(illegible, 'answer')} on {subject}, not of the Services API", "warn"
        )
    if replies.overflow:
        out.note(f"note: {counted(replies.overflow, 'more instance')} answered than can be shown", "warn")
    return infos


async def read_in_turns(payloads: Sequence[bytes]) -> tuple[list[InfoReply], int]:
    """As :func:`~nats_mesh_cli.catalog.read_infos`, while others get their turn: what thousands say takes long to read,
    and whoever looks on asks now and then."""
    found: dict[tuple[str, str], InfoReply] = {}
    illegible = 0
    for at in range(0, len(payloads), _AT_ONCE):
        infos, bad = read_infos(payloads[at : at + _AT_ONCE])
        found |= {(info.name, info.id): info for info in infos}
        illegible += bad
        await anyio.lowlevel.checkpoint()
    return [found[key] for key in sorted(found)], illegible


def short_ids(instances: Sequence[Record]) -> list[Record]:
    """The records with ``short``: as much of the id as tells the instances apart, at least eight characters."""
    ids = [record["instance"] for record in instances]
    size = _SHORT
    while size < max(map(len, ids), default=0) and len({each[:size] for each in ids}) < len(set(ids)):
        size += 2
    return [{**record, "short": record["instance"][:size]} for record in instances]


def records_of(kind: Kind, infos: Sequence[InfoReply]) -> list[Record]:
    """The records of one kind."""
    if kind.plural == "endpoints":
        dropped = ("schemas", "schema_omitted", "request_schema", "response_schema")
        return [{k: v for k, v in record.items() if k not in dropped} for record in endpoint_records(infos)]
    instances = [instance_record(info, time.time()) for info in infos]
    if kind.plural == "faults":
        return fault_records(instances)
    return instances if kind.plural == "instances" else service_records(instances)


def show(kind: Kind, records: Sequence[Record], options: Options, out: Out) -> None:
    """Print a list in the form asked for."""
    shown = records if options.format.structured or kind.plural != "instances" else short_ids(records)
    out.rows(shown, columns_for(kind, records), options.format, name=kind.name)


def columns_for(kind: Kind, records: Sequence[Record]) -> tuple[Column, ...]:
    """The columns for these records: faults have theirs from when there are some."""
    some = any(record.get("faults") for record in records)
    return tuple([replace(each, wide=False) if some and each is _FAULTS else each for each in kind.columns])


async def get(options: Options, out: Out, word: str, name: str | None, *, everywhere: bool) -> None:
    """List what is there; with a ``name`` that nothing has, exit code 1."""
    kind = kind_of(word)
    async with connected(options) as mesh:
        namespace = None if everywhere else mesh.namespace
        infos, called = await asyncio.gather(fetch(mesh, options, out), called_by_clients(mesh))
        meant = services_meant(name)
        silent = await silent_among(mesh, infos, [meant, *called])
        # Of a service of which none answers no instance is known by its id: it is one at least.
        named = kind.plural == "services"
        hung = [silent_info(each, mesh.namespace) for each in silent if each.instance or named]
    records = records_of(kind, [*visible(infos, namespace), *hung])
    chosen = records if name is None else [record for record in records if kind.matches(record, name)]
    show(kind, chosen, options, out)
    about = [each for each in silent if name is None or each.service in meant or each.called(name)]
    if about and (chosen or name is None):
        out.note(f"note: {silent_text(about)}", "bad")
    if chosen:
        return
    where = namespace_text(namespace)
    if name is None:
        if not options.format.structured:
            told = "" if kind.plural == "faults" and infos else f"; {missing_service('', infos, namespace)}"
            out.note(f"no {kind.plural} in {where}{told}", "dim")
        return
    raise silent_error(silent, name) or CliError(
        f"no {kind.plural[:-1]} {name!r} in {where}",
        hint=_hint(kind, name, infos, records, namespace),
        code=FAILED,
    )


def _hint(
    kind: Kind, name: str, infos: Sequence[InfoReply], records: Sequence[Record], namespace: str | None
) -> str:
    if kind.plural == "faults":
        return "'nats-mesh get faults' lists those there are; 'nats-mesh fault' sets one"
    if kind.plural == "services" or not records or "." not in name:
        service = name.partition(".")[0] if kind.plural == "endpoints" else name
        return missing_service(service, infos, namespace)
    known = [kind.name(record) for record in records]
    return nearest(name, known)
