"""NM10: rollouts that cannot go well, or cannot fail."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import View
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.scopes import scopes_of

__all__: list[str] = []


@check(
    "NM1001", "warning", "A rollout without gates",
    "Give it `gates`, so that a bad version comes back by itself: without them time alone decides.",
)  # fmt: skip
def no_gates(view: View) -> Iterable[Hit]:
    """A rollout that nothing stops."""
    for policy, spec in view.of(Rollout):
        if spec.gates is UNSET:
            yield Hit(
                policy, "spec.steps", "goes on whatever happens to the calls: nothing is said that must hold"
            )


@check(
    "NM1002", "error", "A rollout to, or from, nobody",
    "Start instances of the new version before the rollout, and keep those of the old one until it has ended.",
)  # fmt: skip
def nobody_there(view: View) -> Iterable[Hit]:
    """A rollout between subsets of which one selects no instance."""
    for policy, spec in view.of(Rollout):
        service = scopes_of(policy)[0][0]
        instances = view.instances(service)
        for path, name in (("spec.from", spec.from_), ("spec.to", spec.to)):
            found = view.subsets.get(service, {}).get(name)
            if found is None or not instances:
                continue
            if not any(found[0].selects(each.version, each.labels) for each in instances):
                yield Hit(policy, path, f"none of {service}'s {len(instances)} instances is in {name}")


@check(
    "NM1003", "warning", "A latency gate that never holds anything back",
    "Let `latency.max` be below the timeout: calls that run into it are failures, and no answers.",
)  # fmt: skip
def late_gate(view: View) -> Iterable[Hit]:
    """A gate on latencies that no answer can have."""
    for policy, spec in view.of(Rollout):
        gate = UNSET if spec.gates is UNSET else spec.gates.latency
        if gate is UNSET or gate.max is UNSET or gate.ratio is not UNSET:
            continue
        timeout = view.layers(scopes_of(policy)[0][0], "", spec.to, ()).leaves.get("timeout")
        if timeout is not None and gate.max >= timeout.value:
            text = f"no answer takes that long: the timeout is {DURATION.write(timeout.value)} ({timeout.policy.name})"
            yield Hit(policy, "spec.gates.latency.max", text)
