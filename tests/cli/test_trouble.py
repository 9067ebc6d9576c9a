"""What is trouble, and how bad: one scale, for the terminal, for tables and for the page."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nats_mesh.telemetry.snapshots import Red
from nats_mesh_cli.dashboard.document import state_of
from nats_mesh_cli.output import Record
from nats_mesh_cli.stat_table import stat_table
from nats_mesh_cli.top.words import BAD, GOOD, WARN, success_cell
from nats_mesh_cli.trouble import (
    breakers_level,
    edge_level,
    member_level,
    rank,
    ready_level,
    retry_level,
    service_level,
    status_level,
    success_level,
    tells_of_trouble,
    worst,
)
from tests.snapshots import red, snapshot


def left(count: int) -> Red:
    """A thousand calls, of which their callers gave so many up."""
    good = red(1000, 0)
    recent = msgspec.structs.replace(good.recent, statuses={"OK": 1000 - count, "CANCELLED": count})
    return msgspec.structs.replace(good, recent=recent)


@pytest.mark.parametrize(
    ("share", "level"),
    [(None, ""), (1.0, "ok"), (0.999, "ok"), (0.9989, "warn"), (0.99, "warn"), (0.9899, "bad"), (0.0, "bad")],
)
def test_a_share_of_success_has_one_level_everywhere(share: float | None, level: str) -> None:
    """In `top`, in `stat` and in the state that the page is told."""
    assert success_level(share) == level
    assert success_cell(share).style == {"bad": BAD, "warn": WARN, "ok": GOOD, "": "dim"}[level]
    column = next(each for each in stat_table("service", ()).columns if each.header == "SUCCESS")
    assert column.style is not None
    assert column.style({"success": share, "gave_up_share": 0.0}) == level
    numbers = msgspec.structs.replace(red(), success=share)
    service = msgspec.structs.replace(snapshot(1).services[0], red=numbers)
    assert state_of(service) == {"bad": "failing", "warn": "degraded", "ok": "ok", "": "idle"}[level]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "ok"),
        ({"red": red(0, 0)}, ""),
        ({"ready": 0}, "bad"),
        ({"ready": 1}, "warn"),
        ({"suspect": 1}, "warn"),
        ({"draining": 1}, "warn"),
        ({"ejected": 1}, "warn"),
        ({"breakers": {"HALF_OPEN": 2}}, "warn"),
        ({"breakers": {"HALF_OPEN": 2, "OPEN": 1}}, "bad"),
        ({"red": red(1000, 2)}, "warn"),
        ({"red": red(1000, 11)}, "bad"),
        ({"red": left(29)}, "ok"),
        ({"red": left(30)}, "warn"),
        ({"red": left(100)}, "bad"),
    ],
)
def test_the_worst_of_a_service_counts(changes: dict[str, Any], level: str) -> None:
    """Of its calls, its instances and the circuits to it."""
    service = msgspec.structs.replace(snapshot(1).services[0], **changes)
    assert service_level(service) == level


def test_calls_that_are_given_up_are_trouble_of_an_edge_and_of_a_page() -> None:
    """A service whose only instance hangs is not well, whatever its instances count."""
    mesh = snapshot(2)
    hanging = msgspec.structs.replace(mesh.services[0], red=left(500))
    assert (service_level(hanging), state_of(hanging)) == ("bad", "failing")
    edge = msgspec.structs.replace(mesh.edges[0], red=left(50))
    assert (edge.red.gave_up, edge_level(edge)) == (0.05, "warn")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("breaker.open", True), ("breaker.closed", True), ("instance.gone", True), ("instance.alive", True),
        ("fault.cleared", True), ("shop.own", True), ("policy.applied", False), ("instance.joined", False),
    ],
)  # fmt: skip
def test_what_goes_on_as_it_should_is_no_trouble(kind: str, told: bool) -> None:
    """What ends trouble belongs to it; whoever reads of errors wants to know that they are over."""
    assert tells_of_trouble(kind) is told


def test_the_levels_have_an_order() -> None:
    """Bad is worse than a warning, and that than what is well."""
    assert worst("ok", "bad", "warn", "") == "bad"
    assert worst("", "ok") == "ok"
    assert worst() == ""
    assert sorted(["bad", "", "warn", "ok"], key=rank) == ["", "ok", "warn", "bad"]  # type: ignore[arg-type]  # levels all


def test_what_is_counted_has_a_level() -> None:
    """Circuits, instances, repetitions, statuses; what a caller did wrong is no fault of the service."""
    assert [breakers_level(each) for each in ({}, {"HALF_OPEN": 1}, {"OPEN": 1})] == ["", "warn", "bad"]
    assert [ready_level(*each) for each in ((3, 3), (2, 3), (0, 3), (0, 0))] == ["", "warn", "bad", "bad"]
    assert [retry_level(each) for each in (0.0, 0.09, 0.1)] == ["", "", "warn"]
    assert [status_level(each) for each in ("OK", "NOT_FOUND", "UNAVAILABLE")] == ["ok", "warn", "bad"]


def test_a_member_has_a_level() -> None:
    """Silence is bad, leaving and refusing policies are not as it should be."""
    well = msgspec.structs.replace(snapshot(1).members[0], red=red(100, 0))
    changes: list[Record] = [{}, {"state": "suspect"}, {"state": "draining"}, {"rejected": 1}]
    levels = [member_level(msgspec.structs.replace(well, **each)) for each in changes]
    assert levels == ["ok", "bad", "warn", "warn"]
