"""What the demo comes to: figures per service and edge, and everything that was not as it should be. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nats_mesh.telemetry.snapshots import Figures
from nats_mesh_cli.demo.rows import Row
from nats_mesh_cli.demo.silences import Silence
from nats_mesh_cli.output import counted
from nats_mesh_cli.trouble import gave_up_level

__all__ = [
    "EdgeSummary",
    "PagesSummary",
    "ServedSummary",
    "ServiceSummary",
    "Summary",
    "counts_text",
    "differences",
    "milliseconds",
    "missing",
    "summarise",
]


class ServedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What instances counted: every attempt that reached them, whoever made it. As the figures of a service."""

    calls: int
    errors: int
    success: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    gave_up_share: float


class ServiceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One service over the whole run, as its callers met it: the sum of its edges, and what ``nats-mesh stat`` shows.

    ``errors`` are the service's faults; ratio and durations (milliseconds) are ``None`` where there was no
    call. ``served`` is what its instances counted, ``by_version`` the same by the version that answered, and
    ``versions`` how many calls these were.
    """

    service: str
    calls: int
    errors: int
    success: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    gave_up_share: float
    served: ServedSummary
    versions: dict[str, int]
    by_version: dict[str, ServedSummary]


class EdgeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One caller and one service, in the same figures; ``reporter`` says who counted: ``out`` the caller,
    ``in`` the instances, where the caller tells nothing."""

    source: str
    service: str
    reporter: str
    calls: int
    errors: int
    success: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    gave_up_share: float


class PagesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The load as the generator saw it; here every page that failed is an error.

    ``degraded`` pages came without a part, ``skipped`` were never asked for because too many were in flight.
    ``statuses`` says how those ended that failed, ``parts`` what was missing how often.
    """

    rate_per_s: float
    calls: int
    errors: int
    degraded: int
    skipped: int
    success: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    statuses: dict[str, int] = {}
    parts: dict[str, int] = {}

    @property
    def failures(self) -> str:
        """How many pages failed, and how; empty where none did."""
        return (
            f"{self.errors} of {counted(self.calls, 'page')} failed: {counts_text(self.statuses)}"
            if self.errors
            else ""
        )

    @property
    def losses(self) -> str:
        """How many pages came without a part, and which; empty where none did."""
        if not self.degraded:
            return ""
        pages = f"{self.degraded} of {counted(self.calls, 'page')}"
        return f"{pages} came without one of their parts: {counts_text(self.parts)}"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The result. ``ok`` is true exactly where ``problems`` is empty: ``done`` is what somebody did to it meanwhile,
    and ``caused`` what came of that; ``silences`` are the instances that did not answer for a while."""

    ok: bool
    duration_s: float
    pages: PagesSummary
    services: tuple[ServiceSummary, ...]
    edges: tuple[EdgeSummary, ...]
    problems: tuple[str, ...]
    done: tuple[str, ...] = ()
    caused: tuple[str, ...] = ()
    silences: tuple[Silence, ...] = ()


def summarise(
    *,
    duration_s: float,
    pages: PagesSummary,
    services: Sequence[Row],
    edges: Sequence[Row],
    problems: Iterable[str],
    done: Iterable[str] = (),
    caused: Iterable[str] = (),
    silences: Iterable[Silence] = (),
) -> Summary:
    """Put the rows and what went wrong into a summary."""
    found = tuple(problems)
    return Summary(
        ok=not found,
        duration_s=round(duration_s, 3),
        pages=pages,
        services=tuple(
            ServiceSummary(
                service=row.service,
                served=ServedSummary(**_numbers(row.served)),
                versions={version: figures.requests for version, figures in row.versions.items()},
                by_version={
                    version: ServedSummary(**_numbers(figures)) for version, figures in row.versions.items()
                },
                **_numbers(row.total),
            )
            for row in services
        ),
        edges=tuple(
            EdgeSummary(source=row.source, service=row.service, reporter=row.reporter, **_numbers(row.total))
            for row in edges
        ),
        problems=found,
        done=tuple(done),
        caused=tuple(caused),
        silences=tuple(silences),
    )


