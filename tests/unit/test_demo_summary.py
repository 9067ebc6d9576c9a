"""What the demo makes of what the bus says: lines, events, a summary, and whether all is well."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest

from examples import bookinfo
from nats_mesh import ConfigError
from nats_mesh.core.members import Change, ChangeKind, Health, Instance, Reason, ServiceSummary
from nats_mesh.core.presence import Load, State
from nats_mesh.telemetry.events import Event as TelemetryEvent
from nats_mesh.telemetry.intake import Intake
from nats_mesh.telemetry.lines import Line
from nats_mesh.telemetry.snapshots import Figures, Red, Service, Snapshot, VersionRow
from nats_mesh_cli.demo.collect import edge_lines, in_order, instance_lines, service_lines
from nats_mesh_cli.demo.deeds import Before, Deeds, ended_from_outside, how_it_ended
from nats_mesh_cli.demo.events import Events, LogEvents, describe
from nats_mesh_cli.demo.fleet import child_environment, metrics_environment
from nats_mesh_cli.demo.locate import DEFAULT, EXPECTED, Bookinfo, locate
from nats_mesh_cli.demo.report import report, said_besides
from nats_mesh_cli.demo.rows import Own, Row, own_calls, service_rows
from nats_mesh_cli.demo.silences import MAX_SILENCES
from nats_mesh_cli.demo.state import Event, Mark
from nats_mesh_cli.demo.summary import PagesSummary, Summary, differences, missing, summarise
from nats_mesh_cli.demo.watch import Heard
from nats_mesh_cli.options import Format

# -- from the bus to the view ---------------------------------------------------------------------------------


def figures(requests: int, errors: int = 0) -> Figures:
    """So many calls, all of 2 ms."""
    seen = 0.002 if requests else None
    return Figures(
        requests=requests,
        errors=errors,
        statuses={},
        success=1.0 - errors / requests if requests else None,
        p50_s=seen,
        p90_s=seen,
        p95_s=seen,
        p99_s=seen,
    )


def row(
    source: str,
    service: str,
    requests: int,
    *,
    errors: int = 0,
    served: int | None = None,
    versions: dict[str, int] | None = None,
    last: str = "",
) -> Row:
    """A row of figures; its instances counted the same, unless ``served`` says how many calls, and none are of
    strangers."""
    counted = figures(requests if served is None else served, errors)
    return Row(
        source=source,
        service=service,
        reporter="out" if source else "in",
        rate_per_s=12.5,
        total=figures(requests, errors),
        recent=figures(requests, errors),
        served=counted,
        versions={version: figures(count) for version, count in (versions or {}).items()},
        own=Own(calls=counted.requests, errors=errors, last_error=last),
    )


def instance(service: str, pid: int, **changes: Any) -> Instance:
    """An instance as a registry knows it."""
    known = Instance(
        service=service,
        id=f"{service}{pid}",
        name=f"my-host-{pid}",
        version="1.0.0",
        namespace="default",
        labels={},
        state=State.READY,
        health=Health.ALIVE,
        started="2026-01-01T00:00:00Z",
        interval_s=5.0,
        endpoints=(),
        described=True,
        load=Load(in_flight=1, requests=10),
        revision=(0, 0),
        rejections=(),
        seen=0.0,
    )
    return msgspec.structs.replace(known, **changes)


def test_services_stand_in_the_order_of_a_call() -> None:
    """The expected ones are there from the start, whoever else turns up stands behind them."""
    present = [ServiceSummary(name="reviews", instances=2, ready=1, suspect=0, draining=1, versions={})]
    shown = service_lines([row("", "zebra", 4, versions={"1.0.0": 4})], present, EXPECTED, {"zebra": [1.0]})
    assert [each.name for each in shown] == ["productpage", "details", "reviews", "ratings", "zebra"]
    assert [(each.ready, each.instances) for each in shown] == [(0, 1), (0, 1), (1, 3), (0, 1), (0, 0)]
    assert shown[-1].shares == (("1.0.0", 1.0),)


def test_edges_stand_in_the_order_of_a_call() -> None:
    """Callers from outside first, then each service's own calls."""
    pairs = [
        ("reviews", "ratings"),
        ("productpage", "reviews"),
        ("productpage", "details"),
        ("web", "productpage"),
    ]
    shown = edge_lines([row(source, service, 1) for source, service in pairs], EXPECTED)
    assert [(each.source, each.service) for each in shown] == [
        ("web", "productpage"),
        ("productpage", "details"),
        ("productpage", "reviews"),
        ("reviews", "ratings"),
    ]
    assert [each.service for each in in_order([row("", "zoo", 1), row("", "details", 1)], EXPECTED)] == [
        "details",
        "zoo",
    ]


