"""Events on a real server: told while somebody listens, remembered for whoever comes later."""

from __future__ import annotations

import json

import pytest

from nats_mesh import Mesh, Service
from nats_mesh.telemetry.events import Event, decode_event, decode_recent
from tests.harness import Bus, eventually
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


def hello() -> Service:
    """The smallest service."""
    service = Service("hello", version="1.0.0")

    @service.endpoint()
    async def say() -> str:
        return "hello"

    return service


class Watcher:
    """An observer of events, as a view would be."""

    def __init__(self, mesh: Mesh) -> None:
        self.events: list[Event] = []
        self.recent: list[Event] = []
        self.subject = ""
        self._mesh = mesh
        client = mesh.client
        client.transport.subscribe(client.subjects.telemetry_of("event"), self._on_event)

    def _on_event(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        _, namespace, _, _, service, instance = subject.split(".")
        assert reply.startswith(f"_INBOX.{service}.")
        self.events.append(decode_event(payload, service=service, instance=instance, namespace=namespace))

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """An answer to a lease."""
        self.recent += decode_recent(payload)

    def on_failure(self, error: Exception) -> None:
        """Nothing comes."""
        raise error

    async def want(self, name: str = "all", *, ask: bool = False) -> str:
        """Hold a lease; ask for what was recent, or not. Returns the inbox."""
        client = self._mesh.client
        reply = client.mux.open("telemetry", self) if ask else client.mux.one_way("telemetry")
        client.transport.publish(client.subjects.want("event", name, self._mesh.name), b"", reply)
        await client.transport.fence()
        return reply

    def close(self, reply: str) -> None:
        """Wait for no more answers."""
        self._mesh.client.mux.close(reply)


async def test_instances_and_clients_tell_what_happens(bus: Bus) -> None:
    """Both publish under their own name while a lease runs; a client's instance is its connection."""
    instance = await bus.serve(hello())
    watcher = Watcher(await bus.caller("watcher"))
    bus.mesh.events.emit("breaker.open", "hello.say", "too early to be told")
    await watcher.want()
    for mesh in (instance, bus.mesh):
        await mesh.client.transport.fence()
    instance.events.emit("limit.changed", "hello.say", "at most 8", limit=8)
    bus.mesh.events.emit("breaker.open", "hello.say", "half of the calls failed", ratio=0.5)
    await eventually(lambda: len(watcher.events) == 2)
    told = {event.service: event for event in watcher.events}
    assert told.keys() == {"hello", "web"}
    assert (told["hello"].instance, told["hello"].numbers) == (instance.id, {"limit": 8.0})
    assert (told["web"].instance, told["web"].detail) == (
        bus.mesh.client.transport.connection,
        "half of the calls failed",
    )


async def test_a_lease_on_one_service_concerns_no_other(bus: Bus) -> None:
    """Whoever watches one service costs the others nothing."""
    instance = await bus.serve(hello())
    watcher = Watcher(await bus.caller("watcher"))
    await watcher.want("hello")
    for mesh in (instance, bus.mesh):
        await mesh.client.transport.fence()
    bus.mesh.events.emit("breaker.open", "hello.say", "not told")
    await bus.mesh.client.transport.fence()
    instance.events.emit("limit.changed", "hello.say", "told")
    await eventually(lambda: watcher.events)
    assert [event.detail for event in watcher.events] == ["told"]


async def test_who_comes_later_asks_for_what_was(bus: Bus) -> None:
    """The answer comes to the inbox that asked, from everybody who remembers something, in order."""
    instance = await bus.serve(hello())
    for n in range(3):
        instance.events.emit("happened", "hello", str(n))
    bus.mesh.events.emit("noticed", "hello", "by the caller")
    watcher = Watcher(await bus.caller("watcher"))
    reply = await watcher.want(ask=True)
    await eventually(lambda: len(watcher.recent) == 4, lambda: watcher.recent)
    assert [event.detail for event in watcher.recent if event.service == "hello"] == ["0", "1", "2"]
    assert watcher.events == []
    watcher.close(reply)


async def test_events_as_they_stand_on_the_wire(bus: Bus, raw: RawNats) -> None:
    """Flat JSON with these fields; a foreign client may ask, too."""
    instance = await bus.serve(hello())
    await raw.subscribe(f"mesh.{bus.namespace}.telemetry.event.hello.*")
    answer = await raw.request(f"mesh.{bus.namespace}.telemetry.want.event.hello.raw")
    assert json.loads(answer.payload) == {"events": [], "wire": 1}
    instance.events.emit("limit.changed", "hello.say", "at most 8", limit=8)
    message = await raw.next(f"mesh.{bus.namespace}.telemetry.event.hello.{instance.id}")
    body = json.loads(message.payload)
    assert body.pop("at").endswith("Z")
    assert body == {
        "kind": "limit.changed",
        "service": "hello",
        "instance": instance.id,
        "namespace": bus.namespace,
        "seq": 1,
        "target": "hello.say",
        "detail": "at most 8",
        "numbers": {"limit": 8.0},
        "missed": 0,
        "wire": 1,
    }


async def test_one_subscription_hears_all_leases(bus: Bus, raw: RawNats) -> None:
    """Statistics and events, and whatever comes later, cost a member one subscription."""
    instance = await bus.serve(hello())
    await raw.subscribe(f"mesh.{bus.namespace}.telemetry.>")
    for kind in ("stats", "event", "nothing"):
        raw.publish(f"mesh.{bus.namespace}.telemetry.want.{kind}.hello.raw", b"", "_INBOX.raw.x.0")
    await raw.next(f"mesh.{bus.namespace}.telemetry.stats.hello.{instance.id}")
    wants = instance._parts.wants
    assert wants is not None
    assert (wants.wanted("event"), wants.wanted("stats"), wants.wanted("nothing")) == (True, True, False)
