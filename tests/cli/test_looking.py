"""`get`, `describe` and `check` against running services."""

from __future__ import annotations

import json
import signal
import subprocess

import anyio.to_thread
import pytest
import yaml
from nats.aio.client import Client
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import ServiceConfig

from tests.cli.conftest import Shop
from tests.cli.program import PATIENCE_S, PROGRAM, environment


def test_services_as_json(shop: Shop) -> None:
    """A top-level array of this namespace's services, snake_case, raw numbers."""
    done = shop("get", "services", "-o", "json")
    orders, stock = done.json
    assert (orders["service"], orders["ready"], orders["instances"]) == ("orders", 1, 1)
    assert (orders["versions"], orders["state"], orders["kind"]) == ({"1.2.0": 1}, "ready", "mesh")
    assert (orders["labels"], orders["namespace"]) == ({"zone": "eu-1"}, shop.namespace)
    assert orders["endpoints"] == ["boom", "echo", "place", "slow"]
    assert stock["age_s"] >= 0


def test_tables_have_no_escape_codes_in_a_pipe(shop: Shop) -> None:
    """Aligned text, a head, nothing else; -o wide adds columns."""
    done = shop("get", "services", env={"FORCE_COLOR": "1"})
    assert done.out.splitlines()[0].split() == [
        "SERVICE",
        "VERSION",
        "READY",
        "ENDPOINTS",
        "STATE",
        "IN",
        "FLIGHT",
        "AGE",
        "KIND",
    ]
    assert "\x1b" not in done.out + done.err
    wide = shop("get", "instances", "orders", "-o", "wide").out
    assert {"HOST-PID", "NAMESPACE", "LABELS"} <= set(wide.split())
    assert "zone=eu-1" in wide


def test_the_other_forms_say_the_same(shop: Shop) -> None:
    """yaml, jsonl and name agree with json."""
    forms = ("json", "jsonl", "yaml", "name")
    as_json, as_lines, as_yaml, as_names = shop.many(*(["get", "endpoints", "-o", form] for form in forms))
    expected = [record["endpoint"] for record in as_json.json]
    assert "orders.place" in expected
    assert [json.loads(line)["endpoint"] for line in as_lines.out.splitlines()] == expected
    assert [record["endpoint"] for record in yaml.safe_load(as_yaml.out)] == expected
    assert as_names.out.split() == expected


def test_nothing_is_an_empty_array_and_no_error(shop: Shop) -> None:
    """An empty namespace: [] for programs, a message and exit code 0 for people."""
    as_json, as_table = shop.many(
        ["get", "services", "-n", "empty", "-o", "json"], ["get", "services", "-n", "empty"]
    )
    assert (as_json.code, as_json.out, as_json.err) == (0, "[]\n", "")
    assert (as_table.code, as_table.out) == (0, "")
    assert "no services in namespace 'empty'" in as_table.err


def test_wrong_names_get_the_nearest(shop: Shop) -> None:
    """1 where the answer is no, 2 where the question is wrong; nothing on stdout."""
    cases = [
        (["get", "services", "ordres"], 1, "did you mean 'orders'?"),
        (["get", "endpoints", "orders.plac"], 1, "did you mean 'orders.place'?"),
        (["get", "instances", "nobody"], 1, "there are: orders, stock"),
        (["get", "servces"], 2, "did you mean 'services'?"),
        (["get", "services", "-w", "-o", "json"], 2, "-o jsonl"),
        (["get"], 2, "Missing argument"),
        (["describe", "ordes"], 1, "did you mean 'orders'?"),
        (["describe", "orders.plac"], 1, "did you mean 'orders.place'?"),
        (["describe", "orders", "-o", "name"], 2, "nothing to show"),
    ]
    results = shop.many(*(arguments for arguments, _, _ in cases))
    for (arguments, code, said), done in zip(cases, results, strict=True):
        assert (done.code, done.out) == (code, ""), arguments
        assert said in done.err, arguments


def test_a_name_that_fits_nothing_is_still_an_array(shop: Shop) -> None:
    """The answer is no: exit code 1, and [] for whoever reads JSON."""
    (done,) = shop.many(["get", "services", "ordres", "-o", "json"])
    assert (done.code, done.out) == (1, "[]\n")


def test_all_namespaces_are_shown_when_asked_for(shop: Shop) -> None:
    """-A crosses the border that -n keeps."""
    (done,) = shop.many(["get", "services", "-A", "-n", "empty", "-o", "json"])
    assert shop.namespace in {record["namespace"] for record in done.json}


