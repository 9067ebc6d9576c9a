"""What a layer of the chain is.

On the instance's side most layers are *gates*: they look at an arriving call, before anything is
decoded and before a task exists, and let it in or say why not. What must run around the handler is an
interceptor (:class:`nats_mesh.model.Interceptor`). On the caller's side every layer is an interceptor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from nats_mesh.errors import Refused, Status
from nats_mesh.telemetry.stats import Series

__all__ = ["Arrival", "Gate", "Refusal"]


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is not let in: the handler surely does not run."""

    status: Status
    refused: Refused
    message: str
    retry_after_s: float | None = None


class Cancellable(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None: ...


class Arrival:
    """One request as it came in; gates fill in what they decide. Instants are monotonic seconds."""

    __slots__ = (
        "attempt", "caller", "deadline", "ended", "headers", "instance_addressed", "payload", "received", "reply",
        "series", "stall_s", "status", "stop", "timer",
    )  # fmt: skip

    def __init__(
        self,
        *,
        caller: str,
        series: Series,
        reply: str,
        headers: bytes,
        payload: bytes,
        received: float,
        stall_s: float = 0.0,
        instance_addressed: bool = False,
    ) -> None:
        self.caller = caller
        #: Where the call is counted.
        self.series = series
        self.reply = reply
        self.headers = headers
        self.payload = payload
        self.received = received
        #: How long our own event loop stood still just before this was read.
        self.stall_s = stall_s
        self.instance_addressed = instance_addressed
        #: Set by the deadline gate.
        self.deadline = 0.0
        self.attempt = 1
        #: What the call came to, and why it was ended from outside (``deadline``, ``cancelled``, ``shutdown``).
        self.status: Status | None = None
        self.ended = ""
        #: Ends the running handler, and the timer that does so at the deadline; set while it runs.
        self.stop: Callable[[], object] | None = None
        self.timer: Cancellable | None = None


class Gate(Protocol):
    """One condition of entry; ``enter`` must be quick and must not raise, ``leave`` undoes what it took."""

    #: The word that ``describe`` prints.
    name: str

    def enter(self, call: Arrival) -> Refusal | None:
        """Admit (``None``) or refuse."""

    def leave(self, call: Arrival) -> None:
        """The call is over, however it ended, or a later gate refused it."""
