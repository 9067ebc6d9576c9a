"""`call` and `bench` against running services."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.cli.conftest import Shop
from tests.cli.program import PATIENCE_S, Done


def test_a_reply_is_compact_json_in_a_pipe(shop: Shop) -> None:
    """The value alone on stdout, on one line, without escape codes; headers go along."""
    done = shop("call", "orders.place", '{"sku": "a", "count": 2}', "-H", "tenant=acme")
    assert (done.code, done.out, done.err) == (0, '{"id":"acme","total":5.0}\n', "")


def test_values_come_in_every_form(shop: Shop) -> None:
    """Numbers below zero, repeated calls, other codecs and forms; options stand anywhere."""
    cases = [
        (["call", "stock.count", "-5"], "5\n"),
        (["call", "stock.count", "1", "--count", "3", "-o", "jsonl"], "-1\n-1\n-1\n"),
        (["call", "--codec", "msgpack", "stock.count", "1", "-o", "yaml"], "-1\n"),
        (["-o", "json", "call", "orders.slow", "0", "--timeout", "20s"], '"done"\n'),
    ]
    results = shop.many(*(arguments for arguments, _ in cases))
    assert [(done.code, done.out) for done in results] == [(0, printed) for _, printed in cases]


def test_values_come_from_stdin_too(shop: Shop) -> None:
    """JSON from stdin; with --raw any bytes, there and back, and nothing added."""
    assert shop("call", "stock.count", "-", stdin=" 7\n").out == "-7\n"
    assert shop("call", "orders.echo", "-", "--raw", stdin="raw \x00 bytes").out == "raw \x00 bytes"


def test_wide_says_who_answered_and_how_long_it_took(shop: Shop) -> None:
    """Instance, status and duration are messages: stdout has the value alone."""
    done = shop("call", "stock.count", "1", "-o", "wide")
    assert done.out == "-1\n"
    assert re.fullmatch(r"OK from \S{22} in [\d.]+ (µs|ms|s), attempt 1\n", done.err), done.err


#: What goes wrong, the exit code, and what must be said.
FAILURES: list[tuple[list[str], int, list[str]]] = [
    (
        ["orders.place", '{"sku": "none"}'],
        1,
        ["nothing left", "FAILED_PRECONDITION", "executed: yes", "OutOfStock"],
    ),
    (["orders.place", "{}"], 1, ["INVALID_ARGUMENT", "sku", "nats-mesh describe orders.place"]),
    (["orders.boom"], 1, ["INTERNAL", "log"]),
    # Which of the two clocks ends it first decides between "yes" and "maybe".
    (["orders.slow", "30"], 1, ["DEADLINE_EXCEEDED", "executed: ", "--timeout"]),
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
]


@pytest.fixture(scope="module")
def failed(shop: Shop) -> list[Done]:
    """How each of the failures ended."""
    return shop.many(*(["call", *arguments] for arguments, _, _ in FAILURES))


@pytest.mark.parametrize("case", range(len(FAILURES)), ids=lambda case: " ".join(FAILURES[case][0]))
def test_failures_say_what_and_what_to_do(case: int, failed: list[Done]) -> None:
    """Nothing on stdout, at most an error and a hint on stderr, never a traceback, and the right exit code."""
    _, code, said = FAILURES[case]
    done = failed[case]
    assert (done.code, done.out) == (code, ""), done.err
    for words in said:
        assert words in done.err
    if "DEADLINE_EXCEEDED" in said:
        assert "executed: maybe" in done.err or "executed: yes" in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


def test_another_namespace_is_pointed_out(shop: Shop) -> None:
    """A service that runs elsewhere is found there, with the option that goes there."""
    lost, found = shop.many(
        ["call", "stock.count", "1", "-n", "elsewhere"], ["-n", shop.namespace, "call", "stock.count", "1"]
    )
    assert lost.code == 1
    assert f"use -n {shop.namespace}" in lost.err
    assert found.out == "-1\n"


def test_a_failure_is_an_object_for_programs(shop: Shop) -> None:
    """-o json: status, executed and typed details as data, on stderr; stdout stays empty."""
    (done,) = shop.many(["call", "orders.place", '{"sku": "none"}', "-o", "json"])
    fields = json.loads(done.err)["error"]
    assert (done.code, done.out) == (1, "")
    assert (fields["status"], fields["executed"], fields["exit_code"]) == ("FAILED_PRECONDITION", "yes", 1)
    assert (fields["type"], fields["details"]) == ("OutOfStock", {"sku": "none"})


def test_bytes_that_are_no_text_are_marked(shop: Shop) -> None:
    """In JSON, bytes are text where they are legible and base64 under that name where not."""
    (done,) = shop.many(["call", "orders.echo", "1", "-o", "json"])
    assert done.out == '"1"\n'


@pytest.mark.parametrize("mode", [[], ["--rate", "200"]])
def test_bench_reports_what_it_did(mode: list[str], shop: Shop) -> None:
    """Exactly the calls asked for, all answered; percentiles grow; the histogram adds up."""
    (done,) = shop.many(["bench", "stock.count", "1", "--count", "100", "-c", "8", *mode, "-o", "json"])
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
    """Errors by status with their reason, exit code 1; one call ahead finds out what cannot work at all."""
    failing, missing = shop.many(
        ["bench", "orders.place", '{"sku": "none"}', "--count", "20"],
        ["bench", "ordres.place", "1", "-d", "30s"],
    )
    assert failing.code == 1
    assert "FAILED_PRECONDITION 20  nothing left" in failing.out
    assert "\x1b[" not in failing.out
    assert (missing.code, missing.out) == (1, "")
    assert "did you mean 'orders'?" in missing.err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reports_what_there_is_by_then(end: signal.Signals, shop: Shop) -> None:
    """A load that is broken off still tells its figures, and ends with 130, quietly: by Ctrl-C, and by who stops it."""

    def served() -> int:
        (done,) = shop.many(["describe", "stock.count", "-o", "json"])
        return int(done.json["statistics"]["requests"])

    before = served()
    with shop.background("bench", "stock.count", "1", "-d", "1h", "-c", "2", "-o", "json") as running:
        deadline = time.monotonic() + PATIENCE_S
        while served() < before + 100:
            assert time.monotonic() < deadline, "the load never began"
        assert running.end(end) == 130
    report = json.loads(running.out[0])
    assert report["calls"] == report["ok"] > 0
    assert running.err == []
