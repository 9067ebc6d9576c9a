"""`drain`, `undrain`, `fault`, `log-level` and `events`: against running services, and what they make of options."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from nats_mesh.core.members import Change, ChangeKind, Reason
from nats_mesh.core.registry import Registry
from nats_mesh.discovery.commands import FaultCommand
from nats_mesh_cli.catalog import announcement_of, fault_text, instance_record
from nats_mesh_cli.errors import FAILED, USAGE, CliError
from nats_mesh_cli.event_records import membership
from nats_mesh_cli.operate import fault_command, instance_of, percent
from nats_mesh_cli.who import operator_name
from tests.cli.conftest import Shop
from tests.cli.infos import foreign_info, mesh_info

NOTHING: dict[str, Any] = {"delay_s": None, "abort": None, "share": None, "lasting_s": None, "clear": False}


# -- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.5%", 0.005), (" 100% ", 1.0), (".5%", 0.005)])
def test_a_share_is_a_percentage(text: str, share: float) -> None:
    """With its sign, so that nobody wonders what 1 means."""
    assert percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["10", "0.1", "0%", "101%", "-1%", "x%", "", "1e1%", "nan%"])
def test_anything_else_is_none(text: str) -> None:
    """Said with an example."""
    with pytest.raises(CliError, match="is no share"):
        percent(text)


def test_options_become_a_command() -> None:
    """Statuses in any case, milliseconds on the wire, a minute and all calls where nothing is said."""
    given = {**NOTHING, "delay_s": 0.2, "abort": "deadline-exceeded", "share": 0.1, "lasting_s": 2.0}
    assert fault_command("place", **given) == FaultCommand(
        endpoint="place", delay_ms=200.0, abort="DEADLINE_EXCEEDED", share=0.1, for_ms=2000.0
    )
    assert fault_command("", **{**NOTHING, "delay_s": 1.0}) == FaultCommand(delay_ms=1000.0, for_ms=60_000.0)
    assert fault_command("place", **{**NOTHING, "clear": True}) == FaultCommand(endpoint="place", clear=True)


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ({}, "say what shall go wrong", "--delay 200ms"),
        ({"share": 0.5}, "say what shall go wrong", "--abort"),
        ({"abort": "UNAVAILABEL"}, "no status to abort with", "did you mean 'UNAVAILABLE'?"),
        ({"abort": "OK"}, "no status to abort with", "there are: CANCELLED"),
        ({"clear": True, "delay_s": 1.0, "share": 0.5}, "leave out --delay, --share", ""),
        ({"delay_s": 3601.0}, "at most 1h", ""),
    ],
)
def test_options_that_make_no_sense_are_said(given: dict[str, Any], said: str, hint: str) -> None:
    """Before anything is asked of the bus."""
    with pytest.raises(CliError) as caught:
        fault_command("place", **{**NOTHING, **given})
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.code == USAGE


def test_an_instance_is_named_by_id_host_pid_or_beginning() -> None:
    """As in the other commands; what cannot be told is said with what there is."""
    infos = [mesh_info(identifier="ABC1"), mesh_info("stock", "ABC2"), foreign_info()]
    assert instance_of("ABC1", infos)["service"] == "orders"
    assert instance_of("host-ABC2", infos)["service"] == "stock"
    for prefix, code, said in (
        ("ABC", USAGE, "fits 2 instances"),
        ("orders", FAILED, "is a service"),
        ("nobody", FAILED, "no instance"),
        ("", FAILED, "no instance"),
        ("ZZZZ", FAILED, "outside the mesh"),
    ):
        with pytest.raises(CliError) as caught:
            instance_of(prefix, infos)
        assert (caught.value.code, said in caught.value.message) == (code, True), prefix


def test_faults_are_read_out_of_the_metadata() -> None:
    """What an instance lists, as data and in words; what cannot be read is nothing."""
    listed = '[{"endpoint":"place","delay_ms":200,"abort":"ABORTED","share":0.1,"left_ms":5400}]'
    record = instance_record(mesh_info(mesh_faults=listed), 0.0)
    (fault,) = record["faults"]
    assert fault_text(fault) == "place: delay 200 ms, abort ABORTED for 10% (5 s left)"
    for odd in ("", "[", "{}", "[1]", '[{"delay_ms":"long"}]'):
        assert instance_record(mesh_info(mesh_faults=odd), 0.0)["faults"] == []


def test_full_and_plugins_are_read_out_of_the_metadata() -> None:
    """Nothing where nothing is said."""
    record = instance_record(mesh_info(mesh_full="true", mesh_plugins_inbound="a,b"), 0.0)
    assert (record["full"], record["plugins"]) == (True, {"inbound": ["a", "b"], "outbound": []})
    record = instance_record(mesh_info(), 0.0)
    assert (record["full"], record["plugins"]) == (False, {"inbound": [], "outbound": []})


def test_who_comes_and_goes_is_an_event() -> None:
    """With why; what an instance tells itself, as that it drains, is not told twice."""
    announcement = announcement_of(mesh_info())
    assert announcement is not None
    registry = Registry()
    registry.apply(announcement, 1.0)
    (instance,) = registry.instances()
    gone = membership(
        Change(kind=ChangeKind.GONE, instance=instance, reason=Reason.MISSED), "2025-01-31T12:00:00.000000Z"
    )
    assert gone is not None
    assert (gone["kind"], gone["service"], gone["instance"]) == ("instance.gone", "orders", "AAAA")
    assert gone["detail"] == "host-AAAA, version 1.0.0: missed"
    assert membership(Change(kind=ChangeKind.CHANGED, instance=instance, fields=("state",)), "x") is None


# -- against running services -------------------------------------------------------------------------


def ids(shop: Shop) -> dict[str, str]:
    """The id of each service's instance."""
    (done,) = shop.many(["get", "instances", "-o", "json"])
    return {record["service"]: record["instance"] for record in done.json}


