"""nats-py's client with its dispatch and write path replaced.

What is replaced, and why:

- reading and dispatch: nats-py reads through a stream and a task, runs one callback at a time per subscription
  and parses every header; here a message goes from the socket straight to its handler, with the raw header block;
- writes: nats-py's PING overtakes pending commands, so that ``flush`` is no barrier; here everything
  goes through one buffer, in order, sent once per turn of the loop;
- losing the connection: nats-py waits for a dead socket to flush and keeps requests waiting; here the
  socket is aborted and the owner is told at once;
- errors after which nats-py closes for good (expired credentials among them) lead to a reconnect;
- nats-py's reader and its reconnecting end silently on an exception they do not know; here neither does.

The private surface this touches is checked in :func:`missing_surface` before each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import re
import socket
import struct
import time
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from nats_mesh.wire.connection import PULSE_S, STALL_S
from nats_mesh.wire.outbox import Outbox
from nats_mesh.wire.parser import NotTextError, Parser, ProtocolError
from nats_mesh.wire.socket_feed import SocketFeed, take_over
from nats_mesh.wire.transport import MessageHandler, TransportStats

__all__ = ["PING", "NatsClient", "Owner", "missing_surface"]

log = logging.getLogger("nats_mesh.bus")

PING = b"PING\r\n"
_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_PRIVATE = (
    "_attempt_reconnect", "_current_server", "_flush_pending", "_flusher_task", "_max_payload", "_ping_interval_task",
    "_pings_outstanding", "_pongs", "_process_connect_init", "_process_err", "_process_msg",
    "_reconnection_task", "_process_op_err",
    "_process_pong", "_ps", "_read_loop", "_reading_task", "_send_command", "_send_ping", "_server_info",
    "_server_pool", "_sid", "_subs", "_transport",
)  # fmt: skip

#: The parameters, after self, of what is called or replaced.
_SIGNATURES = {
    "_process_msg": ["sid", "subject", "reply", "data", "headers"],
    "_process_err": ["err_msg"],
    "_process_op_err": ["e"],
    "_send_command": ["cmd", "priority"],
    "_flush_pending": ["force_flush"],
    "_send_ping": ["future"],
}


def missing_surface() -> list[str]:
    """What :class:`NatsClient` stands on and this nats-py does not have; empty where all is as expected."""
    client = Client()
    missing = [name for name in _PRIVATE if not hasattr(client, name)]
    for function, parameters in _SIGNATURES.items():
        found = getattr(Client, function, None)
        if found is not None and list(inspect.signature(found).parameters)[1:] != parameters:
            missing.append(f"{function}({', '.join(parameters)})")
    streams = vars(TcpTransport())  # type: ignore[no-untyped-call]
    if not {"_io_reader", "_io_writer"} <= streams.keys():
        missing.append("TcpTransport's streams")
    return missing


class Owner(Protocol):
    """Whom the client tells what happens; none of these may raise."""

    stats: TransportStats
    #: When the event loop was last seen running (monotonic seconds).
    pulse: float

    def stalled(self, late_s: float) -> None: ...

    def asked(self, pong: asyncio.Future[Any]) -> None: ...

    def answered(self, pong: asyncio.Future[Any]) -> None: ...

    def denied(self, operation: str, subject: str) -> None: ...

    def lost(self, reason: str) -> None: ...

    def congestion(self, congested: bool) -> None: ...


class _Reader:
    """Stands where nats-py keeps its parser: one scan per buffer, messages handed on at once."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._parser = Parser(self._on_foreign, self._on_control, client.handlers, client.on_failed)
        self._lines: list[bytes] = []
        #: Messages of subscriptions that are nats-py's own (JetStream).
        self._foreign: list[tuple[bytes, bytes, bytes, bytes, bytes]] = []

    def reset(self) -> None:
        """A new connection begins."""
        self._parser.reset()
        self._lines.clear()
        self._foreign.clear()

    def _on_foreign(self, *message: bytes) -> None:
        sid, subject, reply, headers, payload = message
        self._foreign.append((sid, subject, reply, headers, payload))

    def _on_control(self, line: bytes) -> None:
        if line == b"PONG":
            self._client.on_pong()
        elif line == b"PING":
            self._client.put(b"PONG\r\n")
        # A refusal counts before the PONG behind it: whoever waits for that one wants to know.
        elif line[:4].upper() == b"-ERR" and (found := _DENIED.search(line.decode("utf-8", "replace"))):
            self._client.owner.denied(found[1].lower(), found[2])
        else:
            self._lines.append(line)

    def feed(self, data: bytes) -> bool:
        """Take in what the socket gave; whether something is left for :meth:`rest`. :class:`ProtocolError`."""
        parser, owner = self._parser, self._client.owner
        before = parser.messages
        if (late := time.monotonic() - owner.pulse) > PULSE_S + STALL_S:
            owner.stalled(late)
        try:
            parser.feed(data)
        finally:
            owner.stats.in_messages += parser.messages - before
        return bool(self._lines or self._foreign)

    async def parse(self, data: bytes = b"") -> None:
        """As :meth:`feed` and :meth:`rest`, where nats-py reads; it reconnects on its ProtocolError."""
        try:
            if self.feed(data):
                await self.rest()
        except ProtocolError as error:
            log.error("the server's bytes cannot be read: %s", error)
            raise nats.errors.ProtocolError from error

    async def rest(self) -> None:
        """What is not for the hot path: nats-py's own messages, and control lines other than PING and PONG."""
        foreign, self._foreign = self._foreign, []
        lines, self._lines = self._lines, []
        for sid, subject, reply, headers, payload in foreign:
            await self._client._process_msg(int(sid), subject, reply, payload, headers)
        for line in lines:
            word = line[:4].upper()
            if word == b"-ERR":
                await self._client._process_err(line[4:].decode("utf-8", "replace").strip().lower())
            elif word == b"INFO":
                try:
                    info = json.loads(line[5:])
                except ValueError:
                    raise ProtocolError(f"an INFO that is no JSON: {line[:200]!r}") from None
                await self._client._process_info(info)
            elif word[:3] != b"+OK":
                raise ProtocolError(f"an unknown line: {line[:200]!r}")


