"""Several observers over one connection: each is told what a new one is told, and none disturbs another."""

from __future__ import annotations

import asyncio

import anyio

from nats_mesh import Service
from nats_mesh.core.tap_filter import Filter
from nats_mesh.telemetry.tap_feed import TapFeed
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.telemetry.watching import MeshView
from nats_mesh.testing import LoopClock, MemoryMesh, run_virtual
from nats_mesh.wire.subjects import ALL, Subjects, parse_inbox
from nats_mesh_cli.demo.watch import BusWatch


def shop() -> Service:
    """A service with two endpoints."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def buy() -> str:
        return "tea"

    @service.endpoint()
    async def sell() -> str:
        return "tea"

    return service


def answered(view: MeshView) -> int | None:
    """How many calls of the shop a view knows; ``None`` where it knows no shop."""
    return next((each.red.total.requests for each in view.snapshot().services if each.name == "shop"), None)


def test_a_second_view_over_one_connection_is_told_everything_within_a_second() -> None:
    """What members told the first one is nothing that the second has heard; when one leaves, the other goes on."""

    async def main() -> None:
        async with MemoryMesh(shop()) as mesh:
            for _ in range(3):
                await mesh.call("shop.buy")
            async with MeshView(mesh.mesh, clock=LoopClock()) as first:
                await asyncio.sleep(2.5)  # a member has told everything once, and its changes twice
                assert answered(first) == 3
                async with MeshView(mesh.mesh, clock=LoopClock()) as second:
                    await asyncio.sleep(1.2)
                    assert answered(second) == 3
                await asyncio.sleep(6.0)  # longer than a lease runs
                await mesh.call("shop.buy")
                await asyncio.sleep(1.5)
                assert answered(first) == 4

    run_virtual(main)


def test_two_feeds_over_one_connection_get_what_each_asked_for() -> None:
    """The one does not ask in the place of the other, and takes nothing with it when it leaves."""

    async def main() -> None:
        async with MemoryMesh(shop()) as mesh:
            only_buy = Filter(endpoints=("buy",))
            async with TapFeed(mesh.mesh, only=only_buy, clock=LoopClock()) as first:
                async with TapFeed(mesh.mesh, only=Filter(endpoints=("sell",)), clock=LoopClock()) as second:
                    await mesh.mesh.client.transport.fence()
                    await mesh.call("shop.buy")
                    await mesh.call("shop.sell")
                    await asyncio.sleep(0.5)
                    assert [each.endpoint for each in first.taken()] == ["buy"]
                    assert [each.endpoint for each in second.taken()] == ["sell"]
                await mesh.call("shop.buy")
                await asyncio.sleep(0.5)
                assert [each.endpoint for each in first.taken()] == ["buy"]

    run_virtual(main)


def test_an_observer_is_known_by_its_name_and_its_inbox() -> None:
    """Renewed over the same inbox a lease is the same observer's; an inbox of one token says nothing more than the
    name, because it may be another one each time."""

    async def main() -> None:
        async with MemoryMesh(shop()) as mesh:
            client = mesh.mesh.client
            heard: list[str] = []
            wants = Wants(
                member="probe",
                subjects=Subjects("default"),
                transport=client.transport,
                clock=LoopClock(),
                enforced=False,
            )
            wants.on("stats", lambda observer, reply: heard.append(observer))
            lease = client.mux.lease()
            inbox = parse_inbox(lease)
            assert inbox is not None
            replies = [lease, lease, client.mux.lease(), "_INBOX.a", "_INBOX.b", "_INBOX.a.1", "_INBOX.a.2"]
            for reply in replies:
                client.transport.publish(client.subjects.want("stats", ALL, inbox.caller), b"", reply)
            await client.transport.fence()
            await asyncio.sleep(0.1)
            wants.close()
            name = inbox.caller
            assert heard[0] == heard[1] != heard[2]
            assert heard[0] == f"{name}.{inbox.connection}.{inbox.secret}"
            assert heard[3:] == [name, name, f"{name}.a", f"{name}.a"]

    run_virtual(main)


def test_who_comes_between_two_leases_tells_at_once() -> None:
    """What happens to an instance in its first seconds is seen when it happens, in views and in the demo: it need not
    wait for the next lease."""

    async def main() -> None:
        async with MemoryMesh() as mesh, MeshView(mesh.mesh, clock=LoopClock()) as view:
            heard: list[str] = []
            watch = BusWatch(
                mesh.mesh, lambda _: None, LoopClock(), on_event=lambda event: heard.append(event.kind)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                await anyio.sleep(LEASE_S / 2 + 0.05)  # the leases were renewed just now
                came = anyio.current_time()
                instance = await mesh.serve(shop())
                await anyio.sleep(0.2)
                instance.events.emit("alarm", "shop", "now")
                await anyio.sleep(0.05)
                assert anyio.current_time() - came < 0.5
                assert [event.kind for event in view.snapshot().events] == ["alarm"]
                assert heard == ["alarm"]
                await anyio.sleep(LEASE_S)
                assert heard == ["alarm"], "what is remembered is no second event"
                tasks.cancel_scope.cancel()
            watch.close()

    run_virtual(main)
