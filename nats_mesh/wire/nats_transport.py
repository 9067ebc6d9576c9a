"""The bus itself: a connection to a real nats-server, by the fast way.

Connecting, TLS, credentials, server discovery, reconnecting and resubscribing are nats-py's; dispatch
and writing are :class:`~nats_mesh.wire.nats_client.NatsClient`'s. nats-py lives on asyncio, and so does
this module: there is no anyio between the socket and the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from nats.aio.subscription import Subscription as NatsSubscription

from nats_mesh.wire import transport as seam
from nats_mesh.wire.connection import MAX_LINE, Connection
from nats_mesh.wire.dialling import where
from nats_mesh.wire.nats_client import PING, NatsClient, missing_surface
from nats_mesh.wire.public_transport import PublicTransport, warn_once
from nats_mesh.wire.transport import ConnectOptions, MessageHandler, Subscription, Transport

__all__ = ["NatsTransport", "connect"]


class NatsTransport(Connection):
    """A :class:`~nats_mesh.wire.transport.Transport` over a real nats-server."""

    def __init__(self, options: ConnectOptions, rng: random.Random | None = None) -> None:
        self._client = NatsClient(self)
        self._outbox = self._client.outbox
        super().__init__(options, self._client, rng)
        self._stall_pong: asyncio.Future[Any] | None = None
        #: A ping whose answer is waited for, and when it was written.
        self._timed: tuple[asyncio.Future[Any], float] | None = None
        # Subscriptions that were left: since the last ping, and before each ping that is not answered yet.
        self._leaving: list[int] = []
        self._left: dict[asyncio.Future[Any], list[int]] = {}

    def _takes_headers(self) -> bool:
        return bool(self._client._server_info.get("headers", False))

    def _abort(self) -> None:
        self._client.abort_socket()

    def _current(self) -> str:
        server = self._client._current_server
        return "" if server is None else str(server.uri.netloc)

    # -- the seam -----------------------------------------------------------------------------------

    @property
    def server_info(self) -> dict[str, Any]:
        """The INFO document of the connected server."""
        return dict(self._client._server_info)

    def cork(self) -> None:
        self._outbox.cork()

    def uncork(self) -> None:
        self._outbox.flush()

    def send(self, head: str, payload: bytes) -> None:
        if not self._up or len(head) + len(payload) > self._client._max_payload:
            line, _, headers = head.partition("\r\n")
            words = line.split(" ")  # HPUB subject inbox? sizes: publish() says what is wrong with it
            self.publish(words[1], payload, words[2] if len(words) == 5 else "", headers.encode())
            return
        self.stats.out_messages += 1
        self._outbox.put_message(head.encode(), payload)

    def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        if not self._up:
            raise seam.disconnected(self._why(), where(self._options))
        client = self._client
        size = len(headers) + len(payload)
        if size > client._max_payload:
            raise seam.too_large(size, client._max_payload)
        if headers:
            line = (
                f"HPUB {subject} {reply} {len(headers)} {size}\r\n"
                if reply
                else f"HPUB {subject} {len(headers)} {size}\r\n"
            ).encode()
        else:
            line = (f"PUB {subject} {reply} {size}\r\n" if reply else f"PUB {subject} {size}\r\n").encode()
        if len(line) > MAX_LINE:
            raise seam.line_too_long(len(line), MAX_LINE)
        self.stats.out_messages += 1
        self._outbox.put_message(line + headers, payload)

    def subscribe(self, subject: str, handler: MessageHandler, queue: str = "") -> Subscription:
        client = self._client
        client._sid += 1
        sid = client._sid
        # nats-py replays its own table after a reconnect, so the entry must be one of its own.
        client._subs[sid] = NatsSubscription(client, sid, subject, queue=queue)
        client.handlers[str(sid)] = handler
        self._fresh[sid] = (self._denied, subject)
        if client.is_connected:
            client.put(
                f"SUB {subject} {queue} {sid}\r\n".encode() if queue else f"SUB {subject} {sid}\r\n".encode()
            )
        return Subscription(sid, subject, queue, handler)

    def unsubscribe(self, subscription: Subscription) -> None:
        client = self._client
        client._subs.pop(subscription.sid, None)
        self._fresh.pop(subscription.sid, None)
        if not client.is_connected:
            client.handlers.pop(str(subscription.sid), None)
            return
        client.put(f"UNSUB {subscription.sid}\r\n".encode())
        # What the server sent before it saw the UNSUB is still handled; forgotten once it answers a ping.
        self._leaving.append(subscription.sid)

    async def fence(self, timeout_s: float = 5.0) -> float:
        if not self.connected:
            raise seam.disconnected(self._why(), where(self._options))
        fresh, self._fresh = self._fresh, {}
        start = time.monotonic()
        pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._client._send_ping(pong)
                await pong
        except TimeoutError:
            self._fresh = fresh | self._fresh
            raise seam.disconnected(f"no answer to a ping in {timeout_s:g} s", where(self._options)) from None
        except asyncio.CancelledError:
            self._fresh = fresh | self._fresh
            task = asyncio.current_task()
            if pong.cancelled() and (task is None or not task.cancelling()):
                raise seam.disconnected("the connection was lost", where(self._options)) from None
            raise
        self._verdict(fresh)
        return time.monotonic() - start

    async def writable(self) -> None:
        transport = self._client._transport
        if transport is not None:
            with contextlib.suppress(OSError):
                await transport.drain()  # type: ignore[no-untyped-call]

    # -- what the client reports --------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        self._stall_pong = self._timed = None
        for sids in (self._leaving, *self._left.values()):
            self._forget(sids)
        self._leaving, self._left = [], {}
        super().lost(reason)

    def _forget(self, sids: list[int]) -> None:
        for sid in sids:
            self._client.handlers.pop(str(sid), None)

    def stalled(self, late_s: float) -> None:
        super().stalled(late_s)
        if self._client.is_connected:
            self._stall_pong = asyncio.get_running_loop().create_future()
            self._client._pongs.append(self._stall_pong)
            self._client.put(PING)

    def asked(self, pong: asyncio.Future[Any]) -> None:
        """A PING is about to be written, behind every UNSUB so far."""
        if self._timed is None:
            self._timed = pong, time.monotonic()
        if self._leaving:
            self._left[pong], self._leaving = self._leaving, []

    def answered(self, pong: asyncio.Future[Any]) -> None:
        """A PONG came: nothing more comes for what was left before its PING; the ping of a stall ends the stall."""
        self._forget(self._left.pop(pong, []))
        if self._timed is not None and self._timed[0] is pong:
            self.stats.rtt_s = time.monotonic() - self._timed[1]
            self._timed = None
        if pong is self._stall_pong:
            self._stall_pong = None
            self.stats.stall_s = 0.0


async def connect(options: ConnectOptions) -> Transport:
    """Open a connection to a nats-server (a :data:`~nats_mesh.wire.transport.Connector`).

    Where this nats-py lacks what the fast way stands on, the public API is used, with one warning.
    """
    missing = missing_surface()
    transport: NatsTransport | PublicTransport
    if missing:
        warn_once(missing)
        transport = PublicTransport(options)
    else:
        transport = NatsTransport(options)
    await transport.open()
    return transport
