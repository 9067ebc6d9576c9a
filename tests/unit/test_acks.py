"""Who acknowledged a change: nobody is left out without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_mesh import ConfigError, PolicyError, changing
from nats_mesh.discovery import acks as module
from nats_mesh.discovery.acks import Acks
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.decode import parse
from nats_mesh.testing import MemoryMesh, run_virtual


@pytest.mark.parametrize(("most", "more"), [(1, True), (50, False)])
def test_members_beyond_those_that_are_kept_track_of_are_told(
    monkeypatch: pytest.MonkeyPatch, most: int, more: bool
) -> None:
    """ "Acknowledged by 1 of 1" would be a lie with two of them there."""
    monkeypatch.setattr(module, "MAX_MEMBERS", most)

    async def main() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh, mesh.client("app"), mesh.client("ops", policies=False) as ops:
            client = ops.client
            acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
            await acks.open()
            found = await acks.roll_call()
            assert (len(found) == 1) is more
            assert acks.report(1, {"Limit.a": 1}).more is more
            acks.close()

    run_virtual(main)


def test_what_somebody_alive_cannot_read_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of an older version, which says so in the roll call, would refuse it: it is named before."""
    monkeypatch.setattr(changing, "POLICY_SCHEMA", 2)

    async def main() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh, mesh.client("app"), mesh.client("ops", policies=False) as ops:
            client = ops.client
            acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
            store = PolicyStore(ops.namespace, transport=client.transport, mux=client.mux)
            await store.open()
            await acks.open()
            change = changing.Changing(store, acks, tell=lambda text: None)
            policy = b'{"apiVersion":"mesh/v1","kind":"Destination","metadata":{"name":"a"},"spec":{"timeout":"1s"}}'
            (document,) = parse(policy)
            prepared = await change.prepare({"Destination.a": Document(policy=document, value=policy)})
            with pytest.raises(ConfigError, match=r"app/.*reads no policies of schema 2"):
                await change.carry_out(prepared)
            assert (await store.snapshot()).policies == {}
            acks.close()

    run_virtual(main)


BEFORE = (
    "Destination",
    {"subsets": {"v1": {"version": "1.0.0"}}, "retry": {"backoff": {"max": "10s"}}},
    "Route",
    {"rules": [{"split": [{"subset": "v1"}], "retry": {"backoff": {"initial": "5s"}}}]},
)
AFTER = (
    "Destination",
    {"subsets": {"v2": {"version": "2.0.0"}}, "retry": {"backoff": {"max": "1s"}}},
    "Route",
    {"rules": [{"split": [{"subset": "v2"}], "retry": {"backoff": {"initial": "100ms"}}}]},
)


def documents(*parts: Any) -> dict[str, Document | None]:
    """Kinds and specs of policies about the service `shop`."""
    found: dict[str, Document | None] = {}
    for kind, spec in zip(parts[::2], parts[1::2], strict=True):
        body = {"apiVersion": "mesh/v1", "kind": kind, "metadata": {"name": "shop"}}
        value = json.dumps({**body, "spec": {"target": {"service": "shop"}, **spec}}).encode()
        (policy,) = parse(value)
        found[f"{kind}.shop"] = Document(policy=policy, value=value)
    return found


def test_a_change_that_contradicts_the_routes_of_before_is_made_all_the_same() -> None:
    """The new destination does not hold beside the old route, nor the old one beside the new: an order is found in
    which every step does, and everybody follows the whole in the end."""

    async def main() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh, mesh.client("ops", policies=False) as ops:
            client = ops.client
            acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
            store = PolicyStore(ops.namespace, transport=client.transport, mux=client.mux)
            await store.open()
            await acks.open()
            told: list[str] = []
            change = changing.Changing(store, acks, tell=told.append)
            await change.carry_out(await change.prepare(documents(*BEFORE)))
            wanted = documents(*AFTER)
            told.clear()
            done = await change.carry_out(await change.prepare(wanted))
            assert done.report is not None
            assert done.report.agreed
            assert [each.partition(": ")[2] for each in told if each.startswith("step ")] == [
                "subsets that routes will lead to",
                "routes, and all else",
                "what no route leads to any more",
            ]
            stands = (await store.snapshot()).policies
            assert {key: each.value for key, each in stands.items()} == {
                key: each.value for key, each in wanted.items() if each is not None
            }
            (member,) = done.report.applied
            assert member.rejected == 0
            acks.close()

    run_virtual(main)


def test_what_does_not_hold_as_a_whole_is_refused_for_what_is_wrong_with_it() -> None:
    """And not for what would be wrong in the middle."""

    async def main() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh, mesh.client("ops", policies=False) as ops:
            client = ops.client
            acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
            store = PolicyStore(ops.namespace, transport=client.transport, mux=client.mux)
            await store.open()
            await acks.open()
            change = changing.Changing(store, acks, tell=lambda text: None)
            await change.carry_out(await change.prepare(documents(*BEFORE)))
            lost = (*AFTER[:3], {"rules": [{"split": [{"subset": "v3"}]}]})
            with pytest.raises(PolicyError, match="v3") as caught:
                await change.prepare(documents(*lost))
            assert len(caught.value.problems) == 1
            acks.close()

    run_virtual(main)


def test_waiting_for_what_stands_there_already_says_whether_it_is_in_effect() -> None:
    """The same change once more stores nothing, and is no success where somebody has not acknowledged it."""

    async def main() -> None:
        mesh = MemoryMesh(caller="web")
        async with mesh, mesh.client("ops", policies=False) as ops:
            client = ops.client
            acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
            store = PolicyStore(ops.namespace, transport=client.transport, mux=client.mux)
            await store.open()
            await acks.open()
            change = changing.Changing(store, acks, tell=lambda text: None)
            await change.carry_out(await change.prepare(documents(*BEFORE)))
            again = await change.carry_out(await change.prepare(documents(*BEFORE)))
            assert again.applied == ()
            assert again.report is not None
            assert [each.service for each in again.report.applied] == ["web"]
            (member,) = acks.members.values()
            member.revision = (member.revision[0], 1)
            acks.roll_call = nobody  # type: ignore[method-assign]  # a stand-in for this test
            acks.forget = lambda member: None  # type: ignore[method-assign]  # a stand-in for this test
            again = await change.carry_out(await change.prepare(documents(*BEFORE)))
            assert again.report is not None
            assert [each.service for each in again.report.silent] == ["web"]
            acks.close()

    async def nobody(**options: float) -> list[Any]:
        return []

    run_virtual(main)
