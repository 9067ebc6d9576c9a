"""Prometheus rules: burn-rate alerts for what `Telemetry` policies promise, and a few alerts of the mesh's own.

The calls of an edge are counted by whoever made them, refusals included, where Prometheus reads him; else by the
instances that answered. Recording rules choose once per window; objectives are made of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from nats_mesh.core.burn import CALM_S, Level
from nats_mesh.core.histogram import BOUNDS
from nats_mesh.core.shares import share_text
from nats_mesh.telemetry.slo import EVERY, Indicator, Promise, within_bound
from nats_mesh_cli.gen.promql import (
    DESTINATION,
    FAILED,
    GIVEN_UP,
    SOURCE,
    any_of,
    flagged,
    selector,
    share,
    span,
)

__all__ = ["BUCKETS_S", "loosened", "rules"]

#: The buckets that Prometheus gets (seconds), as :mod:`nats_mesh.telemetry.metrics` has them, which would bring
#: prometheus-client along.
BUCKETS_S: Final = BOUNDS[BOUNDS.index(0.00025) :: 4]
_EDGE: Final = "source_service, destination_service"
_CALLS: Final = "mesh:calls:rate"
_ANSWERS: Final = "mesh:answers:rate"
_IN_TIME: Final = "mesh:answers_in_time:rate"
_FAILURES: Final = "mesh:objective_failures:ratio_rate"
#: Windows up to here are looked at each half minute, longer ones each two: what Prometheus has not looked at for five
#: it takes for gone.
_OFTEN_S: Final = 3600.0
_INTERVALS: Final = {True: "30s", False: "2m"}
_OPEN: Final = 'state="OPEN"'
_SEVERITY: Final = {Level.PAGE: "page", Level.TICKET: "ticket"}

Rule = dict[str, Any]


def rules(promises: Sequence[Promise]) -> dict[str, Any]:
    """The whole file, as data."""
    windows = sorted(
        {window for each in promises for pair in each.pairs for window in (pair.long_s, pair.short_s)}
    )
    groups = []
    for often, spans in groupby(windows, key=lambda each: each <= _OFTEN_S):
        found = [rule for window_s in spans for rule in _recorded(window_s, promises)]
        name = f"mesh-objectives-{'short' if often else 'long'}-windows"
        groups.append({"name": name, "interval": _INTERVALS[often], "rules": found})
    alerts = [rule for promise in promises for rule in _alerts(promise)]
    if alerts:
        groups.append({"name": "mesh-objectives", "rules": alerts})
    groups.append({"name": "mesh", "rules": _own()})
    return {"groups": groups}


def loosened(promises: Iterable[Promise]) -> list[str]:
    """Where the rules say something else than the promises do, in words."""
    found = []
    for each in promises:
        if each.indicator is Indicator.LATENCY and each.threshold_s is not None:
            bound = within_bound(each.threshold_s, BUCKETS_S)
            if bound is None:
                found.append(
                    f"{each.policy} {each.name}: no bucket is as small as {_ms(each.threshold_s)}; left out"
                )
            elif bound < each.threshold_s:
                found.append(
                    f"{each.policy} {each.name}: Prometheus has a bucket at {_ms(bound)} and none at "
                    f"{_ms(each.threshold_s)}; answers in between count as too late"
                )
        if not each.pairs:
            found.append(f"{each.policy} {each.name}: calls cannot fail fast enough to break it; left out")
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1000.0:g}ms"


# -- recorded -----------------------------------------------------------------------------------------


def _recorded(window_s: float, promises: Sequence[Promise]) -> list[Rule]:
    window = span(window_s)
    asked = [each for each in promises if any(window_s in (pair.long_s, pair.short_s) for pair in each.pairs)]
    bounds = sorted({bound for each in asked if (bound := _bound(each)) is not None})
    found = []
    if any(each.indicator is Indicator.AVAILABILITY for each in asked):
        found.append(_chosen(_CALLS, "mesh_requests_total", window, "endpoint, status"))
    if bounds:
        counted = "mesh_request_duration_seconds"
        found.append(_chosen(_ANSWERS, f"{counted}_count", window, "endpoint"))
        matcher = f'le=~"{"|".join([repr(bound) for bound in bounds]).replace(".", "[.]")}"'
        found.append(_chosen(_IN_TIME, f"{counted}_bucket", window, "endpoint, le", matcher))
    found += [rule for each in asked if (rule := _failures(each, window)) is not None]
    return found


def _bound(promise: Promise) -> float | None:
    if promise.threshold_s is None:
        return None
    return within_bound(promise.threshold_s, BUCKETS_S)


def _chosen(name: str, metric: str, window: str, labels: str, matcher: str = "") -> Rule:
    """Each edge's calls as the caller counted them, or where he is not read, the instances."""

    def counted(reporter: str, by: str) -> str:
        return f"sum by ({by}) (rate({metric}{selector(reporter, matcher)}[{window}]))"

    by = f"{_EDGE}, {labels}"
    told = counted(SOURCE, _EDGE)
    return {
        "record": f"{name}{window}",
        "expr": f"{counted(SOURCE, by)} or ({counted(DESTINATION, by)} unless on ({_EDGE}) {told})",
    }


