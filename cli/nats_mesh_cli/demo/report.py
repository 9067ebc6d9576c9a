"""The summary as it is printed: tables for people, records for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh_cli.demo.summary import Summary
from nats_mesh_cli.measured import called_text
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
_FOOTNOTE = "* this caller tells nothing: what the instances counted of its calls"
#: The same calls are counted at both ends, and differ by what never arrived, and by what was tried again.
_SERVICES = (Column("SERVICE (callers' count)", lambda record: record["service"]), *_NUMBERS)
_EDGES = (Column("EDGE (callers' count)", lambda record: _edge(record)), *_NUMBERS)
_VERSIONS = (
    Column("INSTANCES (own count)", lambda record: f"{record['service']} {record['version']}"),
    *_NUMBERS,
)


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
        _FOOTNOTE if any(edge["reporter"] != "out" for edge in document["edges"]) else "",
        table(_versions(document["services"]), _VERSIONS, color=color),
        _pages(summary),
    ]
    return "\n\n".join(part for part in parts if part)


def _edge(record: Record) -> str:
    told = "" if record["reporter"] == "out" else " *"
    return f"{record['source']} → {called_text(record['service'])}{told}"


def _pages(summary: Summary) -> str:
    pages = summary.pages
    facts = [f"{pages.calls} pages in {summary.duration_s:.1f} s at {pages.rate_per_s:g}/s"]
    facts.append(f"{pages.errors} failed")
    facts.append(f"{pages.degraded} incomplete")
    if pages.skipped:
        facts.append(f"{pages.skipped} skipped because too many were in flight")
    return f"{', '.join(facts)}: {_verdict_text(summary)}"


def _verdict_text(summary: Summary) -> str:
    """All is well only as far as it is: what came of somebody's deeds stands in the same sentence."""
    if not summary.ok:
        count = len(summary.problems)
        return f"{count} problem{'s' if count > 1 else ''}"
    if not summary.done:
        return "all is well"
    pages = summary.pages
    lost = [
        f"{count} {what}"
        for count, what in ((pages.errors, "failed"), (pages.degraded, "were incomplete"))
        if count
    ]
    if not lost:
        return "all is well, beside what was done to it"
    first, *more = lost
    number, _, word = first.partition(" ")
    came = " and ".join([f"{number} of {pages.calls} pages {word}", *more])
    return f"all is well, beside what was done to it, but {came} because of it"


def _versions(services: Sequence[Record]) -> list[Record]:
    return [
        {"service": service["service"], "version": version, **served}
        for service in services
        for version, served in service["by_version"].items()
    ]
