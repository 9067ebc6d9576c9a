"""Outlier ejection: who is out of balancing, for how long, and what keeps the cure smaller than the illness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_mesh.core.ejection import JITTER, OUTRUN, Ejection, Ejector
from nats_mesh.core.rules import EjectionRules
from nats_mesh.errors import ConfigError

IDS = tuple("abcdef")
DEFAULTS = EjectionRules()


def ejector(rules: EjectionRules = DEFAULTS, ids: Sequence[str] = IDS, limit: int = 4096) -> Ejector:
    """An ejector without jitter that knows its instances."""
    made = Ejector(rules, lambda: 0.0, limit=limit)
    made.available(ids, 0.0)
    return made


def fail(made: Ejector, id: str, now: float, times: int = 5) -> Ejection | None:
    """So many failures; the last answer."""
    ejection = None
    for _ in range(times):
        ejection = made.failure(id, now)
    return ejection


# -- what ejects ------------------------------------------------------------------------------------


def test_five_failures_in_a_row_eject() -> None:
    """The fifth does, with how long, why and how often; the four before do not."""
    made = ejector()
    assert fail(made, "a", 1.0, 4) is None
    assert made.failure("a", 1.0) == Ejection("a", 11.0, "consecutive", 1)
    assert made.is_ejected("a", 10.99)
    assert not made.is_ejected("a", 11.0)
    assert not made.is_ejected("b", 2.0)


def test_who_loses_every_race_is_silent() -> None:
    """Ten lost races without one answer in between eject; who answers now and then stays, however many it loses."""
    made = ejector()
    for _ in range(OUTRUN - 1):
        assert made.outrun("a", 1.0) is None
    ejection = made.outrun("a", 1.0)
    assert ejection is not None
    assert ejection.reason == "silent"
    assert made.outrun("a", 2.0) is None, "it is out already"
    for _ in range(20):
        for _ in range(OUTRUN - 1):
            assert made.outrun("b", 1.0) is None
        made.success("b", 1.0)


def test_a_success_breaks_the_row() -> None:
    """Failures that are not in a row eject by their rate alone."""
    made = ejector(EjectionRules(success_ratio=0.0))
    for _ in range(50):
        assert fail(made, "a", 1.0, 4) is None
        made.success("a", 1.0)


def test_a_low_success_rate_ejects() -> None:
    """Below 80 % of at least five calls within ten seconds."""
    made = ejector()
    for _ in range(4):
        made.success("a", 1.0)
    assert made.failure("a", 1.0) is None, "80 % is enough"
    ejection = made.failure("a", 1.0)
    assert ejection is not None
    assert ejection.reason == "success-rate"


def test_few_calls_have_no_rate() -> None:
    """Four calls say nothing, whatever became of them."""
    made = ejector()
    made.success("a", 1.0)
    assert fail(made, "a", 1.0, 3) is None
    assert fail(made, "a", 1.0, 1) is not None


def test_old_calls_do_not_count() -> None:
    """What is older than the window is no excuse for what fails now, and no charge against it."""
    made = ejector()
    for _ in range(100):
        made.success("a", 1.0)
    assert fail(made, "a", 12.0, 4) is None
    made.success("a", 12.0)
    ejection = made.failure("a", 12.0)
    assert ejection is not None
    assert ejection.reason == "success-rate"
    fail(made, "b", 1.0, 4)
    made.success("b", 12.0)
    assert fail(made, "b", 12.0, 3) is None


def test_three_silences_eject_while_others_answer() -> None:
    """An attempt without an answer counts where another instance answered since the one before."""
    made = ejector()
    for now in (1.0, 2.0):
        made.success("b", now)
        assert made.silence("a", now + 0.5) is None
    made.success("c", 3.0)
    ejection = made.silence("a", 3.5)
    assert ejection is not None
    assert ejection.reason == "silent"


def test_attempts_that_waited_together_count_each() -> None:
    """Three attempts that began and ended together are three where another answered in their time."""
    made = ejector()
    made.success("b", 1.2)
    assert made.silence("a", 1.5, 0.5) is None
    assert made.silence("a", 1.5, 0.5) is None
    assert made.silence("a", 1.5, 0.5) is not None


def test_when_everybody_is_silent_nobody_is_ejected() -> None:
    """A network or a caller that hears nothing is not the fault of those it does not hear."""
    made = ejector()
    for id in IDS:
        made.success(id, 1.0)
    for number in range(100):
        for id in IDS:
            assert made.silence(id, 2.0 + number, 0.5) is None
    assert made.ejected(102.0) == []


def test_an_instance_alone_is_never_silent() -> None:
    """Its own answers are no answers of others."""
    made = ejector(ids=("a",))
    for number in range(20):
        made.failure("a", float(number)) if number == 0 else made.success("a", float(number))
        for _ in range(3):
            assert made.silence("a", number + 0.5, 0.5) is None


@pytest.mark.parametrize("answer", ["success", "failure"])
def test_an_answer_ends_the_silence(answer: str) -> None:
    """Whoever answers, even with a failure, is not frozen."""
    made = ejector(EjectionRules(success_ratio=0.0))
    for number in range(20):
        made.success("b", number + 0.1)
        if number % 3 == 2:
            made.success("a", number + 0.2) if answer == "success" else made.failure("a", number + 0.2)
            if number % 12 == 11:
                made.success("a", number + 0.2)
        else:
            assert made.silence("a", number + 0.5) is None


def test_silence_that_counts_lowers_the_success_rate() -> None:
    """An instance that answers every other call is not saved by those it answers."""
    made = ejector()
    found = None
    for number in range(4):
        made.success("a", number + 0.1)
        made.success("b", number + 0.2)
        found = found or made.silence("a", number + 0.5)
    assert found is not None
    assert found.reason == "success-rate"


def test_from_outside_with_a_reason() -> None:
    """What the fleet or an operator says is an ejection like any other; once is enough."""
    made = ejector()
    assert made.eject("a", 1.0, "operator") == Ejection("a", 11.0, "operator", 1)
    assert made.eject("a", 2.0, "verdict") is None
    assert fail(made, "a", 2.0, 50) is None, "who is out is not judged"


def test_who_is_back_is_judged_by_what_comes() -> None:
    """Nothing from before or during the ejection counts after it."""
    made = ejector()
    fail(made, "a", 1.0)
    fail(made, "a", 5.0, 4)
    assert [ejection.id for ejection in made.returned(11.0)] == ["a"]
    assert fail(made, "a", 11.0, 4) is None
    assert made.failure("a", 11.0) is not None


# -- for how long -----------------------------------------------------------------------------------


def out_for(made: Ejector, id: str, now: float) -> tuple[float, int]:
    """Eject it; how long that lasts and how often that was."""
    ejection = made.eject(id, now, "test")
    assert ejection is not None
    return ejection.until - now, ejection.times


def test_times_grow_up_to_the_longest() -> None:
    """Ten seconds, twenty, thirty … 300, where it fails again as soon as it is back."""
    made, now, times = ejector(), 0.0, []
    for _ in range(35):
        lasts_s, _ = out_for(made, "a", now)
        times.append(lasts_s)
        now += lasts_s
    assert times[:4] == pytest.approx([10.0, 20.0, 30.0, 40.0])
    assert times[29:] == pytest.approx([300.0] * 6)


def test_times_shrink_while_it_stays_in() -> None:
    """One less for each base time in balancing, down to the first."""
    made, now = ejector(), 0.0
    for _ in range(5):
        now += out_for(made, "a", now)[0]
    now += 25.0
    lasts_s, times = out_for(made, "a", now)
    assert times == 4
    assert lasts_s == pytest.approx(40.0)
    lasts_s, times = out_for(made, "a", now + lasts_s + 10_000.0)
    assert times == 1
    assert lasts_s == pytest.approx(10.0)


def test_from_the_longest_it_shrinks_at_once() -> None:
    """A hundred ejections are forgiven no slower than the thirty that make the longest time."""
    made, now = ejector(), 0.0
    for _ in range(100):
        now += out_for(made, "a", now)[0]
    assert out_for(made, "a", now + 100.0)[1] == 21


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_only_lengthens(chance: float) -> None:
    """Callers that eject at the same moment do not all come back at the same moment, and none before its time."""
    made = Ejector(DEFAULTS, lambda: chance)
    lasts_s, _ = out_for(made, "a", 0.0)
    assert lasts_s == pytest.approx(10.0 * (1.0 + JITTER * chance))
    assert out_for(Ejector(EjectionRules(base_s=300.0), lambda: chance), "a", 0.0)[0] == 300.0


def test_returns_are_told_once() -> None:
    """Each return is told by one call of ``returned``, also where others asked in between."""
    made = ejector()
    made.eject("a", 0.0, "one")
    made.eject("b", 1.0, "two")
    assert made.next_return == 10.0
    assert made.returned(9.0) == []
    made.available(IDS, 10.5)
    assert [ejection.reason for ejection in made.returned(10.5)] == ["one"]
    assert made.next_return == 11.0
    assert [ejection.reason for ejection in made.returned(60.0)] == ["two"]
    assert made.returned(60.0) == []
    assert made.next_return == math.inf


# -- how many ---------------------------------------------------------------------------------------


def test_nobody_out_costs_nothing() -> None:
    """The answer is the very object that was given."""
    made = ejector()
    assert made.available(IDS, 1.0) is IDS


def test_the_ejected_are_left_out_until_they_are_back() -> None:
    """And the answer stays the same object as long as nothing changes."""
    made = ejector()
    fail(made, "b", 1.0)
    chosen = made.available(IDS, 1.0)
    assert chosen == ("a", "c", "d", "e", "f")
    assert made.available(IDS, 5.0) is chosen
    assert made.available(IDS, 11.0) is IDS


def test_another_set_is_answered_anew() -> None:
    """Members that come and go are seen at once."""
    made = ejector()
    fail(made, "b", 1.0)
    assert made.available(("a", "b", "g"), 1.0) == ("a", "g")
    assert made.available(("a", "g"), 1.0) == ("a", "g")


@pytest.mark.parametrize(
    ("count", "ratio", "most"),
    [
        (2, 0.5, 1),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (5, 0.5, 2),
        (10, 0.5, 5),
        (5, 0.1, 1),
        (3, 0.0, 1),
        (100, 0.29, 29),
    ],
)
def test_at_most_a_part_is_out_and_one_always_may_be(count: int, ratio: float, most: int) -> None:
    """Half of them by default; one even where the part is less than one instance."""
    ids = tuple(f"i{number}" for number in range(count))
    made = ejector(EjectionRules(max_ratio=ratio), ids)
    out = [id for id in ids if fail(made, id, 1.0) is not None]
    assert len(out) == most
    assert made.capped == count - most
    assert made.capped_id == (ids[-1] if most < count else "")
    assert len(made.available(ids, 1.0)) == count - most


def test_room_is_made_by_who_returns() -> None:
    """At the bound a bad instance stays in, and goes with its next failure once there is room."""
    made = ejector(ids=("a", "b"))
    fail(made, "a", 1.0)
    assert fail(made, "b", 2.0, 20) is None
    assert made.failure("b", 11.0) is not None


def test_who_left_while_out_takes_nobodys_place() -> None:
    """An instance that is gone does not count against the bound, forgotten or not."""
    made = ejector(ids=("a", "b", "c"))
    fail(made, "a", 1.0)
    assert fail(made, "b", 1.0) is None
    made.available(("b", "c", "d"), 1.0)
    assert made.failure("b", 1.0) is not None


def test_the_only_instance_is_tried_all_the_same() -> None:
    """One instance may be out, and gets the calls while nobody else is there; the next to come gets them instead."""
    made = ejector(ids=("a",))
    assert fail(made, "a", 1.0) is not None
    assert (made.available(("a",), 1.0), made.panicking) == (("a",), True)
    assert (made.available(("a", "b"), 1.0), made.panicking) == (("b",), False)


def test_under_half_healthy_ejections_are_ignored() -> None:
    """Where most are out it is no matter of instances: all are tried, and that is said."""
    four = IDS[:4]
    made = ejector(EjectionRules(max_ratio=0.9), four)
    for id in ("a", "b"):
        fail(made, id, 1.0)
    assert (made.available(four, 1.0), made.panicking) == (("c", "d"), False)
    fail(made, "c", 2.0)
    assert (made.available(four, 2.0), made.panicking) == (four, True)
    assert [ejection.id for ejection in made.ejected(2.0)] == ["a", "b", "c"]
    assert (made.available(four, 11.0), made.panicking) == (("a", "b", "d"), False)


def test_when_the_healthy_leave_the_longest_ejected_are_back() -> None:
    """Without panic the bound holds for the smaller set too: who would be back first is back now."""
    made = ejector(EjectionRules(panic_ratio=0.0), IDS)
    for now, id in enumerate("abc"):
        fail(made, id, float(now))
    assert made.available(IDS, 3.0) == ("d", "e", "f")
    assert made.available(("c", "b", "a", "d"), 3.0) == ("a", "d")
    assert made.available(("c", "a", "b"), 3.0) == ("a", "b")
    assert made.available(("c",), 3.0) == ("c",)


# -- bounds -----------------------------------------------------------------------------------------


def test_records_are_bounded() -> None:
    """Only so many instances are remembered; who is out is not forgotten before it is back."""
    made = ejector(limit=10, ids=tuple(f"i{number}" for number in range(1000)))
    fail(made, "i0", 1.0)
    for number in range(1, 1000):
        made.success(f"i{number}", 1.0)
    assert len(made._records) == 10
    assert made.is_ejected("i0", 1.0)
    assert [ejection.id for ejection in made.returned(11.0)] == ["i0"]


def test_forgotten_is_forgotten() -> None:
    """An instance that is gone for good leaves nothing behind, and its return is nobody's news."""
    made = ejector()
    fail(made, "a", 1.0)
    assert made.available(IDS, 1.0) == IDS[1:]
    made.forget("a")
    made.forget("never heard of")
    assert made.next_return == math.inf
    assert not made.is_ejected("a", 1.0)
    assert made.available(IDS, 1.0) == IDS
    assert made.returned(100.0) == []
    assert fail(made, "a", 100.0) == Ejection("a", 110.0, "consecutive", 1)


