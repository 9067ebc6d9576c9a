"""NM01: names of services, subsets, endpoints and callers that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from msgspec import UNSET

from nats_mesh.core.matcher import in_patterns
from nats_mesh.policy.access import rules_of_policy
from nats_mesh.policy.access_parts import Access
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import RouteRule, View, aims, match_path
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.gateway_parts import Gateway, HttpRoute
from nats_mesh.policy.problems import hint
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.schema import Destination
from nats_mesh.policy.scopes import scopes_of, subset_of

__all__: list[str] = []


@check(
    "NM0101", "warning", "No such service",
    "Mend the name, or start the service; a policy may well be there before it.",
)  # fmt: skip
def unknown_target(view: View) -> Iterable[Hit]:
    """A policy about a service that nobody serves."""
    if view.services is None:
        return
    known = sorted(view.services)
    for policy in view.policies:
        service = scopes_of(policy)[0][0]
        if service and service not in view.services:
            yield Hit(policy, "spec.target.service", f"nobody serves {service} now{_near(service, known)}")


@check(
    "NM0102", "error", "Calls are sent to a service that nobody serves",
    "Mend the name, start the service, or take it out of the rule: calls that go there fail at once with UNAVAILABLE.",
)  # fmt: skip
def unknown_aim(view: View) -> Iterable[Hit]:
    """A split, a mirror or a redirect that leads to a service that nobody serves."""
    if view.services is None:
        return
    known = sorted(view.services)
    for rule in view.rules:
        for field, service, _ in aims(rule):
            if service and service != rule.service and service not in view.services:
                what = "copies go to" if field.startswith("mirror") else "calls go to"
                text = f"{what} {service}, which nobody serves now{_near(service, known)}"
                yield Hit(rule.policy, f"{rule.path}.{field}.service", text)
    for policy, path, route in _http_routes(view):
        if route.service not in view.services:
            text = f"requests go to {route.service}, which nobody serves now{_near(route.service, known)}"
            yield Hit(policy, f"{path}.service", text)


@check(
    "NM0103", "error", "No such subset",
    "Mend the name, or name the subset in the service's `Destination`; `apply` refuses the set as it is.",
)  # fmt: skip
def unknown_subset(view: View) -> Iterable[Hit]:
    """A subset that no destination names."""
    for rule in view.rules:
        for field, service, subset in aims(rule):
            if subset:
                yield from _subset(view, rule.policy, service, subset, f"{rule.path}.{field}.subset")
    for policy, _ in view.of(Destination):
        if subset := subset_of(policy):
            yield from _subset(view, policy, scopes_of(policy)[0][0], subset, "spec.target.subset")
    for policy, spec in view.of(Rollout):
        for path, subset in (("spec.from", spec.from_), ("spec.to", spec.to)):
            yield from _subset(view, policy, scopes_of(policy)[0][0], subset, path)


def _subset(view: View, policy: Policy, service: str, subset: str, path: str) -> Iterator[Hit]:
    known = view.subsets.get(service, {})
    if subset in known:
        return
    if not service:
        text = f"subset {subset} of which service? Name the service beside it, or in the target"
    elif known:
        text = f"{service} has no subset {subset}{_near(subset, sorted(known))}"
    else:
        text = f"no Destination names subsets of {service}"
    yield Hit(policy, path, text)


@check(
    "NM0104", "warning", "No such endpoint",
    "Mend the name; where the endpoint comes with the next version, the policy may well be there before it.",
)  # fmt: skip
def unknown_endpoint(view: View) -> Iterable[Hit]:
    """A policy about an endpoint that its service has not, or a rule whose patterns fit none of its endpoints."""
    for policy in view.policies:
        scopes = scopes_of(policy)
        known = sorted(view.endpoints(scopes[0][0]))
        for index, (service, name) in enumerate(scopes):
            if name and known and name not in known:
                yield Hit(
                    policy,
                    f"spec.target.endpoints[{index}]",
                    f"{service} has no endpoint {name}{_near(name, known)}",
                )
    for rule in view.rules:
        known = sorted(view.endpoints(rule.service))
        for path, pattern in _patterns(rule, "endpoints"):
            if known and not any(in_patterns([pattern], name) for name in known):
                yield Hit(
                    rule.policy, path, f"{rule.service} has no endpoint {pattern}{_near(pattern, known)}"
                )


@check(
    "NM0105", "error", "Calls are sent to an endpoint that is not there",
    "Let the rule match only endpoints that both have, or add the endpoint there: these calls fail with UNIMPLEMENTED.",
)  # fmt: skip
def unknown_aimed_endpoint(view: View) -> Iterable[Hit]:
    """A split, a mirror or a redirect to a service that has not the endpoint."""
    for rule in view.rules:
        redirect = rule.said.redirect
        for field, service, _ in aims(rule):
            there = view.endpoints(service)
            if not there:
                continue
            if redirect is not UNSET and redirect.endpoint is not UNSET:
                called: Iterable[str] = [redirect.endpoint]
            elif service != rule.service:
                called = _called(view, rule)
            else:
                continue
            for name in called:
                if name not in there:
                    text = f"{service} has no endpoint {name}{_near(name, sorted(there))}"
                    yield Hit(rule.policy, f"{rule.path}.{field}", text)
                    break
    for policy, path, gate in _http_routes(view):
        there = view.endpoints(gate.service)
        if there and gate.endpoint is not UNSET and gate.endpoint not in there:
            text = f"{gate.service} has no endpoint {gate.endpoint}{_near(gate.endpoint, sorted(there))}"
            yield Hit(policy, f"{path}.endpoint", text)


def _near(name: str, known: Sequence[str]) -> str:
    """``; did you mean x?`` where anything is known."""
    return f"; {hint(name, known)}" if known else ""


def _http_routes(view: View) -> Iterator[tuple[Policy, str, HttpRoute]]:
    """What gateways make of requests, each route with its path."""
    for policy, spec in view.of(Gateway):
        for place, ingress in enumerate(spec.ingress or ()):
            where = f"spec.ingress[{place}]"
            where = where if where in policy.lines else "spec.ingress"
            for index, route in enumerate(ingress.routes or ()):
                yield policy, f"{where}.routes[{index}]", route


def _called(view: View, rule: RouteRule) -> list[str]:
    """The endpoints whose calls may meet a rule: those that its target names, else those that are there."""
    named = [name for _, name in scopes_of(rule.policy) if name] or sorted(view.endpoints(rule.service))
    matches = rule.core.matches
    return [name for name in named if not matches or any(in_patterns(m.endpoints, name) for m in matches)]


@check(
    "NM0106", "info", "No caller of that name is known",
    "Mend the name, if it is meant to be that service; a pure client has any name it likes.",
)  # fmt: skip
def unknown_caller(view: View) -> Iterable[Hit]:
    """A caller that is none of the services, and is nearly called like one."""
    if view.world is None:
        return
    known = sorted(view.world.services)
    said = [(rule.policy, *each) for rule in view.rules for each in _patterns(rule, "callers")]
    for policy, _ in view.of(Access):
        for rule in rules_of_policy(policy):
            said += [
                (policy, f"spec.{rule.place}.callers[{place}]", name)
                for place, name in enumerate(rule.callers)
            ]
    unknown = {pattern for _, _, pattern in said if "*" not in pattern} - set(known)
    alike = {pattern: difflib.get_close_matches(pattern, known, n=1, cutoff=0.8) for pattern in unknown}
    for policy, path, pattern in said:
        near = alike.get(pattern)
        if near:
            text = f"no service is called {pattern}, but there is one called {near[0]}"
            yield Hit(policy, path, text)


def _patterns(rule: RouteRule, field: str) -> Iterator[tuple[str, str]]:
    """The patterns of a field of a rule's matches, each with its path."""
    for index, match in enumerate([] if rule.said.match is UNSET else rule.said.match):
        where, said = match_path(rule, index), getattr(match, field)
        for place, pattern in enumerate([] if said is UNSET else said):
            yield f"{where}.{field}[{place}]", pattern
