"""What the word of the server is worth, of somebody who does not answer."""

from __future__ import annotations

import io
import logging

import pytest

from nats_mesh import Mesh, Service
from nats_mesh.core.presence import State
from nats_mesh.discovery.overdue import Overdue, overdue_metadata
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.silence import silence_of, silent_among
from nats_mesh_cli.silent import Silent, silent_text
from nats_mesh_cli.silent_watch import SilentWatch
from tests.harness import open_bus
from tests.rawnats import raw_nats

pytestmark = pytest.mark.anyio


def orders() -> Service:
    """A service that is there."""
    service = Service("orders", version="1.0.0")

    @service.endpoint()
    async def place(number: int) -> int:
        return number

    return service


def orders_that_knows(*peers: str) -> InfoReply:
    """An instance of orders that has not heard these others for a while."""
    metadata = overdue_metadata([Overdue(instance=each, heard_s=9.0) for each in peers])
    return InfoReply(
        name="orders", id="mine", version="1.0.0", description="", endpoints=(), omitted=0,
        metadata={"mesh.state": str(State.READY), **metadata},
    )  # fmt: skip


async def test_who_answers_late_is_not_silent(request: pytest.FixtureRequest, mesh_namespace: str) -> None:
    """A service whose answer to all did not come in time, because it was busy, and which answers when it is asked."""
    async with open_bus(request, "nats", mesh_namespace) as bus:
        await bus.serve(orders())
        assert await silence_of(bus.mesh, ["orders", "stock"]) == {
            "orders": Silence.UNKNOWN,
            "stock": Silence.NOBODY,
        }


async def test_whoever_listens_to_everything_makes_nobody_silent(
    request: pytest.FixtureRequest, mesh_namespace: str
) -> None:
    """`nats sub '>'`: to the server somebody listens then on every subject, also on that of who was killed."""
    async with open_bus(request, "nats", mesh_namespace) as bus, raw_nats(bus.url, ">"):
        assert await silence_of(bus.mesh, ["orders"]) == {"orders": Silence.UNKNOWN}
        assert await silent_among(bus.mesh, [orders_that_knows("killed")], [["stock"]]) == []


async def test_who_is_connected_and_answers_nothing_is_silent(
    request: pytest.FixtureRequest, mesh_namespace: str
) -> None:
    """Beside one who was killed, and of whom the server knows nobody."""
    async with (
        open_bus(request, "nats", mesh_namespace) as bus,
        raw_nats(bus.url, "$SRV.PING.orders.hung"),
    ):
        (found,) = await silent_among(bus.mesh, [orders_that_knows("killed", "hung")])
        assert (found.service, found.instance, found.heard_s) == ("orders", "hung", 9.0)


async def test_who_may_not_ask_is_refused_once(
    nats_server_factory: NatsServerFactory, mesh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers log each refusal: whoever looks on does not try again, and is told once that nobody knows."""
    denied = 'authorization { users = [ {user: v, password: v, permissions: {publish: {deny: "$SRV.>"}}} ] }'
    server = nats_server_factory(config=denied)
    settings = Settings(servers=(server.url.replace("//", "//v:v@"),), namespace=mesh_namespace)
    stderr = io.StringIO()
    out = Out(io.StringIO(), stderr)
    async with Mesh("viewer", settings=settings) as mesh:
        watch = SilentWatch(mesh, Options(), out)
        with caplog.at_level(logging.WARNING):
            await watch.look()
            refused = len(caplog.records)
            assert refused
            await watch.look()
            assert len(caplog.records) == refused
    assert stderr.getvalue().count("who is silent is not known") == 1


async def test_a_sentence_names_some_of_many_services() -> None:
    """Members say which services they call, and whoever says many makes no long sentence."""
    text = silent_text([Silent(f"shop-{number}") for number in range(12)])
    assert " and 4 more answers" in text
