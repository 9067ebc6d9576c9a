"""Statistics on the bus: published every second while an observer's lease runs, nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable

from nats_mesh.clock import Clock
from nats_mesh.errors import CallError
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, Subjects, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["LEASE_S", "PERIOD_S", "StatsPublisher"]

#: How long one ``telemetry.want`` message asks for statistics, and how often they are sent meanwhile (seconds).
LEASE_S = 5.0
PERIOD_S = 1.0


class StatsPublisher:
    """Publishes ``snapshot()`` for one member. Any number of observers costs one message a second."""

    def __init__(
        self,
        *,
        member: str,
        instance: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        clock: Clock,
        enforced: bool,
        snapshot: Callable[[], list[bytes]],
    ) -> None:
        self._wanted = {f"{subjects.prefix}telemetry.want.stats.{name}" for name in (member, ALL)}
        self._subject = subjects.telemetry("stats", member, instance)
        self._transport = transport
        self._mux = mux
        self._now = clock.monotonic
        self._enforced = enforced
        self._snapshot = snapshot
        self._until = 0.0
        self._timer: Timer | None = None
        self._subscription = transport.subscribe(subjects.want_of, self._on_want)

    @property
    def wanted(self) -> bool:
        """Whether somebody's lease runs."""
        return self._now() < self._until

    def _on_want(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        wanted, _, observer = subject.rpartition(".")
        if wanted not in self._wanted or not reply_allowed(reply, observer, enforced=self._enforced):
            return
        self._until = self._now() + LEASE_S
        if self._timer is None:
            self._publish()

    def _publish(self) -> None:
        self._timer = None
        if not self.wanted:
            return
        try:
            for body in self._snapshot():
                self._transport.publish(self._subject, body, self._mux.one_way("telemetry"))
        except CallError:
            pass  # away or too large for this server: totals are cumulative, the next message holds them too
        self._timer = call_later(PERIOD_S, self._publish)

    def close(self) -> None:
        """Stop listening and publishing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._until = 0.0
        self._transport.unsubscribe(self._subscription)