def test_an_instance_shows_its_latest_word_and_its_death() -> None:
    """Statistics are fresher than beats; a process that has ended is said to have, whatever it announced last."""
    found = instance_lines(
        [instance("ratings", 3), instance("details", 1), instance("reviews", 2, health=Health.SUSPECT)],
        {("details", "details1"): Heard("ready", 4, 99)},
        EXPECTED,
        lambda pid: pid != "3",
    )
    assert [(each.service, each.state, each.in_flight, each.calls, each.pid) for each in found] == [
        ("details", "ready", 4, 99, "1"),
        ("reviews", "suspect", 1, 10, "2"),
        ("ratings", "ended", 1, 10, "3"),
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": ChangeKind.JOINED}, (Mark.JOIN, "ratings 1.0.0 (pid 5)")),
        ({"kind": ChangeKind.GONE, "reason": Reason.LEFT}, (Mark.LEAVE, "ratings 1.0.0 (pid 5)")),
        (
            {"kind": ChangeKind.GONE, "reason": Reason.MISSED},
            (Mark.LEAVE, "ratings 1.0.0 (pid 5) without a word"),
        ),
        (
            {"kind": ChangeKind.SUSPECT},
            (Mark.WARN, "ratings 1.0.0 (pid 5) is suspect: its beats are missing"),
        ),
        ({"kind": ChangeKind.ALIVE}, (Mark.CHANGE, "ratings 1.0.0 (pid 5) is alive again")),
        (
            {"kind": ChangeKind.CHANGED, "fields": ("state",)},
            (Mark.CHANGE, "ratings 1.0.0 (pid 5): state; now ready"),
        ),
    ],
)
def test_every_change_has_its_words(change: dict[str, Any], expected: tuple[Mark, str]) -> None:
    """Each kind of membership change reads as what it is."""
    assert describe(Change(instance=instance("ratings", 5), **change)) == expected


def test_events_are_bounded_and_told_once() -> None:
    """The same again only counts up; at most 200 are remembered; texts have one line of bounded length."""
    told: list[Event] = []
    events = Events(told.append)
    for _ in range(3):
        events.add(Mark.ERROR, "one\n two")
    events.add(Mark.WARN, "x" * 5000)
    assert [(event.text[:10], event.count, len(event.text) <= 400) for event in events.all] == [
        ("one two", 3, True),
        ("xxxxxxxxxx", 1, True),
    ]
    assert len(told) == 2
    for number in range(300):
        events.add(Mark.INFO, str(number))
    assert (len(events.all), events.all[-1].text) == (200, "299")


def test_warnings_of_libraries_become_events() -> None:
    """What would be a line on stderr is an event; less than a warning is nothing."""
    events = Events()
    logger = logging.Logger("some.library")
    logger.addHandler(LogEvents(events))
    logger.info("no")
    logger.warning("lost %s", "it")
    logger.error("broken")
    assert [(event.mark, event.text) for event in events.all] == [
        (Mark.WARN, "lost it"),
        (Mark.ERROR, "broken"),
    ]


def test_of_a_service_both_counts_are_kept() -> None:
    """What a circuit refused, or nobody answered, its callers alone have counted: the figures are theirs, as
    everywhere, and what its instances counted stands beside them."""
    met, counted = figures(378, errors=354), figures(55, errors=31)
    service = Service(
        name="ratings",
        red=Red(rate_per_s=30.0, recent=met, total=met, last_error="the circuit is open"),
        served=Red(rate_per_s=5.0, recent=counted, total=counted, last_error="it broke"),
    )
    version = VersionRow(service="ratings", version="1.0.0", red=service.served)
    own = Own(calls=50, errors=31, last_error="it broke")
    (found,) = service_rows(
        Snapshot(red=service.red, services=(service,), versions=(version,)), {"ratings": own}
    )
    assert (found.total, found.served, found.versions, found.own) == (met, counted, {"1.0.0": counted}, own)
    assert (found.recent, found.rate_per_s) == (met, 30.0)


