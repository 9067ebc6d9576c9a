"""Claims on keys that all instances of a service share, in the bucket ``mesh_idem_<namespace>``.

A claim is made by compare-and-set before the handler runs, and renewed while it runs. Whoever comes to the same key
meanwhile looks at the claim, more and more rarely, until it is the reply or the claimant is dead. What may be
concluded from a record is decided in :mod:`nats_mesh.core.duplicates`; how it ends, in
:mod:`nats_mesh.layers.settling`. Where the store cannot be reached the call is refused: nothing ran.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import anyio
import msgspec

from nats_mesh.core.duplicates import LEASE_S, Kept, Move, Record, State, Watch, encode_record, judge
from nats_mesh.errors import Refused, Status
from nats_mesh.layers.claims import Claim, DuplicateError, ended
from nats_mesh.layers.settling import STORE_S, VALUE_BYTES, Settler, more_room, record_of
from nats_mesh.wire.kv import (
    KvAbsentError,
    KvBucket,
    KvConflictError,
    KvDeniedError,
    KvError,
    KvFullError,
)
from nats_mesh.wire.loop import TaskPool, call_later
from nats_mesh.wire.transport import Transport

__all__ = ["BUCKET_TTL_S", "SharedClaims", "bucket_name"]

log = logging.getLogger("nats_mesh.instance")

#: How long the bucket keeps a record after its last change (seconds), and how much in all (bytes; the server sets all
#: of it aside at once: the first that it has room for).
BUCKET_TTL_S = 3600.0
_BUCKET_SIZES = (256 << 20, 64 << 20, 16 << 20)
#: How often a claim is renewed, which is how long a renewal may take, and how soon after one that failed (seconds).
_RENEW_S, _RENEW_AGAIN_S = LEASE_S / 3, LEASE_S / 12
#: Pauses between looks at a record: doubling from the first to the longest (seconds).
_SHORTEST_S, _LONGEST_S = 0.01, 0.2
#: How long making the bucket may take, and how long one that could not be made is left alone (seconds).
_MAKE_S, _LEAVE_ALONE_S = 4.0, 30.0


def bucket_name(namespace: str) -> str:
    """The bucket of a namespace."""
    return f"mesh_idem_{namespace}"


class SharedClaims:
    """The claims of one instance in the store."""

    def __init__(
        self,
        *,
        instance: str,
        store: KvBucket,
        transport: Transport,
        now: Callable[[], float],
        rng: random.Random,
        may_make: bool,
    ) -> None:
        self.settler = Settler(instance=instance, store=store, transport=transport, now=now, rng=rng)
        self._instance = instance
        self._store = store
        self._transport = transport
        self._now = now
        self._rng = rng
        self._may_make = may_make
        self._watch = Watch()
        self._making = anyio.Lock()
        #: How often the bucket was made here, and whether it has answered yet.
        self._made = 0
        self._known = False
        #: Why it could not be made, and until when nobody tries again.
        self._trouble = ""
        self._leave_alone_until = 0.0
        self._renewals = TaskPool(_died)
        self._closed = False

    # -- before the handler -------------------------------------------------------------------------

    async def acquire(self, claim: Claim) -> Kept | None:
        """Claim the key, and return ``None``; or, where it was claimed before, wait for the reply and return that.

        :class:`DuplicateError` where neither can be.
        """
        try:
            return await self._acquire(claim)
        except KvError as error:
            if isinstance(error, KvFullError):
                self.settler.full(error)
            raise DuplicateError(
                Status.UNAVAILABLE, self._unusable(error), refused=Refused.IDEMPOTENCY
            ) from None

    async def _acquire(self, claim: Claim) -> Kept | None:
        expected: int | None = 0
        pause_s = 0.0
        open_ = False  # whether a write of this claim was not answered
        while True:
            full: KvFullError | None = None
            if expected is not None:
                claim.written = True
                made = self._made
                try:
                    claim.revision = await self._put(claim, expected)
                    self._known = True
                    return None
                except KvConflictError:
                    claim.written = open_
                except KvFullError as error:  # what stands there already can be read all the same
                    claim.written, full = open_, error
                except KvError as error:
                    claim.written = open_ or error.maybe
                    if open_ or not error.maybe:
                        raise
                    open_ = True  # what stands there now will tell
                    # Whoever listens to everything hides that nobody answers: the bucket may not be there at all.
                    if self._may_make and not self._known:
                        await self._make(made)
            if pause_s:
                await anyio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(_LONGEST_S, 2.0 * pause_s or _SHORTEST_S)
            expected = None
            found = await self._store.get(claim.name, timeout_s=STORE_S)
            self._known = True
            if found is None or found.deleted:
                if full is not None:
                    raise full
                expected = 0 if found is None else found.revision
                continue
            record = record_of(found, self._store.name)
            stamp = f"{record.claim} {found.revision}"
            silent_s = self._watch.silent_s(claim.name, stamp, self._now())
            move = judge(
                record,
                claim=claim.token,
                request=claim.request,
                idempotent=claim.idempotent,
                silent_s=silent_s,
            )
            if move is Move.WAIT:
                continue
            if move is Move.MARK and not await self._mark(claim.name, record, found.revision):
                continue  # it moved after all
            self._watch.forget(claim.name)
            if move is Move.RUN:
                claim.written, claim.revision = True, found.revision
                return None
            if move is Move.REPLAY:
                return record.reply
            if move is Move.TAKE_OVER:
                if full is not None:
                    raise full
                expected = found.revision

            else:
                raise ended(move, f"instance {record.instance}")

    async def _put(self, claim: Claim, expected: int) -> int:
        """Write the claim; a bucket that is not there is made where that is allowed."""
        made = self._made
        value = encode_record(claim.record(State.RUNNING, self._instance))
        try:
            return await self._store.put(claim.name, value, expected=expected, timeout_s=STORE_S)
        except KvAbsentError:
            if not self._may_make:
                raise
            await self._make(made)
            return await self._store.put(claim.name, value, expected=0, timeout_s=STORE_S)

    async def _make(self, made: int) -> None:
        """Make the bucket, unless somebody did since ``made``. One try, and then none for a while."""
        async with self._making:
            if self._made != made:
                return
            if self._now() < self._leave_alone_until:
                raise KvAbsentError(self._trouble)
            self._leave_alone_until = self._now() + _LEAVE_ALONE_S
            try:
                await self._store.make(
                    max_age_s=BUCKET_TTL_S,
                    sizes=_BUCKET_SIZES,
                    max_value_bytes=VALUE_BYTES,
                    replicas=3 if self._transport.known_servers >= 3 else 1,
                    description="nats-mesh: calls with an idempotency key",
                    timeout_s=_MAKE_S,
                )
            except KvAbsentError:
                self._trouble = "JetStream is not available to this account"
                raise KvAbsentError(self._trouble) from None
            except KvError as error:
                self._trouble = f"there is no bucket, and it cannot be made: {error}"
                raise KvAbsentError(self._trouble) from None
            self._leave_alone_until = 0.0
            self._made += 1
            log.info("made the bucket %s for idempotency keys", self._store.name)

    def _unusable(self, error: KvError) -> str:
        text = f"the store of idempotency keys cannot be used: {error}"
        name = self._store.name
        if isinstance(error, KvAbsentError):
            text += (
                f"; make it: nats kv add {name} --history=1 --ttl={BUCKET_TTL_S:.0f}s --replicas=3 (1 without a"
                " cluster), or declare duplicates='local' at the endpoint"
            )
        elif isinstance(error, KvDeniedError):
            text += f"; allow publishing on $KV.{name}.<service>.> and direct gets of it"
        elif isinstance(error, KvFullError):
            text += f"; {more_room(name)}"
        return text

    async def _mark(self, name: str, record: Record, revision: int) -> bool:
        """Write down that nobody knows; whether it still stood as it was seen."""
        value = encode_record(msgspec.structs.replace(record, state=State.UNKNOWN))
        try:
            await self._store.put(name, value, expected=revision, timeout_s=STORE_S)
        except KvConflictError:
            return False
        except KvError as error:  # the next one who looks waits for a lease again
            log.debug("a dead claim could not be marked: %s", error)
        return True

    # -- while it runs ------------------------------------------------------------------------------

    def hold(self, claim: Claim, in_s: float = _RENEW_S) -> None:
        """Renew the claim in ``in_s`` seconds, and from then on for as long as it runs."""
        claim.timer = call_later(in_s, self._renew_soon, claim)

    def _renew_soon(self, claim: Claim) -> None:
        if not self._closed:
            self._renewals.start(self._renew(claim))

    async def _renew(self, claim: Claim) -> None:
        value = encode_record(claim.record(State.RUNNING, self._instance))
        in_s = _RENEW_S
        try:
            claim.revision = await self._store.put(
                claim.name, value, expected=claim.revision, timeout_s=_RENEW_S
            )
        except KvConflictError:
            in_s = _RENEW_AGAIN_S  # an earlier renewal, whose answer was lost, may stand there
            if not await self._ours_still(claim):
                return  # taken over, or called dead; what comes of it is written at its end
        except KvError as error:
            if isinstance(error, KvFullError):
                self.settler.full(error)
            log.debug("a claim could not be renewed: %s", error)
            in_s = _RENEW_AGAIN_S

        if claim.state is State.RUNNING:
            self.hold(claim, in_s)

    async def _ours_still(self, claim: Claim) -> bool:
        """Whether the record is this claim, running: then its revision is the one to go on from."""
        try:
            found = await self._store.get(claim.name, timeout_s=_RENEW_S)
            if found is None or found.deleted:
                return False
            record = record_of(found, self._store.name)
        except KvError as error:
            log.debug("a claim could not be read: %s", error)
            return True
        if record.claim == claim.token and record.state is State.RUNNING:
            claim.revision = found.revision
            return True
        return False

    async def finish(self, timeout_s: float) -> None:
        """Wait for the writes behind answers, then stop them; nothing comes after."""
        await self.settler.finish(timeout_s)
        self.close()

    def close(self) -> None:
        """Stop them; nothing comes after."""
        self._closed = True
        self.settler.close()
        self._renewals.cancel_all()

    def __repr__(self) -> str:
        return f"<SharedClaims {self._store.name}, {len(self.settler)} behind>"


def _died(error: BaseException) -> None:
    log.error("a task of the idempotency keys died", exc_info=error)
