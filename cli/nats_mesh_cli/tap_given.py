"""What a tap is to show, as the command line says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from nats_mesh.core.envelope import check_header_names, is_secret
from nats_mesh.core.tap_filter import MAX_CHOICES, MAX_HEADERS, Filter
from nats_mesh.errors import Status
from nats_mesh.model import check_name
from nats_mesh.telemetry.tap_feed import MAX_TARGETS
from nats_mesh.telemetry.tap_messages import MAX_WHY
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.statuses import statuses_of
from nats_mesh_cli.values import parse_headers

__all__ = ["RATE_PER_S", "Plan", "check", "filter_of", "targets_of"]

#: How many calls a second are shown at most where nothing is said.
RATE_PER_S: Final = 100.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to show: calls of ``targets`` (services, each with its endpoints; none: all) that ``only`` admits, at most
    ``rate_per_s``, ``most`` in all, for ``for_s`` seconds. ``why`` is set where bodies are wanted."""

    targets: dict[str, tuple[str, ...]] = {}
    only: Filter = Filter()
    rate_per_s: float = RATE_PER_S
    most: int | None = None
    for_s: float | None = None
    why: str | None = None


def targets_of(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``orders stock.count`` as services with their endpoints; a service that is named alone means all of them."""
    found: dict[str, tuple[str, ...]] = {}
    whole: set[str] = set()
    for word in given:
        service, dot, endpoint = word.partition(".")
        check_name("service", service)
        if dot:
            found[service] = tuple(dict.fromkeys([*found.get(service, ()), check_name("endpoint", endpoint)]))
        else:
            whole.add(service)
    found |= dict.fromkeys(whole, ())
    if len(found) > MAX_TARGETS or any(len(names) > MAX_CHOICES for names in found.values()):
        raise CliError(
            f"these are too many: name up to {MAX_TARGETS} services and {MAX_CHOICES} endpoints of each, or none at all"
        )
    return found


def filter_of(
    *,
    callers: Sequence[str] = (),
    statuses: Sequence[str] = (),
    errors: bool = False,
    slow_s: float | None = None,
    headers: Sequence[str] = (),
    routes: Sequence[str] = (),
) -> Filter:
    """Which calls to show, as the command line says it; :class:`CliError` for what cannot be."""
    wanted = statuses_of(statuses)
    if errors and wanted == (str(Status.OK),):
        raise CliError("--errors and --status OK contradict each other", hint="give one of them")
    pairs = tuple((name.lower(), value) for name, value in parse_headers(headers).pairs())
    check_header_names([name for name, _ in pairs])
    for name, _ in pairs:
        if is_secret(name):
            raise CliError(
                f"--header {name}: its value is a secret that nobody is shown, so nothing can be found by it",
                hint="look for another header, or for a --from",
            )
    for what, names, most in (
        ("--from", callers, MAX_CHOICES),
        ("--route", routes, MAX_CHOICES),
        ("--header", pairs, MAX_HEADERS),
    ):
        if len(names) > most:
            raise CliError(f"{what} may be given {most} times")
    return Filter(
        callers=tuple(check_name("caller", name) for name in callers),
        routes=tuple(check_name("route", name) for name in routes),
        statuses=wanted,
        failed=errors,
        slow_s=slow_s or 0.0,
        headers=pairs,
    )


def check(options: Options, plan: Plan) -> None:
    """Refuse what cannot be shown, before anything is asked of the bus."""
    fmt = options.format
    if fmt is Format.NAME:
        raise CliError("tap: a call has no name", hint="use -o json, jsonl, yaml, or leave -o out")
    if fmt in (Format.JSON, Format.YAML) and plan.most is None and plan.for_s is None:
        raise CliError(
            f"a tap goes on for ever, which -o {fmt} cannot",
            hint="use -o jsonl: one call a line; or say --max or --duration",
        )
    if plan.why is not None and not plan.why.strip():
        raise CliError(
            "--payload needs a reason: who looks at what is said in calls is written down",
            hint="say it with -m TEXT",
        )
    if plan.why is not None and (len(plan.why) > MAX_WHY or not plan.why.isprintable()):
        raise CliError(f"-m: a reason is one line of at most {MAX_WHY} characters")
