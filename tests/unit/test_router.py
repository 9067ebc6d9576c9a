"""Routing by pure rules: which rule a call meets, and which destination it gets."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.matcher import (
    MAX_MATCHED,
    HeaderTest,
    check_pattern,
    check_regex,
    in_patterns,
    matches_pattern,
)
from nats_mesh.core.router import Leg, Match, Rule, Sticky, aims, choose, draw, laid, position, relevant

SCOPE = ("reviews", "")


def none(name: str) -> list[str]:
    """A call without headers."""
    return []


def rule(index: int = 0, **fields: Any) -> Rule:
    """A rule that sends calls nowhere in particular."""
    return Rule(scope=SCOPE, index=index, **fields)


@pytest.mark.parametrize(
    ("pattern", "fits", "misses"),
    [
        ("web", ["web"], ["webs", "we", ""]),
        ("web-*", ["web-1", "web-"], ["web", "a-web-1"]),
        ("*-web", ["a-web", "-web"], ["web", "a-web-1"]),
        ("*", ["a", ""], []),
    ],
)
def test_patterns(pattern: str, fits: list[str], misses: list[str]) -> None:
    """A name, or a part of it with a star at an end."""
    assert check_pattern(pattern) == pattern
    assert all(matches_pattern(pattern, name) for name in fits)
    assert not any(matches_pattern(pattern, name) for name in misses)
    assert in_patterns((), "whatever")


@pytest.mark.parametrize("pattern", ["", "a*b", "**", "*a*", "a.b", "a b", "é", "a\n", "x" * 64])
def test_bad_patterns_are_refused(pattern: str) -> None:
    """What is no name with one star at an end says so."""
    with pytest.raises(ValueError, match="must be a name"):
        check_pattern(pattern)


@pytest.mark.parametrize("expression", ["(", "a{2,1}", "(?=a)", r"(a)\1", "[z-a]", "a**"])
def test_bad_expressions_are_refused(expression: str) -> None:
    """What RE2 cannot match in linear time it does not read."""
    with pytest.raises(ValueError, match="RE2"):
        check_regex(expression)


def test_an_expression_cannot_be_made_to_take_forever() -> None:
    """What would take Python's own expressions longer than the universe is old is answered at once."""
    test = HeaderTest(name="x", regex="(a|a)*(a+)+b")
    assert not test.holds(["a" * 4000])
    assert HeaderTest(name="x", regex="a*").holds(["a" * MAX_MATCHED])
    assert not HeaderTest(name="x", regex="a*").holds(["a" * (MAX_MATCHED + 1)])


def test_one_value_of_several_suffices() -> None:
    """A header that stands several times meets a condition with one value, and an inverted one with none."""
    assert HeaderTest(name="x", exact="b").holds(["a", "b"])
    assert not HeaderTest(name="x", exact="b", invert=True).holds(["a", "b"])
    assert HeaderTest(name="x", exact="b", invert=True).holds([])
    assert not HeaderTest(name="x", start=0).holds(["99999999999999999999"])


def test_only_rules_that_can_be_met_remain() -> None:
    """By caller and endpoint, and none below one that every call meets."""
    rules = [
        rule(0, matches=(Match(callers=("mobile",)),)),
        rule(1, matches=(Match(callers=("web",), headers=(HeaderTest(name="a", present=True),)),)),
        rule(2, matches=(Match(endpoints=("list",), share=0.5), Match(callers=("web*",)))),
        rule(3),
    ]
    assert [each.index for each in relevant(rules, "web", "get")] == [1, 2]
    assert relevant(rules, "web", "get")[1].matches == ()
    assert [each.index for each in relevant(rules, "cart", "list")] == [2, 3]
    assert [each.index for each in relevant(rules, "cart", "get")] == [3]