def test_drain_and_undrain(shop: Shop) -> None:
    """Told by the beginning of an id or by host-pid; seen in `get`; nobody is called meanwhile; and back again."""
    orders, stock = (ids(shop)[name] for name in ("orders", "stock"))
    begun = next(orders[:n] for n in range(1, 64) if orders[:n] != stock[:n])
    drained, listed, called, again, back, after = shop.many(
        ["drain", orders, "-o", "json"],
        ["get", "instances", orders],
        ["call", "orders.place", '{"sku": "tea"}', "--timeout", "1s"],
        ["drain", orders],
        ["undrain", begun, "-o", "json"],
        ["call", "orders.place", '{"sku": "tea"}'],
    )
    assert drained.code == 0, drained.err
    record = drained.json
    assert (record["instance"], record["done"], record["state"]) == (orders, True, "draining")
    assert "draining" in listed.out
    assert called.code == 1
    assert again.code == 0
    assert "it is draining already" in again.out
    assert (back.code, back.json["state"]) == (0, "ready")
    assert after.code == 0, after.err


def test_a_fault_is_seen_where_its_service_is_looked_at(shop: Shop) -> None:
    """At the head of `describe` and in its table of instances, and in `get instances` without -o wide; its event names
    the person at the keyboard and the reason."""
    _, described, listed, events, _, after, quiet = shop.many(
        ["fault", "stock", "--delay", "1ms", "--for", "10m", "-m", "game day"],
        ["describe", "stock"],
        ["get", "instances", "stock"],
        ["events", "stock", "--kind", "fault", "-o", "json"],
        ["fault", "stock", "--clear"],
        ["describe", "stock"],
        ["get", "instances", "stock"],
    )
    assert "1 fault is in force, at 1 instance: see below" in described.out
    assert re.search(r"AGE +FAULTS\n.* delay 1 ms$", described.out, re.M)
    assert "all: delay 1 ms for 100%" in listed.out
    assert events.json[-1]["detail"].startswith(f"by nats-mesh ({operator_name(None)}: game day): delay 1 ms")
    assert "FAULTS" not in quiet.out
    assert "in force" not in after.out
    assert "FAULTS" not in after.out


def test_a_fault_is_injected_seen_and_cleared(shop: Shop) -> None:
    """Calls of that endpoint fail as asked, others do not; `get`, `describe` and `events` show it."""
    orders = ids(shop)["orders"]
    injected, failed, other, wide, described, events, cleared, after = shop.many(
        ["fault", "orders.place", "--abort", "unavailable", "--for", "10m", "-o", "json"],
        ["call", "orders.place", '{"sku": "tea"}', "-o", "json"],
        ["call", "stock.count", "3"],
        ["get", "instances", "orders", "-o", "wide"],
        ["describe", orders, "-o", "json"],
        ["events", "--service", "orders", "-o", "json"],
        ["fault", "orders", "--clear", "-o", "json"],
        ["call", "orders.place", '{"sku": "tea"}'],
    )
    assert injected.code == 0, injected.err
    (record,) = injected.json
    assert (record["instance"], record["done"]) == (orders, True)
    assert "abort UNAVAILABLE for 100% of calls of place, for 600 s" in record["message"]
    error = json.loads(failed.err)["error"]
    assert (failed.code, error["status"], error["executed"], error["attempts"]) == (1, "UNAVAILABLE", "no", 1)
    assert (other.code, other.out) == (0, "-3\n")
    assert "place: abort UNAVAILABLE for 100%" in wide.out
    assert described.json["faults"][0]["abort"] == "UNAVAILABLE"
    found = [event for event in events.json if event["kind"] == "fault.set"]
    assert found[-1]["target"] == "orders.place"
    assert found[-1]["detail"].startswith(f"by nats-mesh ({operator_name(None)}): ")
    assert (cleared.code, cleared.json[0]["message"]) == (0, "cleared place")
    assert after.code == 0, after.err


def test_delays_hold_calls_up(shop: Shop) -> None:
    """A call waits as long as it may, and no longer."""
    delayed, late, cleared = shop.many(
        ["fault", "stock.count", "--delay", "1h"],
        ["call", "stock.count", "3", "--timeout", "200ms", "-o", "json"],
        ["fault", "stock.count", "--clear"],
    )
    assert (delayed.code, late.code) == (0, 1), (delayed, late)
    assert json.loads(late.err)["error"]["status"] == "DEADLINE_EXCEEDED", late
    assert "cleared count" in cleared.out


