"""Why calls ended, in Envoy's words, and what of that is counted."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from msgspec import UNSET

from nats_mesh import Service
from nats_mesh.errors import (
    ApplicationError,
    CallError,
    CircuitOpenError,
    DeadlineExceededError,
    DisconnectedError,
    NoInstancesError,
    OverloadedError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_error, flags_of_refusal, note_end
from nats_mesh.telemetry.series import ErrorOrder, Series
from nats_mesh.telemetry.source_reading import _endings
from nats_mesh.telemetry.stats_messages import Told
from nats_mesh.telemetry.telling_series import TellingSeries
from nats_mesh.testing import MemoryMesh, run_virtual
from tests.tools import scaled


def faulty(fault: str) -> CallError:
    """A failure that was made on purpose."""
    error = RemoteError("on purpose", status=Status.UNAVAILABLE)
    error.fault = fault
    return error


@pytest.mark.parametrize(
    ("error", "flags"),
    [
        (NoInstancesError("nobody"), "UH"),
        (CircuitOpenError("open"), "UO"),
        (OverloadedError("full", refused=Refused.CONCURRENCY), "UO"),
        (RemoteError("slow down", status=Status.RESOURCE_EXHAUSTED, refused=Refused.RATE), "RL"),
        (RemoteError("slow down", status=Status.RESOURCE_EXHAUSTED, refused=Refused.QUOTA), "RL"),
        (DeadlineExceededError("late"), "UT"),
        (RemoteError("late", status=Status.DEADLINE_EXCEEDED, refused=Refused.DEADLINE), "UT"),
        (RemoteError("no such", status=Status.UNIMPLEMENTED, refused=Refused.UNIMPLEMENTED), "NR"),
        (faulty("abort"), "FI"),
        (faulty("delay"), "DI"),
        (ApplicationError("no", status=Status.RESOURCE_EXHAUSTED), ""),
        (RemoteError("broken", status=Status.INTERNAL), ""),
        (DisconnectedError("away"), ""),
        (RemoteError("leaving", status=Status.UNAVAILABLE, refused=Refused.DRAINING), ""),
    ],
)
def test_callers_flags(error: CallError, flags: str) -> None:
    """What the mesh itself ended has a flag; what the application answered, or the bus did, has none."""
    assert flags_of_error(error) == flags


def test_instances_flags() -> None:
    """Refusals by their reason, calls that were stopped by why, and what was injected."""
    assert flags_of_refusal(Refused.CONCURRENCY, "") == "UO"
    assert flags_of_refusal(Refused.ACCESS, "") == ""
    assert flags_of_refusal(None, "abort") == "FI"
    assert flags_of_ended("deadline", "delay") == "UT,DI"
    assert flags_of_ended("cancelled", "") == "DC"
    assert flags_of_ended("shutdown", "") == ""
    assert flags_of_ended("", "delay") == "DI"


@pytest.mark.parametrize(
    ("end", "flagged", "attempts", "retries"),
    [
        # Status, problem, attempts written, retries of them, whether no other was allowed, delayed on purpose.
        (("OK", None, 2, 1, True, False), {}, 2, (1, 0)),
        (("OK", None, 1, 0, False, True), {("OK", "DI"): 1}, 1, (0, 0)),
        (("OK", None, 2, 0, False, False), {}, 2, (0, 0)),  # a hedge is no retry
        (
            ("DEADLINE_EXCEEDED", DeadlineExceededError("x"), 3, 2, True, False),
            {("DEADLINE_EXCEEDED", "UT,URX"): 1},
            3,
            (0, 2),
        ),
        (("UNAVAILABLE", CircuitOpenError("x"), 0, 0, False, False), {("UNAVAILABLE", "UO"): 1}, 0, (0, 0)),
        (("CANCELLED", KeyboardInterrupt(), 1, 0, False, False), {("CANCELLED", "DC"): 1}, 1, (0, 0)),
        (("INVALID_ARGUMENT", ValueError(), 0, 0, False, False), {}, 0, (0, 0)),
    ],
)
def test_what_was_not_usual_is_counted_once(
    end: Any, flagged: dict[tuple[str, str], int], attempts: int, retries: tuple[int, int]
) -> None:
    """A call counts under one status and one set of flags; attempts are what was written, and what never was has no
    duration: refused at once it would be the service's fastest answer."""
    status, problem, tried, retried, exhausted, delayed = end
    series = Series(("out", "orders", "place", "web", ""), 0.0, ErrorOrder(lambda: 0.0))
    note_end(series, 0.01, Status(status), problem, tried, retried, exhausted, delayed=delayed)
    assert series.flagged == flagged
    assert series.by_status == {status: 1}
    assert series.histogram.count == (1 if tried else 0)
    assert series.attempts == attempts
    assert (series.retried_ok, series.retried_failed) == retries
    told = TellingSeries(series, 0).whole(1.0)
    assert told.attempts in (attempts, UNSET)
    assert sum((told.flags or {}).values()) == sum(flagged.values())


