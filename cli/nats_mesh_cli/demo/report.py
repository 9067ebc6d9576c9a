"""The summary as it is printed: tables for people, records for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh_cli.demo.summary import Summary
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Record, dump, millis, success_text, table

__all__ = ["report"]


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


_NUMBERS = (
    Column("CALLS", lambda record: str(record["calls"]), right=True),
    Column("ERRORS", lambda record: str(record["errors"]), right=True, style=_verdict),
    Column("SUCCESS", _success, right=True, style=_verdict),
    Column("P50", _ms("p50_ms"), right=True),
    Column("P90", _ms("p90_ms"), right=True),
    Column("P99", _ms("p99_ms"), right=True),
)
_SERVICES = (Column("SERVICE", lambda record: record["service"]), *_NUMBERS)
_VERSIONS = (
    Column("ANSWERED BY", lambda record: f"{record['service']} {record['version']}"),
    Column("CALLS", lambda record: str(record["calls"]), right=True),
)
_EDGES = (Column("EDGE", lambda record: f"{record['source']} → {record['service']}"), *_NUMBERS)


def report(summary: Summary, fmt: Format, *, pretty: bool = False, color: bool = False) -> str:
    """``summary`` in the form asked for."""
    document = msgspec.to_builtins(summary)
    if fmt is Format.NAME:
        return "\n".join(service["service"] for service in document["services"])
    if fmt.structured:
        return dump(document, fmt, pretty=pretty)
    parts = [
        table(document["services"], _SERVICES, color=color),
        table(document["edges"], _EDGES, color=color),
        table(_versions(document["services"]), _VERSIONS, color=color),
        _pages(summary),
    ]
    return "\n\n".join(part for part in parts if part)


def _pages(summary: Summary) -> str:
    pages = summary.pages
    facts = [f"{pages.calls} pages in {summary.duration_s:.1f} s at {pages.rate_per_s:g}/s"]
    facts.append(f"{pages.errors} failed")
    facts.append(f"{pages.degraded} incomplete")
    if pages.skipped:
        facts.append(f"{pages.skipped} skipped because too many were in flight")
    well = "all is well, beside what was done to it" if summary.done else "all is well"
    facts.append(well if summary.ok else f"{len(summary.problems)} problems")
    return f"{', '.join(facts[:-1])}: {facts[-1]}"


def _versions(services: Sequence[Record]) -> list[Record]:
    return [
        {"service": service["service"], "version": version, "calls": calls}
        for service in services
        for version, calls in service["versions"].items()
    ]
