"""A rollout: from one subset of a service to another, step by step, and back by itself where the new one is worse.

The course decides and remembers; it neither reads nor writes anything. It says by :attr:`Progress.weight` how many of
100 calls shall go to the new subset, and time passes in a step only while that is what callers follow
(:meth:`Course.written`). Its progress is a plain value that somebody else can go on from: what has passed of a step is
kept, what was seen of its calls is not, so that a successor sees enough calls with his own eyes before he goes on.

Rejected: a list of targets in time from the start (a plan that is looked up by the clock). It would go on while
nobody looks, and jump over steps after a pause. Also rejected: to go back through the steps on failure. What is bad
is bad at 5 %, too, and every call that still goes there is one too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from nats_mesh.core.gates import Outcome, Pair, Verdict, Window
from nats_mesh.core.rollout_state import (
    Happened,
    Hold,
    Phase,
    Progress,
    RolloutRules,
    StepRules,
    What,
)
from nats_mesh.errors import ConfigError

__all__ = ["Course", "Happened", "Hold", "Phase", "Progress", "RolloutRules", "StepRules", "What"]

#: At most so much passes from one look to the next (seconds): whoever was frozen or cut off did not watch meanwhile.
MAX_LOOK_S: Final = 5.0
#: How long a step waits for calls beyond its own time, and at least: then somebody has to decide (seconds).
PATIENCE_S: Final = 300.0
_ALL: Final = 100


class Course:
    """One rollout on its way. Every method gets ``now`` (monotonic seconds) and returns what happened, in order."""

    def __init__(self, rules: RolloutRules, progress: Progress, now: float) -> None:
        self.rules = rules
        self.progress = progress
        #: Whether the route is known to say ``progress.weight``. Whoever takes over looks first.
        self.is_written = progress.phase.ended
        self.verdict = Verdict(Outcome.UNKNOWN)
        self._window = Window()
        self._looked = now
        self._check_at = now + rules.interval_s
        self._said = ""

    # -- time ---------------------------------------------------------------------------------------

    def advance(self, now: float, there: int) -> list[Happened]:
        """Time has passed, and ``there`` instances of the new subset are there."""
        passed = min(max(0.0, now - self._looked), MAX_LOOK_S)
        self._looked = now
        at = self.progress
        if at.phase not in (Phase.WAITING, Phase.STEP) or not self.is_written:
            return []
        self._set(ran_s=at.ran_s + passed)
        deadline = self.rules.deadline_s
        if deadline is not None and self.progress.ran_s >= deadline:
            return self._fail(now, f"it has not ended within {_time(deadline)}")
        if at.phase is Phase.WAITING:
            if there > 0:
                return self._enter(now, 0)
            return self._say(f"no instance of {self.rules.new} is there yet")
        self._set(spent_s=at.spent_s + passed)
        return self._end_of_step(now)

    def skip(self, now: float) -> None:
        """Time has passed in which nobody watched: it counts for nothing."""
        self._looked = now

    def _end_of_step(self, now: float) -> list[Happened]:
        for_s = self.rules.steps[self.progress.step].for_s
        spent_s = self.progress.spent_s
        if for_s is None or spent_s < for_s:
            return []
        if not self.rules.gates:
            if self.progress.failed == 0:
                return self._next(now)
        elif self.verdict.outcome is Outcome.HOLDS:
            return self._next(now)
        elif self.verdict.outcome is Outcome.UNKNOWN and self.verdict.reason:
            if spent_s >= for_s + max(PATIENCE_S, for_s):
                reason = f"after {_time(spent_s)} there are too few calls to tell: {self.verdict.reason}"
                return self._pause(Hold.CALLS, reason)
            return self._say(f"the step waits for calls: {self.verdict.reason}")
        return []

    # -- what was seen ------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether the gates are to be checked."""
        return now >= self._check_at

    def check(self, now: float, there: int, seen: Mapping[str, Pair]) -> list[Happened]:
        """Look at what has ended since the last check, by the side that counts it."""
        self._check_at = now + self.rules.interval_s
        at = self.progress
        judged = at.phase is Phase.STEP or (
            at.phase is Phase.PAUSED and at.before is Phase.STEP and at.hold not in (Hold.FAILURE, Hold.ROUTE)
        )
        if not judged:
            return []
        self._window.add(seen)
        if there == 0:
            nobody = f"no instance of {self.rules.new} is there any more"
            self.verdict = Verdict(Outcome.FAILS, nobody)
        elif self.rules.gates:
            self.verdict = self._window.judge(self.rules.gates)
        else:
            self.verdict = Verdict(Outcome.HOLDS)
        if self.verdict.outcome is Outcome.HOLDS:
            self._set(failed=0, reason=at.reason if at.phase is Phase.PAUSED else "")
        elif self.verdict.outcome is Outcome.FAILS:
            self._set(failed=at.failed + 1)
            if at.failed + 1 >= self.rules.consecutive:
                return self._fail(now, self.verdict.reason, self.verdict.numbers)
            text = f"check {at.failed + 1} of {self.rules.consecutive} does not hold: {self.verdict.reason}"
            return [Happened(What.FAILING, text, self.verdict.numbers)]
        return []

    def wait(self, text: str) -> list[Happened]:
        """Whoever carries it out waits for something: told once while it is the same. A pause has its own reasons."""
        return self._say(text) if self.progress.phase in (Phase.WAITING, Phase.STEP) else []

    @property
    def calls(self) -> int:
        """How many calls of the new subset were seen in this step."""
        return self._window.calls()

    # -- the route ----------------------------------------------------------------------------------

    def written(self, now: float) -> list[Happened]:
        """The route says ``progress.weight`` now."""
        if self.is_written:
            return []
        self.is_written = True
        self._begin(now)
        at = self.progress
        if at.phase is Phase.PROMOTING:
            self._set(phase=Phase.PROMOTED)
            return [Happened(What.ENDED, f"all calls go to {self.rules.new}")]
        if at.phase is Phase.RETURNING:
            self._set(phase=Phase.ABORTED if at.aborted else Phase.ROLLED_BACK)
            return [Happened(What.ENDED, f"all calls go to {self.rules.old} again: {at.reason}")]
        if at.phase is Phase.STEP:
            number, step = at.step + 1, self.rules.steps[at.step]
            lasts = "until somebody resumes it" if step.for_s is None else f"for {_time(step.for_s)}"
            text = f"step {number} of {len(self.rules.steps)}: {at.weight}% to {self.rules.new}, {lasts}"
            happened = [Happened(What.STEP, text, {"weight": float(at.weight), "step": float(number)})]
            return happened + (self._pause(Hold.STEP, text) if step.for_s is None else [])
        return []

    def hindered(self, reason: str) -> list[Happened]:
        """Somebody else changed the route: it is not overwritten, somebody has to decide."""
        if self.progress.phase.ended:
            return []
        return self._pause(Hold.ROUTE, reason)

    # -- operators ----------------------------------------------------------------------------------

    def pause(self, reason: str) -> list[Happened]:
        """Stay where it is; :class:`ConfigError` where there is nothing to stay at."""
        phase = self.progress.phase
        if phase.ended or phase in (Phase.PROMOTING, Phase.RETURNING):
            raise ConfigError(f"it cannot be paused: it is {phase}")
        return [] if phase is Phase.PAUSED else self._pause(Hold.OPERATOR, reason)

    def resume(self, now: float, reason: str) -> list[Happened]:
        """Go on; :class:`ConfigError` where it is not paused."""
        at = self.progress
        if at.phase is not Phase.PAUSED:
            raise ConfigError(f"it is not paused: it is {at.phase}")
        happened = [Happened(What.RESUMED, reason)]
        self._set(phase=at.before, hold=Hold.NONE, reason="", failed=0)
        if at.hold is Hold.STEP:
            return happened + self._next(now)
        if at.hold is not Hold.OPERATOR:
            self._set(spent_s=0.0)
        if at.hold is Hold.ROUTE:
            self.is_written = False
        self._begin(now)
        if self.is_written and at.before is Phase.STEP and self.rules.steps[at.step].for_s is None:
            return happened + self._pause(Hold.STEP, f"step {at.step + 1} lasts until somebody resumes it")
        return happened

    def abort(self, reason: str) -> list[Happened]:
        """Send all calls to the old subset; :class:`ConfigError` where it is over."""
        if self.progress.phase.ended:
            raise ConfigError(f"there is nothing to abort: it is {self.progress.phase}")
        return self._go_back(reason, aborted=True)

    # -- moving -------------------------------------------------------------------------------------

    def _next(self, now: float) -> list[Happened]:
        step = self.progress.step + 1
        if step < len(self.rules.steps):
            return self._enter(now, step)
        self._move(Phase.PROMOTING, _ALL)
        return []

    def _enter(self, now: float, step: int) -> list[Happened]:
        weight = self.rules.steps[step].weight
        last = step == len(self.rules.steps) - 1
        if last and self.rules.sudden:
            self._set(step=step)
            self._move(Phase.PROMOTING, _ALL)
            return []
        self._set(step=step, spent_s=0.0, failed=0)
        self._move(Phase.STEP, weight)
        self._begin(now)
        return []

    def _move(self, phase: Phase, weight: int) -> None:
        self._set(phase=phase, weight=weight, hold=Hold.NONE, reason="")
        self.is_written = False

    def _fail(self, now: float, reason: str, numbers: dict[str, float] | None = None) -> list[Happened]:
        if not self.rules.rollback:
            self._set(failed=0)
            return self._pause(Hold.FAILURE, reason, numbers)
        return self._go_back(reason, aborted=False, numbers=numbers)

    def _go_back(
        self, reason: str, *, aborted: bool, numbers: dict[str, float] | None = None
    ) -> list[Happened]:
        self._move(Phase.RETURNING, 0)
        self._set(aborted=aborted, reason=reason)
        return [Happened(What.RETURNING, reason, numbers or {})]

    def _pause(self, hold: Hold, reason: str, numbers: dict[str, float] | None = None) -> list[Happened]:
        at = self.progress
        before = at.before if at.phase is Phase.PAUSED else at.phase
        self._set(phase=Phase.PAUSED, hold=hold, before=before, reason=reason)
        return [Happened(What.PAUSED, reason, numbers or {})]

    def _begin(self, now: float) -> None:
        """What is seen from now on is seen of this step."""
        self._window.clear()
        self.verdict = Verdict(Outcome.UNKNOWN)  # without a reason: it has not been looked at
        self._check_at = now + self.rules.interval_s
        self._looked = now
        self._said = ""

    def _say(self, text: str) -> list[Happened]:
        """Tell what is waited for, once while it stays of the same kind; the progress has the newest words."""
        self._set(reason=text)
        kind = text.partition(":")[0]
        if kind == self._said:
            return []
        self._said = kind
        return [Happened(What.WAITING, text)]

    def _set(self, **changes: object) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)

    def __repr__(self) -> str:
        return f"<Course {self.rules.old} → {self.rules.new}: {self.progress.phase}, {self.progress.weight}%>"


def _time(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.3g}s"
    return f"{seconds / 60.0:.3g}m" if seconds < 7200.0 else f"{seconds / 3600.0:.3g}h"
