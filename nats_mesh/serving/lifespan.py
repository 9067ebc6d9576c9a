"""A service's lifespan, hosted by a task of its own.

A task of its own, because a lifespan may hold a task group or a cancel scope open, which must be left by the
task that entered it and may not be shielded from outside; here neither whoever leaves the instance, nor in
which order instances are left, nor a cancellation of the leaver can keep the clean-up from running.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from nats_mesh.wire.loop import TaskPool

__all__ = ["Lifespan"]

log = logging.getLogger("nats_mesh.instance")

#: How long a clean-up that was cancelled, because its time was up, may take to end (seconds).
_CANCELLED_S = 0.5


class Lifespan:
    """Enters ``manager`` in :meth:`start` and leaves it in :meth:`stop`.

    ``on_failure`` is called where it ends on its own in between, as when a background task in it fails.
    """

    def __init__(
        self, name: str, manager: AbstractAsyncContextManager[Any], on_failure: Callable[[], None]
    ) -> None:
        self._name = name
        self._manager = manager
        self._on_failure = on_failure
        self._entered = anyio.Event()
        self._leave = anyio.Event()
        self._ended = anyio.Event()
        self._error: BaseException | None = None
        self._value: Any = None
        self._task = TaskPool(self._died).spawn(self._host(), self._over)

    async def start(self) -> Any:
        """Wait until it is entered; returns what it yielded, or raises what entering raised."""
        await self._entered.wait()
        self._raise()
        if self._task.cancelled():
            raise RuntimeError(f"{self._name}: its lifespan was cancelled while it started")
        return self._value

    async def stop(self, timeout_s: float) -> None:
        """Leave it, however often the caller is cancelled; raises what leaving raised.

        After ``timeout_s`` seconds the clean-up is cancelled, and the log says so.
        """
        self._leave.set()
        if not self._entered.is_set():
            self._task.cancel()
        try:
            with anyio.move_on_after(timeout_s, shield=True):
                await self._ended.wait()
            if not self._ended.is_set():
                log.error("%s: its lifespan did not end within %.1f s; cancelled", self._name, timeout_s)
                self._task.cancel()
                with anyio.move_on_after(_CANCELLED_S, shield=True):
                    await self._ended.wait()
        except BaseException:  # the loop itself cancels the waiter, which no scope shields from
            self._task.cancel()
            raise
        self._raise()

    async def _host(self) -> None:
        async with self._manager as self._value:
            self._entered.set()
            await self._leave.wait()

    def _died(self, error: BaseException) -> None:
        self._error = error

    def _over(self) -> None:
        alone = self._entered.is_set() and not self._leave.is_set()
        self._entered.set()
        self._ended.set()
        if alone:
            log.critical("%s: its lifespan ended while it served", self._name, exc_info=self._error)
            self._on_failure()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
