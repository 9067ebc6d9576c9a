"""Statistics on the bus: published every second while an observer's lease runs, nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats_mesh.errors import CallError
from nats_mesh.telemetry.stats_messages import MAX_BYTES, WHOLE_EVERY
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["LEASE_S", "PERIOD_S", "StatsPublisher"]

#: How often statistics are sent while they are wanted (seconds).
PERIOD_S = 1.0
#: How many messages one lease asks for.
_LEASE_MESSAGES: Final = LEASE_S / PERIOD_S
_KIND = "stats"
#: How many observers are told apart. Of more, who renewed its lease longest ago counts as new when it does so again,
#: which costs a whole message.
_MAX_OBSERVERS: Final = 64


class StatsPublisher:
    """Publishes ``snapshot(whole, max_bytes)`` for one member. Any number of observers costs one message a second.

    Whole is the first message, the first after a new observer came or one came back, the first after one that could not
    be published, and every :data:`~nats_mesh.telemetry.stats_messages.WHOLE_EVERY`-th; the others leave out series in
    which nothing has happened, and tell in rows what went well.
    """

    def __init__(
        self,
        *,
        member: str,
        instance: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        wants: Wants,
        snapshot: Callable[[bool, int], list[bytes]],
    ) -> None:
        self._subject = subjects.telemetry(_KIND, member, instance)
        self._transport = transport
        self._mux = mux
        self._wants = wants
        self._snapshot = snapshot
        self._timer: Timer | None = None
        self._observers: dict[str, int] = {}
        self._sent = 0
        #: In how many messages the next whole one comes.
        self._whole_in = 0
        wants.on(_KIND, self._on_want)

    @property
    def wanted(self) -> bool:
        """Whether somebody's lease runs."""
        return self._wants.wanted(_KIND)

    def _on_want(self, observer: str, reply: str) -> None:
        heard = self._observers.get(observer)
        if heard is None or self._sent - heard > _LEASE_MESSAGES:
            self._whole_in = 0  # it is new, or was away for longer than its lease ran
        self._observers[observer] = self._sent
        if len(self._observers) > _MAX_OBSERVERS:
            del self._observers[min(self._observers, key=self._observers.__getitem__)]
        if self._timer is None:
            self._whole_in = 0
            self._publish()

    def _publish(self) -> None:
        self._timer = None
        if not self.wanted:
            self._observers.clear()
            return
        whole = self._whole_in <= 0
        self._whole_in = WHOLE_EVERY - 1 if whole else self._whole_in - 1
        self._sent += 1
        self.publish_once(whole=whole)
        self._timer = call_later(PERIOD_S, self._publish)

    def publish_once(self, *, whole: bool) -> None:
        """Publish the statistics of now, whoever listens."""
        try:
            for body in self._snapshot(whole, min(MAX_BYTES, self._transport.max_payload)):
                self._transport.publish(self._subject, body, self._mux.one_way("telemetry"))
        except CallError:
            # Away, or too large for this server. Totals are cumulative, but what was told to nobody is nothing to go on
            # from: the next message tells everything.
            self._whole_in = 0

    def leave(self) -> None:
        """Tell the last figures, if anybody has been told some and listens still, and stop publishing."""
        if self._timer is not None and self.wanted:
            self.publish_once(whole=self._whole_in <= 0)
        self.close()

    def close(self) -> None:
        """Stop publishing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
