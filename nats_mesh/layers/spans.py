"""From a call that has ended at an instance to its span: noted on its path, read off later."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import copy
from typing import Any, Final, TypeAlias

from nats_mesh.core.sampling import reason
from nats_mesh.errors import Status
from nats_mesh.layers.arrived import attempt_of, endpoint_of, queued_s
from nats_mesh.layers.base import Arrival
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_refusal
from nats_mesh.telemetry.span_columns import encode_alike
from nats_mesh.telemetry.span_parts import MAX_ERROR, Span
from nats_mesh.telemetry.tracing import Tracing
from nats_mesh.wire import headers as h

__all__ = ["ServerSpans"]

#: An attribute of an enumeration costs a call each time it is looked up.
_OK: Final = Status.OK

#: Of calls with larger bodies (bytes) no more is kept than their spans need.
_LARGE: Final = 4096

#: Whether it may be left out easily, its trace, the call, how long it took, and whether that was long for its endpoint.
_Note: TypeAlias = tuple[bool, str, Arrival, float, bool]


class ServerSpans:
    """Notes the calls of one instance that leave spans; it is told of those that are sampled, failed, or took longer
    than the lowest limit (:meth:`nats_mesh.serving.watching.Watching.set`). ``slow_s`` says of an endpoint from how
    many seconds on its calls are slow; :meth:`settle` asks it again. ``labels`` says what stands on its spans."""

    def __init__(
        self,
        tracing: Tracing,
        service: str,
        rng: random.Random,
        slow_s: Callable[[str], float],
        labels: Callable[[str], dict[str, str]],
    ) -> None:
        self._service = service
        self._rng = rng
        self._slow_s = slow_s
        self._labels = labels
        self._slow: dict[str, float] = {}
        self._any_slow = False
        self.notes = tracing.side(self._read, self._alike, server=True)

    def settle(self, endpoints: list[str]) -> None:
        """Look again at which calls are slow."""
        self._slow = {name: self._slow_s(name) for name in endpoints}
        self._any_slow = any(limit < math.inf for limit in self._slow.values())

    def __call__(self, call: Arrival, took_s: float) -> None:
        """``call`` has ended, ``took_s`` seconds after it came."""
        block = call.headers
        calm = call.status is _OK
        if self._any_slow:
            if took_s >= self._slow.get(endpoint_of(call), math.inf):
                calm = False
            elif calm and not h.is_sampled(block, alone=call.plain):
                return
        self._note(call, took_s, calm=calm, long=False)

    def keep_long(self, call: Arrival, took_s: float) -> None:
        """``call`` took long for its endpoint, as somebody else knows: it leaves a span if it has left none yet."""
        left_none = call.status is _OK and not h.is_sampled(call.headers, alone=call.plain)
        if left_none and took_s < self._slow.get(endpoint_of(call), math.inf):
            self._note(call, took_s, calm=False, long=True)

    def _note(self, call: Arrival, took_s: float, *, calm: bool, long: bool) -> None:
        block, notes = call.headers, self.notes
        at = block.find(h.TRACEPARENT)
        trace = block[at + 18 : at + 34].decode("ascii", "replace")
        if calm and notes.below and trace >= notes.below:
            notes.dropped += 1
            return
        if len(call.payload) > _LARGE or call.sent > _LARGE:
            call = _slim(call)
        notes.add((calm, trace, call, took_s, long))

    def _alike(self, key: tuple[Any, str]) -> bytes:
        """What all calls of an endpoint by one caller say."""
        kind, caller = key
        return encode_alike(
            Span(
                trace="0" * 32,
                id="0" * 16,
                kind="server",
                service=self._service,
                endpoint=kind.endpoint.name,
                caller=caller,
                start_us=0,
                took_us=0,
                labels=self._labels(kind.endpoint.name),
            )
        )

    def _read(self, note: _Note, wall: float) -> list[Span]:
        _, _, call, took_s, long = note
        context, block, received = call.context, call.headers, call.received
        endpoint = endpoint_of(call)
        status = _OK if call.status is None else call.status
        sampled = h.is_sampled(block, alone=call.plain)
        limit_s = 0.0 if long else self._slow.get(endpoint, math.inf)
        why = reason(status, took_s, limit_s, sampled=sampled)
        if why is None:
            return []
        parent = h.trace_parent(block)
        if parent is not None:
            trace = parent.trace_id
        else:
            trace = self._rng.randbytes(16).hex() if context is None else context.trace_id
        failed = status is not _OK
        return [
            Span(
                trace=trace,
                id=self._rng.randbytes(8).hex() if context is None else context.span_id,
                parent="" if parent is None else parent.span_id,
                kind="server",
                service=self._service,
                endpoint=endpoint,
                caller=call.caller,
                start_us=max(0, round((received + wall) * 1e6)),
                took_us=max(0, round(took_s * 1e6)),
                status=str(status),
                why=why,
                attempt=1 if call.plain else attempt_of(block),
                queue_us=round(queued_s(call, took_s) * 1e6),
                fault_us=round(call.held_s * 1e6),
                route=call.route,
                refused="" if call.refused is None else str(call.refused),
                injected=call.injected,
                flags=_flags(call) if failed else "",
                error=h.one_line(call.problem, MAX_ERROR) if failed and call.problem else "",
                labels=self._labels(endpoint),
            )
        ]


def _slim(call: Arrival) -> Arrival:
    """A call without its bodies."""
    slim = copy(call)
    slim.payload, slim.result, slim.keep, slim.stop, slim.timer = b"", None, None, None, None
    return slim


def _flags(call: Arrival) -> str:
    return flags_of_refusal(call.refused, call.injected) or flags_of_ended(call.ended, "")