def test_the_destinations_of_a_route_are_those_that_a_call_may_get_to() -> None:
    """Where some call may meet no rule with a destination it goes to the endpoint itself; nobody goes to a leg without
    weight, and a rule for every call leaves nobody out."""
    some = Match(headers=(HeaderTest(name="x", exact="a"),))
    itself, one, two, never = Leg(), Leg(subset="v1"), Leg(subset="v2"), Leg(subset="v3", weight=0)
    led = rule(0, legs=(one, two, never))
    assert aims([]) == {itself}
    assert aims([(led,)]) == {one, two}
    assert aims([(rule(0, matches=(some,), legs=(one,)),)]) == {itself, one}
    assert aims([(rule(0, matches=(some,)), led)]) == {itself, one, two}
    assert aims([(rule(0, matches=(some,)),), (led,)]) == {one, two}


def test_rules_of_several_routes_are_laid_over_each_other() -> None:
    """What the more specific one does not say stays."""
    wide = rule(0, legs=(Leg(subset="v1"),), sticky=Sticky())
    near = rule(1, legs=(Leg(subset="v2"),))
    path = laid([wide, near])
    assert (path.legs, path.sticky) == ((Leg(subset="v2"),), Sticky())


@given(
    weights=st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 2**32),
    sticky=st.booleans(),
)
def test_shares_are_those_of_the_weights(weights: list[int], seed: int, sticky: bool) -> None:
    """By chance and by key alike; what weighs nothing gets nothing."""
    legs = [Leg(subset=f"v{place}", weight=weight) for place, weight in enumerate(weights)]
    rng = random.Random(seed)
    count = 2000
    found = [
        choose(legs, f"user-{rng.random()}" if sticky else None, "reviews", rng.random) for _ in range(count)
    ]
    for place, weight in enumerate(weights):
        share = weight / sum(weights)
        spread = 5.0 * math.sqrt(count * share * (1 - share)) + 1
        assert abs(found.count(place) - count * share) <= spread


@given(
    weights=st.lists(st.integers(1, 50), min_size=2, max_size=5),
    grown=st.integers(0, 4),
    by=st.integers(1, 50),
    key=st.text(max_size=20),
)
def test_growing_never_moves_anybody_away(weights: list[int], grown: int, by: int, key: str) -> None:
    """Hash first, weight second: whoever is at a destination stays while its weight grows and no other's does."""
    grown %= len(weights)
    legs = [Leg(subset=f"v{place}", weight=weight) for place, weight in enumerate(weights)]
    larger = [
        Leg(subset=leg.subset, weight=leg.weight + by if place == grown else max(1, leg.weight - by))
        for place, leg in enumerate(legs)
    ]
    before = choose(legs, key, "reviews", lambda: 0.0)
    after = choose(larger, key, "reviews", lambda: 0.0)
    if before == grown:
        assert after == grown


@given(key=st.text(max_size=20), small=st.floats(0.0, 1.0), large=st.floats(0.0, 1.0))
def test_a_sticky_share_grows_likewise(key: str, small: float, large: float) -> None:
    """Whoever is among 5 % is among 10 %."""
    small, large = sorted((small, large))

    def among(share: float) -> bool:
        rules = [rule(0, matches=(Match(share=share),), sticky=Sticky(header="user"))]
        return draw(rules, lambda name: [key], "web", "reviews", lambda: 1.0) is not None

    assert among(large) or not among(small)


def test_without_its_key_a_call_goes_by_chance() -> None:
    """A sticky header that a call lacks is no key; the caller's identity always is."""
    rules = [rule(0, matches=(Match(share=0.5),), sticky=Sticky(header="user"))]
    assert draw(rules, none, "web", "reviews", lambda: 0.4) is not None
    assert draw(rules, none, "web", "reviews", lambda: 0.6) is None
    by_caller = [rule(0, matches=(Match(share=0.5),), sticky=Sticky())]
    low = draw(by_caller, none, "web", "reviews", lambda: 0.1)
    assert low is draw(by_caller, none, "web", "reviews", lambda: 0.9)


#: Of `ann`, for the subset `v2` of `reviews`.
POSITION = 0.27412817184170457


def test_positions_are_the_same_in_every_process() -> None:
    """They are part of what must not change from one version to the next: users would move."""
    assert position("ann", "reviews/v2") == pytest.approx(POSITION, abs=1e-12)
    assert 0.0 < position("", "") < 1.0
