"""One rollout, carried out by whoever holds its lease.

Every second the record is written by compare-and-set: that renews the lease, keeps the progress, and brings in what
operators want. Only then, and only where that worked, is the route changed, by compare-and-set on the revision that
the record names; so what is written to a route was meant by the record as it stood. Whoever has lost the lease
fails with the record before he gets to the route. A write that was held up between the two is for the weight that
the record said then. His successor finds it there, or replaces the revision that it was for: where another weight is
meant by now, he writes the route also where it says what it should, so that no write is left that could still succeed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.rollout import Course, Happened, Hold, Phase, Progress
from nats_mesh.core.sync_state import policy_label
from nats_mesh.errors import ConfigError, MeshError
from nats_mesh.mesh import Mesh
from nats_mesh.policy.bus.revisions import Change
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.rollout.book import ASK_S, LEASE_S, RENEW_S, Book, Entry
from nats_mesh.rollout.route import InTheWayError, route_with
from nats_mesh.rollout.telling import KIND_OF, Teller
from nats_mesh.rollout.watching import SubsetWatch
from nats_mesh.wire.kv import Found, KvBucket, KvConflictError, KvError

__all__ = ["Carrier", "LostError"]

log = logging.getLogger("nats_mesh.rollout")

#: A route may be read from a copy that is behind; so many times in a row it is an older one (seconds, about).
_BEHIND: Final = 5
_ROUNDS: Final = 5


class LostError(Exception):
    """Somebody else carries it out now."""


class Carrier:
    """Carries out the rollout of ``entry``, which this runner holds. ``holder`` is how it signs."""

    def __init__(
        self,
        mesh: Mesh,
        book: Book,
        entry: Entry,
        *,
        holder: str,
        teller: Teller,
        clock: Clock = SYSTEM_CLOCK,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
    ) -> None:
        client = mesh.client
        self.record, self._revision = entry
        self._holder = holder
        self._term = entry.record.term
        self._mesh = mesh
        self._book = book
        self._teller = teller
        self._now = clock.monotonic
        self._lease_s = lease_s
        self._renew_s = renew_s
        self.course = Course(self.record.rules, self.record.progress, self._now())
        self._store = PolicyStore(
            mesh.namespace, transport=client.transport, mux=client.mux, operator=mesh.name, timeout_s=ASK_S
        )
        self._policies = KvBucket(
            client.subjects.policy_bucket, transport=client.transport, mux=client.mux, now=clock.monotonic
        )
        self._watch: SubsetWatch | None = None
        #: Until when the lease surely runs; it began when the write was sent, not when it was confirmed.
        self._leased_until = self._now() + lease_s
        #: What has happened and is not in the store yet; it is told when it is.
        self._untold: list[Happened] = []
        #: An operator has decided: the route counts as it stands, whoever wrote it.
        self._adopt = False
        self._behind = 0
        self._waits = ""
        self._unknown = 0
        # The one before may have written what the record says, or may be about to, without a word of it here.
        self._attempt()

    async def run(self) -> None:
        """Carry it out to its end; :class:`LostError` where somebody else does. Cancelled, it gives the lease back."""
        lost: LostError | None = None
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    while not self.course.progress.phase.ended:
                        await self._turn(tasks)
                except LostError as error:
                    lost = error
                tasks.cancel_scope.cancel()
            if lost is not None:
                raise lost
            await self._finish()
        finally:
            if self._watch is not None:
                self._watch.close()

    async def release(self) -> None:
        """Give the lease back, so that somebody else goes on at once."""
        try:
            await self._renew(holder="")
        except (MeshError, LostError) as error:
            log.info("the lease on the rollout of %s runs out by itself: %s", self.record.service, error)

    # -- one turn -----------------------------------------------------------------------------------

    async def _turn(self, tasks: anyio.abc.TaskGroup) -> None:
        start = self._now()
        try:
            self._untold += await self._know(tasks)
        except MeshError as error:  # without eyes it does not go on, but it can still be told to go back
            self._untold += self.course.wait(f"nobody can see how calls end: {error}")
        try:
            self._untold += self._look()
            self._untold += self._obey()
            await self._renew()
            self._untold += await self._routed()
            self._waits = ""
            if self._tell() or self.record.asked:
                return  # what has changed is kept at once, what is wanted is done at once
        except MeshError as error:
            self._away(error)
        await anyio.sleep(max(0.0, start + self._renew_s - self._now()))

    def _tell(self) -> int:
        """Tell what has happened and is kept; how much that was."""
        untold, self._untold = self._untold, []
        for each in untold:
            self._teller.tell(KIND_OF[each.what], each.detail, self.record, each.numbers)
        return len(untold)

    async def _know(self, tasks: anyio.abc.TaskGroup) -> list[Happened]:
        """Watch the two subsets as the service's `Destination` has them now."""
        rules, policies = self.record.rules, self._mesh.client.outbound.policies
        known = policies.subsets(self.record.service)
        old, new = known.get(rules.old), known.get(rules.new)
        if old is None or new is None:
            self._unknown += 1
            if self._unknown < _BEHIND:
                return []  # policies have not come yet
            missing = rules.old if old is None else rules.new
            return self.course.wait(f"no Destination of {self.record.service} names a subset {missing}")
        self._unknown = 0
        if self._watch is None:
            watch = SubsetWatch(self._mesh, self.record.service, old, new)
            try:
                await watch.open()
            except BaseException:
                watch.close()
                raise
            self._watch = watch
            tasks.start_soon(watch.lease)
        else:
            self._watch.select(old, new)
        if self._watch.there() is None and self._watch.problem:
            return self.course.wait(f"nobody knows who is there: {self._watch.problem}")
        return []

    def _look(self) -> list[Happened]:
        """Let time pass, and look at the gates where that is due."""
        now, watch = self._now(), self._watch
        there = None if watch is None else watch.there()
        if watch is None or there is None or now >= self._leased_until or self._waits:
            self.course.skip(now)
            return []
        happened = self.course.advance(now, there)
        if self.course.due(now):
            happened += self.course.check(now, there, watch.take())
        return happened

    def _obey(self) -> list[Happened]:
        """Do what an operator wants, and say what became of it."""
        record = self.record
        if not record.asked:
            return []
        happened: list[Happened] = []
        said = f"by {record.wished_by}" + (f": {record.wish_text}" if record.wish_text else "")
        answer = "done"
        on_route = self.course.progress.hold is Hold.ROUTE
        try:
            if record.wish == "pause":
                happened = self.course.pause(said)
            elif record.wish == "resume":
                happened = self.course.resume(self._now(), said)
                if self._watch is not None:
                    self._watch.take()  # what ended in the pause is not of what comes now
            elif record.wish == "abort":
                happened = self.course.abort(said)
            self._adopt |= on_route and record.wish in ("resume", "abort")
        except ConfigError as error:
            answer = str(error)
        self.record = msgspec.structs.replace(record, answered=record.wished, answer=answer)
        return happened

    def _away(self, error: MeshError) -> None:
        """The store does not answer: nothing is changed until it does. Calls go on as they are routed."""
        self.course.skip(self._now())
        if not self._waits:
            log.warning("rollout of %s waits: %s", self.record.service, error)
        self._waits = str(error)

    # -- the lease ----------------------------------------------------------------------------------

    async def _renew(self, *, holder: str | None = None) -> None:
        """Write the record; an operator may have written it meanwhile, and then his wish is in it."""
        for _ in range(_ROUNDS):
            sent = self._now()
            progress: Progress = self.course.progress
            self.record = msgspec.structs.replace(
                self.record,
                progress=progress,
                calls=self.course.calls,
                holder=self._holder if holder is None else holder,
            )
            try:
                self._revision = await self._book.write(self.record, self._revision)
            except KvConflictError:
                await self._reread()
                continue
            self._leased_until = sent + self._lease_s
            return
        raise KvConflictError(f"the record of {self.record.service} is written by others all the time")

    async def _reread(self) -> None:
        entry = await self._book.read(self.record.service)
        if entry is None:
            raise LostError("its record is gone")
        if (entry.record.run, entry.record.term) != (self.record.run, self._term):
            raise LostError("somebody else carries it out now")
        if entry.record.holder != self._holder:
            raise LostError("the lease was given back")
        theirs = entry.record
        self._revision = entry.revision
        self.record = msgspec.structs.replace(
            self.record,
            wish=theirs.wish,
            wished=theirs.wished,
            wished_by=theirs.wished_by,
            wish_text=theirs.wish_text,
        )

    async def _finish(self) -> None:
        """Keep how it ended; the lease is given back with that."""
        while True:
            try:
                await self._renew(holder="")
                self._tell()
                return
            except KvError as error:
                self._away(error)
                await anyio.sleep(self._renew_s)

    # -- the route ----------------------------------------------------------------------------------

    async def _routed(self) -> Sequence[Happened]:
        """See that the route says what it should: read it, and write it where it does not."""
        course, record = self.course, self.record
        at = course.progress
        if at.hold is Hold.ROUTE or self._now() >= self._leased_until:
            return []
        found = await self._policies.get(record.route, timeout_s=ASK_S)
        revision = 0 if found is None else found.revision
        value = None if found is None or found.deleted else found.value
        if revision < record.revision and self._behind < _BEHIND:
            self._behind += 1
            return []
        self._behind = 0
        changed = revision != record.revision and not self._adopt
        try:
            wanted = self._with(value, at.weight)
            own = value is not None and any(self._with(value, each) == value for each in record.attempted)
        except InTheWayError as error:
            return course.hindered(str(error))
        if changed and not own:
            return course.hindered(await self._by_whom(revision, found))
        # Where another weight was attempted, its write may still be on its way, for the revision that stands there.
        late = any(each != at.weight for each in record.attempted)
        if wanted == value and not late:
            return self._said(revision)
        if wanted != value and (course.is_written or at.phase is Phase.PAUSED):
            if at.phase is Phase.PAUSED and record.routed != at.weight:
                return []  # it was paused before this weight was written: it is when it is resumed
            return course.hindered(await self._by_whom(revision, found))
        if self._now() >= self._leased_until:  # the reads took long, or this process stood still
            return []
        self._attempt()
        try:
            done = await self._store.apply(
                [Change(record.route, wanted, expected=revision)],
                message=f"rollout {record.rollout}: {at.weight}% to {record.rules.new}",
            )
        except KvConflictError:
            return []  # somebody wrote between the two: it is read again in the next turn
        return self._said(done.sequence)

    def _attempt(self) -> None:
        """The route may say what it should from now on, also where no answer comes."""
        weight, attempted = self.course.progress.weight, self.record.attempted
        if weight not in attempted:
            self.record = msgspec.structs.replace(self.record, attempted=(*attempted, weight))

    def _with(self, value: bytes | None, weight: int) -> bytes:
        record = self.record
        return route_with(
            value,
            name=record.route.partition(".")[2],
            service=record.service,
            old=record.rules.old,
            new=record.rules.new,
            weight=weight,
            sticky=record.sticky,
        )

    def _said(self, revision: int) -> list[Happened]:
        """The route is known to say what it should."""
        weight = self.course.progress.weight
        self._adopt = False
        self.record = msgspec.structs.replace(self.record, revision=revision, routed=weight, attempted=())
        if self.course.is_written:
            return []
        if self._watch is not None:
            self._watch.take()  # what ended before this is not of this step
        return self.course.written(self._now())

    async def _by_whom(self, revision: int, found: Found | None) -> str:
        name = policy_label(self.record.route)
        last = await self._store.revision(self.record.route)
        who = f" by {last.operator}" if last is not None and last.operator else ""
        did = "deleted" if found is None or found.deleted else "changed"
        return f"{name} was {did}{who} meanwhile (revision {revision}): look at it, then resume or abort"

    def __repr__(self) -> str:
        return f"<Carrier of {self.record.service}: {self.course!r}>"