def test_wrong_names_and_options_are_told_apart(shop: Shop) -> None:
    """1 where the answer is no, 2 where the question is wrong; nothing on stdout."""
    cases = [
        (["drain", "nobody"], 1, "there is no instance and no service 'nobody'"),
        (["drain", "ordrs"], 1, "no service 'ordrs'"),
        (["drain", "ordrs"], 1, "did you mean 'orders'?"),
        (["log-level", "ordrs", "info"], 1, "did you mean 'orders'?"),
        (["drain", "orders"], 1, "its instances: "),
        (["drain"], 2, "Missing argument"),
        (["fault", "ordres", "--delay", "1s"], 1, "did you mean 'orders'?"),
        (["fault", "orders.plac", "--delay", "1s"], 1, "did you mean 'orders.place'?"),
        (["fault", "orders.place"], 2, "say what shall go wrong"),
        (["fault", "orders", "--abort", "BROKEN"], 2, "no status to abort with"),
        (["fault", "orders", "--delay", "soon"], 2, "is no duration"),
        (["fault", "orders", "--delay", "200"], 2, "'200' has no unit"),
        (["fault", "orders", "--abort", "INTERNAL", "--for", "60"], 2, "write 60ms or 60s"),
        (["fault", "orders", "--delay", "1s", "--share", "10"], 2, "is no share"),
        (["fault", "orders", "--delay", "1s", "--instance", "nobody"], 1, "there is no instance"),
        (["log-level", ids(shop)["orders"], "loud"], 2, "debug, info"),
        (["events", "-o", "name"], 2, "an event has no name"),
        (["events", "-f", "-o", "json"], 2, "-o jsonl"),
        (["events", "--service", "a b"], 2, "service name"),
        (["events", "--kind", "Breaker"], 2, "no event can be of that kind"),
        (["describe", "Route/reviews"], 1, "'nats-mesh policy get Route/reviews'"),
    ]
    results = shop.many(*(arguments for arguments, _, _ in cases))
    for (arguments, code, said), done in zip(cases, results, strict=True):
        assert (done.code, done.out) == (code, ""), (arguments, done.err)
        assert said in done.err, arguments


def test_the_log_level_is_changed(shop: Shop) -> None:
    """It says what it was."""
    stock = ids(shop)["stock"]
    down, up = shop.many(["log-level", stock, "error", "-o", "json"], ["log-level", stock, "INFO"])
    assert (down.code, "logs ERROR and above" in down.json["message"]) == (0, True)
    assert "before it was ERROR" in up.out


def test_nothing_has_happened_is_no_error(shop: Shop) -> None:
    """[] for programs, a message for people."""
    as_json, as_table = shop.many(
        ["events", "-n", "empty", "-o", "json"], ["events", "-n", "empty", "--timeout", "200ms"]
    )
    assert (as_json.code, as_json.out) == (0, "[]\n")
    assert (as_table.code, as_table.out) == (0, "")
    assert "nothing has happened lately" in as_table.err


def test_events_are_followed(shop: Shop) -> None:
    """What is remembered first, then what happens and who comes and goes, one a line; Ctrl-C is 130 and quiet."""
    stock = ids(shop)["stock"]
    shop.many(["fault", "stock", "--delay", "1ms"], ["fault", "stock", "--clear"])
    with shop.background("events", "--watch", "--service", "stock", "-o", "jsonl") as following:
        before = json.loads(following.wait_for('"kind":"fault.cleared"'))
        there = json.loads(following.wait_for('"kind":"instance.joined"'))
        shop.many(["drain", stock], ["undrain", stock])
        drained = json.loads(following.wait_for('"kind":"instance.draining"'))
        following.wait_for('"kind":"instance.undrained"')
        with shop.background("run", "shopapp:stock") as running:
            joined = json.loads(following.wait_for('"kind":"instance.joined"', times=2))
            assert running.end(signal.SIGTERM) == 0
        gone = json.loads(following.wait_for('"kind":"instance.gone"'))
        assert following.end(signal.SIGINT) == 130
    assert before["service"] == drained["service"] == "stock"
    assert (drained["instance"], drained["target"]) == (stock, stock)
    assert joined["instance"] == gone["instance"] != stock
    assert (there["instance"], there["at"] < before["at"]) == (stock, True), "it says itself when it came"
    assert following.err == []
    lines = [json.loads(line) for line in following.out]
    keys = [(line["instance"], line["seq"]) for line in lines if line["seq"] is not None]
    assert len(keys) == len(set(keys)), "each is told once"


def test_events_as_a_table(shop: Shop) -> None:
    """Aligned, with a head, without escape codes in a pipe."""
    _, done = shop.many(["fault", "orders", "--clear"], ["events"])
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["TIME", "KIND", "SERVICE", "INSTANCE", "TARGET", "DETAIL"]
    assert "\x1b" not in done.out
