"""A call with an idempotency key runs once; whoever sends it again gets the first reply.

It is told from others by its caller, its endpoint and its key. Calls without a key never come here. What the first
one ends with is remembered by this instance, and, where the endpoint shares it, in a bucket that all instances of the
service look at before a handler runs (:mod:`nats_mesh.layers.claiming`). A call that was refused before its handler
ran leaves nothing behind.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nats_mesh.core.duplicates import TRANSIENT, Kept, Move, State, fingerprint, key_token
from nats_mesh.core.remembered import Memory
from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.claiming import SharedClaims, bucket_name
from nats_mesh.layers.claims import Claim, DuplicateError, ended
from nats_mesh.wire import headers as h
from nats_mesh.wire.kv import KvBucket
from nats_mesh.wire.loop import CancelledError
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["DuplicateError", "Duplicates", "Kept", "KeyedCalls"]

#: Who answers: whoever gives the reply again says it for itself.
_OWN_LINE = b"Mesh-Instance:"
_WHAT_ENDED = {
    "deadline": (Status.DEADLINE_EXCEEDED, "the time was up"),
    "cancelled": (Status.CANCELLED, "the caller no longer waits"),
    "shutdown": (Status.UNAVAILABLE, "the instance is shutting down"),
}
#: How it is refused where it was ended before its handler could run.
_NOT_RUN = {Status.DEADLINE_EXCEEDED: Refused.DEADLINE, Status.UNAVAILABLE: Refused.DRAINING}


class Duplicates:
    """What one instance knows of calls with a key. ``replayed`` counts the replies that it gave again."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        namespace: str,
        transport: Transport,
        mux: ReplyMux,
        now: Callable[[], float],
        rng: random.Random,
        enforced: bool,
        memory: Memory[Claim] | None = None,
    ) -> None:
        self.memory: Memory[Claim] = memory or Memory()
        self.replayed = 0
        self.now = now
        self._service = service
        self._shared: SharedClaims | None = None

        def claims() -> SharedClaims:
            store = KvBucket(bucket_name(namespace), transport=transport, mux=mux, now=now)
            return SharedClaims(
                instance=instance, store=store, transport=transport, now=now, rng=rng, may_make=not enforced
            )

        self._make_shared = claims

    @property
    def shared(self) -> SharedClaims:
        """The claims in the store; nothing of them exists before the first call that needs them."""
        if self._shared is None:
            self._shared = self._make_shared()
        return self._shared

    @property
    def unsettled(self) -> int:
        """How many outcomes could not be written into the store."""
        return 0 if self._shared is None else self._shared.settler.unsettled

    def of(self, endpoint: str, duplicates: str, *, idempotent: bool) -> KeyedCalls | None:
        """The keyed calls of one endpoint; ``None`` where it looks at no keys (``off``)."""
        if duplicates == "off":
            return None
        return KeyedCalls(self, endpoint, shared=duplicates == "shared", idempotent=idempotent)

    def name(self, endpoint: str, caller: str, key: bytes) -> str:
        """What a key is called in the store."""
        return f"{self._service}.{key_token(caller, endpoint, key)}"

    # -- how a claim ends ---------------------------------------------------------------------------

    def keep(self, claim: Claim, status: Status, block: bytes, body: bytes) -> None:
        """Its handler has ended with this reply."""
        if claim.state is not State.RUNNING:
            return
        if claim.idempotent and status in TRANSIENT:
            self.forget(claim)
            return
        kept = Kept(status, _lines(block), body)
        self.memory.settle(claim, State.DONE, kept, self.now())
        claim.changed.set()
        if claim.shared:
            self.shared.settler.done(claim, kept)

    def lose(self, claim: Claim) -> None:
        """Its handler was broken off: nobody knows what it did."""
        if claim.state is not State.RUNNING:
            return
        if claim.idempotent:
            self.forget(claim)
            return
        self.memory.settle(claim, State.UNKNOWN, None, self.now())
        claim.changed.set()
        if claim.shared:
            self.shared.settler.lost(claim)

    def forget(self, claim: Claim, failure: DuplicateError | None = None) -> None:
        """Nothing ran, or it may run again; ``failure``: what all who wait for it end with."""
        claim.failure = failure
        claim.state = State.UNKNOWN
        self.memory.drop(claim)
        claim.changed.set()
        if claim.shared:
            self.shared.settler.release(claim)

    def learned(self, claim: Claim, kept: Kept) -> None:
        """Another instance had run it already."""
        self.memory.settle(claim, State.DONE, kept, self.now())
        claim.changed.set()

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is written behind answers."""
        if self._shared is not None:
            await self._shared.finish(timeout_s)

    def close(self) -> None:
        """Write nothing any more."""
        if self._shared is not None:
            self._shared.close()

    def __repr__(self) -> str:
        return f"<Duplicates {self.memory!r}, {self.replayed} replayed>"


class KeyedCalls:
    """The calls with a key of one endpoint."""

    __slots__ = ("_duplicates", "_endpoint", "_idempotent", "_shared")

    def __init__(self, duplicates: Duplicates, endpoint: str, *, shared: bool, idempotent: bool) -> None:
        self._duplicates = duplicates
        self._endpoint = endpoint
        self._shared = shared
        self._idempotent = idempotent

    async def run(self, call: Arrival, start: Callable[[], Awaitable[Any]]) -> Any:
        """What ``start`` returns, where this is the first call with its key; else the first reply (:class:`Kept`).

        :class:`DuplicateError` where there is neither. An empty key is none.
        """
        duplicates, memory = self._duplicates, self._duplicates.memory
        key = h.field(call.headers, h.IDEMPOTENCY_KEY)
        if not key:
            return await start()
        name = duplicates.name(self._endpoint, call.caller, key)
        request = fingerprint(h.content_type(call.headers) or b"", call.payload)
        while (before := memory.find(name, duplicates.now())) is not None:
            kept = await self._after(before, call, request)
            if kept is not None:
                duplicates.replayed += 1
                return kept
        claim = Claim(name, request, shared=self._shared, idempotent=self._idempotent)
        room_in_s = memory.add(claim, duplicates.now())
        if room_in_s is not None:
            text = f"this instance remembers {len(memory)} keys already, which is as many as it can"
            raise DuplicateError(
                Status.UNAVAILABLE, text, refused=Refused.IDEMPOTENCY, retry_after_s=room_in_s
            )
        if self._shared:
            kept = await self._claimed(claim, call)
            if kept is not None:
                duplicates.replayed += 1
                return kept
        call.keep = partial(duplicates.keep, claim)
        call.noted = True
        call.leave = (*call.leave, partial(self._leave, claim))
        return await start()

    async def _after(self, claim: Claim, call: Arrival, request: str) -> Kept | None:
        """What there is to say after another call with this key; ``None``: look again."""
        if claim.request != request:
            raise ended(Move.MISMATCH, "")
        if claim.state is State.DONE:
            if claim.kept is not None:
                return claim.kept
            raise ended(Move.GONE, "this instance")
        if claim.state is State.UNKNOWN:
            raise ended(Move.ABORT, "this instance")
        try:
            await claim.changed.wait()
        except CancelledError:
            raise _stopped(call, "and the first call with this idempotency key had not ended") from None
        if claim.failure is not None:
            raise claim.failure.again()
        return None

    async def _claimed(self, claim: Claim, call: Arrival) -> Kept | None:
        """Claim the key for all instances; the first reply where another had it. Nothing is left where neither."""
        duplicates = self._duplicates
        try:
            kept = await duplicates.shared.acquire(claim)
            if kept is None and (call.ended or duplicates.now() >= call.deadline):
                call.ended = call.ended or "deadline"
                raise _stopped(call, "when its idempotency key was claimed", ran=False)
        except CancelledError:
            duplicates.forget(claim)
            raise _stopped(call, "while its idempotency key was being claimed") from None
        except DuplicateError as error:
            duplicates.forget(claim, error if error.refused is Refused.IDEMPOTENCY else None)
            raise
        except BaseException:
            duplicates.forget(claim)
            raise
        if kept is not None:
            duplicates.learned(claim, kept)
        else:
            duplicates.shared.hold(claim)
        return kept

    def _leave(self, claim: Claim, call: Arrival) -> None:
        """The call is over; where it was not answered by its handler, nobody knows what that did."""
        call.keep = None
        self._duplicates.lose(claim)


def _stopped(call: Arrival, when: str, *, ran: bool = True) -> DuplicateError:
    """What a call ends with that was ended from outside; ``ran``: whether the handler may have."""
    status, what = _WHAT_ENDED.get(call.ended, _WHAT_ENDED["shutdown"])
    refused = None if ran else _NOT_RUN.get(status)
    return DuplicateError(status, f"{what} {when}", refused=refused, maybe=True)


def _lines(block: bytes) -> str:
    """The lines of a reply's header block that it is given again with."""
    lines = block[len(h.PREAMBLE) : -len(h.END)].split(b"\r\n")
    kept = [line for line in lines if line and not line.startswith(_OWN_LINE)]
    return "".join(f"{line.decode()}\r\n" for line in kept)
