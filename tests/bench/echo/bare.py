"""The baseline: the NATS protocol and nothing else. What any client in Python could reach at best, about.

The scanner is a generator that is sent what arrives and calls ``deliver`` for every message; it knows no
socket. Around it stands the least that a connection needs. No TLS, no credentials, no reconnecting, no
timeouts, no headers: a yardstick, not a client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

from tests.bench.echo import Echo, Prepare

__all__ = ["Deliver", "connect", "scan", "serve"]

#: Gets the subject, the reply subject (empty without one) and the payload of a message.
Deliver = Callable[[bytes, bytes, bytes], None]

_INBOX = b"_B."


def scan(deliver: Deliver, control: Callable[[bytes], None]) -> Generator[None, bytes, None]:
    """Take a server's bytes in any cuts: messages go to ``deliver``, every other line to ``control``."""
    data = yield
    start = 0
    while True:
        end = data.find(b"\r\n", start)
        if end == -1:
            data = data[start:] + (yield)
            start = 0
        elif data[start] != 0x4D:  # "M": all that is not MSG is short and rare
            control(data[start:end])
            start = end + 2
        else:
            words = data[start:end].split()
            body = end + 2
            after = body + int(words[-1])
            if len(data) < after + 2:
                data = yield from _gathered(data[start:], after + 2 - start)
                start = 0
                continue
            deliver(words[1], words[3] if len(words) == 5 else b"", data[body:after])
            start = after + 2


def _gathered(first: bytes, size: int) -> Generator[None, bytes, bytes]:
    """``first`` and what follows, joined once when it is ``size`` bytes: a large payload comes in many pieces."""
    pieces = [first]
    have = len(first)
    while have < size:
        piece = yield
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)


class _Link(asyncio.Protocol):
    """One connection; what is written within one turn of the loop leaves in one piece."""

    def __init__(self, deliver: Deliver, lost: Callable[[Exception], None]) -> None:
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._scanner = scan(deliver, self._control)
        next(self._scanner)
        self._feed = self._scanner.send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self.write(b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"0"}\r\n')

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        error = error or ConnectionResetError("the server closed the connection")
        self._lost(error)
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(error)

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG" and self._pongs:
            self._pongs.popleft().set_result(None)
        elif line.startswith(b"-ERR"):
            raise ConnectionError(f"the server says {line.decode()}")

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._waiting))
        self._waiting.clear()

    async def settled(self) -> None:
        """Wait until the server has taken all that was written."""
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self.write(b"PING\r\n")
        await pong

    def close(self) -> None:
        self._transport.close()


async def _dial(address: str, deliver: Deliver, lost: Callable[[Exception], None]) -> _Link:
    where = urlsplit(address)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        lambda: _Link(deliver, lost), where.hostname or "127.0.0.1", where.port or 4222
    )
    return link


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """Answer on ``bench.bare``; there is one variant."""

    def answer(subject: bytes, reply: bytes, payload: bytes) -> None:
        link.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload))

    link = await _dial(address, answer, lambda error: None)
    link.write(b"SUB bench.bare q 1\r\n")
    await link.settled()
    try:
        yield address
    finally:
        link.close()


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """Call ``bench.bare``: a future a call, found again by the number in its reply subject."""
    loop = asyncio.get_running_loop()
    pending: dict[bytes, asyncio.Future[bytes]] = {}
    number = 0

    def arrived(subject: bytes, reply: bytes, payload: bytes) -> None:
        pending.pop(subject).set_result(payload)

    def lost(error: Exception) -> None:
        for future in pending.values():
            future.set_exception(error)
        pending.clear()

    link = await _dial(address, arrived, lost)
    link.write(b"SUB %b> 1\r\n" % _INBOX)
    await link.settled()

    def prepare(size: int) -> Echo:
        payload = b"x" * size
        template = b"PUB bench.bare %%b %d\r\n%b\r\n" % (size, payload)

        def call() -> asyncio.Future[bytes]:
            nonlocal number
            number += 1
            inbox = b"%b%x" % (_INBOX, number)
            future = pending[inbox] = loop.create_future()
            link.write(template % inbox)
            return future

        return Echo(call, lambda data: data, payload)

    try:
        yield prepare
    finally:
        link.close()