def test_what_strangers_call_is_not_the_demos_own() -> None:
    """Neither are their failures counted, nor is the last error one of theirs; of several instances the latest counts,
    and a call that its caller got wrong is no failure."""

    def line(at: float, last: str, **others: int) -> Line:
        made = Line("in", Intake((), deque()))
        made.ok, made.others, made.last_error, made.error_at = 10, others, last, at
        return made

    answered = [
        ("ratings", "reviews", line(7.0, "UNAVAILABLE: late", UNAVAILABLE=2)),
        ("ratings", "reviews", line(5.0, "UNAVAILABLE: early", UNAVAILABLE=1)),
        ("ratings", "reviews", line(8.0, "", NOT_FOUND=4)),
        ("ratings", "somebody", line(9.0, "UNIMPLEMENTED: ratings has no endpoint 'gte'", UNIMPLEMENTED=170)),
        ("details", "somebody", line(9.0, "UNIMPLEMENTED: it has none", UNIMPLEMENTED=1)),
    ]
    assert own_calls(answered, {"web", "reviews"}) == {
        "ratings": Own(calls=37, errors=3, last_error="UNAVAILABLE: late")
    }


# -- the summary ------------------------------------------------------------------------------------------------

SERVICES = (
    row("", "productpage", 100, versions={"1.0.0": 100}),
    row("", "details", 100, versions={"1.0.0": 100}),
    row("", "reviews", 101, versions={"1.0.0": 30, "2.0.0": 36, "3.0.0": 35}),
    row("", "ratings", 71, versions={"1.0.0": 71}),
)
EDGES = (
    row("web", "productpage", 100),
    row("productpage", "details", 100),
    row("productpage", "reviews", 101),
    row("reviews", "ratings", 71),
)
PAGES = PagesSummary(
    calls=100,
    errors=0,
    success=1.0,
    p50_ms=2.0,
    p90_ms=2.0,
    p99_ms=2.5,
    rate_per_s=50.0,
    degraded=0,
    skipped=0,
)


def summary(*problems: str) -> Summary:
    """A summary of the rows above."""
    return summarise(duration_s=2.0, pages=PAGES, services=SERVICES, edges=EDGES, problems=problems)


def agreed(services: Any = SERVICES, edges: Any = EDGES, *, sent: int = 100, unknown: int = 0) -> list[str]:
    """Where the sums differ."""
    return differences(services, edges, target="productpage", caller="web", sent=sent, unknown=unknown)


def test_sums_that_agree_are_no_problem() -> None:
    """The generator's pages, every service's answers and its callers' calls."""
    assert agreed() == []


def test_a_page_more_or_less_is_a_difference() -> None:
    """The generator's own count is held against what productpage answered, not against what the bus says of it."""
    assert agreed(sent=99) == ["productpage counted 100 calls, its callers made 99"]
    assert agreed(sent=101) == ["productpage counted 100 calls, its callers made 101"]


def test_a_page_whose_fate_is_unknown_may_have_arrived_or_not() -> None:
    """Only within that doubt do sums agree."""
    assert agreed(sent=99, unknown=1) == []
    assert agreed(sent=100, unknown=1) == []
    assert agreed(sent=98, unknown=1) == [
        "productpage counted 100 calls, its callers made 98 (and perhaps 1 more)"
    ]


def test_the_sums_of_both_sides_are_compared() -> None:
    """What callers made is held against what the instances counted, and not against itself."""
    services = (*SERVICES[:3], row("", "ratings", 71, served=70, versions={"1.0.0": 70}))
    assert agreed(services) == ["ratings counted 70 calls, its callers made 71"]


def test_calls_lost_between_services_are_a_difference() -> None:
    """Each inner edge is held against what its service counted."""
    edges = (*EDGES[:3], row("reviews", "ratings", 70))
    assert agreed(edges=edges) == ["ratings counted 71 calls, its callers made 70"]


