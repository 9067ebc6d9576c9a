"""Statistics on the bus: published every second while an observer's lease runs, nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable

from nats_mesh.errors import CallError
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["LEASE_S", "PERIOD_S", "StatsPublisher"]

#: How often statistics are sent while they are wanted (seconds).
PERIOD_S = 1.0
_KIND = "stats"


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
        wants: Wants,
        snapshot: Callable[[], list[bytes]],
    ) -> None:
        self._subject = subjects.telemetry(_KIND, member, instance)
        self._transport = transport
        self._mux = mux
        self._wants = wants
        self._snapshot = snapshot
        self._timer: Timer | None = None
        wants.on(_KIND, self._on_want)

    @property
    def wanted(self) -> bool:
        """Whether somebody's lease runs."""
        return self._wants.wanted(_KIND)

    def _on_want(self, reply: str) -> None:
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
        """Stop publishing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
