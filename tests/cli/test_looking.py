"""`get`, `describe` and `check` against running services."""

from __future__ import annotations

import json
import signal
import subprocess

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
    expected = [record["endpoint"] for record in shop("get", "endpoints", "-o", "json").json]
    lines = shop("get", "endpoints", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["endpoint"] for line in lines] == expected
    assert [r["endpoint"] for r in yaml.safe_load(shop("get", "endpoints", "-o", "yaml").out)] == expected
    assert shop("get", "endpoints", "-o", "name").out.split() == expected
    assert "orders.place" in expected


def test_nothing_is_an_empty_array_and_no_error(shop: Shop) -> None:
    """An empty namespace: [] for programs, a message and exit code 0 for people."""
    done = shop("get", "services", "-n", "empty", "-o", "json")
    assert (done.code, done.out, done.err) == (0, "[]\n", "")
    done = shop("get", "services", "-n", "empty")
    assert (done.code, done.out) == (0, "")
    assert "no services in namespace 'empty'" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["services", "ordres"], 1, "did you mean 'orders'?"),
        (["endpoints", "orders.plac"], 1, "did you mean 'orders.place'?"),
        (["instances", "nobody"], 1, "there are: orders, stock"),
        (["servces"], 2, "did you mean 'services'?"),
        (["services", "-w", "-o", "json"], 2, "-o jsonl"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_names_get_the_nearest(arguments: list[str], code: int, said: str, shop: Shop) -> None:
    """1 where the answer is no, 2 where the question is wrong."""
    done = shop("get", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_all_namespaces_are_shown_when_asked_for(shop: Shop) -> None:
    """-A crosses the border that -n keeps."""
    found = shop("get", "services", "-A", "-n", "empty", "-o", "json").json
    assert shop.namespace in {record["namespace"] for record in found}


def test_describe_knows_schemas_options_and_layers(shop: Shop) -> None:
    """A single thing is an object; every option names its source, every layer its reason."""
    document = shop("describe", "orders.place", "-o", "json").json
    assert document["request_schema"]["$ref"] == "#/$defs/Order"
    assert document["options"]["timeout_s"] == {"value": 2.0, "source": "endpoint"}
    assert document["options"]["concurrency"]["value"] == 64
    assert all(layer["why"] for layer in document["layers"]["inbound"])
    text = shop("describe", "orders").out
    assert "{sku: string, count: integer = 1}" in text
    assert "above concurrency: expired work must not take a slot" in text


def test_describe_takes_the_beginning_of_an_id(shop: Shop) -> None:
    """An instance by enough of its id; nothing by what does not exist."""
    (identifier,) = shop("get", "instances", "stock", "-o", "name").out.split()
    assert shop("describe", identifier[:-1], "-o", "json").code in (0, 2)
    document = shop("describe", identifier, "-o", "json").json
    assert (document["kind"], document["service"], document["errors"]) == ("instance", "stock", 0)
    done = shop("describe", "ordes")
    assert (done.code, done.out) == (1, "")
    assert "did you mean 'orders'?" in done.err


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
    import anyio.to_thread

    client = Client()
    await client.connect(shop.url)
    try:
        service = await add_service(client, ServiceConfig(name="legacy", version="0.1.0"))

        async def answer(request: Request) -> None:
            await request.respond(request.data.upper())

        await service.add_endpoint(name="shout", handler=answer, subject="legacy.shout")
        await client.flush()

        listed = await anyio.to_thread.run_sync(lambda: shop("get", "services", "legacy", "-o", "json").json)
        called = await anyio.to_thread.run_sync(lambda: shop("call", "legacy.shout", '"hi"'))
        plain = await anyio.to_thread.run_sync(lambda: shop("call", "nats://legacy.shout", "hi", "--raw"))
        described = await anyio.to_thread.run_sync(lambda: shop("describe", "legacy", "-o", "json").json)
        await service.stop()
    finally:
        await client.close()
    assert [(r["service"], r["kind"], r["namespace"]) for r in listed] == [("legacy", "foreign", None)]
    assert (called.code, called.out) == (0, '"HI"\n')
    assert (plain.code, plain.out) == (0, "HI")
    assert described["origin"] == "foreign"
    assert described["instances"][0]["started"]