def test_what_a_circuit_refused_came_nowhere() -> None:
    """Of calls that failed before anything was sent the service counts none, and that is no difference."""
    refused = msgspec.structs.replace(row("reviews", "ratings", 90), attempts=71)
    assert agreed(edges=(*EDGES[:3], refused)) == []


def test_a_stranger_who_calls_ends_the_comparison_for_that_service_alone() -> None:
    """Somebody who tries `nats-mesh call` on the demo breaks nothing."""
    edges = (*EDGES[:3], row("reviews", "ratings", 70), row("someone", "productpage", 5))
    assert agreed(edges=edges, sent=17) == ["ratings counted 71 calls, its callers made 70"]


def test_a_version_that_answered_nothing_is_a_problem() -> None:
    """Every expected version must have had its part, and every service be there."""
    services = [
        row("", "productpage", 1, versions={"1.0.0": 1}),
        row("", "reviews", 2, versions={"2.0.0": 2, "3.0.0": 0}),
    ]
    assert missing(services, EXPECTED) == [
        ("details", "details 1.0.0 answered no call"),
        ("reviews", "reviews 1.0.0 answered no call"),
        ("reviews", "reviews 3.0.0 answered no call"),
        ("ratings", "ratings 1.0.0 answered no call"),
    ]


def test_errors_of_a_service_are_a_problem_with_their_cause() -> None:
    """Even where a second try saved the page."""
    services = (*SERVICES[:3], row("", "ratings", 71, errors=2, versions={"1.0.0": 71}, last="it broke"))
    assert missing(services, EXPECTED) == [
        ("ratings", "ratings failed 2 of 71 calls; the last: it broke"),
    ]


def given_up(edge: Row, count: int, **changes: Any) -> Row:
    """An edge of which so many calls were given up by their caller."""
    total = msgspec.structs.replace(edge.total, statuses={"CANCELLED": count})
    return msgspec.structs.replace(edge, total=total, **changes)


def test_what_callers_met_is_told_with_what_instances_failed() -> None:
    """In one line of each service: instances know nothing of calls that never came to them, and callers nothing of what
    another attempt made good. Calls of strangers, and a few that were stopped, are nothing of the demo's."""
    ill = row("productpage", "reviews", 101, errors=40)
    edges = (EDGES[0], EDGES[1], msgspec.structs.replace(ill, last_error="nobody is there"), EDGES[3])
    own = ("web", "productpage", "reviews")
    (found,) = missing(SERVICES, EXPECTED, edges, own)
    assert found == ("reviews", "reviews: of 101 calls its callers met 40 failed; the last: nobody is there")
    services = (*SERVICES[:2], msgspec.structs.replace(SERVICES[2], own=Own(calls=60, errors=3)), SERVICES[3])
    (found,) = missing(services, EXPECTED, (given_up(ill, 20),), own)
    assert found == (
        "reviews",
        "reviews failed 3 of 60 calls; of 101 calls its callers met 40 failed and 20 given up",
    )
    same = msgspec.structs.replace(SERVICES[2], own=Own(calls=101, errors=40))
    (found,) = missing((*SERVICES[:2], same, SERVICES[3]), EXPECTED, (ill,), own)
    assert found == ("reviews", "reviews failed 40 of 101 calls"), (
        "where both ends say the same it is said once"
    )
    assert missing(SERVICES, EXPECTED, (msgspec.structs.replace(ill, source="somebody"),), own) == []
    assert missing(SERVICES, EXPECTED, (given_up(EDGES[2], 1),), own) == []


def test_what_was_given_up_has_a_column_in_all_tables_from_when_it_is_some() -> None:
    """As in `stat`: from one call in a hundred on."""

    def heads(*edges: Row) -> list[str]:
        found = summarise(duration_s=2.0, pages=PAGES, services=SERVICES, edges=edges, problems=())
        return [line for line in report(found, Format.TABLE).splitlines() if "CALLS" in line]

    assert all(head.endswith("GAVE UP") for head in heads(given_up(EDGES[0], 1)))
    assert not any("GAVE UP" in head for head in heads(EDGES[0]))


def test_a_summary_is_well_only_without_problems() -> None:
    """One problem is enough."""
    assert (summary().ok, summary("x").ok) == (True, False)


