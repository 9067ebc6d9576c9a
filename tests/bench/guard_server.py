"""A NATS server without sockets: what a client writes comes back out of it in the same process.

The guard counts instructions, and neither the kernel's work nor another process's may be among them. So
the loop's ``create_connection`` is the seam: the mesh connects as ever, every byte passes its own reader,
parser, mux and writer, and only the socket is missing. Nothing private of the mesh is known here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import uvloop

__all__ = ["GuardLoop", "Link", "Publish", "Server", "message"]

#: ``(link, fields of the PUB or HPUB line, what follows the line)``
Publish = Callable[["Link", list[bytes], bytes], None]

_INFO = {
    "server_id": "GUARD", "server_name": "guard", "version": "2.12.0", "proto": 1, "go": "", "host": "127.0.0.1",
    "port": 4222, "headers": True, "max_payload": 1 << 20, "client_id": 1, "client_ip": "127.0.0.1",
}  # fmt: skip
_TAKEN = b'{"stream":"spans","seq":1}'
_NOBODY = b"NATS/1.0 503\r\n\r\n"


class Link(asyncio.Transport):
    """One connection, as the client's event loop shows it to the client."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.server = server
        self.publish: Publish = server.relay
        self.subscriptions: dict[bytes, tuple[bytes, bytes]] = {}
        self.rest = b""
        #: Set while the server alone is measured: what would be delivered is thrown away.
        self.mute = False
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._inbound: list[bytes] = []
        self._closing = False

    def deliver(self, data: bytes) -> None:
        """To the client, with all else of this turn of the loop, as a socket that became readable."""
        if self.mute:
            return
        if not self._inbound:
            self._loop.call_soon(self._arrive)
        self._inbound.append(data)

    def _arrive(self) -> None:
        data, self._inbound = b"".join(self._inbound), []
        protocol = self._protocol
        if self._closing:
            return
        if isinstance(protocol, asyncio.BufferedProtocol):
            at = 0
            while at < len(data):
                room = memoryview(protocol.get_buffer(len(data) - at))
                part = data[at : at + len(room)]
                room[: len(part)] = part
                protocol.buffer_updated(len(part))
                at += len(part)
        elif isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)

    # -- asyncio.Transport --------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        self.server.received(self, data if type(data) is bytes else bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.server.received(self, b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self.server.links.remove(self)
            self.server.routes.clear()
            if self._protocol is not None:
                self._loop.call_soon(self._protocol.connection_lost, None)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (1 << 14, 1 << 16)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


class Server:
    """Routes between its links; a link's ``publish`` may be replaced by something canned."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.routes: dict[bytes, list[tuple[Link, bytes]]] = {}
        #: Where it is a list, everything that clients write is noted there.
        self.tap: list[tuple[Link, bytes]] | None = None
        #: Where it is a list, the messages with spans are noted there that its stream takes.
        self.spans: list[bytes] | None = None

    def connect(self, protocol: asyncio.BaseProtocol, loop: asyncio.AbstractEventLoop) -> Link:
        """A client dialled."""
        link = Link(self, loop)
        self.links.append(link)
        link.set_protocol(protocol)
        protocol.connection_made(link)
        link.deliver(b"INFO " + json.dumps(_INFO).encode() + b" \r\n")
        return link

    def received(self, link: Link, data: bytes) -> None:
        """Bytes that a client wrote."""
        if self.tap is not None:
            self.tap.append((link, data))
        if link.rest:
            data = link.rest + data
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            fields = data[at:end].split(b" ")
            if fields[0] == b"HPUB" or fields[0] == b"PUB":
                stop = end + 2 + int(fields[-1])
                if len(data) < stop + 2:
                    break
                link.publish(link, fields, data[end + 2 : stop])
                at = stop + 2
            else:
                self._control(link, fields)
                at = end + 2
        link.rest = data[at:]

    def _control(self, link: Link, fields: list[bytes]) -> None:
        word = fields[0].upper()
        if word == b"PING":
            link.deliver(b"PONG\r\n")
        elif word == b"SUB":
            link.subscriptions[fields[-1]] = (fields[1], fields[2] if len(fields) == 4 else b"")
            self.routes.clear()
        elif word == b"UNSUB":
            link.subscriptions.pop(fields[1], None)
            self.routes.clear()
        elif word not in (b"CONNECT", b"PONG", b""):
            raise ValueError(f"the guard's server does not know {fields!r}")

    def relay(self, link: Link, fields: list[bytes], body: bytes) -> None:
        """As a server does: to everybody who listens there, and a word to who asks where nobody does."""
        if b".telemetry.span." in fields[1]:
            if self.spans is not None:
                self.spans.append(body)
            for target, sid in self.route(fields[2]):
                target.deliver(b"MSG %b %b %d\r\n%b\r\n" % (fields[2], sid, len(_TAKEN), _TAKEN))
            return
        targets = self.route(fields[1])
        for target, sid in targets:
            target.deliver(message(fields, sid, body))
        reply = fields[2] if len(fields) == (5 if fields[0] == b"HPUB" else 4) else b""
        if reply and not targets:
            for target, sid in self.route(reply):
                target.deliver(b"HMSG %b %b 16 16\r\n%b\r\n" % (reply, sid, _NOBODY))

    def route(self, subject: bytes) -> list[tuple[Link, bytes]]:
        """Who gets it; remembered by subject, for inboxes by all but the last token."""
        inbox = subject.startswith(b"_INBOX.")
        key = subject.rpartition(b".")[0] if inbox else subject
        found = self.routes.get(key)
        if found is None:
            found = []
            groups: set[bytes] = set()
            wild = True
            for link in self.links:
                for sid, (pattern, group) in link.subscriptions.items():
                    if not _matches(pattern, subject) or group in groups:
                        continue
                    if group:
                        groups.add(group)
                    wild = wild and pattern[-1:] in b"*>"
                    found.append((link, sid))
            if not inbox or (found and wild):
                self.routes[key] = found
        return found


def message(fields: list[bytes], sid: bytes, body: bytes) -> bytes:
    """The MSG or HMSG of a PUB or HPUB."""
    word = b"HMSG" if fields[0] == b"HPUB" else b"MSG"
    return b"%b\r\n%b\r\n" % (b" ".join((word, fields[1], sid, *fields[2:])), body)


def _matches(pattern: bytes, subject: bytes) -> bool:
    wanted, given = pattern.split(b"."), subject.split(b".")
    for i, token in enumerate(wanted):
        if token == b">":
            return len(given) > i
        if i >= len(given) or (token != b"*" and token != given[i]):
            return False
    return len(wanted) == len(given)


class GuardLoop(uvloop.Loop):
    """uvloop's loop, whose connections lead to ``server``."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """The seam: whatever dials, dials the server in this process."""
        protocol = protocol_factory()
        return self.server.connect(protocol, self), protocol
