"""What other programs answer on ``$SRV.PING|INFO|STATS``, read with patience.

Services in Go, JavaScript, Python and others differ: null descriptions, absent metadata and errors,
averages with a fraction, nanoseconds in timestamps. What identifies a service must be there and be
usable; everything else may be missing or odd and becomes its empty value. Texts lose their control
characters, because they end up on terminals.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, Final

import msgspec

from nats_mesh.errors import CodecError
from nats_mesh.wire.codecs import JSON

__all__ = [
    "INFO_TYPE",
    "MAX_LISTED_ENDPOINTS",
    "PING_TYPE",
    "STATS_TYPE",
    "CountersReply",
    "EndpointReply",
    "InfoReply",
    "PingReply",
    "StatsReply",
    "parse_info",
    "parse_ping",
    "parse_stats",
]

PING_TYPE: Final = "io.nats.micro.v1.ping_response"
INFO_TYPE: Final = "io.nats.micro.v1.info_response"
STATS_TYPE: Final = "io.nats.micro.v1.stats_response"

#: Endpoints of one service that are read; the others are counted in ``omitted``.
MAX_LISTED_ENDPOINTS: Final = 4096
_MAX_METADATA: Final = 256
_MAX_TEXT: Final = 1024
_MAX_VALUE: Final = 256 * 1024
_MAX_INT: Final = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_ID = re.compile(r"[^\s.*>\x00-\x20\x7f-\x9f]{1,255}")
_SUBJECT = re.compile(r"[^\s.\x00-\x20\x7f-\x9f]+(\.[^\s.\x00-\x20\x7f-\x9f]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_decode = JSON.decoder(dict[str, Any])


class PingReply(msgspec.Struct, frozen=True, kw_only=True):
    """Who is there."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]


class EndpointReply(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint; its ``subject`` may hold wildcards where the service listens on a pattern."""

    name: str
    subject: str
    queue_group: str
    metadata: dict[str, str]


class InfoReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a service is. ``omitted`` endpoints had no usable subject or were beyond the bound."""

    name: str
    id: str
    version: str
    description: str
    metadata: dict[str, str]
    endpoints: tuple[EndpointReply, ...]
    omitted: int


class CountersReply(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint did; times in nanoseconds, ``data`` is whatever the service adds."""

    name: str
    subject: str
    queue_group: str
    requests: int
    errors: int
    last_error: str
    busy_ns: int
    average_ns: int
    data: Any


class StatsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a service did since ``started`` (UTC; ``None`` where it does not say so legibly)."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    started: datetime.datetime | None
    endpoints: tuple[CountersReply, ...]
    omitted: int


def parse_ping(data: bytes) -> PingReply:
    """Read an answer to PING; :class:`CodecError` where it is none."""
    document = _document(data, PING_TYPE)
    return PingReply(**_identity(document))


def parse_info(data: bytes) -> InfoReply:
    """Read an answer to INFO; :class:`CodecError` where it is none."""
    document = _document(data, INFO_TYPE)
    listed, omitted = _endpoints(document)
    return InfoReply(
        **_identity(document),
        description=_text(document.get("description")),
        endpoints=tuple(EndpointReply(**_place(each), metadata=_metadata(each)) for each in listed),
        omitted=omitted,
    )


def parse_stats(data: bytes) -> StatsReply:
    """Read an answer to STATS; :class:`CodecError` where it is none."""
    document = _document(data, STATS_TYPE)
    listed, omitted = _endpoints(document)
    return StatsReply(
        **_identity(document),
        started=_instant(document.get("started")),
        endpoints=tuple(
            CountersReply(
                **_place(each),
                requests=_count(each.get("num_requests")),
                errors=_count(each.get("num_errors")),
                last_error=_text(each.get("last_error")),
                busy_ns=_count(each.get("processing_time")),
                average_ns=_count(each.get("average_processing_time")),
                data=each.get("data"),
            )
            for each in listed
        ),
        omitted=omitted,
    )


def _document(data: bytes, kind: str) -> dict[str, Any]:
    document: dict[str, Any] = _decode(data)
    said = document.get("type", kind)
    if said != kind:
        raise CodecError(f"$SRV: expected a {kind}, got {_text(said)[:80] or type(said).__name__!r}")
    return document


def _identity(document: dict[str, Any]) -> dict[str, Any]:
    name, number = document.get("name"), document.get("id")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise CodecError(f"$SRV: {name!r:.80} cannot be the name of a service")
    if not isinstance(number, str) or _ID.fullmatch(number) is None:
        raise CodecError(f"$SRV: {number!r:.80} cannot be the id of an instance of {name}")
    version = _text(document.get("version"))
    return {"name": name, "id": number, "version": version, "metadata": _metadata(document)}


def _endpoints(document: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    listed = document.get("endpoints")
    if not isinstance(listed, list):
        return [], 0
    usable = [
        each
        for each in listed[:MAX_LISTED_ENDPOINTS]
        if isinstance(each, dict)
        and isinstance(subject := each.get("subject"), str)
        and len(subject.encode("utf-8", "surrogatepass")) <= _MAX_TEXT
        and _SUBJECT.fullmatch(subject) is not None
    ]
    return usable, len(listed) - len(usable)


def _place(endpoint: dict[str, Any]) -> dict[str, str]:
    return {
        "name": _text(endpoint.get("name")),
        "subject": endpoint["subject"],
        "queue_group": _text(endpoint.get("queue_group")),
    }


def _metadata(document: dict[str, Any]) -> dict[str, str]:
    found = document.get("metadata")
    if not isinstance(found, dict):
        return {}
    return {
        _text(key): _text(value, _MAX_VALUE)
        for key, value in list(found.items())[:_MAX_METADATA]
        if isinstance(value, str)
    }


def _text(value: object, limit: int = _MAX_TEXT) -> str:
    return _CONTROL.sub(" ", value[:limit]) if isinstance(value, str) else ""


def _count(value: object) -> int:
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(_MAX_INT, max(0, value))


def _instant(value: object) -> datetime.datetime | None:
    """RFC 3339 with any number of digits after the point, cut to the microseconds a datetime holds."""
    match = _INSTANT.fullmatch(value) if isinstance(value, str) and len(value) <= 64 else None
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6].ljust(6, '0')}{zone}")
        return moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):  # the thirtieth of February, year one east of Greenwich
        return None
