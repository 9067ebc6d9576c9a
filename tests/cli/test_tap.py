"""`tap`: calls as they end, in a table and for programs; what is left out is said."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from nats_mesh.telemetry.tap_feed import SeenCall
from nats_mesh.telemetry.tap_messages import Body
from nats_mesh.telemetry.tap_sink import TapCounts
from nats_mesh_cli.errors import PIPE, CliError
from nats_mesh_cli.output import Out, layout
from nats_mesh_cli.printing import Printer
from nats_mesh_cli.tap_given import filter_of
from nats_mesh_cli.tap_line import EXAMPLE, Wanted, wanted_of
from nats_mesh_cli.tap_order import InOrder
from nats_mesh_cli.tap_text import COLUMNS, WIDTHS, body_lines, left_out_text, record_of, unheard_text
from tests.cli.conftest import Shop
from tests.cli.program import PROGRAM, environment, run_many

ORDER = json.dumps({"sku": "b-17"})


def call(**fields: Any) -> SeenCall:
    """A call."""
    usual = {
        "at": "2026-01-01T12:00:00.123456Z", "service": "orders", "instance": "abcdefghijkl", "version": "1.2.0",
        "endpoint": "place", "caller": "web", "route": "all", "status": "OK", "duration_s": 0.0123,
    }  # fmt: skip
    return SeenCall(**{**usual, **fields})


# -- on a mesh ----------------------------------------------------------------------------------------


def test_calls_are_shown_as_they_end(shop: Shop) -> None:
    """A line each, until Ctrl-C, which is no failure; without escapes in a pipe, data and messages apart."""
    with shop.background("tap", "orders", "--rate", "500/s") as tap:
        tap.wait_for("calls of orders, as they end, until Ctrl-C")
        assert shop("call", "orders.place", ORDER, "--as", "web").code == 0
        assert shop("call", "orders.boom", "--as", "web").code == 1
        assert shop("call", "stock.count", "3").code == 0
        tap.wait_for("orders.boom")
        assert tap.interrupt() == 0
    head, place, boom = tap.out
    assert head.split() == ["TIME", "CALLER", "TARGET", "STATUS", "TOOK", "ROUTE", "INSTANCE", "NOTE"]
    assert place.split()[1:4] == ["web", "orders.place", "OK"]
    assert boom.split()[1:4] == ["web", "orders.boom", "INTERNAL"]
    assert "\x1b" not in "".join(tap.out)
    assert "2 calls shown of 2 that ended, at 1 instance" in "".join(tap.err)


def test_filters_and_bounds(shop: Shop) -> None:
    """Applied at the instances; as many as were wanted, as one JSON array that is whole."""
    line = (
        "tap",
        "orders.boom",
        "orders.place",
        "stock",
        "--errors",
        "--from",
        "web",
        "--max",
        "2",
        "-o",
        "json",
    )
    with shop.background(*line) as tap:
        tap.wait_for("until 2 were shown, or Ctrl-C")
        for name in ("batch", "web", "web"):
            assert shop("call", "orders.place", ORDER, "--as", name).code == 0
            assert shop("call", "orders.boom", "--as", name).code == 1
        assert tap.wait() == 0
    calls = json.loads("".join(tap.out))
    assert [(each["endpoint"], each["caller"], each["status"]) for each in calls] == [
        ("boom", "web", "INTERNAL")
    ] * 2
    assert (calls[0]["sent"], calls[0]["answered"], len(calls[0]["trace"])) == (None, None, 32)


def test_nothing_is_an_empty_list(shop: Shop) -> None:
    """Valid for a program, and said to a person."""
    done = shop("tap", "orders", "--duration", "200ms", "--status", "aborted", "-o", "json")
    assert (done.code, done.json) == (0, [])
    assert "no call was seen: " in done.err
    assert "of orders could be asked, and no call ended there meanwhile" in done.err
    assert "what callers met" not in done.err
    failed = shop("tap", "orders", "--duration", "200ms", "--errors", "-o", "json")
    assert (failed.code, failed.json) == (0, [])
    assert "what callers met" in failed.err
    assert "'nats-mesh trace --error' and 'nats-mesh edges'" in failed.err


def test_payloads_need_a_policy_and_a_reason(place: Shop) -> None:
    """Without a policy the calls come without them, which is said; with one they come, and the audit says to whom."""
    policy = place.folder / "tap.yaml"
    policy.write_text(
        "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: orders}\n"
        "spec: {target: {service: orders}, tap: {payloads: true, redactFields: [sku]}}\n",
        encoding="utf-8",
    )
    with place.background("run", "shopapp:orders") as running:
        running.wait_for("orders 1.2.0 is ready")
        line = ("tap", "orders", "--payload", "-m", "ticket 7", "--max", "1", "--as", "ann")
        with place.background(*line) as tap:
            tap.wait_for("until 1 were shown")
            assert place("call", "orders.place", ORDER).code == 0
            assert tap.wait() == 0
        assert "no Telemetry policy allows them (tap.payloads)" in "".join(tap.err)
        assert len(tap.out) == 2
        assert place("policy", "apply", "-f", str(policy), "--wait").code == 0
        with place.background(*line) as tap:
            tap.wait_for("until 1 were shown")
            assert place("call", "orders.place", json.dumps({"sku": "b-17", "count": 2})).code == 0
            assert tap.wait() == 0
        assert tap.out[2:] == ['  → {"sku":"***","count":2}', '  ← {"id":"-","total":5.0}']
        *_, record = place("audit", "--kind", "tap", "-o", "json").json
        assert (record["who"], record["why"], record["action"]) == ("ann", "ticket 7", "payloads")
        assert record["what"].startswith("orders ")
        events = place("events", "orders", "-o", "json").json
        assert any(each["kind"] == "tap.payloads" and "ann" in each["detail"] for each in events)


def test_nobody_there_is_said(shop: Shop) -> None:
    """With the nearest name; of an endpoint, too."""
    done = shop("tap", "order", "--duration", "100ms")
    assert done.code == 1
    absent = f"there is no service 'order' in namespace {shop.namespace!r} now; did you mean 'orders'?"
    assert absent in done.err
    assert f"nobody answered to the name order in namespace {shop.namespace!r}" in done.err
    done = shop("tap", "orders.plase", "--duration", "100ms")
    assert done.code == 1
    assert done.err.count("did you mean 'orders.place'?") == 2
    assert "orders has no endpoint 'plase': no call of it was seen" in done.err
    assert shop("tap", "orders.plase", "orders.place", "--duration", "100ms").code == 0, (
        "one of them is there"
    )


def test_the_calls_of_other_endpoints_are_not_counted(shop: Shop) -> None:
    """Neither beside those that were asked for, nor where what was asked for is misspelt."""
    with (
        shop.background("tap", "orders.place", "--errors") as tap,
        shop.background("tap", "orders.plase") as wrong,
    ):
        tap.wait_for("as they end")
        wrong.wait_for("as they end")
        assert shop("call", "orders.place", ORDER).code == 0
        assert shop("call", "orders.boom").code == 1
        assert (tap.interrupt(), wrong.interrupt()) == (0, 1)
    assert "0 calls shown of 1 that ended, at 1 instance" in "".join(tap.err)
    assert "0 calls shown of 0 that ended, at 1 instance" in "".join(wrong.err)


def test_a_reader_that_does_not_read_costs_nothing_but_lines(shop: Shop) -> None:
    """Its output blocked, a tap listens on, keeps a bounded part, says how much it dropped, and ends when asked."""
    process = subprocess.Popen(
        [PROGRAM, "tap", "stock", "--rate", "2000/s", "-o", "jsonl"],
        env=environment(shop.env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert "calls of stock" in process.stderr.readline()
        assert shop("bench", "stock.count", "3", "--rate", "1500", "--duration", "3s", "-c", "32").code == 0
        process.terminate()
        said = process.stderr.read()
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert "because the output was too slow" in said


REFUSED = [
    (["--payload"], "--payload needs a reason"),
    (["-m", "why"], "-m says why payloads are looked at"),
    (["--status", "INTERNL"], "did you mean 'INTERNAL'?"),
    (["--errors", "--status", "ok"], "contradict each other"),
    (["--header", "authorization=x"], "its value is a secret"),
    (["--header", "tenant"], "has no '='"),
    (["--slow", "100"], "has no unit"),
    (["--rate", "5"], "is no rate"),
    (["-o", "name"], "a call has no name"),
    (["-o", "json"], "goes on for ever"),
    (["--from", "a b"], "caller"),
    (["a.b.c"], "endpoint"),
    (["all"], "service"),
    (["--max", "0"], "--max"),
    ([f"s{n}" for n in range(33)], "these are too many"),
]


def test_what_cannot_be_tapped_is_refused() -> None:
    """Before anything is asked of the bus, with exit code 2."""
    found = run_many([["tap", *arguments] for arguments, _ in REFUSED], {"NATS_URL": "nats://127.0.0.1:1"})
    for (arguments, text), done in zip(REFUSED, found, strict=True):
        assert (done.code, done.out) == (2, ""), arguments
        assert text in done.err, arguments


# -- texts --------------------------------------------------------------------------------------------


def _at(second: float) -> SeenCall:
    return call(at=f"2026-01-01T12:00:{second:09.6f}Z")


def test_calls_of_several_instances_come_in_order() -> None:
    """One that came later and ended earlier goes first, if it comes within the wait; nobody waits for longer."""
    order = InOrder(0.25)
    late, early, last = _at(2.0), _at(1.0), _at(3.0)
    assert order.put([late], 10.0) == []
    assert order.due_s(10.0) == 0.25
    assert order.put([early], 10.2) == []
    assert order.put([last], 10.25) == [early, late]
    assert order.due_s(10.25) == pytest.approx(0.25)
    assert order.put([], 10.5) == [last]
    assert order.due_s(10.5) == math.inf


def test_what_is_too_late_stands_where_it_came() -> None:
    """It is shown, and holds up nobody; at the end nothing is left behind."""
    order = InOrder(0.25)
    assert order.put([_at(2.0)], 10.0) == []
    assert order.put([], 10.3) == [_at(2.0)]
    assert order.put([_at(1.0), _at(0.5)], 10.4) == []
    assert order.rest() == [_at(0.5), _at(1.0)]
    assert order.rest() == []


def test_instants_are_compared_and_not_their_texts() -> None:
    """However many digits a host writes."""
    order = InOrder(0.0)
    short, long = call(at="2026-01-01T12:00:01Z"), call(at="2026-01-01T12:00:00.999999999Z")
    assert order.put([short, long], 1.0) == [long, short]


def test_a_row_fits_a_terminal_of_80_columns() -> None:
    """What a usual call needs; in the order in which people read."""
    record = record_of(call())
    shown = layout([record], COLUMNS, least=WIDTHS)
    assert sum(shown.sizes[:-1]) + 2 * (len(shown.sizes) - 1) <= 110
    assert [each.text(record) for each in shown.columns][:5] == [
        "12:00:00.124Z",
        "web",
        "orders.place",
        "OK",
        "12.3 ms",
    ]


def test_how_a_call_came_is_noted() -> None:
    """Refused, injected, again, a copy."""
    record = record_of(call(refused="draining", injected="delay", attempt=2, mirror=True))
    assert COLUMNS[-1].text(record) == "draining, injected delay, attempt 2, mirror"
    assert COLUMNS[-1].text(record_of(call())) == ""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (Body(text='{"a":1}'), '{"a":1}'),
        (Body(text="x", form="text", cut=True), "x…"),
        (Body(text="eHg=", form="base64"), "base64: eHg="),
        (Body(form="text"), "(empty)"),
        (Body(withheld="too-large"), "(not shown: too large to be looked at)"),
        (Body(text="a\u202eb\x9b2J", form="text"), "a b 2J"),
    ],
)
def test_a_body_is_a_line_of_its_own(body: Body, line: str) -> None:
    """Which nothing in it leaves."""
    assert body_lines(record_of(call(sent=body))) == [f"  → {line}"]


def test_what_is_left_out_says_why() -> None:
    """Each reason with its number; nothing where nothing is missing."""
    counts = TapCounts(capped=3, slow=1, withheld=2)
    assert left_out_text(counts, 4) == (
        "3 above the rate at the instances, 5 because the output was too slow, "
        "2 because a policy shows them to nobody (Telemetry, tap: off)"
    )
    assert left_out_text(TapCounts(), 0) == ""


# -- a slow terminal ----------------------------------------------------------------------------------


class Pipe:
    """A stdout that nobody reads yet."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.out = Out(os.fdopen(writer, "w"), io.StringIO())

    def close(self) -> None:
        """Both ends."""
        self.out.stdout.close()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Any:
    """It, closed at the end."""
    found = Pipe()
    yield found
    found.close()


