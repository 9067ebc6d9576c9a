"""Fleet-wide verdicts: so many different callers, lately, and never one of them alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nats_mesh.core.rules import VerdictRules
from nats_mesh.core.verdicts import MAX_CONNECTIONS, Verdicts, must_return, why_stay
from nats_mesh.errors import ConfigError


def hear(heard: Verdicts, instance: str, caller: str, now: float, connection: str = "1") -> bool:
    """Whether the callers agree with this word."""
    return bool(heard.hear(instance, caller, connection, now))


def said(heard: Verdicts, instance: str, now: float) -> list[str]:
    """Whose words about it are valid; the oldest first."""
    words = heard._heard.get(instance)
    valid = [] if words is None else [key for key, at in words.at.items() if now - at <= 30.0]
    return list(dict.fromkeys(caller for caller, _ in valid))


def verdicts(callers: int = 3, limit: int = 1024) -> Verdicts:
    """What hears for 30 s."""
    return Verdicts(VerdictRules(callers=callers), limit=limit)


def test_three_callers_agree() -> None:
    """The third word is the moment, and not before or after it; it is said who agrees."""
    heard = verdicts()
    assert [hear(heard, "i", caller, 1.0) for caller in "abcd"] == [False, False, True, False]
    heard.hear("j", "a", "1", 1.0)
    heard.hear("j", "b", "1", 2.0)
    heard.hear("j", "a", "1", 3.0)
    assert heard.hear("j", "c", "1", 4.0) == ["b", "a", "c"]


@pytest.mark.parametrize("callers", [2, 3, 7])
def test_one_caller_too_few_never_ejects(callers: int) -> None:
    """However often k - 1 callers repeat themselves."""
    heard = verdicts(callers)
    assert not any(hear(heard, "i", f"c{number % (callers - 1)}", number * 0.1) for number in range(1000))


def test_instances_are_judged_apart() -> None:
    """What is said of one is not said of another."""
    heard = verdicts()
    assert not any(hear(heard, instance, caller, 1.0) for instance in "xyz" for caller in "ab")
    assert hear(heard, "y", "c", 1.0)


def test_old_words_expire() -> None:
    """Words that are further apart than the window do not meet; a repeated one is as young as its repetition."""
    heard = verdicts()
    assert not hear(heard, "i", "a", 0.0)
    assert not hear(heard, "i", "b", 20.0)
    assert not hear(heard, "i", "c", 30.1)
    assert said(heard, "i", 30.1) == ["b", "c"]
    assert hear(heard, "i", "a", 50.0)


def test_a_repeated_word_keeps_no_older_one_alive() -> None:
    """What a said again does not hide that b's word has expired."""
    heard = verdicts()
    for caller, now in (("a", 0.0), ("b", 5.0), ("a", 20.0)):
        hear(heard, "i", caller, now)
    assert not hear(heard, "i", "c", 36.0)
    assert said(heard, "i", 36.0) == ["a", "c"]


def test_a_window_ends_when_it_says() -> None:
    """A word of exactly the window's age still counts."""
    heard = verdicts(2)
    hear(heard, "i", "a", 0.0)
    assert hear(heard, "i", "b", 30.0)


def test_a_word_taken_back_does_not_count() -> None:
    """Who was wrong, or sees it healed, says so."""
    heard = verdicts()
    hear(heard, "i", "a", 1.0)
    hear(heard, "i", "b", 1.0)
    heard.withdraw("i", "a", "1")
    assert not hear(heard, "i", "c", 1.0)
    assert hear(heard, "i", "a", 1.0)
    heard.withdraw("i", "a", "1")
    heard.withdraw("nobody spoke of", "a", "1")


def test_an_agreement_uses_words_up() -> None:
    """After one, as many words are needed again: nothing goes on ejecting by what was said before."""
    heard = verdicts()
    for _ in range(3):
        assert [hear(heard, "i", caller, 1.0) for caller in "abc"] == [False, False, True]
        assert said(heard, "i", 1.0) == []
        assert len(heard) == 0


def test_forgotten_is_forgotten() -> None:
    """An instance that is gone for good leaves nothing behind."""
    heard = verdicts(2)
    hear(heard, "i", "a", 1.0)
    heard.forget("i")
    heard.forget("i")
    assert len(heard) == 0
    assert not hear(heard, "i", "b", 1.0)


def test_instances_are_bounded() -> None:
    """Only so many are remembered; the one not spoken of for longest goes."""
    heard = verdicts(3, limit=10)
    for number in range(100):
        assert not hear(heard, "busy", "ab"[number % 2], 1.0)
        hear(heard, f"i{number}", "a", 1.0)
        hear(heard, f"i{number}", "b", 1.0)
    assert len(heard) == 10
    assert hear(heard, "busy", "c", 1.0)
    assert hear(heard, "i99", "c", 1.0)
    assert not hear(heard, "i0", "c", 1.0), "its first words are forgotten"


def test_expired_instances_make_room_first() -> None:
    """What nobody would have listened to any more goes at once."""
    heard = verdicts(2, limit=10)
    for number in range(10):
        hear(heard, f"i{number}", "a", 0.0)
    hear(heard, "new", "a", 100.0)
    assert len(heard) == 1


def test_callers_are_bounded() -> None:
    """Of one instance only so many words are kept, never fewer than an agreement needs."""
    heard = verdicts(1000)
    agreed = [hear(heard, "i", f"c{number}", 1.0) for number in range(1000)]
    assert agreed == [False] * 999 + [True]
    heard = Verdicts(VerdictRules(callers=200))
    for number in range(5000):
        hear(heard, "i", f"c{number % 199}", 1.0)
    assert len(said(heard, "i", 1.0)) == 199


