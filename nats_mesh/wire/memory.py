"""A bus inside one process, for tests: subjects, queue groups, no-responders and scripted faults.

It behaves as a nats-server does towards the seam: messages of one publisher arrive in order, a queue
group delivers to one random member, a request that nobody hears is answered 503, a member that leaves
gets what was already on its way. Time is the event loop's, so under a virtual-time loop a test that
waits an hour takes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable

from nats_mesh.wire import transport as seam
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.memory_kv import MemoryKv
from nats_mesh.wire.transport import (
    JETSTREAM,
    ConnectOptions,
    Listener,
    MessageHandler,
    Subscription,
    TransportStats,
)

__all__ = ["Fault", "MemoryBus", "MemoryTransport", "matches"]

#: ``fault(subject, publisher)``: ``None`` lets a message pass at once, a number delays it by so many
#: seconds, ``"drop"`` loses it.
Fault = Callable[[str, str], "float | str | None"]

_NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription on ``pattern`` (with ``*`` and ``>``) receives ``subject``."""
    wanted, have = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(have) > at
        if at >= len(have) or (token != "*" and token != have[at]):
            return False
    return len(wanted) == len(have)


class MemoryBus:
    """The server's part. ``rng`` chooses members of queue groups, ``fault`` scripts what goes wrong.

    ``kv`` is its JetStream, as far as the mesh uses one; ``None`` is a server without. Its answers are
    messages of the publisher ``$JS`` to a ``fault``.
    """

    def __init__(self, *, rng: random.Random | None = None, max_payload: int = 1 << 20) -> None:
        self.rng = rng or random.Random(0)
        self.max_payload = max_payload
        self.fault: Fault | None = None
        self.kv: MemoryKv | None = MemoryKv()
        self.clients: list[MemoryTransport] = []
        #: Every message that passed, newest last, when recording is on: ``(subject, reply, headers, payload)``.
        self.recorded: list[tuple[str, str, bytes, bytes]] | None = None
        self._sids = itertools.count(1)

    async def connect(self, options: ConnectOptions) -> MemoryTransport:
        """A :data:`~nats_mesh.wire.transport.Connector` onto this bus."""
        transport = MemoryTransport(self, options)
        self.clients.append(transport)
        return transport

    def next_sid(self) -> int:
        return next(self._sids)

    def route(
        self, publisher: MemoryTransport, subject: str, reply: str, headers: bytes, payload: bytes
    ) -> None:
        """Deliver one message as a server would."""
        if self.recorded is not None:
            self.recorded.append((subject, reply, headers, payload))
        verdict = self.fault(subject, publisher.name) if self.fault is not None else None
        if verdict == "drop":
            return
        delay = float(verdict) if verdict is not None else 0.0
        answers = None
        if self.kv is not None and subject.startswith("$"):
            answers = self.kv.answer(subject, headers, payload)
        found = answers is not None
        queues: dict[str, list[tuple[MemoryTransport, Subscription]]] = {}
        for client in self.clients:
            if not client.connected:
                continue
            for subscription in client.subscriptions.values():
                if not matches(subscription.subject, subject):
                    continue
                found = True
                if subscription.queue:
                    queues.setdefault(subscription.queue, []).append((client, subscription))
                else:
                    client.deliver(subscription, delay, subject, reply, headers, payload)
        for members in queues.values():
            client, subscription = self.rng.choice(members)
            client.deliver(subscription, delay, subject, reply, headers, payload)
        if answers is None and not found:
            answers = [(_NO_RESPONDERS, b"")]
        elif answers is not None and self.fault is not None:
            verdict = self.fault(reply, "$JS")
            if verdict == "drop":
                answers = None
            else:
                delay += float(verdict) if verdict is not None else 0.0
        if answers is not None and reply:
            for own in publisher.subscriptions.values():
                if matches(own.subject, reply):
                    for answer in answers:
                        publisher.deliver(own, delay, reply, "", *answer)
                    break
        self._republish(publisher)

    def _republish(self, publisher: MemoryTransport) -> None:
        """What JetStream tells of what was stored."""
        while self.kv is not None and self.kv.told:
            self.route(publisher, self.kv.told[0][0], "", *self.kv.told.pop(0)[1:])


