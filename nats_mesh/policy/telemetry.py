"""From `Telemetry` policies to what both sides follow: laid over each other field by field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import UNSET

from nats_mesh.core.telemetry_rules import (
    DEFAULT_SAMPLING,
    AccessLogMode,
    AccessLogRules,
    LatencyGoal,
    ObjectiveRules,
    SlowRules,
    TapRules,
    TelemetryRules,
)
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.layering import Layers, Leaf
from nats_mesh.policy.rules import DEFAULT
from nats_mesh.policy.telemetry_parts import Objective, Telemetry, TelemetrySpec

__all__ = ["objectives_of", "telemetry_rules"]

_LAID: Final = tuple(
    field
    for field in fields_of(TelemetrySpec).values()
    if field.name not in ("target", "labels", "objectives")
)
_TAP: Final = TapRules()
_LABELS, _OBJECTIVES = "labels", "objectives"


def telemetry_rules(policies: Iterable[Policy]) -> TelemetryRules:
    """What ``policies``, all of them about one target, come to; from the least to the most specific."""
    layers = Layers()
    labels: dict[str, str] = {}
    objectives: tuple[ObjectiveRules, ...] = ()
    sources = {_OBJECTIVES: DEFAULT}
    for policy in policies:
        document = policy.document
        assert isinstance(document, Telemetry)
        spec = document.spec
        said = spec.access_log
        if said is not UNSET and said.mode is UNSET:
            layers.forget("accessLog.mode")  # who says more of the log without a mode wants one
        layers.add(policy, spec, "spec.")
        if spec.labels is not UNSET:
            for name, value in spec.labels.items():
                labels[name] = value
                sources[f"{_LABELS}.{name}"] = policy.source_of(f"spec.{_LABELS}")
        if spec.objectives is not UNSET:
            objectives = objectives_of(policy)
            sources[_OBJECTIVES] = policy.source_of(f"spec.{_OBJECTIVES}")
    leaves = layers.leaves
    sampling = leaves.get("tracing.sampling")
    return TelemetryRules(
        sampling=DEFAULT_SAMPLING if sampling is None else sampling.value,
        access_log=_access_log(leaves),
        slow=_slow(leaves),
        tap=_tap(leaves),
        labels=tuple(sorted(labels.items())),
        objectives=objectives,
        sources={**dict(layers.sources(_LAID)), **sources},
    )


def objectives_of(policy: Policy) -> tuple[ObjectiveRules, ...]:
    """What one policy promises of its target."""
    spec = policy.document.spec
    assert isinstance(spec, TelemetrySpec)
    target = spec.target
    named = target is not UNSET and target.service is not UNSET
    return tuple(
        [
            ObjectiveRules(
                name=said.name or policy.document.metadata.name,
                policy=policy.name,
                service=str(target.service) if target is not UNSET and named else "",
                endpoints=() if target is UNSET or target.endpoints is UNSET else tuple(target.endpoints),
                availability=None if said.availability is UNSET else said.availability,
                latency=_latency(said),
                window_s=30 * 86_400.0 if said.window is UNSET else said.window,
            )
            for said in (() if spec.objectives is UNSET else spec.objectives)
        ]
    )


def _latency(said: Objective) -> LatencyGoal | None:
    goal = said.latency
    return None if goal is UNSET else LatencyGoal(threshold_s=goal.threshold, share=goal.share)


def _access_log(leaves: Any) -> AccessLogRules | None:
    mode, share = leaves.get("accessLog.mode"), leaves.get("accessLog.share")
    if mode is None and share is None:
        return None
    how: AccessLogMode | None = "on" if mode is None else mode.value
    if how is None:  # off
        return None
    return AccessLogRules(mode=how, share=1.0 if share is None or how == "errors" else share.value)


def _slow(leaves: Any) -> SlowRules | None:
    threshold, times = leaves.get("slow.threshold"), leaves.get("slow.timesP99")
    if threshold is None and times is None:
        return None
    return SlowRules(
        threshold_s=None if threshold is None else threshold.value,
        times_p99=None if times is None else times.value,
    )


def _tap(leaves: Any) -> TapRules | None:
    block: Leaf | None = leaves.get("tap")
    if block is not None and block.value == "off":
        return None
    redact, fields = leaves.get("tap.redact"), leaves.get("tap.redactFields")
    return TapRules(
        payloads=_value(leaves, "tap.payloads", _TAP.payloads),
        redact=_TAP.redact if redact is None else frozenset(redact.value),
        fields=_TAP.fields if fields is None else tuple(fields.value),
        rate_per_s=_value(leaves, "tap.rate", _TAP.rate_per_s),
    )


def _value(leaves: Any, path: str, default: Any) -> Any:
    leaf = leaves.get(path)
    return default if leaf is None else leaf.value
