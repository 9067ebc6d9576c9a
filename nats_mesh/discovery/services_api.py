"""What a service answers on ``$SRV.PING|INFO|STATS`` (NATS ADR-32), as documents that any client can read.

Written by the schemas of ADR-32 and jsm.go, and for what decoders in the field insist on beyond them:
``description`` and ``last_error`` are always strings, ``metadata`` is never null, every endpoint's
statistics have ``queue_group`` and ``data``, ``started`` has a fraction of six digits.
Reading what others answer is in ``services_replies.py``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nats_mesh.core.presence import check_version
from nats_mesh.discovery.services_replies import (
    INFO_TYPE,
    PING_TYPE,
    STATS_TYPE,
    CountersReply,
    EndpointReply,
    InfoReply,
    PingReply,
    StatsReply,
    parse_info,
    parse_ping,
    parse_stats,
)
from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name
from nats_mesh.wire.subjects import ANONYMOUS, QUEUE, WIRE_VERSION, Subjects, check_plain_subject

__all__ = [
    "MAX_SCHEMA_BYTES",
    "CountersReply",
    "EndpointCounters",
    "EndpointDoc",
    "EndpointReply",
    "InfoReply",
    "PingReply",
    "ServiceDoc",
    "StatsReply",
    "Verb",
    "info_response",
    "listen_subjects",
    "mesh_endpoint",
    "parse_info",
    "parse_ping",
    "parse_stats",
    "parse_verb",
    "ping_response",
    "request_subject",
    "service_metadata",
    "stats_response",
]

#: The longest JSON schema that stands in the metadata; a longer one is named in ``mesh.schema.omitted``.
MAX_SCHEMA_BYTES: Final = 32 * 1024

_STARTED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z")
_PREFIX = "$SRV"


class Verb(enum.StrEnum):
    """What can be asked on ``$SRV.<verb>``."""

    PING = "PING"
    INFO = "INFO"
    STATS = "STATS"


class EndpointDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as foreign clients see it: where to send, in which queue group it is served, metadata."""

    name: str
    subject: str
    queue_group: str = QUEUE
    metadata: dict[str, str] = {}

    def __post_init__(self) -> None:
        check_name("endpoint", self.name, reserved=True)
        check_plain_subject(self.subject)
        _check_metadata(f"endpoint {self.name}", self.metadata)


class ServiceDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a service. :class:`ConfigError` where a document made of it would not be valid.

    ``started`` is RFC 3339 in UTC with one to six digits after the point (``messages.rfc3339``).
    """

    name: str
    id: str
    version: str
    started: str
    description: str = ""
    metadata: dict[str, str] = {}
    endpoints: tuple[EndpointDoc, ...] = ()

    def __post_init__(self) -> None:
        check_name("service", self.name, reserved=True)
        check_name("instance", self.id, reserved=True)
        check_version(self.version)
        _check_metadata(f"service {self.name}", self.metadata)
        if _STARTED.fullmatch(self.started) is None:
            raise ConfigError(
                f"service {self.name}: started {self.started!r} must look like 2025-01-31T12:00:00.000000Z"
            )


class EndpointCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint did since its start; ``busy_s`` is the time its handler took in all."""

    requests: int = 0
    errors: int = 0
    busy_s: float = 0.0
    last_error: str = ""
    data: dict[str, Any] = {}


class _Ping(msgspec.Struct):
    type: str
    name: str
    id: str
    version: str
    metadata: dict[str, str]


class _Info(msgspec.Struct):
    type: str
    name: str
    id: str
    version: str
    description: str
    metadata: dict[str, str]
    endpoints: tuple[EndpointDoc, ...]


class _EndpointStats(msgspec.Struct):
    name: str
    subject: str
    queue_group: str
    num_requests: int
    num_errors: int
    last_error: str
    processing_time: int
    average_processing_time: int
    data: dict[str, Any]


class _Stats(msgspec.Struct):
    type: str
    name: str
    id: str
    version: str
    started: str
    metadata: dict[str, str]
    endpoints: list[_EndpointStats]


def ping_response(service: ServiceDoc) -> bytes:
    """The answer to PING. It never changes, so it can be made once."""
    return msgspec.json.encode(_Ping(PING_TYPE, service.name, service.id, service.version, service.metadata))


def info_response(service: ServiceDoc) -> bytes:
    """The answer to INFO. It changes with the endpoints alone."""
    return msgspec.json.encode(
        _Info(
            INFO_TYPE,
            service.name,
            service.id,
            service.version,
            service.description,
            service.metadata,
            service.endpoints,
        )
    )


def stats_response(service: ServiceDoc, counters: Mapping[str, EndpointCounters]) -> bytes:
    """The answer to STATS, with the ``counters`` of each endpoint by name (zeros where one has none)."""
    none = EndpointCounters()
    return msgspec.json.encode(
        _Stats(
            STATS_TYPE,
            service.name,
            service.id,
            service.version,
            service.started,
            service.metadata,
            [_endpoint_stats(each, counters.get(each.name, none)) for each in service.endpoints],
        )
    )


