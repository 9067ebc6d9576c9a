"""What is injected into calls that do not fail of it, for ``why``: by a route, or by operators at instances. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh.core.shares import share_text
from nats_mesh.explaining.calls import Way
from nats_mesh.policy import PolicySet
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.output import Record, counted
from nats_mesh_cli.why_words import ROUNDING, faults_at

__all__ = ["delay_texts", "delays_of"]


def delays_of(way: Way, policies: PolicySet, record: Record, here: Sequence[Record]) -> list[Record]:
    """Every delay of a way, with the share of its calls, who says so, and at which instances (empty: at the caller).
    One of more than the calls' time is an ending, and not here."""
    return [*_delayed(way, policies), *_held_up(way, record, here)]


def delay_texts(ways: Sequence[Record]) -> list[str]:
    """What is injected into calls that do not fail of it: who looks for the reason of a slow call wants it named."""
    found = []
    for way in ways:
        whole = "" if way["share"] >= 1.0 - ROUNDING else f" of those to {way['text']}"
        for each in way["delays"]:
            who = "all" if each["share"] >= 1.0 - ROUNDING else share_text(each["share"])
            count, at = len(each["instances"]), ""
            if count:
                of = len(way["instances"])
                at = " at every instance" if count == of else f" at {count} of {counted(of, 'instance')}"
            found.append(f"{who}{whole} delayed by {duration_text(each['delay_s'])}, by {each['source']}{at}")
    return list(dict.fromkeys(found))


def _delayed(way: Way, policies: PolicySet) -> list[Record]:
    """What a route lets its calls wait on purpose, where that is not more than they have."""
    fault = None if way.target.effects is None else way.target.effects.fault
    if fault is None or not 0.0 < fault.delay_s < way.timeout_s or fault.delay_share <= 0.0:
        return []
    by = next((rule for rule in reversed(way.path.rules) if rule.fault is not None), None)
    source = "a route" if by is None else policies.rule_source(by)
    return [
        {"share": min(1.0, fault.delay_share), "delay_s": fault.delay_s, "source": source, "instances": []}
    ]


def _held_up(way: Way, record: Record, here: Sequence[Record]) -> list[Record]:
    """What operators let calls wait at instances, where that is not more than they have."""
    found: dict[tuple[float, float], list[str]] = {}
    for instance in here:
        for fault in faults_at(record, instance):
            delay_s = (fault["delay_ms"] or 0.0) / 1000.0
            if 0.0 < delay_s < way.timeout_s:
                found.setdefault((fault["share"], delay_s), []).append(instance["instance"])
    return [
        {"share": share, "delay_s": delay_s, "source": "operators", "instances": instances}
        for (share, delay_s), instances in found.items()
    ]
