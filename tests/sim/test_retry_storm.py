"""Retries in an outage of ten seconds, at 80 % of what the service can do."""

from __future__ import annotations

import pytest

from tests.sim.retry_storm import BEGINS_S, ENDS_S, FOR_S, KINDS, Kind, Way, excess, healed_after_s, storm
from tests.sim.world import World
from tests.tools import scaled

pytestmark = [
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.parametrize("seed", range(1, scaled(2, 9))),
]


def _holds(world: World) -> None:
    """Attempts ≤ 1.1 × calls + 5 a second: over the outage, and over every window of whole seconds.

    A window may also have what was earned in the second before it: so long may a retry pause, once it is granted.
    """
    assert excess(world, BEGINS_S, ENDS_S, least_s=ENDS_S - BEGINS_S) <= 0.0
    assert excess(world, 0, FOR_S, least_s=1, pause_s=1) <= 0.0


@pytest.mark.parametrize("way", ["budget alone", "defaults"])
def test_the_budget_bounds_the_attempts(kind: Kind, seed: int, way: Way) -> None:
    """With the budget attempts stay within 1.1 × calls + 5 a second, with or without a breaker."""
    _holds(storm(kind, way, seed=seed))


def test_the_service_works_again_soon(kind: Kind, seed: int) -> None:
    """95 % of the calls succeed within 10 s of the end of the outage, with nothing but the defaults."""
    world = storm(kind, "defaults", seed=seed)
    assert healed_after_s(world) <= 10.0
    _holds(world)


def test_without_a_budget_the_rule_is_broken(kind: Kind, seed: int) -> None:
    """The contrast: three attempts, with neither a budget nor a breaker, are a storm."""
    assert excess(storm(kind, "neither", seed=seed), BEGINS_S, ENDS_S, least_s=ENDS_S - BEGINS_S) > 0.0
