"""Which calls an injected fault meets, and when it is over."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nats_mesh.core.fault import EVERY, MAX_DELAY_S, Fault, Faults
from nats_mesh.errors import ConfigError, Refused, Status
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.fault import FaultGate
from nats_mesh.telemetry.stats import Stats


def never() -> float:
    """Chance that is not asked."""
    raise AssertionError("chance was asked")


def abort(until: float = 10.0, share: float = 1.0) -> Fault:
    """A fault that ends calls."""
    return Fault(until=until, abort=Status.UNAVAILABLE, share=share)


def test_an_endpoints_own_fault_goes_before_that_of_all() -> None:
    """One fault per call: the nearer one."""
    faults = Faults()
    own, every = abort(), Fault(until=10.0, delay_s=1.0)
    faults.set(EVERY, every)
    faults.set("place", own)
    assert faults.draw("place", 0.0, never) is own
    assert faults.draw("price", 0.0, never) is every


def test_a_fault_ends_by_itself() -> None:
    """Where an endpoint's own is over, that of all applies again; what is over is forgotten."""
    faults = Faults()
    faults.set("place", abort(until=5.0))
    faults.set(EVERY, abort(until=8.0))
    assert faults.next_end() == 5.0
    assert faults.of("place", 4.999) is not faults.of("price", 4.999)
    assert faults.of("place", 5.0) is faults.of("price", 5.0)
    assert faults.expire(5.0) == ["place"]
    assert faults.expire(8.0) == [EVERY]
    assert (faults.next_end(), len(faults)) == (None, 0)
    assert faults.draw("place", 8.0, never) is None


@pytest.mark.parametrize(("share", "low", "high"), [(0.1, 60, 140), (0.5, 430, 570), (1.0, 1000, 1000)])
def test_a_share_of_the_calls_meets_it(share: float, low: int, high: int) -> None:
    """As many as the share says, by chance; all of them without asking it."""
    faults, rng = Faults(), random.Random(1)
    faults.set("place", abort(share=share))
    hit = sum(faults.draw("place", 0.0, rng.random) is not None for _ in range(1000))
    assert low <= hit <= high


def test_a_share_is_met_below_and_not_at_its_bound() -> None:
    """Chance is in [0, 1): 0 always meets it, the share itself does not."""
    faults = Faults()
    faults.set("place", abort(share=0.25))
    assert faults.draw("place", 0.0, lambda: 0.0) is not None
    assert faults.draw("place", 0.0, lambda: 0.2499) is not None
    assert faults.draw("place", 0.0, lambda: 0.25) is None


def test_clearing_says_what_was_there() -> None:
    """One endpoint's, or everything; what was not there is not said."""
    faults = Faults()
    for name in ("place", "price", EVERY):
        faults.set(name, abort())
    assert faults.clear("place") == ["place"]
    assert faults.clear("place") == []
    assert sorted(faults.clear(EVERY)) == [EVERY, "price"]
    assert faults.active(0.0) == []


def test_the_table_is_no_larger_than_the_service() -> None:
    """A new fault takes the place of the old."""
    faults = Faults()
    for n in range(100):
        faults.set("place", abort(until=10.0 + n))
    assert [name for name, _ in faults.active(0.0)] == ["place"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "does nothing"),
        ({"abort": Status.OK}, "OK is no error"),
        ({"delay_s": -1.0}, "delay"),
        ({"delay_s": float("nan")}, "delay"),
        ({"delay_s": MAX_DELAY_S + 1.0}, "delay"),
        ({"delay_s": 1.0, "share": 0.0}, "share"),
        ({"delay_s": 1.0, "share": 1.01}, "share"),
        ({"delay_s": 1.0, "until": float("inf")}, "must end"),
    ],
)
def test_faults_that_cannot_work_are_refused(fields: dict[str, Any], said: str) -> None:
    """Where they are made, saying what is wrong."""
    with pytest.raises(ConfigError, match=said):
        Fault(**{"until": 1.0, **fields})


def arrival() -> Arrival:
    """A call."""
    return Arrival("web", Stats().series("in", "s", "e", "web"), "r", b"", b"", 0.0)


def test_a_call_is_drawn_once_delayed_once_and_then_aborted() -> None:
    """With both set it waits first; when it comes again nothing is drawn anew, and the abort is no refusal."""
    faults = Faults()
    faults.set("place", Fault(until=10.0, delay_s=2.0, abort=Status.NOT_FOUND, share=0.5))
    draws = iter([0.4])
    gate = FaultGate("place", faults, lambda: 0.0, lambda: next(draws))
    call = arrival()
    first = gate.enter(call)
    assert first is not None
    assert (first.delay_s, call.injected) == (2.0, "delay")
    second = gate.enter(call)
    assert second is not None
    assert (second.status, second.refused, second.delay_s, call.injected) == (
        Status.NOT_FOUND,
        None,
        0.0,
        "abort",
    )
    assert second.refused not in set(Refused)


def test_a_delay_alone_lets_the_call_in() -> None:
    """It waits once, and its reply says that it did."""
    faults = Faults()
    faults.set(EVERY, Fault(until=10.0, delay_s=2.0))
    gate, call = FaultGate("place", faults, lambda: 0.0, never), arrival()
    assert gate.enter(call) is not None
    assert gate.enter(call) is None
    assert (call.injected, call.noted) == ("delay", True)


def test_without_a_fault_the_gate_is_not_in_the_chain() -> None:
    """No fault, no cost; nor for the endpoints that it does not concern."""
    faults, now = Faults(), [0.0]
    place, price = (FaultGate(name, faults, lambda: now[0], never) for name in ("place", "price"))
    assert not place.present
    faults.set("place", abort(until=5.0))
    assert (place.present, price.present) == (True, False)
    now[0] = 5.0
    assert not place.present
