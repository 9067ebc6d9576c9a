"""The last error of a service, and the column of its circuits, as `stat` and `top` show them."""

from __future__ import annotations

import msgspec

from nats_mesh.telemetry.snapshots import NOTHING, Edge, Endpoint, Service, Snapshot
from nats_mesh_cli.last_errors import LastError, error_text, last_errors
from nats_mesh_cli.stat_records import service_records
from nats_mesh_cli.stat_table import edges_table, stat_table

OPEN = "UNAVAILABLE: the circuit of orders.place is open"


def seen(own: str, *, circuits: bool) -> Snapshot:
    """`web` was refused by its circuit, `batch` knows of nothing; the instances say ``own``."""
    red, refused = (msgspec.structs.replace(NOTHING, last_error=text) for text in (own, OPEN))
    breakers = {"OPEN": 1} if circuits else {}
    return Snapshot(
        red=NOTHING,
        services=(Service(name="orders", red=red, served=red, breakers=breakers),),
        endpoints=(Endpoint(service="orders", name="place", red=red, served=red, breakers=breakers),),
        edges=(
            Edge(source="batch", service="orders", reporter="out", red=NOTHING),
            Edge(
                source="web", service="orders", reporter="out", red=refused, breakers=breakers,
                endpoints={"place": refused, "price": NOTHING},
            ),
        ),
    )  # fmt: skip


def test_what_callers_alone_know_is_told_of_the_service() -> None:
    """Where the instances say nothing, or while a circuit is open, it is what a caller was told, with his name; else
    the instances' own word stands."""
    told = LastError(f"web was told: {OPEN}", None)
    both = {("orders", ""): told, ("orders", "place"): told}
    assert last_errors(seen("", circuits=False)) == both
    assert last_errors(seen("ValueError (its text is in the log of host-7)", circuits=True)) == both
    assert last_errors(seen("ValueError (its text is in the log of host-7)", circuits=False)) == {}
    assert last_errors(seen(OPEN, circuits=True)) == {}, "nobody is told anything else"
    (record,) = service_records(seen("", circuits=True), "service")
    assert record["last_error"] == told.text
    (record,) = service_records(seen("", circuits=True), "endpoint")
    assert record["last_error"] == told.text


def test_a_circuit_that_is_open_has_a_column_without_asking() -> None:
    """`BREAKER` is among the narrow columns while any row has one that is not closed, and only then."""
    for view in (stat_table("service", ()), stat_table("endpoint", ())):

        def narrow(*, circuits: bool, view: object = view) -> list[str]:
            records = service_records(seen("", circuits=circuits), "service")
            return [each.header for each in view.shown(records) if not each.wide]  # type: ignore[attr-defined]

        assert "BREAKER" in narrow(circuits=True)
        assert "BREAKER" not in narrow(circuits=False)
    edges = edges_table("service", ())
    shown = edges.shown([{"breakers": {"OPEN": 1}, "gave_up_share": 0.0}])
    assert "BREAKER" in [each.header for each in shown if not each.wide]


def test_calls_that_were_given_up_have_a_column_without_asking() -> None:
    """They are no failures, but nobody has got an answer: from one in a hundred on, `GAVE UP` is a narrow column."""
    for view in (stat_table("service", ()), stat_table("endpoint", ()), edges_table("service", ())):
        for given_up, narrow in ((0, False), (1, False), (2, True), (156, True)):
            records: list[dict[str, object]] = [
                {"gave_up_share": given_up / 158, "served": {"success": 1.0}},
                {"gave_up_share": 0.0, "served": {"success": None}},
            ]
            (column,) = [each for each in view.shown(records) if each.header == "GAVE UP"]
            assert column.wide is not narrow, given_up
            assert column.text(records[0]) == (f"{given_up / 1.58:.1f}%" if given_up else "0%")
            assert column.text(records[1]) == "0%"


