"""Shares of calls are worked out exactly: they are what many calls that are drawn come to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.likely import MAX_OUTCOMES, Outcome, outcomes
from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.router import Leg, Match, Rule, Sticky, Values, choose, draw, key_of, laid
from nats_mesh.errors import ConfigError

_DRAWS = 4_000


def values_of(headers: dict[str, str]) -> Values:
    """The headers of a call, as the router asks for them."""
    return lambda name: (headers[name],) if name in headers else ()


def drawn(
    routing: Sequence[Sequence[Rule]], values: Values, chance: Callable[[], float]
) -> tuple[tuple[int, ...], str]:
    """One call as callers route it: the rules that it met, and where it went."""
    met = [draw(rules, values, "web", "orders", chance) for rules in routing]
    found = [rule for rule in met if rule is not None]
    path = laid(found)
    if not path.legs:
        return tuple(rule.index for rule in found), str(Leg())
    key = key_of(path.sticky, values, "web")
    leg = path.legs[choose(path.legs, key, "orders", chance)]
    return tuple(rule.index for rule in found), str(leg)


def shares(found: Sequence[Outcome]) -> dict[tuple[tuple[int, ...], str], float]:
    """What was worked out, by the same names."""
    totals: dict[tuple[tuple[int, ...], str], float] = {}
    for each in found:
        key = (tuple(rule.index for rule in each.path.rules), str(each.leg))
        totals[key] = totals.get(key, 0.0) + each.share
    return totals


_TESTS = st.builds(HeaderTest, name=st.sampled_from(["user", "beta"]), exact=st.sampled_from(["a", "b"]))
_MATCHES = st.builds(
    Match,
    headers=st.lists(_TESTS, max_size=1).map(tuple),
    share=st.sampled_from([None, 0.0, 0.1, 0.5, 0.9]),
)
_LEGS = st.lists(
    st.builds(Leg, subset=st.sampled_from(["v1", "v2", "v3"]), weight=st.integers(0, 5)),
    min_size=1, max_size=3, unique_by=lambda leg: leg.subset,
).filter(lambda legs: any(leg.weight for leg in legs))  # fmt: skip
_STICKY = st.sampled_from([None, None, Sticky(), Sticky(header="user")])


@st.composite
def _rules(draw_: st.DrawFn, scope: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            scope=scope,
            index=index,
            matches=tuple(draw_(st.lists(_MATCHES, max_size=2))),
            legs=tuple(draw_(_LEGS)) if draw_(st.booleans()) else None,
            sticky=draw_(_STICKY),
        )
        for index in range(draw_(st.integers(1, 3)))
    )


@given(
    _rules(("orders", "")), st.none() | _rules(("orders", "get")),
    st.dictionaries(st.sampled_from(["user", "beta"]), st.sampled_from(["a", "b", "c"])), st.integers(0, 2**32),
)  # fmt: skip
def test_the_share_worked_out_is_the_share_drawn(
    wide: tuple[Rule, ...], narrow: tuple[Rule, ...] | None, headers: dict[str, str], seed: int
) -> None:
    """For any rules, many calls drawn with the router's own code go each way as often as was worked out."""
    routing = [wide] if narrow is None else [wide, narrow]
    values = values_of(headers)
    expected = shares(outcomes(routing, values, "web", "orders"))
    assert sum(expected.values()) == pytest.approx(1.0)
    chance = random.Random(seed).random
    counted = Counter(drawn(routing, values, chance) for _ in range(_DRAWS))
    assert set(counted) <= set(expected)
    for way, share in expected.items():
        # Five standard deviations of a share of so many draws, and a little for the rarest.
        allowed = 5.0 * (share * (1.0 - share) / _DRAWS) ** 0.5 + 1e-3
        assert abs(counted[way] / _DRAWS - share) <= allowed, (way, share, counted[way])


def test_a_sticky_call_has_one_way() -> None:
    """A header's value goes one way with all its calls, and that is the way worked out for it."""
    rule = Rule(
        scope=("orders", ""),
        index=0,
        legs=(Leg(subset="v1", weight=90), Leg(subset="v2", weight=10)),
        sticky=Sticky(header="user"),
    )
    lucky = 0
    for number in range(300):
        values = values_of({"user": f"user-{number}"})
        (found,) = outcomes([(rule,)], values, "web", "orders")
        assert found.share == 1.0
        assert drawn([(rule,)], values, lambda: 0.5) == ((0,), str(found.leg))
        lucky += found.leg.subset == "v2"
    assert 10 <= lucky <= 60


def test_calls_that_meet_nothing_go_as_called() -> None:
    """What no rule takes is a way of its own, with no rule and no leg."""
    rule = Rule(scope=("orders", ""), index=0, matches=(Match(share=0.25),), legs=(Leg(subset="v2"),))
    found = outcomes([(rule,)], values_of({}), "web", "orders")
    assert [(each.share, str(each.leg), len(each.path.rules)) for each in found] == [
        (0.25, "v2", 1),
        (0.75, "all", 0),
    ]


def test_alternatives_are_drawn_one_by_one() -> None:
    """Two alternatives with a share each are met by more calls than one, and by fewer than both together."""
    rule = Rule(
        scope=("o", ""), index=0, matches=(Match(share=0.5), Match(share=0.5)), legs=(Leg(subset="v2"),)
    )
    found = outcomes([(rule,)], values_of({}), "web", "orders")
    assert found[0].share == pytest.approx(0.75)


def test_too_many_ways_are_refused() -> None:
    """A call with more ways than can be worked out is an error, and no half of an answer."""
    rules = tuple(
        Rule(scope=("o", ""), index=index, matches=(Match(share=0.001),), legs=(Leg(subset="v2"),))
        for index in range(1000)
    )
    assert len(outcomes([rules], values_of({}), "web", "orders")) == 1001
    with pytest.raises(ConfigError, match=f"more than {MAX_OUTCOMES:,} ways"):
        outcomes([rules, rules], values_of({}), "web", "orders")
