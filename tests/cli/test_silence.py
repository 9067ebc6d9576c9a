"""What commands say that look once, and come when an instance hangs already."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.cli.conftest import Shop

RELAY = """
from nats_mesh import Context, Service

relay = Service("relay", version="1.0.0")


@relay.endpoint()
async def pass_on(number: int, ctx: Context) -> str:
    return str(await ctx.call("orders.echo", b"tea"))
"""


@contextmanager
def stopped(pid: str) -> Iterator[None]:
    """The process does not run meanwhile."""
    os.kill(int(pid), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(int(pid), signal.SIGCONT)


@pytest.fixture
def frozen(place: Shop) -> Iterator[Shop]:
    """The only instance of orders was stopped a moment ago; stock is well."""
    with (
        place.background("run", "shopapp:stock") as stock,
        place.background("run", "shopapp:orders") as orders,
    ):
        stock.wait_for("is ready")
        (pid,) = re.findall(r"-(\d+)\)$", orders.wait_for("is ready"))
        assert place("call", "orders.place", '{"sku":"tea"}').code == 0
        with stopped(pid):
            yield place


def test_a_silent_instance_is_told_from_none(frozen: Shop) -> None:
    """Nobody answers for orders, but the server hands its calls on: a command that never heard of the instance says
    so, and of a service that nobody serves it does not."""
    listed, *silent, nobody = frozen.at_once(
        ["get", "services", "orders"], ["get", "instances", "orders"], ["get", "endpoints", "orders.place"],
        ["describe", "orders.place"], ["events", "orders"], ["fault", "orders", "--delay", "1ms"], ["drain", "orders"],
        ["log-level", "orders", "debug"], ["tap", "orders", "--duration", "100ms"],
        ["get", "instances", "ordres"],
    )  # fmt: skip
    assert listed.code == 0
    assert "silent" in listed.out
    for done in silent:
        assert done.code == 1, done
        assert "no instance of orders answers, but one is connected: it is silent" in done.err
    assert nobody.code == 1
    assert "silent" not in nobody.err
    with frozen.background(
        "bench", "orders.place", '{"sku":"tea"}', "--rate", "5", "--duration", "20s"
    ) as load:
        stat = frozen("stat", "--window", "4s")
        assert "no instance of orders answers" in stat.err, (stat.out, stat.err)
        assert "stock" not in stat.err
        load.end(signal.SIGINT)


def test_what_is_called_and_silent_is_named_to_who_looks_at_everything(place: Shop) -> None:
    """Whoever calls the service says so; a list of everything says who is missing in it."""
    (place.folder / "relayapp.py").write_text(RELAY, encoding="utf-8")
    with (
        place.background("run", "shopapp:orders") as orders,
        place.background("run", "relayapp:relay") as relay,
    ):
        (pid,) = re.findall(r"-(\d+)\)$", orders.wait_for("is ready"))
        relay.wait_for("is ready")
        assert place("call", "relay.pass_on", "1").code == 0
        with stopped(pid):
            lists = place.at_once(
                ["get", "services"], ["get", "instances"], ["get", "endpoints", "-o", "name"]
            )
    for done in lists:
        assert done.code == 0
        assert "note: no instance of orders answers" in done.err
        assert "relay" in done.out
    services, *others = lists
    assert re.search(r"^orders +- +0/1 +0 +silent ", services.out, re.MULTILINE)
    assert all("orders" not in done.out for done in others)


def test_an_instance_that_hangs_beside_others_is_shown_as_silent(place: Shop) -> None:
    """Its peers tell of it: it has a row, its service is partial, and every command that meets its name says why it
    does not answer; an instance that was killed is none."""
    with ExitStack() as stack:
        pids: list[str] = []
        for _ in range(3):  # who comes later is heard by who is there
            stock = stack.enter_context(place.background("run", "shopapp:stock"))
            pids += re.findall(r"-(\d+)\)$", stock.wait_for("is ready"))
        rows = place("get", "instances", "-o", "json").json
        hung, killed = (
            next(each for each in rows if each["host_pid"].endswith(f"-{pid}")) for pid in pids[1:]
        )
        os.kill(int(pids[2]), signal.SIGKILL)
        with stopped(pids[1]):
            instances, services, table, described, drained, stat, why, gone, whole, events, top = place.at_once(
                ["get", "instances", "-o", "json"], ["get", "services", "-o", "json"], ["get", "instances"],
                ["describe", hung["instance"][:12]], ["drain", hung["host_pid"]], ["stat", "--window", "2s"],
                ["why", "stock.count", "-o", "json"], ["describe", killed["instance"]],
                ["describe", "stock", "-o", "json"], ["events", "stock", "-o", "json"], ["top", "--once", "-o", "json"],
            )  # fmt: skip
            with place.background("events", "-f") as listening:
                listening.wait_for(f"silent (hung, or stopped): stock {hung['instance'][:8]}")
                listening.end(signal.SIGINT)
    states = {each["instance"]: each["state"] for each in instances.json}
    assert states.pop(hung["instance"]) == "silent"
    assert killed["instance"] not in states
    assert set(states.values()) == {"ready"}
    (service,) = services.json
    assert (service["ready"], service["instances"], service["state"]) == (1, 2, "partial")
    assert service["versions"] == {"0.3.0": 1}
    who = f"stock {hung['instance'][:8]} ({hung['host_pid']}, heard"
    name = f"1 instance is connected and silent (hung, or stopped): {who}"
    for done in (instances, services, table, described, drained, stat):
        assert name in done.err
    assert re.search(rf"^{hung['instance'][:8]} +stock +- +silent ", table.out, re.MULTILINE)
    (problem,) = [each for each in why.json["problems"] if each["what"] == "silent"]
    assert name in problem["message"]
    assert why.code == 0
    assert (described.code, drained.code, stat.code) == (1, 1, 0)
    assert gone.code == 1
    assert "silent" not in gone.err
    assert re.search(r"^stock +1/2 ", stat.out, re.MULTILINE)
    assert (whole.json["ready"], len(whole.json["instances"]), whole.json["state"]) == (1, 2, "partial")
    happened = {(each["kind"], each["instance"]) for each in events.json}
    assert ("instance.suspect", hung["instance"]) in happened
    assert ("instance.gone", killed["instance"]) in happened
    assert {each["instance"]: each["state"] for each in top.json["members"]}[hung["instance"]] == "silent"
    (service,) = top.json["services"]
    assert (service["ready"], service["instances"], service["suspect"]) == (1, 2, 1)


def test_who_watches_is_told_who_is_silent_when_it_begins(frozen: Shop) -> None:
    """Rows that go on say once who is silent, beside what there is."""
    for words in (["get", "services", "orders", "-w"], ["stat", "-w", "orders"], ["edges", "-w", "orders"]):
        with frozen.background(*words) as watching:
            watching.wait_for("no instance of orders answers, but one is connected")
            watching.end(signal.SIGINT)
