"""How long a message waited, told from two clocks that are never compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.age import DRIFT, AgeGauge

offsets = st.floats(-1e7, 1e7)
waits = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40)


@given(offsets, waits)
def test_age_is_what_a_message_waited_longer_than_the_quickest(offset: float, waits: list[float]) -> None:
    """Whatever the clocks show: the age is the wait beyond the shortest so far, up to the drift allowed for."""
    gauge = AgeGauge()
    gauge.age("c", 0.0 + offset, 0.001)
    shortest = received = 0.001
    for number, wait in enumerate(waits, 1):
        sent = number / 10.0  # within the ten seconds in which a run of late messages is believed
        received = max(received, sent + wait)  # messages of one connection arrive in order
        waited = received - sent
        age = gauge.age("c", sent + offset, received)
        assert age == pytest.approx(max(0.0, waited - shortest), abs=received * DRIFT + 1e-6)
        shortest = min(shortest, waited)


def test_the_first_message_has_the_age_of_our_own_stall() -> None:
    """Nothing is known of its sender yet: at worst it waited as long as our loop stood still."""
    gauge = AgeGauge()
    assert gauge.age("calm", 5.0, 100.0) == 0.0
    assert gauge.age("stalled", 5.0, 100.0, 2.5) == 2.5
    assert gauge.age("stalled", 7.4, 100.0, 2.5) == 2.5  # the next one, read in the same breath


@pytest.mark.parametrize("waited_s", [0.0, 1.0, 2.5])
def test_a_first_message_after_a_stall_does_not_spoil_what_follows(waited_s: float) -> None:
    """Whatever part of the stall it waited: fresh messages are fresh, and one that waits is seen to have waited."""
    gauge = AgeGauge()
    gauge.age("c", 10.0 - waited_s, 102.5, 2.5)
    assert gauge.age("c", 10.5, 103.0) == pytest.approx(0.0, abs=1e-3)
    assert gauge.age("c", 11.5, 104.7) == pytest.approx(0.7, abs=1e-3)


def test_a_frozen_receiver_sees_the_age_of_everything_that_waited() -> None:
    """Ten messages, one every 100 ms, read together after 2.5 s: each has waited since it was sent."""
    gauge = AgeGauge()
    gauge.age("c", 0.0, 1000.0)
    ages = [gauge.age("c", 1.0 + 0.1 * number, 1003.5) for number in range(10)]
    assert ages == pytest.approx([2.5 - 0.1 * number for number in range(10)], abs=2e-3)


@pytest.mark.parametrize("ppm", [-150, -50, 50, 150])
def test_clocks_that_drift_apart_do_not_make_messages_old(ppm: int) -> None:
    """Over three days of a call every ten seconds the age never exceeds some milliseconds."""
    gauge = AgeGauge()
    rate = 1.0 + ppm * 1e-6
    worst = max(gauge.age("c", 77.0 + at * rate, float(at)) for at in range(0, 3 * 86_400, 10))
    assert worst < 0.005


def test_a_long_silence_is_no_age() -> None:
    """A connection that is quiet for a day may have drifted by seconds: its next message is not called old."""
    gauge = AgeGauge()
    gauge.age("c", 0.0, 50.0)
    assert gauge.age("c", 86_400.0 * (1 - 150e-6), 50.0 + 86_400.0) == 0.0


def test_every_connection_has_a_base_of_its_own() -> None:
    """Two machines started at different times, or one restarted: their differences are not mixed."""
    gauge = AgeGauge()
    gauge.age("old", 1_000_000.0, 10.0)
    gauge.age("young", 5.0, 10.0)
    assert gauge.age("old", 1_000_001.0, 11.5) == pytest.approx(0.5, abs=1e-3)
    assert gauge.age("young", 6.0, 11.0) == pytest.approx(0.0, abs=1e-3)


def test_the_least_recently_heard_connections_are_forgotten() -> None:
    """However many connections there were, only so many are remembered; a busy one stays."""
    gauge = AgeGauge(limit=10)
    gauge.age("busy", 0.0, 10.0)
    for number in range(100):
        gauge.age(f"c{number}", 0.0, 10.0)
        gauge.age("busy", 0.0, 10.0)
    assert len(gauge) == 10
    assert gauge.age("busy", 0.0, 11.0) == pytest.approx(1.0, abs=1e-3)
    assert gauge.age("c0", 0.0, 11.0) == 0.0  # as if heard for the first time


def test_a_sender_whose_clock_stood_still_is_believed_again() -> None:
    """A suspended machine's clock falls behind for good; ten seconds of nothing but late messages show it."""
    gauge = AgeGauge()
    gauge.age("c", 0.0, 0.0)
    ages = [gauge.age("c", 100.0 + n - 60.0, 100.0 + n) for n in range(15)]
    assert all(age > 59.0 for age in ages[:10])
    assert all(age < 0.3 for age in ages[11:])


def test_a_burst_after_a_freeze_moves_nothing() -> None:
    """What piled up is read in one go: however old, it does not make the next fresh message look young."""
    gauge = AgeGauge()
    gauge.age("c", 0.0, 0.0)
    for n in range(100):
        assert gauge.age("c", 1.0 + n / 100, 30.0) > 27.0
    assert gauge.age("c", 30.0, 30.0) == 0.0
    assert gauge.age("c", 28.0, 31.0) > 2.9
