"""Whether a new version holds to what is asked of it: error rate and latency, by themselves and beside the old one.

What is looked at are the newest calls: the shortest run of checks, back from now and within the step, that has enough
of them. A version that turns bad late in a long step is so judged by what it does now, and not by how good it was.
Both sides' word counts: callers see what never reached an instance, and what it took in all; instances see what a
retry hid. A gate holds where one of the two has enough calls and neither says otherwise. Too few calls are no success.

Rejected: a statistical test (Mann-Whitney, as in Kayenta; or a sequential test). It finds smaller differences, but
nobody can tell beforehand from the policy what it will do, and with few calls it says as little. Also rejected: one
window over the whole step, in which a hundred good minutes hide a bad one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec

from nats_mesh.core.durations import duration_text
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.shares import share_text

__all__ = ["ErrorGate", "Gates", "LatencyGate", "Outcome", "Pair", "Sample", "Verdict", "Window"]

#: Checks that a window keeps one by one; of a longer step the oldest are added up.
MAX_CHECKS: Final = 256

# The bounds hold where a record of a rollout is decoded; a gate of no calls would divide by them.
_Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Least: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class ErrorGate(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``maximum`` of the calls fail, and at most so many more (``increase``, of 1) than of the old subset."""

    maximum: _Share | None = None
    increase: _Share | None = None
    min_calls: _Least = 50


class LatencyGate(msgspec.Struct, frozen=True, kw_only=True):
    """A share ``quantile`` of the answers comes within ``maximum_s``, and within ``ratio`` times the old one's."""

    quantile: _Share = 0.99
    maximum_s: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    ratio: Annotated[float, msgspec.Meta(gt=0.0)] | None = None
    min_calls: _Least = 50


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """What the new subset must hold to; ``None``: nothing of that kind."""

    errors: ErrorGate | None = None
    latency: LatencyGate | None = None

    def __bool__(self) -> bool:
        return self.errors is not None or self.latency is not None


class Sample:
    """Calls of one subset that ended within some time. ``failures`` are those with a status of 500 and above."""

    __slots__ = ("calls", "failures", "took")

    def __init__(self, calls: int = 0, failures: int = 0, took: Histogram | None = None) -> None:
        self.calls = calls
        self.failures = failures
        #: How long they took, of those that began.
        self.took = Histogram() if took is None else took

    def add(self, other: Sample) -> None:
        """Add what ``other`` has."""
        self.calls += other.calls
        self.failures += other.failures
        self.took.merge(other.took)

    def __repr__(self) -> str:
        return f"<Sample {self.failures} of {self.calls} failed>"


class Pair:
    """The calls of the new and of the old subset, as one side counts them."""

    __slots__ = ("new", "old")

    def __init__(self, new: Sample | None = None, old: Sample | None = None) -> None:
        self.new = Sample() if new is None else new
        self.old = Sample() if old is None else old

    def add(self, other: Pair) -> None:
        """Add what ``other`` has."""
        self.new.add(other.new)
        self.old.add(other.old)