def _numbers(figures: Figures) -> dict[str, Any]:
    return {
        "calls": figures.requests,
        "errors": figures.errors,
        "success": figures.success,
        "p50_ms": milliseconds(figures.p50_s),
        "p90_ms": milliseconds(figures.p90_s),
        "p95_ms": milliseconds(figures.p95_s),
        "p99_ms": milliseconds(figures.p99_s),
        "gave_up_share": figures.given_up_share,
    }


def counts_text(found: Mapping[str, int]) -> str:
    """Each with its number, the most first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items(), key=lambda each: -each[1]))


def missing(
    services: Sequence[Row],
    expected: Mapping[str, Sequence[str]],
    edges: Sequence[Row] = (),
    own: Collection[str] = (),
) -> list[tuple[str, str]]:
    """What should have answered and did not, and how the demo's ``own`` calls failed of each service: the service, and
    what is wrong, in one line of each."""
    problems: list[tuple[str, str]] = []
    rows = {row.service: row for row in services}
    for service, versions in expected.items():
        answered = rows[service].versions if service in rows else {}
        problems += [
            (service, f"{service} {version} answered no call")
            for version in versions
            if version not in answered or not answered[version].requests
        ]
    for row in services:
        callers = [edge for edge in edges if edge.service == row.service and edge.source in own]
        if text := _failed(row, [edge for edge in callers if edge.reporter == "out"]):
            problems.append((row.service, text))
    return problems


def _failed(row: Row, callers: Sequence[Row]) -> str:
    """What a service failed of the demo's own calls, by the count of its instances, and what its callers met: these
    know of what never came to an instance, and not of what another attempt made good. Empty where nothing was."""
    own, parts = row.own, list[str]()
    if own.errors:
        parts.append(f"failed {own.errors} of {counted(own.calls, 'call')}")
    calls = sum(edge.total.requests for edge in callers)
    failed = sum(edge.total.errors for edge in callers)
    given_up = sum(edge.total.given_up for edge in callers)
    if not gave_up_level(given_up / calls if calls else 0.0):
        given_up = 0  # some are always stopped
    if failed == own.errors:
        failed = 0  # both ends say the same
    met = [f"{count} {what}" for count, what in ((failed, "failed"), (given_up, "given up")) if count]
    if met:
        parts.append(f"of {counted(calls, 'call')} its callers met {' and '.join(met)}")
    if not parts:
        return ""
    last = own.last_error or next((edge.last_error for edge in callers if edge.last_error), "")
    cause = f"; the last: {last}" if last else ""
    return f"{row.service}{' ' if own.errors else ': '}{'; '.join(parts)}{cause}"


def differences(
    services: Sequence[Row], edges: Sequence[Row], *, target: str, caller: str, sent: int, unknown: int
) -> list[str]:
    """Where sums differ that must be equal: the calls its instances counted, and the attempts of its callers.

    For ``caller``, who calls ``target``, what counts is its own word: ``sent`` calls that arrived, and perhaps
    up to ``unknown`` more. Where a stranger calls as well nothing is said: he may have left before he told.
    """
    known = {row.service for row in services} | {caller}
    problems: list[str] = []
    for row in services:
        callers = [edge for edge in edges if edge.service == row.service]
        if not all(edge.source in known for edge in callers):
            continue
        least = sum(
            edge.total.requests if edge.attempts is None else edge.attempts
            for edge in callers
            if (edge.source, edge.service) != (caller, target)
        )
        least += sent if row.service == target else 0
        most = least + (unknown if row.service == target else 0)
        if not least <= row.served.requests <= most:
            perhaps = f" (and perhaps {unknown} more)" if most > least else ""
            problems.append(
                f"{row.service} counted {counted(row.served.requests, 'call')}, its callers made {least}{perhaps}"
            )
    return problems


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)
