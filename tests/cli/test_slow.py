"""`slow`: the worst first, where the time went, and what is said where there is nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry.slow import SlowCall, SlowRecent, SlowStep
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.slow import ago, ranked, record_of, where_it_went
from nats_mesh_cli.slow_learning import Learning
from nats_mesh_cli.told import is_said, told_of, told_table
from tests.cli.conftest import Shop

TOLD = """apiVersion: mesh/v1
kind: Telemetry
metadata: {name: orders-slow}
spec:
  target: {service: orders}
  slow: 50ms
  accessLog: {mode: on, share: 50%}
  labels: {team: shop}
"""


def call(**fields: Any) -> SlowCall:
    """A slow call."""
    given: dict[str, Any] = {
        "at": "2026-01-01T00:00:00.000000Z", "service": "orders", "instance": "A1", "version": "1.0.0",
        "namespace": "default", "seq": 1, "endpoint": "place", "caller": "web", "status": "OK", "duration_s": 1.0,
    }  # fmt: skip
    return SlowCall(**{**given, **fields})


def step(target: str, at_s: float, took_s: float) -> SlowStep:
    """A call of its handler's."""
    return SlowStep(target=target, at_s=at_s, took_s=took_s, status="OK")


def test_the_parts_of_a_call_stand_the_largest_first() -> None:
    """With their shares; calls of one target are one part, in which what is at the same time counts once."""
    steps = (step("stock.count", 0.1, 0.3), step("cards.pay", 0.1, 0.4), step("stock.count", 0.3, 0.3))
    slow = call(queue_s=0.1, own_s=0.001, steps=steps, more=2)
    assert where_it_went(record_of(slow)) == (
        "2× stock.count 500 ms (50%), cards.pay 400 ms (40%), queue 100 ms (10%), 2 more"
    )
    assert where_it_went(record_of(call(duration_s=0.0))) == ""


def test_a_process_that_stood_still_is_named() -> None:
    """Whoever was called has the rest: what it took, less that."""
    waited = SlowStep(target="stock.reserve", at_s=0.1, took_s=24.7, status="DEADLINE_EXCEEDED", stood_s=23.7)
    frozen = record_of(call(duration_s=25.0, own_s=0.3, stood_s=23.7, steps=(waited,)))
    assert frozen["stood_s"] == 23.7
    assert where_it_went(frozen) == (
        "the process stood still 23.7 s (95%), stock.reserve 1.00 s (4%), itself 300 ms (1%)"
    )


def test_calls_are_ranked() -> None:
    """By what they took, or by how far that is above what is normal; what is normal nobody may know yet."""
    records = [
        record_of(call(seq=1, duration_s=3.0, p99_s=2.0)),
        record_of(call(seq=2, duration_s=1.0, p99_s=0.1)),
        record_of(call(seq=3, duration_s=2.0)),
    ]
    assert [each["seq"] for each in ranked(records, by="time", top=9)] == [1, 3, 2]
    assert [each["seq"] for each in ranked(records, by="excess", top=9)] == [2, 1, 3]
    assert [each["seq"] for each in ranked(records, by="time", top=1)] == [1]
    assert [each["times_p99"] for each in records] == [1.5, 10.0, None]


def test_a_time_may_be_written_as_how_long_ago() -> None:
    """With its sign or without; an instant stays one."""
    assert ago("10m")[:16] == ago("-10m")[:16]
    assert ago("2026-01-31T12:00:00Z") == "2026-01-31T12:00:00Z"
    with pytest.raises(CliError):
        ago("soon")


def test_what_is_told_of_calls_is_described_with_its_sources() -> None:
    """Each value as a policy would say it; without a policy the defaults."""
    told = told_of(PolicySet.of(parse(TOLD, file="f.yaml")), "orders", "place")
    assert is_said(told)
    assert told["slow"] == {
        "value": {"threshold_s": 0.05, "times_p99": None},
        "source": "Telemetry/orders-slow (f.yaml:6)",
    }
    text = told_table(told, color=False)
    assert "from 50ms on" in text
    assert "calls that fail, 50% of the others" in text
    assert "team=shop" in text
    assert "nothing is promised" in text
    defaults = told_of(PolicySet.empty(), "orders", "place")
    assert not is_said(defaults)
    assert "1% of the traces" in told_table(defaults, color=False)
    more = (
        "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: x}\nspec: {tap: {payloads: true, rate: 5/s}, "
        "slow: {timesP99: 3}, accessLog: errors, "
        "objectives: {availability: 99.9%, latency: {threshold: 1s, share: 95%}}}"
    )
    text = told_table(told_of(PolicySet.of(parse(more)), "a", "b"), color=False)
    for said in (
        "with payloads, at most 5/s", "from 3 times its own p99 on", "calls that fail",
        "x: 99.9% do not fail and 95% within 1s, over 30d",
    ):  # fmt: skip
        assert said in text


def learning(service: str = "", endpoint: str = "", **instances: dict[str, int]) -> str:
    """The note of what instances of orders say."""
    found = Learning(service, endpoint)
    found.take(SlowRecent(learning={"of-before": 3}))
    for instance, known in instances.items():
        found.take(SlowRecent(service="orders", instance=instance, learning=known))
    return found.note()


