"""`call` and `bench` against running services."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shop


def test_a_reply_is_compact_json_in_a_pipe(shop: Shop) -> None:
    """The value alone on stdout, on one line, without escape codes; headers go along."""
    done = shop("call", "orders.place", '{"sku": "a", "count": 2}', "-H", "tenant=acme")
    assert (done.code, done.out, done.err) == (0, '{"id":"acme","total":5.0}\n', "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "printed"),
    [
        (["stock.count", "-5"], "", "5\n"),
        (["stock.count", "-"], " 7\n", "-7\n"),
        (["stock.count", "1", "--count", "3", "-o", "jsonl"], "", "-1\n-1\n-1\n"),
        (["stock.count", "1", "--codec", "msgpack", "-o", "yaml"], "", "-1\n"),
        (["orders.echo", "-", "--raw"], "raw \x00 bytes", "raw \x00 bytes"),
        (["-o", "json", "orders.slow", "0", "--timeout", "20s"], "", '"done"\n'),
    ],
)
def test_values_come_and_go_in_every_form(arguments: list[str], stdin: str, printed: str, shop: Shop) -> None:
    """Argument, stdin, repeated, other codecs and forms, raw; options stand anywhere."""
    at = 2 if arguments[0] == "-o" else 0
    done = shop(*arguments[:at], "call", *arguments[at:], stdin=stdin)
    assert (done.code, done.out) == (0, printed), done.err


def test_wide_says_who_answered_and_how_long_it_took(shop: Shop) -> None:
    """Instance, status and duration are messages: stdout has the value alone."""
    done = shop("call", "stock.count", "1", "-o", "wide")
    assert done.out == "-1\n"
    assert done.err.startswith("OK from ")
    assert " ms, attempt 1" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["orders.place", '{"sku": "none"}'],
            1,
            ["nothing left", "FAILED_PRECONDITION", "executed: yes", "OutOfStock"],
        ),
        (["orders.place", "{}"], 1, ["INVALID_ARGUMENT", "sku", "nats-mesh describe orders.place"]),
        (["orders.boom"], 1, ["INTERNAL", "log"]),
        (["orders.slow", "30"], 1, ["DEADLINE_EXCEEDED", "executed: maybe", "--timeout"]),
        (["orders.plcae", "1"], 1, ["UNIMPLEMENTED", "did you mean 'orders.place'?"]),
        (["ordres.place", "1"], 1, ["did you mean 'orders'?", "there are: orders, stock"]),
        (["nats://nobody.listens.here", "1"], 1, ["nobody listens on nobody.listens.here"]),
        (["orders.place", "{bad"], 2, ["not JSON"]),
        (["orders"], 2, ["SERVICE.ENDPOINT"]),
        (["or ders.place"], 2, ["service name"]),
        (["orders.place", "1", "-H", "Mesh-Attempt=2"], 2, ["belongs to the mesh"]),
        (["orders.place", "1", "--count", "0"], 2, ["--count"]),
        (["orders.place", "1", "-o", "name"], 2, ["no name"]),
        (["stock.count", "1", "-n", "white space"], 2, ["namespace name"]),
    ],
)
def test_failures_say_what_and_what_to_do(
    arguments: list[str], code: int, said: list[str], shop: Shop
) -> None:
    """Nothing on stdout, at most an error and a hint on stderr, never a traceback, and the right exit code."""
    done = shop("call", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    for words in said:
        assert words in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


def test_another_namespace_is_pointed_out(shop: Shop) -> None:
    """A service that runs elsewhere is found there, with the option that goes there."""
    done = shop("call", "stock.count", "1", "-n", "elsewhere")
    assert done.code == 1
    assert f"use -n {shop.namespace}" in done.err
    assert shop("call", "stock.count", "1", "-n", shop.namespace).out == "-1\n"


def test_a_failure_is_an_object_for_programs(shop: Shop) -> None:
    """-o json: status, executed and typed details as data, on stderr; stdout stays empty."""
    done = shop("call", "orders.place", '{"sku": "none"}', "-o", "json")
    fields = json.loads(done.err)["error"]
    assert (done.code, done.out) == (1, "")
    assert (fields["status"], fields["executed"], fields["exit_code"]) == ("FAILED_PRECONDITION", "yes", 1)
    assert (fields["type"], fields["details"]) == ("OutOfStock", {"sku": "none"})


@pytest.mark.parametrize("mode", [[], ["--rate", "200"]])
def test_bench_reports_what_it_did(mode: list[str], shop: Shop) -> None:
    """Exactly the calls asked for, all answered; percentiles grow; the histogram adds up."""
    done = shop("bench", "stock.count", "1", "--count", "100", "-c", "8", *mode, "-o", "json")
    assert done.code == 0, done.err
    report = done.json
    assert (report["calls"], report["ok"], report["errors"]) == (100, 100, 0)
    assert report["loop"] == ("open" if mode else "closed")
    latency = report["latency_ms"]
    ordered = [latency[name] for name in ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert ordered == sorted(ordered)
    assert sum(row["count"] for row in report["histogram"]) == 100
    assert sum(report["instances"].values()) == 100


def test_bench_of_what_fails_is_a_failure(shop: Shop) -> None:
    """Errors by status with their reason, and exit code 1; text for people."""
    done = shop("bench", "orders.place", '{"sku": "none"}', "--count", "20")
    assert done.code == 1
    assert "FAILED_PRECONDITION 20  nothing left" in done.out
    assert "\x1b[" not in done.out


def test_bench_of_what_is_not_there_does_not_start(shop: Shop) -> None:
    """One call ahead finds out, with the remedy of `call`; there is no report."""
    done = shop("bench", "ordres.place", "1", "-d", "30s")
    assert (done.code, done.out) == (1, "")
    assert "did you mean 'orders'?" in done.err
