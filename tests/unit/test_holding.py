"""Routes that wait for their subset to be known everywhere (`nats_mesh.calling.holding`)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nats_mesh.calling.holding import HOLD_S, RouteHold
from nats_mesh.policy import Policy, PolicySet, parse
from nats_mesh.testing import run_virtual


def policies(*documents: tuple[str, dict[str, Any]]) -> PolicySet:
    """A set of documents about the service `shop`: their kinds and specs."""
    found: list[Policy] = []
    for kind, spec in documents:
        body = {"apiVersion": "mesh/v1", "kind": kind, "metadata": {"name": "shop"}}
        found += parse(json.dumps({**body, "spec": {"target": {"service": "shop"}, **spec}}))
    return PolicySet.of(found)


def test_a_valid_change_is_held_though_its_destinations_contradict_the_routes_of_before() -> None:
    """What is in effect stays while the subset is new, and then all of the change holds: nothing of it is refused."""
    before = policies(
        ("Destination", {"subsets": {"v1": {"version": "1.0.0"}}, "retry": {"backoff": {"max": "10s"}}}),
        ("Route", {"rules": [{"split": [{"subset": "v1"}], "retry": {"backoff": {"initial": "5s"}}}]}),
    )
    after = policies(
        (
            "Destination",
            {
                "subsets": {"v1": {"version": "1.0.0"}, "v2": {"version": "2.0.0"}},
                "retry": {"backoff": {"max": "1s"}},
            },
        ),
        ("Route", {"rules": [{"split": [{"subset": "v2"}], "retry": {"backoff": {"initial": "100ms"}}}]}),
    )

    async def main() -> list[PolicySet]:
        applied: list[PolicySet] = []
        hold = RouteHold(before, applied.append, asyncio.get_running_loop().time)
        hold.take(after)
        assert applied == []
        await asyncio.sleep(HOLD_S + 0.1)
        assert not hold.holding
        return applied

    assert run_virtual(main) == [after]


def test_subsets_that_keep_coming_do_not_hold_routes_for_ever() -> None:
    """A new routed subset every 0.4 s, for as long as anybody likes: every route still holds after a few seconds."""

    def at(number: int) -> PolicySet:
        subset = f"v{number}"
        return policies(
            ("Destination", {"subsets": {subset: {"version": "1.0.0"}}}),
            ("Route", {"rules": [{"split": [{"subset": subset}]}]}),
        )

    async def main() -> list[str]:
        applied: list[PolicySet] = []
        hold = RouteHold(at(0), applied.append, asyncio.get_running_loop().time)
        for number in range(1, 21):
            hold.take(at(number))
            await asyncio.sleep(0.4 * HOLD_S)
        await asyncio.sleep(HOLD_S)
        assert not hold.holding
        return [leg.subset for each in applied for rule in each.all_rules() for leg in rule.legs or ()]

    assert run_virtual(main) == ["v13", "v20"]