def test_what_was_done_is_told_apart() -> None:
    """The verdict says that something was done to it, and is well all the same."""
    done = summarise(
        duration_s=2.0, pages=PAGES, services=SERVICES, edges=EDGES, problems=(), done=("x",), caused=("y",)
    )
    assert (done.ok, done.done, done.caused) == (True, ("x",), ("y",))
    assert report(done, Format.TABLE).endswith(": all is well, beside what was done to it")


@pytest.mark.parametrize(
    ("failed", "degraded", "came"),
    [
        (0, 85, "85 of 100 pages were incomplete (without reviews 80, details 5)"),
        (7, 0, "7 of 100 pages failed (UNAVAILABLE 7)"),
        (
            7,
            85,
            "7 of 100 pages failed (UNAVAILABLE 7) and 85 were incomplete (without reviews 80, details 5)",
        ),
    ],
)
def test_what_came_of_a_deed_stands_in_the_verdict(failed: int, degraded: int, came: str) -> None:
    """That all is well is not said without it. What stands there is not told again beneath; programs get all of it."""
    pages = msgspec.structs.replace(
        PAGES,
        errors=failed,
        degraded=degraded,
        statuses={"UNAVAILABLE": failed},
        parts={"details": 5, "reviews": 80},
    )
    caused = [each for each in (pages.failures, pages.losses) if each]
    done = summarise(
        duration_s=2.0,
        pages=pages,
        services=SERVICES,
        edges=EDGES,
        problems=(),
        done=("x",),
        caused=(*caused, "y"),
    )
    assert said_besides(done, Format.TABLE) == ["y"]
    assert said_besides(done, Format.JSON) == [*caused, "y"]
    assert said_besides(msgspec.structs.replace(done, ok=False), Format.TABLE) == [*caused, "y"]
    assert report(done, Format.TABLE).endswith(
        f": all is well, beside what was done to it, but {came} because of it"
    )


def event(kind: str, **fields: Any) -> TelemetryEvent:
    """Something that a member tells."""
    given = {
        "service": "ratings",
        "instance": "A1",
        "namespace": "default",
        "seq": 1,
        "at": "2026-01-01T00:00:00.000000Z",
    }
    return TelemetryEvent(kind=kind, **{**given, **fields})


def test_deeds_are_noted_once_and_what_was_wrong_before_stays_wrong() -> None:
    """What several instances tell of one deed is one, at as many as there are, however often each tells; at the first
    it is asked what had failed by then. Breakers and the like are nobody's deed."""
    looked = iter([Before(failed=2)])
    deeds = Deeds(lambda: next(looked))
    assert not deeds.heard(event("breaker.open", target="ratings.get"))
    assert (deeds.all, deeds.before) == ((), None)
    for instance_id in ("A1", "A2", "A1", "A3"):
        assert deeds.heard(
            event("policy.applied", target="revision 4", detail="new Route/a", instance=instance_id)
        )
    assert deeds.heard(event("fault.set", target="ratings", detail="by ann: abort"))
    assert deeds.all == (
        "policies were applied: revision 4, new Route/a (at 3 members)",
        "a fault was injected into ratings by ann: abort",
    )  # fmt: skip
    assert deeds.before == Before(failed=2)
    assert not deeds.comparable


def test_a_revision_is_one_deed_whoever_tells_of_it() -> None:
    """A member that comes later tells of all that a revision has for it."""
    deeds = Deeds(Before)
    for instance_id, target, detail in (
        ("A1", "revision 6", "deleted Route/a"),
        ("A2", "revision 6", "new Destination/a"),
        ("A1", "revision 66", ""),
    ):
        deeds.heard(event("policy.applied", target=target, detail=detail, instance=instance_id))
    assert deeds.all == (
        "policies were applied: revision 6, deleted Route/a (at 2 members)",
        "policies were applied: revision 66",
    )


def test_the_view_says_why() -> None:
    """What members tell stands among the events: what is bad as a warning, what several tell alike once."""
    events = Events()
    events.told(event("breaker.open", target="ratings.get", detail="9 of 12 calls failed"))
    for _ in range(2):
        events.told(event("policy.applied", target="1.4"))
    assert [(each.mark, each.text, each.count) for each in events.all] == [
        (Mark.WARN, "ratings tells: breaker.open ratings.get: 9 of 12 calls failed", 1),
        (Mark.INFO, "ratings tells: policy.applied 1.4", 2),
    ]