class MemoryTransport:
    """A :class:`~nats_mesh.wire.transport.Transport` onto a :class:`MemoryBus`."""

    ordered = True

    def __init__(self, bus: MemoryBus, options: ConnectOptions) -> None:
        self.name = options.name
        self.connection = new_id()
        self.stats = TransportStats()
        self.subscriptions: dict[int, Subscription] = {}
        self._bus = bus
        self._up = True
        self._closed = False
        self._listeners: list[Listener] = []
        self._back = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._up and not self._closed

    @property
    def ready(self) -> bool:
        return self._up and not self._closed

    @property
    def max_payload(self) -> int:
        return self._bus.max_payload

    @property
    def server(self) -> str:
        return "memory://"

    @property
    def congested(self) -> bool:
        return False

    @property
    def reconnect_grace_s(self) -> float:
        return 0.05

    @property
    def known_servers(self) -> int:
        return 1

    @property
    def jetstream(self) -> str:
        return JETSTREAM

    @property
    def send(self) -> None:
        return None

    def cork(self) -> None:
        """Messages are handed over one by one."""

    def uncork(self) -> None:
        """Nothing was kept."""

    def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        if not self.connected:
            raise seam.disconnected("closed" if self._closed else "cut off", self.server)
        size = len(headers) + len(payload)
        if size > self._bus.max_payload:
            raise seam.too_large(size, self._bus.max_payload)
        self.stats.out_messages += 1
        self._bus.route(self, subject, reply, headers, payload)

    def subscribe(self, subject: str, handler: MessageHandler, queue: str = "") -> Subscription:
        subscription = Subscription(self._bus.next_sid(), subject, queue, handler)
        self.subscriptions[subscription.sid] = subscription
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions.pop(subscription.sid, None)

    def deliver(
        self,
        subscription: Subscription,
        delay_s: float,
        subject: str,
        reply: str,
        headers: bytes,
        payload: bytes,
    ) -> None:
        """Hand a message over in the loop's next turn, or after ``delay_s``."""
        loop = asyncio.get_running_loop()
        if delay_s > 0:
            loop.call_later(delay_s, self._receive, subscription, subject, reply, headers, payload)
        else:
            loop.call_soon(self._receive, subscription, subject, reply, headers, payload)

    def _receive(
        self, subscription: Subscription, subject: str, reply: str, headers: bytes, payload: bytes
    ) -> None:
        if not self.connected:
            return
        self.stats.in_messages += 1
        try:
            subscription.handler(subject, reply, headers, payload)
        except Exception:
            self.stats.dropped_handler_errors += 1
            raise  # the loop's exception handler reports it, and a test sees it

    async def fence(self, timeout_s: float = 5.0) -> float:
        if not self.connected:
            raise seam.disconnected("cut off", self.server)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 0.0

    async def writable(self) -> None:
        await asyncio.sleep(0)

    async def wait_connected(self, timeout_s: float) -> bool:
        if self.connected:
            return True
        if not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._back.wait()
        return self.connected

    def add_listener(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def cut(self, reason: str = "cut by the test") -> None:
        """Lose the connection, as a server that dies does."""
        if self.connected:
            self._up = False
            self._back.clear()
            for listener in list(self._listeners):
                listener.on_disconnect(reason)

    def mend(self) -> None:
        """Get the connection back; every subscription stands again."""
        if not self._up and not self._closed:
            self._up = True
            self.stats.reconnects += 1
            self._back.set()
            for listener in list(self._listeners):
                listener.on_reconnect()

    async def close(self) -> None:
        self._closed = True
        self.subscriptions.clear()
        with contextlib.suppress(ValueError):
            self._bus.clients.remove(self)
