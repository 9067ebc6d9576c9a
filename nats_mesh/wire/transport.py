"""The seam between the mesh and a bus: what a connection must be able to do, whoever provides it.

Publishing and subscribing are synchronous on purpose: a call writes its bytes and awaits its answer
once, nothing in between. A connection never buffers messages while it is away.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from nats_mesh.errors import CallError, DisconnectedError, Executed, Status
from nats_mesh.wire.counters import TransportStats

__all__ = [
    "JETSTREAM",
    "ConnectOptions",
    "Connector",
    "Listener",
    "MessageHandler",
    "Send",
    "Subscription",
    "Transport",
    "TransportStats",
    "disconnected",
    "jetstream_of",
    "line_too_long",
    "too_large",
]

#: ``handler(subject, reply, header_block, payload)``: runs on the event loop, must not block; what it
#: raises is logged and counted by the transport, never lost and never able to stop the reader.
MessageHandler: TypeAlias = Callable[[str, str, bytes, bytes], None]


#: ``send(head, payload)``, see :attr:`Transport.send`.
Send: TypeAlias = Callable[[str, bytes], None]


#: What the subjects of JetStream's API begin with where no domain is said.
JETSTREAM: Final = "$JS.API"


class ConnectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the bus and as whom. Durations in seconds."""

    name: str
    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    credentials: str | None = None
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey_seed: str | None = None
    connect_timeout_s: float = 5.0
    #: The JetStream domain to use, where another one than the server's own.
    jetstream_domain: str = ""
    ping_interval_s: float = 1.9
    max_outstanding_pings: int = 2


def jetstream_of(options: ConnectOptions) -> str:
    """What the subjects of JetStream's API begin with under these options."""
    return f"$JS.{options.jetstream_domain}.API" if options.jetstream_domain else JETSTREAM


class Subscription:
    """One interest in a subject; made and ended by its transport."""

    __slots__ = ("handler", "queue", "sid", "subject")

    def __init__(self, sid: int, subject: str, queue: str, handler: MessageHandler) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.handler = handler

    def __repr__(self) -> str:
        return f"<Subscription {self.sid} {self.subject}{' @' + self.queue if self.queue else ''}>"


class Listener(Protocol):
    """Who wants to know what happens to the connection; called on the event loop, must not raise."""

    def on_disconnect(self, reason: str) -> None:
        """The connection is gone: whatever was in flight has no known outcome."""

    def on_reconnect(self) -> None:
        """The connection is back and every subscription stands again."""

    def on_denied(self, operation: str, subject: str) -> None:
        """The server refused ``operation`` (``publish`` or ``subscription``) on ``subject``."""


class Transport(Protocol):
    """A connection. Every method must be called on the event loop that made it."""

    #: The identity it speaks as, and its own id (a NUID).
    name: str
    connection: str
    stats: TransportStats
    #: Whether messages of different subscriptions are handled in the order in which they came.
    ordered: bool

    @property
    def ready(self) -> bool:
        """Whether a call may write without waiting: connected, not :attr:`congested`. Asked by every call."""

    @property
    def connected(self) -> bool: ...

    @property
    def max_payload(self) -> int:
        """Header block plus payload, in bytes, that the server takes."""

    @property
    def server(self) -> str:
        """Where it is connected to, without credentials; for people."""

    @property
    def congested(self) -> bool:
        """Whether the socket takes less than is written; await :meth:`writable` before writing more."""

    def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        """Write one message, in order. :class:`DisconnectedError` (executed: no) while away;
        :class:`CallError` RESOURCE_EXHAUSTED where header block and payload exceed :attr:`max_payload`."""

    @property
    def send(self) -> Send | None:
        """Writes a message that is a command already, or ``None`` where the transport takes no commands.

        It stands beside :meth:`publish` because both sides of every call use it: one text for subject, inbox and
        header block is half the work of three. ``send(head, payload)``: ``head`` is the command line and the header
        block; its line must be within what a server takes. Raises as :meth:`publish` does.
        """

    def cork(self) -> None:
        """Keep what is published until :meth:`uncork`, which follows in the same turn of the loop."""

    def uncork(self) -> None:
        """Write what was kept, now."""

    def subscribe(self, subject: str, handler: MessageHandler, queue: str = "") -> Subscription:
        """Register interest; it stands again after each reconnect. In effect once :meth:`fence` returns."""

    def unsubscribe(self, subscription: Subscription) -> None:
        """End an interest; messages the server already sent may still arrive until :meth:`fence` returns."""

    async def fence(self, timeout_s: float = 5.0) -> float:
        """Return when the server has processed everything written before, with the round trip in seconds.
        :class:`DisconnectedError` where it does not answer in ``timeout_s``."""

    async def writable(self) -> None:
        """Return when the socket takes bytes again."""

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a connection that is away; ``False`` where it is not back in time."""

    @property
    def reconnect_grace_s(self) -> float:
        """How long a new call may wait for a connection that is away: longer where other servers are known."""

    @property
    def known_servers(self) -> int:
        """How many servers it could connect to, as far as it knows."""

    @property
    def jetstream(self) -> str:
        """What the subjects of JetStream's API begin with here: ``$JS.API``, or that of a domain."""

    def add_listener(self, listener: Listener) -> None: ...

    def remove_listener(self, listener: Listener) -> None: ...

    async def close(self) -> None:
        """Flush what is written and close for good."""


#: Opens a transport; how tests and the in-memory mesh put another bus underneath.
Connector: TypeAlias = Callable[[ConnectOptions], Awaitable[Transport]]


def disconnected(reason: str, servers: Sequence[str] | str = "") -> DisconnectedError:
    """The error of something that was never written because the connection is away."""
    where = servers if isinstance(servers, str) else ", ".join(servers)
    return DisconnectedError(f"not connected to {where or 'the bus'}: {reason}", executed=Executed.NO)


def too_large(size: int, limit: int) -> CallError:
    """The error of a message that the server would close the connection for."""
    return CallError(
        f"header and payload have {size} bytes, the server takes at most {limit} (max_payload)",
        status=Status.RESOURCE_EXHAUSTED,
        executed=Executed.NO,
    )


def line_too_long(size: int, limit: int) -> CallError:
    """The error of a subject and reply for which the server would close the connection."""
    return CallError(
        f"subject and reply make a command of {size} bytes, the server takes at most {limit}",
        status=Status.RESOURCE_EXHAUSTED,
        executed=Executed.NO,
    )
