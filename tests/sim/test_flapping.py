"""An instance that fails for two seconds out of every four."""

from __future__ import annotations

import pytest

from tests.sim.flapping import FLAPS_FOR_S, FOR_S, back_after_s, error_rate, flapping
from tests.tools import scaled


@pytest.mark.parametrize("seed", range(1, scaled(2, 9)))
def test_ejection_spares_most_of_the_failures(seed: int) -> None:
    """The error rate is at most a third of that without; the instance gets calls again after its last failure."""
    ejected = flapping("ejected", seed=seed)
    assert error_rate(ejected) <= error_rate(flapping("kept", seed=seed)) / 3.0
    assert back_after_s(ejected) < FOR_S - FLAPS_FOR_S
