"""One wildcard subscription for every reply of a connection.

An inbox is ``_INBOX.<caller>.<connection>.<secret>.<n>``: the secret is random per connection *and*
destination, so that nobody who once served a call can forge the reply of another service; ``n`` is a
counter. A request may receive several replies: its sink stays until it is closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from nats_mesh.errors import CallError, DisconnectedError, Executed, OverloadedError, PermissionDeniedError
from nats_mesh.wire.ids import new_secret
from nats_mesh.wire.loop import Deadline, InvalidStateError, Timer, Waiter, call_later
from nats_mesh.wire.subjects import INBOX
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["ReplyMux", "Sink"]

_MAX_DESTINATIONS = 4096
_MAX_PENDING = 65_536
#: Destinations of one-way messages whose answers somebody wants to know.
_MAX_LISTENED = 64
#: How much too early a timer may fire (seconds): loops round to milliseconds.
_EARLY_S = 0.0005
#: After a look at all waits, the next comes not before this many times as long as it took.
_SHARE = 20.0


class Sink(Protocol):
    """Where the replies of one request go. Both methods run on the event loop and must not raise."""

    #: The subject the request was published on; a permission error names it.
    subject: str

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """One reply (there may be more until the sink is closed)."""

    def on_failure(self, error: CallError) -> None:
        """No reply will come: the connection is gone, or the server refused the request."""


class ReplyMux:
    """The replies a connection waits for. ``late`` counts what came for nobody, ``pending`` who waits.

    A call waits for one reply with a future (:meth:`expect`); whoever wants several registers a
    :class:`Sink` (:meth:`open`).
    """

    def __init__(self, transport: Transport, now: Callable[[], float]) -> None:
        self._transport = transport
        self._prefix = f"{INBOX}{transport.name}.{transport.connection}."
        self._now = now
        #: By reply subject: the future, the subject that the request was published on, and when the wait ends.
        self.calls: dict[str, tuple[Waiter, str, float]] = {}
        #: When to look for waits that have ended: never later than the first of them does.
        self._look_at = math.inf
        self._timer: Timer | None = None
        self._sinks: dict[str, Sink] = {}
        self._inboxes: dict[str, str] = {}
        self._count = 0
        self._numbers: dict[str, int] = {}
        #: By one-way inbox: who wants to know what comes back all the same.
        self._answered: dict[str, Callable[[bytes, bytes], None]] = {}
        self._shut = False
        self.late = 0
        self._subscription: Subscription = transport.subscribe(f"{self._prefix}*.*", self._on_message)
        transport.add_listener(self)

    @property
    def pending(self) -> int:
        """How many requests wait for a reply."""
        return len(self.calls) + len(self._sinks)

    def inbox(self, destination: str) -> str:
        """What the reply subjects of all requests to ``destination`` begin with; its secret is drawn once."""
        inbox = self._inboxes.get(destination)
        if inbox is None:
            if len(self._inboxes) >= _MAX_DESTINATIONS:
                self._inboxes.pop(next(iter(self._inboxes)))
            inbox = self._inboxes[destination] = f"{self._prefix}{new_secret()}."
        return inbox

    def expect(self, inbox: str, subject: str, future: Waiter, deadline: float) -> int:
        """Wait for the reply to a request on ``subject``; it goes to ``inbox`` and the number that this returns.

        ``future`` gets the first reply, or why none will come.
        At ``deadline`` (an instant of ``now``) it gets :class:`~nats_mesh.wire.loop.Deadline`.
        :class:`OverloadedError` where 65,536 requests wait already.
        """
        if self._shut or len(self.calls) >= _MAX_PENDING:
            self._refuse(subject)
        self._count = number = self._count + 1
        self.calls[f"{inbox}{number}"] = (future, subject, deadline)
        if deadline < self._look_at:
            self._look(deadline)
        return number

    def _look(self, at: float) -> None:
        """Look at ``at`` for waits that have ended.

        One timer serves all waits: it stands at the first deadline, and moves only when it fires. A call that
        is answered in time, as nearly all are, costs a comparison and no timer of its own.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = at
        self._timer = call_later(max(0.0, at - self._now()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._look_at = first = math.inf
        start = self._now()
        for future, _, deadline in list(self.calls.values()):  # a race forgets by itself
            if deadline > start + _EARLY_S:
                first = min(first, deadline)
            elif not future.done():
                future.set_exception(Deadline())
        if first < math.inf:
            # Of a large table every look takes a while; it is never more than a small share of the time.
            self._look(max(first, start + _SHARE * (self._now() - start)))

    def replace(self, inbox: str, number: int, future: Waiter) -> None:
        """From now on ``future`` gets the reply to a request of :meth:`expect`, in the place of who waited for it."""
        _, subject, deadline = self.calls[f"{inbox}{number}"]
        self.calls[f"{inbox}{number}"] = (future, subject, deadline)

    def forget(self, inbox: str, number: int) -> None:
        """Nobody waits for a request of :meth:`expect` any more; a reply that still comes is counted as late."""
        self.calls.pop(f"{inbox}{number}", None)

    def open(self, destination: str, sink: Sink) -> str:
        """As :meth:`expect`, for ``sink``, which may get several replies until it is closed."""
        if self._shut or len(self._sinks) >= _MAX_PENDING:
            self._refuse(destination)
        self._count += 1
        reply = f"{self.inbox(destination)}{self._count}"
        self._sinks[reply] = sink
        return reply

    def close(self, reply: str) -> None:
        """Forget a sink; replies that still come are counted as late."""
        self._sinks.pop(reply, None)

    def _refuse(self, what: str) -> None:
        if self._shut:
            raise DisconnectedError("this client is closed", executed=Executed.NO)
        raise OverloadedError(f"{_MAX_PENDING} calls of this client wait for replies already", service=what)

    def one_way(self, destination: str, answered: Callable[[bytes, bytes], None] | None = None) -> str:
        """An inbox that names its publisher, for messages to which no reply is expected.

        ``answered`` hears what comes all the same: that nobody is there, or that a stream took the message. Nothing
        waits for it.
        """
        reply = f"{self.inbox(destination)}0"
        if answered is not None and (reply in self._answered or len(self._answered) < _MAX_LISTENED):
            self._answered[reply] = answered
        return reply

    def lease(self) -> str:
        """An inbox as :meth:`one_way` gives, whose secret nothing else has: one observer's among several on this
        connection, by which those who are asked tell it apart. It is kept by whoever holds the lease."""
        return f"{self._prefix}{new_secret()}.0"

    def number(self, subject: str) -> int:
        """Counts what this connection publishes on ``subject``, from 1 on: whoever reads sees what is missing."""
        number = self._numbers.pop(subject, 0) + 1
        if len(self._numbers) >= _MAX_DESTINATIONS:
            self._numbers.pop(next(iter(self._numbers)))
        self._numbers[subject] = number
        return number

    def _on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        call = self.calls.pop(subject, None)
        if call is not None:
            try:
                call[0].set_result((headers, payload))
            except InvalidStateError:
                pass  # cancelled in this turn of the loop: it forgets by itself
            return
        sink = self._sinks.get(subject)
        if sink is not None:
            sink.on_reply(headers, payload)
        elif subject[-2:] != ".0":
            self.late += 1
        elif (
            answered := self._answered.get(subject)
        ) is not None:  # else: the server's no-responders, mostly
            answered(headers, payload)

    def on_disconnect(self, reason: str) -> None:
        """Everyone who waits learns at once that the outcome is unknown."""
        calls, self.calls = self.calls, {}
        sinks, self._sinks = self._sinks, {}
        for future, *_ in calls.values():
            if not future.done():
                future.set_exception(self._lost(reason))
        for sink in sinks.values():
            sink.on_failure(self._lost(reason))

    def _lost(self, reason: str) -> DisconnectedError:
        return DisconnectedError(f"the connection was lost: {reason}", executed=Executed.MAYBE)

    def on_reconnect(self) -> None:
        """Nothing waits across a reconnect, so there is nothing to do."""

    def on_denied(self, operation: str, subject: str) -> None:
        """A publish was refused: whoever published there learns it instead of timing out."""
        if operation != "publish":
            return
        for future, published, _ in list(self.calls.values()):
            if published == subject and not future.done():
                future.set_exception(self._denied(subject))
        for sink in list(self._sinks.values()):
            if sink.subject == subject:
                sink.on_failure(self._denied(subject))

    def _denied(self, subject: str) -> PermissionDeniedError:
        return PermissionDeniedError(
            f"the server's permissions do not let {self._transport.name!r} publish on {subject}"
        )

    def shut(self) -> None:
        """Leave the subscription; whoever still waits is told."""
        self._shut = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.on_disconnect("this client was closed")
        self._transport.remove_listener(self)
        self._transport.unsubscribe(self._subscription)

    def __repr__(self) -> str:
        return f"<ReplyMux {self.pending} pending, {self.late} late>"
