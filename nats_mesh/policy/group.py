"""What policies say of one service, ready to be asked; and what is wrong with it, alone and in company.

Whatever a policy says is about one service, or about all of them (the group named ""). So a group depends on its own
policies, on what is said of all services, and on the subsets of those services to which its routes lead: nothing else
in a set can make it right or wrong, and what did not change need not be looked at again.

Rejected: one table for each kind of policy with the whole namespace in it. One changed document then means that every
other one is looked at, too, because nothing says which of them it concerns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec import UNSET

from nats_mesh.core.router import Leg, Mirror, Rule
from nats_mesh.core.rules import ConcurrencyRules, SubsetRules
from nats_mesh.errors import ConfigError
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.inert import Effects, Inert
from nats_mesh.policy.layering import BLOCKS, Layers
from nats_mesh.policy.layerless import layerless
from nats_mesh.policy.problems import Problems, hint, later_text
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.routing import rules_of, subsets_of
from nats_mesh.policy.schema import Concurrency, Destination, Limit, LimitSpec, Route
from nats_mesh.policy.scopes import Scope, Via, around_subset, scopes_of, subset_of
from nats_mesh.policy.telemetry_parts import Telemetry

__all__ = ["Group", "aims_of", "check_aims", "check_group", "concurrency_of", "layers_in", "made_of"]

#: Shared by all groups in the place of a table without an entry; most groups have one policy.
_NONE: Final[Mapping[Any, Any]] = MappingProxyType({})


class Group:
    """The ``policies`` about one ``service``, in their order, by what they are about. Never changes.

    ``destinations`` are by endpoint and subset, ``routes``, ``rules``, ``limits`` and ``telemetry`` by endpoint (empty:
    all of them). ``aims`` has every subset, with its service, to which a route of the group leads;
    ``tells_callers_apart`` whether a rule asks who calls. What is wrong with the policies beside each other goes to
    ``problems``; of two about the same thing the first one counts then.
    """

    __slots__ = (
        "aims",
        "destinations",
        "limits",
        "policies",
        "routes",
        "rules",
        "service",
        "subsets",
        "telemetry",
        "tells_callers_apart",
    )

    def __init__(self, service: str, policies: tuple[Policy, ...], problems: Problems) -> None:
        self.service = service
        self.policies = policies
        self.destinations: Mapping[tuple[str, str], Policy] = _NONE
        self.routes: Mapping[str, Policy] = _NONE
        self.rules: Mapping[str, tuple[Rule, ...]] = _NONE
        self.subsets: Mapping[str, SubsetRules] = _NONE
        self.limits: Mapping[str, Sequence[Policy]] = _NONE
        self.telemetry: Mapping[str, Policy] = _NONE
        for policy in policies:
            for path, what in layerless(policy):
                line = policy.lines.get(path, policy.line)
                it = "the document" if path == "kind" else "it"
                problems.add(f"{later_text(what)}; remove {it}", file=policy.file, line=line, path=path)
        self._sort_destinations(problems)
        self._sort_routes(problems)
        self._sort_limits()
        self._sort_telemetry(problems)
        self._claim_rollout(problems)
        rules = [rule for several in self.rules.values() for rule in several]
        self.aims = frozenset([aim for rule in rules for aim in aims_of(rule) if aim[1]])
        self.tells_callers_apart = any(match.callers for rule in rules for match in rule.matches)

    def _sort_destinations(self, problems: Problems) -> None:
        found: dict[tuple[str, str], Policy] = {}
        for policy in self.policies:
            document = policy.document
            if not isinstance(document, Destination):
                continue
            subset = subset_of(policy)
            for scope in scopes_of(policy):
                holder = found.setdefault((scope[1], subset), policy)
                _claim(policy, holder, scope, subset, problems)
            if document.spec.subsets is not UNSET:
                self.subsets = subsets_of(document.spec)
        if found:
            self.destinations = found

    def _sort_routes(self, problems: Problems) -> None:
        found: dict[str, Policy] = {}
        rules: dict[str, tuple[Rule, ...]] = {}
        for policy in self.policies:
            document = policy.document
            if not isinstance(document, Route):
                continue
            for scope in scopes_of(policy):
                holder = found.setdefault(scope[1], policy)
                _claim(policy, holder, scope, "", problems)
                if holder is policy:
                    rules[scope[1]] = rules_of(document.spec, scope)
        if found:
            self.routes, self.rules = found, rules

    def _sort_limits(self) -> None:
        """By their names where several are about the same thing: the order of files and revisions decides nothing."""
        found: dict[str, list[Policy]] = {}
        for policy in self.policies:
            if isinstance(policy.document, Limit):
                for scope in scopes_of(policy):
                    found.setdefault(scope[1], []).append(policy)
        for several in found.values():
            several.sort(key=_name)
        if found:
            self.limits = found

    def _sort_telemetry(self, problems: Problems) -> None:
        found: dict[str, Policy] = {}
        for policy in self.policies:
            if isinstance(policy.document, Telemetry):
                for scope in scopes_of(policy):
                    _claim(policy, found.setdefault(scope[1], policy), scope, "", problems)
        if found:
            self.telemetry = found

    def _claim_rollout(self, problems: Problems) -> None:
        holder: Policy | None = None
        for policy in self.policies:
            if not self.service or not isinstance(policy.document, Rollout):
                continue
            if holder is None:
                holder = policy
            elif holder is not policy:
                problems.add(
                    f"{policy.name} and {holder.name} ({holder.place}) are both about {self.service}: "
                    "a service has one",
                    file=policy.file,
                    line=policy.line,
                    path="spec.target",
                )

    def scopes(self) -> list[tuple[str, str]]:
        """The endpoint and subset of everything that a policy of a caller's is about, sorted."""
        return sorted({*self.destinations, *((endpoint, "") for endpoint in self.routes)})

    def endpoints(self) -> frozenset[str]:
        """The endpoints that policies name."""
        named = {endpoint for endpoint, _ in self.destinations}
        return frozenset(
            [endpoint for endpoint in {*named, *self.routes, *self.limits, *self.telemetry} if endpoint]
        )


