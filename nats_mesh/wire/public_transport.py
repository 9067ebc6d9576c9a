"""The bus by nats-py's public API alone: for a nats-py whose inside is not the one the fast way stands on.

Slower (a task per subscription, every header parsed), and with limits of its own, all nats-py's: of a header
that is repeated the last value alone arrives; the server's refusals come in lower case; after an error for
which nats-py closes for good there is no way back. Everything else holds as it does on the fast way, and the
same tests run over both.

nats-py's publishing and subscribing are coroutines, the mesh's are not: what the mesh writes goes through one
bounded queue, in order, and one task hands it on. Whether the server takes headers at all cannot be asked.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from nats_mesh.errors import Executed, OverloadedError
from nats_mesh.wire import headers as h
from nats_mesh.wire import transport as seam
from nats_mesh.wire.connection import MAX_LINE, PULSE_S, STALL_S, Connection
from nats_mesh.wire.dialling import where
from nats_mesh.wire.transport import ConnectOptions, MessageHandler, Subscription

__all__ = ["PublicTransport", "warn_once"]

log = logging.getLogger("nats_mesh.bus")

#: From how many queued bytes on calls wait, below how many they go on, and beyond how many nothing is queued.
_HIGH_WATER, _LOW_WATER, _FULL = 1 << 20, 1 << 18, 16 << 20
_DENIED = "permissions violation for "
#: Subjects that were published on lately, to give a refusal its own spelling back.
_MAX_SPELLINGS = 4096
_STATUS, _DESCRIPTION = "Status", "Description"

_warned = False


def warn_once(missing: list[str]) -> None:
    """Say, once in a process, that the fast way cannot be taken, and what to do."""
    global _warned
    if not _warned:
        _warned = True
        log.warning(
            "this nats-py does not have %s: using its public API, which is slower and keeps one value of a repeated "
            "header; install nats-py >=2.16,<2.17 for the fast way",
            ", ".join(missing),
        )


class PublicTransport(Connection):
    """A :class:`~nats_mesh.wire.transport.Transport` over an unmodified nats-py client."""

    ordered = False  # nats-py runs a task per subscription

    def __init__(self, options: ConnectOptions, rng: random.Random | None = None) -> None:
        self._client = Client()
        super().__init__(options, self._client, rng)
        #: What is to be written: how many bytes it counts for, and how it is handed on.
        self._queue: collections.deque[tuple[int, Callable[[], Awaitable[Any]]]] = collections.deque()
        self._queued = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._subscriptions: dict[int, NatsSubscription] = {}
        self._sid = 0
        self._spellings: dict[str, str] = {}

    async def open(self) -> None:
        """As :meth:`Connection.open`."""
        await super().open()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    def _arguments(self) -> dict[str, Any]:
        return {
            **super()._arguments(),
            # So that each command is written before its coroutine returns: nats-py's PING overtakes what is pending.
            "pending_size": 1,
            "disconnected_cb": self._on_disconnected,
            "closed_cb": self._on_disconnected,
        }

    async def _close(self) -> None:
        # It runs in a task of its own, which nobody cancels (see close()); closing itself raises nothing.
        await super()._close()
        tasks = [task for task in (self._writer, self._settling) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- the seam -----------------------------------------------------------------------------------

    @property
    def send(self) -> None:
        """It takes no commands."""
        return None

    def cork(self) -> None:
        """nats-py decides when it writes."""

    def uncork(self) -> None:
        """As :meth:`cork`."""

    def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        if not self._up:
            raise seam.disconnected(self._why(), where(self._options))
        size = len(headers) + len(payload)
        if size > self.max_payload:
            raise seam.too_large(size, self.max_payload)
        if (line := len(subject.encode()) + len(reply.encode()) + 40) > MAX_LINE:
            raise seam.line_too_long(line, MAX_LINE)
        if self._queued > _FULL:
            raise OverloadedError(f"{self._queued} bytes wait to be written already", executed=Executed.NO)
        self.stats.out_messages += 1
        self._remember(subject)
        fields = dict(h.parse(headers)) if headers else None
        self._put(size + 1, partial(self._client.publish, subject, payload, reply, fields))

    def subscribe(self, subject: str, handler: MessageHandler, queue: str = "") -> Subscription:
        self._sid += 1
        sid = self._sid
        self._fresh[sid] = (self._denied, subject)
        self._remember(subject)
        self._put(0, partial(self._subscribe, sid, subject, handler, queue))
        return Subscription(sid, subject, queue, handler)

    async def _subscribe(self, sid: int, subject: str, handler: MessageHandler, queue: str) -> None:
        self._subscriptions[sid] = await self._client.subscribe(
            subject, queue=queue, cb=partial(self._on_message, handler)
        )

    def unsubscribe(self, subscription: Subscription) -> None:
        self._fresh.pop(subscription.sid, None)
        self._put(0, partial(self._unsubscribe, subscription.sid))

    async def _unsubscribe(self, sid: int) -> None:
        subscription = self._subscriptions.pop(sid, None)
        if subscription is not None:
            await subscription.drain()  # type: ignore[no-untyped-call]  # what was sent already is still handled

    async def fence(self, timeout_s: float = 5.0) -> float:
        if not self.connected:
            raise seam.disconnected(self._why(), where(self._options))
        fresh, self._fresh = self._fresh, {}
        start = time.monotonic()
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(0, partial(self._pass, passed, timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                await passed
        except (TimeoutError, nats.errors.Error) as error:
            self._fresh = fresh | self._fresh
            reason = (
                f"no answer to a ping in {timeout_s:g} s" if self.connected else "the connection was lost"
            )
            raise seam.disconnected(reason, where(self._options)) from error
        except asyncio.CancelledError:
            self._fresh = fresh | self._fresh
            raise
        self._verdict(fresh)
        return time.monotonic() - start

    async def _pass(self, passed: asyncio.Future[None], timeout_s: float) -> None:
        try:
            await self._client.flush(timeout_s)  # type: ignore[arg-type]  # it takes any number
        except (nats.errors.Error, TimeoutError) as error:
            if not passed.done():
                passed.set_exception(error)
        else:
            if not passed.done():
                passed.set_result(None)

    async def writable(self) -> None:
        while self._congested and self._up:
            self._room.clear()
            await self._room.wait()

    # -- writing ------------------------------------------------------------------------------------

    def _put(self, size: int, command: Callable[[], Awaitable[Any]]) -> None:
        self._queue.append((size, command))
        self._queued += size
        if self._queued > _HIGH_WATER and not self._congested:
            self.congestion(True)
        self._work.set()

    async def _write(self) -> None:
        """Hand on what was put into the queue, in order, for as long as the connection is used."""
        while True:
            while self._queue:
                size, command = self._queue.popleft()
                self._queued -= size
                try:
                    await command()
                # The connection is away, or going; who waits for an answer is told by on_disconnect().
                except nats.errors.Error as error:
                    log.debug("a write failed: %s", error)
                # Nothing may end this task: without it the connection would be silent for ever.
                except Exception:
                    self.stats.dropped_handler_errors += 1
                    log.exception("a write failed")
                if self._congested and self._queued < _LOW_WATER:
                    self.congestion(False)
                    self._room.set()
            self._work.clear()
            await self._work.wait()

    # -- what nats-py reports -----------------------------------------------------------------------

    async def _on_message(self, handler: MessageHandler, message: Msg) -> None:
        self.stats.in_messages += 1
        if (late := time.monotonic() - self.pulse) > PULSE_S + STALL_S:
            self.stalled(late)
        try:
            handler(message.subject, message.reply, _block(message.headers), message.data)
        # Whatever a handler raises is its own affair: it is logged and counted, as on the fast way.
        except Exception:
            self.stats.dropped_handler_errors += 1
            log.exception("a message on %a could not be handled", message.subject)

    def stalled(self, late_s: float) -> None:
        super().stalled(late_s)
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        """What was read late is behind us once the server answers."""
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await self._client.flush()
        self.stats.stall_s = 0.0

    def _beat(self) -> None:
        super()._beat()
        if not self._closed and not self._client.is_connected:
            self._gone()  # nats-py's callback waits for the dead socket to close

    async def _on_disconnected(self) -> None:
        self._gone()

    def _gone(self) -> None:
        if self._up:
            # Requests are not sent later: their callers are told now. Interest is nats-py's to restore.
            kept = [item for item in self._queue if item[0] == 0]
            self._queue.clear()
            self._queue.extend(kept)
            self._queued = 0
            self.lost(str(self._client.last_error or "the server went away"))
            self._room.set()

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if _DENIED in text:
            operation, _, quoted = text.partition(_DENIED)[2].partition(" to ")
            subject = quoted.strip("\"' ").partition('"')[0]
            self.denied(operation, self._spellings.get(subject, subject))
            return
        await super()._on_error(error)

    def _remember(self, subject: str) -> None:
        lower = subject.lower()
        if lower not in self._spellings:
            if len(self._spellings) >= _MAX_SPELLINGS:
                del self._spellings[next(iter(self._spellings))]
            self._spellings[lower] = subject


def _block(headers: dict[str, str] | None) -> bytes:
    """The header block that nats-py has taken apart; a status line of the server's comes first again.

    A user's header called ``Status`` that comes first with three digits cannot be told from one.
    """
    if not headers:
        return b""
    first = next(iter(headers))
    status = ""
    if first == _STATUS and len(headers[_STATUS]) == 3 and headers[_STATUS].isdigit():
        status = f" {headers[_STATUS]}"
        description = headers.get(_DESCRIPTION, "").strip()
        if (
            description and ":" not in description
        ):  # nats-py takes the first header for one, where there is none
            status += f" {h.one_line(description)}"
    lines = [
        f"{name}: {value}\r\n"
        for name, value in headers.items()
        if not status or name not in (_STATUS, _DESCRIPTION)
    ]
    return f"NATS/1.0{status}\r\n{''.join(lines)}\r\n".encode()
