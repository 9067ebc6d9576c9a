"""Two runs of one seed are the same run."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.sim.everything import everything
from tests.tools import ROOT

_PROGRAM = "from tests.sim.everything import everything; print(everything(1).digest)"


def test_a_seed_gives_one_trace() -> None:
    """Every message, its bytes, its moment, and every outcome are the same in two runs; another seed gives others."""
    first, second, other = everything(1), everything(1), everything(2)
    assert first.count > 1000
    assert (first.digest, first.count) == (second.digest, second.count)
    assert other.digest != first.digest


def test_it_is_the_same_in_every_process() -> None:
    """Nothing depends on how a process happens to hash its strings."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
