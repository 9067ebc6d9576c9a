"""The tables of ``stat`` and ``edges``: their columns, and what each makes of a record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.last_errors import aged_text
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.output import (
    Column,
    Record,
    millis,
    part_text,
    percent_text,
    rate_text,
    success_text,
    used_text,
)
from nats_mesh_cli.promised import LEVEL_STYLES, Promised
from nats_mesh_cli.stat_records import By, edge_records, service_records
from nats_mesh_cli.trouble import (
    SOME_GAVE_UP,
    breakers_level,
    gave_up_level,
    met_level,
    served_level,
)

__all__ = ["GAVE_UP", "Shown", "edges_table", "stat_table", "with_seldom"]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value else "0"


def _success(record: Record) -> str:
    return "-" if record["success"] is None else success_text(record["success"])


def _how(record: Record) -> str:
    return met_level(record["success"], record["gave_up_share"])


def _counts(key: str) -> Callable[[Record], str]:
    return lambda record: " ".join(f"{name}×{count}" for name, count in record[key].items())


def _of_capacity(key: str, text: Callable[[Any], str]) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        value = record["capacity"][key]
        return "-" if value is None else text(value)

    return cell


_NUMBERS = (
    Column("SUCCESS", _success, right=True, style=_how, drop=4),
    Column("RPS", lambda r: _number(r["rate_per_s"]), right=True, drop=5),
    Column("ACTUAL", lambda r: _number(r["attempts_per_s"]), right=True, drop=75),
    Column("P50", lambda r: millis(r["p50_s"]), right=True, drop=80),
    Column("P90", lambda r: millis(r["p90_s"]), right=True, drop=95),
    Column("P95", lambda r: millis(r["p95_s"]), right=True, drop=90),
    Column("P99", lambda r: millis(r["p99_s"]), right=True, drop=40),
    Column("IN FLIGHT", lambda r: str(r["in_flight"]), right=True, drop=10),
)


#: No failures of the service, but nobody has got an answer.
GAVE_UP: Final = Column(
    "GAVE UP",
    lambda r: part_text(r["gave_up_share"]),
    right=True,
    wide=True,
    style=lambda r: gave_up_level(r["gave_up_share"]),
    drop=8,
)


def _served(record: Record) -> float | None:
    """Of the attempts that reached instances, how many these answered well."""
    share: float | None = record["served"]["success"]
    return share


#: Why a service is yellow of which all calls went well: retries make good what its instances fail.
_SERVED: Final = Column(
    "SERVED",
    lambda r: "-" if (share := _served(r)) is None else success_text(share),
    right=True,
    wide=True,
    style=lambda r: served_level(_served(r)),
    drop=15,
)
_TROUBLE = (
    GAVE_UP,
    Column("FLAGS", _counts("flags"), wide=True, drop=30, short=12),
    Column("TOTAL", lambda r: str(r["total"]["calls"]), right=True, wide=True, drop=85),
)
_LAST = Column(
    "LAST ERROR",
    lambda r: aged_text(r["last_error"], r["last_error_age_s"]),
    style=lambda _: "dim",
    drop=2,
    short=16,
    brief=lambda r: aged_text(r["last_error"], r["last_error_age_s"], brief=True),
)
_CAPACITY = (
    Column("LIMIT", _of_capacity("concurrency_limit", str), right=True, wide=True, drop=70),
    Column("QUEUE", _of_capacity("queue_depth", str), right=True, wide=True, drop=68),
    Column("USED", _of_capacity("utilisation", used_text), right=True, wide=True, drop=60),
    Column(
        "HEADROOM",
        _of_capacity("headroom_per_s", lambda rate: f"{rate_text(rate)}/s"),
        right=True,
        wide=True,
        drop=66,
    ),
)
_BREAKER = Column(
    "BREAKER", _counts("breakers"), wide=True, style=lambda r: breakers_level(r["breakers"]), drop=6
)

_OBJECTIVES = Column(
    "OBJECTIVES",
    lambda r: r["objectives"] or "-",
    wide=True,
    style=lambda r: LEVEL_STYLES.get(r["objectives"], ""),
    drop=12,
)


def _key(name: str) -> Callable[[Record], str]:
    return lambda record: str(record[name])


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command shows: its records and columns, and the name of a record for ``-o name``. ``promises``: whether
    records tell how what is promised stands. ``key``: what makes two records the same thing, of a list of which changes
    are told where nobody looks on; without it all of it is told each second."""

    records: Callable[[Snapshot, Promised], list[Record]]
    columns: tuple[Column, ...]
    name: Callable[[Record], str]
    nothing: str
    promises: bool = False
    key: Callable[[Record], tuple[str, str, str]] | None = None

    def shown(self, records: Sequence[Record]) -> tuple[Column, ...]:
        """The columns for these records."""
        return with_seldom(self.columns, records)


