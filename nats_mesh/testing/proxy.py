"""A TCP proxy that breaks on purpose: what a network does to connections, without root and without luck."""

from __future__ import annotations

import asyncio
from types import TracebackType

import anyio

from nats_mesh.errors import ConfigError
from nats_mesh.testing._link import Link, Mode, Network
from nats_mesh.testing._loopback import PortReservation, authority

__all__ = ["TcpProxy"]


class TcpProxy:
    """Stands in front of ``target_host:target_port`` on a port of its own, which it keeps.

    ``latency_s`` delays every byte in each direction (a round trip takes twice that) and may be
    changed at any time; order is kept. A fault lasts until ``resume``. Buffers are bounded: with
    1 MiB underway in one direction, or 256 KiB that the reader does not take, the proxy stops
    reading, and the sender feels it as on a real network. Connections above ``max_connections`` are
    reset. A half-closed connection is closed. Runs on asyncio and uvloop.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency_s: float = 0.0,
        max_connections: int = 1024,
    ) -> None:
        self.host = host
        self._wanted_port = port
        self._network = Network(target_host, target_port, max_connections)
        self._reservation: PortReservation | None = None
        self._door: asyncio.Server | None = None
        self.latency_s = latency_s

    def __repr__(self) -> str:
        door = "open" if self._door is not None else "closed"
        return f"<TcpProxy {self._network.mode.name.lower()} door={door} connections={self.connections}>"

    # -- what it is and what it saw --------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port to connect to instead of the target's."""
        return self._reserved().port

    @property
    def url(self) -> str:
        """``nats://host:port`` of the proxy."""
        return f"nats://{authority(self.host, self.port)}"

    @property
    def latency_s(self) -> float:
        """Delay of every byte in each direction, in seconds."""
        return self._network.latency_s

    @latency_s.setter
    def latency_s(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ConfigError(f"latency_s must be 0 or more seconds, not {value}")
        self._network.latency_s = value

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._network.links)

    @property
    def accepted(self) -> int:
        """How many connections were ever accepted."""
        return self._network.accepted

    @property
    def bytes_to_server(self) -> int:
        """Bytes handed on from clients to the target."""
        return self._network.bytes_to_server

    @property
    def bytes_to_client(self) -> int:
        """Bytes handed on from the target to clients."""
        return self._network.bytes_to_client

    @property
    def bytes_underway(self) -> int:
        """Bytes of both directions that the proxy holds now (latency, pause, a slow reader)."""
        return sum(link.bytes_underway for link in self._network.links)

    @property
    def bytes_dropped(self) -> int:
        """Bytes of both directions that went into the black hole."""
        return self._network.bytes_dropped

    # -- starting and stopping -------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; the target need not be there yet."""
        if self._reservation is not None:
            raise ConfigError(f"the proxy already listens on port {self.port}")
        self._reservation = PortReservation(self.host, self._wanted_port)
        self._network.up = True
        try:
            await self._open_door()
        except BaseException:  # also a cancelled start must leave nothing behind
            await self.stop()
            raise

    async def stop(self) -> None:
        """Reset every connection and give the port up; harmless when done twice."""
        self._network.up = False
        with anyio.CancelScope(shield=True):
            self._close_door()
            await self.cut()
        self._network.mode = Mode.FLOWING
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    async def __aenter__(self) -> TcpProxy:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    # -- faults ----------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Half-open: sockets stay, new ones are accepted, nothing moves and nothing is lost."""
        self._set_mode(Mode.PAUSED)

    async def blackhole(self) -> None:
        """Swallow whatever either side sends; neither hears of the other, not even that it closed.

        ``resume`` resets the connections that lost bytes (or their end) on the way, since they
        could only go on with a gap in the stream, which TCP never shows.
        """
        self._set_mode(Mode.BLACKHOLE)

    async def cut(self) -> None:
        """Reset (RST) every open connection on both sides; new ones are welcome."""
        links = list(self._network.links)
        for link in links:
            link.reset()
        for link in links:
            await link.closed.wait()

    async def refuse(self) -> None:
        """Refuse new connections, as a host on which nothing listens; open ones go on."""
        self._reserved()
        self._close_door()

    async def resume(self) -> None:
        """End every fault: bytes flow, new connections are accepted. ``latency_s`` stays."""
        self._set_mode(Mode.FLOWING)
        if self._door is None:
            await self._open_door()

    # -- inside ----------------------------------------------------------------------------------

    def _set_mode(self, mode: Mode) -> None:
        self._reserved()
        self._network.mode = mode
        for link in list(self._network.links):
            link.mode_changed()

    async def _open_door(self) -> None:
        listener = self._reserved().listen()
        try:
            loop = asyncio.get_running_loop()
            self._door = await loop.create_server(lambda: Link(self._network).client, sock=listener)
        except BaseException:
            listener.close()
            raise

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def _reserved(self) -> PortReservation:
        if self._reservation is None:
            raise ConfigError("the proxy is not running: start it first")
        return self._reservation
