"""A circuit breaker: whether calls to a destination go out, judged by how the last ones ended.

CLOSED lets everything pass and counts; OPEN lets nothing pass for a while; HALF_OPEN lets a few probes pass,
and what becomes of them decides. After M. Nygard, "Release It!" (2007), with the ratio over a time window, slow
calls and probe permits of resilience4j, and the growing open time of Finagle's failure accrual.

Who asks tells how each call ended: :meth:`Breaker.success`, :meth:`Breaker.failure`, or :meth:`Breaker.ignored` for
what was cancelled or says nothing about the destination. A permit comes back with any of the three, so a
cancelled probe never blocks the circuit; one that never ends is taken back after a bounded time. Calls that began
before the last change of state belong to another era and count for nothing in this one.

Others may say that the destination is broken (:meth:`Breaker.agreed`): a closed circuit then opens as if it had
found out itself, and closes by its own probes. What those probes show is newer and better than anybody's word, so once
they closed it, no word opens it for the window of its verdicts; its own counting does at any time. So callers that
agree without end, because they lie or because the fault is theirs, cost another one an open time in each window,
and no more.

Rejected: a timer that half-opens by itself (a core would need a clock, and nobody is better informed before
somebody wants to call); judging on failures alone (what opens a circuit may be the success that makes the window
large enough to be judged: one of MicroProfile's cases); one free probe instead of permits (a single slow probe would
hold up the recovery of a busy destination).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

import msgspec

from nats_mesh.core.rules import BreakerRules
from nats_mesh.core.window import OutcomeWindow

__all__ = ["MIN_PATIENCE_S", "Breaker", "BreakerState", "Transition"]

#: A probe's permit is taken back after ``open_s``, but never before so many seconds.
MIN_PATIENCE_S: Final = 60.0
#: The longest a caller is advised to wait for a permit of a half-open circuit, seconds.
_PERMIT_WAIT_S: Final = 1.0
#: What a difference of instants may lose by rounding, seconds.
_ROUNDING_S: Final = 1e-9


class BreakerState(enum.StrEnum):
    """Where a circuit is; OPEN means that nothing passes."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


#: An attribute of an enumeration costs a call each time it is looked up.
_CLOSED: Final = BreakerState.CLOSED
_OPEN: Final = BreakerState.OPEN
_HALF_OPEN: Final = BreakerState.HALF_OPEN


class Transition(msgspec.Struct, frozen=True):
    """A change of state: what it was, what it is, why, and when (monotonic seconds)."""

    old: BreakerState
    new: BreakerState
    reason: str
    at: float