def service_metadata(
    namespace: str, labels: Mapping[str, str] | None = None, *, kind: str = "service"
) -> dict[str, str]:
    """The metadata of a mesh service: its labels, and what a mesh caller looks for.

    ``kind`` is ``service``, or ``client`` for a pure caller that answers a roll call.
    """
    return {
        **(labels or {}),
        "mesh.wire": str(WIRE_VERSION),
        "mesh.namespace": namespace,
        "mesh.kind": kind,
    }


def mesh_endpoint(
    subjects: Subjects,
    service: str,
    endpoint: str,
    *,
    subject: str | None = None,
    queue: str = QUEUE,
    timeout_s: float | None = None,
    idempotent: bool = False,
    duplicates: str = "",
    concurrency: int = 0,
    limited: bool = False,
    schema_hash: str = "",
    request_schema: Mapping[str, Any] | None = None,
    response_schema: Mapping[str, Any] | None = None,
) -> EndpointDoc:
    """An endpoint of a mesh service as INFO advertises it.

    Foreign clients publish to ``subject`` verbatim, so it ends in the caller ``anonymous``; mesh
    callers take the template in ``mesh.subject`` and put their own name in. ``subject`` and ``queue``
    name a plain subject of an existing system instead. ``limited``: ``concurrency`` is a policy's.
    """
    metadata = {
        "mesh.wire": str(WIRE_VERSION),
        "mesh.namespace": subjects.namespace,
        "mesh.idempotent": "true" if idempotent else "false",
    }
    if duplicates:
        metadata["mesh.duplicates"] = duplicates
    if subject is None:
        metadata["mesh.subject"] = subjects.rpc(service, endpoint, "{caller}")
        subject = subjects.rpc(service, endpoint, ANONYMOUS)
        queue = QUEUE
    if timeout_s is not None:
        metadata["mesh.timeout_ms"] = str(max(1, round(timeout_s * 1000)))
    if concurrency:
        metadata["mesh.concurrency"] = str(concurrency)
    if limited:
        metadata["mesh.concurrency.source"] = "policy"
    if schema_hash:
        metadata["mesh.schema.hash"] = schema_hash
    omitted = []
    for which, schema in (("request", request_schema), ("response", response_schema)):
        if schema is None:
            continue
        encoded = msgspec.json.encode(schema)
        if len(encoded) <= MAX_SCHEMA_BYTES:
            metadata[f"mesh.schema.{which}"] = encoded.decode()
        else:
            omitted.append(f"{which}: {len(encoded)} bytes")
    if omitted:
        metadata["mesh.schema.omitted"] = ", ".join(omitted)
    return EndpointDoc(name=endpoint, subject=subject, queue_group=queue, metadata=metadata)


def listen_subjects(name: str, instance: str) -> tuple[str, str, str]:
    """The three subscriptions (without queue group) that take every verb to this instance."""
    return (f"{_PREFIX}.*", f"{_PREFIX}.*.{name}", f"{_PREFIX}.*.{name}.{instance}")


def parse_verb(subject: str, name: str, instance: str) -> Verb | None:
    """Which verb ``subject`` asks of this instance; ``None`` where it is another's, or none. Case matters."""
    parts = subject.split(".")
    if not 2 <= len(parts) <= 4 or parts[0] != _PREFIX or parts[2:] != [name, instance][: len(parts) - 2]:
        return None
    return _VERBS.get(parts[1])


def request_subject(verb: Verb, name: str | None = None, instance: str | None = None) -> str:
    """Where to ask everybody, all instances of ``name``, or one ``instance`` of it."""
    if name is None:
        if instance is not None:
            raise ConfigError(
                "$SRV: an instance can be asked by the name of its service and its id, not by id alone"
            )
        return f"{_PREFIX}.{verb}"
    check_name("service", name, reserved=True)
    if instance is None:
        return f"{_PREFIX}.{verb}.{name}"
    return f"{_PREFIX}.{verb}.{name}.{check_name('instance', instance, reserved=True)}"


_VERBS: Final[Mapping[str, Verb]] = {verb.value: verb for verb in Verb}


def _endpoint_stats(endpoint: EndpointDoc, counters: EndpointCounters) -> _EndpointStats:
    busy_ns = round(counters.busy_s * 1e9)
    return _EndpointStats(
        endpoint.name,
        endpoint.subject,
        endpoint.queue_group,
        counters.requests,
        counters.errors,
        counters.last_error,
        busy_ns,
        busy_ns // counters.requests if counters.requests else 0,
        counters.data,
    )


def _check_metadata(where: str, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"{where}: metadata must map text to text, got {key!r}: {value!r:.80}")