def test_faults_leave_sums_comparable() -> None:
    """An injected error is counted at both ends; who drains, or follows a route, moves calls."""
    deeds = Deeds(Before)
    deeds.heard(event("fault.set", target="ratings", detail="by ann: abort"))
    assert deeds.comparable
    deeds.heard(event("instance.draining", target="A1", detail="by ann"))
    assert not deeds.comparable


def silences_of(deeds: Deeds) -> list[tuple[str, float, bool, bool]]:
    """Who was silent, for how long, whether he is back, and whether he has ended."""
    return [(each.host_pid, each.silent_s, each.back, each.ended) for each in deeds.silences.all]


def beat(kind: ChangeKind, pid: int = 5, *, seen: float = 0.0, reason: Reason | None = None) -> Change:
    """What presence tells of `ratings`."""
    return Change(kind=kind, instance=instance("ratings", pid, seen=seen), reason=reason)


def test_who_was_frozen_is_named_with_how_long_and_whether_he_came_back() -> None:
    """The system says when a process was stopped and goes on; what presence tells meanwhile, or a moment later, is the
    same silence. It is a deed from its first moment on, and what was sent meanwhile cannot be compared."""
    deeds = Deeds(lambda: Before(failed=3))
    frozen = instance("ratings", 5, seen=8.0)
    deeds.stopped(frozen, 10.0)
    assert (deeds.before, deeds.comparable) == (Before(failed=3), False)
    deeds.presence(beat(ChangeKind.SUSPECT, seen=8.0), 21.0, stopped=True)
    deeds.presence(beat(ChangeKind.GONE, seen=8.0, reason=Reason.MISSED), 28.0, stopped=True)
    deeds.silences.goes_on("6", 29.0)  # another one
    deeds.silences.goes_on("5", 30.0)
    deeds.presence(beat(ChangeKind.SUSPECT, seen=8.0), 30.1, stopped=False)
    deeds.presence(beat(ChangeKind.JOINED, seen=30.2), 30.2, stopped=False)
    deeds.stopped(frozen, 40.0)
    assert deeds.silences.lasting == {("ratings", "ratings5")}
    deeds.silences.over(47.5)
    assert silences_of(deeds) == [("my-host-5", 20.0, True, False), ("my-host-5", 7.5, False, False)]
    assert deeds.all == (
        "ratings 1.0.0 (pid 5) was frozen (stopped by a signal): it did not answer for 20.0 s, then it came back",
        "ratings 1.0.0 (pid 5) was frozen (stopped by a signal): it did not answer for 7.50 s, and did not come back",
    )
    assert deeds.hangs == ()


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (beat(ChangeKind.ALIVE), True),
        (beat(ChangeKind.JOINED), True),
        (beat(ChangeKind.GONE, reason=Reason.LEFT), True),
        (beat(ChangeKind.GONE, reason=Reason.REPLACED), False),
        (beat(ChangeKind.GONE, reason=Reason.MISSED), None),
    ],
)
def test_of_who_is_no_process_of_the_demo_presence_tells_alone(change: Change, back: bool | None) -> None:
    """Silent since the last beat, until whatever is heard next; who started anew has ended. Beats of others are
    nothing, and whoever is gone is silent still."""
    deeds = Deeds(Before)
    deeds.presence(beat(ChangeKind.JOINED), 0.0, stopped=None)
    deeds.presence(beat(ChangeKind.ALIVE, 6), 1.0, stopped=None)
    assert (deeds.all, deeds.comparable) == ((), True)
    deeds.presence(beat(ChangeKind.SUSPECT, seen=4.0), 17.0, stopped=None)
    deeds.presence(beat(ChangeKind.ALIVE, 6), 18.0, stopped=None)
    deeds.presence(change, 20.0, stopped=None)
    deeds.silences.over(24.0)
    assert silences_of(deeds) == [("my-host-5", 20.0 if back is None else 16.0, bool(back), back is False)]
    (text,) = deeds.all
    assert text.startswith(f"ratings 1.0.0 (pid 5) did not answer for {20 if back is None else 16}.0 s, ")


