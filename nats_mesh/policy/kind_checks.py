"""What the fields of a policy may only say together: access, authentication, telemetry, gateways, rollouts, limits."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from msgspec import UNSET

from nats_mesh.core.redact import MAX_PATHS
from nats_mesh.policy.access_parts import AccessSpec, AuthenticationSpec, Issuer
from nats_mesh.policy.limit_parts import Throttle
from nats_mesh.policy.look import Look
from nats_mesh.policy.rollout_parts import Gates, RolloutSpec, Step
from nats_mesh.policy.schema import Concurrency, LimitSpec
from nats_mesh.policy.telemetry_parts import Objective, TelemetrySpec

__all__ = ["access", "authentication", "limit", "rollout", "telemetry", "throttle"]

MAX_KEYS = 4
MAX_LEEWAY_S = 300.0
_HOUR_S, _DAY_S = 3600.0, 86_400.0


def access(spec: AccessSpec, look: Look) -> None:
    """Rules have names of their own, and say something."""
    look.something("spec", ("rules", "default"))
    seen: dict[str, str] = {}
    for index, rule in enumerate([] if spec.rules is UNSET else spec.rules):
        path = f"spec.rules[{index}]"
        lists = ("callers", "not_callers", "endpoints", "not_endpoints", "headers", "claims")
        look.names(path, rule, lists)
        look.conditions(f"{path}.headers", rule.headers)
        look.conditions(f"{path}.claims", rule.claims)
        if rule.name is not UNSET:
            other = seen.setdefault(rule.name, path)
            if other != path:
                look.say(f"{path}.name", f"is the name of {other}, too: give one of them another")


def authentication(spec: AuthenticationSpec, look: Look) -> None:
    """Each issuer stands once, and its keys can be found."""
    seen: dict[str, str] = {}
    for index, issuer in enumerate(spec.issuers):
        path = f"spec.issuers[{index}]"
        other = seen.setdefault(issuer.issuer, path)
        if other != path:
            look.say(f"{path}.issuer", f"stands at {other}, too: put the two into one")
        look.names(path, issuer, ("audiences", "algorithms"))
        if issuer.leeway is not UNSET and issuer.leeway > MAX_LEEWAY_S:
            look.say(f"{path}.leeway", "must be at most 5m: set the clock right instead")
        _keys_of(path, issuer, look)


def _keys_of(path: str, issuer: Issuer, look: Look) -> None:
    jwks = issuer.jwks
    if jwks is UNSET:
        if f"{path}.jwks" not in look.lines and urlsplit(issuer.issuer).scheme != "https":
            look.say(
                f"{path}.jwks",
                "is missing: only an issuer that is an https:// address tells its keys itself. Give it a url, a file "
                "or inline",
            )
        return
    look.one_of(f"{path}.jwks", jwks, ("url", "file", "inline"))
    look.at_least(f"{path}.jwks.refresh", jwks.refresh, 1.0, "1s")
    if jwks.refresh is not UNSET and not look.says(f"{path}.jwks", ("url",)):
        look.say(f"{path}.jwks.refresh", "has no effect without url: remove it")


def telemetry(spec: TelemetrySpec, look: Look) -> None:
    """Thresholds that can be met, and objectives that can be missed."""
    look.something("spec", ("tracing", "accessLog", "slow", "tap", "labels", "objectives"))
    if spec.tracing is not UNSET:
        look.something("spec.tracing", ("sampling",))
    log = spec.access_log
    if log is not UNSET and log.mode == "off" and log.share is not UNSET:
        look.say("spec.accessLog.share", "has no effect with the mode off: remove it")
    if log is not UNSET and log.mode == "errors" and log.share is not UNSET:
        look.say("spec.accessLog.share", "has no effect with the mode errors, which writes all: remove it")
    slow = spec.slow
    if slow is not UNSET and slow != "off":
        look.one_of("spec.slow", slow, ("threshold", "timesP99"))
        look.positive("spec.slow.threshold", slow.threshold)
        look.at_least("spec.slow.timesP99", slow.times_p99, 1.0)
    if spec.tap is not UNSET and spec.tap != "off":
        look.positive("spec.tap.rate", spec.tap.rate, "0/s")
        fields = spec.tap.redact_fields
        if fields is not UNSET and len(fields) > MAX_PATHS:
            look.say(
                "spec.tap.redactFields",
                f"has {len(fields)} paths, at most {MAX_PATHS} are looked for in a body",
            )
    seen: set[object] = set()
    for index, objective in enumerate([] if spec.objectives is UNSET else spec.objectives):
        path = look.place("spec.objectives", index)
        if objective.name in seen:
            look.say(
                path if objective.name is UNSET else f"{path}.name",
                "has the name of another one: give each its own",
            )
        seen.add(objective.name)
        _objective(path, objective, look)


def _objective(path: str, objective: Objective, look: Look) -> None:
    look.something(path, ("availability", "latency"))
    _below_all(f"{path}.availability", objective.availability, look)
    if objective.latency is not UNSET:
        look.positive(f"{path}.latency.threshold", objective.latency.threshold)
        _below_all(f"{path}.latency.share", objective.latency.share, look)
    if objective.window is not UNSET and not _HOUR_S <= objective.window <= 90 * _DAY_S:
        look.say(f"{path}.window", "must be from 1h to 90d")


def _below_all(path: str, share: Any, look: Look) -> None:
    look.positive(path, share, "0%")
    if share == 1.0:
        look.say(path, "must be below 100%: nothing could ever be changed without missing it")


def rollout(spec: RolloutSpec, look: Look) -> None:
    """Steps that grow and end, gates that can be held to, and nothing that could have no effect."""
    target = spec.target
    if target.service is UNSET and not look.says("spec.target", ("service",)):
        look.say("spec.target", "needs a service: whose versions?")
    if target.endpoints is not UNSET:
        look.say(
            "spec.target.endpoints",
            "cannot be rolled out alone: a version comes with all endpoints; remove it",
        )
    if spec.from_ == spec.to:
        look.say("spec.to", "is the old subset, too: name the new one")
    before = 0
    for index, step in enumerate(spec.steps):
        _step(f"spec.steps[{index}]", step, before, index == len(spec.steps) - 1, look)
        before = max(before, step.weight)
    if spec.gates is not UNSET:
        _gates(spec.gates, look)
    look.at_least("spec.interval", spec.interval, 1.0, "1s")
    look.at_least("spec.consecutive", spec.consecutive, 1)
    gated, timed = (f"spec.{name}" in look.lines for name in ("gates", "deadline"))
    for name in ("interval", "consecutive"):
        if f"spec.{name}" in look.lines and not gated:
            look.say(f"spec.{name}", "has no effect without gates: add some, or remove it")
    if "spec.onFailure" in look.lines and not gated and not timed:
        look.say("spec.onFailure", "has no effect without gates or a deadline: add one, or remove it")
    least = sum(0.0 if step.for_ is UNSET else step.for_ for step in spec.steps)
    if spec.deadline is not UNSET and spec.deadline <= least:
        look.say("spec.deadline", "must be longer than all steps together")
    look.sticky("spec.sticky", spec.sticky)


def _step(path: str, step: Step, before: int, last: bool, look: Look) -> None:
    if step.weight == 0:
        look.say(f"{path}.weight", "sends nobody to the new subset: leave the step out")
    elif step.weight <= before:
        look.say(f"{path}.weight", f"must be above that of the step before, {before}")
    look.positive(f"{path}.for", step.for_)
    if step.for_ is not UNSET and step.pause is True:
        look.say(f"{path}.pause", "cannot stand beside for: a step ends by itself, or when somebody says so")
    elif step.pause is not True and not look.says(path, ("for",)) and not (last and step.weight == 100):
        look.say(path, "says not how long: give it for, or pause: true")


def _gates(gates: Gates, look: Look) -> None:
    look.something("spec.gates", ("errorRate", "latency"))
    if (rate := gates.error_rate) is not UNSET:
        path = "spec.gates.errorRate"
        look.something(path, ("max", "increase"))
        for name, share in (("max", rate.max), ("increase", rate.increase)):
            if share == 1.0:
                look.say(f"{path}.{name}", "must be below 100%: it would hold whatever happens")
        look.at_least(f"{path}.minCalls", rate.min_calls, 1)
    if (latency := gates.latency) is not UNSET:
        path = "spec.gates.latency"
        look.something(path, ("max", "ratio"))
        if latency.quantile is not UNSET and not 0.0 < latency.quantile < 1.0:
            look.say(f"{path}.quantile", "must be above 0% and below 100%")
        look.positive(f"{path}.max", latency.max)
        look.at_least(f"{path}.ratio", latency.ratio, 1.0)
        look.at_least(f"{path}.minCalls", latency.min_calls, 1)


def limit(spec: LimitSpec, look: Look) -> None:
    """Something is limited, and each limit lets something through."""
    look.something("spec", ("concurrency", "rate", "quota", "queue", "priority"))
    if spec.concurrency is not UNSET:
        _concurrency("spec.concurrency", spec.concurrency, look)
    if (rate := spec.rate) is not UNSET:
        look.positive("spec.rate.limit", rate.limit, "0/s")
        look.at_least("spec.rate.burst", rate.burst, 1)
        _keys("spec.rate", rate, look)
    if (quota := spec.quota) is not UNSET:
        look.at_least("spec.quota.window", quota.window, 1.0, "1s")
        _keys("spec.quota", quota, look)
    if (queue := spec.queue) is not UNSET:
        look.at_least("spec.queue.size", queue.size, 1)
        look.positive("spec.queue.timeout", queue.timeout)
    if (priority := spec.priority) is not UNSET:
        look.something("spec.priority", ("critical", "sheddable", "trust", "reserve", "shedAt"))
        look.names("spec.priority", priority, ("critical", "sheddable"))
        if priority.reserve == 1.0:
            look.say("spec.priority.reserve", "must be below 100%: it would leave nothing for the others")
        look.positive("spec.priority.shedAt", priority.shed_at, "0%")


def _keys(path: str, part: Any, look: Look) -> None:
    look.names(path, part, ("keys",))
    if part.keys is not UNSET and len(part.keys) > MAX_KEYS:
        look.say(f"{path}.keys", f"are {len(part.keys)}: at most {MAX_KEYS} may stand together")


def _concurrency(path: str, said: Concurrency, look: Look) -> None:
    names = ("limit", "leaveQueue", "adaptive")
    if not look.says(path, names):
        look.say(path, "limits nothing: give it a limit, leaveQueue, or both")
    adaptive = said.adaptive
    if adaptive is UNSET or adaptive == "off":
        return
    for name, value in (("min", adaptive.min), ("max", adaptive.max)):
        look.at_least(f"{path}.adaptive.{name}", value, 1)
    least = 1 if adaptive.min is UNSET else adaptive.min
    if adaptive.max is not UNSET and 1 <= adaptive.max < least:
        look.say(f"{path}.adaptive.max", f"must be {least} or more, as min is")
    if said.limit is not UNSET and adaptive.max is not UNSET and adaptive.max > said.limit:
        look.say(f"{path}.adaptive.max", f"has no effect above limit ({said.limit}): write one of them")
    if said.limit is not UNSET and said.limit < least:
        look.say(f"{path}.adaptive.min", f"must be at most limit ({said.limit})")
    if adaptive.tolerance is not UNSET and adaptive.tolerance <= 1.0:
        look.say(f"{path}.adaptive.tolerance", "must be above 1")
    look.positive(f"{path}.adaptive.window", adaptive.window)


def throttle(said: Throttle, look: Look) -> None:
    """A rate or a number, and what goes with it."""
    path = "spec.throttle"
    look.something(path, ("rate", "concurrency"))
    look.positive(f"{path}.rate", said.rate, "0/s")
    for name, value in (("burst", said.burst), ("concurrency", said.concurrency)):
        look.at_least(f"{path}.{name}", value, 1)
    if said.burst is not UNSET and not look.says(path, ("rate",)):
        look.say(f"{path}.burst", "has no effect without rate: remove it")
    look.positive(f"{path}.timeout", said.timeout)
    if (
        said.timeout is not UNSET
        and not said.pending
        and not (said.pending is UNSET and look.says(path, ("pending",)))
    ):
        look.say(f"{path}.timeout", "has no effect where nobody waits: say beside it how many are pending")
