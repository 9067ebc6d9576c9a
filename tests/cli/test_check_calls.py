"""What `check` concludes from faults, circuits, calls and policies, and that it finds them in a mesh that runs."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from nats_mesh.core.breaker import BreakerState
from nats_mesh.discovery.reports import Member
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.policy.analysis import Finding as Analysed
from nats_mesh.telemetry.snapshots import NOTHING, Breaker, Edge, Ejection, Red, Snapshot
from nats_mesh_cli.check_calls import (
    LISTENED,
    check_circuits,
    check_edges,
    check_faults,
    check_policies,
    check_silent,
    check_unserved,
    unserved,
)
from nats_mesh_cli.checks import BAD, GOOD, SKIPPED, WARN
from nats_mesh_cli.silent import Silent, Unheard
from tests.cli.conftest import Shop
from tests.cli.infos import mesh_info


def edge(service: str = "stock", *, ok: int = 100, failed: int = 0, gave_up: int = 0, **fields: Any) -> Edge:
    """So many calls of orders to a service in the last seconds."""
    requests = ok + failed + gave_up
    recent = msgspec.structs.replace(
        NOTHING.recent,
        requests=requests,
        errors=failed,
        statuses={"OK": ok, "CANCELLED": gave_up},
    )
    success = (ok + gave_up) / requests if requests else None
    red = Red(recent=recent, total=recent, success=success, **fields)
    return Edge(source="orders", service=service, reporter="out", red=red)


def seen(*edges: Edge, **fields: Any) -> Snapshot:
    """What a view shows."""
    return Snapshot(red=NOTHING, edges=edges, **fields)


def test_operators_faults_are_worth_a_look() -> None:
    """They are meant so, and forgotten: each is told once, with what ends it."""
    faults = msgspec.json.encode(
        [{"endpoint": "", "share": 0.5, "left_ms": 9000, "abort": "INTERNAL"}]
    ).decode()
    found = check_faults([mesh_info(identifier=each, mesh_faults=faults) for each in "AB"])
    assert found.state == WARN
    assert found.text == "operators' faults are in force: orders at 2 instances (abort INTERNAL for 50%)"
    assert "'nats-mesh fault orders --clear'" in found.remedy
    assert check_faults([mesh_info()]).state == GOOD


def test_circuits_that_are_not_closed_are_told() -> None:
    """Of an open one calls are refused, and that is wrong; one that tries again, or an ejection, is worth a look."""

    def breaker(state: BreakerState) -> Breaker:
        return Breaker(
            caller="web", instance="W", service="orders", endpoint="place", subset="v1", state=state
        )

    opened = check_circuits(seen(breakers=(breaker(BreakerState.OPEN),) * 2))
    assert (opened.state, opened.text) == (BAD, "OPEN web → orders.place/v1 at 2 instances")
    assert "'nats-mesh why orders.place --from web'" in opened.remedy
    assert check_circuits(seen(breakers=(breaker(BreakerState.HALF_OPEN),))).state == WARN
    ejection = Ejection(caller="web", instance="W", service="orders", ejected="A")
    assert check_circuits(seen(ejections=(ejection,))).state == WARN
    assert check_circuits(seen()).state == GOOD


def test_what_is_called_and_has_no_instance_is_wrong() -> None:
    """By its callers, and by what its silence means; draining instances take no calls; plain subjects have none."""
    told = seen(
        edge("stock"), edge("legacy", ok=0, in_flight=3), edge("idle", ok=0), edge("_PLAIN"), edge("orders")
    )
    calls = unserved(told, [mesh_info("stock", state="draining"), mesh_info("orders")])
    assert calls == {"stock": ["orders"], "legacy": ["orders"]}
    found = check_unserved(calls, {"legacy": Silence.SILENT})
    assert (found.state, found.data) == (BAD, {"unserved": ["legacy", "stock"], "routes": []})
    assert (
        "legacy (called by orders; one is connected and answers nothing); stock (called by orders)"
        in found.text
    )
    assert check_unserved({}, {}).state == GOOD


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (edge(), GOOD, "100 calls on 1 edge went well"),
        (edge(ok=0), SKIPPED, "nobody has told of calls"),
        (edge(failed=50), BAD, "orders → stock (33.3% failed)"),
        (edge(ok=995, failed=5), WARN, "orders → stock (0.5% failed)"),
        (edge(gave_up=100), BAD, "orders → stock (50.0% given up by the caller)"),
        (edge(gave_up=5), WARN, "orders → stock (4.8% given up by the caller)"),
        (edge(ok=0, failed=2, gave_up=98), BAD, "(2.0% failed, 98.0% given up by the caller)"),
    ],
)
def test_calls_that_go_wrong_are_told_by_edge(found: Edge, state: str, words: str) -> None:
    """By the scale of everything that shows a mesh; what callers gave up is no failure, and no answer either, and both
    are counted of the same calls."""
    finding = check_edges(seen(found))
    assert finding.state == state
    assert words in finding.text


def test_the_cause_of_failing_calls_stands_first() -> None:
    """An edge whose callee is failed by nobody goes before those above it, which only pass it on; a circle ends, and
    what is worse goes before what is deeper. The remedy names the first one."""

    def between(source: str, service: str, failed: int = 50) -> Edge:
        red = msgspec.structs.replace(edge(failed=failed, ok=100 - failed).red, rate_per_s=20.0)
        return Edge(source=source, service=service, reporter="out", red=red)

    chain = [
        between("a", "b"),
        between("b", "c"),
        between("c", "d"),
        between("web", "a"),
        between("web", "d"),
    ]
    found = check_edges(seen(*chain))
    assert found.data["edges"] == ["c → d", "web → d", "b → c", "a → b", "web → a"]
    assert "c → d (50.0% failed of 20 calls/s)" in found.text
    assert found.remedy.startswith("begin with c → d: 'nats-mesh edges d --by endpoint'")
    circle = check_edges(seen(between("a", "b"), between("b", "a"), between("b", "c")))
    assert circle.data["edges"][0] == "b → c"
    little = check_edges(seen(between("a", "b", 50), between("b", "c", 1), between("c", "d", 1)))
    assert little.data["edges"][0] == "a → b"


def test_who_fell_silent_is_told_once() -> None:
    """Those that were heard just now are told of as instances that do not answer; where not all may be known, it says
    so."""
    gone = Member(
        service="stock", instance="A", name="host-A", revision=(0, 0), answers=False, why="is silent"
    )
    found = check_silent([gone], Unheard(), [], "", recalled=True)
    assert (found.state, found.data) == (WARN, {"silent": ["stock (host-A)"]})
    assert check_silent([gone], Unheard(), [("stock", "A")], "", recalled=True).state == GOOD
    assert check_silent([], Unheard(), [], "the audit may not be read", recalled=False).state == SKIPPED


def test_who_is_silent_by_the_word_of_others_is_told_once() -> None:
    """What peers, callers and the server say counts before what the audit does; each is told of once, a service as a
    whole where no instance of it is. Who hangs is wrong, who has ended worth a look. Without an audit none is spoken
    of."""
    gone = [Member(service="stock", instance=each, answers=False, why="is missing") for each in "ABC"]
    silent = [
        Silent("stock", "A", "host-A", 9.0), Silent("stock", "D", "host-D", 9.0), Silent("stock"), Silent("legacy"),
    ]  # fmt: skip
    ended = [Silent("stock", "B", "host-B", 12.0)]
    found = check_silent(gone, Unheard(silent, ended), [], "", recalled=False)
    assert found.state == BAD
    assert found.data == {
        "silent": ["stock (host-A)", "stock (host-D)", "legacy", "stock (host-B)", "stock (C)"]
    }
    assert found.text == (
        "5 instances ought to be here: "
        "stock (host-A) is connected and does not answer, and its peers heard it 9 s ago; "
        "stock (host-D) is connected and does not answer, and its peers heard it 9 s ago; "
        "legacy: one is connected, and nobody answers; "
        "stock (host-B) has ended without leaving, and its peers heard it 12 s ago; stock (C) is missing"
    )
    assert check_silent(gone, Unheard([], ended), [], "", recalled=True).state == WARN
    assert check_silent([], Unheard(silent[:1]), [("stock", "A")], "", recalled=False).state == GOOD
    assert "audit" not in check_silent([], Unheard(), [], "", recalled=False).text


def analysed(severity: str = "error", code: str = "NM0501") -> Analysed:
    """What is found of a route."""
    return msgspec.convert(
        {
            "code": code, "severity": severity, "policy": "Route/a", "file": "f", "line": 1, "path": "p",
            "message": "no instance of orders has version 9", "remedy": "r",
        },
        Analysed,
    )  # fmt: skip


def test_a_route_to_nobody_is_unserved_whoever_else_answers() -> None:
    """A service has instances, and none in the subset that its calls are sent to: these calls fail like others that
    nobody takes. Other findings about policies say nothing of that."""
    found = check_unserved({}, {}, [analysed(), analysed(code="NM0103")])
    assert (found.state, found.data) == (BAD, {"unserved": [], "routes": ["Route/a"]})
    assert "Route/a (no instance of orders has version 9)" in found.text
    assert "mend the subset" in found.remedy
    assert "restart" not in found.remedy
    both = check_unserved({"stock": ["web"]}, {}, [analysed()])
    assert both.data == {"unserved": ["stock"], "routes": ["Route/a"]}
    assert "stock (called by web); routes lead" in both.text
    assert check_unserved({}, {}, [analysed(code="NM0103")]).state == GOOD


def test_policies_are_as_bad_as_their_worst_finding() -> None:
    """An error is wrong, a warning worth a look, a remark nothing; without policies there is nothing to say."""
    states = [check_policies([analysed(each)], "bus").state for each in ("error", "warning", "info")]
    assert states == [BAD, WARN, GOOD]
    assert check_policies([analysed("error")], "bus").data == {"codes": ["NM0501"]}
    assert check_policies([], None).state == SKIPPED


EMPTY = """apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec:
  target: {service: orders}
  subsets: {old: {version: 0.9.0}}
