"""The bus itself: a connection to a real nats-server.

Connecting, TLS, credentials, server discovery, reconnecting and resubscribing are nats-py's; dispatch
and writing are :class:`~nats_mesh.wire.nats_client.NatsClient`'s. nats-py lives on asyncio, and so does
this module: there is no anyio between the socket and the handler.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import time
from typing import Any

import nats.errors
from nats.aio.client import Server
from nats.aio.subscription import Subscription as NatsSubscription

from nats_mesh.errors import ConfigError, DisconnectedError, MeshError, PermissionDeniedError
from nats_mesh.wire import transport as seam
from nats_mesh.wire.dialling import arguments, is_hopeless, unreachable, where, without_secrets
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.nats_client import PING, PULSE_S, STALL_S, NatsClient, check_surface
from nats_mesh.wire.transport import ConnectOptions, Listener, MessageHandler, Subscription

__all__ = ["NatsTransport", "connect"]

log = logging.getLogger("nats_mesh.bus")

#: The longest command line that a server takes (its default max_control_line) before it closes the connection.
_MAX_LINE = 4096


class NatsTransport:
    """A :class:`~nats_mesh.wire.transport.Transport` over a real nats-server."""

    def __init__(self, options: ConnectOptions, rng: random.Random | None = None) -> None:
        self.name = options.name
        self.connection = new_id()
        self.stats = seam.TransportStats()
        self.pulse = time.monotonic()
        self._options = options
        self._rng = rng or random.Random()
        self._client = NatsClient(self)
        self._listeners: list[Listener] = []
        self._denials: collections.deque[tuple[int, str, str]] = collections.deque(maxlen=100)
        self._denied = 0
        self._stall_pong: asyncio.Future[Any] | None = None
        self._opening: asyncio.Timeout | None = None
        self._back = asyncio.Event()
        self._pulse_timer: asyncio.TimerHandle | None = None
        self._attempts = 0
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        #: Whether a call may write without waiting: connected, every subscription stands, the socket takes bytes.
        self.ready = False
        self._up = False
        self._congested = False
        # Subscriptions whose verdict no fence has seen yet: how many denials there were before, and the subject.
        self._fresh: dict[int, tuple[int, str]] = {}
        # Subscriptions that were left: since the last ping, and before each ping that is not answered yet.
        self._leaving: list[int] = []
        self._left: dict[asyncio.Future[Any], list[int]] = {}
        self._last_error: Exception | None = None

    # -- opening and closing ------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect within ``connect_timeout_s`` or raise a :class:`DisconnectedError` that says why."""
        options = self._options
        try:
            try:
                async with asyncio.timeout(options.connect_timeout_s) as self._opening:
                    await self._client.connect(**self._arguments())
            finally:
                self._opening = None
        except TimeoutError:
            await self._give_up()
            raise unreachable(options, self._last_error) from None
        except (OSError, nats.errors.Error) as error:
            await self._give_up()
            raise unreachable(options, error) from error
        except (MeshError, asyncio.CancelledError):
            await self._give_up()
            raise
        except Exception as error:
            await self._give_up()
            raise ConfigError(f"cannot connect to {where(options)}: {error}") from error
        if not self._client._server_info.get("headers", False):
            await self.close()
            raise ConfigError(f"the server at {self.server} has headers switched off; the mesh needs them")
        self._up = True
        self._judge()
        self._back.set()
        self.pulse = time.monotonic()
        self._beat()

    def _judge(self) -> None:
        self.ready = self._up and not self._congested

    def _arguments(self) -> dict[str, Any]:
        return {
            **arguments(self._options),
            "error_cb": self._on_error,
            "reconnected_cb": self._on_reconnected,
            "reconnect_to_server_handler": self._choose_server,
            "inbox_prefix": f"_INBOX.{self.name}.{self.connection}.js",
        }

    async def _give_up(self) -> None:
        self._closed = True
        self._up = False
        self._judge()
        # Closing something that never opened may fail in any way; it is gone.
        with contextlib.suppress(Exception):
            self._client.abort_socket()
            await self._client.close()

    async def close(self) -> None:
        # Whoever closes a second time waits for the first; a cancelled closer leaves nothing open.
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()
        try:
            await self.fence(timeout_s=1.0)
        except (DisconnectedError, PermissionDeniedError):
            self._client.abort_socket()  # it answers no ping: there is nothing to wait for
        self._closed = True
        self._up = False
        self._judge()
        # nats-py raises what the dying socket raises; it is closed either way.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await self._client.close()
        self._client.abort_socket()

    # -- the seam -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._up and self._client.is_connected

    @property
    def max_payload(self) -> int:
        return int(self._client.max_payload)

    @property
    def server(self) -> str:
        url = self._client.connected_url
        return without_secrets(url.geturl()) if url is not None else where(self._options)

    @property
    def server_info(self) -> dict[str, Any]:
        """The INFO document of the connected server."""
        return dict(self._client._server_info)

    @property
    def congested(self) -> bool:
        return self._congested

    def congestion(self, congested: bool) -> None:
        """The socket's write buffer has passed its bound, or is below it again."""
        self._congested = congested
        self._judge()

    @property
    def reconnect_grace_s(self) -> float:
        return 2.0 if len(self._client._server_pool) > 1 else 0.05

    def cork(self) -> None:
        self._client.cork()

    def uncork(self) -> None:
        self._client.flush_out()

    def send(self, head: str, payload: bytes) -> None:
        client = self._client
        if not self._up or len(head) + len(payload) > client._max_payload:
            line, _, headers = head.partition("\r\n")
            words = line.split(" ")  # HPUB subject inbox? sizes: publish() says what is wrong with it
            self.publish(words[1], payload, words[2] if len(words) == 5 else "", headers.encode())
            return
        self.stats.out_messages += 1
        client.append(head.encode(), payload)

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
        if len(line) > _MAX_LINE:
            raise seam.line_too_long(len(line), _MAX_LINE)
        self.stats.out_messages += 1
        client.append(line + headers, payload)

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
        for number, operation, subject in self._denials:
            if operation == "subscription" and any(
                number > before and subject == wanted for before, wanted in fresh.values()
            ):
                raise PermissionDeniedError(
                    f"the server's permissions do not let {self.name!r} subscribe to {subject}"
                )
        return time.monotonic() - start

    def _why(self) -> str:
        if self._closed:
            return "closed"
        return "reconnecting" if self._last_error is None else f"reconnecting: {self._last_error}"

    async def writable(self) -> None:
        transport = self._client._transport
        if transport is not None:
            with contextlib.suppress(OSError):
                await transport.drain()  # type: ignore[no-untyped-call]

    async def wait_connected(self, timeout_s: float) -> bool:
        if self.connected:
            return True
        if self._closed:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                await self._back.wait()
        except TimeoutError:
            return False
        return self.connected

    def add_listener(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    # -- what the client reports --------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        """The connection is gone: tell everyone before nats-py starts to reconnect."""
        self._up = self._congested = False
        self._judge()
        self._back.clear()
        self._attempts = 0
        self._stall_pong = None
        self.stats.stall_s = 0.0
        for sids in (self._leaving, *self._left.values()):
            self._forget(sids)
        self._leaving, self._left = [], {}
        self._last_error = None
        if self._closed:
            return
        log.warning("lost the connection to %s: %s", self.server, reason)
        self._tell("on_disconnect", reason)

    def _tell(self, what: str, *args: str) -> None:
        for listener in list(self._listeners):
            try:
                getattr(listener, what)(*args)
            # Whatever a listener raises would end nats-py's reader or its reconnecting: it is logged and counted.
            except Exception:
                self.stats.dropped_handler_errors += 1
                log.exception("%s of %r failed", what, listener)

    def _forget(self, sids: list[int]) -> None:
        for sid in sids:
            self._client.handlers.pop(str(sid), None)

    def denied(self, operation: str, subject: str) -> None:
        """The server refused a publish or a subscription."""
        log.warning("the server's permissions do not let %r do: %s %s", self.name, operation, subject)
        self._denied += 1
        self._denials.append((self._denied, operation, subject))
        self._tell("on_denied", operation, subject)

    def stalled(self, late_s: float) -> None:
        """The loop did not run for ``late_s``: what is read until the next PONG waited about that long."""
        self.pulse = time.monotonic()
        self.stats.stall_s = max(self.stats.stall_s, late_s - PULSE_S)
        if self._client.is_connected:
            self._stall_pong = asyncio.get_running_loop().create_future()
            self._client._pongs.append(self._stall_pong)
            self._client.put(PING)

    def asked(self, pong: asyncio.Future[Any]) -> None:
        """A PING is about to be written, behind every UNSUB so far."""
        if self._leaving:
            self._left[pong], self._leaving = self._leaving, []

    def answered(self, pong: asyncio.Future[Any]) -> None:
        """A PONG came: nothing more comes for what was left before its PING; the ping of a stall ends the stall."""
        self._forget(self._left.pop(pong, []))
        if pong is self._stall_pong:
            self._stall_pong = None
            self.stats.stall_s = 0.0

    def _beat(self) -> None:
        # Whether timers or sockets run first after a stall depends on the loop, so both look.
        if (late := time.monotonic() - self.pulse) > PULSE_S + STALL_S:
            self.stalled(late)
        self.pulse = time.monotonic()
        if not self._closed:
            self._pulse_timer = asyncio.get_running_loop().call_later(PULSE_S, self._beat)

    def _choose_server(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server | None, float]:
        """Any other server first, soon; the spread keeps a herd of clients from arriving together."""
        self._attempts += 1
        current = self._client._current_server
        others = [s for s in servers if current is None or s.uri.netloc != current.uri.netloc]
        pool = others if others and self._attempts <= len(others) else servers
        longest = min(2.0, 0.6 * 1.5 ** (self._attempts - 1))
        return self._rng.choice(pool), self._rng.uniform(0.0, longest)

    async def _on_reconnected(self) -> None:
        self.stats.reconnects += 1
        self._attempts = 0
        self._up = True
        self._judge()
        self._back.set()
        log.info("connected again to %s", self.server)
        self._tell("on_reconnect")

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        log.debug("bus: %r", error)
        if self._opening is not None and is_hopeless(error):
            self._opening.reschedule(asyncio.get_running_loop().time())

    def __repr__(self) -> str:
        return f"<NatsTransport {self.name} {self.server} {'up' if self.connected else 'away'}>"


async def connect(options: ConnectOptions) -> NatsTransport:
    """Open a connection to a nats-server (a :data:`~nats_mesh.wire.transport.Connector`)."""
    check_surface()
    transport = NatsTransport(options)
    await transport.open()
    return transport
