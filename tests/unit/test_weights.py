"""The label ``weight``: how many calls an instance gets, beside the others of its service."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

from nats_mesh import Context, Mesh, Service
from nats_mesh.core.presence import Kind, check_weight, weight_of
from nats_mesh.errors import ConfigError
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh, run_virtual
from tests.unit.test_fleet import Scene, play

GOOD = {"1": 1.0, "3": 3.0, "0.5": 0.5, "2.25": 2.25, "1000": 1000.0, "0.000000001": 1e-9, "007": 7.0}
BAD = ["", "0", "0.0", "-1", "+1", "1001", "1000.1", "heavy", "1e3", "1_0", " 1", "1 ", "1,5", ".5", "5.", "nan",
       "inf", "٣", "0x1", "1\n", "99999"]  # fmt: skip


@pytest.mark.parametrize(("text", "weight"), GOOD.items())
def test_a_plain_number_is_a_weight(text: str, weight: float) -> None:
    """Above 0 up to 1000, in decimals."""
    assert weight_of({"weight": text}) == weight
    Service("pool", version="1.0.0", labels={"weight": text})


def test_without_the_label_it_is_one() -> None:
    """Whatever other labels there are."""
    assert weight_of({}) == weight_of({"Weight": "3", "zone": "9"}) == 1.0


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_none(text: str) -> None:
    """And a service that says so is refused where it is declared, with what would do."""
    assert weight_of({"weight": text}) is None
    with pytest.raises(ConfigError, match=r"label 'weight': must be a number above 0 up to 1000"):
        check_weight({"weight": text})
    with pytest.raises(ConfigError, match=r"service 'pool': label '?weight"):
        Service("pool", version="1.0.0", labels={"weight": text})


def test_what_cannot_be_read_counts_as_one_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many instances of a foreign implementation say it, and however often."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", labels={"weight": "2.5"})
        scene.crowd.there("b", "c", labels={"weight": "heavy"})
        scene.crowd.there("d")
        fleet = scene.fleet()
        await fleet.start()
        for _ in range(3):
            scene.crowd.beat()
        scene.crowd.say("c", Kind.CHANGE, labels={"weight": "-4"})
        await scene.transport.fence()
        assert {each.id: each.weight for each in fleet.instances()} == {
            "a": 2.5,
            "b": 1.0,
            "c": 1.0,
            "d": 1.0,
        }
        scene.crowd.say("c", Kind.CHANGE, labels={"weight": "4"})
        await scene.transport.fence()
        assert fleet.instances()[2].weight == 4.0

    play(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "pool: the label weight of instance b is no number above 0 up to 1000: 'heavy'; it counts as 1"
    ]


WEIGHTS = {"i1": 1.0, "i2": 2.0, "i3": 5.0}


async def spread(caller: Mesh, count: int) -> Counter[str]:
    """Who answers how many of ``count`` calls, eight at a time, each with another key."""

    async def some(number: int) -> list[str]:
        return [
            await caller.call("pool.who", returns=str, headers={"X-User": f"{number} {each}"})
            for each in range(count // 8)
        ]

    found = await asyncio.gather(*(some(number) for number in range(8)))
    return Counter([instance for each in found for instance in each])


@pytest.mark.parametrize(
    ("balancer", "within"),
    [
        ("round_robin", 0.01),
        ("random", 0.04),
        ("least_request", 0.04),
        ("peak_ewma", 0.04),
        ("{name: consistent_hash, header: X-User}", 0.08),
    ],
)
@pytest.mark.parametrize("slots", [(64, 64, 64), (16, 32, 80), (80, 32, 16)])
def test_shares_go_by_weight(balancer: str, within: float, slots: tuple[int, ...]) -> None:
    """Each balancer gives 1 : 2 : 5 of the calls, however many each takes at a time; a ring of hashes with its own
    variance."""
    policies = PolicySet.of(
        parse(
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
            f"spec: {{target: {{service: pool}}, balancer: {balancer}}}\n"
        )
    )

    async def main() -> None:
        async with MemoryMesh() as mesh, mesh.client("web", policies=policies) as caller:
            for (name, weight), limit in zip(WEIGHTS.items(), slots, strict=True):
                labels = {} if weight == 1.0 else {"weight": f"{weight:g}"}
                service = Service("pool", version="1.0.0", instance=name, labels=labels)

                @service.endpoint(concurrency=limit)
                async def who(ctx: Context) -> str:
                    await asyncio.sleep(0.01)
                    return ctx.instance

                await mesh.serve(service)
            await caller.call("pool.who")
            await asyncio.sleep(2.0)
            found = await spread(caller, 4000)
            for name, weight in WEIGHTS.items():
                assert found[name] / 4000 == pytest.approx(weight / 8.0, abs=within), found

    run_virtual(main)
