"""NM06: who is let in, and who is locked out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from nats_mesh.core.access import AccessRule
from nats_mesh.core.matcher import in_patterns, matches_pattern
from nats_mesh.core.router import Match
from nats_mesh.policy.access import authentications, rules_of_policy
from nats_mesh.policy.access_parts import Access, Authentication, AuthenticationSpec
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.implication import covered
from nats_mesh.policy.analysis.view import View
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.scopes import Scope, around, concerns, scopes_of

__all__: list[str] = []

_Ruled = tuple[Policy, AccessRule]


def _rules(view: View, service: str = "") -> list[_Ruled]:
    """The rules of the access policies that are about some calls of ``service``; without one, of all."""
    return [(policy, rule) for policy, _ in view.near(service, Access) for rule in rules_of_policy(policy)]


def _authentications(view: View, scope: Scope) -> list[tuple[Policy, AuthenticationSpec]]:
    return authentications([policy for policy, _ in view.near(scope[0], Authentication)], *scope)


def _path(rule: AccessRule) -> str:
    return f"spec.{rule.place}"


def _touch(policy: Policy, scope: Scope) -> bool:
    """Whether some calls of ``scope`` are among those a policy is about."""
    return any(own in around(*scope) or scope in around(*own) for own in scopes_of(policy))


def _match(rule: AccessRule) -> Match:
    claims = [msgspec.structs.replace(test, name=f"claim:{test.name}") for test in rule.claims]
    return Match(callers=rule.callers, endpoints=rule.endpoints, headers=(*rule.headers, *claims))


def _swallows(wide: Sequence[_Ruled], narrow: _Ruled) -> bool:
    """Whether every call that meets ``narrow`` meets one of ``wide``."""
    policy, rule = narrow
    for scope in scopes_of(policy):
        able = [
            _match(each)
            for other, each in wide
            if not each.not_callers
            and not each.not_endpoints
            and any(s in around(*scope) for s in scopes_of(other))
        ]
        if not able or not covered(_match(rule), able, [scope[1]] if scope[1] else ()):
            return False
    return True


def _refused_by_default(view: View, scope: Scope) -> Policy | None:
    """A policy in force by which calls of all of ``scope`` are refused that no rule allows."""
    for policy, spec in view.near(scope[0], Access):
        if spec.mode == "dry-run" or not any(own in around(*scope) for own in scopes_of(policy)):
            continue
        if spec.default == "deny" or any(rule.action == "ALLOW" for rule in rules_of_policy(policy)):
            return policy
    return None


@check(
    "NM0601", "error", "Everybody is locked out",
    "Add a rule with `action: ALLOW` for those who shall come in, here or in a policy for each service.",
)  # fmt: skip
def locked_out(view: View) -> Iterable[Hit]:
    """A default of deny, and nobody who is allowed."""
    for policy, spec in view.of(Access):
        if spec.default != "deny" or spec.mode == "dry-run":
            continue
        near = _rules(view, scopes_of(policy)[0][0])
        allows = [each for each in near if each[1].action == "ALLOW"]
        for scope in scopes_of(policy):
            if not any(_touch(other, scope) and not rule.dry_run for other, rule in allows):
                where = ".".join(part for part in scope if part) or "anything in the namespace"
                yield Hit(policy, "spec.default", f"no rule allows anybody to call {where}")
                break


@check(
    "NM0602", "error", "A DENY takes everybody whom ALLOW lets in",
    "Narrow the DENY: it comes before every ALLOW, whatever their order.",
)  # fmt: skip
def all_denied(view: View) -> Iterable[Hit]:
    """Rules that let people in, all of them under a DENY."""
    for deny, covered_rules, every in _denied(view):
        if covered_rules and len(covered_rules) == every:
            names = ", ".join(dict.fromkeys(str(rule) for _, rule in covered_rules))
            yield Hit(
                deny[0], _path(deny[1]), f"refuses every call that {names} would let in: nobody can call"
            )


@check(
    "NM0603", "warning", "An ALLOW that lets nobody in",
    "Narrow the DENY that takes all of its calls, or remove the rule.",
)  # fmt: skip
def dead_allow(view: View) -> Iterable[Hit]:
    """One of several rules that is wholly under a DENY."""
    for deny, covered_rules, every in _denied(view):
        for policy, rule in covered_rules if len(covered_rules) < every else ():
            where = f"{deny[1]} (line {deny[0].lines.get(_path(deny[1]), deny[0].line)})"
            yield Hit(policy, _path(rule), f"lets nobody in: {where} refuses all of these calls")


def _denied(view: View) -> Iterator[tuple[_Ruled, list[_Ruled], int]]:
    """Each DENY in force, the ALLOW rules that it covers, and how many there are about the same."""
    for deny in _rules(view):
        if deny[1].action != "DENY" or deny[1].dry_run:
            continue
        scopes = scopes_of(deny[0])
        allows = [
            (policy, rule)
            for policy, rule in _rules(view, scopes[0][0])
            if rule.action == "ALLOW" and not rule.dry_run and any(_touch(policy, scope) for scope in scopes)
        ]
        yield deny, [each for each in allows if _swallows([deny], each)], len(allows)


@check(
    "NM0604", "warning", "An ALLOW for some endpoints closes the others",
    "Allow somebody to call the others, too; or say `default: deny`, where they shall be closed.",
)  # fmt: skip
def closed_endpoints(view: View) -> Iterable[Hit]:
    """Endpoints of a service that nobody may call, because rules allow others and nobody says that this is meant."""
    for service in [] if view.world is None else sorted(view.world.services):
        meant = any(
            spec.default == "deny" and concerns(policy, service, "")
            for policy, spec in view.near(service, Access)
        )
        closing = _refused_by_default(view, (service, ""))
        if closing is None or meant:
            continue
        closed = [
            name
            for name in sorted(view.endpoints(service))
            if not any(
                rule.action == "ALLOW"
                and not rule.dry_run
                and concerns(policy, service, name)
                and _lets(rule, name)
                for policy, rule in _rules(view, service)
            )
        ]
        if closed:
            text = f"nobody may call {', '.join(f'{service}.{name}' for name in closed[:10])}: no rule is about it"
            yield Hit(closing, "spec.rules", text)


def _lets(rule: AccessRule, endpoint: str) -> bool:
    return in_patterns(rule.endpoints, endpoint) and not any(
        matches_pattern(each, endpoint) for each in rule.not_endpoints
    )


@check(
    "NM0605", "warning", "Rules about callers in an open mesh",
    "Run the mesh with MESH_MODE=enforced and credentials for each workload: in an open one a caller's name is only "
    "what it says of itself.",
)  # fmt: skip
def open_mode(view: View) -> Iterable[Hit]:
    """Access by caller where nobody proves who he is."""
    if view.mode != "open":
        return
    for policy, _ in view.of(Access):
        for rule in rules_of_policy(policy):
            field = "callers" if rule.callers else "notCallers" if rule.not_callers else ""
            if field:
                yield Hit(policy, f"{_path(rule)}.{field}", "anybody can call himself so: the mesh is open")
                break


@check(
    "NM0606", "warning", "Claims that nobody reads",
    "Add an `Authentication` for the same target, which says whose tokens count: until then no ALLOW with claims is "
    "met, and every DENY with claims is.",
)  # fmt: skip
def unread_claims(view: View) -> Iterable[Hit]:
    """A rule about claims where no tokens are checked."""
    for policy, rule in _rules(view):
        if rule.claims and not all(_authentications(view, scope) for scope in scopes_of(policy)):
            met = "every call meets it" if rule.action == "DENY" else "no call meets it"
            yield Hit(policy, f"{_path(rule)}.claims", f"no Authentication is about these calls, so {met}")


@check(
    "NM0607", "info", "A dry run",
    "Say `mode: enforce` once its counts are what you expect.",
)  # fmt: skip
def dry_run(view: View) -> Iterable[Hit]:
    """Access that refuses nobody yet."""
    for policy, spec in view.of(Access):
        if spec.mode == "dry-run":
            yield Hit(policy, "spec.mode", "refuses nobody: it is a dry run")


@check(
    "NM0608", "info", "A rule that another one makes needless",
    "Remove it; the other rule does the same for all of its calls.",
)  # fmt: skip
def needless(view: View) -> Iterable[Hit]:
    """A rule whose calls a rule of the same action takes anyway."""
    for each in _rules(view):
        policy, rule = each
        after = False
        for other in _rules(view, scopes_of(policy)[0][0]):
            if other[0] is policy and other[1].index == rule.index:
                after = True
                continue
            if other[1].action != rule.action or other[1].dry_run is not rule.dry_run:
                continue
            # Of two that take the same calls the second is one too many.
            if _swallows([other], each) and not (after and _swallows([each], other)):
                yield Hit(policy, _path(rule), f"{other[1]} does the same for all of these calls")
                break


@check(
    "NM0609", "warning", "A rule about endpoints that its policy is not about",
    "Name endpoints of the target, or widen the target: no call meets the rule.",
)  # fmt: skip
def outside(view: View) -> Iterable[Hit]:
    """Patterns of endpoints that fit none of the target's, or none that is there."""
    for policy, rule in _rules(view):
        service = scopes_of(policy)[0][0]
        names = [name for _, name in scopes_of(policy) if name] or list(view.endpoints(service))
        if names and not any(_lets(rule, name) for name in names):
            field = "endpoints" if rule.endpoints else "notEndpoints"
            yield Hit(
                policy,
                f"{_path(rule)}.{field}",
                f"no call meets this: there are {', '.join(sorted(names)[:10])}",
            )


