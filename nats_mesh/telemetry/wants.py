"""What observers want of a member, by kind: one subscription for all leases, whatever they are on."""

from __future__ import annotations

from collections.abc import Callable

from nats_mesh.clock import Clock
from nats_mesh.wire.subjects import ALL, Subjects, parse_inbox, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["LEASE_S", "Wants"]

#: How long one ``telemetry.want`` message asks for what it names (seconds).
LEASE_S = 5.0
#: ``mesh.<ns>.telemetry.want.<kind>.<service or all>.<observer>``
_TOKENS = 7


class Wants:
    """Listens to the leases on what ``member`` publishes. ``ignored`` counts those that were not believed."""

    def __init__(
        self,
        *,
        member: str,
        subjects: Subjects,
        transport: Transport,
        clock: Clock,
        enforced: bool,
    ) -> None:
        self.ignored = 0
        self._names = frozenset({member, ALL})
        self._transport = transport
        self._now = clock.monotonic
        self._enforced = enforced
        self._until: dict[str, float] = {}
        self._listeners: dict[str, Callable[[str, str], None]] = {}
        self._wishes: dict[str, Callable[[str, bytes], bool]] = {}
        self._subscription = transport.subscribe(subjects.want_of, self._on_want)

    def on(
        self,
        kind: str,
        listener: Callable[[str, str], None],
        *,
        wish: Callable[[str, bytes], bool] | None = None,
    ) -> None:
        """Have ``listener`` called with the observer and the reply subject of each lease on ``kind``, once it counts.

        ``wish`` gets the observer and what its lease says before that; where it returns false, the lease is ignored.
        Without one, whatever a lease says means nothing. The observer is its name, and behind a point what its reply
        subject says of it: several may look under one name, and over one connection.
        """
        self._listeners[kind] = listener
        if wish is not None:
            self._wishes[kind] = wish
        self._until.setdefault(kind, 0.0)

    def wanted(self, kind: str) -> bool:
        """Whether somebody's lease on ``kind`` runs."""
        return self._now() < self._until.get(kind, 0.0)

    def _on_want(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        parts = subject.split(".")
        if len(parts) != _TOKENS or parts[4] not in self._listeners or parts[5] not in self._names:
            return
        if not reply_allowed(reply, parts[6], enforced=self._enforced):
            self.ignored += 1
            return
        observer = _who(parts[6], reply)
        wish = self._wishes.get(parts[4])
        if wish is not None and not wish(observer, payload):
            self.ignored += 1
            return
        self._until[parts[4]] = self._now() + LEASE_S
        self._listeners[parts[4]](observer, reply)

    def close(self) -> None:
        """Stop listening; nothing is wanted any more."""
        self._until.clear()
        self._transport.unsubscribe(self._subscription)


def _who(observer: str, reply: str) -> str:
    inbox = parse_inbox(reply)
    if inbox is not None:
        return f"{observer}.{inbox.connection}.{inbox.secret}"
    # Of inboxes outside the mesh those of one token say nothing more than the name: it may be another each time.
    parts = reply.split(".")
    return observer if len(parts) < 3 else ".".join([observer, *parts[1:-1]])
