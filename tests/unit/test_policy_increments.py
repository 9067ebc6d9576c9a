"""A set that takes over what a change does not concern is the set that comes of all its documents from nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nats_mesh.core.replica import Record
from nats_mesh.errors import PolicyError
from nats_mesh.policy import InboundRules, OutboundRules, Policy, PolicySet, parse
from nats_mesh.policy import group as group_module
from nats_mesh.policy.bus.documents import Builder, Built
from nats_mesh.policy.problems import Problems
from tests.tools import scaled

SERVICES = ("a", "b")
ENDPOINTS = ("", "get", "put")
#: What is said of all services, of one, of an endpoint and of a subset; much of it is wrong in some company only.
DESTINATIONS: tuple[Mapping[str, Any], ...] = (
    {"timeout": "1s"},
    {"timeout": "2s", "retry": {"attempts": 3}},
    {"retry": {"perTryTimeout": "3s", "backoff": {"initial": "2s"}}},
    {"retry": {"backoff": {"max": "1s"}}},
    {"balancer": {"name": "least_request"}},
    {"balancer": {"slowStart": "5s"}},
    {"balancer": {"slowStart": "5s", "name": "consistent_hash", "bound": 1.5}},
    {"balancer": {"name": "queue"}},
    {"hedge": {"delay": "5ms"}},
    {"hedge": {"quantile": "95%"}},
    {"hedge": "off"},
    {"breaker": {"slowRatio": "50%"}},
    {"breaker": {"slowCall": "1s"}},
    {"ejection": {"consecutive": 4}},
    {"breaker": "off"},
    {"throttle": {"ratio": 2}},
)
LIMITS: tuple[Mapping[str, Any], ...] = (
    {"concurrency": {"limit": 5}},
    {"concurrency": {"limit": 5, "leaveQueue": True}},
    {"concurrency": {"limit": 9, "leaveQueue": False}},
    {"rate": {"limit": "5/s"}},
)


def target_of(rng: random.Random, *, subsets: bool = False) -> dict[str, Any]:
    """What a document is about: everything, a service, an endpoint, a subset."""
    if rng.random() < 0.2:
        return {}
    target: dict[str, Any] = {"service": rng.choice(SERVICES)}
    if rng.random() < 0.25:
        target["endpoints"] = rng.sample(ENDPOINTS[1:], rng.randint(1, 2))
    if subsets and rng.random() < 0.25:
        target["subset"] = rng.choice(("v1", "v2"))
    return target


def leg_of(rng: random.Random) -> dict[str, Any]:
    """Where a route leads: a subset or a service, own or other."""
    leg: dict[str, Any] = {}
    if rng.random() < 0.4:
        leg["service"] = rng.choice(SERVICES)
    if not leg or rng.random() < 0.7:
        leg["subset"] = rng.choice(("v1", "v2"))
    return leg


def rule_of(rng: random.Random, *, last: bool) -> dict[str, Any]:
    """A rule of a route."""
    rule: dict[str, Any] = {}
    if not last:
        rule["match"] = rng.choice(
            ([{"callers": ["web"]}], [{"headers": {"x": "y"}}], [{"callers": ["ops"], "share": "50%"}])
        )
    does = rng.random()
    if does < 0.5:
        rule["split"] = [leg_of(rng)]
    elif does < 0.7:
        rule["mirror"] = [leg_of(rng) | {"share": "10%"}]
    else:
        rule["timeout"] = f"{rng.randint(1, 3)}s"
    if rng.random() < 0.3:
        rule["retry"] = {"attempts": 2, "backoff": {"max": rng.choice(("1s", "9s"))}}
    return rule


def made(rng: random.Random, kind: str, name: str) -> dict[str, Any]:
    """A document, by chance."""
    spec: dict[str, Any]
    if kind == "Destination":
        spec = dict(rng.choice(DESTINATIONS))
        target = target_of(rng, subsets=True)
        if target.keys() == {"service"} and rng.random() < 0.8:
            names = rng.sample(("v1", "v2"), rng.randint(1, 2))
            spec["subsets"] = {each: {"version": f"{each[1]}.0.0"} for each in names}
    elif kind == "Route":
        target, count = target_of(rng), rng.randint(1, 2)
        spec = {"rules": [rule_of(rng, last=index == count - 1) for index in range(count)]}
    elif kind == "Limit":
        target, spec = target_of(rng), dict(rng.choice(LIMITS[: 3 if rng.random() < 0.9 else 4]))
    else:
        target = {"service": rng.choice(SERVICES)}
        spec = {"from": "v1", "to": "v2", "steps": [{"weight": 10, "for": "1m"}]}
    if target:
        spec["target"] = target
    metadata = {"name": name}
    if rng.random() < 0.1:
        metadata["namespace"] = "default"
    return {"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec}


def kind_of(rng: random.Random) -> str:
    """A kind, by chance."""
    return rng.choice(("Destination", "Destination", "Destination", "Route", "Route", "Limit", "Rollout"))


def parsed(document: Mapping[str, Any], file: str) -> Policy | None:
    """The document as a policy; ``None`` where it is wrong alone."""
    try:
        return parse(json.dumps(document), file=file)[0]
    except PolicyError:
        return None


def told(problems: Problems) -> list[str]:
    """Everything that is wrong, in words."""
    error = problems.error()
    return [] if error is None else [str(each) for each in error.problems]


def said(rules: OutboundRules | InboundRules) -> object:
    """Rules, with the policies that they come from, and without the lines: those are of the time of the answer."""
    return replace(rules, sources={path: source.partition(" (")[0] for path, source in rules.sources.items()})


def answers(policies: PolicySet) -> list[object]:
    """Everything that a set can be asked for a few targets, callers and subsets, with where each value comes from."""
    found: list[object] = [policies.all_subsets(), policies.routed_subsets(), policies.revision]
    ways = sorted((rule.scope, rule.index) for rule in policies.all_rules())
    found.append(ways)
    for service in (*SERVICES, "d"):
        found += [dict(policies.subsets(service)), policies.endpoints(service)]
        for endpoint in ENDPOINTS[:2]:
            found += [said(policies.inbound(service, endpoint)), policies.routes(service, endpoint)]
            found.append(policies.inbound_sources(service, endpoint))
            for caller in ("web", "ops"):
                for subset in ("", "v1"):
                    found.append(said(policies.outbound(service, endpoint, caller, subset=subset)))
                    found.append(policies.outbound_sources(service, endpoint, caller, subset=subset))
                    for way in ways[:2]:
                        via = (way,)
                        found.append(
                            said(policies.outbound(service, endpoint, caller, subset=subset, via=via))
                        )
    return found


@given(st.integers(0, 2**32))
def test_by_increments_as_from_nothing(seed: int) -> None:
    """Documents come, go, change and move; each set follows the last good one, or one with mistakes. It says the
    same, and the same is wrong with it in the same words, as with a set that follows none."""
    rng = random.Random(seed)
    held: dict[str, Policy] = {}
    before = PolicySet.empty()
    for turn in range(scaled(16, 60)):
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            name = f"{kind_of(rng)}.n{rng.randint(0, 2)}"
            kind, _, short = name.partition(".")
            if name in held and rng.random() < 0.3:
                del held[name]
                continue
            policy = parsed(made(rng, kind, short), f"{name}@{turn}")
            if policy is not None:
                held[name] = policy
        order = list(held.values())
        if rng.random() < 0.3:
            rng.shuffle(order)
        if rng.random() < 0.05 and order:
            order.append(replace(order[0], file="twice"))
        if rng.random() < 0.05 and order:
            elsewhere = replace(order[0].document.metadata, name="e", namespace="other")
            order.append(replace(order[0], document=replace(order[0].document, metadata=elsewhere)))
        grown, whole = Problems(), Problems()
        one = PolicySet.collect(order, grown, before=before)
        other = PolicySet.collect(order, whole)
        assert told(grown) == told(whole), turn
        assert one.revision == other.revision, turn
        if not told(whole):
            if rng.random() < 0.3:
                assert answers(one) == answers(other), turn
            before = one
        else:
            # What is blamed goes, so that there is something good to go on from.
            error = whole.error()
            assert error is not None
            blamed = {(each.file or "").partition("@")[0] for each in error.problems}
            held = {key: each for key, each in held.items() if key not in blamed}
            if rng.random() < 0.1:
                before = one


class FromNothing(Builder):
    """Looks at every document each time."""

    def _collect(self, policies: Iterable[Policy], problems: Problems) -> PolicySet:
        return PolicySet.collect(policies, problems)


def take(builder: Builder, records: Mapping[str, Record]) -> Built:
    """Build, and accept what came of it."""
    built = builder.build(records, 7)
    if built.policies is not None:
        builder.accept(built.policies)
    return built


@given(st.integers(0, 2**32))
def test_a_store_by_increments_as_from_nothing(seed: int) -> None:
    """Whatever is stored in whatever changes: the same is accepted, the same refused for the same reasons, and the
    same is in effect, as where every document is read and looked at again each time."""
    rng = random.Random(seed)
    growing, anew = Builder("default"), FromNothing("default")
    records: dict[str, Record] = {}
    sequence = 0
    for turn in range(scaled(16, 60)):
        for number in range(rng.choice((1, 1, 2, 3))):
            sequence += 1
            kind, name = kind_of(rng), f"n{rng.randint(0, 2)}"
            key = f"{kind}.{name}"
            value = None if rng.random() < 0.2 else json.dumps(made(rng, kind, name)).encode()
            change = f"c{turn}" if rng.random() < 0.8 else f"c{turn}.{number}"
            size = len(value or b"")
            records[key] = Record(sequence, key, value, f"t{sequence}", "", True, change, size)
        if rng.random() < 0.1:  # the store was made anew, from an older copy
            records = {key: record for key, record in records.items() if rng.random() < 0.7}
            turned = list(records.values())
            rng.shuffle(turned)
            records = {
                each.key: each._replace(sequence=place + 1, time=f"{turn}.{place}")
                for place, each in enumerate(turned)
            }
            sequence = len(records)
        one = take(growing, dict(records))
        other = take(anew, {key: record._replace() for key, record in records.items()})
        assert (one.rejections, one.rejected) == (other.rejections, other.rejected), turn
        assert [each.name for each in growing.current.policies] == [
            each.name for each in anew.current.policies
        ]
        if rng.random() < 0.3:
            assert answers(growing.current) == answers(anew.current), turn


def test_what_a_change_does_not_concern_is_not_looked_at(monkeypatch: Any) -> None:
    """One changed document among many: the groups of others stay the same objects, and so does what was answered,
    without another look at the documents behind it."""
    many = [
        parsed(
            {"apiVersion": "mesh/v1", "kind": "Destination", "metadata": {"name": f"s{n}"}}
            | {"spec": {"target": {"service": f"s{n}"}, "timeout": "1s"}},
            f"s{n}.yaml",
        )
        for n in range(50)
    ]
    policies = [policy for policy in many if policy is not None]
    before = PolicySet.of(policies)
    asked = {n: before.outbound(f"s{n}", "get", "web") for n in range(50)}
    looked: list[str] = []
    check = group_module.layers_in

    def watched(groups: Any, service: str, *rest: Any) -> Any:
        looked.append(service)
        return check(groups, service, *rest)

    monkeypatch.setattr(group_module, "layers_in", watched)
    (changed,) = parse(
        "{apiVersion: mesh/v1, kind: Destination, metadata: {name: s7}, "
        "spec: {target: {service: s7}, timeout: 2s}}"
    )
    after = PolicySet.of([*policies[:7], changed, *policies[8:]], before=before)
    assert looked == ["s7"]
    assert [n for n in range(50) if after.outbound(f"s{n}", "get", "web") is not asked[n]] == [7]
    assert after.outbound("s7", "get", "web").timeout_s == 2.0
    assert before.outbound("s7", "get", "web").timeout_s == 1.0


def test_what_has_its_only_effect_elsewhere_is_remembered() -> None:
    """A value for all services that one of them makes use of stays in order while others change, and is refused with
    the change that takes its only use away."""

    def policies(*specs: str) -> list[Policy]:
        head = "apiVersion: mesh/v1, kind: Destination, metadata: {name: n%d}"
        return [
            policy
            for number, spec in enumerate(specs)
            for policy in parse(f"{{{head % number}, spec: {spec}}}", file=f"n{number}.yaml")
        ]

    wide, user, other, another = policies(
        "{balancer: {slowStart: 5s}}",
        "{target: {service: a}, balancer: least_request}",
        "{target: {service: b}, timeout: 1s}",
        "{target: {service: b}, timeout: 2s}",
    )
    first = PolicySet.of([wide, user, other])
    second = PolicySet.of([wide, user, another], before=first)
    assert second.outbound("b", "get", "web").timeout_s == 2.0
    third = PolicySet.of([wide, user], before=second)
    for order in ([wide], [wide, another]):
        found, whole = Problems(), Problems()
        PolicySet.collect(order, found, before=third)
        PolicySet.collect(order, whole)
        assert told(found) == told(whole)
        assert ["slowStart: has no effect" in each for each in told(found)] == [True]
    assert not told_of([wide, user, other], third)


def told_of(policies: list[Policy], before: PolicySet) -> list[str]:
    """What is wrong with a set that follows another."""
    problems = Problems()
    PolicySet.collect(policies, problems, before=before)
    return told(problems)
