"""One wildcard subscription for every reply of a connection.

An inbox is ``_INBOX.<caller>.<connection>.<secret>.<n>``: the secret is random per connection *and*
destination, so that nobody who once served a call can forge the reply of another service; ``n`` is a
counter. A request may receive several replies: its sink stays until it is closed.
"""

from __future__ import annotations

from typing import Protocol

from nats_mesh.errors import CallError, DisconnectedError, Executed, OverloadedError, PermissionDeniedError
from nats_mesh.wire.ids import new_secret
from nats_mesh.wire.subjects import INBOX
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["ReplyMux", "Sink"]

_MAX_DESTINATIONS = 4096
_MAX_PENDING = 65_536


class Sink(Protocol):
    """Where the replies of one request go. Both methods run on the event loop and must not raise."""

    #: The subject the request was published on; a permission error names it.
    subject: str

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """One reply (there may be more until the sink is closed)."""

    def on_failure(self, error: CallError) -> None:
        """No reply will come: the connection is gone, or the server refused the request."""


class ReplyMux:
    """The replies a connection waits for. ``late`` counts what came for nobody, ``pending`` who waits."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._prefix = f"{INBOX}{transport.name}.{transport.connection}."
        self._cut = len(self._prefix)
        self._sinks: dict[str, Sink] = {}
        self._secrets: dict[str, str] = {}
        self._count = 0
        self._shut = False
        self.late = 0
        self._subscription: Subscription = transport.subscribe(f"{self._prefix}*.*", self._on_message)
        transport.add_listener(self)

    @property
    def pending(self) -> int:
        """How many requests wait for a reply."""
        return len(self._sinks)

    def open(self, destination: str, sink: Sink) -> str:
        """Register ``sink`` and return the reply subject for a request to ``destination``.

        :class:`OverloadedError` where 65,536 requests wait already.
        """
        if self._shut:
            raise DisconnectedError("this client is closed", executed=Executed.NO)
        if len(self._sinks) >= _MAX_PENDING:
            raise OverloadedError(
                f"{_MAX_PENDING} calls of this client wait for replies already", service=destination
            )
        secret = self._secrets.get(destination)
        if secret is None:
            secret = self._new_secret(destination)
        self._count += 1
        key = f"{secret}.{self._count}"
        self._sinks[key] = sink
        return self._prefix + key

    def close(self, reply: str) -> None:
        """Forget a request; replies that still come are counted as late."""
        self._sinks.pop(reply[self._cut :], None)

    def one_way(self, destination: str) -> str:
        """An inbox that names its publisher, for messages to which no reply is expected."""
        secret = self._secrets.get(destination) or self._new_secret(destination)
        return f"{self._prefix}{secret}.0"

    def _new_secret(self, destination: str) -> str:
        if len(self._secrets) >= _MAX_DESTINATIONS:
            self._secrets.pop(next(iter(self._secrets)))
        secret = self._secrets[destination] = new_secret()
        return secret

    def _on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        sink = self._sinks.get(subject[self._cut :])
        if sink is None:
            if subject[-2:] != ".0":  # the server's no-responders to a one-way message
                self.late += 1
        else:
            sink.on_reply(headers, payload)

    def on_disconnect(self, reason: str) -> None:
        """Everyone who waits learns at once that the outcome is unknown."""
        sinks, self._sinks = list(self._sinks.values()), {}
        for sink in sinks:
            sink.on_failure(DisconnectedError(f"the connection was lost: {reason}", executed=Executed.MAYBE))

    def on_reconnect(self) -> None:
        """Nothing waits across a reconnect, so there is nothing to do."""

    def on_denied(self, operation: str, subject: str) -> None:
        """A publish was refused: whoever published there learns it instead of timing out."""
        if operation != "publish":
            return
        for sink in list(self._sinks.values()):
            if sink.subject == subject:
                sink.on_failure(
                    PermissionDeniedError(
                        f"the server's permissions do not let {self._transport.name!r} publish on {sink.subject}"
                    )
                )

    def shut(self) -> None:
        """Leave the subscription; whoever still waits is told."""
        self._shut = True
        self.on_disconnect("this client was closed")
        self._transport.remove_listener(self)
        self._transport.unsubscribe(self._subscription)

    def __repr__(self) -> str:
        return f"<ReplyMux {self.pending} pending, {self.late} late>"
