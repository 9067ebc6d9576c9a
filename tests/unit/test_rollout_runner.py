"""How many rollouts one runner carries out, and what becomes of the others."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from nats_mesh.core.rollout import RolloutRules, StepRules
from nats_mesh.rollout import runner as module
from nats_mesh.rollout.book import Entry
from nats_mesh.rollout.record import Record
from nats_mesh.rollout.runner import Runner
from nats_mesh.testing import MemoryMesh, run_virtual

RULES = RolloutRules(old="v1", new="v2", steps=(StepRules(weight=5, for_s=60.0),))


class Carried:
    """Stands in for what carries a rollout out: under way until the test ends it."""

    def __init__(self, mesh: Any, book: Any, entry: Entry, **options: Any) -> None:
        self.record = entry.record
        self.over = anyio.Event()

    async def run(self) -> None:
        """Wait for its end."""
        await self.over.wait()

    async def release(self) -> None:
        """It holds nothing."""


def test_what_a_runner_has_no_room_for_waits_and_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, said once and not at every look, and taken as soon as there is room."""
    monkeypatch.setattr(module, "MAX_CARRIED", 2)
    monkeypatch.setattr(module, "Carrier", Carried)

    async def main() -> None:
        mesh = MemoryMesh(caller="ci")
        async with mesh, mesh.client("ops", policies=False) as ops:
            runner = Runner(ops)
            await runner.book.make()
            for service in ("a", "b", "c", "d"):
                record = Record(
                    service=service, rollout=service, run="R1", rules=RULES, route=f"Route.{service}"
                )
                await runner.book.write(record, 0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                await anyio.sleep(3.5)
                assert (sorted(runner.carried), runner.waiting) == (["a", "b"], 2)
                runner.carried["a"].over.set()  # type: ignore[attr-defined]  # it is a stand-in
                await anyio.sleep(10.0)
                assert "c" in runner.carried
                assert len(runner.carried) == 2
                tasks.cancel_scope.cancel()

    with caplog.at_level(logging.WARNING, logger="nats_mesh.rollout"):
        run_virtual(main)
    assert len([each for each in caplog.records if "rollouts wait" in each.getMessage()]) == 1
