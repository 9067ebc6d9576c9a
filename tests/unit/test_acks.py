"""Who acknowledged a change: nobody is left out without a word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from nats_mesh import ConfigError, Mesh, PolicyError, changing
from nats_mesh.core.presence import Rejection
from nats_mesh.discovery import acks as module
from nats_mesh.discovery.acks import Acks
from nats_mesh.discovery.services_api import ServiceDoc, ping_response, service_metadata
from nats_mesh.policy.bus.acking import Ack
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.decode import parse
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.testing.virtual import LoopClock
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions


class Desk:
    """An operator of a mesh: who hears acknowledgements, the store, and what changes it; ``told`` is what that says."""

    def __init__(self, ops: Mesh) -> None:
        client = ops.client
        self.acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
        self.store = PolicyStore(ops.namespace, transport=client.transport, mux=client.mux)
        self.told: list[str] = []
        self.change = changing.Changing(self.store, self.acks, tell=self.told.append)

    async def carry_out(self, wanted: dict[str, Document | None]) -> changing.Changed:
        """Make a change, and wait for it."""
        return await self.change.carry_out(await self.change.prepare(wanted))


@asynccontextmanager
async def operating(*members: str) -> AsyncIterator[Desk]:
    """A desk in a mesh of a caller ``web`` and of such clients."""
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(MemoryMesh(caller="web"))
        for name in members:
            await stack.enter_async_context(mesh.client(name))
        desk = Desk(await stack.enter_async_context(mesh.client("ops", policies=False)))
        await desk.store.open()
        await desk.acks.open()
        yield desk
        desk.acks.close()


@pytest.mark.parametrize(("most", "more"), [(1, True), (50, False)])
def test_members_beyond_those_that_are_kept_track_of_are_told(
    monkeypatch: pytest.MonkeyPatch, most: int, more: bool
) -> None:
    """ "Acknowledged by 1 of 1" would be a lie with two of them there."""
    monkeypatch.setattr(module, "MAX_MEMBERS", most)

    async def main() -> None:
        async with operating("app") as desk:
            found = await desk.acks.roll_call()
            assert (len(found) == 1) is more
            assert desk.acks.report(1, {"Limit.a": 1}).more is more

    run_virtual(main)


def test_what_somebody_alive_cannot_read_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of an older version, which says so in the roll call, would refuse it: it is named before."""
    monkeypatch.setattr(changing, "POLICY_SCHEMA", 2)

    async def main() -> None:
        async with operating("app") as desk:
            policy = b'{"apiVersion":"mesh/v1","kind":"Destination","metadata":{"name":"a"},"spec":{"timeout":"1s"}}'
            (document,) = parse(policy)
            prepared = await desk.change.prepare({"Destination.a": Document(policy=document, value=policy)})
            with pytest.raises(ConfigError, match=r"app/.*reads no policies of schema 2"):
                await desk.change.carry_out(prepared)
            assert (await desk.store.snapshot()).policies == {}

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
        async with operating() as desk:
            await desk.carry_out(documents(*BEFORE))
            wanted = documents(*AFTER)
            desk.told.clear()
            done = await desk.carry_out(wanted)
            assert done.report is not None
            assert done.report.agreed
            assert [each.partition(": ")[2] for each in desk.told if each.startswith("step ")] == [
                "subsets that routes will lead to",
                "routes, and all else",
                "what no route leads to any more",
            ]
            stands = (await desk.store.snapshot()).policies
            assert {key: each.value for key, each in stands.items()} == {
                key: each.value for key, each in wanted.items() if each is not None
            }
            (member,) = done.report.applied
            assert member.rejected == 0

    run_virtual(main)


def test_what_does_not_hold_as_a_whole_is_refused_for_what_is_wrong_with_it() -> None:
    """And not for what would be wrong in the middle."""

    async def main() -> None:
        async with operating() as desk:
            await desk.carry_out(documents(*BEFORE))
            lost = (*AFTER[:3], {"rules": [{"split": [{"subset": "v3"}]}]})
            with pytest.raises(PolicyError, match="v3") as caught:
                await desk.change.prepare(documents(*lost))
            assert len(caught.value.problems) == 1

    run_virtual(main)


NEWEST = Rejection(policy="Limit.b", reason="it is no number", revision=(1, 3))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("answer 1.3", (0, "", ())),
        ("answer 1.2", (1, "Limit.b: it is no number", (NEWEST,))),  # of a time before
        ("answer 1.3 refused", (2, "Limit.c: neither", (NEWEST,))),
        ("answer 1.3 refused, ack", (1, "Limit.b: it is no number", (NEWEST,))),
    ],
)
def test_what_a_member_says_later_is_what_it_refuses(said: str, expected: tuple[Any, ...]) -> None:
    """An answer to a roll call replaces what was acknowledged before it, unless it is of an older revision; and an
    acknowledgement replaces an answer to a roll call that is still going on when it comes."""

    async def main() -> None:
        bus = MemoryBus()
        transport, member = [await bus.connect(ConnectOptions(name=name)) for name in ("ops", "app")]
        mux, own = (ReplyMux(each, LoopClock().monotonic) for each in (transport, member))
        subjects = Subjects("default")
        acks = Acks(subjects=subjects, transport=transport, mux=mux)
        await acks.open()
        ack = Ack(
            service="app", instance=member.connection, namespace="default", kind="client",
            revision=(1, 3), rejections=(NEWEST,), rejected=1,
        )  # fmt: skip

        def acknowledge() -> None:
            member.publish(subjects.ack("app", member.connection), JSON.encode(ack), own.one_way("control"))

        def answer(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
            refused = (
                {"mesh.rejected": "2", "mesh.rejection": "Limit.c: neither"} if "refused" in said else {}
            )
            document = ServiceDoc(
                name="app",
                id=member.connection,
                version="1.0.0",
                started="2026-01-01T00:00:00.000000Z",
                metadata={
                    **service_metadata("default", {}, kind="client"),
                    "mesh.policies": "bus",
                    "mesh.revision": said.split()[1].rstrip(","),
                    **refused,
                },
            )
            member.publish(reply, ping_response(document))
            if said.endswith("ack"):
                acknowledge()

        acknowledge()
        await member.fence()
        await anyio.sleep(0.1)
        assert acks.members["app", member.connection].rejected == 1
        member.subscribe("$SRV.PING", answer)
        await member.fence()
        await acks.roll_call()
        known = acks.members["app", member.connection]
        assert (known.rejected, known.reason, known.rejections) == expected
        assert known.revision == (1, 3)
        acks.close()

    run_virtual(main)


def test_waiting_for_what_stands_there_already_says_whether_it_is_in_effect() -> None:
    """The same change once more stores nothing, and is no success where somebody has not acknowledged it."""

    async def main() -> None:
        async with operating() as desk:
            await desk.carry_out(documents(*BEFORE))
            again = await desk.carry_out(documents(*BEFORE))
            assert again.applied == ()
            assert again.report is not None
            assert [each.service for each in again.report.applied] == ["web"]
            (member,) = desk.acks.members.values()
            member.revision = (member.revision[0], 1)
            desk.acks.roll_call = nobody  # type: ignore[method-assign]  # a stand-in for this test
            desk.acks.forget = lambda member: None  # type: ignore[method-assign]  # a stand-in for this test
            again = await desk.carry_out(documents(*BEFORE))
            assert again.report is not None
            assert [each.service for each in again.report.silent] == ["web"]

    async def nobody(**options: float) -> list[Any]:
        return []

    run_virtual(main)
