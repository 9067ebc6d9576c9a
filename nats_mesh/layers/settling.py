"""How a claim in the store ends: as the reply, as "nobody knows", or as nothing at all.

It is written behind the answer, so that who called does not wait for it, and again and again for half a minute
where the store cannot be reached. Until it stands there, duplicates elsewhere find a claim that is not renewed.

A store that is full takes a record in place of another only where it is not longer, and that on a single server
alone; in a cluster it takes nothing at all until something in it is over its time. So the reply is left out then, and
what is left of the record is as long as the claim; where even that is refused, the claim is soon a dead one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import anyio
import msgspec

from nats_mesh.core.duplicates import MAX_SHARED_BYTES, Kept, Record, State, decode_record, encode_record
from nats_mesh.core.seldom import worth_saying
from nats_mesh.errors import UNREADABLE
from nats_mesh.layers.claims import Claim
from nats_mesh.wire.kv import Found, KvBucket, KvConflictError, KvError, KvFullError, KvTooLargeError
from nats_mesh.wire.loop import TaskPool
from nats_mesh.wire.transport import Transport

__all__ = ["STORE_S", "VALUE_BYTES", "Settler", "more_room", "record_of"]


log = logging.getLogger("nats_mesh.instance")

#: How long one question to the store may take, and for how long a write is tried (seconds).
STORE_S = 1.0
_TRY_S = 30.0
#: Pauses between two tries, doubling from the first to the longest (seconds).
_SHORTEST_S, _LONGEST_S = 0.01, 2.0
#: The largest record, and what a message needs beside it (bytes).
VALUE_BYTES = 256 << 10
_ROOM = 1024
#: So many writes may be behind at a time.
_MAX_BEHIND = 1024


class Settler:
    """Writes how claims end. ``unsettled`` counts those whose end could not be written, ``no_room`` how often the
    store was full."""

    def __init__(
        self,
        *,
        instance: str,
        store: KvBucket,
        transport: Transport,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.unsettled = 0
        self.no_room = 0
        self._instance = instance
        self._store = store
        self._transport = transport
        self._now = now
        self._rng = rng
        self._behind = TaskPool(_died)
        self._releases = TaskPool(_died)
        self._closed = False

    def done(self, claim: Claim, kept: Kept) -> None:
        """Put the reply in the claim's place, behind the answer."""
        record = claim.record(State.DONE, self._instance)
        self._end(claim, msgspec.structs.replace(record, size=kept.size), kept)

    def lost(self, claim: Claim) -> None:
        """The handler was broken off: what it did, nobody knows."""
        self._end(claim, claim.record(State.UNKNOWN, self._instance), None)

    def release(self, claim: Claim) -> None:
        """The handler did not run, or may run again: take the claim back, if there may be one."""
        if claim.written:
            self._end(claim, None, None)
        elif claim.timer is not None:
            claim.timer.cancel()

    def _end(self, claim: Claim, record: Record | None, kept: Kept | None) -> None:
        if claim.timer is not None:
            claim.timer.cancel()
        tasks = self._releases if record is None else self._behind
        if self._closed or len(tasks) >= _MAX_BEHIND:
            # Nobody waits for a claim that is not taken back longer than for a lease.
            if record is not None:
                full = f"{_MAX_BEHIND} others are behind already"
                self._not_settled("the instance has left" if self._closed else full)
        else:
            tasks.start(self._settle(claim, record, kept))

    async def _settle(self, claim: Claim, record: Record | None, kept: Kept | None) -> None:
        """Bring the record to its end (``None``: no record), for as long as it is this claim's."""
        give_up = self._now() + _TRY_S
        expected: int | None = claim.revision or None
        whole = kept is not None and kept.size <= MAX_SHARED_BYTES
        pause_s = 0.0
        while True:
            try:
                if expected is None:
                    found = await self._store.get(claim.name, timeout_s=STORE_S)
                    expected = self._to_replace(claim, record, found)
                if expected is not None and expected < 0:
                    return
                if expected is not None:
                    await self._replace(claim.name, record, kept if whole else None, expected)
                    return
                trouble = "its claim was never seen in the store"
            except KvConflictError as error:
                trouble, expected = str(error), None
            except KvTooLargeError as error:
                trouble, whole = str(error), False
            except KvFullError as error:
                self.full(error)
                trouble, whole = str(error), False
                record = None if record is None else msgspec.structs.replace(record, size=0)
            except KvError as error:
                trouble = str(error)
            if self._now() >= give_up:
                if record is not None:
                    self._not_settled(trouble)
                return
            pause_s = min(_LONGEST_S, 2.0 * pause_s or _SHORTEST_S)
            await anyio.sleep(pause_s * self._rng.uniform(0.5, 1.0))

    def _to_replace(self, claim: Claim, record: Record | None, found: Found | None) -> int | None:
        """Which revision to replace; below 0: nothing is left to do; ``None``: look again later."""
        if found is None or found.deleted:
            if record is None:  # a claim whose acknowledgement never came may still arrive
                return None if claim.revision == 0 else -1
            return 0 if found is None else found.revision
        standing = record_of(found, self._store.name)
        if standing.claim != claim.token or (record is not None and standing.state is record.state):
            return -1
        return found.revision

    async def _replace(self, name: str, record: Record | None, kept: Kept | None, expected: int) -> None:
        if record is None:
            await self._store.delete(name, expected=expected, timeout_s=STORE_S)
            return
        value = encode_record(record if kept is None else msgspec.structs.replace(record, reply=kept))
        if kept is not None and len(value) > min(VALUE_BYTES, self._transport.max_payload - _ROOM):
            value = encode_record(record)
        await self._store.put(name, value, expected=expected, timeout_s=STORE_S)

    def full(self, error: KvFullError) -> None:
        """The store has refused something for want of room: say so, with what to do about it, ever more rarely."""
        self.no_room += 1
        if worth_saying(self.no_room):
            log.warning(
                "no room in the bucket %s (%d times so far): %s; calls with a new idempotency key are refused until "
                "old ones are over their time; %s",
                self._store.name,
                self.no_room,
                error,
                more_room(self._store.name),
            )

    def _not_settled(self, why: str) -> None:
        self.unsettled += 1
        if worth_saying(self.unsettled):
            log.warning(
                "the outcome of a call with an idempotency key is not in the store: %s (%d so far)",
                why,
                self.unsettled,
            )

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is behind, then stop it; nothing comes after."""
        await self._behind.join(timeout_s)
        await self._releases.join(timeout_s)
        self.close()

    def close(self) -> None:
        """Stop what is behind; nothing comes after."""
        if not self._closed:
            self._closed = True
            self._releases.cancel_all()
            for _ in range(self._behind.cancel_all()):
                self._not_settled("the instance left before it was")

    def __len__(self) -> int:
        return len(self._behind) + len(self._releases)


def more_room(bucket: str) -> str:
    """What to do about a bucket that is full."""
    return (
        f"give it more: nats stream edit KV_{bucket} --max-bytes=1GB (and the account, where that is its limit), or "
        "declare duplicates='local' at endpoints that take many keys"
    )


def record_of(found: Found, bucket: str) -> Record:
    """What was found; :class:`KvError` where it is no record."""
    try:
        return decode_record(found.value)
    except UNREADABLE as error:
        raise KvError(f"{bucket}: a record cannot be read: {error}") from None


def _died(error: BaseException) -> None:
    log.error("a write behind an answer died", exc_info=error)
