"""Slow calls: what each spent its time on. Told while somebody listens, and the last ones kept for whoever asks later.

An instance keeps its last :data:`MAX_CALLS` slow calls. They are published while an observer's lease on ``slow`` runs,
and whoever asks with an inbox gets those that are kept in answer. They are bounded in rate, because a time in which
everything is slow is no time to add to it; what was left out is counted, and the next one says so.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Instant, Name, Version
from nats_mesh.core.refill import Refill
from nats_mesh.core.seldom import worth_saying
from nats_mesh.errors import CallError, CodecError
from nats_mesh.telemetry.answering import Answering
from nats_mesh.telemetry.wants import Wants
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport
from nats_mesh.wire.vouching import check_claims, check_own

__all__ = [
    "INJECTED",
    "MAX_BYTES",
    "MAX_CALLS",
    "MAX_LEARNING",
    "MAX_STEPS",
    "STOOD_STILL",
    "SlowCall",
    "SlowCalls",
    "SlowRecent",
    "SlowStep",
    "decode_slow",
    "decode_slow_answer",
]

log = logging.getLogger("nats_mesh.slow")

#: How many slow calls an instance keeps, and how many of its own calls each of them names.
MAX_CALLS: Final = 128
MAX_STEPS: Final = 16
#: How many endpoints an instance names whose p99 it does not know yet.
MAX_LEARNING: Final = 256
#: The largest body that is read.
MAX_BYTES: Final = 512 * 1024
#: How many slow calls a second are kept in the long run, and at once.
_RATE_PER_S: Final = 10.0
_BURST: Final = 64.0
_KIND: Final = "slow"
#: What the part of a call's time is called that a fault held it on purpose.
INJECTED: Final = "injected delay"
#: What the part is called in which the handler waited for others and its process did not run.
STOOD_STILL: Final = "the process stood still"
_LONGEST_S: Final = 1e7

_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=_LONGEST_S)]
_Status = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")]
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=256)]


class SlowStep(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the handler made: to ``target``, ``at_s`` after the slow call came, for ``took_s``, in ``stood_s`` of
    which the process stood still."""

    target: _Text
    at_s: _Seconds
    took_s: _Seconds
    status: _Status
    stood_s: _Seconds = 0.0


class SlowCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that took as long as its policy calls slow, or longer, at the instance that answered it.

    ``at`` is the wall time of its arrival. Of ``duration_s`` the first ``queue_s`` passed before it was looked at, then
    an injected delay held it for ``fault_s``, the rest is ``handler_s``, of which ``own_s`` is what no call of the
    handler's own accounts for; for ``stood_s`` of what these do account for the process itself stood still, which is
    nobody's fault who was called. ``steps`` are those calls, the longest where they are too many (then ``more`` are
    left out; they count in ``own_s`` all the same). ``threshold_s`` is from when on such a call is slow, ``p99_s`` the
    endpoint's own 99th percentile, where it is known. ``missed`` slow calls before this one were too many to be kept.
    """

    at: Instant
    service: Name
    instance: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    endpoint: Name
    caller: Name
    status: _Status
    duration_s: _Seconds
    queue_s: _Seconds = 0.0
    fault_s: _Seconds = 0.0
    handler_s: _Seconds = 0.0
    own_s: _Seconds = 0.0
    stood_s: _Seconds = 0.0
    threshold_s: _Seconds = 0.0
    p99_s: _Seconds | None = None
    policy: _Text = ""
    attempt: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    trace: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    steps: Annotated[tuple[SlowStep, ...], msgspec.Meta(max_length=MAX_STEPS)] = ()
    more: Count = 0
    labels: Annotated[dict[_Text, _Text], msgspec.Meta(max_length=64)] = {}
    missed: Count = 0
    wire: Literal[1] = 1


class SlowRecent(msgspec.Struct, frozen=True, kw_only=True):
    """The slow calls that an instance keeps, oldest first: the answer to whoever asks.

    ``learning`` are the endpoints that a policy judges by their own p99, which this instance does not know yet, each
    with how many calls it knows: none of theirs is slow so far.
    """

    service: Name | UnsetType = UNSET
    instance: Name | UnsetType = UNSET
    learning: Annotated[dict[Name, Count], msgspec.Meta(max_length=MAX_LEARNING)] = {}
    calls: Annotated[tuple[SlowCall, ...], msgspec.Meta(max_length=MAX_CALLS)] = ()
    wire: Literal[1] = 1


class SlowCalls:
    """The slow calls of one instance. Every method belongs to the event loop's thread.

    ``missed`` are those that were too many to be kept.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        version: str,
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        wants: Wants,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.missed = 0
        self._failed = 0
        self.recent: deque[SlowCall] = deque(maxlen=MAX_CALLS)
        self._service = service
        self._instance = instance
        self._version = version
        self._namespace = subjects.namespace
        self._subject = subjects.telemetry(_KIND, service, instance)
        self._transport = transport
        self._mux = mux
        self._wants = wants
        self._clock = clock
        now = clock.monotonic()
        self._room = Refill(_RATE_PER_S, _BURST, now)
        #: The endpoints whose p99 is not known yet, each with how many calls are.
        self.learning: Callable[[], Mapping[str, int]] = dict
        self._answering: Answering[SlowCall] = Answering(self._encode_recent, MAX_BYTES, clock.monotonic)
        self._seq = 0
        self._unsaid = 0
        self._closed = False
        wants.on(_KIND, self._on_want)

    @property
    def stalls(self) -> Sequence[tuple[float, float]]:
        """When this process stood still lately: from and until (monotonic seconds)."""
        return self._transport.stats.stalls

    @property
    def failed(self) -> int:
        """Those that could not be sent."""
        return self._failed + self._answering.failed

    def room(self) -> bool:
        """Whether there is room for one more; where there is none, it is counted as missed."""
        if self._closed or self._room.room(self._clock.monotonic()) < 1:
            self.missed += 1
            self._unsaid += 1
            return False
        self._room.take(1)
        return True

    def tell(
        self,
        *,
        endpoint: str,
        caller: str,
        status: str,
        came: float,
        duration_s: float,
        queue_s: float,
        fault_s: float = 0.0,
        own_s: float,
        stood_s: float = 0.0,
        threshold_s: float,
        p99_s: float | None,
        policy: str,
        attempt: int,
        trace: str,
        steps: list[SlowStep],
        labels: dict[str, str],
    ) -> None:
        """Keep one, and tell it where somebody listens; ``came`` is when it came (monotonic seconds)."""
        self._seq += 1
        kept = steps
        if len(steps) > MAX_STEPS:
            longest = sorted(steps, key=lambda step: step.took_s, reverse=True)[:MAX_STEPS]
            kept = sorted(longest, key=lambda step: step.at_s)
        call = SlowCall(
            at=rfc3339(self._clock.time() - (self._clock.monotonic() - came)),
            service=self._service,
            instance=self._instance,
            version=self._version,
            namespace=self._namespace,
            seq=self._seq,
            endpoint=endpoint,
            caller=caller,
            status=status,
            duration_s=_seconds(duration_s),
            queue_s=_seconds(queue_s),
            fault_s=_seconds(fault_s),
            handler_s=_seconds(duration_s - queue_s - fault_s),
            own_s=_seconds(own_s),
            stood_s=_seconds(stood_s),
            threshold_s=_seconds(threshold_s),
            p99_s=None if p99_s is None else _seconds(p99_s),
            policy=policy[:256],
            attempt=attempt,
            trace=trace,
            steps=tuple(kept),
            more=len(steps) - len(kept),
            labels=labels,
            missed=self._unsaid,
        )
        self._unsaid = 0
        self.recent.append(call)
        self._log(call)
        if self._wants.wanted(_KIND):
            self._publish(self._subject, JSON.encode(call), self._mux.one_way("telemetry"))

    def _log(self, call: SlowCall) -> None:
        """Say it in the process's own log, ever more rarely: `nats-mesh slow` has all of them."""
        if worth_saying(call.seq):
            log.warning("%s (slow call %d of this instance)", said(call), call.seq)

    def _publish(self, subject: str, body: bytes, reply: str) -> None:
        try:
            self._transport.publish(subject, body, reply)
        except CallError:
            self._failed += 1  # away: whoever comes back asks for what is kept

    def _on_want(self, observer: str, reply: str) -> None:
        self._answering.lease(reply, tuple(self.recent), self._transport)

    def _encode_recent(self, calls: Sequence[SlowCall]) -> bytes:
        learning = dict(sorted(self.learning().items())[:MAX_LEARNING])
        return JSON.encode(
            SlowRecent(service=self._service, instance=self._instance, learning=learning, calls=tuple(calls))
        )

    def close(self) -> None:
        """Keep and tell nothing any more."""
        self._closed = True


