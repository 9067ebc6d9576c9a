"""`record` and `policy diff`: calls kept, and policies tried on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nats_mesh.core.envelope import RecordedCall
from nats_mesh.policy.whatif.recording import End, Header, encode_line
from tests.cli.conftest import Shop
from tests.cli.program import Done, run_cli, run_many

DESTINATION = """apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec: {target: {service: orders}, timeout: %s, subsets: {v1: {version: 1.2.0}, v2: {version: 2.0.0}}}
"""
ROUTE = """---
apiVersion: mesh/v1
kind: Route
metadata: {name: orders}
spec:
  target: {service: orders}
  rules:
    - split: [{subset: v1, weight: %d}, {subset: v2, weight: %d}]
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A recording, line by line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- record -------------------------------------------------------------------------------------------


def test_a_run_is_recorded_and_tried(shop: Shop, tmp_path: Path) -> None:
    """Started, called, ended by SIGINT: a header, the calls, an end; then a candidate is tried on it."""
    path = tmp_path / "calls.jsonl"
    arguments = ("record", "orders", "--out", str(path), "--headers", "tenant,authorization", "-o", "json")
    with shop.background(*arguments) as recording:
        recording.wait_for("recording 100% of the calls of orders")
        order = json.dumps({"sku": "b-17"})
        headers = ["-H", "tenant: acme", "-H", "authorization: Bearer s3cr3t", "-H", "other: x"]
        assert shop("call", "orders.place", order, *headers, "--count", "3").code == 0
        assert shop("call", "orders.boom").code == 1
        assert recording.interrupt() == 0
    header, *calls, end = lines_of(path)
    assert (header["record"], header["format"], header["service"]) == ("recording", 1, "orders")
    assert (header["namespace"], header["sample"]) == (shop.namespace, 1.0)
    assert (header["headers"], end["record"], end["recorded"]) == (["tenant", "authorization"], "end", 4)
    assert (end["seen"], end["dropped"], end["lost"], end["ignored"]) == (4, 0, 0, 0)
    place = [call for call in calls if call["endpoint"] == "place"]
    assert len(place) == 3
    assert place[0]["headers"] == [["tenant", "acme"], ["authorization", "***"]]
    assert (place[0]["caller"], place[0]["version"], place[0]["concurrency"]) == ("nats-mesh", "1.2.0", 64)
    assert [call["status"] for call in calls if call["endpoint"] == "boom"] == ["INTERNAL"]
    assert "s3cr3t" not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0, "headers of others are not for everybody on the machine"
    summary = json.loads("".join(recording.out))
    assert (summary["file"], summary["recorded"], summary["instances"]) == (str(path), 4, 1)
    assert "4 calls recorded of 4 seen, from 1 instance" in "".join(recording.err)
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(DESTINATION % "2s" + ROUTE % (100, 0), encoding="utf-8")
    new.write_text(DESTINATION % "2s" + ROUTE % (0, 100), encoding="utf-8")
    same, other = (
        shop("policy", "diff", str(old), str(each), "--replay", str(path), "-o", "json")
        for each in (old, new)
    )
    assert (same.code, same.json["same"], same.json["replay"]["affected"]) == (0, True, 0.0)
    assert (other.code, other.json["same"], other.json["replay"]["affected"]) == (1, False, 4.0)
    assert {(group["before"], group["after"]) for group in other.json["replay"]["groups"]} == {
        ("orders.place/v1", "orders.place/v2"),
        ("orders.boom/v1", "orders.boom/v2"),
    }


def test_a_recording_ends_with_its_time(shop: Shop) -> None:
    """On stdout, where nothing else stands then."""
    done = shop("record", "--for", "300ms", "--no-headers", "--sample", "50%", "--rate", "5/s")
    assert done.code == 0
    header, end = [json.loads(line) for line in done.out.splitlines()]
    assert (header["service"], header["headers"], header["sample"], header["rate_per_s"]) == (
        "",
        [],
        0.5,
        5.0,
    )
    assert end["recorded"] == 0
    assert "recording 50% of the calls of every service to stdout until 0.3 s are over" in done.err


def test_nobody_there_is_said(shop: Shop) -> None:
    """With the nearest name; a recording may begin before its service does, but no success ends without it."""
    done = shop("record", "order", "--for", "100ms")
    assert done.code == 1
    assert f"nobody answered to the name order in namespace {shop.namespace!r}: no call was seen" in done.err
    absent = f"there is no service 'order' in namespace {shop.namespace!r} now; did you mean 'orders'?"
    assert absent in done.err


REFUSED = [
    (["--payloads"], "payloads are never recorded"),
    (["--headers", "a b"], "'a b' is no name of a header"),
    (["--headers", "a", "--no-headers"], "contradict each other"),
    (["--sample", "0%"], "is no share"),
    (["--rate", "5"], "is no rate"),
    (["--rate", "0/s"], "nothing would be recorded"),
    (["--for", "30"], "has no unit"),
    (["-o", "name"], "a recording has no names"),
    (["a.b"], "service"),
]


def test_what_cannot_be_recorded_is_refused() -> None:
    """Before anything is asked of the bus, with exit code 2."""
    found = run_many([["record", *arguments] for arguments, _ in REFUSED], {"NATS_URL": "nats://127.0.0.1:1"})
    for (arguments, text), done in zip(REFUSED, found, strict=True):
        assert (done.code, done.out) == (2, ""), arguments
        assert text in done.err, arguments


def test_a_recording_overwrites_nothing(shop: Shop, tmp_path: Path) -> None:
    """What is there may be the evidence somebody needs."""
    path = tmp_path / "calls.jsonl"
    path.write_text("precious", encoding="utf-8")
    done = shop("record", "--for", "100ms", "--out", str(path))
    assert done.code == 2
    assert "is there already" in done.err
    assert path.read_text(encoding="utf-8") == "precious"


