"""The targets of one route: a combination of rules beyond those that are known takes the place of the oldest alone."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from nats_mesh.calling import routing as module
from nats_mesh.calling.exchange import Target
from nats_mesh.calling.routing import Routing
from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.router import Leg, Match, Path, Rule
from nats_mesh.model import OwnHeaders


def test_the_oldest_makes_room_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One more combination of rules than are known: the one first taken goes, its target is given back, the others
    stay the very same, and it is counted and said, ever more rarely."""
    monkeypatch.setattr(module, "_MAX_WAYS", 3)
    rules = tuple(
        Rule(
            scope=("shop", ""),
            index=index,
            matches=(Match(headers=(HeaderTest(name="who", exact=str(index)),)),),
            legs=(Leg(subset=f"v{index}"),),
        )
        for index in range(9)
    )
    given_back: list[Target] = []

    def make(path: Path, leg: Leg) -> Target:
        return cast(Target, [leg.subset])

    routing = Routing("shop", [rules], caller="web", chance=lambda: 0.5, make=make, forget=given_back.append)

    def of(index: int) -> Target:
        return routing.choose(OwnHeaders({"who": str(index)}))

    first, second, third = of(0), of(1), of(2)
    assert of(0) is first
    with caplog.at_level(logging.WARNING, logger="nats_mesh.policies"):
        of(3)
        assert given_back == [first]
        assert (of(1), of(2)) == (second, third)
        assert routing.dropped == 1
        assert of(0) is not first
        assert given_back == [first, second]
        for index in range(4, 9):
            of(index)
    assert routing.dropped == 7
    assert [record.getMessage().partition(" so far")[0][-1] for record in caplog.records] == ["1", "2", "4"]
    assert len(list(routing.targets())) == 3
