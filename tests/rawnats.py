"""A NATS client that checks nothing: sends exactly the bytes it is given, keeps exactly those it gets.

For tests of what stands on the wire and of input that a well-behaved client would refuse to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio

__all__ = ["RawMessage", "RawNats", "header_pairs", "raw_nats"]

#: How long anything may take before a test fails instead of hanging, seconds.
PATIENCE_S = 20.0


class RawMessage(NamedTuple):
    """One message as it stood on the wire; ``headers`` is the whole block, empty where there is none."""

    subject: str
    reply: str
    headers: bytes
    payload: bytes


class RawNats:
    """One connection. ``messages`` holds everything received, in order; ``errors`` what the server complained of."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: list[RawMessage] = []
        self.errors: list[str] = []
        self.info: dict[str, Any] = {}
        self._reader = reader
        self._writer = writer
        self._pongs = 0
        self._sids = 0
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Read INFO and say CONNECT."""
        line = await self._reader.readline()
        self.info = json.loads(line[len(b"INFO ") :])
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "echo": False}
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)

    async def subscribe(self, subject: str, queue: str = "") -> None:
        """Subscribe, and return when the server knows."""
        self._sids += 1
        self.send(f"SUB {subject} {queue} {self._sids}\r\n".encode())
        await self.flush()

    def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        """Publish; ``headers`` are the lines between preamble and end, each with its CR LF, unchecked."""
        if headers:
            block = b"NATS/1.0\r\n" + headers + b"\r\n"
            head = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n".encode()
            self.send(head + block + payload + b"\r\n")
        else:
            self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    async def flush(self) -> None:
        """Return when the server has processed everything sent, and all it had sent before is in ``messages``."""
        seen = self._pongs
        self.send(b"PING\r\n")
        await self.until(lambda: self._pongs > seen)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when ``condition`` holds; it is looked at after every message."""
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def next(self, subject: str = "", *, after: int = 0) -> RawMessage:
        """The first message on a subject that starts with ``subject``, from position ``after`` on."""
        found: list[RawMessage] = []

        def look() -> bool:
            found[:] = [m for m in self.messages[after:] if m.subject.startswith(subject)]
            return bool(found)

        await self.until(look)
        return found[0]

    async def request(self, subject: str, payload: bytes = b"", headers: bytes = b"") -> RawMessage:
        """Publish with an ordinary foreign inbox and return the first answer."""
        self._sids += 1
        inbox = f"_INBOX.Raw{id(self):x}x{self._sids}"
        self.send(f"SUB {inbox} {self._sids}\r\n".encode())
        after = len(self.messages)
        self.publish(subject, payload, inbox, headers)
        return await self.next(inbox, after=after)

    async def read(self) -> None:
        """Take in what the server sends, until the connection ends."""
        try:
            while line := await self._reader.readline():
                await self._take(line)
                self._changed.set()
        except ConnectionError:
            self.errors.append("the connection was lost")

    async def _take(self, line: bytes) -> None:
        verb, *words = line.decode().split()
        if verb == "PING":
            self.send(b"PONG\r\n")
        elif verb == "PONG":
            self._pongs += 1
        elif verb == "-ERR":
            self.errors.append(" ".join(words))
        elif verb in ("MSG", "HMSG"):
            sizes = 2 if verb == "HMSG" else 1
            total = int(words[-1])
            headed = int(words[-2]) if sizes == 2 else 0
            reply = words[2] if len(words) == 3 + sizes else ""
            data = await self._reader.readexactly(total + 2)
            self.messages.append(RawMessage(words[0], reply, data[:headed], data[headed:total]))


def header_pairs(block: bytes) -> list[tuple[str, str]]:
    """Every line of a header block, read by the letter: whatever a forged line would add shows up here.

    A bare CR or LF ends a line too, as it does for other clients.
    """
    if not block:
        return []
    lines = block.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines[0].startswith("NATS/1.0"), lines
    pairs = []
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            pairs.append((name, value.strip()))
    return pairs


@contextlib.asynccontextmanager
async def raw_nats(url: str, *subjects: str) -> AsyncIterator[RawNats]:
    """A raw connection to the server at ``url``, subscribed to ``subjects``."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    client = RawNats(reader, writer)
    reading: asyncio.Task[None] | None = None
    try:
        await client.start()
        reading = asyncio.create_task(client.read())
        for subject in subjects:
            await client.subscribe(subject)
        yield client
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