def _failures(promise: Promise, window: str) -> Rule | None:
    """Which share of a promise's calls went wrong; by service."""
    if promise.indicator is Indicator.AVAILABILITY:
        whole = _scoped(promise, f"{_CALLS}{window}")
        ratio = share(_scoped(promise, f"{_CALLS}{window}", FAILED), whole, by="destination_service")
    else:
        bound = _bound(promise)
        if bound is None:
            return None
        whole = _scoped(promise, f"{_ANSWERS}{window}")
        in_time = _scoped(promise, f"{_IN_TIME}{window}", f'le="{bound!r}"')
        ratio = f"clamp_min(1 - {share(in_time, whole, by='destination_service')}, 0)"
    return {"record": f"{_FAILURES}{window}", "expr": ratio, "labels": _identity(promise)}


def _scoped(promise: Promise, metric: str, *matchers: str) -> str:
    endpoints = any_of("endpoint", promise.endpoints)
    service = any_of("destination_service", [promise.service] if promise.service else [])
    others: dict[str, list[str]] = {}
    whole = []
    for name, endpoint in promise.but:
        if endpoint == EVERY:
            whole.append(name)
        else:
            others.setdefault(name, []).append(endpoint)
    without = "" if promise.service else any_of("destination_service", whole, none=True)
    picked = f"{metric}{selector(service, without, endpoints, *matchers)}"
    for name, theirs in sorted(others.items()):
        if name not in whole:
            left_out = selector(any_of("destination_service", [name]), any_of("endpoint", theirs))
            picked += f" unless {metric}{left_out}"
    return f"sum by (destination_service) ({picked})"


def _identity(promise: Promise) -> dict[str, str]:
    return {"objective": promise.name, "indicator": promise.indicator.value, "policy": promise.policy}


# -- alerts -------------------------------------------------------------------------------------------


def _alerts(promise: Promise) -> list[Rule]:
    if promise.indicator is Indicator.LATENCY and _bound(promise) is None:
        return []
    identity = _identity(promise)
    chosen = selector(*[f'{name}="{value}"' for name, value in identity.items()])
    found = []
    for level, severity in _SEVERITY.items():
        parts = []
        for pair in promise.pairs:
            if pair.level is level:
                limit = f"{pair.factor * promise.budget:.6g}"
                both = [f"{_FAILURES}{span(w)}{chosen} > {limit}" for w in (pair.long_s, pair.short_s)]
                parts.append(f"({' and '.join(both)})")
        if parts:
            what = (
                "go well"
                if promise.threshold_s is None
                else f"are answered within {_ms(promise.threshold_s)}"
            )
            promised = f"{share_text(promise.share, 9)} of its calls {what} over {span(promise.window_s)}"
            found.append(
                {
                    "alert": "MeshObjectiveBurns",
                    "expr": " or ".join(parts),
                    "keep_firing_for": span(CALM_S),
                    "labels": {"severity": severity, **identity},
                    "annotations": {
                        "summary": f"{{{{ $labels.destination_service }}}} breaks its promise {promise.name}",
                        "description": f"{promise.policy} promises that {promised}; lately "
                        "{{ $value | humanizePercentage }} do not.",
                    },
                }
            )
    return found


