"""Whether a call may come in: the rules of all access policies that are about it, together.

The order is that of Istio's AuthorizationPolicy and of most of its kind: a DENY that is met refuses, whatever else is
said; then an ALLOW that is met lets in; then, where there is any ALLOW or a default of deny, the call is refused,
and else it comes in. AUDIT rules decide nothing. What cannot be evaluated counts as met in a DENY and as not met in
an ALLOW, so that whatever is missing makes nothing wider. Rules of a dry run are evaluated beside the others, and
what they would have done is told.

Rejected: rules in an order, of which the first that is met counts. Policies come from several hands and have no order
among them; and a DENY that somebody's earlier ALLOW undoes is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from nats_mesh.core.matcher import HeaderTest, in_patterns, matches_pattern
from nats_mesh.core.router import Values

__all__ = ["AccessRule", "AccessRules", "Action", "Claims", "Decision", "claim_values", "decide"]

Action: TypeAlias = Literal["ALLOW", "DENY", "AUDIT"]
#: What a valid token says; empty without a token; ``None`` where nobody can tell.
Claims: TypeAlias = Mapping[str, Any] | None

#: A claim has at most so many values; further ones are not looked at.
_MAX_VALUES = 1000


class AccessRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: rule number ``index`` of the access policy ``policy``. A call must meet everything that is said
    here."""

    policy: str
    index: int
    action: Action
    name: str = ""
    callers: tuple[str, ...] = ()
    not_callers: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    not_endpoints: tuple[str, ...] = ()
    headers: tuple[HeaderTest, ...] = ()
    claims: tuple[HeaderTest, ...] = ()
    dry_run: bool = False

    @property
    def place(self) -> str:
        """Where it stands in its policy, as paths say it: the first is `rules[0]`."""
        return f"rules[{self.index}]"

    def __str__(self) -> str:
        return f"{self.policy} {self.name or self.place}"


class AccessRules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for calls of one endpoint: every rule, and the policies that refuse what no rule allows."""

    rules: tuple[AccessRule, ...] = ()
    denying: tuple[str, ...] = ()
    denying_dry: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """``rule`` decided; without one, ``policies`` refuse by default (or nobody says anything, and it is allowed).

    ``audited`` are the AUDIT rules that were met. ``dry_run`` is what would have been decided with the dry runs in
    force, where there are any.
    """

    allowed: bool
    rule: AccessRule | None = None
    policies: tuple[str, ...] = ()
    audited: tuple[AccessRule, ...] = ()
    dry_run: Decision | None = None

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        if self.rule is not None:
            return f"{self.rule.action} by {self.rule}"
        if self.allowed:
            return "no access policy is about it"
        return f"no rule of {', '.join(self.policies)} allows it"


def decide(rules: AccessRules, *, caller: str, endpoint: str, values: Values, claims: Claims) -> Decision:
    """What becomes of a call. ``values`` are its headers."""

    def met(rule: AccessRule) -> bool | None:
        return _met(rule, caller, endpoint, values, claims)

    enforced = [rule for rule in rules.rules if not rule.dry_run]
    found = _decide(enforced, rules.denying, met)
    if len(enforced) == len(rules.rules) and not rules.denying_dry:
        return found
    tried = _decide(rules.rules, rules.denying + rules.denying_dry, met)
    return msgspec.structs.replace(found, dry_run=tried)


def _decide(
    rules: Sequence[AccessRule], denying: tuple[str, ...], met: Callable[[AccessRule], bool | None]
) -> Decision:
    audited = tuple([rule for rule in rules if rule.action == "AUDIT" and met(rule) is not False])
    for rule in rules:
        if rule.action == "DENY" and met(rule) is not False:
            return Decision(allowed=False, rule=rule, audited=audited)
    allows = [rule for rule in rules if rule.action == "ALLOW"]
    for rule in allows:
        if met(rule):
            return Decision(allowed=True, rule=rule, audited=audited)
    by = tuple(dict.fromkeys([*[rule.policy for rule in allows], *denying]))
    return Decision(allowed=not by, policies=by, audited=audited)


def _met(rule: AccessRule, caller: str, endpoint: str, values: Values, claims: Claims) -> bool | None:
    """Whether a call meets ``rule``; ``None`` where that cannot be told, and nothing else of the rule excludes it."""
    if not in_patterns(rule.callers, caller) or not in_patterns(rule.endpoints, endpoint):
        return False
    if any(matches_pattern(each, caller) for each in rule.not_callers):
        return False
    if any(matches_pattern(each, endpoint) for each in rule.not_endpoints):
        return False
    if not all(test.holds(values(test.name)) for test in rule.headers):
        return False
    if not rule.claims:
        return True
    if claims is None:
        return None
    return all(test.holds(claim_values(claims, test.name)) for test in rule.claims)


def claim_values(claims: Mapping[str, Any], name: str) -> list[str]:
    """The values of a claim as text: each item of a list, ``true`` and ``false``, numbers as they are written. `a.b`
    is a claim of that name, else `b` inside the claim `a`."""
    found: Any = claims
    if name in claims:
        found = claims[name]
    else:
        for part in name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return []
            found = found[part]
    items = list(found)[:_MAX_VALUES] if isinstance(found, list | tuple) else [found]
    return [_text(item) for item in items if isinstance(item, str | int | float)]


def _text(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
