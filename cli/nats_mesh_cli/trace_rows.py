"""The list of ``trace``: its columns, and those that say the same put together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from nats_mesh.telemetry.spans import Summary
from nats_mesh_cli.instants import shown_time
from nats_mesh_cli.output import Column, Record, millis
from nats_mesh_cli.trace_document import reasons_of, record_of
from nats_mesh_cli.trace_finding import ID
from nats_mesh_cli.trouble import status_level

__all__ = ["COLUMNS", "LEAST", "columns_for", "together"]

#: So many reasons stand in a table; -o json has all of them.
_REASONS: Final = 3
#: How many digits of an id tell the traces of a list apart where there is little room.
_BRIEF: Final = 8
#: How many times longer than its first call a trace goes on so that it is worth a column.
_MUCH: Final = 2.0

_TOTAL: Final = Column("TOTAL", lambda r: millis(r["total_ms"] / 1e3), wide=True, right=True, drop=11)
#: How many traces a row stands for, the latest of which it shows, and how long before that the first began.
_COUNT: Final = (
    Column("COUNT", lambda r: str(r["count"]), right=True, drop=3),
    Column("WITHIN", lambda r: millis(r["within_s"]) if r["count"] > 1 else "", right=True, drop=13),
)
COLUMNS: Final = (
    Column(
        "TIME",
        lambda r: shown_time(str(r["at"])),
        drop=10,
        brief=lambda r: shown_time(str(r["at"]))[11:19],
    ),
    Column(
        "TRACE",
        lambda r: str(r["trace"])[:ID],
        style=lambda r: "name",
        drop=0,
        brief=lambda r: str(r["trace"])[:_BRIEF],
    ),
    Column("CALL", lambda r: f"{r['service']}.{r['endpoint']}", drop=0),
    Column("FROM", lambda r: str(r["caller"]), drop=8),
    Column("DURATION", lambda r: millis(r["duration_ms"] / 1e3), right=True, drop=12),
    _TOTAL,
    Column("SPANS", lambda r: str(r["spans"]), right=True, drop=40),
    Column(
        "ERRORS",
        lambda r: str(r["errors"]),
        right=True,
        style=lambda r: "bad" if r["errors"] else "",
        drop=35,
    ),
    Column(
        "RETRIES",
        lambda r: str(r["retries"]),
        right=True,
        style=lambda r: "warn" if r["retries"] else "",
        drop=30,
    ),
    Column("STATUS", lambda r: _status(r), style=lambda r: status_level(r["status"]), drop=2, short=11),
    Column("SERVICES", lambda r: ",".join(r["services"]), wide=True, drop=50, short=12),
    Column("ID", lambda r: str(r["trace"]), wide=True, drop=60),
    Column("WHY", lambda r: _why(r), drop=1, short=15),
)
LEAST: Final = (24, ID, 24, 12, 9, 9, 5, 6, 7, 18, 16, 32, 0)


def columns_for(records: Sequence[Record], *, slow: bool) -> tuple[Column, ...]:
    """The columns for these records: how long all of a trace took stands there where that is asked for (``slow``), or
    where one went on for much longer than its first call; counts, where a row stands for several."""
    long = slow or any(
        record["after_ms"] and record["total_ms"] >= _MUCH * record["duration_ms"] for record in records
    )
    columns = [replace(each, wide=False) if each is _TOTAL and long else each for each in COLUMNS]
    if any(record.get("count", 1) > 1 for record in records):
        columns[2:2] = _COUNT
    return tuple(columns)


def together(traces: Sequence[Summary], limit: int) -> tuple[list[Record], int]:
    """The latest ``limit`` rows of traces in their order, and for how many traces they stand. Neighbours with the same
    first call, status and reasons are one row: the latest of them, with a ``count``, and ``within_s`` from the first
    one's begin to its own (seconds). So are refusals with others between them: what made a circuit open must be found
    among what it refused. What went well and has no reason to tell is looked at one by one."""
    rows: list[Record] = []
    last: tuple[object, ...] | None = None
    #: By what refusals say, the place of their row; by place, when the trace began that the row shows.
    refusals: dict[tuple[object, ...], int] = {}
    begins: list[int] = []
    stood_for = 0
    for summary in reversed(traces):
        record = record_of(summary)
        why = reasons_of(record)
        same = (summary.caller, summary.service, summary.endpoint, _status(record), *why)
        place = refusals.get(same) if summary.only_refused else None
        if place is None and same == last:
            place = len(rows) - 1
        if place is not None:
            rows[place]["count"] += 1
            rows[place]["within_s"] = (begins[place] - summary.start_us) / 1e6
        elif len(rows) >= limit:
            break
        else:
            rows.append({**record, "count": 1, "within_s": 0.0})
            begins.append(summary.start_us)
            last = same if why or summary.status != "OK" else None
            if summary.only_refused:
                refusals[same] = len(rows) - 1
        stood_for += 1
    return rows[::-1], stood_for


def _status(record: Record) -> str:
    slow = " slow" if record["slow"] else ""
    return f"{record['status']}{slow}"


def _why(record: Record) -> str:
    reasons = reasons_of(record)
    left = len(reasons) - _REASONS
    return "; ".join([*reasons[:_REASONS], *([f"{left} more"] if left > 0 else [])])