def _own() -> list[Rule]:
    edge = "{{ $labels.source_service }} to {{ $labels.destination_service }}"
    return [
        _alert(
            "MeshNobodyThere",
            f"sum by ({_EDGE}) (rate(mesh_requests_total{selector(SOURCE, flagged('UH'))}[2m])) > 0",
            "page",
            f"Calls from {edge} meet no instance",
            "{{ $value | humanize }} a second end because nobody answers for the service.",
            lasting="2m",
        ),
        _alert(
            "MeshCallsGivenUp",
            f"{share(_calls(GIVEN_UP), _calls(), by=_EDGE)} > 0.1",
            "page",
            f"Calls from {edge} are given up before there is an answer",
            "{{ $value | humanizePercentage }} of them: an instance that hangs counts nothing, and callers with a "
            "timeout of their own see no failure. `nats-mesh top` names instances that are silent.",
            lasting="2m",
        ),
        _alert(
            "MeshBreakerOpenLong",
            f"avg_over_time(mesh_circuit_breaker_state{selector(_OPEN)}[10m]) > 0.5",
            "ticket",
            "A circuit has been open most of ten minutes",
            "Calls to {{ $labels.destination_service }}.{{ $labels.endpoint }} are refused where they are made.",
        ),
        _alert(
            "MeshPolicyRejected",
            "increase(mesh_policy_rejected_total[10m]) > 0",
            "ticket",
            "{{ $labels.instance }} rejects a change of policies",
            "It goes on with those of before; `nats-mesh policy status` says why.",
        ),
        _alert(
            "MeshPoliciesApart",
            "max(mesh_policy_revision) - min(mesh_policy_revision > 0) > 0",
            "ticket",
            "Members follow different revisions of the policies",
            "`nats-mesh policy status` names those that are behind.",
            lasting="5m",
        ),
        _alert(
            "MeshBusReconnects",
            "increase(mesh_bus_reconnects_total[15m]) > 3",
            "ticket",
            "{{ $labels.instance }} loses the bus again and again",
            "It came back {{ $value | humanize }} times within 15 minutes; calls in flight end each time.",
        ),
        _alert(
            "MeshNearlyFull",
            "sum by (instance, destination_service, endpoint) "
            f"(mesh_requests_in_flight{selector(DESTINATION)}) / on (instance, destination_service, endpoint) "
            "sum by (instance, destination_service, endpoint) (mesh_concurrency_limit) > 0.9",
            "ticket",
            "{{ $labels.destination_service }}.{{ $labels.endpoint }} runs nearly as many calls as it takes",
            "{{ $value | humanizePercentage }} of its concurrency limit on {{ $labels.instance }}.",
            lasting="5m",
        ),
        _alert(
            "MeshNotRead",
            'up{job="mesh"} == 0',
            "ticket",
            "{{ $labels.instance }} gives no metrics",
            "It is gone, or its metrics port cannot be reached.",
            lasting="2m",
        ),
    ]


def _calls(*matchers: str) -> str:
    return f"sum by ({_EDGE}) (rate(mesh_requests_total{selector(SOURCE, *matchers)}[2m]))"


def _alert(name: str, expr: str, severity: str, summary: str, description: str, *, lasting: str = "") -> Rule:
    return {
        "alert": name,
        "expr": expr,
        **({"for": lasting} if lasting else {}),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }
