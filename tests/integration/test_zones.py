"""Locality with instances that really end: what a zone was is what it is measured by."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import Bus, eventually, policies
from tests.integration.zone_worker import ZoneWorker

pytestmark = pytest.mark.anyio

POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: pool}
spec:
  target: {service: pool}
  balancer: {name: round_robin, locality: true}
"""


async def test_a_zone_that_was_killed_gives_calls_away(bus: Bus, tmp_path: Path) -> None:
    """3 primary + 3 secondary: one killed → primary; two → mixed, also once presence has missed them; none left →
    secondary. Not one call fails."""
    with ExitStack() as stack:
        workers = [ZoneWorker(bus.url, bus.namespace, "pool", zone) for zone in ("eu-1",) * 3 + ("eu-2",) * 3]
        for each in workers:
            stack.callback(each.close)
        near, far = [each.id for each in workers[:3]], [each.id for each in workers[3:]]
        caller = await bus.caller("cart", policies=policies(tmp_path, POLICY), labels={"zone": "eu-1"})

        async def known(count: int) -> None:
            """Call until so many instances are there by presence."""
            fleet = caller.client.fleets.visit("pool")
            assert fleet is not None
            await caller.call("pool.who")
            await eventually(lambda: len(fleet.instances()) == count, fleet.instances)

        async def found() -> list[str]:
            """Who answers 40 calls, one after another."""
            return [await caller.call("pool.who", returns=str) for _ in range(40)]

        await known(6)
        assert set(await found()) == set(near)
        workers[0].kill()
        await known(5)
        assert set(await found()) == set(near[1:])
        workers[1].kill()
        await known(4)
        answered = await found()
        assert set(answered) == {near[2], *far}
        assert answered.count(near[2]) == pytest.approx(20, abs=2)
        workers[2].kill()
        await known(3)
        assert set(await found()) == set(far)
