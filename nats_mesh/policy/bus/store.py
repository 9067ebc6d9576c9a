"""The policy store of one namespace, for operators: make it, read it, change it, look back.

A store is the key-value bucket ``mesh_policy_<namespace>``. A change of several documents is one atomic batch with
compare-and-set for each key: all of it is stored, or nothing. Where the server cannot do that (before 2.12), or
the change has more than 1,000 documents, the documents are stored one by one, if that is allowed; what then
fails in the middle is taken back, and an error says what could not be.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final

import anyio

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.core.replica import EPOCH_KEY, OWN_PREFIX
from nats_mesh.policy.bus.bucket import HISTORY, Bucket
from nats_mesh.policy.bus.ledger import Ledger
from nats_mesh.policy.bus.revisions import (
    Applied,
    Change,
    ConflictError,
    NoEpochError,
    NotAtomicError,
    PartlyStoredError,
    Revision,
    Snapshot,
    UnknownPastError,
    by_sequence,
    check_key,
    dropped_before,
    epoch_of,
    instant_of,
    revision_of,
    snapshot_of,
    writes_of,
)
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.kv import KvAbsentError, KvConflictError, KvError
from nats_mesh.wire.kv_log import MAX_BATCH, KvTooManyKeysError, Message, Page, Write
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = [
    "Applied",
    "Change",
    "ConflictError",
    "NoEpochError",
    "NotAtomicError",
    "PartlyStoredError",
    "PolicyStore",
    "Revision",
    "Snapshot",
    "UnknownPastError",
]

log = logging.getLogger("nats_mesh.policies")

#: How soon to ask again a bucket of which not all servers know yet (seconds).
_NOT_YET_S: Final = 0.05


class PolicyStore:
    """The store of ``namespace`` over an operator's connection: ``PolicyStore(mesh.namespace,
    transport=mesh.client.transport, mux=mesh.client.mux)``. Methods raise a :class:`~nats_mesh.wire.kv.KvError`
    where the store does not do it."""

    def __init__(
        self,
        namespace: str,
        *,
        transport: Transport,
        mux: ReplyMux,
        operator: str = "",
        clock: Clock = SYSTEM_CLOCK,
        timeout_s: float = 5.0,
    ) -> None:
        self.subjects = Subjects(namespace)
        self.bucket: Bucket | None = None
        self._ledger = Ledger(
            "policy",
            self.subjects.policy_bucket,
            subjects=self.subjects,
            transport=transport,
            mux=mux,
            operator=operator or transport.name,
            clock=clock,
            timeout_s=timeout_s,
        )
        self._log = self._ledger.log
        self._clock = clock
        self._timeout_s = timeout_s

    async def open(self, *, make: bool = True, replicas: int | None = None) -> Bucket:
        """Make the bucket where there is none, and bring one that is there up to date; then see that it has an epoch.

        ``replicas``: 3 in a cluster of three and more, else 1. With ``make=False`` an absent bucket is a
        :class:`~nats_mesh.wire.kv.KvAbsentError`, and one that is there stays as it is.
        """
        self.bucket = await self._ledger.open(
            hints=self.subjects.policy_hints,
            make=make,
            replicas=replicas,
            description="policies of a mesh namespace",
        )
        if make and await self._first_epoch() == 0:
            with contextlib.suppress(ConflictError):  # somebody else opened it at the same moment
                await self.renew()
        return self.bucket

    # -- looking ------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """What stands there now. :class:`NoEpochError` where it is no store."""
        return snapshot_of(await self._newest())

    async def standing(self) -> tuple[Snapshot, Mapping[str, str]]:
        """As :meth:`snapshot`, with the server's instant of each key's newest revision, a deletion's too."""
        messages = await self._newest()
        times = {message.key: message.time for message in messages if not message.key.startswith(OWN_PREFIX)}
        return snapshot_of(messages), times

    async def _newest(self) -> list[Message]:
        try:
            page = await self._log.latest(timeout_s=self._timeout_s)
            messages = page.messages
        except KvTooManyKeysError:
            messages = [message async for message in self._all()]
        self._ledger.seen(messages)
        return messages

    async def history(self, key: str) -> list[Revision]:
        """The revisions of ``key`` that are kept, the oldest first: at most 64."""
        check_key(key, stands=True)
        return await self._ledger.history(key)

    async def log(self) -> list[Revision]:
        """Every revision of every key that is kept, the oldest first."""
        return [
            revision_of(message) async for message in self._all() if not message.key.startswith(OWN_PREFIX)
        ]

    async def at(self, *, sequence: int | None = None, time: str | None = None) -> Snapshot:
        """What stood there at a ``sequence``, or at a ``time`` (the server's, RFC 3339 in UTC).

        :class:`UnknownPastError` where that is longer ago than what is kept: of a key 64 revisions, and nothing
        from before it was purged.
        """
        then, lost = await self._then(sequence, time)
        if not then:
            raise UnknownPastError("the store was made later, or nothing is kept of that time", ())
        if lost:
            raise UnknownPastError(
                f"what stood there then is not kept any more of: {', '.join(lost[:10])}"
                + (f" and {len(lost) - 10} more" if len(lost) > 10 else ""),
                lost,
            )
        return snapshot_of(sorted(then.values(), key=by_sequence))

    async def known_at(self, sequence: int) -> tuple[dict[str, Revision], list[str]]:
        """What stood there at a ``sequence``, as far as it is kept, and the keys of which it is not."""
        then, lost = await self._then(sequence, None)
        stood = {
            key: revision_of(message)
            for key, message in then.items()
            if message.value is not None and not key.startswith(OWN_PREFIX)
        }
        return stood, [key for key in lost if not key.startswith(OWN_PREFIX)]

    async def _then(self, sequence: int | None, time: str | None) -> tuple[dict[str, Message], list[str]]:
        """The messages that were each key's newest then, and the keys of which that one may have been dropped."""
        if (sequence is None) == (time is None):
            raise ValueError("say sequence or time")
        moment = None if time is None else instant_of(time)
        then: dict[str, Message] = {}
        first: dict[str, Message] = {}
        count: dict[str, int] = {}
        async for message in self._all():
            first.setdefault(message.key, message)
            count[message.key] = count.get(message.key, 0) + 1
            if sequence is not None and message.sequence > sequence:
                continue
            if moment is not None and instant_of(message.time) > moment:
                continue
            then[message.key] = message
        # Of a key with as many revisions as are kept, older ones may have been dropped.
        lost = sorted(
            key
            for key, message in first.items()
            if key not in then and (count[key] >= HISTORY or dropped_before(message))
        )
        return then, lost

    async def revision(self, key: str) -> Revision | None:
        """What stands under ``key`` now, a deletion included; ``None``: nothing ever did."""
        found = await self.history(key)
        return found[-1] if found else None

    async def _all(self) -> AsyncIterator[Message]:
        """Every message that is kept, in order."""
        after = 0
        while True:
            page: Page = await self._log.after(after + 1, timeout_s=self._timeout_s)
            for message in page.messages:
                yield message
            if not page.more or not page.messages:
                return
            after = page.messages[-1].sequence

    async def _epoch(self) -> int:
        found = await self._log.after(1, key=EPOCH_KEY, timeout_s=self._timeout_s)
        return epoch_of(found.messages[-1]) if found.messages else 0

    async def _first_epoch(self) -> int:
        """As :meth:`_epoch`, of a bucket that may just have been made: in a cluster it takes a moment until each server
        knows who answers for it."""
        until = self._clock.monotonic() + self._timeout_s
        while True:
            try:
                return await self._epoch()
            except KvAbsentError:
                if self._clock.monotonic() >= until:
                    raise
            await anyio.sleep(_NOT_YET_S)

    # -- changing -----------------------------------------------------------------------------------

    async def apply(
        self,
        changes: Iterable[Change],
        *,
        message: str = "",
        change: str = "",
        back_to: int | None = None,
        one_by_one: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Applied:
        """Store all of ``changes``, or nothing; ``message`` says why. ``change`` is the id of a larger one that
        this is a step of. ``back_to``: it puts back what stood there at that revision (0: nothing did).

        :class:`ConflictError` where another revision stands under one of the keys than its change expects.
        :class:`NotAtomicError` where the server cannot store them as one; with ``one_by_one`` they are then
        stored one after the other, and what fails in the middle is taken back: :class:`PartlyStoredError` where
        that fails, too. An error that is a ``maybe`` (no answer came) leaves open whether all of it was stored:
        look again. ``progress`` gets each key that was stored, where that is done one by one.
        """
        writes = writes_of(changes)
        if not writes:
            raise ValueError("a change of nothing")
        bucket = self.bucket or await self.open(make=False)
        epoch = await self._epoch()
        if epoch == 0:
            raise NoEpochError(f"the bucket {self._log.name} has no epoch: was it emptied? Renew it first")
        change, lines = self._ledger.said(message, change, back_to=back_to)
        why = ""
        if len(writes) > MAX_BATCH:
            why = f"a change of {len(writes)} documents: at most {MAX_BATCH} are stored as one"
        elif len(writes) > 1 and not bucket.atomic:
            why = "this server cannot store several documents as one (it needs to be 2.12 or newer)"
        if why and not one_by_one:
            raise NotAtomicError(f"{why}; make smaller changes, or have them stored one by one")
        if why:
            sequences = await self._one_by_one(writes, lines, progress)
            last = max(sequences.values())
            unrecorded = await self._ledger.record(
                writes, sequences, change=change, message=message, epoch=epoch
            )
            return Applied(
                epoch=epoch,
                sequence=last,
                sequences=sequences,
                change=change,
                atomic=False,
                unrecorded=unrecorded,
            )
        try:
            last = await self._ledger.write(writes, lines, batch=new_id())
        except KvConflictError as error:
            raise await self._conflict(writes) from error
        first = last - len(writes) + 1
        sequences = {write.key: first + index for index, write in enumerate(writes)}
        unrecorded = await self._ledger.record(writes, sequences, change=change, message=message, epoch=epoch)
        return Applied(
            epoch=epoch,
            sequence=last,
            sequences=sequences,
            change=change,
            atomic=True,
            unrecorded=unrecorded,
        )

    async def renew(self) -> int:
        """Give the store a new epoch: after it was purged, restored or made by other means. Members then take
        what stands there as the whole truth. Returns the epoch."""
        found = await self._log.after(1, key=EPOCH_KEY, timeout_s=self._timeout_s)
        before = found.messages[-1] if found.messages else None
        epoch = round(self._clock.time() * 1000)
        expected = 0
        if before is not None:
            epoch, expected = max(epoch, epoch_of(before) + 1), before.sequence
        _, lines = self._ledger.said("a new epoch")
        write = Write(EPOCH_KEY, str(epoch).encode(), expected)
        try:
            await self._ledger.write([write], lines)
        except KvConflictError as error:
            raise await self._conflict([write]) from error
        return epoch

    async def _one_by_one(
        self, writes: Sequence[Write], lines: str, progress: Callable[[str], None] | None
    ) -> dict[str, int]:
        before = await self.snapshot()
        stored: dict[str, int] = {}
        for write in writes:
            try:
                stored[write.key] = await self._ledger.write([write], lines)
            except KvError as error:
                await self._take_back(write, error, stored, before, lines)
                if isinstance(error, KvConflictError):
                    raise await self._conflict([write]) from error
                raise
            if progress is not None:
                progress(write.key)
        return stored

    async def _take_back(
        self, failed: Write, error: KvError, stored: Mapping[str, int], before: Snapshot, lines: str
    ) -> None:
        """Put back what stood there before a change that failed in the middle."""
        left = dict(stored)
        try:
            now = await self.revision(failed.key) if error.maybe else None
            if now is not None and now.sequence > failed.expected:
                left[failed.key] = now.sequence
            for key, sequence in list(left.items()):
                old = before.policies.get(key)
                write = Write(key, None if old is None else old.value, sequence)
                await self._ledger.write([write], lines)
                del left[key]
        except KvError as again:
            raise PartlyStoredError(
                f"{failed.key} could not be stored ({error}), and of what was stored before it "
                f"{len(left)} documents could not be taken back ({again}): {', '.join(list(left)[:10])}",
                list(left),
            ) from error

    async def _conflict(self, writes: Sequence[Write]) -> KvError:
        """Which key it was: the first that stands otherwise than its write expects."""
        for write in writes:
            found = await self.revision(write.key)
            if (0 if found is None else found.sequence) != write.expected:
                return ConflictError(write.key, write.expected, found)
        return KvConflictError(f"{self._log.name}: somebody else wrote at the same moment; look again")

    def __repr__(self) -> str:
        return f"<PolicyStore {self._log.name}>"