class Outcome(enum.Enum):
    """What came of looking at the gates. ``UNKNOWN``: there were too few calls to tell."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


class Verdict(msgspec.Struct, frozen=True):
    """``reason`` says why, where the gates do not hold or nobody knows; ``numbers`` are the figures behind it."""

    outcome: Outcome
    reason: str = ""
    numbers: dict[str, float] = {}


class Window:
    """The calls of one step, check by check, by the side that counts them (``callers``, ``instances``)."""

    def __init__(self) -> None:
        self._checks: dict[str, list[Pair]] = {}
        #: The newest calls of the old subset of which there were enough: at 100 % it has none any more.
        self._before: dict[str, Sample] = {}

    def add(self, seen: Mapping[str, Pair]) -> None:
        """Take in what ended since the last check."""
        for side, pair in seen.items():
            checks = self._checks.setdefault(side, [])
            checks.append(pair)
            if len(checks) > MAX_CHECKS:
                checks[0].add(checks.pop(1))

    def clear(self) -> None:
        """A step begins; what is known of the old subset stays."""
        self._checks.clear()

    def calls(self) -> int:
        """How many calls of the new subset there were in the step, as the side counts them that counts most."""
        return max([sum(pair.new.calls for pair in checks) for checks in self._checks.values()], default=0)

    def judge(self, gates: Gates) -> Verdict:
        """Look at every gate, on both sides."""
        asked: list[list[Verdict]] = []
        if gates.errors is not None:
            asked.append([self._errors(gates.errors, side) for side in sorted(self._checks)])
        if gates.latency is not None:
            asked.append([self._latency(gates.latency, side) for side in sorted(self._checks)])
        unknown: Verdict | None = None
        for verdicts in asked:
            for verdict in verdicts:
                if verdict.outcome is Outcome.FAILS:
                    return verdict
            if not any(verdict.outcome is Outcome.HOLDS for verdict in verdicts):
                unknown = unknown or (
                    verdicts[0] if verdicts else Verdict(Outcome.UNKNOWN, "nobody has counted a call yet")
                )
        return unknown or Verdict(Outcome.HOLDS)

    def _errors(self, gate: ErrorGate, side: str) -> Verdict:
        least = gate.min_calls
        new = _newest([pair.new for pair in self._checks[side]], least, durations=False)
        if new.calls < least:
            return self._too_few(side, least)
        rate = new.failures / new.calls
        said = f"{new.failures} of {new.calls} calls failed ({_percent(rate)}), as {side} count"
        numbers = {"calls": float(new.calls), "failures": float(new.failures), "rate": rate}
        if gate.maximum is not None and rate > gate.maximum:
            return Verdict(Outcome.FAILS, f"{said}: at most {_percent(gate.maximum)} may", numbers)
        if gate.increase is not None:
            old = self._old(side, least, durations=False)
            if old is None:
                return Verdict(
                    Outcome.UNKNOWN, f"too few calls of the old subset to compare, as {side} count"
                )
            before = old.failures / old.calls
            numbers |= {"old-rate": before}
            if rate - before > gate.increase:
                text = f"{said}: at most {_percent(gate.increase)} more may than of the old subset ({_percent(before)})"
                return Verdict(Outcome.FAILS, text, numbers)
        return Verdict(Outcome.HOLDS)

    def _latency(self, gate: LatencyGate, side: str) -> Verdict:
        least = gate.min_calls
        new = _newest([pair.new for pair in self._checks[side]], least, durations=True)
        took_s = new.took.quantile(gate.quantile)
        if took_s is None or new.took.count < least:
            return self._too_few(side, least)
        share = f"p{gate.quantile * 100:g}"
        said = f"{share} is {duration_text(took_s)} over {new.took.count} calls, as {side} count"
        numbers = {"calls": float(new.took.count), "took-ms": took_s * 1000.0}
        if gate.maximum_s is not None and took_s > gate.maximum_s:
            return Verdict(
                Outcome.FAILS, f"{said}: at most {duration_text(gate.maximum_s)} is allowed", numbers
            )
        if gate.ratio is not None:
            old = self._old(side, least, durations=True)
            before_s = None if old is None else old.took.quantile(gate.quantile)
            if before_s is None:
                return Verdict(
                    Outcome.UNKNOWN, f"too few calls of the old subset to compare, as {side} count"
                )
            numbers |= {"old-took-ms": before_s * 1000.0}
            if took_s > gate.ratio * before_s:
                old_text = f"that of the old subset ({duration_text(before_s)})"
                text = f"{said}: at most {gate.ratio:g} times {old_text} is allowed"
                return Verdict(Outcome.FAILS, text, numbers)
        return Verdict(Outcome.HOLDS)

    def _old(self, side: str, least: int, *, durations: bool) -> Sample | None:
        """The newest calls of the old subset; where there are not enough in this step, those of before."""
        found = _newest([pair.old for pair in self._checks[side]], least, durations=durations)
        if _size(found, durations=durations) >= least:
            self._before[side] = found
            return found
        before = self._before.get(side)
        return None if before is None or _size(before, durations=durations) < least else before

    def _too_few(self, side: str, least: int) -> Verdict:
        calls = sum(pair.new.calls for pair in self._checks[side])
        return Verdict(
            Outcome.UNKNOWN, f"{calls} of {least} calls so far, as {side} count", {"calls": float(calls)}
        )


def _newest(samples: Sequence[Sample], least: int, *, durations: bool) -> Sample:
    """The sum of as few of the last ``samples`` as have ``least`` calls; of all where there are not so many."""
    total = Sample()
    for sample in reversed(samples):
        total.add(sample)
        if _size(total, durations=durations) >= least:
            break
    return total


def _size(sample: Sample, *, durations: bool) -> int:
    return sample.took.count if durations else sample.calls


def _percent(share: float) -> str:
    return share_text(share, 3)