def test_an_instance_that_hangs_by_itself_is_a_problem() -> None:
    """Nobody had stopped its process: that is no deed, and blames nothing else on one."""
    deeds = Deeds(Before)
    deeds.presence(beat(ChangeKind.SUSPECT, seen=4.0), 17.0, stopped=False)
    deeds.presence(beat(ChangeKind.ALIVE, seen=20.0), 20.0, stopped=False)
    assert (deeds.all, deeds.before) == ((), None)
    assert deeds.hangs == (
        "ratings 1.0.0 (pid 5) did not answer for 16.0 s, though nothing had stopped it, then it came back",
    )


def test_who_is_killed_while_he_is_frozen_was_silent_until_then() -> None:
    """What follows of his beats is nothing more."""
    deeds = Deeds(Before)
    deeds.stopped(instance("ratings", 5), 10.0)
    deeds.silences.ended("5", 12.0)
    assert silences_of(deeds) == [("my-host-5", 2.0, False, True)]
    assert deeds.all[0].endswith("it did not answer for 2.00 s, until it ended")


def test_silences_are_bounded_and_further_ones_counted() -> None:
    """Fifty are told; of the rest one reads how many they were."""
    deeds = Deeds(Before)
    for number in range(MAX_SILENCES + 2):
        deeds.stopped(instance("ratings", number), 1.0)
    assert len(deeds.silences.all) == MAX_SILENCES
    assert deeds.all[MAX_SILENCES:] == ("and 2 more",)


@pytest.mark.parametrize(
    ("status", "outside"),
    [(0, True), (-9, True), (-15, True), (-2, True), (1, False), (-11, False), (-6, False)],
)
def test_who_sends_a_signal_is_told_from_a_crash(status: int, outside: bool) -> None:
    """Signals that people send, and the end that a service makes of SIGTERM, are deeds; a crash is a problem."""
    assert ended_from_outside(status) is outside


def test_who_sent_sigkill_was_somebody_else() -> None:
    """A command of the mesh sends no signals, and the demo none while it runs: it was a person, or the kernel. Of other
    signals nobody doubts that."""

    class Ended:
        name = "ratings:v1"
        child = type("Child", (), {"pid": 5, "returncode": -9})

    ended: Any = Ended
    assert how_it_ended(ended) == (
        "ratings:v1 (pid 5) was killed by signal 9 (by somebody else: a person, or the kernel for want of memory)"
    )
    ended.child.returncode = -15
    assert how_it_ended(ended) == "ratings:v1 (pid 5) was killed by signal 15"
    ended.child.returncode = 0
    assert how_it_ended(ended) == "ratings:v1 (pid 5) was told to stop"


def test_the_summary_as_json() -> None:
    """One object with raw numbers, units in their names."""
    found = json.loads(report(summary("one"), Format.JSON))
    assert found["problems"] == ["one"]
    called = {
        "gave_up_share": 0.0,
        "errors": 0,
        "success": 1.0,
        "p50_ms": 2.0,
        "p90_ms": 2.0,
        "p95_ms": 2.0,
        "p99_ms": 2.0,
    }
    counts = {"1.0.0": 30, "2.0.0": 36, "3.0.0": 35}
    assert found["services"][2] == {
        "service": "reviews",
        "calls": 101,
        **called,
        "served": {"calls": 101, **called},
        "versions": counts,
        "by_version": {version: {"calls": count, **called} for version, count in counts.items()},
    }
    assert (found["edges"][0]["source"], found["edges"][0]["service"]) == ("web", "productpage")
    assert report(summary(), Format.JSONL).count("\n") == 0
    assert report(summary(), Format.NAME).split() == ["productpage", "details", "reviews", "ratings"]