class Breaker:
    """The circuit of one destination; not thread-safe. ``chance`` is uniform in [0, 1).

    ``closed`` is a plain attribute, so that a caller need not call :meth:`enter` while it is true; the token of such
    a call is 0. Outcomes are told in any state.
    """

    __slots__ = (
        "_chance", "_good", "_heeds_from", "_heeds_not_s", "_move", "_open_until", "_opens_for_s", "_patience_s",
        "_probes", "_quiet", "_quiet_until", "_reopened", "_row", "_rules", "_since", "_slow", "_slow_call_s", "_state",
        "_token", "_window", "closed",
    )  # fmt: skip

    def __init__(self, rules: BreakerRules, chance: Callable[[], float]) -> None:
        self.closed = True
        self._rules = rules
        self._chance = chance
        self._state = _CLOSED
        self._window = OutcomeWindow(rules.window_s)
        self._slow_call_s = math.inf if rules.slow_call_s is None else rules.slow_call_s
        #: What began before is of another era.
        self._since = -math.inf
        #: Successes of the present bucket that are not in the window yet, and until when (monotonic) one may be
        #: counted there: while the window holds no failure, a success can change nothing.
        self._quiet = 0
        self._quiet_until = -math.inf
        #: Failures in a row.
        self._row = 0
        self._open_until = 0.0
        #: How long the next opening lasts, before jitter, and whether it has opened again without having closed.
        self._opens_for_s = rules.open_s
        self._reopened = False
        #: When each probe under way began, oldest first; and the last number given out.
        self._probes: dict[int, float] = {}
        self._token = 0
        self._patience_s = max(rules.open_s, MIN_PATIENCE_S)
        #: Probes that succeeded since it is half-open, and how many of them took long.
        self._good = 0
        self._slow = 0
        #: For how long its own probes count more than the others' word, and until when (monotonic) they do.
        self._heeds_not_s = 0.0 if rules.verdicts is None else rules.verdicts.window_s
        self._heeds_from = -math.inf
        #: The half-opening that nobody has taken notice of yet.
        self._move: Transition | None = None

    @property
    def state(self) -> BreakerState:
        """Where it is. An open circuit half-opens when somebody enters, not by the passing of time alone."""
        return self._state

    def enter(self, now: float) -> int:
        """A token for the outcome: 0 for a free pass, more for a probe's permit; -1 where the call is refused.

        May half-open the circuit, which :meth:`take_transition` then tells.
        """
        if self.closed:
            return 0
        if self._state is _OPEN:
            if now < self._open_until:
                return -1
            self._half_open(now)
        probes = self._probes
        if len(probes) >= self._rules.permits:
            oldest = next(iter(probes))
            if now - probes[oldest] < self._patience_s:
                return -1
            del probes[oldest]
        self._token += 1
        probes[self._token] = now
        return self._token

    def success(self, now: float, token: int, took_s: float) -> Transition | None:
        """The call of ``token`` succeeded, ``took_s`` after it entered; the change of state that this makes."""
        if now < self._quiet_until and token == 0 and now - took_s >= self._since:
            self._quiet += 1
            return None
        if self._state is _CLOSED:
            return self._count(now, token, took_s, False)
        if self._probes.pop(token, None) is None:
            return None
        self._good += 1
        if took_s > self._slow_call_s:
            self._slow += 1
        good = self._good
        if good < self._rules.successes:
            return None
        if self._slow / good >= self._rules.slow_ratio:
            return self._open_again(now, f"{self._slow} of {good} probes took over {self._slow_call_s:g} s")
        return self._close(now, f"{good} probes succeeded" if good > 1 else "a probe succeeded")

    def failure(self, now: float, token: int, took_s: float) -> Transition | None:
        """The call of ``token`` failed, ``took_s`` after it entered; the change of state that this makes."""
        if self._state is _CLOSED:
            return self._count(now, token, took_s, True)
        if self._probes.pop(token, None) is None:
            return None
        return self._open_again(now, "a probe failed")

    def ignored(self, now: float, token: int) -> Transition | None:
        """The call of ``token`` was cancelled, or its outcome says nothing: a permit comes back, nothing is counted."""
        self._probes.pop(token, None)
        return None

    def agreed(self, now: float, reason: str) -> Transition | None:
        """Enough others say that the destination is broken. ``None`` where that changes nothing: it is not closed, or
        its own probes closed it lately."""
        if not self.closed or now < self._heeds_from:
            return None
        return self._open(now, reason)

    def take_transition(self) -> Transition | None:
        """The half-opening that the last :meth:`enter` made, once. Other transitions are what made them returns."""
        move = self._move
        if move is not None:
            self._move = None
        return move

    def retry_after_s(self, now: float) -> float:
        """When a refused call may have better luck, in seconds from now; 0 while closed.

        Of a half-open circuit nobody knows when a permit comes back: the open time is advised, up to one second.
        """
        if self.closed:
            return 0.0
        if self._state is _OPEN:
            return max(0.0, self._open_until - now)
        return min(_PERMIT_WAIT_S, self._rules.open_s)

    # -- counting while closed ----------------------------------------------------------------------

    def _count(self, now: float, token: int, took_s: float, failed: bool) -> Transition | None:
        """Count an outcome in the window, and judge."""
        if token != 0 or now - took_s < self._since:
            return None
        window = self._window
        if self._quiet:
            window.succeeded(self._quiet)
            self._quiet = 0
        window.record(now, failed, took_s > self._slow_call_s)
        self._row = self._row + 1 if failed else 0
        reason = self._reason_to_open()
        if reason:
            return self._open(now, reason)
        calm = window.failures == 0 and self._slow_call_s == math.inf
        self._quiet_until = window.until if calm else -math.inf
        return None

    def _reason_to_open(self) -> str:
        rules, window = self._rules, self._window
        if rules.consecutive is not None and self._row >= rules.consecutive:
            return f"{self._row} failures in a row" if self._row > 1 else "a call failed"
        calls = window.calls
        if calls < rules.min_calls:
            return ""
        # Divided and not multiplied: 14 of 25 are 56 % in floating point, 0.56 × 25 are more than 14.
        if window.failures and window.failures / calls >= rules.failure_ratio:
            return f"{window.failures} of {calls} calls failed"
        if window.slow and window.slow / calls >= rules.slow_ratio:
            return f"{window.slow} of {calls} calls took over {self._slow_call_s:g} s"
        return ""

    # -- changes of state ---------------------------------------------------------------------------

    def _open(self, now: float, reason: str) -> Transition:
        rules = self._rules
        lasts_s = self._opens_for_s * (1.0 - rules.jitter + 2.0 * rules.jitter * self._chance())
        self._open_until = now + lasts_s
        return self._change(now, _OPEN, reason)

    def _open_again(self, now: float, reason: str) -> Transition:
        # Who comes back within seconds must not wait twice as long for the bad luck of one probe.
        if self._reopened:
            self._opens_for_s = min(self._opens_for_s * 2.0, self._rules.max_open_s)
        self._reopened = True
        return self._open(now, reason)

    def _half_open(self, now: float) -> None:
        self._move = self._change(now, _HALF_OPEN, "it was open long enough: probes may pass")

    def _close(self, now: float, reason: str) -> Transition:
        self._opens_for_s = self._rules.open_s
        self._reopened = False
        self._heeds_from = now + self._heeds_not_s
        return self._change(now, _CLOSED, reason)

    def _change(self, now: float, new: BreakerState, reason: str) -> Transition:
        """Begin an era: nothing of the one before is counted in it."""
        old, self._state = self._state, new
        self.closed = new is _CLOSED
        self._since = now - _ROUNDING_S
        self._window.clear()
        self._row = self._good = self._slow = self._quiet = 0
        self._quiet_until = -math.inf
        self._probes.clear()
        return Transition(old, new, reason, now)

    def __repr__(self) -> str:
        return f"<Breaker {self._state}, {len(self._probes)} probes, {self._window!r}>"
