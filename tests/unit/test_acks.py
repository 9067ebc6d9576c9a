"""Who acknowledged a change: nobody is left out without a word."""

from __future__ import annotations

import pytest

from nats_mesh import ConfigError, changing
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
