"""A slow instance among others."""

from __future__ import annotations

import pytest

from tests.sim.slow_instance import INSTANCES, longest_gap_s, p99_s, slow_instance
from tests.tools import scaled

_FOR_S = scaled(20, 60)


@pytest.mark.parametrize("seed", range(1, scaled(2, 9)))
def test_a_balancer_keeps_the_slow_instance_from_slowing_everybody(seed: int) -> None:
    """p99 is at most half of what it is with the queue group, no call fails for it, and no instance is starved."""
    queue = p99_s(slow_instance("queue", seed=seed, for_s=_FOR_S))
    for balancer in ("least_request", "peak_ewma"):
        world = slow_instance(balancer, seed=seed, for_s=_FOR_S)
        assert p99_s(world) <= queue / 2.0, balancer
        assert all(call.ok for call in world.calls), balancer
        for number in range(1, INSTANCES + 1):
            assert longest_gap_s(world, f"i{number}", _FOR_S) < 20.0, (balancer, number)
