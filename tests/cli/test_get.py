"""`get` of what no instance answers with: policies, edges, breakers; and faults."""

from __future__ import annotations

import io
import json
import signal

import anyio
import msgspec
import pytest

from nats_mesh.core.breaker import BreakerState
from nats_mesh.telemetry.snapshots import NOTHING, Breaker, Ejection, Snapshot
from nats_mesh_cli.breakers import breaker_records, breakers_table
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.get import KINDS, OTHERS, Kind, kind_of, plural_of, read_in_turns
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, table
from nats_mesh_cli.watch import view_of
from tests.cli.conftest import Shop

DESTINATION = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: %s}
spec:
  target: {service: %s%s}
  timeout: 1s
"""


def test_what_can_be_listed_is_found_by_any_of_its_names() -> None:
    """Plural, singular or short; another word is refused with the nearest one."""
    for word, plural in (
        ("policy", "policies"), ("POLICIES", "policies"), ("edge", "edges"), ("breaker", "breakers"),
        ("circuits", "breakers"), ("fault", "faults"), ("svc", "services"), ("ep", "endpoints"),
    ):  # fmt: skip
        assert plural_of(word) == plural
    assert {plural_of(each) for each in (*KINDS, *OTHERS)} == {*KINDS, *OTHERS}
    with pytest.raises(CliError) as caught:
        plural_of("brakers")
    assert "breakers" in caught.value.hint
    with pytest.raises(CliError):
        kind_of("edges")


@pytest.mark.anyio
async def test_what_thousands_say_is_read_while_others_get_their_turn() -> None:
    """Each instance once, in order; what cannot be read is counted."""
    said = {"type": "io.nats.micro.v1.info_response", "name": "orders", "version": "1.0.0", "endpoints": []}
    answers = [json.dumps({**said, "id": f"i{number:04}"}).encode() for number in range(1000)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        infos, illegible = await read_in_turns([*reversed(answers), b"?", answers[0]])
        tasks.cancel_scope.cancel()
    assert [info.id for info in infos] == [f"i{number:04}" for number in range(1000)]
    assert illegible == 1
    assert turns >= 10


def test_circuits_and_ejections_are_one_list() -> None:
    """Who does not call whom, and why: all of it, or what is about a service at either end."""
    mesh = Snapshot(
        red=NOTHING,
        breakers=(
            Breaker(
                caller="web", instance="w" * 22, service="orders", endpoint="place", state=BreakerState.OPEN,
                retry_after_s=2.5,
            ),
            Breaker(
                caller="orders", instance="o" * 22, service="stock", endpoint="count", subset="v2",
                state=BreakerState.HALF_OPEN,
            ),
        ),
        ejections=(Ejection(caller="web", instance="w" * 22, service="orders", ejected="x" * 22),),
    )  # fmt: skip
    records = breaker_records(mesh)
    assert [(each["caller"], each["service"], each["endpoint"], each["state"]) for each in records] == [
        ("web", "orders", "place", "OPEN"),
        ("orders", "stock", "count", "HALF_OPEN"),
        ("web", "orders", None, "EJECTED"),
    ]
    assert records[2]["target"] == "x" * 22
    assert len(breaker_records(mesh, "stock")) == 1
    assert len(breaker_records(mesh, "orders")) == 3, "as a caller and as who is called"
    assert breaker_records(mesh, "nobody") == []
    view = breakers_table(None)
    text = table(records, view.shown(records))
    assert "stock.count (v2)" in text
    assert "in 2.50 s" in text
    assert "orders instance xxxxxxxx" in text


def test_of_circuits_changes_are_told() -> None:
    """Once each: that time goes by until the next call is none; another instance's, subset's or state is."""
    view = breakers_table(None)
    assert view.key is not None
    circuit = Breaker(
        caller="web", instance="w" * 22, service="orders", endpoint="place", state=BreakerState.OPEN,
        retry_after_s=2.5,
    )  # fmt: skip
    later = msgspec.structs.replace(circuit, retry_after_s=1.5)
    half = msgspec.structs.replace(circuit, state=BreakerState.HALF_OPEN, retry_after_s=None)
    others = (
        msgspec.structs.replace(circuit, instance="x" * 22),
        msgspec.structs.replace(circuit, subset="v2"),
        msgspec.structs.replace(circuit, endpoint="get"),
    )
    told = io.StringIO()
    kind = Kind("breakers", view.columns, view.name, lambda *_: True)
    shown = view_of(Options(format=Format.JSONL), Out(told, io.StringIO()), kind, {})
    for circuits in ((circuit,), (later,), (half,), (half, *others), ()):
        records = breaker_records(Snapshot(red=NOTHING, breakers=circuits))
        shown.update({view.key(each): each for each in records})
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [each["event"] for each in events] == ["present", "changed", *["added"] * 3, *["removed"] * 4]
    assert events[1]["fields"] == ["state"]


def test_policies_are_listed_by_service_kind_and_name(place: Shop) -> None:
    """As the store has them: those about a service, of a kind, or one; what there is not is said, also before there is
    a store."""
    before, watched = place.many(["get", "policies"], ["get", "policies", "-w", "-o", "json"])
    assert (before.code, before.out, watched.code) == (0, "", 2)
    assert "policy apply" in before.err
    named, empty, changes = place.many(
        ["get", "policies", "orders"], ["policy", "get", "-o", "json"], ["policy", "history", "-o", "json"]
    )
    assert (named.code, empty.code, empty.json, changes.code, changes.json) == (1, 0, [], 0, [])
    for name, target in (("orders", ", endpoints: [place]"), ("stock", "")):
        (place.folder / f"{name}.yaml").write_text(DESTINATION % (name, name, target), encoding="utf-8")
    assert place("policy", "apply", str(place.folder), "-m", "first").code == 0
    lists = {
        "": ["Destination/orders", "Destination/stock"],
        "orders": ["Destination/orders"],
        "orders.place": ["Destination/orders"],
        "stock": ["Destination/stock"],
        "Destination": ["Destination/orders", "Destination/stock"],
        "destination/stock": ["Destination/stock"],
    }
    found = place.many(*(["get", "policies", *([name] if name else []), "-o", "name"] for name in lists))
    assert [each.out.split() for each in found] == list(lists.values())
    table_, nobody, everywhere, as_json, then = place.many(
        ["get", "policies"], ["get", "policies", "nobody"], ["get", "policies", "-A"],
        ["get", "policies", "orders", "-o", "json"],
        ["get", "policies", "orders", "--at", "-0s", "-o", "name"],
    )  # fmt: skip
    assert "orders/place" in table_.out
    assert "no policy in the store is about 'nobody'" in nobody.err
    assert then.out.split() == ["Destination/orders"], "a service means the same of a past moment"
    assert (nobody.code, everywhere.code) == (1, 2)
    (document,) = as_json.json
    assert document["metadata"]["name"] == "orders"


def test_policies_are_watched(place: Shop) -> None:
    """Each change is a line; a store that is not there yet is said once, and found when it comes."""
    file = place.folder / "orders.yaml"
    file.write_text(DESTINATION % ("orders", "orders", ""), encoding="utf-8")
    with place.background("get", "policies", "-w", "-o", "jsonl") as watching:
        watching.wait_for("no policy store")
        place("policy", "apply", str(file))
        assert json.loads(watching.wait_for('"event":"added"'))["policy"] == "Destination/orders"
        file.write_text(DESTINATION % ("orders", "orders", ", endpoints: [place]"), encoding="utf-8")
        place("policy", "apply", str(file))
        changed = json.loads(watching.wait_for('"event":"changed"'))
        assert changed["target"] == "orders/place"
        place("policy", "delete", "Destination/orders")
        watching.wait_for('"event":"removed"')
        assert watching.end(signal.SIGINT) == 130
    with place.background("get", "policies", "nobody", "-w") as waiting:
        waiting.wait_for("no policy is about 'nobody' yet")
        assert waiting.end(signal.SIGINT) == 130


def test_edges_breakers_and_faults(shop: Shop) -> None:
    """Who calls whom as `edges` has it; circuits that failing calls opened; faults as long as they are set."""
    assert shop("fault", "orders.echo", "--abort", "unavailable", "--for", "10m").code == 0
    faults, edges, closed, past = shop.at_once(
        ["get", "faults", "-o", "json"], ["get", "edges", "-o", "json"], ["get", "breakers"],
        ["get", "breakers", "--at", "-1m"],
    )  # fmt: skip
    (fault,) = faults.json
    assert (fault["service"], fault["endpoint"], fault["abort"]) == ("orders", "echo", "UNAVAILABLE")
    assert edges.code == 0
    assert closed.code == 0
    assert (past.code, "--at" in past.err) == (2, True)
    names, of_one, of_none, wide = shop.many(
        ["get", "faults", "-o", "name"], ["get", "faults", "orders.echo"], ["get", "faults", "stock"],
        ["get", "faults", "orders", "-o", "wide"],
    )  # fmt: skip
    assert names.out.strip() == f"orders/{fault['instance']}.echo"
    assert "abort UNAVAILABLE" in of_one.out
    assert (of_none.code, "get faults" in of_none.err) == (1, True)
    assert fault["instance"] in wide.out
    assert shop("fault", "orders.echo", "--clear").code == 0
    gone = shop("get", "faults")
    assert (gone.code, gone.out) == (0, "")
    assert "no faults" in gone.err


def test_rows_of_what_has_gone_keep_to_the_columns() -> None:
    """There is room for why an instance is gone; where a later row is wider than all before, it has a head of its
    own."""

    def record(identifier: str, service: str) -> Record:
        return {"instance": identifier, "service": service, "state": "ready"}

    columns = (
        Column("SERVICE", lambda r: str(r["service"])),
        Column("INSTANCE", lambda r: str(r["instance"])),
        Column("STATE", lambda r: str(r["state"])),
    )
    told, reasons = io.StringIO(), dict[str, str]()
    kind = Kind("instances", columns, lambda r: str(r["instance"]), lambda *_: True)
    shown = view_of(Options(), Out(told, io.StringIO()), kind, reasons)
    both = {("", "", each): record(each, "orders") for each in ("A", "B")}
    for now, why in ((both, ""), ({("", "", "A"): record("A", "orders")}, "replaced"), ({}, "missed")):
        reasons.update(dict.fromkeys("AB", why))
        shown.update(now)
    head, *rows = told.getvalue().splitlines()
    assert [each.split("  ")[0] for each in rows] == ["present"] * 2 + [
        "removed (replaced)",
        "removed (missed)",
    ]
    assert {each.index("orders") for each in rows} == {head.index("SERVICE")}
    assert {each.index("ready") for each in rows} == {head.index("STATE")}
    told.truncate(0)
    told.seek(0)
    shown.update({("", "", "C"): record("C", "a-service-with-a-long-name")})
    head, row = told.getvalue().splitlines()
    assert row.index("ready") == head.index("STATE")