---
apiVersion: mesh/v1
kind: Route
metadata: {name: orders}
spec:
  target: {service: orders}
  rules: [{match: {headers: {who: old}}, split: [{subset: old}]}]
"""


def test_trouble_is_found_in_a_mesh_that_runs(place: Shop) -> None:
    """An operator's fault, an open circuit, calls to a frozen instance, a route into an empty subset; in a hurry none
    of what takes listening."""
    (place.folder / "empty.yaml").write_text(EMPTY, encoding="utf-8")
    assert place("policy", "apply", "-f", str(place.folder / "empty.yaml")).code == 0
    calls = ["--as", "front", "--rate", "20", "--duration", "120s"]
    with ExitStack() as stack:
        orders = stack.enter_context(place.background("run", "shopapp:orders"))
        stock = stack.enter_context(place.background("run", "shopapp:stock"))
        orders.wait_for("orders 1.2.0 is ready")
        stock.wait_for("stock 0.3.0 is ready")  # load is for who is there: else it ends at once
        booming = stack.enter_context(place.background("bench", "orders.boom", *calls))
        counting = stack.enter_context(place.background("bench", "stock.count", "1", *calls))
        assert place("fault", "orders.place", "--delay", "50ms").code == 0
        stock.process.send_signal(signal.SIGSTOP)
        try:
            patient, hasty = place.at_once(["check", "-o", "json"], ["check", "--quick", "-o", "json"])
        finally:
            stock.process.send_signal(signal.SIGCONT)
        for each in (booming, counting):
            each.process.terminate()
    found = {each["check"]: each for each in patient.json}
    assert patient.code == 1
    assert found["faults"]["state"] == "warn"
    assert any("front → orders.boom" in each for each in found["circuits"]["circuits"]), found["circuits"]
    assert (found["unserved"]["unserved"], found["unserved"]["routes"]) == (["stock"], ["Route/orders"])
    assert "one is connected and answers nothing" in found["unserved"]["text"]
    assert found["calls"]["state"] == "fail"
    assert (found["policies"]["state"], found["policies"]["codes"]) == ("fail", ["NM0501"])
    left_out = {each["check"]: each["text"] for each in hasty.json if each["state"] == "skip"}
    assert {left_out[each] for each in LISTENED} == {"not listened for (--quick)"}