class NatsClient(Client):
    """nats-py with the hot path replaced; it knows the transport it works for."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner = owner
        self.handlers: dict[str, MessageHandler] = {}
        self.reader = _Reader(self)
        self._ps: Any = self.reader
        self.outbox = Outbox(self._write_out)
        #: The socket, once the connection stands; nats-py's streams write before that.
        self._feed: SocketFeed | None = None
        #: Wakes :meth:`_read_loop` where a feed has left something for it; why it ended, where it did.
        self._left = asyncio.Event()
        self._ended: Exception | None = None

    # -- reading ------------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """What the socket gave: parsed and handled at once."""
        try:
            if self.reader.feed(data):
                self._left.set()
        except ProtocolError as error:
            log.error("the server's bytes cannot be read: %s", error)
            self._stop_reading(nats.errors.ProtocolError())

    def on_end(self, feed: SocketFeed, error: Exception | None) -> None:
        """The socket has ended; nothing more comes. Of a connection that was given up nobody needs to know."""
        if feed is self._feed:
            self._stop_reading(nats.errors.UnexpectedEOF() if error is None else error)

    def on_congested(self, congested: bool) -> None:
        """The socket takes less than is written, or takes bytes again."""
        self.owner.congestion(congested)

    def _stop_reading(self, error: Exception) -> None:
        if self._feed is not None and not self._feed.transport.is_closing():
            self._feed.transport.pause_reading()
        self._ended = self._ended or error
        self._left.set()

    def on_failed(self, subject: str, error: Exception) -> None:
        """A handler raised; whatever it was would silently end the reader: it is logged and counted."""
        stats = self.owner.stats
        if isinstance(error, NotTextError):
            stats.dropped_not_text += 1
            return
        stats.dropped_handler_errors += 1
        log.exception("a message on %a could not be handled", subject)

    def on_pong(self) -> None:
        """The server has processed everything that was written before the ping."""
        # nats-py's own sets the result of a future that may be cancelled, which would end its reader.
        if self._pongs:
            pong = self._pongs.pop(0)
            if not pong.done():
                pong.set_result(True)
            self.owner.answered(pong)
        self._pings_outstanding = 0

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg or "invalid subject" in err_msg:
            log.warning("the server refused something: %s", err_msg.strip("'"))
        else:
            log.warning("the server closes the connection: %s", err_msg.strip("'"))
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg.strip(chr(39))}"))

    async def _read_loop(self) -> None:
        taken = take_over(self, self._transport)
        if taken is None:
            await super()._read_loop()
        else:
            await self._follow(*taken)
        task = asyncio.current_task()
        if self.is_connected and task is not None and task is self._reading_task and not task.cancelling():
            await self._process_op_err(nats.errors.Error("the reader failed; the log above says why"))

    @property
    def _has_ended(self) -> bool:
        return self._ended is not None

    async def _follow(self, feed: SocketFeed, read: bytes) -> None:
        """Do what reading leaves to do until the connection ends; the messages need no task."""
        self._feed, self._ended = feed, None
        self._left.clear()
        if read:
            self.on_data(read)
        try:
            while True:
                await self.reader.rest()
                if self._has_ended:
                    break
                await self._left.wait()
                self._left.clear()
        except ProtocolError as error:
            log.error("the server's bytes cannot be read: %s", error)
            self._ended = nats.errors.ProtocolError()
        except asyncio.CancelledError:
            return  # by whoever ends this connection
        # As nats-py's own reader does; what it cannot process must not leave a connection that nobody reads.
        except Exception as error:
            log.exception("what the server sent could not be processed")
            self._ended = error
        if self._ended is not None and self._feed is feed and not (self.is_closed or self.is_reconnecting):
            await self._error_cb(self._ended)
            await self._process_op_err(self._ended)

    # -- writing ------------------------------------------------------------------------------------

    def put(self, command: bytes) -> None:
        """Append one command; what a turn of the loop appends is written together."""
        self.outbox.put(command)

    def _write_out(self, data: bytes) -> None:
        """Write what was appended. A broken socket shows in the reader, which reconnects."""
        writer = self._feed or self._transport
        if self.is_connected and writer is not None:
            try:
                writer.write(data)
            # A transport that is closing raises whatever it likes; the reader notices and ends it.
            except Exception as error:  # noqa: BLE001
                log.debug("a write failed: %s", error)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.put(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        self.outbox.flush()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        pong = future or asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.owner.asked(pong)
        self.outbox.pending.append(PING)
        self.outbox.flush()

    # -- losing the connection, and getting it back -------------------------------------------------

    async def _process_connect_init(self) -> None:
        # What an attempt that failed half-way left running would read and ping the new socket too.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        try:
            await super()._process_connect_init()
        except BaseException as error:
            self.abort_socket()  # nats-py would forget it open
            again = self._reconnection_task is not None and self._reconnection_task is asyncio.current_task()
            if (
                not again
                or not isinstance(error, Exception)
                or isinstance(error, OSError | nats.errors.Error)
            ):
                raise
            # A credentials file that is being rewritten, an odd INFO: whatever it is, the next attempt may do.
            raise nats.errors.Error(f"nats: {error}") from error

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed and not self.is_reconnecting:
            self.abort_socket()
            self.outbox.pending.clear()
            pongs, self._pongs = self._pongs, []
            for pong in pongs:
                pong.cancel()
            self.owner.lost(str(e) or type(e).__name__)
        await super()._process_op_err(e)

    def abort_socket(self) -> None:
        """Throw the socket away with linger 0: a dead peer must not hold us while its buffer drains."""
        self._feed = None
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None:
            return
        # A transport that is closed already raises what its loop likes; then there is nothing left to abort.
        with contextlib.suppress(Exception):
            sock = writer.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(Exception):
            writer.transport.abort()
