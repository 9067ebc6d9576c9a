"""Circuits that callers open for each other: what an outage gets, and what callers that are wrong can do."""

from __future__ import annotations

import pytest

from tests.sim.fleet_breaker import BEGINS_S, ENDS_S, NEEDED, outage, partial, refused
from tests.tools import scaled

pytestmark = pytest.mark.parametrize("seed", range(1, scaled(2, 9)))


def test_an_outage_gets_half_of_the_attempts(seed: int) -> None:
    """Thirty callers with too few calls to judge by, mostly: one that had enough of them tells the others."""
    attempts = [
        sum(BEGINS_S <= each.at < ENDS_S for each in outage(together=together, seed=seed).attempts)
        for together in (False, True)
    ]
    assert attempts[1] <= 0.5 * attempts[0], attempts


def test_one_caller_fewer_opens_nothing(seed: int) -> None:
    """Two of six never suffice, however often they repeat it."""
    world = partial(NEEDED - 1, seed=seed)
    assert {each.caller for each in world.verdicts} == {"web1", "web2"}
    assert refused(world, NEEDED - 1) == 0


def test_callers_that_are_wrong_cost_the_others_a_bounded_part(seed: int) -> None:
    """Three that never stop saying so: an open time in each window, a quarter of the calls at most; and none of the
    others says it, too."""
    world = partial(NEEDED, seed=seed)
    since = [call for call in world.calls if call.began >= BEGINS_S]
    others = [call for call in since if call.caller not in {"web1", "web2", "web3"}]
    assert 0 < refused(world, NEEDED) <= 0.25 * len(others)
    assert {each.caller for each in world.verdicts} == {"web1", "web2", "web3"}