def test_without_a_set_one_may_be_out() -> None:
    """Before anybody asked whom to choose from, the first ejection is possible all the same."""
    made = Ejector(DEFAULTS, lambda: 0.0)
    assert fail(made, "a", 1.0) is not None
    assert fail(made, "b", 1.0) is None


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("consecutive", 0, "ejection.consecutive"),
        ("success_ratio", 1.5, "ejection.successRatio"),
        ("window_s", 0.0, "ejection.window"),
        ("min_calls", 0, "ejection.minCalls"),
        ("silent", 0, "ejection.silent"),
        ("base_s", 0.0, "ejection.base"),
        ("max_s", 1.0, "ejection.max"),
        ("max_ratio", math.nan, "ejection.maxRatio"),
        ("panic_ratio", -0.1, "ejection.panicRatio"),
    ],
)
def test_rules_that_cannot_work_are_refused(field: str, value: Any, path: str) -> None:
    """Where they are written, by the name of the field."""
    with pytest.raises(ConfigError, match=path):
        EjectionRules(**{field: value})


def test_it_shows_itself() -> None:
    """What a failing test or a log prints says how many are out."""
    made = ejector(ids=("a",))
    fail(made, "a", 1.0)
    made.available(("a",), 1.0)
    assert repr(made) == "<Ejector 1 of 1 ejected, panicking>"