def test_a_circuit_does_not_hide_what_opened_it() -> None:
    """Its refusals are remembered where there is nothing else to say, without a countdown; any later failure is."""
    series = Series(("out", "stock", "reserve", "orders", ""), 0.0, ErrorOrder(lambda: 0.0))
    refusal = CircuitOpenError("the circuit of stock.reserve is open: 9 of 12 failed; next try in 22.5 s")

    def ends(problem: CallError, tried: int) -> str:
        note_end(series, 0.01, problem.status, problem, tried, 0, False, delayed=False)
        return series.last_error

    assert ends(refusal, 0) == "UNAVAILABLE: the circuit of stock.reserve is open: 9 of 12 failed"
    silent = DeadlineExceededError("no answer in 1.000 s")
    assert ends(silent, 1) == "DEADLINE_EXCEEDED: no answer in 1.000 s"
    assert ends(refusal, 0) == "DEADLINE_EXCEEDED: no answer in 1.000 s"
    assert series.by_status["UNAVAILABLE"] == 2, "they count all the same"
    assert ends(DisconnectedError("gone"), 1) == "UNAVAILABLE: DisconnectedError"


def test_a_reading_finds_a_call_in_both_tables_or_in_none() -> None:
    """Another thread never tells of a call that is about to be flagged as of one without flags, nor takes it from one
    that has none: what is left of a status without flags is the same at each reading."""
    series = Series(("in", "orders", "place", "web", ""), 0.0, ErrorOrder(lambda: 0.0))
    series.refuse("UNAVAILABLE")
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            series.end(None, "UNAVAILABLE", "UO")
            series.end(0.01, "UNAVAILABLE", "UT")
            for _ in range(3000):  # calls do something else, too: there are moments in which none ends
                pass

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(scaled(2000, 20_000)):
            flagged, statuses = _endings(series)
            assert statuses["UNAVAILABLE"] - sum(flagged.values()) == 1
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(usual)


def test_flags_of_calls_that_went_well_are_told_on_the_bus() -> None:
    """Also where nothing else was unusual, in the whole and in what has changed."""
    series = Series(("out", "orders", "place", "web", ""), 0.0, ErrorOrder(lambda: 0.0))
    series.record(0.01, Status.OK)
    telling = TellingSeries(series, 0)
    assert telling.whole(1.0).flags is UNSET
    note_end(series, 0.01, Status.OK, None, 1, 0, False, delayed=True)
    for told in (telling.changes(2.0), telling.whole(3.0)):
        assert isinstance(told, Told)
        assert (told.flags, told.statuses) == ({"DI": 1}, {"OK": 2})
    assert (series.requests, series.succeeded, series.histogram.count) == (2, 2, 2)


def test_a_retry_that_the_budget_denies_counts_in_the_turn_in_which_its_call_ends() -> None:
    """No call that still runs has one to tell of: at any moment there are as many as calls that ended for it."""
    service = Service("shop", version="1.0.0")

    @service.endpoint(idempotent=True)
    async def buy(wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        raise CallError("broken", status=Status.UNAVAILABLE)

    policies = PolicySet.of(
        parse(
            "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: shop}\n"
            "spec: {target: {service: shop}, breaker: off, retry: {budget: {ratio: 0%, floor: 0/s}}}\n"
        ),
        namespace="default",
    )

    async def main() -> None:
        async with MemoryMesh(service) as mesh, mesh.client("web", policies=policies) as web:
            calls = [
                asyncio.create_task(web.call("shop.buy", wait_s, idempotent=True))
                for wait_s in (0.1, 0.2, 0.2, 0.3)
            ]
            found: list[tuple[int, int]] = []
            while not all(call.done() for call in calls):
                for series in web.stats:
                    now = (series.requests, series.retries_denied)
                    if now not in found:
                        found.append(now)
                await asyncio.sleep(0.001)
            assert all(isinstance(call.exception(), CallError) for call in calls)
            assert found[-1] >= (3, 3)
            assert all(requests == denied for requests, denied in found)

    run_virtual(main)
