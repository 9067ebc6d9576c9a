"""An instance that is bad for some of its callers, and well for the others."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.sim.fleet_ejection import BAD, CALLERS, NEEDED, fleet_ejection, judged_at, of_the_others
from tests.tools import scaled

pytestmark = pytest.mark.parametrize("seed", range(1, scaled(2, 9)))
_FOR_S = scaled(30, 90)


def test_one_caller_fewer_moves_nobody(seed: int) -> None:
    """Two callers of six never suffice, however often they repeat it: the others go on calling the instance."""
    world = fleet_ejection(NEEDED - 1, seed=seed, for_s=_FOR_S)
    assert judged_at(world).keys() == {"web1", "web2"}
    for number in range(NEEDED, CALLERS + 1):
        asked = [a.at for a in world.attempts if (a.instance, a.caller) == (BAD, f"web{number}")]
        assert max(later - earlier for earlier, later in pairwise([0.0, *asked, _FOR_S])) < 5.0, (
            f"web{number}"
        )


def test_enough_callers_eject_for_all(seed: int) -> None:
    """Once the third caller finds it bad, nobody calls it for the time of an ejection; then it is tried again."""
    world = fleet_ejection(NEEDED, seed=seed, for_s=_FOR_S)
    judged = judged_at(world)
    assert judged.keys() == {"web1", "web2", "web3"}
    agreed = max(judged.values())
    assert not [at for at in of_the_others(world, NEEDED) if agreed + 0.001 < at < agreed + 10.0]
    assert [at for at in of_the_others(world, NEEDED) if at > agreed + 10.0]
