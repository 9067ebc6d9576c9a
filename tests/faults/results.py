"""The measured figures of the fault tests: in full runs a JSON record of each, under tests/faults/results."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from tests.bench.machine import machine, versions
from tests.tools import is_full_run

__all__ = ["FOLDER", "Figure", "write_results"]

FOLDER = Path(__file__).with_name("results")

Figure = int | float | str | bool | list[float]


def write_results(name: str, figures: dict[str, Figure]) -> None:
    """Write ``name``.json anew; nothing in a run with reduced counts, whose figures would say less."""
    if not is_full_run():
        return
    FOLDER.mkdir(exist_ok=True)
    record = {"machine": msgspec.to_builtins(machine()), "versions": versions(()), "figures": figures}
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
