"""What every connection through nats-py has in common, whichever way its messages take.

Opening with an error that says why, closing, reconnecting to the best server, telling listeners, noticing
that the loop stood still: this stands on nats-py's public API alone.
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
from nats.aio.client import Client, Server

from nats_mesh.errors import ConfigError, DisconnectedError, MeshError, PermissionDeniedError
from nats_mesh.wire import transport as seam
from nats_mesh.wire.dialling import arguments, is_hopeless, unreachable, where, without_secrets
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.transport import ConnectOptions, Listener, jetstream_of

__all__ = ["MAX_LINE", "PULSE_S", "STALL_S", "Connection"]

log = logging.getLogger("nats_mesh.bus")

#: The longest command line that a server takes (its default max_control_line) before it closes the connection.
MAX_LINE = 4096
#: How often the loop's pulse is felt, and the lateness from which on it counts as a stall (seconds).
PULSE_S = 0.1
STALL_S = 0.25


class Connection:
    """One connection of ``client``. Who inherits adds how messages are written, read and fenced."""

    ordered = True

    def __init__(self, options: ConnectOptions, client: Client, rng: random.Random | None = None) -> None:
        self.name = options.name
        self.connection = new_id()
        self.stats = seam.TransportStats()
        self.pulse = time.monotonic()
        #: Whether a call may write without waiting: connected, every subscription stands, and there is room.
        self.ready = False
        self._options = options
        self._nats = client
        self._rng = rng or random.Random()
        self._listeners: list[Listener] = []
        self._denials: collections.deque[tuple[int, str, str]] = collections.deque(maxlen=100)
        self._denied = 0
        self._opening: asyncio.Timeout | None = None
        self._back = asyncio.Event()
        self._pulse_timer: asyncio.TimerHandle | None = None
        self._attempts = 0
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._up = False
        self._congested = False
        # Subscriptions whose verdict no fence has seen yet: how many denials there were before, and the subject.
        self._fresh: dict[int, tuple[int, str]] = {}
        self._last_error: Exception | None = None
        self._last_server = ""

    # -- opening and closing ------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect within ``connect_timeout_s`` or raise a :class:`DisconnectedError` that says why."""
        problem: BaseException | None = None
        try:
            async with asyncio.timeout(self._options.connect_timeout_s) as self._opening:
                await self._nats.connect(**self._arguments())
        # Nothing is awaited here or in a finally: compiled, that leaves the exception behind for whoever runs next.
        except BaseException as error:  # noqa: BLE001
            problem = error
        self._opening = None
        if problem is not None:
            await self._give_up()
            self._explain(problem)
        if not self._takes_headers():
            await self.close()
            raise ConfigError(f"the server at {self.server} has headers switched off; the mesh needs them")
        self._up = True
        self._judge()
        self._note_server()
        self._back.set()
        self.pulse = time.monotonic()
        self._beat()

    def _explain(self, problem: BaseException) -> None:
        """Raise what whoever opens should know of ``problem``."""
        options = self._options
        if isinstance(problem, TimeoutError):
            raise unreachable(options, self._last_error) from None
        if isinstance(problem, OSError | nats.errors.Error):
            raise unreachable(options, problem) from problem
        if isinstance(problem, MeshError) or not isinstance(problem, Exception):
            raise problem
        raise ConfigError(f"cannot connect to {where(options)}: {problem}") from problem

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
            self._abort()
            await self._nats.close()

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
            self._abort()  # it answers no ping: there is nothing to wait for
        self._closed = True
        self._up = False
        self._judge()
        # nats-py raises what the dying socket raises; it is closed either way.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await self._nats.close()
        self._abort()

    def _takes_headers(self) -> bool:
        """Whether the server takes messages with header blocks."""
        return True

    def _abort(self) -> None:
        """Throw the socket away, where that can be done."""

    async def fence(self, timeout_s: float = 5.0) -> float:
        """See :meth:`nats_mesh.wire.transport.Transport.fence`."""
        raise NotImplementedError

    # -- the seam -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._up and self._nats.is_connected

    @property
    def max_payload(self) -> int:
        return int(self._nats.max_payload)

    @property
    def server(self) -> str:
        url = self._nats.connected_url
        return without_secrets(url.geturl()) if url is not None else where(self._options)

    @property
    def congested(self) -> bool:
        return self._congested

    def congestion(self, congested: bool) -> None:
        """More is written than is taken, or there is room again."""
        self._congested = congested
        self._judge()

    @property
    def reconnect_grace_s(self) -> float:
        return 2.0 if len(self._nats.servers) > 1 else 0.05

    @property
    def known_servers(self) -> int:
        return len(self._nats.servers)

    @property
    def jetstream(self) -> str:
        return jetstream_of(self._options)

    def _why(self) -> str:
        if self._closed:
            return "closed"
        return "reconnecting" if self._last_error is None else f"reconnecting: {self._last_error}"

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

    # -- what happens -------------------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        """The connection is gone: tell everyone before nats-py starts to reconnect."""
        self._up = self._congested = False
        self._judge()
        self._back.clear()
        self._attempts = 0
        self.stats.stall_s = 0.0
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

    def denied(self, operation: str, subject: str) -> None:
        """The server refused a publish or a subscription."""
        log.warning("the server's permissions do not let %r do: %s %s", self.name, operation, subject)
        self._denied += 1
        self._denials.append((self._denied, operation, subject))
        self._tell("on_denied", operation, subject)

    def _verdict(self, fresh: dict[int, tuple[int, str]]) -> None:
        """Raise :class:`PermissionDeniedError` where one of these subscriptions was refused."""
        for number, operation, subject in self._denials:
            if operation == "subscription" and any(
                number > before and subject == wanted for before, wanted in fresh.values()
            ):
                raise PermissionDeniedError(
                    f"the server's permissions do not let {self.name!r} subscribe to {subject}"
                )

    def stalled(self, late_s: float) -> None:
        """The loop did not run for ``late_s``: what is read until the next PONG waited about that long."""
        self.pulse = now = time.monotonic()
        self.stats.stall_s = max(self.stats.stall_s, late_s - PULSE_S)
        self.stats.stalls.append((now - late_s + PULSE_S, now))

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
        current = self._current()
        others = [s for s in servers if s.uri.netloc != current]
        pool = others if others and self._attempts <= len(others) else servers
        longest = min(2.0, 0.6 * 1.5 ** (self._attempts - 1))
        return self._rng.choice(pool), self._rng.uniform(0.0, longest)

    def _current(self) -> str:
        """Host and port of the server that is, or was last, connected; empty where none was."""
        return self._last_server

    async def _on_reconnected(self) -> None:
        self.stats.reconnects += 1
        self._attempts = 0
        self._up = True
        self._judge()
        self._back.set()
        log.info("connected again to %s", self.server)
        self._note_server()
        self._tell("on_reconnect")

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        log.debug("bus: %r", error)
        if self._opening is not None and is_hopeless(error):
            self._opening.reschedule(asyncio.get_running_loop().time())

    def _note_server(self) -> None:
        url = self._nats.connected_url
        self._last_server = "" if url is None else url.netloc

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.server} {'up' if self.connected else 'away'}>"