def test_lines_come_out_in_order(pipe: Pipe) -> None:
    """All of them, where somebody reads."""
    printer = Printer(pipe.out)
    read: list[bytes] = []
    lines = [f"line {n}" for n in range(5000)]

    def reading() -> None:
        while len(b"".join(read)) < sum(len(line) + 1 for line in lines):
            read.append(os.read(pipe.reader, 65536))

    reader = threading.Thread(target=reading)
    reader.start()
    assert all(printer.put(line) for line in lines)
    printer.finish(10.0)
    reader.join(10.0)
    assert b"".join(read).decode().splitlines() == lines
    assert printer.dropped == 0


def test_what_finds_no_room_is_dropped_and_counted(pipe: Pipe) -> None:
    """Where nobody reads, nothing waits for it and nothing grows."""
    full = pipe.out.stdout.fileno()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    printer = Printer(pipe.out, limit=10_000)
    put = [printer.put("x" * 999) for _ in range(1000)]
    assert (put.count(True), printer.dropped) == (10, 990)
    assert printer._size == 10_000
    printer.finish(0.05)
    assert printer.dropped >= 999, "what was still to be written is said to be missing, too"
    while not os.read(pipe.reader, 1 << 20).endswith(b"x\n"):
        pass  # the writer's thread, which waits in the pipe, ends with the test


