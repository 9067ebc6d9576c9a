"""Instances of uneven size."""

from __future__ import annotations

import pytest

from tests.sim.uneven import p99_s, refusals, uneven
from tests.sim.world import World
from tests.tools import scaled

_FOR_S = scaled(30, 60)


def failed(world: World) -> int:
    """Calls that nobody answered well."""
    return sum(not call.ok for call in world.calls)


@pytest.mark.parametrize("seed", range(1, scaled(2, 9)))
def test_who_is_full_had_better_leave_than_refuse(seed: int) -> None:
    """A third of the refusals at most, a lower p99, no more failures; and callers that choose by load halve them."""
    refuse = uneven("refuse", seed=seed, for_s=_FOR_S)
    leave = uneven("leave", seed=seed, for_s=_FOR_S)
    chosen = uneven("least_request", seed=seed, for_s=_FOR_S)
    assert refusals(refuse) > 20
    assert refusals(leave) <= refusals(refuse) / 3
    assert p99_s(leave) < p99_s(refuse)
    assert failed(leave) <= failed(refuse)
    assert refusals(chosen) <= refusals(refuse) / 2
    assert failed(chosen) <= failed(refuse)
