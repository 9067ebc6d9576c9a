"""Which instances are out of balancing for a while, as one caller judges them (outlier detection).

An instance is judged by what became of this caller's calls: failures in a row, its success rate, or silence while
others answer. It is out for a time that grows with each ejection and shrinks again with each healthy stretch, as
Envoy's outlier detection has it. Two bounds keep the cure from being worse than the illness: only a part of the
instances may be out (one always may, however few there are), and where too few are left that are healthy,
ejections are ignored, because the fault is then likely to be elsewhere (Envoy's panic threshold).

An ejection is no circuit breaker: that one judges an endpoint as a whole, this one chooses between its instances.
What says nothing about an instance (no responders, a refusal, draining, a refusal of our own) is not to be
reported here.

Rejected: to compare success rates with the mean of all and eject what deviates (Envoy's other way). It needs many
hosts and many calls to say anything, and a mesh of three instances has neither.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from nats_mesh.core.rules import EjectionRules
from nats_mesh.core.window import OutcomeWindow

__all__ = ["JITTER", "OUTRUN", "Ejection", "Ejector"]

#: An ejection lasts up to this much longer than its rule says, so that callers do not all come back at once.
JITTER: Final = 0.1
#: After so many lost races without an answer of its own an instance counts as silent.
OUTRUN: Final = 10
#: 0.29 × 100 is a little less than 29.
_ROUNDING: Final = 1e-9


class Ejection(msgspec.Struct, frozen=True):
    """``id`` is out until the instant ``until`` (monotonic seconds). ``reason`` is ``consecutive``, ``success-rate``,
    ``silent``, or what was given from outside; ``times`` is by how many times the base time grew."""

    id: str
    until: float
    reason: str
    times: int


class _Record:
    """What is known of one instance. ``fresh`` successes are not in the window yet."""

    __slots__ = ("consecutive", "fresh", "outrun", "returned_at", "silent", "silent_at", "times", "window")

    def __init__(self, window_s: float) -> None:
        self.window = OutcomeWindow(window_s)
        self.fresh = 0
        self.consecutive = 0
        self.silent = 0
        self.outrun = 0
        self.silent_at = -math.inf
        self.times = 0
        self.returned_at = -math.inf

    def settle(self, now: float) -> None:
        """Put the fresh successes where they belong, and make the window that of ``now``."""
        if self.fresh:
            self.window.succeeded(self.fresh)
            self.fresh = 0
        self.window.advance(now)

    def start_anew(self) -> None:
        """Judge by what comes from here on."""
        self.window.clear()
        self.fresh = self.consecutive = self.silent = self.outrun = 0


class Ejector:
    """The ejections of one destination. Tell it how each attempt ended; ask :meth:`available` whom to choose from.

    ``panicking`` says that ejections are ignored, as of the last :meth:`available`. ``capped`` counts the ejections
    that the bound on their number prevented, the last of them that of ``capped_id``. More than ``limit`` instances
    are not remembered: whoever of the others was met first is judged anew, by what comes from then on.
    """

    def __init__(self, rules: EjectionRules, chance: Callable[[], float], *, limit: int = 4096) -> None:
        self._rules = rules
        self._chance = chance
        self._limit = limit
        self._records: dict[str, _Record] = {}
        self._out: dict[str, Ejection] = {}
        self._back: deque[Ejection] = deque(maxlen=limit)
        #: The members that :meth:`available` was last asked about, and what it answered.
        self._ids: Sequence[str] = ()
        self._shown: Sequence[str] | None = None
        #: Who answered last, and who else did: "others answer" is a matter of two instances.
        self._answered = ""
        self._answered_at = -math.inf
        self._others_at = -math.inf
        self.next_return = math.inf
        """The instant at which the next ejection is over; ``inf`` where there is none."""
        self.panicking = False
        self.capped = 0
        self.capped_id = ""

    def success(self, id: str, now: float) -> None:
        """It answered, and well; an error that is the caller's own fault is such an answer."""
        record = self._records.get(id)
        if record is None:
            record = self._meet(id)
        if now >= record.window.until:
            record.settle(now)
        record.fresh += 1
        record.consecutive = record.silent = record.outrun = 0
        if id != self._answered:
            self._answered, self._others_at = id, self._answered_at
        self._answered_at = now

    def failure(self, id: str, now: float) -> Ejection | None:
        """It answered with a failure of its own; the ejection, where that is one too many."""
        if self.is_ejected(id, now):
            return None
        record = self._records.get(id) or self._meet(id)
        record.settle(now)
        record.window.record(now, True)
        record.consecutive += 1
        record.silent = record.outrun = 0
        if id != self._answered:
            self._answered, self._others_at = id, self._answered_at
        self._answered_at = now
        if record.consecutive >= self._rules.consecutive:
            return self.eject(id, now, "consecutive")
        return self._judge_rate(id, record, now)

    def silence(self, id: str, now: float, waited_s: float = 0.0) -> Ejection | None:
        """An attempt got no answer in the time it had, ``waited_s``.

        It counts where another instance answered during that time, or since the last silence of this one: when
        everybody is silent, the network is at fault, or this caller. What counts is also a call that did not succeed.
        """
        if self.is_ejected(id, now):
            return None
        record = self._records.get(id) or self._meet(id)
        others_at = self._others_at if id == self._answered else self._answered_at
        counts = others_at >= now - waited_s or others_at > record.silent_at
        record.silent_at = now
        if not counts:
            return None
        record.settle(now)
        record.window.record(now, True)
        record.silent += 1
        if record.silent >= self._rules.silent:
            return self.eject(id, now, "silent")
        return self._judge_rate(id, record, now)

    def outrun(self, id: str, now: float) -> Ejection | None:
        """Another instance, asked later, answered the call first; this one was told to stop before it answered.

        Who is slow now and then loses now and then; who is frozen never answers in between. With hedges no attempt
        of it would ever run out of time.
        """
        if self.is_ejected(id, now):
            return None
        record = self._records.get(id) or self._meet(id)
        record.outrun += 1
        return self.eject(id, now, "silent") if record.outrun >= OUTRUN else None

    def eject(self, id: str, now: float, reason: str) -> Ejection | None:
        """Take it out, for ``reason``; ``None`` where it is out already, or as many as may be are."""
        if self.is_ejected(id, now):
            return None
        self._sweep(now)
        if not self._has_room():
            self.capped += 1
            self.capped_id = id
            return None
        rules = self._rules
        record = self._records.get(id) or self._meet(id)
        # One time less for each base time that it stayed in since, and no more than the longest time has room for.
        healed = int((now - record.returned_at) / rules.base_s) if record.times else 0
        record.times = min(max(0, record.times - healed) + 1, math.ceil(rules.max_s / rules.base_s))
        time_s = min(rules.max_s, rules.base_s * record.times * (1.0 + JITTER * self._chance()))
        ejection = Ejection(id, now + time_s, reason, record.times)
        self._out[id] = ejection
        self.next_return = min(self.next_return, ejection.until)
        self._shown = None
        return ejection

    def is_ejected(self, id: str, now: float) -> bool:
        """Whether it is out at ``now``, be that heeded or not."""
        ejection = self._out.get(id) if self._out else None
        return ejection is not None and now < ejection.until

    def available(self, ids: Sequence[str], now: float) -> Sequence[str]:
        """Those of ``ids`` that calls may go to: all but the ejected, or all of them (``panicking``).

        ``ids`` is everybody, and another object whenever it holds others. As long as nothing changes the answer is
        the same object too, ``ids`` itself where nobody is out.
        """
        if now >= self.next_return:
            self._sweep(now)
        if ids is not self._ids:
            self._ids = ids
            self._shown = None
        if self._shown is None:
            self._shown = self._choose(ids)
        return self._shown

    def returned(self, now: float) -> list[Ejection]:
        """The ejections whose time is over, each once."""
        self._sweep(now)
        over = list(self._back)
        self._back.clear()
        return over

    def forget(self, id: str) -> None:
        """It is gone for good."""
        self._records.pop(id, None)
        if self._out.pop(id, None) is not None:
            self._changed()

    def ejected(self, now: float) -> list[Ejection]:
        """Who is out at ``now``, in the order in which they went."""
        return [ejection for ejection in self._out.values() if now < ejection.until]

    def __repr__(self) -> str:
        state = ", panicking" if self.panicking else ""
        return f"<Ejector {len(self._out)} of {self._known()} ejected{state}>"

    def _judge_rate(self, id: str, record: _Record, now: float) -> Ejection | None:
        calls, rules = record.window.calls, self._rules
        if calls < rules.min_calls or calls - record.window.failures >= rules.success_ratio * calls:
            return None
        return self.eject(id, now, "success-rate")

    def _meet(self, id: str) -> _Record:
        if len(self._records) >= self._limit:
            oldest = next((known for known in self._records if known not in self._out), None)
            if oldest is not None:
                del self._records[oldest]
        record = self._records[id] = _Record(self._rules.window_s)
        return record

    def _known(self) -> int:
        return len(self._ids) or len(self._records)

    def _cap(self, count: int) -> int:
        """How many of ``count`` may be out."""
        return max(1, int(count * self._rules.max_ratio + _ROUNDING))

    def _has_room(self) -> bool:
        cap = self._cap(self._known())
        if len(self._out) < cap or not self._ids:
            return len(self._out) < cap
        # Some may have left while they were out: they take nobody's place.
        return sum([id in self._out for id in self._ids]) < cap

    def _choose(self, ids: Sequence[str]) -> Sequence[str]:
        out = [self._out[id] for id in ids if id in self._out] if self._out else []
        self.panicking = bool(out) and len(ids) - len(out) < self._rules.panic_ratio * len(ids)
        if not out or self.panicking:
            return ids
        # Members that left make the bound smaller: who would be back first is back now.
        out.sort(key=_until)
        kept = (
            {ejection.id for ejection in out[-min(self._cap(len(ids)), len(ids) - 1) :]}
            if len(ids) > 1
            else set()
        )
        return tuple([id for id in ids if id not in kept])

    def _sweep(self, now: float) -> None:
        if now < self.next_return:
            return
        for ejection in [each for each in self._out.values() if now >= each.until]:
            del self._out[ejection.id]
            self._back.append(ejection)
            record = self._records[ejection.id]
            record.returned_at = ejection.until
            record.start_anew()
        self._changed()

    def _changed(self) -> None:
        self.next_return = min([ejection.until for ejection in self._out.values()], default=math.inf)
        self._shown = None


def _until(ejection: Ejection) -> float:
    return ejection.until
