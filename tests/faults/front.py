"""A front of a real nats-server, which cuts and spoils the stream to the client as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeAlias

from nats_mesh.testing.server import NatsServer

__all__ = ["Front", "Pieces", "StreamCut", "byte_by_byte", "cut_inside", "random_pieces"]

#: What becomes of bytes on their way to the client; may raise :class:`StreamCut`.
Pieces: TypeAlias = Callable[[bytes], Iterable[bytes]]

_READ_BYTES = 65_536


class StreamCut(Exception):
    """The connection ends here, with a reset, after ``last`` has reached the client."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__("cut")
        self.last = last


class Front:
    """Connect to :attr:`url` instead of the server's. ``to_client`` may be replaced at any time."""

    def __init__(self, server: NatsServer, to_client: Pieces = lambda data: (data,)) -> None:
        self.to_client = to_client
        self.connections = 0
        #: How many pieces were written to clients, each in a turn of its own.
        self.pieces = 0
        self._server = server
        self._listener: asyncio.Server | None = None
        self._client: asyncio.StreamWriter | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._running:
            await asyncio.wait(self._running)

    @property
    def url(self) -> str:
        """Where to connect to."""
        assert self._listener is not None, "enter it first"
        return f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def say(self, data: bytes) -> None:
        """Put bytes into the stream of the latest connection, as if the server had sent them."""
        assert self._client is not None, "nobody has connected"
        self._client.write(data)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self.connections += 1
        self._client = writer
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writers |= {writer, server_writer}
        pumps = [
            asyncio.create_task(self._pump(reader, server_writer, None)),
            asyncio.create_task(self._pump(server_reader, writer, self)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            for each in (writer, server_writer):
                each.transport.abort()
                self._writers.discard(each)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Front | None
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                if through is None:
                    writer.write(data)
                    await writer.drain()
                    continue
                try:
                    for piece in through.to_client(data):
                        writer.write(piece)
                        self.pieces += 1
                        await writer.drain()
                        await asyncio.sleep(0)  # the reader gets it before the next one is written
                except StreamCut as end:
                    writer.write(end.last)
                    await self._read_by_client(writer)
                    return

    async def _read_by_client(self, writer: asyncio.StreamWriter) -> None:
        """A reset throws away what the client has not read: give its loop the turns to read it."""
        await writer.drain()
        for _ in range(10):
            await asyncio.sleep(0.001)


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    """Each byte alone."""
    return (data[at : at + 1] for at in range(len(data)))


def random_pieces(rng: random.Random, most: int) -> Pieces:
    """Pieces of 1 to ``most`` bytes, small ones as likely as large ones."""

    def pieces(data: bytes) -> Iterable[bytes]:
        at = 0
        while at < len(data):
            size = min(most, int(most ** rng.random()) + rng.randint(0, 2))
            yield data[at : at + max(1, size)]
            at += max(1, size)

    return pieces


def cut_inside(where: str) -> Pieces:
    """Let everything pass up to a place inside the first message with headers, then cut the connection, once."""
    held = bytearray()
    done = False

    def pieces(data: bytes) -> Iterable[bytes]:
        nonlocal done
        if done:
            return (data,)
        held.extend(data)
        start = held.find(b"HMSG ")
        line_end = held.find(b"\r\n", start)
        if start < 0 or line_end < 0:
            return ()
        *_, headers, total = held[start:line_end].split(b" ")
        begin = line_end + 2
        if len(held) < begin + int(total) + 2:
            return ()
        place = {
            "line": start + 9,
            "end of line": line_end + 1,
            "headers": begin + 12,
            "end of headers": begin + int(headers) - 2,
            "payload": begin + (int(headers) + int(total)) // 2,
            "end of payload": begin + int(total),
            "last byte": begin + int(total) + 1,
        }[where]
        done = True
        raise StreamCut(bytes(held[:place]))

    return pieces
