"""Traces out of spans: who called whom, where the time went, and whose clock is off. Pure.

Spans come from many machines, whose clocks differ. What happened at an instance lies within the attempt that asked for
it: it began no earlier, and where the caller got an answer, it ended no later. Where a clock says otherwise, it is
moved by as little as puts its spans into the middle of that (F. Cristian, "Probabilistic clock synchronization", 1989:
half of the time that is left to either way), and by how much is said. Rejected: to move every span by itself, as some
tools do; one clock has one error, and moved spans of one instance would contradict each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from nats_mesh.core.sampling import failed
from nats_mesh.telemetry.span_parts import RecordedSpan

__all__ = [
    "MAX_DEPTH",
    "MAX_MOVE_US",
    "MAX_TOLD",
    "MAX_TRACE",
    "Flagged",
    "Placed",
    "Refusal",
    "Skew",
    "Summary",
    "Trace",
    "assemble",
    "refused_by",
    "summary_of",
    "traces_of",
]

#: How many spans of one trace are looked at, and how deep they are drawn into each other.
MAX_TRACE: Final = 5000
MAX_DEPTH: Final = 64
#: How many refusals of one trace are told, and how many flags of its calls.
MAX_TOLD: Final = 16
#: Clocks that are off by less are not worth a word, nor is what went on for less (microseconds).
WORTH_SAYING_US: Final = 1000
#: By more no clock is moved (microseconds, a year): whoever tells such instants makes them up, and moves of clocks by
#: each other add up to instants that no calendar has.
MAX_MOVE_US: Final = 366 * 86_400 * 1_000_000
#: With these a caller went away before the instance was done: its span says nothing of when that was.
_GAVE_UP: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "UNAVAILABLE"})

_Clock: TypeAlias = tuple[str, str]


class Placed(NamedTuple):
    """A span in its trace: how deep, and when, by the clock of whoever made the first call (microseconds after it).

    ``lost``: the span it was called from is not there. ``last``: nothing follows it under its parent.
    """

    span: RecordedSpan
    depth: int
    offset_us: int
    lost: bool = False
    last: bool = False


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a member's clock was moved (microseconds; positive: it is behind). ``sure`` is false where its spans
    contradict each other, or where it cannot be compared at all, and was left as it is."""

    member: str
    instance: str
    moved_us: int
    sure: bool = True


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Spans in the order in which a person reads them: each before what it called, those of one parent by time."""

    trace: str
    placed: tuple[Placed, ...]
    skews: tuple[Skew, ...]
    #: The wall time of its beginning, and its length (microseconds).
    start_us: int
    took_us: int
    #: Spans beyond :data:`MAX_TRACE`.
    cut: int = 0

    @property
    def spans(self) -> Iterator[RecordedSpan]:
        """Its spans."""
        return (each.span for each in self.placed)

    @property
    def lost(self) -> int:
        """How many spans were called from one that is not there."""
        return sum(each.lost for each in self.placed)


class Refusal(NamedTuple):
    """Who did not let a call of ``service.endpoint`` through: a layer of its caller that did not send it, or its
    instance (``side``: ``outbound``, ``inbound``), and at which ``layer`` or for which reason."""

    side: str
    layer: str
    service: str
    endpoint: str


class Flagged(NamedTuple):
    """Why the mesh ended a call of ``caller`` to ``service.endpoint``: one of its flags, whichever side told it."""

    flag: str
    caller: str
    service: str
    endpoint: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A trace in one line. ``status`` is that of its first call and ``root_us`` how long that took, ``took_us`` until
    everything of it had ended, ``before_us`` by how much something stands before its first call (clocks that contradict
    each other), ``retries`` how many attempts were made beyond each first. ``flags`` are those of all its calls,
    ``flagged`` which call had which, those of the first call first, ``refusals`` who did not let some of them through,
    ``injected`` what was done to some on purpose; each once. ``only_refused``: all that failed did so because somebody
    did not let a call through, and no handler failed by itself.
    """

    trace: str
    start_us: int
    took_us: int
    root_us: int
    caller: str
    service: str
    endpoint: str
    status: str
    spans: int
    services: tuple[str, ...]
    errors: int
    retries: int
    slow: bool
    sampled: bool
    lost: int
    flags: tuple[str, ...] = ()
    flagged: tuple[Flagged, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    injected: tuple[str, ...] = ()
    before_us: int = 0
    only_refused: bool = False

    @property
    def rest_us(self) -> int:
        """How long something of it went on after its first call had ended: what its caller had given up, or did not
        wait for."""
        return max(0, self.took_us - self.before_us - self.root_us)

    @property
    def after_us(self) -> int:
        """As :attr:`rest_us`; 0 where that is not long enough to say so in a list."""
        return self.rest_us if self.rest_us >= WORTH_SAYING_US else 0


def traces_of(spans: Iterable[RecordedSpan]) -> dict[str, dict[str, RecordedSpan]]:
    """Spans by their traces, each once: by its id, and by its kind where the two ends of a call share one."""
    found: dict[str, dict[str, RecordedSpan]] = {}
    for span in spans:
        found.setdefault(span.trace, {}).setdefault(f"{span.id}{span.kind}", span)
    return found


def assemble(spans: Iterable[RecordedSpan]) -> Trace:
    """One trace out of its spans, of which there is one at least; nothing in them makes it fail."""
    every = sorted(spans, key=_order)
    kept = every[:MAX_TRACE]
    parents = _parents(kept)
    skews = _skews(kept, parents)

    def start(at: int) -> int:
        skew = skews.get(kept[at].clock)
        return kept[at].start_us + (0 if skew is None else skew.moved_us)

    children: dict[int, list[int]] = {}
    roots: list[int] = []
    for at in range(len(kept)):
        above = parents.get(at)
        if above is None:
            roots.append(at)
        else:
            children.setdefault(above, []).append(at)
    begin = min(start(at) for at in range(len(kept)))
    placed: list[Placed] = []
    waiting = [(at, 0, False) for at in sorted(roots, key=start, reverse=True)]
    while waiting:
        at, depth, last = waiting.pop()
        span = kept[at]
        lost = at not in parents and bool(span.parent)
        placed.append(Placed(span, min(depth, MAX_DEPTH), start(at) - begin, lost, last))
        below = sorted(children.get(at, ()), key=start, reverse=True)
        waiting += [(child, depth + 1, number == 0) for number, child in enumerate(below)]
    end = max(each.offset_us + each.span.took_us for each in placed)
    return Trace(
        trace=kept[0].trace,
        placed=tuple(placed),
        skews=tuple(
            skew
            for _, skew in sorted(skews.items())
            if not skew.sure or abs(skew.moved_us) >= WORTH_SAYING_US
        ),
        start_us=begin,
        took_us=end,
        cut=len(every) - len(kept),
    )


def summary_of(trace: Trace) -> Summary:
    """A trace in one line."""
    spans = list(trace.spans)
    first = spans[0]
    return Summary(
        trace=trace.trace,
        start_us=trace.start_us,
        took_us=trace.took_us,
        root_us=first.took_us,
        before_us=trace.placed[0].offset_us,
        caller=first.caller,
        service=first.service,
        endpoint=first.endpoint,
        status=first.status,
        spans=len(spans),
        services=tuple(sorted({span.service for span in spans})),
        errors=sum(failed(span.status) for span in spans if span.kind != "attempt"),
        retries=sum(span.attempt - 1 for span in spans if span.kind == "client"),
        slow=any(span.why == "slow" for span in spans),
        sampled=any(span.why == "sampled" for span in spans),
        lost=trace.lost,
        flags=tuple(sorted({flag for span in spans for flag in span.each_flag})),
        flagged=_flagged(spans),
        refusals=tuple(dict.fromkeys(_refusals(spans)))[:MAX_TOLD],
        injected=tuple(sorted({what for span in spans for what in _injected(span)})),
        only_refused=_only_refused(spans),
    )


def refused_by(span: RecordedSpan) -> str:
    """Who did not let a call or an attempt through, as its span says; empty: it went through, or nobody says. Members
    of before said it in the words of the error alone where it was the caller's circuit."""
    return span.refused or ("breaker" if span.kind != "server" and span.error.startswith(_CIRCUIT) else "")


def _refusals(spans: Iterable[RecordedSpan]) -> Iterator[Refusal]:
    for span in spans:
        if layer := refused_by(span):
            side = "inbound" if span.kind == "server" else "outbound"
            yield Refusal(side, layer, span.service, span.endpoint)


def _only_refused(spans: Sequence[RecordedSpan]) -> bool:
    """Whether below everything that failed stands a refusal: what failed by itself called nothing that failed."""
    ill = [span for span in spans if failed(span.status) or refused_by(span)]
    above = {span.parent for span in ill}
    roots = [span for span in ill if span.id not in above]
    return bool(roots) and all(refused_by(span) for span in roots)


def _flagged(spans: Sequence[RecordedSpan]) -> tuple[Flagged, ...]:
    found = dict.fromkeys(
        Flagged(flag, span.caller, span.service, span.endpoint)
        for span in spans
        for flag in sorted(span.each_flag)
    )
    first = (spans[0].caller, spans[0].service, spans[0].endpoint)
    return tuple(sorted(found, key=lambda each: each[1:] != first))[:MAX_TOLD]


def _injected(span: RecordedSpan) -> Iterator[str]:
    flags = span.each_flag
    if span.injected == "abort" or "FI" in flags:
        yield "abort"
    if span.injected == "delay" or span.fault_us or "DI" in flags:
        yield "delay"


#: How the word of a circuit begins that refuses a call.
_CIRCUIT: Final = "the circuit of "

#: A caller's span before its attempts, and both before what the instance did, where their clocks say the same.
_RANK: Final = {"client": 0, "attempt": 1, "server": 2}


def _order(span: RecordedSpan) -> tuple[int, int, str, str]:
    return span.start_us, _RANK[span.kind], span.id, span.member_instance


def _parents(spans: list[RecordedSpan]) -> dict[int, int]:
    """By the place of a span, that of the one it was called from. Whoever makes up ids makes no circle here."""
    by_id: dict[str, int] = {}
    for at, span in enumerate(spans):
        by_id.setdefault(span.id, at)
    parents: dict[int, int] = {}
    for at, span in enumerate(spans):
        above = by_id.get(span.parent) if span.parent else None
        if above is not None and above != at:
            parents[at] = above
    met: dict[int, int] = {}
    for begin in range(len(spans)):
        up = begin
        while up in parents and up not in met:
            met[up] = begin
            up = parents[up]
        if up in parents and met.get(up) == begin:
            del parents[up]  # a circle: it ends here
    return parents


def _skews(spans: list[RecordedSpan], parents: dict[int, int]) -> dict[_Clock, Skew]:
    """How far to move each clock, from that of the first call outwards."""
    bounds: dict[tuple[_Clock, _Clock], tuple[int | None, int | None]] = {}
    for at, above in parents.items():
        child, parent = spans[at], spans[above]
        if child.clock == parent.clock:
            continue
        low, high = bounds.get((parent.clock, child.clock), (None, None))
        least = parent.start_us - child.start_us
        low = least if low is None else max(low, least)
        if parent.status not in _GAVE_UP:
            most = parent.end_us - child.end_us
            high = most if high is None else min(high, most)
        bounds[parent.clock, child.clock] = low, high
    first = next((at for at in range(len(spans)) if at not in parents), 0)
    skews = {
        spans[first].clock: Skew(
            member=spans[first].member, instance=spans[first].member_instance, moved_us=0
        )
    }
    below: dict[_Clock, list[tuple[_Clock, int | None, int | None]]] = {}
    for (upper, lower), (low, high) in bounds.items():
        below.setdefault(upper, []).append((lower, low, high))
    waiting = deque([spans[first].clock])
    while waiting:
        known = waiting.popleft()
        for clock, low, high in below.get(known, ()):
            if clock not in skews:
                moved, sure = _least_move(low, high, skews[known].moved_us)
                if abs(moved) > MAX_MOVE_US:
                    moved, sure = 0, False
                skews[clock] = Skew(member=clock[0], instance=clock[1], moved_us=moved, sure=sure)
                waiting.append(clock)
    return skews


def _least_move(low: int | None, high: int | None, base: int) -> tuple[int, bool]:
    """How far to move a clock whose spans must move by ``low`` at least and ``high`` at most, beside ``base``: not at
    all where that fits, else into the middle. Whether the bounds agree with each other."""
    if low is not None:
        low += base
    if high is not None:
        high += base
    if (low is None or low <= 0) and (high is None or high >= 0):
        return 0, True
    if low is None or high is None:
        return (low if low is not None else high) or 0, True
    return (low + high) // 2, low <= high