# -- whatever happens -------------------------------------------------------------------------------


class EjectorMachine(RuleBasedStateMachine):
    """Instances answer, fail, are silent, come and go; time passes."""

    @initialize(
        count=st.integers(1, 6),
        max_ratio=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        panic_ratio=st.sampled_from([0.0, 0.5, 1.0]),
        jitter=st.sampled_from([0.0, 0.5]),
    )
    def begin(self, count: int, max_ratio: float, panic_ratio: float, jitter: float) -> None:
        self.given = EjectionRules(max_ratio=max_ratio, panic_ratio=panic_ratio, consecutive=2, max_s=50.0)
        self.made = Ejector(self.given, lambda: jitter)
        self.now = 0.0
        self.born = count
        self.ids = tuple(f"i{number}" for number in range(count))
        self.made.available(self.ids, self.now)
        self.out: dict[str, Ejection] = {}
        self.untold: list[Ejection] = []

    def _out(self) -> list[str]:
        return [id for id in self.ids if id in self.out and self.now < self.out[id].until]

    def _cap(self) -> int:
        return max(1, int(len(self.ids) * self.given.max_ratio))

    def _note(self, id: str, ejection: Ejection | None) -> None:
        if ejection is None:
            return
        assert id not in self._out(), "nobody is ejected twice"
        assert len(self._out()) < self._cap(), "there was room"
        assert self.given.base_s <= ejection.until - self.now <= self.given.max_s
        assert 1 <= ejection.times <= 5
        self.out[id] = ejection
        self.untold.append(ejection)

    @rule(data=st.data(), times=st.integers(1, 3))
    def fail(self, data: st.DataObject, times: int) -> None:
        id = data.draw(st.sampled_from(self.ids))
        for _ in range(times):
            self._note(id, self.made.failure(id, self.now))

    @rule(data=st.data(), waited_s=st.sampled_from([0.0, 1.0]))
    def fall_silent(self, data: st.DataObject, waited_s: float) -> None:
        id = data.draw(st.sampled_from(self.ids))
        self._note(id, self.made.silence(id, self.now, waited_s))

    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.made.success(data.draw(st.sampled_from(self.ids)), self.now)

    @rule(data=st.data())
    def order(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(self.ids))
        had_room = id not in self._out() and len(self._out()) < self._cap()
        ejection = self.made.eject(id, self.now, "operator")
        assert (ejection is not None) == had_room
        self._note(id, ejection)

    @rule()
    def join(self) -> None:
        self.ids = (*self.ids, f"i{self.born}")
        self.born += 1
        self.made.available(self.ids, self.now)

    @precondition(lambda self: len(self.ids) > 1)
    @rule(data=st.data(), told=st.booleans())
    def leave(self, data: st.DataObject, told: bool) -> None:
        gone = data.draw(st.sampled_from(self.ids))
        self.ids = tuple(id for id in self.ids if id != gone)
        if told:
            self.made.forget(gone)
            ejection = self.out.pop(gone, None)
            if ejection is not None and self.now < ejection.until:
                self.untold.remove(ejection)
        self.made.available(self.ids, self.now)

    @rule(seconds=st.sampled_from([0.125, 3.0, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tell_returns(self) -> None:
        for ejection in self.made.returned(self.now):
            assert self.now >= ejection.until
            self.untold.remove(ejection)
        assert all(self.now < ejection.until for ejection in self.untold), "each return is told, and once"

    @invariant()
    def enough_are_left(self) -> None:
        chosen = self.made.available(self.ids, self.now)
        out, count = self._out(), len(self.ids)
        assert [id for id in self.ids if self.made.is_ejected(id, self.now)] == out
        assert chosen, "there is always somebody"
        assert [id for id in self.ids if id in chosen] == list(chosen), "nobody else, and in order"
        assert count - len(chosen) <= self._cap()
        panic = bool(out) and count - len(out) < self.given.panic_ratio * count
        assert self.made.panicking == panic
        if panic:
            assert len(chosen) == count
        else:
            assert set(self.ids) - set(chosen) <= set(out), "only the ejected are left out"
            assert count - len(chosen) == min(len(out), self._cap(), count - 1)


TestEjector = EjectorMachine.TestCase
"""At most the bound is out, somebody always is left, and panic is said when it is there and only then."""
