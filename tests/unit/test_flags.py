"""Why calls ended, in Envoy's words, and what of that is counted."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

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
from nats_mesh.telemetry.flags import flags_of_ended, flags_of_error, flags_of_refusal, note_end
from nats_mesh.telemetry.series import Series
from nats_mesh.telemetry.telling_series import TellingSeries


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
    """A call counts under one status and one set of flags; attempts are what was written."""
    status, problem, tried, retried, exhausted, delayed = end
    series = Series(("out", "orders", "place", "web", ""), 0.0, [0])
    series.record(0.01, status)
    note_end(series, Status(status), problem, tried, retried, exhausted, delayed=delayed)
    assert series.flagged == flagged
    assert series.attempts == attempts
    assert (series.retried_ok, series.retried_failed) == retries
    told = TellingSeries(series, 0).whole(1.0)
    assert told.attempts in (attempts, UNSET)
    assert sum((told.flags or {}).values()) == sum(flagged.values())
