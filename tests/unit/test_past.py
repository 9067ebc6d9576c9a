"""Who was there at a past moment, rebuilt from signs of life: against a model that knows every life."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.past import Past, Presence, Sign

WITHIN_S = 75.0
#: What may be lost in a row, as the contract says.
LOST = 2
ALLOWED_S = WITHIN_S * (LOST + 1)
KEY = ("shop", "i1")


def rebuilt(signs: list[Sign], moment: float, horizon: float, since: float = 0.0) -> Presence | None:
    """What is said of the one instance that gave ``signs``."""
    past: Past[int] = Past(moment, since)
    for number, sign in enumerate(signs):
        past.take(KEY, sign, number)
    found = past.found(horizon)
    return found[0].presence if found else None


def sign(at: float, **options: Any) -> Sign:
    """A sign of the instance's first start."""
    return Sign(at=at, within_s=WITHIN_S, **options)


class Life:
    """One instance: when it joined, the signs it gave, when it was last there, and whether it said so."""

    def __init__(self, signs: list[float], end: float, left: bool, lost: set[int]) -> None:
        self.begin, self.end, self.left = signs[0], end, left
        told = [Sign(at=signs[0], within_s=WITHIN_S, start=True)]
        told += [Sign(at=at, within_s=WITHIN_S) for at in signs[1:]]
        if left:
            told.append(Sign(at=end, within_s=WITHIN_S, end=True))
        self.kept = [each for number, each in enumerate(told) if number not in lost]


@st.composite
def lives(draw: st.DrawFn, *, losses: bool = False) -> Life:
    """A life whose signs keep their promise; of its signs, at most two in a row are lost."""
    at = draw(st.floats(0.0, 500.0))
    signs = [at]
    for gap in draw(st.lists(st.floats(1.0, WITHIN_S), max_size=12)):
        at += gap
        signs.append(at)
    end = at + draw(st.floats(0.0, WITHIN_S))
    left = draw(st.booleans())
    lost: set[int] = set()
    if losses:
        in_a_row = 0
        for number in range(1, len(signs) - 1):  # neither the first nor the last: what comes after shows it
            in_a_row = in_a_row + 1 if in_a_row < LOST and draw(st.booleans()) else 0
            if in_a_row:
                lost.add(number)
    return Life(signs, end, left, lost)


moments = st.floats(0.0, 2000.0)


@given(life=lives(), moment=moments)
def test_rebuilt_presence_equals_the_lives(life: Life, moment: float) -> None:
    """With every sign kept and long hindsight, it is known of every moment who was there.

    Of a killed instance the time between its last sign and the promise of another is the one that cannot be told:
    it is suspect then, never simply there, and not listed any more afterwards.
    """
    horizon = max(moment, life.end) + ALLOWED_S + 1.0
    said = rebuilt(life.kept, moment, horizon)
    last = life.kept[-1]
    if moment < life.begin or (life.left and moment >= life.end):
        assert said is None
    elif life.left or moment < last.at:
        assert said is Presence.THERE
    elif moment - last.at <= WITHIN_S:
        assert said is Presence.SUSPECT
    else:
        assert said is None


@given(life=lives(losses=True), moment=moments)
def test_lost_signs_hide_nobody(life: Life, moment: float) -> None:
    """Who gave a later sign was there, although two signs in a row were lost."""
    said = rebuilt(life.kept, moment, max(moment, life.end) + ALLOWED_S + 1.0)
    if life.begin <= moment < life.kept[-1].at:
        assert said is Presence.THERE


@given(life=lives(), moment=moments, after=st.floats(0.0, 400.0))
def test_without_hindsight_nobody_is_buried_early(life: Life, moment: float, after: float) -> None:
    """Whoever was there is listed, however little is known of the time after; who was not for long is not."""
    horizon = moment + after
    kept = [each for each in life.kept if each.at <= horizon]
    said = rebuilt(kept, moment, horizon)
    if life.begin <= moment < life.end:
        assert said is not None
        if horizon - max(each.at for each in kept if each.at <= moment) <= WITHIN_S:
            assert said is Presence.THERE
    if moment > life.end + ALLOWED_S or (life.left and moment >= life.end) or moment < life.begin:
        assert said is None


@given(life=lives(), cut=st.floats(0.0, 1500.0), moment=moments)
def test_older_signs_may_be_dropped(life: Life, cut: float, moment: float) -> None:
    """Where what is kept begins in the middle of a life, the moments after that are rebuilt as if all were kept, but
    for who gave no sign any more."""
    if moment < cut:
        with pytest.raises(ValueError, match="nothing is kept"):
            Past(moment, cut)
        return
    horizon = max(moment, life.end) + ALLOWED_S + 1.0
    whole = rebuilt(life.kept, moment, horizon)
    kept = [each for each in life.kept if each.at >= cut]
    if kept:
        assert rebuilt(kept, moment, horizon, cut) == whole
    else:
        assert rebuilt(kept, moment, horizon, cut) is None


def test_another_start_of_an_id_does_not_speak_for_the_first() -> None:
    """An instance that was killed and started again under its id was not there in between."""
    signs = [
        sign(0.0, start=True, incarnation="a"),
        sign(60.0, incarnation="a"),
        sign(300.0, start=True, incarnation="b"),
        sign(360.0, incarnation="b"),
    ]
    said = [rebuilt(signs, moment, 400.0) for moment in (30.0, 100.0, 200.0, 299.0, 301.0)]
    assert said == [Presence.THERE, Presence.SUSPECT, None, None, Presence.THERE]


def test_two_signs_of_an_instance_are_kept() -> None:
    """Memory grows with the instances, not with their signs; each is found under its own key."""
    past: Past[str] = Past(500.0, 0.0)
    for number in range(1000):
        past.take(("shop", f"i{number % 10}"), sign(float(number)), f"sign {number}")
    found = past.found(1000.0)
    assert len(past) == 10
    assert [each.key[1] for each in found] == [f"i{number}" for number in range(10)]
    assert {each.value for each in found} == {f"sign {number}" for number in range(491, 501)}


def test_two_signs_in_a_row_may_be_lost_and_no_third() -> None:
    """Silence of three promises may be two lost signs; a longer one was an absence, though it came back."""
    for silence, expected in ((225.0, Presence.THERE), (226.0, Presence.SUSPECT)):
        signs = [sign(0.0, start=True), sign(silence), sign(silence + 60.0)]
        said = [rebuilt(signs, moment, 600.0) for moment in (70.0, 100.0, 224.0)]
        assert said == [Presence.THERE, expected, expected]
    assert rebuilt([sign(0.0, start=True), sign(400.0)], 226.0, 600.0) is None
