"""A view on a server that goes away and comes back."""

from __future__ import annotations

import anyio
import pytest

from nats_mesh import Mesh, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.watching import MeshView
from nats_mesh.testing.plugin import NatsServerFactory
from tests.harness import PATIENCE_S, eventually

pytestmark = pytest.mark.anyio


async def test_a_view_learns_that_the_bus_was_away(nats_server_factory: NatsServerFactory) -> None:
    """What it knew stays meanwhile; once all are back each member tells when it lost which server, why, and for how
    long, though nobody could hear of it when it happened."""
    server = nats_server_factory(jetstream=False)
    settings = Settings(servers=(server.url,))
    service = Service("hello", version="1.0.0")

    @service.endpoint()
    async def say() -> str:
        return "hello"

    with anyio.fail_after(PATIENCE_S):
        async with (
            Instance(service, settings=settings) as instance,
            Mesh("web", settings=settings) as web,
            Mesh("viewer", settings=settings) as mesh,
            MeshView(mesh) as view,
        ):
            for _ in range(10):
                await web.call("hello.say")
            assert await view.settled(PATIENCE_S)
            await server.kill()
            await eventually(lambda: not view.snapshot().connected)
            assert [each.red.recent.requests for each in view.snapshot().services] == [10]
            await server.restart()

            def told() -> dict[tuple[str, str], str]:
                events = view.snapshot().events
                return {
                    (each.service, each.kind): each.detail for each in events if each.target == server.url
                }

            await eventually(lambda: ("hello", EventKind.BUS_BACK) in told(), told)
            assert told()["hello", EventKind.BUS_LOST]
            assert told()["hello", EventKind.BUS_BACK].startswith("it was away for ")
            await eventually(lambda: ("web", EventKind.BUS_BACK) in told(), told)
            assert [each.kind for each in instance.events.recent][-2:] == ["bus.lost", "bus.back"]