def layers_in(groups: Mapping[str, Group], service: str, endpoint: str, subset: str, via: Via) -> Layers:
    """What destinations say, and above it the rules of routes that a call has met."""
    layers = Layers()
    for name, where, which in around_subset(service, endpoint, subset):
        group = groups.get(name)
        policy = None if group is None else group.destinations.get((where, which))
        if policy is not None:
            layers.add(policy, policy.document.spec, "spec.")
    for (name, where), index in via:
        group = groups.get(name)
        policy = None if group is None else group.routes.get(where)
        if policy is not None and isinstance(policy.document, Route):
            layers.add(policy, policy.document.spec.rules[index], f"spec.rules[{index}].")
    return layers


def made_of(layers: Layers, problems: Problems) -> dict[str, Any]:
    """The rules that come out, by their names in :class:`~nats_mesh.policy.OutboundRules`."""
    return {block.attribute: layers.rules(block, problems) for block in BLOCKS}


def check_group(groups: Mapping[str, Group], service: str, problems: Problems) -> Effects:
    """Make the rules of every scope of one group once: what is refused only in company is found before it holds
    anywhere, and so is what has no effect there."""
    group = groups[service]
    everywhere = groups.get("")
    inert = Inert(None if everywhere is None else everywhere.destinations.get(("", "")))
    for layers in _every_scope(groups, group):
        made_of(layers, problems)
        inert.look(layers)
    check_aims(groups, service, problems)
    inert.report(problems)
    for policy in group.policies:
        document = policy.document
        subset = subset_of(policy)
        if subset and isinstance(document, Destination):
            _check_subset(groups, policy, service, subset, "spec.target.subset", problems)
        if isinstance(document, Limit):
            _check_limit(policy, problems)
        if isinstance(document, Rollout):
            for path, subset in (("spec.from", document.spec.from_), ("spec.to", document.spec.to)):
                _check_subset(groups, policy, service, subset, path, problems)
    return inert.effects()


def _every_scope(groups: Mapping[str, Group], group: Group) -> Iterator[Layers]:
    for endpoint, subset in group.scopes():
        yield layers_in(groups, group.service, endpoint, subset, ())
    for endpoint, rules in group.rules.items():
        scope: Scope = (group.service, endpoint)
        for rule in rules:
            yield layers_in(groups, *scope, "", ((scope, rule.index),))


def check_aims(groups: Mapping[str, Group], service: str, problems: Problems) -> None:
    """Every subset that a rule leads to must be one."""
    group = groups[service]
    for endpoint, rules in group.rules.items():
        policy = group.routes[endpoint]
        for rule in rules:
            every: dict[str, Sequence[Leg | Mirror]] = {
                "split": rule.legs or (),
                "mirror": rule.mirrors or (),
            }
            for field, aims in every.items():
                for index, aim in enumerate(aims):
                    if aim.subset:
                        path = f"spec.rules[{rule.index}].{field}[{index}].subset"
                        if path not in policy.lines:
                            path = f"spec.rules[{rule.index}].{field}.subset"
                        _check_subset(groups, policy, aim.service or service, aim.subset, path, problems)


def _check_subset(
    groups: Mapping[str, Group], policy: Policy, service: str, subset: str, path: str, problems: Problems
) -> None:
    group = groups.get(service)
    known: Mapping[str, SubsetRules] = _NONE if group is None else group.subsets
    if subset in known:
        return
    if not service:
        reason = f"subset {subset} of which service? Name the service beside it, or in the target"
    elif known:
        reason = f"{service} has no subset {subset}; {hint(subset, known)}"
    else:
        reason = f"no Destination names subsets of {service}: add one with {subset}"
    line = policy.lines.get(path, policy.line)
    problems.add(reason, file=policy.file, line=line, path=path)


def _check_limit(policy: Policy, problems: Problems) -> None:
    said = concurrency_of(policy)
    try:
        ConcurrencyRules(limit=None if said.limit is UNSET else said.limit)
    except ConfigError as error:
        path, _, reason = str(error).partition(": ")
        line = policy.lines.get(f"spec.{path}", policy.line)
        problems.add(reason, file=policy.file, line=line, path=f"spec.{path}")


def aims_of(rule: Rule) -> list[tuple[str, str]]:
    """Where a rule leads, as service and subset."""
    service = rule.scope[0]
    legs = [(leg.service or service, leg.subset) for leg in rule.legs or ()]
    return legs + [(mirror.service or service, mirror.subset) for mirror in rule.mirrors or ()]


def concurrency_of(policy: Policy) -> Concurrency:
    """What a `Limit` says of concurrency."""
    spec = policy.document.spec
    assert isinstance(spec, LimitSpec)
    return Concurrency() if spec.concurrency is UNSET else spec.concurrency


def _claim(policy: Policy, holder: Policy, scope: Scope, subset: str, problems: Problems) -> None:
    if holder is not policy:
        problems.add(
            f"{policy.name} and {holder.name} ({holder.place}) are both about {_said(scope, subset)}: "
            "put them into one",
            file=policy.file,
            line=policy.line,
            path="spec.target",
        )


def _said(scope: Scope, subset: str = "") -> str:
    about = ".".join(part for part in scope if part) or "the whole namespace"
    return f"subset {subset} of {about}" if subset else about


def _name(policy: Policy) -> str:
    return policy.document.metadata.name
