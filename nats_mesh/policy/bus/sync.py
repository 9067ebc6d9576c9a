"""Following the store: a hint, a read, a set that is swapped as a whole.

The store is asked for what is new on a hint, after a reconnect and every half minute; one read at a time, and
hints that come meanwhile cause exactly one more. What a hint carries is never looked at. What to make of a read
is decided in :mod:`nats_mesh.core.replica`, what to make of the documents in :mod:`nats_mesh.policy.bus.documents`.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Final

import anyio

from nats_mesh.core.presence import Rejection, Standing
from nats_mesh.core.replica import Record, Replica, Step
from nats_mesh.errors import PermissionDeniedError
from nats_mesh.policy.bus.cache import PolicyCache
from nats_mesh.policy.bus.documents import Builder, Built
from nats_mesh.policy.bus.keeping import Keeper
from nats_mesh.policy.bus.reading import StoreReader
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.wire import headers as h
from nats_mesh.wire.kv import KvAbsentError, KvDeniedError, KvError
from nats_mesh.wire.kv_log import KvLog
from nats_mesh.wire.loop import TaskPool, in_thread
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["CHECK_S", "PolicySync", "Reach"]

log = logging.getLogger("nats_mesh.policies")

#: How often to look without a hint, give or take a fifth (seconds).
CHECK_S: Final = 30.0
JITTER: Final = 0.2
#: After an answer that did not come: the first and the longest pause (seconds).
_AGAIN_S, _AGAIN_MAX_S = 0.5, 30.0
#: After hints that brought fewer messages than there were hints: the server that answered may be a little behind the
#: one that told. After a reconnect nobody knows how many there were.
_BEHIND_S: Final = (0.02, 0.1, 0.5)
#: How many reads hints may cause at once, and how many a second after that.
_BURST, _RATE_PER_S = 20.0, 20.0
_UNKNOWN: Final = 1 << 30
#: More than this is built in a thread: documents that are new, documents in all.
_INLINE_NEW, _INLINE_ALL = 16, 200


class Reach(enum.Enum):
    """What is known of the store."""

    UNKNOWN = "has not answered yet"
    READ = "is followed"
    ABSENT = "does not exist: no JetStream, or no bucket"
    EMPTY = "has no epoch: it was made by other means, or emptied"
    DENIED = "may not be read with these credentials"
    SILENT = "does not answer"


class PolicySync:
    """Keeps one member at the store's newest policies.

    ``apply`` gets every new set and its revision (epoch, sequence), on the loop; if it raises, the set counts as
    rejected. ``stands`` is called after whatever changed where the member stands; it must not raise. ``reach`` says
    what is known of the store, ``reads`` counts questions, ``hints`` what came as one.
    """

    def __init__(
        self,
        *,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        now: Callable[[], float],
        chance: Callable[[], float],
        apply: Callable[[PolicySet, tuple[int, int]], None],
        stands: Callable[[Standing], None],
        cache: PolicyCache | None = None,
        check_s: float = CHECK_S,
    ) -> None:
        self.reach = Reach.UNKNOWN
        self.standing = Standing(source="bus")
        self.replica = Replica()
        self.hints = 0
        #: Set once the store has said anything, and once what it said is in effect, or cannot be.
        self.heard = anyio.Event()
        self.settled = anyio.Event()
        self._subjects = subjects
        self._transport = transport
        self._log = KvLog(subjects.policy_bucket, transport=transport, mux=mux)
        self._reader = StoreReader(self._log, self.replica, self.heard)
        self._now = now
        self._chance = chance
        self._apply = apply
        self._stands = stands
        self._keeper = Keeper(cache)
        self._check_s = check_s
        self._builder = Builder(subjects.namespace)
        self._limiter = anyio.CapacityLimiter(1)
        self._pool = TaskPool(_report)
        self._wake = anyio.Event()
        self._hinted = False
        #: How many messages hints have told of that were not read yet, and how many looks have not brought them all.
        self._owed = 0
        self._behind = 0
        self._failed = 0
        #: Whether the last look was not certain yet; and the entries that were made into a set last.
        self._uncertain = False
        self._taken: Mapping[str, Record] | None = None
        self._room, self._room_at = _BURST, now()
        self._denied_hints = False
        self._subscription: Subscription | None = None

    @property
    def current(self) -> PolicySet:
        """The set that is in effect."""
        return self._builder.current

    @property
    def reads(self) -> int:
        """How many questions were asked of the store."""
        return self._reader.reads

    # -- beginning and ending -----------------------------------------------------------------------

    async def start(self) -> None:
        """Listen to hints, and read for the first time; returns without waiting for the answer."""
        self._transport.add_listener(self)
        self._subscription = self._transport.subscribe(self._subjects.policy_hints, self._on_hint)
        try:
            await self._transport.fence()
        except PermissionDeniedError:
            if not self._denied_hints:
                raise
            log.warning("policies are looked for every %g s only: hints may not be heard", self._check_s)
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        self._pool.start(self._run())

    async def close(self) -> None:
        """Follow no more."""
        self._transport.remove_listener(self)
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        self._pool.cancel_all()
        await self._pool.join(1.0)
        await self._keeper.close()

    # -- what wakes it ------------------------------------------------------------------------------

    def _on_hint(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self.hints += 1
        self._owed = min(_UNKNOWN, self._owed + 1)
        self._hinted = True
        self._behind = 0
        self._wake.set()

    def on_disconnect(self, reason: str) -> None:
        """A read that was under way fails by itself; what is known stays."""

    def on_reconnect(self) -> None:
        """Hints may have been missed."""
        self._failed = self._behind = 0
        self._owed = _UNKNOWN
        if self.reach is Reach.DENIED:
            self.reach = Reach.UNKNOWN
        self._hinted = True
        self._wake.set()

    def on_denied(self, operation: str, subject: str) -> None:
        """The transport has logged it."""
        if operation == "subscription" and subject == self._subjects.policy_hints:
            self._denied_hints = True

    # -- the loop -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Read, apply, wait; until cancelled. Whatever one turn meets, the next one comes."""
        while True:
            self._wake = anyio.Event()
            hinted, self._hinted = self._hinted, False
            try:
                pause_s = await self._turn(hinted)
            except Exception as error:
                log.exception("following the policies met something unexpected; it goes on")
                self.replica.forget()
                self._taken = None
                pause_s = self._after_failure(f"{type(error).__name__}: {error}")
            finally:
                if not self._uncertain or self.replica.applied:  # what is known from before will do meanwhile
                    self.settled.set()
            with anyio.move_on_after(pause_s):
                await self._wake.wait()
            await self._spare()

    async def _spare(self) -> None:
        """Hints are anybody's to send: reads are bounded in rate, whatever comes."""
        now = self._now()
        self._room = min(_BURST, self._room + (now - self._room_at) * _RATE_PER_S)
        self._room_at = now
        self._room -= 1.0
        if self._room < 0.0:
            await anyio.sleep(-self._room / _RATE_PER_S)

    async def _turn(self, hinted: bool) -> float:
        """One read to the end of the log, and what follows from it; returns how long to wait for a hint."""
        if self.reach is Reach.DENIED:
            return self._check_s
        before = self.replica.applied
        try:
            step = await self._reader.read()
        except KvDeniedError as error:
            self._unreached(Reach.DENIED, str(error))
            return self._check_s
        except KvAbsentError as error:
            self._unreached(Reach.ABSENT, str(error))
            return self._looking(hinted)
        except KvError as error:
            self._unreached(Reach.SILENT, str(error))
            return self._after_failure("")
        self._failed = 0
        self._owed = max(0, self._owed - max(0, self.replica.applied - before))
        self._uncertain = step is Step.LATER
        if step is Step.LATER:
            return self.replica.pause_s
        if step is Step.NO_EPOCH:
            self._unreached(Reach.EMPTY, f"the bucket {self._log.name!r} has no epoch")
            return self._looking(hinted)
        if step is Step.TOO_MUCH:
            self._taken = None
            self._refuse("*", "the store holds more policies than a member takes")
            return self._jittered()
        await self._reached()
        if self._taken is not self.replica.entries:
            await self._take()
            if self._owed and not self.replica.waiting:
                return self._looking(True)
        elif not self.replica.waiting:
            return self._looking(hinted)
        self._behind = 0
        return self.replica.pause_s if self.replica.waiting else self._jittered()

    def _looking(self, hinted: bool) -> float:
        """When to look again where a read brought nothing, or not all: soon for a while after a hint."""
        if (hinted or self._behind) and self._behind < len(_BEHIND_S):
            self._behind += 1
            return _BEHIND_S[self._behind - 1]
        self._behind = self._owed = 0
        return self._jittered()

    def _jittered(self) -> float:
        return self._check_s * (1.0 - JITTER + 2.0 * JITTER * self._chance())

    def _after_failure(self, why: str) -> float:
        if why:
            self._refuse("*", why)
        self._failed += 1
        longest = min(_AGAIN_MAX_S, _AGAIN_S * 2.0 ** min(self._failed, 10))
        return longest * (1.0 - JITTER + 2.0 * JITTER * self._chance())

    # -- applying -----------------------------------------------------------------------------------

    async def _take(self) -> None:
        """Build what was read, and put it into effect as a whole."""
        entries, revision = self.replica.entries, (self.replica.epoch, self.replica.applied)
        known = self._taken or {}
        build = partial(self._builder.build, entries, self.replica.epoch)
        if len(entries) <= _INLINE_ALL and _new(entries, known) <= _INLINE_NEW:
            built = build()
        else:
            built = await in_thread(build, self._limiter)
        self._taken = entries
        self._swap(built, revision)
        if self.reach is Reach.READ:
            self._keeper.keep(self.replica)

    def _swap(self, built: Built, revision: tuple[int, int]) -> None:
        policies = built.policies
        if policies is None:
            self._stand(self.standing.revision, built.rejections, built.rejected)
            return
        before = self._builder.current
        if policies is not before:
            try:
                self._apply(policies, revision)
            except Exception as error:
                self._apply(before, self.standing.revision)  # the last good set stays, and not half of each
                log.exception("policies of revision %d.%d could not be applied", *revision)
                refused = Rejection(policy="*", reason=h.one_line(str(error), 512), revision=revision)
                self._stand(self.standing.revision, (refused, *built.rejections[:-1]), built.rejected + 1)
                return
        self._builder.accept(policies)
        self._stand(revision, built.rejections, built.rejected)

    def _refuse(self, policy: str, reason: str) -> None:
        revision = (self.replica.epoch, self.replica.applied)
        refused = Rejection(policy=policy, reason=h.one_line(reason, 512), revision=revision)
        self._stand(self.standing.revision, (refused,), 1)

    def _stand(self, revision: tuple[int, int], rejections: tuple[Rejection, ...], rejected: int) -> None:
        source = "bus" if self.reach is Reach.READ else self.standing.source
        standing = Standing(source=source, revision=revision, rejections=rejections, rejected=rejected)
        if standing != self.standing:
            self.standing = standing
            self._stands(standing)

    # -- what is known of the store -----------------------------------------------------------------

    async def _reached(self) -> None:
        if self.reach is not Reach.READ:
            self.reach = Reach.READ
            log.info("policies come from the bus (%s)", self._log.name)
            # What reads documents takes a while to import: not in the turn in which the first one comes.
            await in_thread(partial(import_module, "nats_mesh.policy.reader"), self._limiter)

    def _unreached(self, reach: Reach, why: str) -> None:
        """Say it once: what is in effect stays in effect."""
        self.heard.set()
        if self.reach is not reach:
            lost = self.reach is Reach.READ or reach in (Reach.EMPTY, Reach.DENIED)
            self.reach = reach
            empty = not len(self.current)
            if reach is Reach.ABSENT and empty and not lost:  # every mesh begins so
                log.info(
                    "no policies here yet, and no policy store: the defaults hold (`nats-mesh policy apply` makes one; "
                    "it needs JetStream)"
                )
            else:
                level = logging.WARNING if lost else logging.INFO
                stays = "the defaults hold" if empty else "the last policies stay in effect"
                log.log(level, "the policy store %s (%s); %s", reach.value, why, stays)

    # -- the copy on disk ---------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take what was kept on disk; where that cannot be used, a warning and nothing else."""
        await self._keeper.restore(self.replica)

    async def use_restored(self) -> None:
        """Put what :meth:`restore` took into effect, where the store has not answered."""
        if not self.replica.applied or self._taken is not None or self.reach is Reach.READ:
            return
        self.standing = Standing(source="cache")
        log.warning("the policy store %s; policies come from the cache", self.reach.value)
        await self._take()

    def __repr__(self) -> str:
        counts = f"{self.hints} hints, {self.reads} reads"
        return f"<PolicySync {self._log.name} {self.reach.name} {self.replica!r}, {counts}>"


def _new(entries: Mapping[str, Record], known: Mapping[str, Record]) -> int:
    """How many of ``entries`` are others than those that are ``known``."""
    return sum(known.get(key) is not record for key, record in entries.items())


def _report(error: BaseException) -> None:
    log.error("following the policies ended", exc_info=error)
