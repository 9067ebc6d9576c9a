"""One instance that a gather asks: where its reply arrives, and what the client's watchers are told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.watching import AttemptEnd, CallEnd
from nats_mesh.context import Context
from nats_mesh.errors import CallError, Status
from nats_mesh.model import Request
from nats_mesh.telemetry.flags import flags_of_error

if TYPE_CHECKING:
    from nats_mesh.calling.gathering import Gathering

__all__ = ["Asked", "AskedTelling"]


class Asked:
    """A sink of the reply mux. ``ids`` are the trace and the span that its request says, as in a ``traceparent``."""

    __slots__ = ("_gathering", "ids", "instance", "late", "reply", "sent", "subject")

    def __init__(self, gathering: Gathering, instance: str, subject: str, ids: str) -> None:
        self.subject = subject
        self.instance = instance
        self.ids = ids
        self.reply = ""
        #: When the request was written (monotonic seconds); ``None``: it was not.
        self.sent: float | None = None
        #: Whether it answered when it was too late.
        self.late = False
        self._gathering = gathering

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """The instance has answered."""
        self._gathering.replied(self, headers, payload)

    def on_failure(self, error: CallError) -> None:
        """No answer will come."""
        self._gathering.failed(self, error)


class AskedTelling:
    """Tells the watchers of a client of each instance that was asked as of a call of its own: a gather has many ends.

    While nobody watches it does nothing. ``start`` is when the gather began to ask.
    """

    def __init__(
        self,
        known: Target,
        request: Request,
        parent: Context | None,
        now: Callable[[], float],
        *,
        sampled: bool,
        bytes_out: int,
    ) -> None:
        self._known = known
        self._request = request
        self._parent = parent
        self._now = now
        self._start = now()
        self._sampled = sampled
        self._bytes_out = bytes_out

    def ended(self, asked: Asked, status: Status, error: CallError | None = None, bytes_in: int = 0) -> None:
        """The call of one instance is over."""
        watching = self._known.watching
        tell, notable = watching.tell, watching.notable
        if tell is None and notable is None:
            return
        end, sent = self._now(), asked.sent
        start = self._start if sent is None else sent
        if error is None and not self._sampled and end - start < watching.slow_s:
            notable = None
        if tell is None and notable is None:
            return
        call = CallEnd(
            known=self._known,
            request=self._request,
            parent=self._parent,
            sampled=self._sampled,
            attempts=[] if sent is None else [AttemptEnd(asked.ids, sent, end, status, asked.instance)],
            sent=0 if sent is None else 1,
            status=status,
            error=error,
            start=start,
            end=end,
            bytes_out=self._bytes_out,
            bytes_in=bytes_in,
            flags="" if error is None else flags_of_error(error),
        )
        if tell is not None:
            tell(call)
        if notable is not None:
            notable(call)