def test_what_instances_fail_and_retries_make_good_shows_without_asking() -> None:
    """Callers met no failure, but the service is yellow: the column that says why is there from then on."""
    for view in (stat_table("service", ()), stat_table("endpoint", ())):
        for share, narrow in ((None, False), (1.0, False), (0.9995, False), (0.97, True)):
            record: dict[str, object] = {"served": {"success": share}, "gave_up_share": 0.0}
            (column,) = [each for each in view.shown([record]) if each.header == "SERVED"]
            assert column.wide is not narrow, share
            assert (column.text(record) == "-") is (share is None)


def test_a_later_error_of_callers_goes_before_an_old_one_of_the_instances() -> None:
    """What was told an hour ago explains nothing of now. Both ends of one call tell of it at about the same time: then
    the instances' own word stands."""
    for served_at, met_at, callers in ((10.0, 3600.0, True), (10.0, 11.0, False), (None, 3600.0, False)):
        mesh = seen("ValueError (its text is in the log of host-7)", circuits=False)
        (service,), (batch, web) = mesh.services, mesh.edges
        served = msgspec.structs.replace(service.served, last_error_at=served_at)
        met = msgspec.structs.replace(web.red, last_error_at=met_at)
        mesh = msgspec.structs.replace(
            mesh,
            services=(msgspec.structs.replace(service, served=served),),
            edges=(batch, msgspec.structs.replace(web, red=met)),
            endpoints=(),
        )
        told = {("orders", ""): LastError(f"web was told: {OPEN}", met_at)}
        assert last_errors(mesh) == (told if callers else {}), (served_at, met_at)


def test_of_several_callers_the_one_that_was_told_last_has_the_word() -> None:
    """But one whose circuit is open goes before, and one of which nobody knows when comes last."""
    reds = {
        name: msgspec.structs.replace(NOTHING, last_error=name.upper(), last_error_at=at)
        for name, at in (("early", 5.0), ("late", 9.0), ("never", None), ("open", 1.0))
    }

    def first(*names: str) -> str:
        edges = tuple(
            Edge(
                source=name, service="orders", reporter="out", red=reds[name],
                breakers={"OPEN": 1} if name == "open" else {},
            )
            for name in names
        )  # fmt: skip
        mesh = Snapshot(red=NOTHING, services=(Service(name="orders", red=NOTHING),), edges=edges)
        return last_errors(mesh)["orders", ""].text

    assert first("never", "early", "late") == "late was told: LATE"
    assert first("never", "early") == "early was told: EARLY"
    assert first("late", "open") == "open was told: OPEN"


def test_an_error_is_shown_with_its_age() -> None:
    """Enough to tell what is new from what is not; nothing where nobody says, or where there was none."""
    for age_s, text in (
        (0.4, "0s ago"), (59.9, "59s ago"), (60.0, "1m ago"), (3599.0, "59m59s ago"), (7300.0, "2h1m ago"),
        (200_000.0, "2d ago"), (-3.0, "0s ago"),
    ):  # fmt: skip
        assert error_text(LastError("KeyError", 1000.0 - age_s), 1000.0) == f"{text} · KeyError"
    assert error_text(LastError("KeyError", None), 1000.0) == "KeyError"
    assert error_text(LastError("", 3.0), 1000.0) == ""
    (record,) = service_records(msgspec.structs.replace(seen("", circuits=True), at=50.0), "service")
    assert record["last_error_age_s"] is None


def test_an_endpoints_error_is_the_latest_at_that_endpoint() -> None:
    """Who failed lately elsewhere has no old word to say of it."""
    old, late, other = (
        msgspec.structs.replace(NOTHING, last_error=text, last_error_at=at)
        for text, at in (("OLD", 1.0), ("LATE", 90.0), ("OTHER", 100.0))
    )
    mesh = Snapshot(
        red=NOTHING,
        endpoints=(Endpoint(service="orders", name="place", red=NOTHING),),
        edges=(
            Edge(
                source="a",
                service="orders",
                reporter="out",
                red=other,
                endpoints={"place": old, "other": other},
            ),
            Edge(source="b", service="orders", reporter="out", red=late, endpoints={"place": late}),
        ),
    )
    assert last_errors(mesh) == {("orders", "place"): LastError("b was told: LATE", 90.0)}
