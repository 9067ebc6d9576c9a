"""Who is let in: DENY before ALLOW, whatever the order; and what cannot be told never makes anything wider."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.access import AccessRule, AccessRules, Action, Claims, Decision, claim_values, decide
from nats_mesh.core.matcher import HeaderTest


def rule(action: Action, index: int = 0, **said: Any) -> AccessRule:
    """A rule of the policy Access/orders."""
    return AccessRule(policy="Access/orders", index=index, action=action, **said)


def decided(
    *rules: AccessRule,
    denying: tuple[str, ...] = (),
    denying_dry: tuple[str, ...] = (),
    caller: str = "web",
    endpoint: str = "get",
    headers: dict[str, str] | None = None,
    claims: Claims = None,
) -> Decision:
    """What becomes of a call."""
    said = headers or {}
    return decide(
        AccessRules(rules=rules, denying=denying, denying_dry=denying_dry),
        caller=caller,
        endpoint=endpoint,
        values=lambda name: (said[name],) if name in said else (),
        claims=claims,
    )


ALLOW_WEB = rule("ALLOW", 0, callers=("web",))
DENY_WEB = rule("DENY", 1, callers=("web",))
STAFF = HeaderTest(name="role", exact="staff")


@pytest.mark.parametrize(
    ("rules", "caller", "allowed", "by"),
    [
        ((), "web", True, None),
        ((ALLOW_WEB,), "web", True, 0),
        ((ALLOW_WEB,), "batch", False, None),
        ((DENY_WEB,), "web", False, 1),
        ((DENY_WEB,), "batch", True, None),
        ((ALLOW_WEB, DENY_WEB), "web", False, 1),
        ((DENY_WEB, ALLOW_WEB), "web", False, 1),
        ((rule("ALLOW", 2, callers=("*",), not_callers=("web-*",)),), "web-1", False, None),
        ((rule("ALLOW", 2, callers=("*",), not_callers=("web-*",)),), "web", True, 2),
        ((rule("ALLOW", 3, endpoints=("get",)),), "web", True, 3),
        ((rule("ALLOW", 3, endpoints=("g*",), not_endpoints=("get",)),), "web", False, None),
        ((rule("AUDIT", 4),), "web", True, None),
        ((rule("AUDIT", 4), DENY_WEB), "web", False, 1),
    ],
)
def test_rules_decide_together(
    rules: tuple[AccessRule, ...], caller: str, allowed: bool, by: int | None
) -> None:
    """DENY comes before ALLOW; with any ALLOW, what none of them meets is refused; AUDIT decides nothing."""
    found = decided(*rules, caller=caller)
    assert found.allowed is allowed
    assert (None if found.rule is None else found.rule.index) == by


def test_a_default_of_deny_refuses_what_no_rule_allows() -> None:
    """The policies that refuse are named."""
    found = decided(denying=("Access/closed",))
    assert (found.allowed, found.policies) == (False, ("Access/closed",))
    assert found.reason == "no rule of Access/closed allows it"
    assert decided(ALLOW_WEB, denying=("Access/closed",)).allowed


@pytest.mark.parametrize(
    ("claims", "allow", "deny"),
    [
        ({"role": "staff"}, True, False),
        ({"role": "guest"}, False, True),
        ({}, False, True),
        (None, False, False),
    ],
)
def test_what_cannot_be_told_makes_nothing_wider(claims: Claims, allow: bool, deny: bool) -> None:
    """Where nobody can tell the claims, an ALLOW that asks for one is not met, and a DENY that asks for one is."""
    assert decided(rule("ALLOW", claims=(STAFF,)), claims=claims).allowed is allow
    assert decided(rule("DENY", claims=(STAFF,)), claims=claims).allowed is deny


def test_what_excludes_a_call_does_so_without_its_claims() -> None:
    """A DENY for another caller is not met, though its claims cannot be told."""
    assert decided(rule("DENY", callers=("batch",), claims=(STAFF,)), claims=None).allowed


def test_a_dry_run_is_told_and_decides_nothing() -> None:
    """What the dry runs would have done stands beside what was done."""
    found = decided(rule("DENY", callers=("web",), dry_run=True))
    assert found.allowed
    assert found.dry_run is not None
    assert not found.dry_run.allowed
    assert decided(DENY_WEB).dry_run is None
    closed = decided(denying_dry=("Access/closed",))
    assert closed.allowed
    assert closed.dry_run is not None
    assert closed.dry_run.policies == ("Access/closed",)


def test_audited_calls_are_told() -> None:
    """Every AUDIT rule that is met stands in the decision, also where another rule refuses."""
    found = decided(rule("AUDIT", 5, callers=("web",)), rule("AUDIT", 6, callers=("x",)), DENY_WEB)
    assert [each.index for each in found.audited] == [5]


@pytest.mark.parametrize(
    ("claims", "name", "values"),
    [
        ({"role": "staff"}, "role", ["staff"]),
        ({"groups": ["a", "b"]}, "groups", ["a", "b"]),
        ({"org": {"unit": "x"}}, "org.unit", ["x"]),
        ({"org.unit": "y", "org": {"unit": "x"}}, "org.unit", ["y"]),
        ({"admin": True, "level": 3, "score": 2.0}, "admin", ["true"]),
        ({"level": 3}, "level", ["3"]),
        ({"score": 2.0}, "score", ["2"]),
        ({"role": None}, "role", []),
        ({"org": {"unit": {"deep": 1}}}, "org.unit", []),
        ({}, "role", []),
        ({"role": "x"}, "role.name", []),
    ],
)
def test_claims_are_read_as_text(claims: dict[str, Any], name: str, values: list[str]) -> None:
    """A list has each item as a value; `a.b` is a claim of that name, else `b` within `a`."""
    assert claim_values(claims, name) == values


_NAMES = st.sampled_from(["web", "batch", "web-1"])
_RULES = st.builds(
    lambda action, callers, claims, dry: AccessRule(
        policy="Access/a", index=0, action=action, callers=tuple(callers), claims=(STAFF,) if claims else (),
        dry_run=dry,
    ),
    st.sampled_from(["ALLOW", "DENY", "AUDIT"]), st.lists(st.sampled_from(["web", "web-*", "*"]), max_size=1),
    st.booleans(), st.booleans(),
)  # fmt: skip
_CLAIMS = st.sampled_from([None, {}, {"role": "staff"}])


@given(st.lists(_RULES, max_size=5), st.permutations(range(5)), _NAMES, _CLAIMS)
def test_the_order_of_rules_does_not_matter(
    rules: list[AccessRule], order: list[int], caller: str, claims: Claims
) -> None:
    """The same rules in any order let in the same calls."""
    other = [rules[place] for place in order if place < len(rules)]
    assert (
        decided(*rules, caller=caller, claims=claims).allowed
        is decided(*other, caller=caller, claims=claims).allowed
    )


@given(st.lists(_RULES, max_size=4), _NAMES, _CLAIMS)
def test_a_deny_more_never_lets_anybody_in(rules: list[AccessRule], caller: str, claims: Claims) -> None:
    """Whoever is refused stays refused with one more DENY, and so does he with claims that nobody can tell."""
    before = decided(*rules, caller=caller, claims=claims).allowed
    assert decided(*rules, DENY_WEB, caller=caller, claims=claims).allowed <= before
    assert decided(*rules, caller=caller, claims=None).allowed <= before or claims is None
