"""What a rollout writes into a route, and what of it it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy import PolicySet
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.policy.decode import parse
from nats_mesh.rollout.route import InTheWayError, route_with

SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}}
"""


def write(value: bytes | None, weight: int, sticky: dict[str, str | bool] | None = None) -> bytes:
    """The route with this weight."""
    return route_with(
        value, name="reviews", service="reviews", old="v1", new="v2", weight=weight, sticky=sticky
    )


def route(*rules: dict[str, Any], target: Any = None) -> bytes:
    """A route as it is stored."""
    spec = {"target": target or {"service": "reviews"}, "rules": list(rules)}
    return json.dumps(
        {"apiVersion": "mesh/v1", "kind": "Route", "metadata": {"name": "reviews"}, "spec": spec}
    ).encode()


def rules(value: bytes) -> list[dict[str, Any]]:
    """The rules of a stored route."""
    found: list[dict[str, Any]] = json.loads(value)["spec"]["rules"]
    return found


@pytest.mark.parametrize(
    ("weight", "split"),
    [
        (0, [{"subset": "v1"}]),
        (5, [{"subset": "v1", "weight": 95}, {"subset": "v2", "weight": 5}]),
        (100, [{"subset": "v2"}]),
    ],
)
def test_a_new_route_has_one_rule(weight: int, split: list[dict[str, Any]]) -> None:
    """For every call; and it is a policy that holds beside the subsets."""
    value = write(None, weight)
    assert rules(value) == [{"split": split}]
    policy = read_document("Route.reviews", value, 1, namespace="default")
    PolicySet.of([*parse(SUBSETS), policy])


def test_the_rest_of_a_route_stays() -> None:
    """Rules with a match, and what the rule for every other call says beside its split."""
    testers = {"match": {"headers": {"tester": {"exact": "yes"}}}, "split": [{"subset": "v2"}]}
    last = {"split": [{"subset": "v1"}], "timeout": "3s", "sticky": {"header": "end-user"}}
    value = write(route(testers, last), 10)
    assert rules(value) == [
        testers,
        {**last, "split": [{"subset": "v1", "weight": 90}, {"subset": "v2", "weight": 10}]},
    ]
    assert rules(write(route(testers), 0)) == [testers, {"split": [{"subset": "v1"}]}]
    assert rules(write(route(last), 10, {"identity": True}))[0]["sticky"] == {"identity": True}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (route({"redirect": {"service": "critics"}}), "redirects every call"),
        (route({"split": [{"subset": "v1"}, {"subset": "v3"}]}), "the subset v3"),
        (route({"split": [{"subset": "v1"}, {"weight": 3}]}), "every instance of reviews"),
        (route({"split": [{"service": "critics"}]}), "over critics"),
        (route({}, target={"service": "reviews", "endpoints": ["get"]}), "something else than reviews"),
        (route({}, target={"service": "details"}), "something else than reviews"),
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"spec":{"target":{"service":"reviews"},"rules":[3]}}', "cannot be read"),
    ],
)
def test_what_somebody_meant_is_not_thrown_away(value: bytes, said: str) -> None:
    """It is said instead."""
    with pytest.raises(InTheWayError, match=said):
        write(value, 5)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8), st.booleans())
def test_writing_is_repeatable(weights: list[int], sticky: bool) -> None:
    """What is written last counts, whatever came before; written again, not a byte changes."""
    said: dict[str, str | bool] | None = {"header": "end-user"} if sticky else None
    value: bytes | None = None
    for weight in weights:
        value = write(value, weight, said)
        assert write(value, weight, said) is value
    assert value == write(None, weights[-1], said)
