"""From a call that has ended at its caller to its spans: one over all attempts, and one for each where there were
several. Noted on the call's path, read off later."""

from __future__ import annotations

import math
import random
from copy import copy
from typing import Any, Final, TypeAlias

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.heads import span_above
from nats_mesh.calling.watching import CallEnd
from nats_mesh.core.durations import duration_text
from nats_mesh.core.sampling import reason
from nats_mesh.errors import (
    CallError,
    CircuitOpenError,
    CodecError,
    DeadlineExceededError,
    Executed,
    NoInstancesError,
    Status,
)
from nats_mesh.policy import PolicySet
from nats_mesh.telemetry.series import OTHER, PLAIN
from nats_mesh.telemetry.span_columns import encode_alike
from nats_mesh.telemetry.span_parts import MAX_ERROR, Span
from nats_mesh.telemetry.tracing import Tracing
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.loop import CancelledError
from nats_mesh.wire.subjects import ALL

__all__ = ["GIVEN_UP", "UNSENT", "ClientSpans", "refusing_layer"]

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK
_MAX_TARGETS: Final = 4096
_MAX_RULES: Final = 8
#: Attempts of one call that are told one by one.
_MAX_ATTEMPTS: Final = 32

#: How the words of a call begin that its caller gave up, and how they end where no attempt was written before.
GIVEN_UP: Final = "given up by its caller"
UNSENT: Final = ", before it was sent"
#: Of calls with larger bodies (bytes) no more is kept than their spans need.
_LARGE: Final = 4096

#: The caller's layers that end a call unsent (their names in ``layers/stack.py``).
_BREAKER: Final = "breaker"
_FAULT: Final = "fault"
_DEADLINE: Final = "deadline"
_ENCODE: Final = "encode"
_WIRE: Final = "wire"

#: Whether it may be left out easily, its trace, the call, and of one that failed what its caller was told, and by which
#: of its caller's layers it was refused.
_Note: TypeAlias = tuple[bool, str, CallEnd, str, str]


def refusing_layer(error: BaseException, sent: int) -> str:
    """Which of its caller's layers ended a call, or its last attempt, without sending it; empty: none of them.
    ``sent`` is how many of its attempts were written to the bus."""
    if isinstance(error, CircuitOpenError):
        return _BREAKER
    if sent:
        return ""
    if isinstance(error, CodecError):
        return _ENCODE
    if not isinstance(error, CallError) or isinstance(error, NoInstancesError):
        return ""  # it was broken off, or sent to nobody
    if error.fault:
        return _FAULT
    if error.executed is not Executed.NO:
        return ""
    return _DEADLINE if isinstance(error, DeadlineExceededError) else _WIRE


def _words(error: BaseException, call: CallEnd) -> str:
    """What became of a call that did not end well. What a cancellation says is for whoever cancelled: the call was
    given up."""
    if isinstance(error, CancelledError):
        unsent = "" if call.sent else UNSENT
        return f"{GIVEN_UP} after {duration_text(call.end - call.start)}{unsent}"
    return error.message if isinstance(error, CallError) else str(error)


