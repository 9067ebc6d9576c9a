"""Twice the load that a service can bear."""

from __future__ import annotations

import pytest

from tests.sim.overload import CAPACITY_PER_S, goodput_per_s, overload
from tests.tools import scaled

_FOR_S = scaled(30, 90)
pytestmark = pytest.mark.parametrize("seed", range(1, scaled(2, 9)))


def test_refusing_at_once_keeps_the_goodput(seed: int) -> None:
    """Goodput is at least 90 % of capacity."""
    world = overload("refused at once", seed=seed, for_s=_FOR_S)
    assert goodput_per_s(world, _FOR_S) >= 0.9 * CAPACITY_PER_S


def test_a_line_without_bound_loses_it(seed: int) -> None:
    """The contrast: where calls wait in line, nearly all of them time out."""
    world = overload("a line", seed=seed, for_s=_FOR_S)
    assert goodput_per_s(world, _FOR_S) <= 0.1 * CAPACITY_PER_S