# -- policy diff --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets of policies, and a recording of orders."""
    (tmp_path / "old.yaml").write_text(DESTINATION % "2s" + ROUTE % (90, 10), encoding="utf-8")
    (tmp_path / "new.yaml").write_text(DESTINATION % "100ms" + ROUTE % (50, 50), encoding="utf-8")
    (tmp_path / "same.yaml").write_text(
        "# said otherwise\n" + DESTINATION % "2000ms" + ROUTE % (90, 10), encoding="utf-8"
    )
    call = RecordedCall(
        at="2026-01-01T00:00:00.000000Z", service="orders", instance="i1", version="1.2.0", endpoint="place",
        caller="web", route="v1", status="OK", duration_s=0.2, trace="4bf92f3577b34da6a3ce929d0e0e4736",
    )  # fmt: skip
    header = Header(format=1, namespace="default", started="2026-01-01T00:00:00.000000Z", headers=None)
    lines: list[Header | RecordedCall | End] = [header, *[call] * 10]
    lines.append(End(ended="2026-01-01T00:00:01.000000Z", seen=12, recorded=10, dropped=2))
    (tmp_path / "calls.jsonl").write_bytes(b"".join([encode_line(line) for line in lines]) + b"{half\n")
    return tmp_path


def diff(folder: Path, *arguments: str) -> Done:
    """`policy diff` in that folder."""
    return run_cli("policy", "diff", *arguments, cwd=folder)


def test_without_a_recording_the_documents_are_compared(folder: Path) -> None:
    """As a unified difference; 0 the same, 1 different."""
    done = diff(folder, "old.yaml", "new.yaml")
    assert done.code == 1
    assert "--- Destination/orders (old.yaml:1)\n+++ Destination/orders (new.yaml:1)" in done.out
    assert "-  timeout: 2s\n+  timeout: 100ms\n" in done.out
    assert "\x1b" not in done.out
    same = diff(folder, "old.yaml", "same.yaml")
    assert (same.code, same.out) == (0, "")
    assert "old.yaml and same.yaml say the same" in same.err
    names = diff(folder, "old.yaml", "new.yaml", "-o", "name")
    assert (names.code, names.out.split()) == (1, ["Destination/orders", "Route/orders"])
    document = diff(folder, "old.yaml", "new.yaml", "-o", "json").json
    assert (document["same"], document["replay"]) == (False, None)
    assert [change["kind"] for change in document["changes"]] == ["changed", "changed"]
    assert diff(folder, "old.yaml", "same.yaml", "-o", "json").json["changes"] == []


def test_with_a_recording_calls_are(folder: Path) -> None:
    """What would happen to them, by which rule, with a trace; what is wrong with the recording is said."""
    done = diff(folder, "old.yaml", "new.yaml", "--replay", "calls.jsonl")
    assert done.code == 1
    assert "10 recorded calls\n10 of them (100%) would be handled differently" in done.out
    assert "about 4 (40%)  orders.place/v1 → orders.place/v2" in done.out
    assert "by Route/orders rules[0] (new.yaml:12)" in done.out
    assert "10 (100%)  orders.place: 2s → 100ms" in done.out
    assert "web → orders.place, trace 4bf92f3577b34da6a3ce929d0e0e4736" in done.out
    assert all(len(line) <= 100 for line in done.out.splitlines())
    assert "line 13 of the recording is damaged and left out" in done.err
    assert "2 calls of the sample and 0 messages are missing in the recording" in done.err
    same = diff(folder, "old.yaml", "same.yaml", "--replay", "calls.jsonl")
    assert (same.code, "all of them would be handled as before" in same.out) == (0, True)
    document = diff(folder, "old.yaml", "new.yaml", "--replay", "calls.jsonl", "-o", "json").json
    assert (document["replay"]["calls"], document["replay"]["recording"]["damaged_lines"]) == (10, 1)
    assert {group["facet"] for group in document["replay"]["groups"]} == {"route", "timeout", "setting"}


ERRORS = [
    (["old.yaml", "nowhere"], "nowhere"),
    (["old.yaml", "calls.jsonl"], "calls.jsonl"),
    (["old.yaml", "new.yaml", "--replay", "nowhere"], "nowhere"),
    (["old.yaml", "new.yaml", "--replay", "new.yaml"], "new.yaml:1: is no recording"),
    (["old.yaml", "new.yaml", "--replay", "calls.jsonl", "-n", "other"], "recorded in the namespace default"),
    (["old.yaml"], "NEW"),
]


def test_an_error_is_no_difference(folder: Path) -> None:
    """2 and more, and never 1."""
    known = {"old.yaml", "new.yaml", "calls.jsonl", "nowhere"}
    lines = [[str(folder / each) if each in known else each for each in arguments] for arguments, _ in ERRORS]
    found = run_many([["policy", "diff", *line] for line in lines], {})
    for (arguments, text), done in zip(ERRORS, found, strict=True):
        assert (done.code, done.out) == (2, ""), arguments
        assert text in done.err, arguments


def test_what_lives_is_compared_with_what_would(place: Shop, folder: Path) -> None:
    """`live` is the store on the bus; a bus that is not there is an error."""
    before, new = str(folder / "old.yaml"), str(folder / "new.yaml")
    assert place("policy", "apply", "-f", before).code == 0
    same, other = place("policy", "diff", "live", before), place("policy", "diff", "live", new)
    assert (same.code, same.out) == (0, "")
    assert other.code == 1
    assert "+  timeout: 100ms" in other.out
    away = place("policy", "diff", "live", new, "-s", "nats://127.0.0.1:1")
    assert (away.code, away.out) == (3, "")
