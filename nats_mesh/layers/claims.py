"""One key as an instance knows it, and what a call is told that ends without its handler."""

from __future__ import annotations

import anyio

from nats_mesh.core.duplicates import Move, Record, State
from nats_mesh.core.remembered import Entry
from nats_mesh.errors import MeshError, Refused, Status
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.loop import Timer

__all__ = ["Claim", "DuplicateError", "ended"]


class DuplicateError(MeshError):
    """A keyed call ends without its handler. ``maybe``: nobody knows whether the first one's handler ran."""

    def __init__(
        self,
        status: Status,
        message: str,
        *,
        refused: Refused | None = None,
        maybe: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.refused = refused
        self.maybe = maybe
        self.retry_after_s = retry_after_s

    def again(self) -> DuplicateError:
        """The same for another call."""
        return DuplicateError(
            self.status,
            str(self),
            refused=self.refused,
            maybe=self.maybe,
            retry_after_s=self.retry_after_s,
        )


class Claim(Entry):
    """One key as this instance knows it, from the first call with it on; ``shared``: the store knows it too."""

    __slots__ = ("changed", "failure", "idempotent", "revision", "shared", "timer", "token", "written")

    def __init__(self, name: str, request: str, *, shared: bool, idempotent: bool) -> None:
        super().__init__(name, request, spare=shared or idempotent)
        self.shared = shared
        self.idempotent = idempotent
        self.token = new_id()
        #: Set when it no longer runs, or was given up; ``failure``: what ended it for all who wait, if anything.
        self.changed = anyio.Event()
        self.failure: DuplicateError | None = None
        #: The revision in the store; ``written``: whether a claim of this token may stand there.
        self.revision = 0
        self.written = False
        self.timer: Timer | None = None

    def record(self, state: State, instance: str) -> Record:
        """What stands, or is to stand, in the store."""
        return Record(state=state, claim=self.token, instance=instance, request=self.request)


def ended(move: Move, where: str) -> DuplicateError:
    """What a duplicate is told that gets no reply; ``where`` the first call ran."""
    if move is Move.MISMATCH:
        text = (
            "this idempotency key was used for another request already; a new request needs a key of its own"
        )
        return DuplicateError(Status.INVALID_ARGUMENT, text, refused=Refused.INVALID)
    if move is Move.GONE:
        text = (
            f"the first call with this idempotency key ran at {where}, but its reply is not kept: it was too large, "
            "or there was no room for it"
        )
        return DuplicateError(Status.ABORTED, text)

    text = f"the first call with this idempotency key was broken off at {where}: nobody knows whether it took effect"
    return DuplicateError(Status.ABORTED, text, maybe=True)
