"""Rules of a route, prepared: they say what the plain way says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.drawing import Draws
from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.router import Leg, Match, Rule, Sticky, draw
from nats_mesh.model import OwnHeaders

NAMES = ["tenant", "Tenant", "user", "x-a"]
TEXTS = ["", "a", "ab", "ba", "aba", "7", "42", "é", "b" * 5000]


def _test(name: str, what: tuple[str, Any], invert: bool) -> HeaderTest:
    return HeaderTest(name=name, invert=invert, **{what[0]: what[1]})


tests = st.builds(
    _test,
    st.sampled_from(NAMES),
    st.one_of(
        st.tuples(st.sampled_from(["exact", "prefix", "suffix"]), st.sampled_from(TEXTS)),
        st.tuples(st.just("regex"), st.sampled_from(["a.*", ".*a", "[0-9]+", "", "(ab|ba)+"])),
        st.tuples(st.just("present"), st.booleans()),
        st.tuples(st.sampled_from(["start", "end"]), st.integers(0, 50)),
    ),
    st.booleans(),
)
matches = st.builds(
    Match,
    headers=st.lists(tests, max_size=4).map(tuple),
    share=st.one_of(st.none(), st.sampled_from([0.0, 0.3, 1.0])),
)
rules = st.lists(
    st.tuples(
        st.lists(matches, max_size=3).map(tuple),
        st.sampled_from([None, Sticky(), Sticky(header="user")]),
    ),
    max_size=8,
).map(
    lambda found: [
        Rule(scope=("shop", ""), index=n, matches=match, sticky=sticky, legs=(Leg(subset=f"v{n}"),))
        for n, (match, sticky) in enumerate(found)
    ]
)
headers = st.lists(st.tuples(st.sampled_from([*NAMES, "other"]), st.sampled_from(TEXTS)), max_size=5)


class Chance:
    """Always the same number, and how often it was asked for."""

    def __init__(self, number: float) -> None:
        self.number = number
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.number


@given(rules=rules, calls=st.lists(st.tuples(headers, st.floats(0.0, 0.999)), min_size=1, max_size=4))
def test_what_is_prepared_draws_as_the_plain_way_does(
    rules: list[Rule], calls: list[tuple[list[tuple[str, str]], float]]
) -> None:
    """Whatever the rules and the headers of a call are: the same rule, and chance is asked for as often."""
    prepared = Draws(rules)
    for pairs, number in calls:
        given_headers = OwnHeaders(pairs)
        one, other = Chance(number), Chance(number)
        values = given_headers.get_all
        assert prepared.first(given_headers, values, "web", "shop", one) is draw(
            rules, values, "web", "shop", other
        )
        assert one.asked == other.asked


def test_a_header_is_asked_once_however_many_rules_are_about_it() -> None:
    """So that a call does not pay for each of them; one without headers asks for none."""
    found = Draws(
        [
            Rule(
                scope=("shop", ""),
                index=n,
                matches=(Match(headers=(HeaderTest(name="tenant", exact=f"t{n}"),)),),
            )
            for n in range(200)
        ]
    )
    asked: list[str] = []

    def values(name: str) -> list[str]:
        asked.append(name)
        return ["t150"]

    rule = found.first(["x-a", "Tenant"], values, "web", "shop", lambda: 0.5)
    assert rule is not None
    assert rule.index == 150
    assert asked == ["Tenant"]
    assert found.first((), values, "web", "shop", lambda: 0.5) is None
    assert asked == ["Tenant"]
