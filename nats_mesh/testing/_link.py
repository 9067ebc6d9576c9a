"""One connection through the proxy: two sockets, and the bytes underway between them."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import cast

__all__ = ["Link", "Mode", "Network"]

_LINE_LIMIT_BYTES = 1024 * 1024
_WRITE_HIGH_BYTES = 256 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Mode(enum.Enum):
    """What happens to bytes that arrive."""

    FLOWING = enum.auto()
    PAUSED = enum.auto()
    BLACKHOLE = enum.auto()


@dataclass(slots=True)
class Network:
    """What all links of a proxy share: where they lead, how they fare now, and what they carried."""

    target_host: str
    target_port: int
    max_connections: int
    latency_s: float = 0.0
    mode: Mode = Mode.FLOWING
    up: bool = False
    accepted: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0
    bytes_dropped: int = 0
    links: set[Link] = field(default_factory=set)


class Link:
    """The client's side and the server's side, dialled when the client has been accepted."""

    __slots__ = ("_dialling", "_resetting", "_tainted", "client", "closed", "network", "server")

    def __init__(self, network: Network) -> None:
        self.network = network
        self.client = Side(self)
        self.server = Side(self)
        self.client.peer, self.server.peer = self.server, self.client
        self.closed = asyncio.Event()
        self._tainted = False
        self._resetting = False
        self._dialling: asyncio.Task[None] | None = None

    @property
    def bytes_underway(self) -> int:
        """Bytes taken from one side and not yet written to the other."""
        return self.client.line_bytes + self.server.line_bytes

    def opened(self, side: Side) -> None:
        """The client was accepted, or the server answered."""
        network = self.network
        if side is self.server:
            if self._resetting or self.closed.is_set():
                self.reset()
            return
        network.accepted += 1
        network.links.add(self)
        # A client may have been accepted in the moment in which the proxy stopped.
        if not network.up or len(network.links) > network.max_connections:
            self.reset()
        else:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        network = self.network
        try:
            await loop.create_connection(lambda: self.server, network.target_host, network.target_port)
        except OSError:
            if network.mode is Mode.FLOWING:
                self.reset()
            else:
                self.taint()

    def taint(self) -> None:
        """Something got lost that the other side must not go on without: reset when the fault ends."""
        self._tainted = True

    def mode_changed(self) -> None:
        """The proxy entered or left a fault."""
        if self._tainted and self.network.mode is not Mode.BLACKHOLE:
            self.reset()
        for side in (self.client, self.server):
            side.pump()

    def reset(self) -> None:
        """RST both sides now, whatever is underway."""
        self._resetting = True
        for side in (self.client, self.server):
            side.reset()
        self._settle()

    def side_lost(self, side: Side, exc: Exception | None) -> None:
        """One socket is closed: pass that on as the network would, now."""
        if self.network.mode is Mode.BLACKHOLE:
            self.taint()
        elif exc is not None:
            self.reset()
        elif not self._resetting:
            side.queue(b"")
        self._settle()

    def _settle(self) -> None:
        if not self.client.lost or self.server.open:
            return
        if self._dialling is not None:
            self._dialling.cancel()
        self.network.links.discard(self)
        self.closed.set()


class Side(asyncio.Protocol):
    """One socket of a link. What arrives here leaves at ``peer`` when its time has come."""

    def __init__(self, link: Link) -> None:
        self.peer: Side = self  # the link puts the other one here
        self.lost = False
        self.line_bytes = 0
        self._link = link
        self._network = link.network
        self._transport: asyncio.Transport | None = None
        self._line: deque[tuple[float, bytes]] = deque()  # empty bytes: this side has closed
        self._timer: asyncio.TimerHandle | None = None
        self._clogged = False

    @property
    def open(self) -> bool:
        """Whether there is a socket (already, and still)."""
        return self._transport is not None and not self.lost

    # -- called by the event loop ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket, and what the other side sent meanwhile."""
        # uvloop's transports behave like asyncio's and do not descend from them.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._link.opened(self)
        self.regulate()
        self.peer.pump()

    def data_received(self, data: bytes) -> None:
        """Bytes from this socket's program."""
        if self._network.mode is Mode.BLACKHOLE:
            self._network.bytes_dropped += len(data)
            self._link.taint()
        else:
            self.queue(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by its program or by us."""
        self.lost = True
        self._clogged = False
        self._link.side_lost(self, exc)

    def pause_writing(self) -> None:
        """The program here does not read: stop the other one from sending."""
        self._clogged = True
        self.peer.regulate()

    def resume_writing(self) -> None:
        """There is room again."""
        self._clogged = False
        self.peer.pump()

    # -- moving bytes ----------------------------------------------------------------------------

    def queue(self, data: bytes) -> None:
        """Send ``data`` (or, empty, the end) on its way to the peer."""
        self._line.append((asyncio.get_running_loop().time() + self._network.latency_s, data))
        self.line_bytes += len(data)
        self.pump()

    def pump(self) -> None:
        """Hand on what is due, set the timer for what is not, and read or stop reading."""
        loop = asyncio.get_running_loop()
        self._stop_timer()
        while self._line and self._network.mode is Mode.FLOWING and self.peer.open and not self.peer._clogged:
            due, data = self._line[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.pump)
                break
            self._line.popleft()
            self.line_bytes -= len(data)
            self.peer.deliver(data)
        self.regulate()

    def deliver(self, data: bytes) -> None:
        """Write what the peer sent to this socket; empty: the peer has closed."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if not data:
            self._transport.close()
            return
        if self is self._link.server:
            self._network.bytes_to_server += len(data)
        else:
            self._network.bytes_to_client += len(data)
        self._transport.write(data)

    def regulate(self) -> None:
        """Read from this socket only while there is a place for what it sends."""
        transport = self._transport
        if transport is None or self.lost or transport.is_closing():
            return
        mode = self._network.mode
        room = self.line_bytes < _LINE_LIMIT_BYTES and not self.peer._clogged
        wanted = mode is Mode.BLACKHOLE or (mode is Mode.FLOWING and room)
        if wanted and not transport.is_reading():
            transport.resume_reading()
        elif not wanted and transport.is_reading():
            transport.pause_reading()

    def reset(self) -> None:
        """Close with RST and forget what was underway."""
        self._stop_timer()
        self._line.clear()
        self.line_bytes = 0
        if self._transport is None or self.lost:
            return
        # The option belongs to the socket, not to the descriptor: set on a duplicate it holds for
        # both, whatever the event loop's transports are. The socket may be closed already.
        with contextlib.suppress(OSError):
            descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
            with socket.socket(fileno=descriptor) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
