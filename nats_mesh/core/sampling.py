"""Which calls leave spans: decided at the head of a trace by chance, at its ends by what became of each call, and
where there are more than fit, by the trace, so that traces stay whole.

The head decides once, and the decision travels with the trace; that is what keeps the cost of most calls at nothing.
A call that failed or was slow is kept by whoever saw that, whatever the head decided. Rejected: to hold all spans back
until a trace has ended and decide then (tail sampling), which needs one place that all spans of a trace come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias, TypeVar

from nats_mesh.errors import Status

__all__ = ["Reason", "failed", "kept", "reason"]

#: Why a span is kept: its trace is sampled, or the call failed, or it was slow.
Reason: TypeAlias = Literal["sampled", "error", "slow"]

#: What may have to be left out, as a tuple that begins with whether it may be left out easily, and its trace.
N = TypeVar("N", bound=tuple[Any, ...])
_order = itemgetter(0, 1)


#: A code of 500 and more: the service's fault, not its caller's. By name: what is read off the bus is text.
_FAILURES: Final = frozenset([str(status) for status in Status if status.code >= 500])


def failed(status: str) -> bool:
    """Whether a call that ended so failed by the service's fault."""
    return status in _FAILURES


def reason(status: str, took_s: float, slow_s: float, *, sampled: bool) -> Reason | None:
    """Why the span of such a call is kept; ``None`` where it is not. Failures are those of the service (a code of 500
    and more), not those of its caller."""
    if status in _FAILURES:
        return "error"
    if took_s >= slow_s:
        return "slow"
    return "sampled" if sampled else None


def kept(notes: Sequence[N], traces: Sequence[str], room: int) -> tuple[list[N], list[int]]:
    """As many of ``notes``, and of calls in the ``traces``, as there is ``room`` for: those that are not easily left
    out first, then by their traces. Each of the ``traces`` may be left out; which are not is said by their places.

    Everybody prefers the same traces, those with the lowest digits: what is left of a trace in one member is left of it
    in the others. Trace ids are random; where somebody's are not, his are chosen unevenly, and nothing else happens.
    """
    if len(notes) + len(traces) <= room:
        return list(notes), list(range(len(traces)))
    first = sorted(notes, key=_order)[: max(0, room)]
    urgent = [note for note in first if not note[0]]
    calm = first[len(urgent) :]
    by_trace = [(note[1], 0, at) for at, note in enumerate(calm)]
    by_trace += [(trace, 1, at) for at, trace in enumerate(traces)]
    chosen = sorted(by_trace)[: max(0, room) - len(urgent)]
    return (
        urgent + [calm[at] for _, is_row, at in chosen if not is_row],
        [at for _, is_row, at in chosen if is_row],
    )
