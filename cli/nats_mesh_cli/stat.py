"""``stat`` and ``edges``: rate, errors and durations of services and between them, from what members tell on the bus.

Members count all the time and tell only while somebody asks, so each command asks, listens for its window and shows
that. Totals count from each member's start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import anyio

from nats_mesh.errors import PermissionDeniedError
from nats_mesh.model import check_name
from nats_mesh.telemetry.snapshots import Capacity, Red, Snapshot
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.errors import DENIED, FAILED, CliError
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, dump, millis, render_list, success_text, table

__all__ = ["By", "edge_records", "edges", "service_records", "stat"]

By: TypeAlias = Literal["service", "endpoint", "version"]

#: How long is listened where nothing is said: once, and while it goes on (seconds).
ONCE_S = 3.0
WATCH_S = 10.0
SHORTEST_S = 2.0
_EVERY_S = 1.0
#: How long members may take to say what they have counted by now (seconds).
_SETTLE_S = 4.0


# -- records ----------------------------------------------------------------------------------------


def service_records(snapshot: Snapshot, by: By, services: Sequence[str] = ()) -> list[Record]:
    """A record for each service, or for each endpoint or version of one."""
    found: list[Record] = []
    if by == "service":
        found = [
            _record(
                {
                    "service": each.name,
                    "versions": each.versions,
                    "instances": each.instances,
                    "ready": each.ready,
                    "breakers": each.breakers,
                    "ejected": each.ejected,
                },
                each.red,
                each.capacity,
            )
            for each in snapshot.services
        ]
    elif by == "endpoint":
        found = [
            _record(
                {
                    "service": each.service,
                    "endpoint": each.name,
                    "instances": each.instances,
                    "breakers": each.breakers,
                },
                each.red,
                each.capacity,
            )
            for each in snapshot.endpoints
        ]
    else:
        found = [
            _record(
                {"service": each.service, "version": each.version, "instances": each.instances},
                each.red,
                None,
            )
            for each in snapshot.versions
        ]
    return [record for record in found if not services or record["service"] in services]


def edge_records(snapshot: Snapshot, by: By, services: Sequence[str] = ()) -> list[Record]:
    """A record for each caller and service, or for each endpoint of it; ``services`` at either end."""
    found = []
    for edge in snapshot.edges:
        if services and edge.source not in services and edge.service not in services:
            continue
        ends = {"source": edge.source, "service": edge.service}
        if by == "endpoint":
            found += [
                _record({**ends, "endpoint": name, "reporter": _REPORTERS[edge.reporter]}, red, None)
                for name, red in edge.endpoints.items()
            ]
        else:
            own = {**ends, "reporter": _REPORTERS[edge.reporter], "breakers": edge.breakers}
            found.append(_record(own, edge.red, None))
    return found


_REPORTERS = {"out": "source", "in": "destination"}


def _record(names: Record, red: Red, capacity: Capacity | None) -> Record:
    record = {
        **names,
        "success": red.success,
        "rate_per_s": red.rate_per_s,
        "attempts_per_s": red.attempts_per_s,
        "errors_per_s": red.errors_per_s,
        "retry_share": red.retry_share,
        "p50_s": red.p50_s,
        "p90_s": red.p90_s,
        "p95_s": red.p95_s,
        "p99_s": red.p99_s,
        "in_flight": red.in_flight,
        "statuses": red.recent.statuses,
        "flags": red.flags,
        "last_error": red.last_error,
        "total": {
            "calls": red.total.requests,
            "errors": red.total.errors,
            "attempts": red.attempts,
            "retries": red.retries,
            "statuses": red.total.statuses,
            "success": red.total.success,
        },
    }
    if capacity is not None:
        record["capacity"] = {
            "concurrency_limit": capacity.limit,
            "in_flight": capacity.in_flight,
            "queue": capacity.queue,
            "busy": capacity.busy,
            "utilisation": capacity.utilisation,
            "headroom_per_s": capacity.headroom_per_s,
        }
    return record


# -- tables -----------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value else "0"


def _success(record: Record) -> str:
    return "-" if record["success"] is None else success_text(record["success"])


def _how(record: Record) -> str:
    success = record["success"]
    return "" if success is None else "ok" if success >= 0.999 else "warn" if success >= 0.95 else "bad"


def _counts(key: str) -> Callable[[Record], str]:
    return lambda record: " ".join(f"{name}×{count}" for name, count in record[key].items())


def _of_capacity(key: str, text: Callable[[Any], str]) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        value = record["capacity"][key]
        return "-" if value is None else text(value)

    return cell


_NUMBERS = (
    Column("SUCCESS", _success, right=True, style=_how),
    Column("RPS", lambda r: _number(r["rate_per_s"]), right=True),
    Column("ACTUAL", lambda r: _number(r["attempts_per_s"]), right=True),
    Column("P50", lambda r: millis(r["p50_s"]), right=True),
    Column("P90", lambda r: millis(r["p90_s"]), right=True),
    Column("P95", lambda r: millis(r["p95_s"]), right=True),
    Column("P99", lambda r: millis(r["p99_s"]), right=True),
    Column("IN FLIGHT", lambda r: str(r["in_flight"]), right=True),
)
_TROUBLE = (
    Column("FLAGS", _counts("flags"), wide=True),
    Column("TOTAL", lambda r: str(r["total"]["calls"]), right=True, wide=True),
)
_LAST = Column("LAST ERROR", lambda r: r["last_error"], style=lambda _: "dim")
_CAPACITY = (
    Column("LIMIT", _of_capacity("concurrency_limit", str), right=True, wide=True),
    Column("QUEUE", _of_capacity("queue", str), right=True, wide=True),
    Column("USED", _of_capacity("utilisation", lambda share: f"{share * 100:.1f}%"), right=True, wide=True),
    Column(
        "HEADROOM", _of_capacity("headroom_per_s", lambda rate: f"{_number(rate)}/s"), right=True, wide=True
    ),
)
_BREAKER = Column("BREAKER", _counts("breakers"), wide=True, style=lambda _: "bad")


def _key(name: str) -> Callable[[Record], str]:
    return lambda record: str(record[name])


@dataclass(frozen=True, slots=True)
class _View:
    """What a command shows: its records and columns, and the name of a record for ``-o name``."""

    records: Callable[[Snapshot], list[Record]]
    columns: tuple[Column, ...]
    name: Callable[[Record], str]
    nothing: str


def _stat_view(by: By, services: Sequence[str]) -> _View:
    service = Column("SERVICE", _key("service"), style=lambda _: "name")
    if by == "service":
        own: tuple[Column, ...] = (
            service,
            Column("READY", lambda r: f"{r['ready']}/{r['instances']}", right=True),
        )
    else:
        own = (
            service,
            Column(by.upper(), _key(by), style=lambda _: "name"),
            Column("INST", _key("instances"), right=True),
        )
    more = (*_TROUBLE, *(() if by == "version" else (*_CAPACITY, _BREAKER)), _LAST)

    def name(record: Record) -> str:
        return str(record["service"]) if by == "service" else f"{record['service']}.{record[by]}"

    return _View(
        lambda snapshot: service_records(snapshot, by, services),
        (*own, *_NUMBERS, *more),
        name,
        "no service is here, and none was called",
    )


def _edges_view(by: By, services: Sequence[str]) -> _View:
    own = [
        Column("FROM", _key("source"), style=lambda _: "name"),
        Column("TO", _key("service"), style=lambda _: "name"),
    ]
    if by == "endpoint":
        own.append(Column("ENDPOINT", _key("endpoint"), style=lambda _: "name"))
    retries = Column(
        "RETRY%", lambda r: f"{r['retry_share'] * 100:.1f}" if r["retry_share"] else "0", right=True
    )
    more = [Column("TOLD BY", _key("reporter"), wide=True), *([] if by == "endpoint" else [_BREAKER]), _LAST]

    def name(record: Record) -> str:
        to = record["service"] if by == "service" else f"{record['service']}.{record['endpoint']}"
        return f"{record['source']}→{to}"

    return _View(
        lambda snapshot: edge_records(snapshot, by, services),
        (*own, *_NUMBERS[:3], retries, *_NUMBERS[3:], *_TROUBLE, *more),
        name,
        "nobody has called anybody here, as far as members tell",
    )


# -- commands ---------------------------------------------------------------------------------------


async def stat(
    options: Options, out: Out, services: Sequence[str], *, by: By, window_s: float | None, watch: bool
) -> None:
    """Show the figures of services; exit code 1 where one that is named is neither here nor was called."""
    await _show(options, out, services, _stat_view(by, services), window_s, watch)


async def edges(
    options: Options, out: Out, services: Sequence[str], *, by: By, window_s: float | None, watch: bool
) -> None:
    """Show who calls whom, and how that goes."""
    await _show(options, out, services, _edges_view(by, services), window_s, watch)


async def _show(
    options: Options, out: Out, services: Sequence[str], view: _View, window_s: float | None, watch: bool
) -> None:
    for service in services:
        check_name("service", service)
    if window_s is not None and window_s < SHORTEST_S:
        raise CliError(
            f"--window {window_s:g}s is too short",
            hint=f"members tell once a second: {SHORTEST_S:g}s or more",
        )
    if watch and options.format in (Format.JSON, Format.YAML, Format.NAME):
        raise CliError(
            f"--watch goes on for ever, which -o {options.format} cannot", hint="use -o jsonl: one row a line"
        )
    if window_s is None:
        window_s = WATCH_S if watch else ONCE_S
    async with connected(options, CALLER) as mesh:
        try:
            async with MeshView(mesh, window_s=window_s) as seen:
                if watch:
                    await _watch(seen, options, out, view)
                else:
                    await _once(seen, options, out, services, view, window_s)
        except PermissionDeniedError as error:
            raise CliError(
                f"this credential may not listen to statistics: {error.message}",
                hint="use one of an operator (--creds)",
                code=DENIED,
            ) from None


async def _once(
    seen: MeshView, options: Options, out: Out, services: Sequence[str], view: _View, window_s: float
) -> None:
    await seen.settled(1.0)  # who is there has said a first word
    await anyio.sleep(window_s)
    if not await seen.settled(options.timeout_s or _SETTLE_S):
        out.note("note: not every member has told its latest figures in time", "warn")
    snapshot = seen.snapshot()
    if not snapshot.connected:
        raise CliError("the bus went away meanwhile", code=3)
    _complain(seen, snapshot, out)
    known = {each.name for each in snapshot.services} | {each.source for each in snapshot.edges}
    for service in services:
        if service not in known:
            raise CliError(
                f"no service {service!r} is here, and none of that name was called",
                hint=nearest(service, known),
                code=FAILED,
            )
    out.rows(view.records(snapshot), view.columns, options.format, name=view.name, nothing=view.nothing)


def _complain(seen: MeshView, snapshot: Snapshot, out: Out) -> None:
    if snapshot.ignored:
        out.note(f"note: {snapshot.ignored} messages were not believed, or could not be read", "warn")
    if snapshot.overflowed:
        out.note(f"note: there is more than is kept here: {snapshot.overflowed} words found no room", "warn")
    if silent := seen.silent:
        named = ", ".join(sorted({service for service, _ in silent})[:8])
        out.note(f"note: {len(silent)} instances tell no statistics (of {named})", "warn")


async def _watch(seen: MeshView, options: Options, out: Out, view: _View) -> None:
    fmt = options.format
    if fmt is Format.JSONL:
        await _lines(seen, out, view)
    elif out.tty:
        await _screen(seen, out, view, wide=fmt is Format.WIDE)
    else:
        while True:
            await anyio.sleep(_EVERY_S)
            text = render_list(view.records(seen.snapshot()), view.columns, fmt, name=view.name)
            out.data(f"{text or view.nothing}\n")


async def _lines(seen: MeshView, out: Out, view: _View) -> None:
    while True:
        await anyio.sleep(_EVERY_S)
        snapshot = seen.snapshot()
        at = datetime.fromtimestamp(snapshot.wall_s, UTC).isoformat(timespec="milliseconds")
        for record in view.records(snapshot):
            out.data(dump({"at": at.replace("+00:00", "Z"), **record}, Format.JSONL))


async def _screen(seen: MeshView, out: Out, view: _View, *, wide: bool) -> None:
    """A table drawn anew in place, once a second."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=out.stdout, no_color=not out.color, highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as drawing:
        while True:
            await anyio.sleep(_EVERY_S)
            snapshot = seen.snapshot()
            records = view.records(snapshot)
            text = table(records, view.columns, wide=wide, color=out.color) if records else view.nothing
            if not snapshot.connected:
                text = f"the bus is away for {snapshot.away_s:.0f} s; these are the last figures\n{text}"
            drawing.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)