def test_what_is_not_judged_yet_is_said_once() -> None:
    """Which endpoints, at how many instances, and how many calls are known; of those that are looked at alone."""
    assert learning() == learning(a={}) == ""
    assert learning(a={"place": 12}, b={"place": 3, "slow": 0}).startswith(
        "note: not judged yet, for want of calls: orders.place (12 calls at most at 2 instances), orders.slow (0 calls "
        "at most at 1 instance); timesP99 goes by a p99"
    )
    assert "about 100 calls within one to two minutes" in learning(a={"place": 1})
    assert "place" not in learning("orders", "slow", a={"place": 12, "slow": 0})
    assert learning("stock", a={"place": 12}) == ""
    assert " and 7 more; " in learning(a={f"e{number}": 0 for number in range(10)})


def test_silence_for_want_of_calls_is_no_speed(place: Shop) -> None:
    """`slow` says on stderr what is not judged yet, and `describe` from when on it is."""
    folder = place.folder / "policies"
    folder.mkdir()
    text = "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: t}\nspec: {target: {service: stock}, "
    (folder / "told.yaml").write_text(f"{text}slow: {{timesP99: 3}}}}", encoding="utf-8")
    with place.background("run", "shopapp:both", "--policies", "policies") as running:
        running.wait_for("stock 0.3.0 is ready")
        place.many(["call", "stock.count", "1"])
        shown, as_json, other, described = place.many(
            ["slow"],
            ["slow", "stock.count", "-o", "json"],
            ["slow", "orders"],
            ["describe", "stock.count", "--policies", str(folder)],
        )
    note = "note: not judged yet, for want of calls: stock.count (1 call at most at 1 instance); "
    assert note in shown.err
    assert (as_json.out, as_json.code) == ("[]\n", 0)
    assert note in as_json.err
    assert "not judged yet" not in other.err
    assert "from 3 times its own p99 on (known from about 100 calls in 1 to 2 min on)" in described.out


def test_options_that_make_no_sense_are_said(shop: Shop) -> None:
    """Before anything is asked of the bus."""
    cases = [
        (["slow", "--by", "tiem"], "did you mean 'time'?"),
        (["slow", "-o", "name"], "a call has no name"),
        (["slow", "-f", "-o", "json"], "-o jsonl"),
        (["slow", "a b"], "service name"),
        (["slow", "--since", "soon"], "is no instant"),
    ]
    for (arguments, said), done in zip(cases, shop.many(*(arguments for arguments, _ in cases)), strict=True):
        assert (done.code, done.out) == (2, ""), (arguments, done.err)
        assert said in done.err, arguments


def test_without_a_policy_it_says_what_to_do(shop: Shop) -> None:
    """[] for programs, for people the policy that is missing."""
    as_json, as_table = shop.many(["slow", "-o", "json"], ["slow", "--timeout", "300ms"])
    assert (as_json.code, as_json.out) == (0, "[]\n")
    assert (as_table.code, as_table.out) == (0, "")
    assert "no policy here says when a call is slow" in as_table.err


def test_slow_calls_of_the_past_are_shown_and_those_that_come(place: Shop) -> None:
    """From a running service, with the lines of its access log on stdout and `describe` saying why."""
    folder = place.folder / "policies"
    folder.mkdir()
    (folder / "told.yaml").write_text(TOLD.replace("share: 50%", "share: 100%"), encoding="utf-8")
    with place.background("run", "shopapp:both", "--policies", "policies") as running:
        running.wait_for("stock 0.3.0 is ready")
        place.many(
            ["call", "orders.slow", "0.06"], ["call", "orders.slow", "0.1"], ["call", "stock.count", "1"]
        )
        by_time, as_table, one, described = place.many(
            ["slow", "-o", "json"],
            ["slow", "orders", "--top", "1", "-o", "wide"],
            ["slow", "orders.place", "-o", "json"],
            ["describe", "orders.slow", "--policies", str(folder)],
        )
        took = [each["duration_s"] for each in by_time.json]
        assert len(took) == 2
        assert took == sorted(took, reverse=True)
        assert took[-1] >= 0.05
        first = by_time.json[0]
        assert (first["service"], first["endpoint"], first["caller"]) == ("orders", "slow", "nats-mesh")
        assert (first["threshold_s"], first["policy"]) == (0.05, "Telemetry/orders-slow")
        assert first["labels"] == {"team": "shop"}
        assert len(as_table.out.splitlines()) == 2
        assert "itself" in as_table.out
        assert one.json == []
        assert "from 50ms on" in described.out
        with place.background("slow", "-f", "-o", "jsonl") as following:
            following.wait_for('"seq":2')
            place("call", "orders.slow", "0.1")
            assert json.loads(following.wait_for('"seq":3'))["endpoint"] == "slow"
        line = json.loads(running.wait_for('"reporter":"destination"'))
        assert (line["destination_service"], line["caller"], line["labels"]) == (
            "orders", "nats-mesh", {"team": "shop"},
        )  # fmt: skip