def with_seldom(columns: Sequence[Column], records: Sequence[Record]) -> tuple[Column, ...]:
    """The columns for these records: circuits have theirs, narrow or wide, from when one of them is not closed, calls
    that were given up from when they are some, and what instances saw from when they fail some."""
    seldom = []
    if any(record.get("breakers") for record in records):
        seldom.append(_BREAKER)
    if any(record.get("gave_up_share", 0.0) >= SOME_GAVE_UP for record in records):
        seldom.append(GAVE_UP)
    if any("served" in record and served_level(_served(record)) for record in records):
        seldom.append(_SERVED)
    return tuple([replace(each, wide=False) if each in seldom else each for each in columns])


def stat_table(by: By, services: Sequence[str]) -> Shown:
    """What ``stat`` shows."""
    service = Column("SERVICE", _key("service"), style=lambda _: "name", drop=0)
    if by == "service":
        own: tuple[Column, ...] = (
            service,
            Column("READY", lambda r: f"{r['ready']}/{r['instances']}", right=True, drop=25),
        )
    else:
        own = (
            service,
            Column(by.upper(), _key(by), style=lambda _: "name"),
            Column("INST", _key("instances"), right=True, drop=50),
        )
    more = (
        *(() if by == "version" else (_SERVED,)),
        *_TROUBLE,
        *(() if by == "version" else (*_CAPACITY, _BREAKER)),
        *((_OBJECTIVES,) if by == "service" else ()),
        _LAST,
    )

    def name(record: Record) -> str:
        return str(record["service"]) if by == "service" else f"{record['service']}.{record[by]}"

    return Shown(
        lambda snapshot, promised: service_records(snapshot, by, services, promised),
        (*own, *_NUMBERS, *more),
        name,
        "no service is here, and none was called",
        promises=by == "service",
    )


def _endpoint(record: Record) -> str:
    """Plain subjects have none."""
    return "-" if record["service"] == PLAIN else str(record["endpoint"])


def edges_table(by: By, services: Sequence[str]) -> Shown:
    """What ``edges`` shows."""
    own = [
        Column("FROM", _key("source"), style=lambda _: "name", drop=0),
        Column("TO", lambda r: called_text(r["service"]), style=lambda _: "name", drop=0),
    ]
    if by == "endpoint":
        own.append(Column("ENDPOINT", _endpoint, style=lambda _: "name", drop=0))
    retries = Column("RETRY%", lambda r: percent_text(r["retry_share"]), right=True, drop=25)
    more = [
        Column("TOLD BY", _key("reporter"), wide=True, drop=45),
        *([] if by == "endpoint" else [_BREAKER]),
        _LAST,
    ]

    def name(record: Record) -> str:
        to = record["service"] if by == "service" else f"{record['service']}.{record['endpoint']}"
        return f"{record['source']}→{to}"

    return Shown(
        lambda snapshot, promised: edge_records(snapshot, by, services),
        (*own, *_NUMBERS[:3], retries, *_NUMBERS[3:], *_TROUBLE, *more),
        name,
        "nobody has called anybody here, as far as members tell",
    )
