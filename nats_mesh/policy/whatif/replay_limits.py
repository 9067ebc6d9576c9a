"""Which recorded calls would find every slot of their instance taken, by when they came and how long they took.

Calls that were refused for want of a slot have no time of their own: they are taken to take as long as the middle one
of the served calls of their endpoint. Of a sample each call stands for several; where a limit is so small that a few
sampled calls would fill it, nothing can be said.
"""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, NamedTuple

from nats_mesh.core.envelope import RecordedCall
from nats_mesh.errors import Refused

__all__ = ["FEWEST", "Slot", "full", "seconds_of", "spans_of"]

#: A limit must be worth so many sampled calls before a sample says anything about it.
FEWEST: Final = 5.0
#: What a call is taken to take where none of its endpoint was served (seconds).
_UNHEARD_S: Final = 0.025
_CONCURRENCY: Final = str(Refused.CONCURRENCY)


class Slot(NamedTuple):
    """Call ``number`` wanted a slot from ``start`` until ``end`` (seconds)."""

    start: float
    end: float
    number: int


def seconds_of(at: str) -> float:
    """An instant of a recording as seconds since 1970."""
    return datetime.datetime.fromisoformat(at).timestamp()


def spans_of(calls: Iterable[tuple[int, RecordedCall]]) -> list[Slot]:
    """When the calls of one endpoint at one instance wanted a slot, in their order. Those that were refused for another
    reason never came so far."""
    wanted = [(number, call) for number, call in calls if not call.refused or call.refused == _CONCURRENCY]
    served = [call.duration_s - call.queue_s - call.fault_s for _, call in wanted if not call.refused]
    typical = max(0.0, median(served)) if served else _UNHEARD_S
    found: list[Slot] = []
    for number, call in wanted:
        start = seconds_of(call.at) + call.queue_s + call.fault_s
        took = typical if call.refused else max(0.0, call.duration_s - call.queue_s - call.fault_s)
        found.append(Slot(start, start + took, number))
    return sorted(found)


def full(slots: Sequence[Slot], limit: int, sample: float) -> set[int] | None:
    """The calls that would be refused with ``limit`` slots; ``None`` where a sample of that size does not tell."""
    if sample < 1.0 and limit * sample < FEWEST:
        return None
    refused: set[int] = set()
    ends: list[float] = []
    for start, end, number in slots:
        while ends and ends[0] <= start:
            heapq.heappop(ends)
        if len(ends) >= limit * sample:
            refused.add(number)
        else:
            heapq.heappush(ends, end)
    return refused
