"""Which policies a process follows: none, a set that is given, or a folder of files that is watched."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeAlias

import anyio
import anyio.to_thread

from nats_mesh.errors import ConfigError
from nats_mesh.layers.breaker import Tell
from nats_mesh.policy import PolicySet
from nats_mesh.policy.files import PolicyFolder
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.loop import TaskPool

__all__ = ["Follower", "Policies", "check_policies"]

log = logging.getLogger("nats_mesh.policies")

#: Where policies come from: a folder (or one file), or a set that is compiled already.
Policies: TypeAlias = "str | os.PathLike[str] | PolicySet"


def check_policies(whose: str, policies: object) -> Policies | None:
    """``policies`` where it can be followed; :class:`ConfigError` saying what to give instead."""
    if policies is None or isinstance(policies, PolicySet):
        return policies
    if isinstance(policies, str | os.PathLike):
        return policies
    raise ConfigError(f"{whose}: policies= takes a folder of policy files, got {type(policies).__name__}")


class Follower:
    """The policies of one Service or Mesh. ``current`` is in effect; ``rejected`` says why what came after is not."""

    def __init__(self, policies: Policies | None, namespace: str, tell: Tell) -> None:
        self.current = policies if isinstance(policies, PolicySet) else PolicySet.empty(namespace=namespace)
        self.rejected = ""
        self._folder = (
            None
            if policies is None or isinstance(policies, PolicySet)
            else PolicyFolder(policies, namespace=namespace)
        )
        self._tell = tell
        self._apply: Callable[[PolicySet], None] = _nothing
        self._pool = TaskPool(_report)

    async def open(self) -> PolicySet:
        """The policies to begin with; :class:`PolicyError` where one has a mistake: nothing starts on half of them."""
        if self._folder is not None:
            self.current = await anyio.to_thread.run_sync(self._folder.load)
        return self.current

    def follow(self, apply: Callable[[PolicySet], None]) -> None:
        """Have ``apply`` called with every new set, until :meth:`close`."""
        self._apply = apply
        if self._folder is not None:
            self._pool.start(self._folder.watch(self._changed, self._refused))

    def _changed(self, policies: PolicySet) -> None:
        try:
            self._apply(policies)
        except Exception:
            self._apply(self.current)  # the last good set stays in effect, and not half of each
            raise
        self.current, self.rejected = policies, ""
        log.info("policies %s are in effect", policies.revision)
        self._tell(EventKind.POLICY_APPLIED, policies.revision, "read from files")

    def _refused(self, error: Exception) -> None:
        """Last good is kept."""
        self.rejected = str(error)
        log.error("policies were not applied, the last good ones stay: %s", error)
        self._tell(EventKind.POLICY_REJECTED, self.current.revision, str(error)[:512])

    async def close(self) -> None:
        """Watch no more."""
        self._pool.cancel_all()
        await self._pool.join(1.0)


def _nothing(policies: PolicySet) -> None:
    """Nobody follows yet."""


def _report(error: BaseException) -> None:
    log.error("policies are not watched any more: their files can no longer be read", exc_info=error)
