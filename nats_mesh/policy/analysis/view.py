"""The policies of one namespace, laid out for the checks: by what they are about, with what they come to together."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from nats_mesh.core import router
from nats_mesh.core.matcher import in_patterns
from nats_mesh.core.rules import SubsetRules
from nats_mesh.policy.analysis.world import Endpoint, Instance, World
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.gateway_parts import Gateway
from nats_mesh.policy.layering import Layers, Leaf
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.routing import rules_of, subsets_of
from nats_mesh.policy.schema import Destination, Route, RouteSpec, Rule
from nats_mesh.policy.scopes import Scope, around, around_subset, scopes_of, subset_of

__all__ = ["RouteRule", "Situation", "View", "aims", "match_path", "whole"]


class RouteRule(msgspec.Struct, frozen=True, eq=False):
    """One rule of a route, as it is written and as calls meet it; ``path`` is where it stands (`spec.rules[0]`)."""

    policy: Policy
    said: Rule
    core: router.Rule

    @property
    def path(self) -> str:
        return f"spec.{self.core.place}"

    @property
    def service(self) -> str:
        """The service that its route is about; empty for the whole namespace."""
        return scopes_of(self.policy)[0][0]

    @property
    def where(self) -> str:
        """It, and its line."""
        line = self.policy.lines.get(self.path, self.policy.line)
        return f"{self.policy.name} {self.core.place} (line {line})"


class Situation(msgspec.Struct, frozen=True, eq=False):
    """What holds for calls of ``service.endpoint`` (of instances of ``subset``) that have met ``rules``."""

    service: str
    endpoint: str
    subset: str
    rules: tuple[RouteRule, ...]
    layers: Layers

    def leaf(self, path: str) -> Leaf | None:
        """What policies say at ``path``, such as `retry.attempts`."""
        return self.layers.leaves.get(path)

    @property
    def name(self) -> str:
        """What it is about, in words."""
        about = ".".join(part for part in (self.service, self.endpoint) if part) or "every service"
        return f"{about}/{self.subset}" if self.subset else about


class View:
    """Everything the checks look at. ``world`` is what is there, ``None`` where nobody asked; ``mode`` the mesh's mode
    (`open`, `enforced`), empty where nobody knows."""

    def __init__(self, policies: Sequence[Policy], world: World | None, mode: str = "") -> None:
        self.policies = tuple(policies)
        self.world = world
        self.mode = mode
        self._of: dict[tuple[type[Any], ...], list[tuple[Policy, Any]]] = {}
        self._near: dict[type[Any], dict[str, list[tuple[Policy, Any]]]] = {}

    # -- what there is ------------------------------------------------------------------------------

    def of(self, *kinds: type[Any]) -> list[tuple[Policy, Any]]:
        """The policies of some kinds, each with its spec."""
        if kinds not in self._of:
            self._of[kinds] = [(p, p.document.spec) for p in self.policies if isinstance(p.document, kinds)]
        return self._of[kinds]

    def near(self, service: str, kind: type[Any]) -> list[tuple[Policy, Any]]:
        """The policies of a kind that are about some calls of ``service``; without one, all of them."""
        if not service:
            return self.of(kind)
        if kind not in self._near:
            found: dict[str, list[tuple[Policy, Any]]] = {}
            for policy, spec in self.of(kind):
                found.setdefault(scopes_of(policy)[0][0], []).append((policy, spec))
            self._near[kind] = found
        near = self._near[kind]
        return near.get("", []) + near.get(service, [])

    @functools.cached_property
    def destinations(self) -> dict[tuple[str, str, str], Policy]:
        """The destinations by service, endpoint and subset; of several about the same the first."""
        found: dict[tuple[str, str, str], Policy] = {}
        for policy, _ in self.of(Destination):
            for scope in scopes_of(policy):
                found.setdefault((*scope, subset_of(policy)), policy)
        return found

    @functools.cached_property
    def routes(self) -> dict[Scope, list[RouteRule]]:
        """The rules of routes by what these are about."""
        found: dict[Scope, list[RouteRule]] = {}
        for policy, spec in self.of(Route):
            for scope in scopes_of(policy):
                found.setdefault(scope, _route_rules(policy, spec, scope))
        return found

    @functools.cached_property
    def rules(self) -> list[RouteRule]:
        """Every rule of every route, once."""
        return [
            rule
            for policy, spec in self.of(Route)
            for rule in _route_rules(policy, spec, scopes_of(policy)[0])
        ]

    @functools.cached_property
    def subsets(self) -> dict[str, dict[str, tuple[SubsetRules, Policy]]]:
        """The subsets of each service by name, with the destination that names them."""
        found: dict[str, dict[str, tuple[SubsetRules, Policy]]] = {}
        for policy, spec in self.of(Destination):
            if spec.subsets is not UNSET:
                service = scopes_of(policy)[0][0]
                for name, rules in subsets_of(spec).items():
                    found.setdefault(service, {}).setdefault(name, (rules, policy))
        return found

    @functools.cached_property
    def routed(self) -> set[tuple[str, str]]:
        """The services and subsets to which any rule sends calls, or copies, or a rollout will."""
        found = {(service, subset) for rule in self.rules for _, service, subset in aims(rule)}
        for policy, spec in self.of(Rollout):
            service = scopes_of(policy)[0][0]
            found |= {(service, spec.from_), (service, spec.to)}
        return found

    @functools.cached_property
    def services(self) -> frozenset[str] | None:
        """The services that can be called: who serves now, and what gateways let out; ``None`` where nobody asked."""
        if self.world is None:
            return None
        out = [egress.service for _, spec in self.of(Gateway) for egress in spec.egress or ()]
        return frozenset([*self.world.services, *out])

    def instances(self, service: str) -> tuple[Instance, ...]:
        """Who serves it now."""
        known = self.world.services.get(service) if self.world is not None else None
        return () if known is None else known.instances

    def endpoint(self, service: str, endpoint: str) -> Endpoint | None:
        """What an endpoint declares; ``None`` where it is not there."""
        known = self.world.services.get(service) if self.world is not None else None
        return None if known is None else known.endpoints.get(endpoint)

    def endpoints(self, service: str) -> Mapping[str, Endpoint]:
        """The endpoints that somebody serves now."""
        known = self.world.services.get(service) if self.world is not None else None
        return {} if known is None else known.endpoints

    # -- what it comes to ---------------------------------------------------------------------------

    def layers(self, service: str, endpoint: str, subset: str, rules: Sequence[RouteRule]) -> Layers:
        """What destinations say, and above them the rules that a call has met: as the data path lays them."""
        layers = Layers()
        for scope in around_subset(service, endpoint, subset):
            if (policy := self.destinations.get(scope)) is not None:
                layers.add(policy, policy.document.spec, "spec.")
        for rule in rules:
            layers.add(rule.policy, rule.said, f"{rule.path}.")
        return layers

    @functools.cached_property
    def situations(self) -> list[Situation]:
        """What holds wherever a policy says anything: without a rule, and with each rule that calls can meet."""
        return list(self._situations())

    def _situations(self) -> Iterator[Situation]:
        for service, endpoint, subset in sorted(self._targets()):
            always, met = self._rules_around(service, endpoint)
            yield self._situation(service, endpoint, subset, always)
            if subset:
                continue
            for rule in met:
                for leg in rule.core.legs or always_legs(always):
                    there = leg.service or service
                    yield self._situation(there, leg.endpoint or endpoint, leg.subset, (*always, rule))

    def _situation(self, service: str, endpoint: str, subset: str, rules: Sequence[RouteRule]) -> Situation:
        return Situation(
            service, endpoint, subset, tuple(rules), self.layers(service, endpoint, subset, rules)
        )

    def _targets(self) -> set[tuple[str, str, str]]:
        found = {*self.destinations, *((*scope, "") for scope in self.routes)}
        services = set(self.world.services) if self.world is not None and ("", "", "") in found else set()
        services |= {service for service, _, _ in found if service}
        return found | {(service, name, "") for service in services for name in self.endpoints(service)}

    def _rules_around(self, service: str, endpoint: str) -> tuple[list[RouteRule], list[RouteRule]]:
        """The rules that every call of a target meets, and those that some do."""
        always: list[RouteRule] = []
        met: list[RouteRule] = []
        for scope in around(service, endpoint):
            rules = [rule for rule in self.routes.get(scope, ()) if _concerns(rule, endpoint)]
            if rules and whole(rules[0]):
                always.append(rules[0])
            else:
                met += rules
        return always, met


def always_legs(rules: Sequence[RouteRule]) -> tuple[router.Leg, ...]:
    """Where calls go that meet these rules alone."""
    return router.laid([rule.core for rule in rules]).legs or (router.Leg(),)


def aims(rule: RouteRule) -> list[tuple[str, str, str]]:
    """Where a rule leads: the field that says so (`split[0]`), the service and the subset."""
    own = rule.service
    found: list[tuple[str, str, str]] = []
    for index, leg in enumerate([] if rule.said.split is UNSET else rule.said.split):
        found.append((f"split[{index}]", leg.service or own, leg.subset or ""))
    for index, mirror in enumerate([] if rule.said.mirror is UNSET else rule.said.mirror):
        where = f"mirror[{index}]" if f"{rule.path}.mirror[{index}]" in rule.policy.lines else "mirror"
        found.append((where, mirror.service or own, mirror.subset or ""))
    if rule.said.redirect is not UNSET:
        found.append(("redirect", rule.said.redirect.service or own, ""))
    return found


def match_path(rule: RouteRule, index: int) -> str:
    """Where an alternative of its match stands, which need not be in a list."""
    where = f"{rule.path}.match[{index}]"
    return where if where in rule.policy.lines else f"{rule.path}.match"


def whole(rule: RouteRule) -> bool:
    """Whether every call meets it."""
    return not rule.core.matches or any(
        not each.headers and each.share is None and _any(each.callers) and _any(each.endpoints)
        for each in rule.core.matches
    )


def _any(patterns: Sequence[str]) -> bool:
    return not patterns or "*" in patterns


def _concerns(rule: RouteRule, endpoint: str) -> bool:
    """Whether calls of the endpoint may meet it; without an endpoint, whether any may."""
    if not endpoint or not rule.core.matches:
        return True
    return any(in_patterns(each.endpoints, endpoint) for each in rule.core.matches)


def _route_rules(policy: Policy, spec: RouteSpec, scope: Scope) -> list[RouteRule]:
    return [
        RouteRule(policy, said, core) for said, core in zip(spec.rules, rules_of(spec, scope), strict=True)
    ]
