"""When a second instance is asked the same: the first takes longer than nearly all do, and few calls are hedged.

After J. Dean and L. A. Barroso, "The Tail at Scale" (2013): waiting for the 95th percentile before the second request
bounds the additional load to about 5 %, and cuts the tail by much more. That bound holds only while latencies are
what they were; when everything becomes slow, every call is "slow", so a cap on the share of hedges stands beside it.

Rejected: hedging at once ("tied requests" without their cross-server cancellation): twice the load, always.
"""

from __future__ import annotations

import math
from typing import Final

from nats_mesh.core.budget import BURST_SHARE, RetryBudget
from nats_mesh.core.quantile import LatencyWindow
from nats_mesh.core.rules import BudgetRules, HedgeRules

__all__ = ["LEAST_KNOWN", "WINDOW_S", "Hedger"]

#: How much of the past answers are judged by, and hedges bounded by, seconds.
WINDOW_S: Final = 10.0
#: With fewer answers known, no quantile is believed; with a quantile above 95 %, more are needed.
LEAST_KNOWN: Final = 20
#: How long a delay that was worked out stands, seconds: working it out costs as much as a call's other layers together.
_STANDS_S: Final = 0.1
#: 1 ÷ (1 − 0.95) is a little more than 20 in floating point.
_ROUNDING: Final = 1e-6


class Hedger:
    """The hedges of one destination endpoint; not thread-safe. Hedges ≤ ``max_ratio`` × calls over any 10 s and longer,
    and one more at most over any second and longer, looking back from a hedge (:mod:`nats_mesh.core.budget`)."""

    __slots__ = ("_answers", "_delay_s", "_least", "_permits", "_stands_until", "rules")

    def __init__(self, rules: HedgeRules) -> None:
        self.rules = rules
        # Calls earn hedges when they begin, and use them after the delay: it must not outlast what they earned.
        window_s = WINDOW_S if rules.delay_s is None else max(WINDOW_S, 2.0 * rules.delay_s / BURST_SHARE)
        self._permits = RetryBudget(BudgetRules(ratio=rules.max_ratio, floor_per_s=0.0, window_s=window_s))
        self._answers = LatencyWindow(WINDOW_S)
        #: One in so many answers lies above the quantile: with fewer, it is not known where that is.
        self._least = max(LEAST_KNOWN, math.ceil(1.0 / (1.0 - rules.quantile) - _ROUNDING))
        self._delay_s: float | None = rules.delay_s
        self._stands_until = -math.inf if rules.delay_s is None else math.inf

    def called(self, now: float) -> None:
        """A call begins."""
        self._permits.deposit(now)

    def answered(self, now: float, took_s: float) -> None:
        """A call was answered, ``took_s`` after its *first* attempt was sent, whichever attempt the answer is of.

        The time of a hedge alone would hide that the first was slow: the quantile would sink, and with it the delay.
        """
        if self.rules.delay_s is None:
            self._answers.observe(now, took_s)

    def delay_s(self, now: float) -> float | None:
        """How long after an attempt to ask again, seconds; ``None`` while too little is known to say."""
        if now >= self._stands_until:
            self._stands_until = now + _STANDS_S
            self._delay_s = self._worked_out()
        return self._delay_s

    def _worked_out(self) -> float | None:
        answers = self._answers
        if answers.count < self._least:
            return None
        found = answers.quantile(self.rules.quantile)
        return None if found is None else max(found, self.rules.min_delay_s)

    def may_hedge(self, now: float) -> bool:
        """Take the permit for one more attempt, where one is left; each of ``max_extra`` needs its own."""
        return self._permits.withdraw(now)

    def __repr__(self) -> str:
        known = "unknown" if self._delay_s is None else f"{self._delay_s:.6f} s"
        return f"<Hedger after {known}, {self._answers.count} answers known>"
