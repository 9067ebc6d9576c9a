"""Between the socket and the parser: an asyncio protocol in place of nats-py's stream, its reader task and buffers.

nats-py connects with asyncio's streams, which copy each chunk into a buffer, wake a task and copy it out
again. Once the connection stands, :func:`take_over` puts :class:`SocketFeed` in the stream's place: what the
socket gives is parsed in the same turn of the loop. The stream's own protocol still hears of everything else
(a full write buffer, the end), so that whoever waits on its writer is woken.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

__all__ = ["HIGH_WATER", "Feeding", "SocketFeed", "take_over"]

#: From how many unsent bytes on a socket counts as congested, until it has sent three quarters of them.
HIGH_WATER = 1 << 20
#: From how many unsent bytes on nothing more is read: an instance whose answers nobody takes must not pile them up.
_STOP_READING = 16 << 20


class Feeding(Protocol):
    """Who reads and writes by way of a :class:`SocketFeed`; none of these may raise."""

    def on_data(self, data: bytes) -> None: ...

    def on_congested(self, congested: bool) -> None: ...

    def on_end(self, feed: SocketFeed, error: Exception | None) -> None: ...


class SocketFeed(asyncio.Protocol):
    """One connection's socket. ``transport`` is asyncio's."""

    def __init__(self, owner: Feeding, transport: asyncio.Transport, stream: asyncio.Protocol) -> None:
        self.transport = transport
        self._ended = False
        self._owner = owner
        self._stream = stream
        self._congested = False
        self._reading_stopped = False
        #: The socket's, without a detour: a call per chunk.
        self.data_received = owner.on_data  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; what it does not take at once, it keeps."""
        self.transport.write(data)
        if self._congested and not self._reading_stopped and self.unsent > _STOP_READING:
            self._reading_stopped = True
            self.transport.pause_reading()

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        self._congested = True
        self._stream.pause_writing()
        self._owner.on_congested(True)

    def resume_writing(self) -> None:
        self._congested = False
        self._stream.resume_writing()
        if self._reading_stopped:
            self._reading_stopped = False
            self.transport.resume_reading()
        self._owner.on_congested(False)

    def eof_received(self) -> bool:
        # The server never half-closes: an end is the end, and asyncio closes the socket.
        self._end(None)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._stream.connection_lost(error)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._owner.on_end(self, error)


def take_over(owner: Feeding, streams: Any) -> tuple[SocketFeed, bytes] | None:
    """Put a :class:`SocketFeed` in the place of nats-py's ``streams``; with it, what they had read already.

    ``None`` where there is no stream to replace (a WebSocket) or it is not as expected: then nats-py reads.
    """
    writer, reader = getattr(streams, "_io_writer", None), getattr(streams, "_io_reader", None)
    if not isinstance(writer, asyncio.StreamWriter) or not isinstance(reader, asyncio.StreamReader):
        return None
    transport = cast("asyncio.Transport", writer.transport)
    read = getattr(reader, "_buffer", None)
    if not isinstance(read, bytearray) or reader.at_eof() or transport.is_closing():
        return None
    feed = SocketFeed(owner, transport, cast("asyncio.Protocol", transport.get_protocol()))
    transport.set_protocol(feed)
    transport.set_write_buffer_limits(high=HIGH_WATER)
    rest = bytes(read)
    read.clear()
    # A full stream pauses its transport; one that is not paused does not mind.
    transport.resume_reading()
    return feed, rest