def test_a_reader_that_has_gone_ends_the_command(tmp_path: Path) -> None:
    """Quietly, as elsewhere."""
    reader, writer = os.pipe()
    out = Out(os.fdopen(writer, "w"), io.StringIO())
    printer = Printer(out)
    os.close(reader)
    printer.put("x")
    with pytest.raises(CliError) as ended:
        printer.finish(10.0)
    assert (ended.value.code, ended.value.message) == (PIPE, "")
    out.stdout.close()


# -- on one line --------------------------------------------------------------------------------------------


def test_a_line_says_what_the_options_say() -> None:
    """Targets, and every filter of the command, in any order; nothing at all is every call."""
    found = wanted_of(
        "errors orders.place orders.show slow>100ms from=web from=shop status=unavailable,INTERNAL route=v2 "
        "'header:X-Who=a b' stock"
    )
    assert found.targets == {"orders": ("place", "show"), "stock": ()}
    assert found.only == filter_of(
        callers=["web", "shop"],
        statuses=["UNAVAILABLE", "INTERNAL"],
        errors=True,
        slow_s=0.1,
        headers=["X-Who=a b"],
        routes=["v2"],
    )
    assert wanted_of("  ") == Wanted()
    assert wanted_of("slow>=1s") == wanted_of("slow=1s") == wanted_of("slow>1s")
    assert wanted_of(EXAMPLE).only.headers == (("k", "v"),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("slow>100", "'100' has no unit; write 100ms or 100s"),
        ("slow>fast", "'fast' is no duration"),
        ("status=LOST", "status LOST: there is no such status"),
        ("errors status=OK", "errors and status OK contradict each other"),
        ("from=", "from= says nothing behind the ="),
        ("colour=red", "'colour=red' is nothing to look for"),
        ("slow<1s", "'slow<1s' is nothing to look for"),
        ("header:k", "header:k: a header is looked for as header:NAME=VALUE"),
        ("header:authorization=x", "its value is a secret"),
        ("orders.place.now", "endpoint name 'place.now'"),
        ("'orders", "a quotation mark is open"),
        (" ".join(f"s{n}" for n in range(40)), "too many"),
    ],
)
def test_a_line_that_cannot_be_is_refused(line: str, said: str) -> None:
    """With the word that is wrong, and without the dashes that only options have."""
    with pytest.raises(CliError) as caught:
        wanted_of(line)
    assert said in caught.value.message
    assert "--" not in caught.value.message


def test_who_saw_no_call_learns_who_could_be_asked() -> None:
    """Instances without a call are another thing than nobody to ask; of the latter it is said where to look."""
    found = unheard_text({"orders": 2, "stock": 1}, "shop", "nothing runs here")
    assert "3 instances of orders, stock could be asked" in found
    assert "nothing runs" not in found
    assert unheard_text({}, "shop", "nothing runs here").endswith("in namespace 'shop'; nothing runs here")
