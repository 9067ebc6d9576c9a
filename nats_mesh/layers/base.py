"""What a layer of the chain is.

On the instance's side most layers are *gates*: they look at an arriving call, before anything is
decoded and before a task exists, and let it in or say why not. What must run around the handler is an
interceptor (:class:`nats_mesh.model.Interceptor`). On the caller's side a layer is an object that a target has or
has not (``layers/breaker.py``, ``retry.py``, ``balance.py``), asked in :mod:`nats_mesh.calling.sending`; users add
interceptors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from nats_mesh.core.fault import Fault
from nats_mesh.errors import Refused, Status
from nats_mesh.telemetry.series import Series
from nats_mesh.wire.subjects import ALL

__all__ = ["DIRECT", "PLAIN", "Arrival", "Gate", "Refusal", "Tap"]


#: What stands for the route of a call to this one instance, and of one on a subject of the endpoint's own.
DIRECT: Final = "direct"
PLAIN: Final = "plain"


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is not let in: the handler surely does not run.

    ``refused`` is ``None`` for an injected error, which is no refusal. With ``delay_s`` the call is not let in
    yet: it comes again, to every gate, in so many seconds.
    """

    status: Status
    refused: Refused | None
    message: str
    retry_after_s: float | None = None
    delay_s: float = 0.0


class Cancellable(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None: ...


class Arrival:
    """One request as it came in; gates fill in what they decide. Instants are monotonic seconds."""

    #: The endpoint as the instance serves it: what its calls have in common, in the pool's words.
    kind: Any
    #: How long our own event loop stood still just before this was read.
    stall_s: float = 0.0
    instance_addressed: bool = False
    #: When it was taken from the queue to be served, where it was in one.
    started: float = 0.0
    #: Set by the deadline gate; ``plain``: the headers hold nothing but time, clock, trace and codec.
    deadline: float = 0.0
    attempt: int = 1
    plain: bool = False
    content_type: bytes | None = None
    #: What its handler knows of it, and the codec it is answered in.
    context: Any = None
    codec: Any = None
    #: What its handler returned.
    result: Any = None
    #: What gives back what the gates took: of those it met, whatever the chain is when it ends.
    leave: tuple[Callable[[Arrival], None], ...] = ()
    #: The fault that was drawn for it, if any, once one was; and what was injected: ``delay`` or ``abort``.
    drawn: bool = False
    fault: Fault | None = None
    injected: str = ""
    #: When an injected delay began, and how long it held the call (seconds).
    held: float = 0.0
    held_s: float = 0.0
    #: By which route it came, where it was looked at: ``all``, a subset, ``direct`` or ``plain``.
    route: str = ALL
    #: Whether its reply says more than a usual one (that it was injected, or how busy the instance is), or somebody
    #: records it; then ``sent`` is the size of its reply, ``answered`` its body, and ``refused`` why it was not let in.
    noted: bool = False
    sent: int = 0
    answered: bytes = b""
    refused: Refused | None = None
    #: What an error reply says.
    problem: str = ""
    #: Takes status, header block and body of its reply, where that is remembered; then ``noted`` is set, too.
    keep: Callable[[Status, bytes, bytes], None] | None = None
    #: What the call came to, and why it was ended from outside (``deadline``, ``cancelled``, ``shutdown``).
    status: Status | None = None
    ended: str = ""
    #: Ends the waiting handler, and the timer that does so at the deadline; set while it waits.
    stop: Callable[[], object] | None = None
    timer: Cancellable | None = None

    def __init__(
        self,
        caller: str,
        series: Series,
        reply: str,
        headers: bytes,
        payload: bytes,
        received: float,
        kind: Any = None,
    ) -> None:
        self.caller = caller
        #: Where the call is counted.
        self.series = series
        self.reply = reply
        self.headers = headers
        self.payload = payload
        self.received = received
        self.kind = kind


#: Takes a call that has ended, and the seconds it took; must be quick and must not raise.
Tap: TypeAlias = Callable[[Arrival, float], None]


class Gate(Protocol):
    """One condition of entry; ``enter`` must be quick and must not raise, ``leave`` undoes what it took."""

    #: The word that ``describe`` prints.
    name: str
    #: Whether :meth:`enter` takes something that :meth:`leave` must give back.
    holds: bool

    @property
    def present(self) -> bool:
        """Whether it may refuse anybody now; while not, it is not in the chain."""

    def enter(self, call: Arrival) -> Refusal | None:
        """Admit (``None``) or refuse."""

    def leave(self, call: Arrival) -> None:
        """The call is over, however it ended, or a later gate refused it."""
