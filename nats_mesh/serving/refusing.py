"""What calls are told that are not let in, and where each of them is counted and told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival, Refusal
from nats_mesh.layers.fault import TOO_MANY, Postponed
from nats_mesh.serving.arriving import KnownSubject
from nats_mesh.serving.handling import Served
from nats_mesh.serving.replier import Replier
from nats_mesh.serving.waiting import STOPPED
from nats_mesh.serving.watching import Watching
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_refusal
from nats_mesh.telemetry.series import FAILURES

__all__ = ["Refusing"]

#: How much too early a timer of any loop may come (seconds).
_TIMER_EARLY_S: Final = 0.005


class Refusing:
    """Answers what does not reach its handler. A refusal with a delay is none yet: ``postponed`` has the call then."""

    __slots__ = ("_now", "_postponed", "_replier", "_served", "_service", "_watching")

    def __init__(
        self,
        service: str,
        served: Mapping[str, Served],
        *,
        replier: Replier,
        watching: Watching,
        postponed: Postponed,
        now: Callable[[], float],
    ) -> None:
        self._service = service
        self._served = served
        self._replier = replier
        self._watching = watching
        self._postponed = postponed
        self._now = now

    def refuse(self, call: Arrival, refusal: Refusal) -> None:
        """A gate has refused it."""
        if refusal.delay_s > 0.0:
            # It comes to the gates again, at the latest when its deadline is surely over: a timer may be early.
            left_s = call.deadline - self._now() + _TIMER_EARLY_S
            if self._postponed.hold(call, min(refusal.delay_s, left_s)):
                return
            refusal = TOO_MANY
        self._replier.fail(
            call,
            refusal.status,
            refusal.message,
            refused=refusal.refused,
            retry_after_s=refusal.retry_after_s,
        )
        self._over(call, refusal.status, flags_of_refusal(refusal.refused, call.injected), refusal.message)

    def unknown(self, reply: str, known: KnownSubject) -> None:
        """There is no such endpoint."""
        call = Arrival(known.caller, known.series, reply, b"", b"", self._now())
        call.instance_addressed, call.noted, call.route = known.addressed, known.noted, known.route
        names = ", ".join(sorted(self._served)) or "none"
        text = f"{self._service} has no endpoint {known.endpoint!r}; it has: {names[:512]}"
        self.refuse(call, Refusal(Status.UNIMPLEMENTED, Refused.UNIMPLEMENTED, text))

    def stopped(self, call: Arrival) -> None:
        """It was stopped before its turn came."""
        status, text, maybe = STOPPED[call.ended]
        if call.held_s:  # it was looked at, before it was held
            call.started = self._now()
        self._replier.fail(call, status, text, maybe=maybe)
        self._over(call, status, flags_of_ended(call.ended, call.injected), text)

    def _over(self, call: Arrival, status: Status, flags: str, text: str) -> None:
        series = call.series
        series.end(None, status, flags)
        if flags and status in FAILURES:  # without flags somebody else takes the call
            series.last_error = f"{status}: {text}"
        if self._watching.anybody:
            self._watching.ended(call, self._now() - call.received)
