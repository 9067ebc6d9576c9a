"""The summary as it is printed: tables for people, records for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh_cli.demo.summary import Summary, counts_text
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Record, counted, dump, layout, millis, success_text
from nats_mesh_cli.stat_table import GAVE_UP, with_seldom
from nats_mesh_cli.trouble import met_level

__all__ = ["report", "said_besides"]


def _ms(key: str) -> Any:
    def text(record: Record) -> str:
        value = record[key]
        return millis(None if value is None else value / 1000)

    return text


def _success(record: Record) -> str:
    share = record["success"]
    return "-" if share is None else success_text(share)


def _verdict(record: Record) -> str:
    return "bad" if record["errors"] else "ok"


def _met(record: Record) -> str:
    """Where many calls were given up, answers that are well are no sign that all is."""
    return _verdict(record) if record["errors"] else met_level(record["success"], record["gave_up_share"])


#: As `stat` has them, and in its order of what goes first where there is no room.
_NUMBERS = (
    Column("CALLS", lambda record: str(record["calls"]), right=True, drop=3),
    Column("ERRORS", lambda record: str(record["errors"]), right=True, style=_verdict, drop=2),
    Column("SUCCESS", _success, right=True, style=_met, drop=4),
    Column("P50", _ms("p50_ms"), right=True, drop=80),
    Column("P90", _ms("p90_ms"), right=True, drop=95),
    Column("P95", _ms("p95_ms"), right=True, drop=90),
    Column("P99", _ms("p99_ms"), right=True, drop=40),
    GAVE_UP,
)
_FOOTNOTE = "* this caller tells nothing: what the instances counted of its calls"
#: The same calls are counted at both ends, and differ by what never arrived, and by what was tried again.
_SERVICES = (Column("SERVICE (callers' count)", lambda record: record["service"], drop=0), *_NUMBERS)
_EDGES = (Column("EDGE (callers' count)", lambda record: _edge(record), drop=0), *_NUMBERS)
_VERSIONS = (
    Column("INSTANCES (own count)", lambda record: f"{record['service']} {record['version']}", drop=0),
    *_NUMBERS,
)


def report(
    summary: Summary, fmt: Format, *, pretty: bool = False, color: bool = False, room: int | None = None
) -> str:
    """``summary`` in the form asked for; tables in ``room`` cells, where that is a terminal's."""
    document = msgspec.to_builtins(summary)
    if fmt is Format.NAME:
        return "\n".join(service["service"] for service in document["services"])
    if fmt.structured:
        return dump(document, fmt, pretty=pretty)
    versions = _versions(document["services"])
    every = [*document["services"], *document["edges"], *versions]

    def drawn(records: Sequence[Record], columns: Sequence[Column]) -> str:
        found = layout(records, with_seldom(columns, every), room=room)
        return "\n".join(filter(None, (found.rows(records, color=color), found.note)))

    parts = [
        drawn(document["services"], _SERVICES),
        drawn(document["edges"], _EDGES),
        _FOOTNOTE if any(edge["reporter"] != "out" for edge in document["edges"]) else "",
        drawn(versions, _VERSIONS),
        _pages(summary),
    ]
    return "\n\n".join(part for part in parts if part)


def _edge(record: Record) -> str:
    told = "" if record["reporter"] == "out" else " *"
    return f"{record['source']} → {called_text(record['service'])}{told}"


def _pages(summary: Summary) -> str:
    pages = summary.pages
    facts = [f"{counted(pages.calls, 'page')} in {summary.duration_s:.1f} s at {pages.rate_per_s:g}/s"]
    facts.append(f"{pages.errors} failed")
    facts.append(f"{pages.degraded} incomplete")
    if pages.skipped:
        facts.append(f"{pages.skipped} skipped because too many were in flight")
    return f"{', '.join(facts)}: {_verdict_text(summary)}"


def _verdict_text(summary: Summary) -> str:
    """All is well only as far as it is: what came of somebody's deeds stands in the same sentence."""
    if not summary.ok:
        return counted(len(summary.problems), "problem")
    if not summary.done:
        return "all is well"
    pages, lost = summary.pages, []
    if pages.errors:
        lost.append(
            f"{pages.errors} of {counted(pages.calls, 'page')} failed ({counts_text(pages.statuses)})"
        )
    if pages.degraded:
        of = "" if lost else f" of {counted(pages.calls, 'page')}"
        lost.append(f"{pages.degraded}{of} were incomplete (without {counts_text(pages.parts)})")
    if not lost:
        return "all is well, beside what was done to it"
    return f"all is well, beside what was done to it, but {' and '.join(lost)} because of it"


def said_besides(summary: Summary, fmt: Format) -> list[str]:
    """What came of deeds and is still to be told: of pages the verdict's own sentence tells, where there is one."""
    told = (
        ()
        if fmt.structured or fmt is Format.NAME or not summary.ok
        else (summary.pages.failures, summary.pages.losses)
    )
    return [text for text in summary.caused if text not in told]


def _versions(services: Sequence[Record]) -> list[Record]:
    return [
        {"service": service["service"], "version": version, **served}
        for service in services
        for version, served in service["by_version"].items()
    ]
