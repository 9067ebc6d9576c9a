"""The course of a rollout: it goes on only while its gates hold, goes back by itself, and never skips a step."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_mesh.core.gates import ErrorGate, Gates, Pair, Sample
from nats_mesh.core.rollout import (
    MAX_LOOK_S,
    PATIENCE_S,
    Course,
    Happened,
    Hold,
    Phase,
    Progress,
    RolloutRules,
    StepRules,
    What,
)
from nats_mesh.errors import ConfigError

GATES = Gates(errors=ErrorGate(maximum=0.1, min_calls=10))
STEPS = (StepRules(weight=5, for_s=10.0), StepRules(weight=50, for_s=10.0))
RULES = RolloutRules(old="v1", new="v2", steps=STEPS, gates=GATES, interval_s=1.0)
GOOD = {"callers": Pair(Sample(20), Sample(20))}
BAD = {"callers": Pair(Sample(20, 20), Sample(20))}
NOTHING: dict[str, Pair] = {}


class Drive:
    """A course, its clock, and everything that happened."""

    def __init__(self, rules: RolloutRules = RULES, progress: Progress | None = None) -> None:
        self.now = 100.0
        self.course = Course(rules, progress or Progress(), self.now)
        self.happened: list[Happened] = []

    @property
    def at(self) -> Progress:
        """Where it is."""
        return self.course.progress

    @property
    def words(self) -> list[str]:
        """What happened, by its kind."""
        return [str(each.what) for each in self.happened]

    def look(
        self, seconds: float = 1.0, *, seen: dict[str, Pair] = GOOD, there: int = 1, write: bool = True
    ) -> Drive:
        """Let a second pass as a runner does: time, gates, route."""
        self.now += seconds
        self.happened += self.course.advance(self.now, there)
        if self.course.due(self.now):
            self.happened += self.course.check(self.now, there, seen)
        if write and self.at.phase is not Phase.PAUSED:
            self.happened += self.course.written(self.now)
        return self

    def looks(self, count: int, *, seen: dict[str, Pair] = GOOD, there: int = 1) -> Drive:
        """So many seconds."""
        for _ in range(count):
            self.look(seen=seen, there=there)
        return self

    def begun(self) -> Drive:
        """In the first step."""
        self.happened += self.course.written(self.now)
        self.look()
        assert (self.at.phase, self.at.step, self.at.weight) == (Phase.STEP, 0, 5)
        return self


def test_a_good_version_gets_all_calls_step_by_step() -> None:
    """0, 5, 50 and 100 %, each for its time, and not a second sooner."""
    drive = Drive()
    weights = []
    drive.happened += drive.course.written(drive.now)
    for _ in range(30):
        weights.append(drive.look().at.weight)
    assert weights == [5] * 10 + [50] * 10 + [100] * 10
    assert drive.at.phase is Phase.PROMOTED
    assert drive.words == ["step", "step", "ended"]


def test_it_waits_for_the_first_instance_with_all_calls_at_the_old_one() -> None:
    """Said once, and forgotten when one comes."""
    drive = Drive().looks(5, there=0)
    assert (drive.at.phase, drive.at.weight, drive.words) == (Phase.WAITING, 0, ["waiting"])
    assert drive.look().at.phase is Phase.STEP
    assert drive.at.reason == ""


def test_a_bad_version_goes_back_at_once() -> None:
    """The first check that fails sends all calls to the old subset; it has ended once that is written."""
    drive = Drive().begun()
    drive.look(seen=BAD, write=False)
    assert (drive.at.phase, drive.at.weight, drive.course.is_written) == (Phase.RETURNING, 0, False)
    drive.look()
    assert drive.at.phase is Phase.ROLLED_BACK
    assert "20 of 20 calls failed" in drive.at.reason
    assert drive.words == ["step", "returning", "ended"]


def test_so_many_checks_in_a_row_must_fail() -> None:
    """A good one in between starts the count anew."""
    drive = Drive(msgspec.structs.replace(RULES, consecutive=3)).begun()
    for seen in (BAD, BAD, GOOD, BAD, BAD):
        drive.look(seen=seen)
    assert (drive.at.phase, drive.at.failed) == (Phase.STEP, 2)
    assert drive.look(seen=BAD).at.phase is Phase.ROLLED_BACK


def test_no_calls_are_no_success() -> None:
    """A step lasts on without them, says so, and in the end somebody has to decide."""
    drive = Drive().begun().looks(11, seen=NOTHING)
    assert (drive.at.phase, drive.at.step) == (Phase.STEP, 0)
    assert "too few" not in drive.at.reason
    assert drive.at.reason.startswith("the step waits for calls: ")
    assert drive.words.count("waiting") == 1
    drive.looks(int(PATIENCE_S), seen=NOTHING)
    assert (drive.at.phase, drive.at.hold, drive.at.weight) == (Phase.PAUSED, Hold.CALLS, 5)
    drive.happened += drive.course.resume(drive.now, "by me")
    assert drive.looks(5, seen=NOTHING).at.phase is Phase.STEP
    assert drive.looks(10).at.step == 1


def test_a_step_without_a_time_lasts_until_somebody_resumes_it() -> None:
    """Its gates count meanwhile."""
    rules = msgspec.structs.replace(RULES, steps=(StepRules(weight=5), *STEPS[1:]))
    drive = Drive(rules)
    drive.happened += drive.course.written(drive.now)
    drive.looks(50)
    assert (drive.at.phase, drive.at.hold, drive.at.weight) == (Phase.PAUSED, Hold.STEP, 5)
    assert drive.at.ran_s < 3.0  # pauses do not count
    drive.happened += drive.course.resume(drive.now, "by me")
    assert (drive.at.phase, drive.at.step, drive.at.weight) == (Phase.STEP, 1, 50)
    bad = Drive(rules)
    bad.course.written(bad.now)
    bad.looks(5)
    bad.happened += bad.course.check(bad.now, 1, BAD)
    assert bad.at.phase is Phase.RETURNING


def test_an_operator_pauses_and_resumes_where_it_was() -> None:
    """The time of the step goes on from where it stood, and a failing gate goes back all the same."""
    drive = Drive().begun().looks(4)
    spent_s = drive.at.spent_s
    drive.happened += drive.course.pause("by me: lunch")
    assert drive.looks(500).at.phase is Phase.PAUSED
    drive.happened += drive.course.resume(drive.now, "by me")
    assert (drive.at.phase, drive.at.step, drive.at.spent_s) == (Phase.STEP, 0, spent_s)
    drive.course.pause("again")
    drive.happened += drive.course.check(drive.now, 1, BAD)
    assert drive.at.phase is Phase.RETURNING


def test_a_policy_may_pause_where_a_gate_fails() -> None:
    """It stays at its step, nothing more is judged, and resuming it begins the step anew."""
    drive = Drive(msgspec.structs.replace(RULES, rollback=False)).begun().looks(3)
    drive.look(seen=BAD)
    assert (drive.at.phase, drive.at.hold, drive.at.weight) == (Phase.PAUSED, Hold.FAILURE, 5)
    assert drive.looks(10, seen=BAD).at.hold is Hold.FAILURE
    drive.happened += drive.course.resume(drive.now, "by me")
    assert (drive.at.phase, drive.at.spent_s, drive.at.failed) == (Phase.STEP, 0.0, 0)


def test_a_route_that_somebody_else_changed_is_left_alone() -> None:
    """It pauses; resumed, it has to be written anew, and aborted, all calls go back."""
    drive = Drive().begun()
    drive.happened += drive.course.hindered("changed by alice")
    assert (drive.at.phase, drive.at.hold) == (Phase.PAUSED, Hold.ROUTE)
    drive.happened += drive.course.check(drive.now, 1, BAD)
    assert drive.at.phase is Phase.PAUSED  # it could not go back without overwriting it
    drive.happened += drive.course.resume(drive.now, "by me")
    assert (drive.at.phase, drive.at.weight, drive.course.is_written) == (Phase.STEP, 5, False)
    drive.happened += drive.course.hindered("changed by alice")
    drive.happened += drive.course.abort("by me")
    assert drive.look().at.phase is Phase.ABORTED


def test_the_way_back_may_be_hindered_too() -> None:
    """Resumed, it goes on going back."""
    drive = Drive().begun().look(seen=BAD, write=False)
    drive.happened += drive.course.hindered("changed by alice")
    assert (drive.at.phase, drive.at.before) == (Phase.PAUSED, Phase.RETURNING)
    drive.happened += drive.course.resume(drive.now, "by me")
    assert drive.look().at.phase is Phase.ROLLED_BACK


def test_when_the_new_subset_has_nobody_left_it_has_failed() -> None:
    """Also without gates: every call that goes there fails."""
    for rules in (RULES, msgspec.structs.replace(RULES, gates=Gates())):
        drive = Drive(rules).begun().look(there=0)
        assert drive.at.phase is Phase.ROLLED_BACK
        assert drive.at.reason == "no instance of v2 is there any more"


def test_without_gates_time_alone_decides() -> None:
    """Whatever is seen."""
    drive = Drive(msgspec.structs.replace(RULES, gates=Gates()))
    drive.happened += drive.course.written(drive.now)
    assert drive.looks(30, seen=BAD).at.phase is Phase.PROMOTED


def test_a_deadline_ends_it() -> None:
    """Waiting counts, pauses do not."""
    drive = Drive(msgspec.structs.replace(RULES, deadline_s=30.0)).begun().looks(5)
    drive.course.pause("by me")
    drive.looks(100, seen=NOTHING)
    drive.course.resume(drive.now, "by me")
    assert drive.looks(20, seen=NOTHING).at.phase is Phase.STEP
    assert drive.looks(5, seen=NOTHING).at.phase is Phase.ROLLED_BACK
    assert "30s" in drive.at.reason


def test_a_last_step_with_all_calls_needs_no_time() -> None:
    """It is the end."""
    rules = msgspec.structs.replace(RULES, steps=(*STEPS, StepRules(weight=100)), sudden=True)
    drive = Drive(rules)
    drive.happened += drive.course.written(drive.now)
    assert drive.looks(21).at.phase is Phase.PROMOTED


def test_a_step_that_could_not_be_written_is_not_written_once_the_version_is_bad() -> None:
    """Where the store was away between two steps: what was seen meanwhile counts before the weight grows."""
    drive = Drive().begun().looks(9)
    drive.look(write=False)
    assert (drive.at.step, drive.at.weight, drive.course.is_written) == (1, 50, False)
    assert drive.look(seen=BAD, write=False).at.weight == 0


def test_time_passes_only_while_somebody_watches_and_callers_follow() -> None:
    """Neither while the route is not written, nor while the store was away, nor while the runner was frozen."""
    drive = Drive()
    drive.course.written(drive.now)
    for _ in range(50):
        drive.look(write=False)
    assert (drive.at.phase, drive.at.spent_s) == (Phase.STEP, 0.0)
    drive.look()
    drive.now += 1000.0
    drive.course.skip(drive.now)
    assert drive.look().at.spent_s == 1.0
    drive.look(1000.0, seen=NOTHING)
    assert drive.at.spent_s == 1.0 + MAX_LOOK_S


def test_a_successor_goes_on_where_it_was() -> None:
    """With the time that has passed of the step, and eyes of its own: it sees enough calls before it goes on."""
    before = Drive().begun().looks(8)
    drive = Drive(progress=msgspec.json.decode(msgspec.json.encode(before.at), type=Progress))
    assert not drive.course.is_written
    drive.look(seen=NOTHING)
    assert (drive.at.step, drive.at.spent_s) == (0, before.at.spent_s)
    drive.looks(5, seen=NOTHING)
    assert drive.at.step == 0
    assert drive.looks(2).at.step == 1


@pytest.mark.parametrize("phase", list(Phase))
def test_what_makes_no_sense_is_refused(phase: Phase) -> None:
    """And changes nothing."""
    progress = Progress(phase=phase, step=0, weight=5, before=Phase.STEP)
    for name in ("pause", "resume", "abort"):
        course = Course(RULES, progress, 0.0)
        allowed = {
            "pause": phase in (Phase.WAITING, Phase.STEP, Phase.PAUSED),
            "resume": phase is Phase.PAUSED,
            "abort": not phase.ended,
        }[name]
        try:
            course.resume(0.0, "") if name == "resume" else getattr(course, name)("")
        except ConfigError:
            assert not allowed, (name, phase)
            assert course.progress == progress
        else:
            assert allowed, (name, phase)


class CourseMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, and whoever takes over when."""

    @initialize(
        pauses=st.lists(st.booleans(), min_size=3, max_size=3),
        consecutive=st.integers(1, 3),
        rollback=st.booleans(),
        gated=st.booleans(),
        sudden=st.booleans(),
    )
    def begin(self, pauses: list[bool], consecutive: int, rollback: bool, gated: bool, sudden: bool) -> None:
        """Three steps, some of which wait for somebody."""
        steps = [
            StepRules(weight=weight, for_s=None if pause else 5.0)
            for weight, pause in zip((5, 30, 100 if sudden else 60), pauses, strict=True)
        ]
        self.plan = RolloutRules(
            old="v1", new="v2", steps=tuple(steps), gates=GATES if gated else Gates(), interval_s=2.0,
            consecutive=consecutive, rollback=rollback, sudden=sudden,
        )  # fmt: skip
        self.now = 0.0
        self.course = Course(self.plan, Progress(), self.now)
        self.routed = 0
        self.seen_good = False
        self.judged = 0
        self.told: list[Happened] = []

    def _after(self, happened: list[Happened], before: Progress) -> None:
        self.told += happened
        now = self.course.progress
        if before.phase.ended:
            assert now == before
            assert not happened
        if now.weight > before.weight and now.phase is not Phase.PAUSED:
            assert now.step <= before.step + 1 or now.phase is Phase.PROMOTING
            assert self.routed == before.weight, "it grew from a weight that callers never followed"

    @rule(seconds=st.floats(0.0, 3.0), there=st.integers(0, 2))
    def time_passes(self, seconds: float, there: int) -> None:
        """As a runner looks once a second."""
        before = self.course.progress
        self.now += seconds
        self._after(self.course.advance(self.now, there), before)

    @rule(calls=st.integers(0, 30), bad=st.booleans(), there=st.integers(0, 2))
    def checked(self, calls: int, bad: bool, there: int) -> None:
        """Where that is due."""
        if not self.course.due(self.now):
            return
        before = self.course.progress
        seen = {"instances": Pair(Sample(calls, calls if bad else 0), Sample(50))}
        happened = self.course.check(self.now, there, seen)
        self._after(happened, before)
        assert self.course.progress.weight <= before.weight, "a check never sends more calls"

    @rule()
    def written(self) -> None:
        """The route says what it should."""
        before = self.course.progress
        if before.phase is not Phase.PAUSED or self.routed == before.weight:
            self.routed = before.weight
            self._after(self.course.written(self.now), before)

    @rule(what=st.sampled_from(["pause", "resume", "abort", "hindered"]))
    def asked(self, what: str) -> None:
        """By operators, and by somebody who changes the route."""
        before = self.course.progress
        try:
            if what == "resume":
                happened = self.course.resume(self.now, "me")
            elif what == "hindered":
                happened = self.course.hindered("alice")
            else:
                happened = getattr(self.course, what)("me")
        except ConfigError:
            assert self.course.progress == before
            return
        if what == "abort":
            assert (self.course.progress.phase, self.course.progress.weight) == (Phase.RETURNING, 0)
        self.told += happened

    @rule()
    def taken_over(self) -> None:
        """Its progress goes over the wire, and somebody else goes on."""
        progress = msgspec.json.decode(msgspec.json.encode(self.course.progress), type=Progress)
        self.course = Course(self.plan, progress, self.now)

    @precondition(lambda self: self.course.progress.phase is Phase.RETURNING)
    @rule()
    def it_gets_back(self) -> None:
        """From wherever it was."""
        self.written()
        assert self.course.progress.phase in (Phase.ROLLED_BACK, Phase.ABORTED)

    @invariant()
    def it_is_somewhere(self) -> None:
        """Its weight is one of its steps', nothing, or everything; it says why it stands, and ends once."""
        at = self.course.progress
        assert at.weight in {0, 100} | {step.weight for step in self.plan.steps}
        assert -1 <= at.step < len(self.plan.steps)
        assert (at.phase is Phase.PAUSED) == (at.hold is not Hold.NONE)
        assert at.phase is not Phase.PAUSED or at.reason
        if at.phase in (Phase.RETURNING, Phase.ROLLED_BACK, Phase.ABORTED):
            assert at.weight == 0
        if at.phase in (Phase.PROMOTING, Phase.PROMOTED):
            assert at.weight == 100
        assert sum(each.what is What.ENDED for each in self.told) == at.phase.ended
        assert not (at.phase.ended and self.routed != at.weight)


TestCourse = CourseMachine.TestCase
