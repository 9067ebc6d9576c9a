"""What is told of an endpoint's calls, as ``describe`` shows it: each value of its `Telemetry`, and its source."""

from __future__ import annotations

from typing import Any

from nats_mesh.core.slowness import MIN_CALLS
from nats_mesh.core.telemetry_rules import ObjectiveRules, TelemetryRules
from nats_mesh.policy import PolicySet
from nats_mesh.policy.formats import PERIOD
from nats_mesh.policy.kinds import DURATION, RATE, SHARE
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.output import Column, Record, table

__all__ = ["is_said", "told_of", "told_table"]


def told_of(policies: PolicySet, service: str, endpoint: str) -> Record:
    """What is told of calls of ``service.endpoint``: by the name of each value, the value and its source."""
    rules = policies.telemetry(service, endpoint)
    sources = policies.telemetry_sources(service, endpoint)
    values: dict[str, tuple[Any, tuple[str, ...]]] = {
        "sampling": (rules.sampling, ("tracing.sampling",)),
        "access_log": (_access_log(rules), ("accessLog.mode", "accessLog.share")),
        "slow": (_slow(rules), ("slow.threshold", "slow.timesP99", "slow")),
        "tap": (_tap(rules), ("tap.payloads", "tap.redact", "tap.redactFields", "tap.rate", "tap")),
        "labels": (dict(rules.labels), tuple(f"labels.{name}" for name, _ in rules.labels)),
        "objectives": ([_objective(each) for each in rules.objectives], ("objectives",)),
    }
    return {
        name: {"value": value, "source": _source(sources, *paths)} for name, (value, paths) in values.items()
    }


def _source(sources: Any, *paths: str) -> str:
    """Every policy that has a word in it, the first first."""
    said = [sources[path] for path in paths if sources.get(path, DEFAULT) != DEFAULT]
    return ", ".join(dict.fromkeys(said)) or DEFAULT


def _access_log(rules: TelemetryRules) -> Record | None:
    log = rules.access_log
    return None if log is None else {"mode": log.mode, "share": log.share}


def _slow(rules: TelemetryRules) -> Record | None:
    slow = rules.slow
    return None if slow is None else {"threshold_s": slow.threshold_s, "times_p99": slow.times_p99}


def _tap(rules: TelemetryRules) -> Record | None:
    tap = rules.tap
    if tap is None:
        return None
    return {
        "payloads": tap.payloads,
        "redact": sorted(tap.redact),
        "redact_fields": list(tap.fields),
        "rate_per_s": tap.rate_per_s,
    }


def _objective(said: ObjectiveRules) -> Record:
    goal = said.latency
    return {
        "name": said.name,
        "availability": said.availability,
        "latency": None if goal is None else {"threshold_s": goal.threshold_s, "share": goal.share},
        "window_s": said.window_s,
    }


def is_said(told: Record) -> bool:
    """Whether any policy has a word in it."""
    return any(each["source"] != DEFAULT for each in told.values())


def told_table(told: Record, *, color: bool) -> str:
    """The same for people."""
    rows = [
        {"what": name, "text": _text(name, each["value"]), "source": each["source"]}
        for name, each in told.items()
    ]
    columns = (
        Column("TOLD", lambda r: str(r["what"]).replace("_", " ")),
        Column("VALUE", lambda r: str(r["text"])),
        Column("SOURCE", lambda r: str(r["source"]), style=lambda r: "dim" if r["source"] == DEFAULT else ""),
    )
    return table(rows, columns, color=color)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "off"
    if name == "sampling":
        return f"{SHARE.write(value)} of the traces that begin with it"
    if name == "access_log":
        if value["mode"] == "errors":
            return "calls that fail"
        return (
            "every call"
            if value["share"] >= 1.0
            else f"calls that fail, {SHARE.write(value['share'])} of the others"
        )
    if name == "slow":
        if value["threshold_s"] is not None:
            return f"from {DURATION.write(value['threshold_s'])} on"
        return f"from {value['times_p99']:g} times its own p99 on (known from about {MIN_CALLS} calls in 1 to 2 min on)"
    if name == "tap":
        return _tap_text(value)
    if name == "labels":
        return ", ".join(f"{key}={text}" for key, text in value.items()) or "none"
    return "; ".join(_objective_text(each) for each in value) or "nothing is promised"


def _tap_text(value: Record) -> str:
    parts = ["with payloads" if value["payloads"] else "without payloads"]
    hidden = [*value["redact"], *value["redact_fields"]]
    if hidden:
        parts.append(f"without {', '.join(hidden)}")
    if value["rate_per_s"] is not None:
        parts.append(f"at most {RATE.write(value['rate_per_s'])}")
    return ", ".join(parts)


def _objective_text(said: Record) -> str:
    parts = []
    if said["availability"] is not None:
        parts.append(f"{SHARE.write(said['availability'])} do not fail")
    if said["latency"] is not None:
        goal = said["latency"]
        parts.append(f"{SHARE.write(goal['share'])} within {DURATION.write(goal['threshold_s'])}")
    return f"{said['name']}: {' and '.join(parts)}, over {PERIOD.write(said['window_s'])}"
