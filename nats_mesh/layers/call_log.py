"""From a call that has ended at an instance to what is written of it: a line of the access log, an entry of slow calls.

Both stand beside the calls, and are there only where a policy asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import UNSET

from nats_mesh.clock import Clock
from nats_mesh.core.envelope import sampled
from nats_mesh.core.slowness import Slow, Slowness, stood, uncovered
from nats_mesh.core.telemetry_rules import AccessLogRules
from nats_mesh.errors import Refused, Status
from nats_mesh.layers.arrived import attempt_of, endpoint_of, queued_s, trace_of
from nats_mesh.layers.base import Arrival, Tap
from nats_mesh.telemetry.access_log import AccessLine, AccessLog, stamp
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_refusal
from nats_mesh.telemetry.slow import SlowCalls, SlowStep
from nats_mesh.wire import headers as h

__all__ = ["Logged", "ServerLog", "SlowWatch", "Watched"]


class Logged(NamedTuple):
    """What is written of the calls of one endpoint; ``limit`` names the policy that limits how many run at a time."""

    rules: AccessLogRules
    labels: dict[str, str]
    limit: str


class Watched(NamedTuple):
    """When the calls of one endpoint are slow, and who says so."""

    slowness: Slowness
    labels: dict[str, str]
    policy: str


class ServerLog:
    """Writes lines of the calls that one instance answers."""

    def __init__(
        self, log: AccessLog, service: str, instance: str, clock: Clock, endpoints: Mapping[str, Logged]
    ) -> None:
        self._log = log
        self._service = service
        self._instance = instance
        self._clock = clock
        self._endpoints = endpoints

    def __call__(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, ``took_s`` seconds after it came."""
        logged = self._endpoints.get(endpoint_of(call))
        if logged is None:
            return
        rules, status = logged.rules, call.status or Status.UNKNOWN
        if status is Status.OK and rules.mode == "errors":
            return
        trace = _trace(call)
        if status is Status.OK and not sampled(trace or call.reply, rules.share):
            return
        now = self._clock.monotonic()
        flags = flags_of_refusal(call.refused, call.injected) or flags_of_ended(call.ended, "")
        self._log.write(
            AccessLine(
                ts=stamp(self._clock.time() - (now - call.received)),
                reporter="destination",
                source_service=call.caller,
                source_instance=None,
                destination_service=self._service,
                destination_instance=self._instance,
                endpoint=endpoint_of(call),
                status=str(status),
                flags=flags or None,
                error=_word(call, status),
                duration_ms=round(took_s * 1e3, 3),
                queue_ms=round(queued_s(call, took_s) * 1e3, 3),
                attempt=attempt_of(call.headers),
                bytes_in=len(call.payload),
                bytes_out=call.sent,
                caller=call.caller,
                policy=(logged.limit or None) if call.refused is Refused.CONCURRENCY else None,
                trace_id=trace or None,
                span_id=None if call.context is None else call.context.span_id,
                fault_ms=round(call.held_s * 1e3, 3) if call.held_s else UNSET,
                labels=logged.labels or UNSET,
            )
        )


class SlowWatch:
    """Tells ``slow`` of the calls of one instance that take too long, and ``keep`` of those that take long by what
    their endpoint usually takes: nobody else knows that."""

    def __init__(
        self, slow: SlowCalls, clock: Clock, endpoints: Mapping[str, Watched], keep: Tap | None
    ) -> None:
        self._slow = slow
        self._keep = keep
        self._now = clock.monotonic
        self._endpoints = endpoints

    def __call__(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, ``took_s`` seconds after it came."""
        watched = self._endpoints.get(endpoint_of(call))
        if watched is None:
            return
        ran = call.refused is None and call.started > 0.0
        slow = watched.slowness.look(took_s, self._now(), ran=ran)
        if slow is not None and self._slow.room():
            self._tell(call, took_s, slow, watched)
            if self._keep is not None and watched.slowness.rules.threshold_s is None:
                self._keep(call, took_s)

    def _tell(self, call: Arrival, took_s: float, slow: Slow, watched: Watched) -> None:
        came, end = call.received, call.received + took_s
        queue_s, fault_s = queued_s(call, took_s), call.held_s
        calls = [] if call.context is None else call.context.own_calls or []
        during = [(start, stop) for _, start, stop, _ in calls]
        stalls = [each for each in self._slow.stalls if each[1] > came]
        self._slow.tell(
            endpoint=endpoint_of(call),
            caller=call.caller,
            status=str(call.status or Status.UNKNOWN),
            came=came,
            duration_s=took_s,
            queue_s=queue_s,
            fault_s=fault_s,
            own_s=uncovered(came + queue_s + fault_s, end, during),
            stood_s=stood(came + queue_s + fault_s, end, during, stalls) if stalls else 0.0,
            threshold_s=slow.threshold_s,
            p99_s=slow.p99_s,
            policy=watched.policy,
            attempt=attempt_of(call.headers),
            trace=_trace(call),
            steps=[
                SlowStep(
                    target=h.one_line(target, 256),
                    at_s=max(0.0, round(start - came, 6)),
                    took_s=max(0.0, round(stop - start, 6)),
                    status=str(status),
                    stood_s=round(stood(start, stop, [(start, stop)], stalls), 6) if stalls else 0.0,
                )
                for target, start, stop, status in calls
            ],
            labels=watched.labels,
        )


def _word(call: Arrival, status: Status) -> str | None:
    """Why a call did not end well, in a word of the mesh's own."""
    if call.refused is not None:
        return str(call.refused)
    if call.ended:
        return call.ended
    if status is Status.OK:
        return None
    return "fault" if call.injected == "abort" else "application" if status.code < 500 else "handler"


def _trace(call: Arrival) -> str:
    """The trace of a call; empty where it has none."""
    if call.context is not None:
        trace: str = call.context.trace_id
        return trace
    return trace_of(call.headers)