@check(
    "NM0610", "info", "A DENY by claim, and tokens are optional",
    "Say `required: true` in the `Authentication`, or allow by claim instead: whoever leaves the token out has no "
    "claims.",
)  # fmt: skip
def optional_token(view: View) -> Iterable[Hit]:
    """A DENY that asks for what a token lacks: who sends no token is not refused by it."""
    for policy, rule in _rules(view):
        if rule.action != "DENY" or not rule.claims or any(test.invert for test in rule.claims):
            continue
        if any(test.present is False for test in rule.claims):
            continue
        for scope in scopes_of(policy):
            found = _authentications(view, scope)
            optional = found and not any(spec.required is True for _, spec in found)
            if optional and not _closed(view, scope):
                text = "whoever sends no token is not refused: tokens are optional, and nothing else asks for one"
                yield Hit(policy, f"{_path(rule)}.claims", text)
                break


def _closed(view: View, scope: Scope) -> bool:
    """Whether only who is allowed comes in there."""
    return _refused_by_default(view, scope) is not None


@check(
    "NM0611", "error", "A DENY for every call",
    "Say which calls are meant: callers, endpoints, headers or claims. A single endpoint may well be closed so.",
)  # fmt: skip
def deny_all(view: View) -> Iterable[Hit]:
    """A DENY of a whole service or namespace without a condition, where nothing is allowed either."""
    for policy, rule in _rules(view):
        if rule.action != "DENY" or rule.dry_run or rule.not_callers or rule.not_endpoints:
            continue
        scope = scopes_of(policy)[0]
        near = _rules(view, scope[0])
        allowed = any(other.action == "ALLOW" and _touch(owner, scope) for owner, other in near)
        if not scope[1] and not allowed and covered(Match(), [_match(rule)]):
            yield Hit(policy, _path(rule), f"nobody can call {scope[0] or 'anything in the namespace'}")
