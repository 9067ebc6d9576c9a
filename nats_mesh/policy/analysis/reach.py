"""NM02: rules, and parts of rules, that no call ever meets."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from nats_mesh.core.matcher import in_patterns
from nats_mesh.core.router import Match
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.implication import covered
from nats_mesh.policy.analysis.view import RouteRule, View, match_path
from nats_mesh.policy.scopes import scopes_of

__all__: list[str] = []

_EVERY = (Match(),)


@check(
    "NM0201", "warning", "A rule is never reached",
    "Put the rule above the one that takes its calls, or remove it: the first rule that a call meets counts.",
)  # fmt: skip
def unreachable(view: View) -> Iterable[Hit]:
    """A rule below others that take all of its calls."""
    above: list[RouteRule] = []
    for rule in view.rules:
        if above and above[0].policy is not rule.policy:
            above = []
        endpoints = _endpoints(rule)
        wide = [match for each in above for match in each.core.matches or _EVERY]
        if wide and all(covered(match, wide, endpoints) for match in rule.core.matches or _EVERY):
            takers = _takers(rule, above, endpoints)
            said = " and ".join(f"{each.core.place} (line {_line(each)})" for each in takers)
            yield Hit(rule.policy, rule.path, f"is never reached: {said} above takes all of its calls")
        above.append(rule)


def _takers(rule: RouteRule, above: list[RouteRule], endpoints: list[str]) -> list[RouteRule]:
    """Those of the rules above that are needed to cover it, found by leaving out what it takes none of."""
    kept = list(above)
    for each in above:
        rest = [other for other in kept if other is not each]
        wide = [match for other in rest for match in other.core.matches or _EVERY]
        if wide and all(covered(match, wide, endpoints) for match in rule.core.matches or _EVERY):
            kept = rest
    return kept


def _endpoints(rule: RouteRule) -> list[str]:
    return [name for _, name in scopes_of(rule.policy) if name]


def _line(rule: RouteRule) -> int:
    return rule.policy.lines.get(rule.path, rule.policy.line)


@check(
    "NM0202", "info", "One alternative of a match covers another",
    "Remove the narrower one; it changes nothing.",
)  # fmt: skip
def redundant(view: View) -> Iterable[Hit]:
    """An alternative whose calls another one of the same rule takes anyway."""
    for rule in view.rules:
        matches = rule.core.matches
        endpoints = _endpoints(rule)
        for index, match in enumerate(matches):
            others = [
                other
                for place, other in enumerate(matches)
                if place < index or (place > index and other != match)
            ]
            if others and covered(match, others, endpoints):
                yield Hit(
                    rule.policy, match_path(rule, index), "the other alternatives take all of these calls"
                )


@check(
    "NM0203", "warning", "A match is about endpoints that its route is not about",
    "Name endpoints of the target, or widen the target.",
)  # fmt: skip
def outside(view: View) -> Iterable[Hit]:
    """A match whose endpoints are none of the target's."""
    for rule in view.rules:
        endpoints = _endpoints(rule)
        for index, match in enumerate(rule.core.matches):
            if endpoints and not any(in_patterns(match.endpoints, name) for name in endpoints):
                text = f"no call meets this: the route is about {', '.join(endpoints)} alone"
                yield Hit(rule.policy, f"{match_path(rule, index)}.endpoints", text)


@check(
    "NM0204", "info", "A share of 0 %",
    "Give it a share once it shall have an effect, or remove it.",
)  # fmt: skip
def nobody(view: View) -> Iterable[Hit]:
    """A share that makes what it stands beside have no effect."""
    for rule in view.rules:
        for index, match in enumerate(rule.core.matches):
            if match.share == 0.0:
                yield Hit(
                    rule.policy,
                    f"{match_path(rule, index)}.share",
                    "no call meets this match: its share is 0%",
                )
        for index, mirror in enumerate([] if rule.said.mirror is UNSET else rule.said.mirror):
            if mirror.share == 0.0:
                where = f"{rule.path}.mirror[{index}]"
                where = where if where in rule.policy.lines else f"{rule.path}.mirror"
                yield Hit(rule.policy, f"{where}.share", "nobody gets a copy: the share is 0%")
        fault = rule.said.fault
        for name in ("delay", "abort") if fault is not UNSET else ():
            part = getattr(fault, name)
            if part is not UNSET and part.share == 0.0:
                yield Hit(
                    rule.policy,
                    f"{rule.path}.fault.{name}.share",
                    f"no call meets this {name}: its share is 0%",
                )