def said(call: SlowCall) -> str:
    """A slow call as a line for people: how long, where the time went."""
    parts = [f"queue {call.queue_s * 1e3:.1f} ms", f"itself {call.own_s * 1e3:.1f} ms"]
    if call.fault_s:
        parts.append(f"{INJECTED} {call.fault_s * 1e3:.1f} ms")
    if call.stood_s:
        parts.append(f"{STOOD_STILL} {call.stood_s * 1e3:.1f} ms")
    parts += [f"{step.target} {max(0.0, step.took_s - step.stood_s) * 1e3:.1f} ms" for step in call.steps]
    if call.more:
        parts.append(f"{call.more} more calls")
    return (
        f"{call.service}.{call.endpoint} called by {call.caller} took {call.duration_s * 1e3:.1f} ms "
        f"({call.status}): {', '.join(parts)}"
    )


def _seconds(value: float) -> float:
    return min(_LONGEST_S, max(0.0, round(value, 6)))


_decode_call = at_first_use(lambda: JSON.decoder(SlowCall))
_decode_recent = at_first_use(lambda: JSON.decoder(SlowRecent))


def decode_slow(
    data: bytes, *, service: str | None = None, instance: str | None = None, namespace: str | None = None
) -> SlowCall:
    """Read one slow call, or raise :class:`CodecError`. The keyword arguments are what its subject says."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"slow call: {len(data)} bytes, at most {MAX_BYTES} are read")
    call: SlowCall = _decode_call(data)
    check_claims("slow call", call, service=service, instance=instance, namespace=namespace)
    return call


def decode_slow_answer(
    data: bytes, *, service: str | None = None, namespace: str | None = None
) -> SlowRecent:
    """Read what an instance keeps, or raise :class:`CodecError`, also where it tells of another's calls beside its own.
    The keyword arguments are whom the question named.

    Whoever answers could claim to be anybody; who must know who it was listens to the subjects instead.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"slow calls: {len(data)} bytes, at most {MAX_BYTES} are read")
    recent: SlowRecent = _decode_recent(data)
    said = None if recent.service is UNSET else recent.service
    if service is not None and said not in (None, service):
        raise CodecError(f"slow calls: an answer of service {said!r}, which nobody asked")
    check_own("slow calls", recent.calls, service=service or said, namespace=namespace)
    return recent