class ClientSpans:
    """Notes the calls of one client that leave spans; it is told of those that are sampled, failed, or took longer than
    the lowest limit (:meth:`nats_mesh.calling.client.Client.watch`)."""

    def __init__(self, tracing: Tracing, name: str, rng: random.Random, policies: PolicySet) -> None:
        self._name = name
        self._rng = rng
        self._slow: dict[Any, float] = {}
        self._policies = policies
        self.notes = tracing.side(self._read, self._alike, server=False)

    def settle(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on."""
        self._policies = policies
        self._slow = {}

    def __call__(self, call: CallEnd) -> None:
        """``call`` has ended."""
        status = call.status
        slow = self._policies.telling and call.end - call.start >= self._limit_of(call.known)
        if status is _OK and not call.sampled and not slow:
            return
        attempts, error, problem, refused = call.attempts, call.error, "", ""
        calm, trace, notes = status is _OK and not slow, attempts[0].ids[:16] if attempts else "", self.notes
        if calm and notes.below and trace >= notes.below:
            notes.dropped += 1
            return
        if error is not None:
            # Its frames would be kept with it.
            problem = _words(error, call)
            refused = refusing_layer(error, call.sent)
            call = call._replace(error=None)
        if call.bytes_out > _LARGE:
            request = copy(call.request)
            request.value = None
            call = call._replace(request=request)
        notes.add((calm, trace, call, problem, refused))

    def _limit_of(self, known: Target) -> float:
        """From how many seconds on a call there is slow."""
        known_s = self._slow.get(known)
        if known_s is not None:
            return known_s
        rules = self._policies.telemetry(known.service, known.endpoint).slow if known.mesh else None
        limit_s = math.inf if rules is None or rules.threshold_s is None else rules.threshold_s
        if len(self._slow) >= _MAX_TARGETS:
            self._slow.clear()
        self._slow[known] = limit_s
        return limit_s

    def _alike(self, known: Target) -> bytes:
        """What all calls of a target say."""
        service, endpoint = (known.service, known.endpoint) if known.mesh else (PLAIN, OTHER)
        return encode_alike(
            Span(
                trace="0" * 32,
                id="0" * 16,
                kind="client",
                service=service,
                endpoint=endpoint,
                caller=self._name,
                start_us=0,
                took_us=0,
                rules=self._rules_of(known),
                labels=self._labels_of(known),
            )
        )

    def _read(self, note: _Note, wall: float) -> list[Span]:
        _, _, call, problem, refused = note
        known, parent, request, attempts = call.known, call.parent, call.request, call.attempts
        start, end, status, sent, route = call.start, call.end, call.status, call.sent, request.route
        why = reason(status, end - start, self._slow.get(known, math.inf), sampled=call.sampled)
        if why is None:
            return []
        above = span_above(request, parent)
        trace = attempts[0].ids[:32] if attempts else self._rng.randbytes(16).hex()
        if above is not None:
            trace = above.trace_id
        several = len(attempts) > 1 or sent > 1
        own = attempts[0].ids[33:] if attempts and not several else self._rng.randbytes(8).hex()
        service, endpoint = (known.service, known.endpoint) if known.mesh else (PLAIN, OTHER)
        rules, labels = self._rules_of(known), self._labels_of(known)
        spans = [
            Span(
                trace=trace,
                id=own,
                parent="" if above is None else above.span_id,
                kind="client",
                service=service,
                endpoint=endpoint,
                caller=self._name,
                start_us=max(0, round((start + wall) * 1e6)),
                took_us=max(0, round((end - start) * 1e6)),
                status=str(status),
                why=why,
                instance=attempts[-1].instance if attempts else "",
                attempt=max(1, sent, len(attempts)),
                fault_us=round(call.delayed_s * 1e6),
                route=route or ALL,
                refused=refused,
                flags=call.flags,
                rules=rules,
                error=one_line(problem, MAX_ERROR) if problem else "",
                labels=labels,
            )
        ]
        if several:
            spans += [
                Span(
                    trace=trace,
                    id=each.ids[33:],
                    parent=own,
                    kind="attempt",
                    service=service,
                    endpoint=endpoint,
                    caller=self._name,
                    start_us=max(0, round((each.start + wall) * 1e6)),
                    took_us=max(0, round((each.end - each.start) * 1e6)),
                    status=str(each.status),
                    why=why,
                    instance=each.instance,
                    attempt=number,
                    route=route or ALL,
                    refused=_BREAKER if each.refused else "",
                    error=one_line(each.refused, MAX_ERROR),
                    labels=labels,
                )
                for number, each in enumerate(attempts[:_MAX_ATTEMPTS], 1)
            ]
        return spans

    def _labels_of(self, known: Target) -> dict[str, str]:
        """What policies want to stand on the spans of calls there."""
        if not known.mesh:
            return {}
        return self._policies.telemetry(known.service, known.endpoint).span_labels()

    def _rules_of(self, known: Target) -> tuple[str, ...]:
        """The rules of routes that sent a call there."""
        if not known.via:
            return ()
        called = self._policies.rule_names()
        names = [called.get(each, "") for each in known.via[:_MAX_RULES]]
        return tuple([name[:MAX_ERROR] for name in names if name])
