"""Keeping what the store gave on disk, beside everything else: nothing waits for it, and nothing fails with it."""

from __future__ import annotations

import logging
from typing import Final

import anyio
import anyio.to_thread

from nats_mesh.core.replica import Replica
from nats_mesh.policy.bus.cache import Cached, CacheError, PolicyCache
from nats_mesh.wire.loop import TaskPool

__all__ = ["Keeper"]

log = logging.getLogger("nats_mesh.policies")

#: How long after a change it is written; what follows meanwhile goes with it (seconds).
_SAVE_S: Final = 1.0
#: How long a start waits for the disk (seconds).
_LOAD_S: Final = 1.0
#: How long an end waits for the last write (seconds).
_CLOSE_S: Final = 1.0


class Keeper:
    """Restores a replica at the start, and writes it down after changes, at most once a second; without a ``cache``
    it does nothing."""

    def __init__(self, cache: PolicyCache | None) -> None:
        self._cache = cache
        self._waiting: Replica | None = None
        self._pool = TaskPool(_report)
        self._complained = ""
        # A disk that hangs holds up nothing but this: its threads are left behind.
        self._limiter = anyio.CapacityLimiter(1)

    async def restore(self, replica: Replica) -> None:
        """Give ``replica`` what was kept; where that cannot be used, a warning."""
        if self._cache is None:
            return
        try:
            with anyio.fail_after(_LOAD_S):
                kept = await anyio.to_thread.run_sync(
                    self._cache.load, limiter=self._limiter, abandon_on_cancel=True
                )
        except (CacheError, TimeoutError) as error:
            log.warning("no policies from the cache: %s", str(error) or "the disk does not answer")
            return
        if kept is not None:
            replica.restore(kept.epoch, kept.applied, kept.stamp, kept.records)

    def keep(self, replica: Replica) -> None:
        """Write down what ``replica`` has, soon."""
        if self._cache is None:
            return
        self._waiting = replica
        if not self._pool.tasks:
            self._pool.start(self._save_soon())

    async def _save_soon(self) -> None:
        while self._waiting is not None:
            await anyio.sleep(_SAVE_S)
            await self._save()

    async def _save(self) -> None:
        replica, self._waiting = self._waiting, None
        if replica is None or self._cache is None:
            return
        kept = Cached(replica.epoch, replica.applied, replica.stamp, tuple(replica.entries.values()))
        try:
            await anyio.to_thread.run_sync(
                self._cache.save, kept, limiter=self._limiter, abandon_on_cancel=True
            )
        except CacheError as error:
            if str(error) != self._complained:
                self._complained = str(error)
                log.warning("policies are not kept on disk: %s", error)

    async def close(self) -> None:
        """Write what was not written yet, and end."""
        self._pool.cancel_all()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._pool.join(_CLOSE_S)
            await self._save()


def _report(error: BaseException) -> None:
    log.error("policies are not kept on disk any more", exc_info=error)
