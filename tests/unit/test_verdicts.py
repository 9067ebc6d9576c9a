"""Fleet-wide verdicts: so many different callers, lately, and never one of them alone."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nats_mesh.core.rules import VerdictRules
from nats_mesh.core.verdicts import Verdicts
from nats_mesh.errors import ConfigError


def verdicts(callers: int = 3, limit: int = 1024) -> Verdicts:
    """What hears for 30 s."""
    return Verdicts(VerdictRules(callers=callers), limit=limit)


def test_three_callers_agree() -> None:
    """The third word is the moment, and not before or after it."""
    heard = verdicts()
    assert [heard.hear("i", caller, 1.0) for caller in "abcd"] == [False, False, True, False]


@pytest.mark.parametrize("callers", [2, 3, 7])
def test_one_caller_too_few_never_ejects(callers: int) -> None:
    """However often k - 1 callers repeat themselves."""
    heard = verdicts(callers)
    assert not any(heard.hear("i", f"c{number % (callers - 1)}", number * 0.1) for number in range(1000))


def test_instances_are_judged_apart() -> None:
    """What is said of one is not said of another."""
    heard = verdicts()
    assert not any(heard.hear(instance, caller, 1.0) for instance in "xyz" for caller in "ab")
    assert heard.hear("y", "c", 1.0)


def test_old_words_expire() -> None:
    """Words that are further apart than the window do not meet; a repeated one is as young as its repetition."""
    heard = verdicts()
    assert not heard.hear("i", "a", 0.0)
    assert not heard.hear("i", "b", 20.0)
    assert not heard.hear("i", "c", 30.1)
    assert heard.callers("i", 30.1) == ["b", "c"]
    assert heard.hear("i", "a", 50.0)


def test_a_repeated_word_keeps_no_older_one_alive() -> None:
    """What a said again does not hide that b's word has expired."""
    heard = verdicts()
    for caller, now in (("a", 0.0), ("b", 5.0), ("a", 20.0)):
        heard.hear("i", caller, now)
    assert not heard.hear("i", "c", 36.0)
    assert heard.callers("i", 36.0) == ["a", "c"]


def test_a_window_ends_when_it_says() -> None:
    """A word of exactly the window's age still counts."""
    heard = verdicts(2)
    heard.hear("i", "a", 0.0)
    assert heard.hear("i", "b", 30.0)


def test_a_word_taken_back_does_not_count() -> None:
    """Who was wrong, or sees it healed, says so."""
    heard = verdicts()
    heard.hear("i", "a", 1.0)
    heard.hear("i", "b", 1.0)
    heard.withdraw("i", "a")
    assert not heard.hear("i", "c", 1.0)
    assert heard.hear("i", "a", 1.0)
    heard.withdraw("i", "a")
    heard.withdraw("nobody spoke of", "a")


def test_an_agreement_uses_words_up() -> None:
    """After one, as many words are needed again: nothing goes on ejecting by what was said before."""
    heard = verdicts()
    for _ in range(3):
        assert [heard.hear("i", caller, 1.0) for caller in "abc"] == [False, False, True]
        assert heard.callers("i", 1.0) == []
        assert len(heard) == 0


def test_forgotten_is_forgotten() -> None:
    """An instance that is gone for good leaves nothing behind."""
    heard = verdicts(2)
    heard.hear("i", "a", 1.0)
    heard.forget("i")
    heard.forget("i")
    assert len(heard) == 0
    assert not heard.hear("i", "b", 1.0)


def test_instances_are_bounded() -> None:
    """Only so many are remembered; the one not spoken of for longest goes, and that is counted."""
    heard = verdicts(3, limit=10)
    for number in range(100):
        assert not heard.hear("busy", "ab"[number % 2], 1.0)
        heard.hear(f"i{number}", "a", 1.0)
        heard.hear(f"i{number}", "b", 1.0)
    assert (len(heard), heard.evicted) == (10, 91)
    assert heard.hear("busy", "c", 1.0)
    assert heard.hear("i99", "c", 1.0)
    assert not heard.hear("i0", "c", 1.0), "its first words are forgotten"


def test_expired_instances_make_room_uncounted() -> None:
    """What nobody would have listened to any more is no loss."""
    heard = verdicts(2, limit=10)
    for number in range(10):
        heard.hear(f"i{number}", "a", 0.0)
    heard.hear("new", "a", 100.0)
    assert (len(heard), heard.evicted) == (1, 0)


def test_callers_are_bounded() -> None:
    """Of one instance only so many words are kept, never fewer than an agreement needs."""
    heard = verdicts(1000)
    said = [heard.hear("i", f"c{number}", 1.0) for number in range(1000)]
    assert said == [False] * 999 + [True]
    heard = Verdicts(VerdictRules(callers=200))
    for number in range(5000):
        heard.hear("i", f"c{number % 199}", 1.0)
    assert len(heard.callers("i", 1.0)) == 199


@pytest.mark.parametrize(
    ("callers", "window_s", "path"),
    [(1, 30.0, "ejection.verdicts.callers"), (3, 0.0, "ejection.verdicts.window")],
)
def test_rules_that_cannot_work_are_refused(callers: int, window_s: float, path: str) -> None:
    """One caller is no fleet, and no time is no window."""
    with pytest.raises(ConfigError, match=path):
        VerdictRules(callers=callers, window_s=window_s)


class VerdictMachine(RuleBasedStateMachine):
    """Callers speak and take back; time passes. The model keeps every word."""

    @initialize(callers=st.integers(2, 4))
    def begin(self, callers: int) -> None:
        self.needed = callers
        self.heard = verdicts(callers)
        self.now = 0.0
        self.words: dict[tuple[str, str], float] = {}

    def _valid(self, instance: str) -> set[str]:
        return {
            caller
            for (about, caller), at in self.words.items()
            if about == instance and self.now - at <= 30.0
        }

    @rule(instance=st.sampled_from("xy"), caller=st.sampled_from("abcdef"))
    def speak(self, instance: str, caller: str) -> None:
        self.words[instance, caller] = self.now
        agreed = len(self._valid(instance)) >= self.needed
        assert self.heard.hear(instance, caller, self.now) == agreed
        if agreed:
            self.words = {key: at for key, at in self.words.items() if key[0] != instance}

    @rule(instance=st.sampled_from("xy"), caller=st.sampled_from("abcdef"))
    def take_back(self, instance: str, caller: str) -> None:
        self.words.pop((instance, caller), None)
        self.heard.withdraw(instance, caller)

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_same_words_are_valid(self) -> None:
        for instance in "xy":
            valid = self._valid(instance)
            assert set(self.heard.callers(instance, self.now)) == valid
            assert len(valid) < self.needed


TestVerdicts = VerdictMachine.TestCase
"""An agreement is there exactly when so many different callers spoke within the window and did not take it back."""