def test_the_summary_as_text() -> None:
    """Tables that fit a terminal, and the verdict in the last line."""
    text = report(summary(), Format.TABLE, room=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "reviews 2.0.0" in text
    heads = [line for line in text.splitlines() if "CALLS" in line]
    assert [head.partition("  ")[0] for head in heads] == [
        "SERVICE (callers' count)", "EDGE (callers' count)", "INSTANCES (own count)",
    ]  # fmt: skip
    assert "tells nothing" not in text
    assert text.splitlines()[-1] == "100 pages in 2.0 s at 50/s, 0 failed, 0 incomplete: all is well"
    assert report(summary("a", "b"), Format.TABLE).endswith(": 2 problems")


def test_a_caller_who_tells_nothing_is_marked() -> None:
    """Of its calls the instances' count is shown, which the heading does not say."""
    edges = (*EDGES[:3], msgspec.structs.replace(row("foreign", "ratings", 5), reporter="in"))
    text = report(
        summarise(duration_s=2.0, pages=PAGES, services=SERVICES, edges=edges, problems=()), Format.TABLE
    )
    assert "foreign → ratings *" in text
    assert "* this caller tells nothing: what the instances counted of its calls" in text


def test_a_summary_of_nothing_is_valid() -> None:
    """No call at all: no figures, no division by zero."""
    nothing = msgspec.structs.replace(PAGES, calls=0, success=None, p50_ms=None)
    empty = summarise(duration_s=0.0, pages=nothing, services=(row("", "details", 0),), edges=(), problems=())
    assert json.loads(report(empty, Format.JSON))["services"][0]["success"] is None
    assert "-" in report(empty, Format.TABLE)


# -- what is run ---------------------------------------------------------------------------------------------------


def test_the_demo_runs_what_the_example_starts() -> None:
    """Both lists name the same services, and every version that is expected is started."""
    assert DEFAULT == bookinfo.DEFAULT
    started = {(service.name, service.version) for service in map(bookinfo.load, DEFAULT)}
    assert started == {(name, version) for name, versions in EXPECTED.items() for version in versions}


def test_an_installation_without_the_example_says_so(tmp_path: Path) -> None:
    """The error names both places where it was looked for."""
    with pytest.raises(ConfigError, match=r"nats_mesh_cli\._bookinfo.*" + tmp_path.name):
        locate(tmp_path)


def test_a_checkout_is_found_from_anywhere() -> None:
    """The example beside this package is run by its own name, with the checkout on the path."""
    found = locate()
    assert found.module == "examples.bookinfo"
    assert found.root is not None
    assert found.python_path("/x") == f"{found.root}{os.pathsep}/x"
    assert Bookinfo("nats_mesh_cli._bookinfo").python_path() == ""


def test_services_get_the_demos_bus_and_no_setting_of_another_mesh() -> None:
    """A developer's credentials, contexts and policies must not reach the demo's processes; where policies may be
    cached does."""
    given = {
        "PATH": "/bin",
        "NATS_CREDS": "x",
        "NATS_URL": "nats://real",
        "MESH_MODE": "enforced",
        "MESH_CACHE_DIR": "off",
        "BOOKINFO_RATINGS_DB": "y",
    }
    assert child_environment(given, url="nats://demo", namespace="n", python_path="") == {
        "PATH": "/bin",
        "NATS_URL": "nats://demo",
        "MESH_NAMESPACE": "n",
        "MESH_LOG": "WARNING",
        "MESH_CACHE_DIR": "off",
    }


def test_each_service_may_have_a_metrics_port_of_its_own() -> None:
    """Any port that is free, on any address; one that says which is refused, as several processes cannot share it."""
    assert metrics_environment({"PATH": "/bin"}) == {}
    assert metrics_environment({"MESH_METRICS_PORT": "off", "MESH_METRICS_HOSTS": "a"}) == {}
    given = {"MESH_METRICS_PORT": "127.0.0.1:0", "MESH_METRICS_HOSTS": "orders"}
    assert metrics_environment({**given, "PATH": "/bin", "MESH_MODE": "no"}) == given
    with pytest.raises(ConfigError, match=r"'127.0.0.1:9464'.*cannot share one port; use 0"):
        metrics_environment({"MESH_METRICS_PORT": "127.0.0.1:9464"})
    with pytest.raises(ConfigError, match="MESH_METRICS_PORT is 'x'"):
        metrics_environment({"MESH_METRICS_PORT": "x"})


def test_what_happened_is_harmless_to_a_terminal() -> None:
    """What a service or its log says may hold anything; on the screen it is one line without a code in it."""
    events = Events()
    events.add(Mark.ERROR, "it said\n  \x1b[2J\x07 \u202eback" + "wards" * 200)
    (event,) = events.all
    assert event.text.startswith("it said [2J back")
    assert event.text.isprintable()
    assert len(event.text) <= 400
