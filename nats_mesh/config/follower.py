"""The configuration of one instance, as the store has it: read at the start, pushed afterwards.

As with policies a message that something has changed is a hint, whose payload is never used: the value is read from the
bucket, on a hint, on a reconnect, and every half a minute. What does not fit the declared struct is refused, with an
event, and the last good value stays; what is on disk serves the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import anyio
import anyio.to_thread

from nats_mesh.clock import Clock
from nats_mesh.config.cache import ConfigCache
from nats_mesh.config.value import Declared
from nats_mesh.errors import ConfigError
from nats_mesh.layers.breaker import Tell
from nats_mesh.policy.bus.disk import CacheError
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.kv import Found, KvAbsentError, KvBucket, KvError
from nats_mesh.wire.loop import TaskPool
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["DEFAULT_NAME", "ConfigFollower"]

log = logging.getLogger("nats_mesh.config")

#: What a service's configuration is called in the store: ``<service>.default``.
DEFAULT_NAME: Final = "default"
#: How often it is read though nothing was heard, ± a fifth, and how long one read may take (seconds).
_CHECK_S: Final = 30.0
_READ_S: Final = 2.0
_FIRST_S: Final = 1.0
#: How long a start waits for the disk (seconds).
_LOAD_S: Final = 1.0
#: A change and the next one, one read; and no more than twenty a second, whoever sends hints.
_SETTLE_S: Final = 0.05


class ConfigFollower:
    """Follows the configuration of ``service``. ``value`` holds, from ``revision`` on; ``rejected`` says why what came
    after it does not (empty: nothing did)."""

    def __init__(
        self,
        declared: Declared,
        *,
        service: str,
        subjects: Subjects,
        clock: Clock,
        chance: Callable[[], float],
        tell: Tell,
        cache_dir: str,
        identity: Iterable[str],
    ) -> None:
        self.value: Any = None
        self.revision = 0
        self.rejected = ""
        #: Set, and another one put in its place, with every new value; and once nothing is followed any more.
        self.changed = anyio.Event()
        self.closed = False
        #: The JSON Schema of the declared struct.
        self.schema = declared.schema()
        self._declared = declared
        self._service = service
        self._subjects = subjects
        self._clock = clock
        self._chance = chance
        self._tell = tell
        self._cache = ConfigCache(cache_dir, service, (subjects.namespace, *identity))
        # A disk that hangs holds up nothing but this: its threads are left behind.
        self._limiter = anyio.CapacityLimiter(1)
        #: What is to be kept on disk next (``None`` in it: nothing), and whether that is under way.
        self._unsaved: tuple[bytes | None] | None = None
        self._saving = False
        self._bucket: KvBucket | None = None
        self._transport: Transport | None = None
        self._subscription: Subscription | None = None
        self._pool = TaskPool(_report)
        self._wake = anyio.Event()
        #: A revision that was read and is older than what holds: believed when it is read again.
        self._older = -1

    async def start(self, transport: Transport, mux: ReplyMux) -> None:
        """Have a value, and follow it from then on.

        :class:`ConfigError` where there is none to begin with: nothing is stored, or what is does not fit, and the
        struct has fields without a default.
        """
        now = self._clock.monotonic
        self._transport = transport
        self._bucket = KvBucket(self._subjects.config_bucket, transport=transport, mux=mux, now=now)
        self._subscription = transport.subscribe(self._subjects.config_hints_of(self._service), self._on_hint)
        transport.add_listener(self)
        why = "nothing is stored"
        try:
            self._take(await self._bucket.get(self._key, timeout_s=_FIRST_S))
            why = self.rejected or why
        except KvAbsentError:
            pass  # nobody has ever stored one here
        except KvError as error:
            why = str(error)
        if self.value is None:
            await self._begin_without(why)
        if not self.closed:  # else it left while it still started
            self._pool.start(self._follow())

    async def _begin_without(self, why: str) -> None:
        """The store has no value that can be used: the last one that did, or the defaults."""
        kept = await self._kept()
        if kept is not None:
            try:
                self.value = self._declared.decode(kept)
            except ConfigError as error:
                log.warning("%s: the configuration on disk does not fit any more: %s", self._service, error)
            else:
                log.warning("%s: %s; its configuration of before is used", self._service, why)
                return
        self.value = self._declared.default()
        if self.value is None:
            raise ConfigError(
                f"{self._service} has no configuration: {why}, and {one_line(self._declared.undefined, 512)}; "
                f"'nats-mesh config set {self._service} FILE' stores one"
            )

    async def _kept(self) -> bytes | None:
        try:
            with anyio.fail_after(_LOAD_S):
                return await anyio.to_thread.run_sync(
                    self._cache.load, limiter=self._limiter, abandon_on_cancel=True
                )
        except (CacheError, TimeoutError) as error:
            reason = str(error) or "the disk does not answer"
            log.warning("%s: no configuration from the cache: %s", self._service, reason)
            return None

    @property
    def _key(self) -> str:
        return f"{self._service}.{DEFAULT_NAME}"

    def _on_hint(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self._wake.set()

    async def _follow(self) -> None:
        while True:
            with anyio.move_on_after(_CHECK_S * (0.8 + 0.4 * self._chance())):
                await self._wake.wait()
            self._wake = anyio.Event()
            await anyio.sleep(_SETTLE_S)
            assert self._bucket is not None
            try:
                self._take(await self._bucket.get(self._key, timeout_s=_READ_S))
            except KvError as error:  # the last good value stays, as long as it takes
                log.debug("%s: its configuration cannot be read now: %s", self._service, error)
            if (
                self._older >= 0
            ):  # from a copy that is behind, or the store was made anew: the next look will tell
                await anyio.sleep(1.0)
                self._wake.set()

    def _take(self, found: Found | None) -> None:
        """What stands in the store now; whoever has left takes nothing any more."""
        if self.closed:
            return
        revision = 0 if found is None else found.revision
        if found is not None and revision == self.revision and self.value is not None:
            self._older = -1
            return
        if revision < self.revision and revision != self._older:
            self._older = revision
            return
        self._older = -1
        if found is None or found.deleted:
            self._to_default(revision)
            return
        try:
            value = self._declared.decode(found.value)
        except ConfigError as error:
            self._refuse(revision, str(error))
            return
        self._use(value, revision, found.value)

    def _to_default(self, revision: int) -> None:
        if revision == 0 and self.revision == 0:
            return
        default = self._declared.default()
        if default is None:
            self._refuse(revision, f"it was deleted, and {self._declared.undefined}")
        else:
            self._use(default, revision, None)

    def _refuse(self, revision: int, reason: str) -> None:
        reason = one_line(reason, 512)  # it may quote what stands in the store
        if reason == self.rejected:
            return
        self.rejected = reason
        log.error(
            "%s: revision %d of its configuration was not applied, the last good one stays: %s",
            self._service, revision, reason,
        )  # fmt: skip
        self._tell(EventKind.CONFIG_REJECTED, f"{self._service}@{revision}", reason[:512])

    def _use(self, value: Any, revision: int, raw: bytes | None) -> None:
        self.value, self.revision, self.rejected = value, revision, ""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()
        log.info("%s: revision %d of its configuration is in effect", self._service, revision)
        self._tell(EventKind.CONFIG_APPLIED, f"{self._service}@{revision}", "read from the bus")
        self._unsaved = (raw,)
        if not self._saving:
            self._saving = True
            self._pool.start(self._save())

    async def _save(self) -> None:
        """Keep on disk what holds; what changed meanwhile comes next, and of several changes the last."""
        try:
            while self._unsaved is not None:
                (raw,), self._unsaved = self._unsaved, None
                try:
                    await anyio.to_thread.run_sync(
                        self._cache.save, raw, limiter=self._limiter, abandon_on_cancel=True
                    )
                except CacheError as error:
                    log.warning("%s: its configuration is not kept on disk: %s", self._service, error)
        finally:
            self._saving = False

    def check(self, value: bytes) -> None:
        """:class:`ConfigError` where this instance would refuse ``value``."""
        self._declared.decode(value)

    def metadata(self) -> dict[str, str]:
        """What ``$SRV`` says of it."""
        found = {"mesh.config": str(self.revision)}
        if self.rejected:
            found["mesh.config.rejected"] = self.rejected[:512]
        return found

    # -- the connection -----------------------------------------------------------------------------

    def on_disconnect(self, reason: str) -> None:
        """What was known stays."""

    def on_reconnect(self) -> None:
        """Hints may have been missed."""
        self._wake.set()

    def on_denied(self, operation: str, subject: str) -> None:
        """The start has raised it; later it is logged by the transport, and the value read every half a minute."""

    async def close(self) -> None:
        """Follow no more; the value stays."""
        self.closed = True
        self.changed.set()
        if self._transport is not None:
            self._transport.remove_listener(self)
            if self._subscription is not None:
                self._transport.unsubscribe(self._subscription)
        self._pool.cancel_all()
        await self._pool.join(1.0)


def _report(error: BaseException) -> None:
    log.error("the configuration is not followed any more", exc_info=error)
