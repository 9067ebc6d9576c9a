"""How many instances a service has, as one of them hears it: what sets the pace of its beats.

An instance listens to the presence of its own service alone and reads nothing but the subject, so that a
beat costs a dictionary entry. The beats it hears are bounded, because their pace follows this very count.
"""

from __future__ import annotations

import re

from nats_mesh.clock import Clock
from nats_mesh.discovery.messages import nominal_interval_s
from nats_mesh.wire.subjects import Subjects, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Peers"]

#: Instances that are told apart; the interval has reached its cap by then.
_MAX_PEERS = 20_000
#: After so many silent intervals an instance is no peer any more.
_SILENT_INTERVALS = 4.0
_LEAVE = re.compile(rb'"type"\s*:\s*"leave"')


class Peers:
    """Counts the instances of one service, this one included."""

    def __init__(
        self,
        *,
        service: str,
        subjects: Subjects,
        transport: Transport,
        clock: Clock,
        enforced: bool,
    ) -> None:
        self._service = service
        self._transport = transport
        self._now = clock.monotonic
        self._enforced = enforced
        self._seen: dict[str, float] = {}
        self._prune_at = 0.0
        self._subscription = transport.subscribe(subjects.presence_of(service), self._on_presence)

    def _on_presence(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        if not reply_allowed(reply, self._service, enforced=self._enforced):
            return
        instance = subject[subject.rfind(".") + 1 :]
        if _LEAVE.search(payload) is not None:
            self._seen.pop(instance, None)
        elif instance in self._seen or len(self._seen) < _MAX_PEERS:
            self._seen[instance] = self._now()

    def count(self) -> int:
        """Instances heard of lately; at least 1."""
        now = self._now()
        if now >= self._prune_at:
            patience_s = _SILENT_INTERVALS * nominal_interval_s(len(self._seen))
            self._seen = {name: at for name, at in self._seen.items() if now - at < patience_s}
            self._prune_at = now + patience_s / 2
        return max(1, len(self._seen))

    def close(self) -> None:
        """Stop listening."""
        self._transport.unsubscribe(self._subscription)
