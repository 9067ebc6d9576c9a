"""What a caller knows of real instances on a real server: rights, reconnects, forgeries."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import pytest

from nats_mesh import Mesh, NoInstancesError, PermissionDeniedError, Service
from nats_mesh.core.presence import Announcement, Kind, State
from nats_mesh.discovery.fleet import Fleet
from nats_mesh.discovery.messages import encode, rfc3339
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from tests.harness import Bus, eventually, open_bus
from tests.rawnats import raw_nats

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A namespace of the shared server; at the end nothing may be left of any call."""
    async with open_bus(request, "nats", mesh_namespace) as bus:
        yield bus
        await bus.at_rest()


def service(name: str = "pool", version: str = "1.0.0") -> Service:
    """A service with one endpoint."""
    made = Service(name, version=version, labels={"zone": "eu-1", "tier": "gold"})

    @made.endpoint(concurrency=8)
    async def who() -> str:
        return name

    return made


def known(fleet: Fleet) -> list[str]:
    """The ids of the instances it would call."""
    return [each.id for each in fleet.instances()]


async def test_instances_come_and_go(bus: Bus) -> None:
    """Those who are there are known by their answers, later ones by their joins; a leave takes them out at once."""
    first = await bus.serve(service())
    fleet = bus.mesh.client.fleets.fleet("pool")
    await fleet.start()
    [member] = fleet.instances()
    assert (member.id, member.version, member.zone, member.labels["tier"]) == (
        first.id,
        "1.0.0",
        "eu-1",
        "gold",
    )
    assert (member.state, member.suspect, member.in_flight, member.limit) == (State.READY, False, 0, 8)
    version = fleet.version
    async with Instance(service(version="2.0.0"), settings=bus.settings) as second:
        await eventually(lambda: known(fleet) == sorted([first.id, second.id]))
        assert fleet.version > version
        assert {each.id: each.version for each in fleet.instances()}[second.id] == "2.0.0"
    await eventually(lambda: known(fleet) == [first.id])


async def test_a_leave_is_known_before_the_instance_has_finished(bus: Bus) -> None:
    """Who drains is not called any more, while it still answers what it holds."""
    instance = await bus.serve(service())
    fleet = bus.mesh.client.fleets.fleet("pool")
    await fleet.start()
    assert known(fleet) == [instance.id]
    await bus.instances.pop().drain()
    await eventually(lambda: known(fleet) == [])
    with pytest.raises(NoInstancesError):
        await bus.mesh.gather("pool.who")


async def test_what_others_say_of_its_instances_is_not_believed(bus: Bus) -> None:
    """Presence needs its publisher's inbox, also here, and where the mode is enforced no other passes."""
    instance = await bus.serve(service())
    strict = await bus.caller("strict", mode="enforced")
    fleets = [mesh.client.fleets.fleet("pool") for mesh in (bus.mesh, strict)]
    for fleet in fleets:
        await fleet.start()
    body = encode(
        Announcement(
            type=Kind.JOIN,
            service="pool",
            instance="forged",
            name="host-1",
            version="1.0.0",
            namespace=bus.namespace,
            seq=1,
            started=rfc3339(1_700_000_000.0),
            interval_s=5.0,
        )
    )
    async with raw_nats(bus.url) as raw:
        subject = f"mesh.{bus.namespace}.presence.pool.forged"
        raw.publish(subject, body, "")
        raw.publish(subject, body, f"_INBOX.web.CONNECTION.{'a' * 32}.0")
        await raw.flush()
        for mesh in (bus.mesh, strict):
            await mesh.client.transport.fence()
        assert [known(fleet) for fleet in fleets] == [[instance.id], [instance.id]]
        raw.publish(subject, body, "_INBOX.somebody")
        await eventually(lambda: known(fleets[0]) == sorted([instance.id, "forged"]))
        await strict.client.transport.fence()
        assert known(fleets[1]) == [instance.id]


async def test_after_a_reconnect_it_knows_who_came_meanwhile(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """What was known stays while the connection is away; then everybody is asked again."""
    direct = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        Instance(service(), settings=direct) as first,
        Mesh("web", settings=Settings(servers=(proxy.url,), namespace=mesh_namespace)) as mesh,
    ):
        fleet = mesh.client.fleets.fleet("pool")
        await fleet.start()
        await proxy.refuse()
        await proxy.cut()
        await eventually(lambda: not mesh.client.transport.connected)
        async with Instance(service(), settings=direct) as second:
            assert known(fleet) == [first.id]
            assert fleet.ready
            await proxy.resume()
            await eventually(lambda: known(fleet) == sorted([first.id, second.id]))
            assert (await mesh.gather("pool.who")).complete


PERMISSIONS = """
authorization { users: [
  {user: admin, password: p}
  {user: deaf, password: p, permissions: {subscribe: {deny: ["mesh.*.presence.>"]}}}
  {user: shy, password: p, permissions: {publish: {deny: ["$SRV.PING.>"]}}}
  {user: barred, password: p, permissions: {publish: {deny: ["mesh.*.direct.pool.*.who.*"]}}}
]}
"""


@pytest.fixture
def guarded(nats_server_factory: NatsServerFactory) -> Callable[[str], Settings]:
    """Settings of a user of a server with permissions."""
    server = nats_server_factory(jetstream=False, config=PERMISSIONS)
    return lambda user: Settings(servers=(server.url,), user=user, password="p")


async def test_a_caller_that_may_not_hear_presence(
    guarded: Callable[[str], Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """Its fleet never is ready, and the log says why; calls go on by the queue group, and a gather asks each time."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")
    async with (
        Instance(service(), settings=guarded("admin")) as instance,
        Mesh("web", settings=guarded("deaf")) as mesh,
    ):
        fleet = mesh.client.fleets.fleet("pool")
        await fleet.start()
        await eventually(lambda: fleet.problem)
        assert (fleet.ready, known(fleet)) == (False, [])
        assert await mesh.call("pool.who", returns=str) == "pool"
        gathered = await mesh.gather("pool.who", returns=str)
        assert gathered.answers == {instance.id: "pool"}
        await mesh.client.transport.fence()
        assert await mesh.call("pool.who", returns=str) == "pool"
    [record] = [record for record in caplog.records if record.name == "nats_mesh.fleet"]
    assert "its queue group takes the calls: the server's permissions do not let 'web'" in record.getMessage()
    assert "mesh.default.presence.pool.*" in record.getMessage()


async def test_a_caller_that_may_not_ask(guarded: Callable[[str], Settings]) -> None:
    """Whoever may not ask who is there is told so where it needs to know; its calls go on."""
    async with (
        Instance(service(), settings=guarded("admin")),
        Mesh("web", settings=guarded("shy")) as mesh,
    ):
        with pytest.raises(
            PermissionDeniedError, match=r"who serves 'pool' cannot be known: .*\$SRV\.PING\.pool"
        ):
            await mesh.gather("pool.who", returns=str)
        assert await mesh.call("pool.who", returns=str) == "pool"


async def test_a_caller_that_may_not_address_instances(guarded: Callable[[str], Settings]) -> None:
    """The server's refusal of a direct subject is known at once, as the error of the instance it would reach."""
    async with (
        Instance(service(), settings=guarded("admin")) as instance,
        Mesh("web", settings=guarded("barred")) as mesh,
    ):
        gathered = await mesh.gather("pool.who", returns=str, timeout=1000.0)
        assert type(gathered.errors[instance.id]) is PermissionDeniedError
        assert not gathered.complete
