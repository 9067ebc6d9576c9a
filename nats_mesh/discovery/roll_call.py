"""Asking every instance of a service who is there (``$SRV.PING.<service>``), and taking the answers as they come.

Each answer is handed on when it arrives: ten thousand of them need no room. Those who are there and well answer
within milliseconds; who is far away or busy is listened to for a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from nats_mesh.core.presence import Announcement, Kind
from nats_mesh.discovery.announced import announced
from nats_mesh.discovery.services_api import Verb, parse_ping, request_subject
from nats_mesh.errors import CallError, CodecError
from nats_mesh.wire import headers as h
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["ROLL_S", "Asker", "RollCall"]

#: The first answers are in when none has come for so long (seconds).
_QUIET_S: Final = 0.03
#: How long answers are taken in all; whoever is slower is heard when it beats (seconds).
ROLL_S: Final = 1.0


class Asker(Protocol):
    """Who asks; these run on the event loop and must not raise."""

    def answered(self, announcement: Announcement) -> None:
        """An instance of the service, in whatever namespace, says what it is."""

    def counted(self) -> None:
        """The first answers are in; more may come until the roll call is over."""

    def unanswered(self, error: CallError) -> None:
        """The question was lost, or may not be asked; the roll call is over."""


class RollCall:
    """One question to everybody: a sink of the reply mux. At most ``limit`` answers are read.

    ``counting`` until the first answers are in, ``over`` when no more are taken.
    """

    def __init__(
        self,
        service: str,
        asker: Asker,
        *,
        transport: Transport,
        mux: ReplyMux,
        now: Callable[[], float],
        limit: int,
    ) -> None:
        self.subject = request_subject(Verb.PING, service)
        self.counting = True
        self.over = False
        self._service = service
        self._asker = asker
        self._mux = mux
        self._now = now
        self._left = limit
        self._heard: float | None = None
        self._ends = now() + ROLL_S
        self._timer: Timer | None = None
        self._reply = mux.open(self.subject, self)
        try:
            transport.publish(self.subject, b"", self._reply)
        except CallError:
            self.stop()
            raise
        self._wait(ROLL_S, self._end)

    def stop(self) -> None:
        """Take no more answers."""
        self.counting, self.over = False, True
        self._mux.close(self._reply)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """One answer, or the server's word that nobody listens."""
        self._left -= 1
        if h.server_status(headers) is not None or self._left < 0:
            self._end()
            return
        try:
            announcement = announced(Kind.BEAT, parse_ping(payload))
        except CodecError:
            return  # some other program's idea of an answer
        if announcement is None or announcement.service != self._service:
            return
        self._asker.answered(announcement)
        if self.counting:
            if self._heard is None:
                self._wait(_QUIET_S, self._quiet)
            self._heard = self._now()

    def on_failure(self, error: CallError) -> None:
        """The connection is gone, or the server does not let us ask."""
        self.stop()
        self._asker.unanswered(error)

    def _wait(self, delay_s: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = call_later(max(0.0, delay_s), then)

    def _quiet(self) -> None:
        """Whether there was no answer for a while; one timer, however many answers come."""
        now = self._now()
        # Instants are compared, not durations: what rounding leaves of one may be too short for a clock to move.
        due = min(self._ends, (self._heard or 0.0) + _QUIET_S)
        if now < due:
            self._wait(due - now, self._quiet)
            return
        self._wait(self._ends - now, self._end)
        self._count()

    def _count(self) -> None:
        if self.counting:
            self.counting = False
            self._asker.counted()

    def _end(self) -> None:
        counting = self.counting
        self.stop()
        if counting:
            self._asker.counted()

    def __repr__(self) -> str:
        return (
            f"<RollCall {self.subject}, {'over' if self.over else 'counting' if self.counting else 'open'}>"
        )
