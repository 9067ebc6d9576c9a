"""A breaker in front of a service that is dead for two minutes."""

from __future__ import annotations

import pytest

from tests.sim.dead_service import Way, attempts_per_call, dead_service
from tests.tools import scaled

pytestmark = pytest.mark.parametrize("seed", range(1, scaled(2, 9)))


@pytest.mark.parametrize("way", ["fails", "hangs"])
def test_a_dead_service_is_left_alone(seed: int, way: Way) -> None:
    """In the second minute of the outage there are attempts for at most 5 % of the calls; afterwards all is well."""
    world = dead_service(way, seed=seed)
    assert attempts_per_call(world) <= 0.05
    assert world.calls[-1].ok


def test_without_a_breaker_it_is_not(seed: int) -> None:
    """The contrast: the budget bounds retries, and every call still makes its first attempt."""
    assert attempts_per_call(dead_service("fails, no breaker", seed=seed)) >= 1.0
