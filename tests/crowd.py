"""Simulated instances of one service on one connection: hundreds of them cost next to nothing, each does as told."""

from __future__ import annotations

from typing import Any, NamedTuple

from nats_mesh.core.presence import Announcement, Kind, Load, State
from nats_mesh.discovery.messages import encode, rfc3339
from nats_mesh.discovery.services_api import ServiceDoc, ping_response, service_metadata
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions

__all__ = ["Asked", "Crowd"]

_STARTED_S = 1_700_000_000.0
#: What a server answers for an instance that does not listen.
_NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


class Asked(NamedTuple):
    """A request that reached an instance."""

    instance: str
    endpoint: str
    caller: str
    reply: str
    headers: bytes
    payload: bytes


class Crowd:
    """The instances. They answer ``$SRV.PING`` by themselves, requests with their id unless ``mute`` names them."""

    def __init__(self, transport: MemoryTransport, service: str, namespace: str) -> None:
        self.service = service
        self.transport = transport
        #: What each says of itself.
        self.members: dict[str, Announcement] = {}
        self.requests: list[Asked] = []
        #: The reply subjects that cancellations named.
        self.cancelled: list[str] = []
        self.cancellations = 0
        #: How many replies each gets; nobody named here: one.
        self.replies: dict[str, int] = {}
        #: Those that hear requests and say nothing.
        self.mute: set[str] = set()
        #: Those that do not answer who asks for everybody.
        self.silent: set[str] = set()
        #: What an instance answers in place of its id, and the header block.
        self.bodies: dict[str, bytes] = {}
        self.blocks: dict[str, bytes] = {}
        self.pinged = 0
        self._subjects = Subjects(namespace)
        self._inbox = f"_INBOX.{service}.{transport.connection}.{'a' * 32}.0"
        transport.subscribe(f"$SRV.PING.{service}", self._on_ping)
        transport.subscribe(self._subjects.cancel_of(service), self._on_cancel)
        # One subscription for all of them: a bus in memory looks through every one of them for each message.
        transport.subscribe(self._subjects.direct_of(service, "*"), self._on_request)

    @classmethod
    async def on(cls, bus: MemoryBus, service: str = "pool", namespace: str = "default") -> Crowd:
        """A crowd with a connection of its own, and nobody in it yet."""
        return cls(await bus.connect(ConnectOptions(name=service)), service, namespace)

    def there(self, *ids: str, **fields: Any) -> None:
        """Instances that serve from now on, and have not said so to anybody who listens."""
        for each in ids:
            given: dict[str, Any] = {
                "type": Kind.JOIN,
                "service": self.service,
                "instance": each,
                "name": f"host-{each}",
                "version": "1.0.0",
                "namespace": self._subjects.namespace,
                "seq": 1,
                "started": rfc3339(_STARTED_S),
                "interval_s": 5.0,
            }
            self.members[each] = Announcement(**{**given, **fields})

    def say(self, instance: str, kind: Kind, **fields: Any) -> None:
        """One announcement, the next in number; ``fields`` hold from now on."""
        before = self.members[instance]
        said = self.members[instance] = _but(before, type=kind, seq=before.seq + 1, **fields)
        self.transport.publish(self._subjects.presence(self.service, instance), encode(said), self._inbox)

    def join(self, *ids: str, **fields: Any) -> None:
        """Instances that begin to serve, and say so."""
        self.there(*ids, **fields)
        for each in ids:
            self.say(each, Kind.JOIN)

    def beat(self, *ids: str, load: Load | None = None) -> None:
        """A sign of life of each of these, or of everybody."""
        for each in ids or tuple(self.members):
            self.say(each, Kind.BEAT, **({} if load is None else {"load": load}))

    def leave(self, *ids: str) -> None:
        """These go, and say so."""
        for each in ids:
            self.say(each, Kind.LEAVE, state=State.DRAINING)
            self.vanish(each)

    def vanish(self, instance: str) -> None:
        """It goes without a word."""
        del self.members[instance]

    def document(self, announced: Announcement) -> ServiceDoc:
        """What an instance answers to PING."""
        load = announced.load
        return ServiceDoc(
            name=announced.service,
            id=announced.instance,
            version=announced.version,
            started=announced.started,
            metadata={
                **service_metadata(announced.namespace, announced.labels),
                "mesh.instance": announced.name,
                "mesh.state": announced.state.value,
                "mesh.started": announced.started,
                "mesh.seq": str(announced.seq),
                "mesh.interval_s": repr(announced.interval_s),
                "mesh.in_flight": str(load.in_flight),
                "mesh.limit": str(load.limit),
            },
        )

    def _on_ping(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self.pinged += 1
        for name, announced in self.members.items():
            if name not in self.silent:
                self.transport.publish(reply, ping_response(self.document(announced)))

    def _on_request(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        *_, instance, endpoint, caller = subject.split(".")
        if instance not in self.members:
            self.transport.publish(reply, b"", "", _NO_RESPONDERS)
            return
        asked = Asked(instance, endpoint, caller, reply, headers, payload)
        self.requests.append(asked)
        if instance not in self.mute:
            for _ in range(self.replies.get(instance, 1)):
                self.answer(asked)

    def answer(self, asked: Asked) -> None:
        """Answer a request: with the instance's id, where nothing else is said."""
        block = self.blocks.get(
            asked.instance, f"NATS/1.0\r\nMesh-Instance: {asked.instance}\r\n\r\n".encode()
        )
        body = self.bodies.get(asked.instance, JSON.encode(asked.instance))
        self.transport.publish(asked.reply, body, "", block)

    def _on_cancel(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self.cancellations += 1
        self.cancelled += payload.decode().split("\n")


def _but(announced: Announcement, **fields: Any) -> Announcement:
    """The same with other fields."""
    same = {name: getattr(announced, name) for name in announced.__struct_fields__}
    return Announcement(**{**same, **fields})