def test_describe_knows_schemas_options_and_layers(shop: Shop) -> None:
    """A single thing is an object; every option names its source, every layer its reason."""
    as_json, as_text = shop.many(["describe", "orders.place", "-o", "json"], ["describe", "orders"])
    document = as_json.json
    assert document["request_schema"]["$ref"] == "#/$defs/Order"
    assert document["options"]["timeout_s"] == {"value": 2.0, "source": "endpoint", "field": "timeout"}
    assert document["options"]["concurrency"]["value"] == 64
    assert all(layer["why"] for layer in document["layers"]["inbound"])
    assert "{sku: string, count: integer = 1}" in as_text.out
    assert "above concurrency: expired work must not take a slot" in as_text.out


def test_describe_takes_the_beginning_of_an_id(shop: Shop) -> None:
    """An instance by its id or enough of it, with what it counted."""
    (names,) = shop.many(["get", "instances", "-o", "name"])
    both = names.out.split()
    size = next(n for n in range(1, 64) if both[0][:n] != both[1][:n])
    exact, begun, ambiguous = shop.many(
        ["describe", both[0], "-o", "json"],
        ["describe", both[0][:size], "-o", "json"],
        ["describe", both[0][: size - 1]],
    )
    assert exact.json["instance"] == begun.json["instance"] == both[0]
    assert (exact.json["kind"], exact.json["origin"]) == ("instance", "mesh")
    assert exact.json["requests"] >= 0
    assert ambiguous.code == (2 if size > 1 else 1)


def test_check_finds_nothing_wrong_here(shop: Shop) -> None:
    """Every finding has a state; a healthy mesh is exit code 0."""
    done = shop("check", "-o", "json")
    assert done.code == 0, done.out
    states = {finding["check"]: finding["state"] for finding in done.json}
    assert set(states.values()) <= {"ok", "skip", "warn"}
    assert (states["server"], states["jetstream"], states["wire"], states["instances"]) == ("ok",) * 4


def test_watching_shows_what_comes_and_goes(shop: Shop) -> None:
    """What is there first, then each change on a line of its own; Ctrl-C is 130 and quiet."""
    with shop.background("get", "instances", "-w", "-o", "jsonl") as watching:
        watching.wait_for('"event":"present"', times=2)
        with shop.background("run", "shopapp:stock") as running:
            joined = json.loads(watching.wait_for('"event":"added"'))
            assert running.end(signal.SIGTERM) == 0
        gone = json.loads(watching.wait_for('"event":"removed"'))
        assert watching.end(signal.SIGINT) == 130
    assert joined["instance"] == gone["instance"]
    assert gone["reason"] == "left"
    assert watching.err == []


def test_a_reader_that_leaves_is_no_error(shop: Shop) -> None:
    """`| head -1` takes its line; the command ends without a traceback."""
    watching = subprocess.Popen(
        [PROGRAM, "get", "services", "-w"],
        env=environment(shop.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert watching.stdout.readline().startswith("EVENT")
        watching.stdout.close()
        with shop.background("run", "shopapp:stock") as running:
            running.wait_for("is ready")
            assert watching.wait(timeout=PATIENCE_S) == 141
        assert watching.stderr.read() == ""


@pytest.mark.anyio
async def test_services_outside_the_mesh_are_listed_and_called(shop: Shop) -> None:
    """A NATS Services API service belongs to no namespace: it is listed as foreign, described and called."""
    client = Client()
    await client.connect(shop.url)
    try:
        service = await add_service(client, ServiceConfig(name="legacy", version="0.1.0"))

        async def answer(request: Request) -> None:
            await request.respond(request.data.upper())

        await service.add_endpoint(name="shout", handler=answer, subject="legacy.shout")
        await client.flush()

        lines = [
            ["get", "services", "legacy", "-o", "json"],
            ["call", "legacy.shout", '"hi"'],
            ["call", "nats://legacy.shout", "hi", "--raw"],
            ["describe", "legacy", "-o", "json"],
        ]
        listed, called, plain, described = await anyio.to_thread.run_sync(lambda: shop.many(*lines))
        await service.stop()
    finally:
        await client.close()
    assert [(r["service"], r["kind"], r["namespace"]) for r in listed.json] == [("legacy", "foreign", None)]
    assert (called.code, called.out) == (0, '"HI"\n')
    assert (plain.code, plain.out) == (0, "HI")
    assert described.json["origin"] == "foreign"
    assert described.json["instances"][0]["started"]