@pytest.mark.parametrize(
    ("callers", "window_s", "path"),
    [(1, 30.0, "ejection.verdicts.callers"), (3, 0.0, "ejection.verdicts.window")],
)
def test_rules_that_cannot_work_are_refused(callers: int, window_s: float, path: str) -> None:
    """One caller is no fleet, and no time is no window."""
    with pytest.raises(ConfigError, match=path):
        VerdictRules(callers=callers, window_s=window_s)


def test_each_replica_takes_back_its_own_word_alone() -> None:
    """One replica of a caller sees it healed, the other does not: the caller's word stands until both are content."""
    heard = verdicts()
    hear(heard, "i", "a", 1.0, "first")
    hear(heard, "i", "a", 1.0, "second")
    hear(heard, "i", "b", 1.0)
    heard.withdraw("i", "a", "first")
    heard.withdraw("i", "a", "a third")
    assert said(heard, "i", 1.0) == ["a", "b"]
    assert hear(heard, "i", "c", 1.0)
    hear(heard, "i", "a", 2.0, "first")
    hear(heard, "i", "b", 2.0)
    heard.withdraw("i", "a", "first")
    assert not hear(heard, "i", "c", 2.0), "now it has none"


def test_replicas_of_one_caller_are_one_caller() -> None:
    """However many connections say it."""
    heard = verdicts(2)
    assert not any(hear(heard, "i", "a", number * 0.01, f"c{number}") for number in range(1000))
    assert hear(heard, "i", "b", 10.0)


def test_the_words_of_one_caller_are_bounded() -> None:
    """Of a thousand replicas the last few words are kept; while one of them stands the caller counts."""
    heard = verdicts()
    hear(heard, "i", "b", 1.0)
    for number in range(1000):
        hear(heard, "i", "a", 1.0, f"c{number}")
    assert len(heard._heard["i"].at) == MAX_CONNECTIONS + 1
    for number in range(999):
        heard.withdraw("i", "a", f"c{number}")
    assert said(heard, "i", 1.0) == ["b", "a"]
    heard.withdraw("i", "a", "c999")
    assert said(heard, "i", 1.0) == ["b"]


# -- who may go -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serving", "aside", "ratio", "reason"),
    [
        (0, 0, 0.5, "nobody else serves"),
        (0, 5, 1.0, "nobody else serves"),
        (1, 0, 0.5, ""),
        (1, 0, 0.0, ""),
        (1, 1, 0.5, "1 of 3 stand aside already, and no more than 1 may"),
        (2, 1, 0.5, ""),
        (3, 2, 0.5, ""),
        (2, 2, 0.5, "2 of 5 stand aside already, and no more than 2 may"),
        (70, 28, 0.29, "28 of 99 stand aside already, and no more than 28 may"),
        (71, 28, 0.29, ""),
        (1, 1, 1.0, ""),
        (1, 4, 1.0, ""),
    ],
)
def test_who_steps_aside_leaves_others_to_serve(serving: int, aside: int, ratio: float, reason: str) -> None:
    """Somebody else always serves, and no more are aside than the share says, though one always may be."""
    assert why_stay(serving, aside, ratio) == reason


def test_who_stands_aside_returns_when_nobody_else_serves() -> None:
    """Whatever its id, and whoever else stands aside."""
    for aside in ("", "a", "z", "abz"):
        assert must_return("m", 0, set(aside), 1.0) == "nobody else serves"
    assert must_return("m", 1, set(), 0.0) == ""


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(1, 20), st.floats(0.0, 1.0))
def test_of_too_many_the_last_return(aside: set[int], serving: int, ratio: float) -> None:
    """Each decides by itself, all see the same: as many stay aside as may, those whose ids come first."""
    ids = sorted(f"i{number:02}" for number in aside)
    stay = [each for each in ids if not must_return(each, serving, set(ids) - {each}, ratio)]
    count = serving + len(ids)
    most = min(count - 1, max(1, int(count * ratio + 1e-9)))
    assert stay == ids[:most]
    assert why_stay(count - len(stay), len(stay) - 1, ratio) == ""


class VerdictMachine(RuleBasedStateMachine):
    """Callers speak and take back; time passes. The model keeps every word."""

    @initialize(callers=st.integers(2, 4))
    def begin(self, callers: int) -> None:
        self.needed = callers
        self.heard = verdicts(callers)
        self.now = 0.0
        self.words: dict[tuple[str, str, str], float] = {}

    def _valid(self, instance: str) -> set[str]:
        return {
            caller
            for (about, caller, _), at in self.words.items()
            if about == instance and self.now - at <= 30.0
        }

    @rule(instance=st.sampled_from("xy"), caller=st.sampled_from("abcdef"), connection=st.sampled_from("12"))
    def speak(self, instance: str, caller: str, connection: str) -> None:
        self.words[instance, caller, connection] = self.now
        valid = self._valid(instance)
        agreed = self.heard.hear(instance, caller, connection, self.now)
        assert set(agreed) == (valid if len(valid) >= self.needed else set())
        if agreed:
            self.words = {key: at for key, at in self.words.items() if key[0] != instance}

    @rule(instance=st.sampled_from("xy"), caller=st.sampled_from("abcdef"), connection=st.sampled_from("12"))
    def take_back(self, instance: str, caller: str, connection: str) -> None:
        self.words.pop((instance, caller, connection), None)
        self.heard.withdraw(instance, caller, connection)

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_same_words_are_valid(self) -> None:
        for instance in "xy":
            valid = self._valid(instance)
            assert set(said(self.heard, instance, self.now)) == valid
            assert len(valid) < self.needed


TestVerdicts = VerdictMachine.TestCase
"""An agreement is there exactly when so many different callers spoke within the window and did not take it back."""
