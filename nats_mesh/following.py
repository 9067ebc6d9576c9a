"""Which policies a process follows: a set that is given, a folder of files that is watched, the bus, or none."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from nats_mesh.calling.holding import RouteHold
from nats_mesh.clock import Clock
from nats_mesh.core.presence import PolicySource, Rejection, Standing
from nats_mesh.errors import ConfigError
from nats_mesh.policy import PolicySet
from nats_mesh.policy.bus.acking import Acker
from nats_mesh.policy.bus.cache import PolicyCache
from nats_mesh.policy.bus.sync import PolicySync
from nats_mesh.policy.changes import changes_text
from nats_mesh.policy.files import PolicyFolder
from nats_mesh.settings import Settings
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.loop import TaskPool
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Follower", "Policies", "check_policies"]

log = logging.getLogger("nats_mesh.policies")

#: Where policies come from: a folder (or one file), a set that is compiled already, or ``False`` for nowhere.
Policies: TypeAlias = "str | os.PathLike[str] | PolicySet | Literal[False]"

#: How long a start waits for the store to say anything, and then for what it said to be in effect (seconds).
FIRST_S = 1.0
SETTLE_S = 10.0
#: How many rejections of one read the log names.
_LOGGED = 8


def check_policies(whose: str, policies: object) -> Policies | None:
    """``policies`` where it can be followed; :class:`ConfigError` saying what to give instead."""
    if policies is None or policies is False or isinstance(policies, PolicySet):
        return policies
    if isinstance(policies, str | os.PathLike):
        return policies
    raise ConfigError(
        f"{whose}: policies= takes a folder of policy files, or False for none; got {type(policies).__name__}"
    )


class Tell(Protocol):
    """Tells that something happened; must not raise."""

    def __call__(self, kind: str, target: str, detail: str, **numbers: float) -> None: ...


class Follower:
    """The policies of one Service or Mesh. ``current`` is in effect; ``rejected`` says why what came after is not.

    ``policies`` are those given in code; where there are none (``None``) the settings' folder is followed, and
    where they name none, the bus. ``standing`` is where the member stands, for whoever asks: the revision in it is in
    effect, routes that wait for a moment included.
    """

    def __init__(self, policies: Policies | None, settings: Settings, tell: Tell) -> None:
        namespace = settings.namespace
        if policies is None:
            policies = settings.policies
        if policies is None and not settings.follow:
            policies = False
        self.current = policies if isinstance(policies, PolicySet) else PolicySet.empty(namespace=namespace)
        self.rejected = ""
        self._settings = settings
        self._folder: PolicyFolder | None = None
        self._bus = policies is None
        source: PolicySource = "bus"
        if policies is False:
            source = "off"
        elif isinstance(policies, PolicySet):
            source = "given"
        elif policies is not None:
            source = "files"
            self._folder = PolicyFolder(policies, namespace=namespace)
        self.standing = Standing(source=source)
        self._sync: PolicySync | None = None
        self._acker: Acker | None = None
        self._tell = tell
        self._apply: Callable[[PolicySet], None] = _nothing
        self._hold: RouteHold | None = None
        #: What is said once the routes that wait are followed.
        self._waiting: Standing | None = None
        self._pool = TaskPool(_report)

    async def open(self) -> PolicySet:
        """The policies to begin with, before there is a connection.

        :class:`PolicyError` where a file has a mistake: nothing starts on half of them.
        """
        if self._folder is not None:
            self.current = await anyio.to_thread.run_sync(self._folder.load)
        return self.current

    async def connect(
        self,
        *,
        name: str,
        instance: str,
        kind: Literal["service", "client"],
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        rng: random.Random,
    ) -> PolicySet:
        """The policies to begin with, where they come from the bus: as the store has them, or else as they were kept on
        disk, or none. Waits at most a second for the store to answer; where nobody listens, not at all."""
        if not self._bus:
            return self.current
        settings, subjects = self._settings, Subjects(self._settings.namespace)
        cache = None
        if settings.cache_dir:
            cache = PolicyCache(settings.cache_dir, settings.namespace, settings.identity)
        self._acker = Acker(
            service=name,
            instance=instance,
            kind=kind,
            subjects=subjects,
            transport=transport,
            mux=mux,
            now=clock.monotonic,
        )
        self._sync = sync = PolicySync(
            subjects=subjects,
            transport=transport,
            mux=mux,
            now=clock.monotonic,
            chance=_apart(rng).random,
            apply=self._came,
            stands=self._stands,
            cache=cache,
        )
        await sync.restore()
        await sync.start()
        with anyio.move_on_after(FIRST_S):
            await sync.heard.wait()
        if sync.heard.is_set():
            with anyio.move_on_after(SETTLE_S):
                await sync.settled.wait()
        await sync.use_restored()
        return self.current

    def follow(self, apply: Callable[[PolicySet], None], hold: RouteHold | None = None) -> None:
        """Have ``apply`` called with every new set, until :meth:`close`. What ``hold`` makes wait is acknowledged once
        it does not wait any more."""
        self._apply, self._hold = apply, hold
        if hold is not None:
            hold.released = self._released
        if self._folder is not None:
            self._pool.start(self._folder.watch(self._changed, self._refused))

    # -- from files ---------------------------------------------------------------------------------

    def _changed(self, policies: PolicySet) -> None:
        try:
            self._apply(policies)
        except Exception:
            self._apply(self.current)  # the last good set stays in effect, and not half of each
            raise
        self._in_effect(policies, policies.revision)
        self.standing = Standing(source="files")

    def _refused(self, error: Exception) -> None:
        """Last good is kept."""
        self.rejected = str(error)
        log.error("policies were not applied, the last good ones stay: %s", error)
        self._tell(EventKind.POLICY_REJECTED, self.current.revision, str(error)[:512])
        reason = one_line(self.rejected, 512)
        refused = Rejection(policy="files", reason=reason)
        self.standing = msgspec.structs.replace(self.standing, rejections=(refused,), rejected=1)

    # -- from the bus -------------------------------------------------------------------------------

    def _came(self, policies: PolicySet, revision: tuple[int, int]) -> None:
        self._apply(policies)
        epoch, sequence = revision
        self._in_effect(policies, f"revision {sequence}", epoch=epoch, revision=sequence)

    def _stands(self, standing: Standing) -> None:
        known = {(each.policy, each.revision, each.reason) for each in self.standing.rejections}
        new = [each for each in standing.rejections if (each.policy, each.revision, each.reason) not in known]
        for each in new[:_LOGGED]:
            log.error("%s was not applied, what held before stays: %s", each.policy, each.reason)
        if len(new) > _LOGGED:
            log.error("%d more policies were not applied; %d in all", len(new) - _LOGGED, standing.rejected)
        for each in new:
            epoch, sequence = each.revision
            self._tell(EventKind.POLICY_REJECTED, f"{each.policy}@{epoch}.{sequence}", each.reason)
        self.rejected = standing.rejections[0].reason if standing.rejections else ""
        self._waiting = None
        if self._hold is not None and self._hold.holding and standing.revision != self.standing.revision:
            # What is refused is said at once; what waits is acknowledged when it is in effect.
            self._waiting = standing
            standing = msgspec.structs.replace(standing, revision=self.standing.revision)
        self._say(standing)

    def _released(self) -> None:
        if self._waiting is not None:
            standing, self._waiting = self._waiting, None
            self._say(standing)

    def _say(self, standing: Standing) -> None:
        said, self.standing = self.standing, standing
        if self._acker is not None and standing != said:
            self._acker.say(standing)

    # -- both ---------------------------------------------------------------------------------------

    def _in_effect(self, policies: PolicySet, name: str, **numbers: float) -> None:
        """Say so: ``name`` is what operators call this state of the policies."""
        before, self.current, self.rejected = self.current, policies, ""
        changed = changes_text(before.policies, policies.policies)
        log.info("policies %s are in effect: %s", name, changed)
        self._tell(EventKind.POLICY_APPLIED, name, changed, **numbers)

    def acknowledge(self) -> None:
        """Say again where the member stands: who listened may have missed it."""
        if self._acker is not None:
            self._acker.again()

    async def close(self) -> None:
        """Follow no more."""
        if self._acker is not None:
            self._acker.close()
        if self._sync is not None:
            await self._sync.close()
        self._pool.cancel_all()
        await self._pool.join(1.0)


def _apart(rng: random.Random) -> random.Random:
    """Chance of its own, that takes none of ``rng``'s: what else uses that goes the same way with and without a bus."""
    apart = random.Random()
    with contextlib.suppress(NotImplementedError):  # the system's own source has no state
        apart.setstate(rng.getstate())
    return apart


def _nothing(policies: PolicySet) -> None:
    """Nobody follows yet."""


def _report(error: BaseException) -> None:
    log.error("policies are not watched any more: their files can no longer be read", exc_info=error)
