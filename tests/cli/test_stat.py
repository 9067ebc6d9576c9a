"""`stat` and `edges`: what they show is what was counted, by whomever it is asked."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nats_mesh import CallError, Mesh
from nats_mesh.blocking import BlockingMesh
from nats_mesh.telemetry.snapshots import NOTHING, Snapshot
from nats_mesh.telemetry.watching import MeshView
from nats_mesh.testing import NatsServer
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out
from nats_mesh_cli.stat import Look, follow
from nats_mesh_cli.stat_table import Shown
from tests.cli.conftest import Shop
from tests.cli.program import Background

READY = "orders 1.2.0 is ready"
ENV = {"MESH_METRICS_PORT": "127.0.0.1:0"}


@pytest.fixture
def workers(place: Shop) -> Iterator[Background]:
    """Two workers of `orders` under one metrics port."""
    with Background(
        ("run", "shopapp:orders", "--workers", "2"), env={**place.env, **ENV}, cwd=place.folder
    ) as running:
        running.wait_for(READY, times=2)
        yield running


def load(mesh: BlockingMesh, count: int = 150) -> Counter[str]:
    """Calls that go well, that are declined, and that fail; returns how each ended."""
    ended: Counter[str] = Counter()
    for number in range(count):
        target, value = ("orders.boom", None) if number % 10 == 0 else ("orders.place", {"sku": "b"})
        if number % 7 == 3:
            target, value = "orders.place", {"sku": "none"}
        try:
            mesh.call(target, value)
        except CallError as error:
            ended[error.status] += 1
        else:
            ended["OK"] += 1
    return ended


def scrape(port: str, reporter: str) -> dict[str, float]:
    """What Prometheus reads: calls by status."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "mesh_requests_total" and sample.labels["reporter"] == reporter:
                found[sample.labels["status"]] += int(sample.value)
    return dict(found)


def port_of(running: Background) -> str:
    """Where the metrics are."""
    return str(re.findall(r"on port (\d+)", running.wait_for("metrics of all workers"))[0])


def test_everybody_counts_the_same(workers: Background, place: Shop) -> None:
    """Once the load has stopped: the load's own count, `stat`, `edges` and Prometheus agree exactly, over two workers,
    and go on doing so when a worker ends and another takes its place."""
    port = port_of(workers)
    with Mesh("web", servers=place.url, namespace=place.namespace).blocking() as mesh:
        ended = load(mesh)
        done = place("stat", "--window", "2s", "-o", "json")
        assert (done.code, done.err) == (0, "")
        (orders,) = done.json
        assert orders["total"]["statuses"] == dict(ended)
        assert orders["total"]["calls"] == ended.total()
        assert orders["total"]["errors"] == ended["INTERNAL"]
        assert (orders["ready"], orders["instances"]) == (2, 2)
        (edge,) = place("edges", "--window", "2s", "-o", "json").json
        assert (edge["source"], edge["service"], edge["reporter"]) == ("web", "orders", "source")
        assert edge["total"]["statuses"] == dict(ended)
        assert edge["total"]["attempts"] == ended.total()
    assert scrape(port, "destination") == dict(ended)

    pid = re.findall(r"-(\d+)\)$", next(line for line in workers.err if READY in line))[0]
    os.kill(int(pid), signal.SIGTERM)
    workers.wait_for(READY, times=3)
    assert scrape(port, "destination") == dict(ended), "what a worker counted outlives it"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        assert json.load(answer) == {"ok": True, "workers": {"1": True, "2": True}}
    assert workers.interrupt() == 0


def test_stat_shows_what_is_asked_for(shop: Shop) -> None:
    """Rows by endpoint and version, one service of several, and the names alone."""
    with Mesh("web", servers=shop.url, namespace=shop.namespace).blocking() as mesh:
        mesh.call("orders.place", {"sku": "b"})
        mesh.call("stock.count", 3)
        window = ("--window", "2s")
        by_endpoint, by_version, one, names, table, nobody = shop.at_once(
            ["stat", "orders", "--by", "endpoint", *window, "-o", "json"],
            ["stat", "--by", "version", *window, "-o", "json"],
            ["stat", "stock", *window, "-o", "json"],
            ["stat", *window, "-o", "name"],
            ["stat", *window, "-o", "wide"],
            ["stat", "ordrs", *window],
        )
    found = {row["endpoint"]: row for row in by_endpoint.json}
    assert found.keys() == {"place", "slow", "boom", "echo"}
    assert found["place"]["capacity"]["concurrency_limit"] == 64
    assert found["place"]["total"]["calls"] >= 1
    assert found["slow"]["total"]["calls"] == 0
    assert {(row["service"], row["version"]) for row in by_version.json} >= {("orders", "1.2.0")}
    assert [row["service"] for row in one.json] == ["stock"]
    assert names.out.split() == ["orders", "stock"]
    assert re.search(r"SERVICE +READY +SUCCESS +RPS +ACTUAL", table.out)
    assert "HEADROOM" in table.out
    assert "\x1b" not in table.out
    assert (nobody.code, nobody.out) == (1, "")
    assert "orders" in nobody.err


def test_edges_tell_who_calls(shop: Shop) -> None:
    """A caller that does not tell (it has gone) is an edge that the instances tell of."""
    with Mesh("batch", servers=shop.url, namespace=shop.namespace).blocking() as mesh:
        mesh.call("stock.count", 3)
    told, by_endpoint = shop.at_once(
        ["edges", "batch", "--window", "2s", "-o", "json"],
        ["edges", "batch", "--by", "endpoint", "--window", "2s", "-o", "json"],
    )
    (edge,) = told.json
    assert (edge["source"], edge["service"], edge["reporter"]) == ("batch", "stock", "destination")
    assert [(row["endpoint"], row["total"]["calls"]) for row in by_endpoint.json] == [("count", 1)]


def test_mistakes_are_said(shop: Shop) -> None:
    """What cannot be shown is an error of usage, with what to do instead."""
    short, forever, nothing = shop.many(
        ["stat", "--window", "100ms"],
        ["stat", "--watch", "-o", "json"],
        ["stat", "--window", "2s", "-o", "json", "-n", "nobody-is-here"],
    )
    assert short.code == forever.code == 2
    assert "2s" in short.err
    assert "jsonl" in forever.err
    assert (nothing.code, nothing.out) == (0, "[]\n")


def test_watching_is_a_line_a_row_a_second(shop: Shop) -> None:
    """-o jsonl goes on; each line says when it was."""
    with Mesh("web", servers=shop.url, namespace=shop.namespace).blocking() as mesh:
        mesh.call("stock.count", 3)
        with shop.background("stat", "stock", "--watch", "-o", "jsonl") as watching:
            watching.wait_for('"service":"stock"', times=2)
            rows = [json.loads(line) for line in watching.out]
            assert watching.interrupt() == 130
    assert all(row["at"].endswith("Z") and row["service"] == "stock" for row in rows)


class Seen:
    """A mesh of which rates are known once everybody has told."""

    told = False

    async def settled(self, timeout_s: float) -> bool:
        self.told = 0.0 < timeout_s <= 5.0
        return self.told

    def snapshot(self) -> Snapshot:
        return Snapshot(red=NOTHING, connected=True)


class Enough(Exception):
    """Something was written."""


class Once(io.StringIO):
    """A stream whose reader has seen enough after the first text."""

    def write(self, text: str) -> int:
        super().write(text)
        raise Enough


@pytest.mark.anyio
@pytest.mark.parametrize("fmt", [Format.TABLE, Format.JSONL])
async def test_the_first_table_knows_rates(fmt: Format) -> None:
    """Nobody is shown as if nothing were called because it was looked at too early."""
    seen, told = Seen(), Once()
    view = Shown(
        lambda *_: [{"rps": 50 if seen.told else 0}], (Column("RPS", lambda r: str(r["rps"])),), str, "nobody"
    )
    with pytest.raises(Enough):
        await follow(Look(cast(MeshView, seen), None, view), Options(format=fmt), Out(told, io.StringIO()))
    assert "50" in told.getvalue()


@pytest.mark.anyio
async def test_watching_says_that_the_bus_is_away(place: Shop) -> None:
    """Into a pipe, too: that every circuit is closed is not known while nobody is heard. A list of which changes are
    told says once that there is nothing, and nothing while there is none."""
    server = NatsServer(name="stat-away")
    async with server:
        own = Shop(server.url, place.namespace, place.folder)
        with own.background("get", "breakers", "-w") as told, own.background("stat", "-w") as shown:
            told.wait_for("every circuit is closed")
            shown.wait_for("no service is here", times=2)
            await server.kill()
            told.wait_for("the connection is lost")
            shown.wait_for("these are the last figures")
            await server.restart()
            told.wait_for("connected again")
            shown.wait_for("connected again")
            assert told.out == []
            assert len([line for line in told.err if "every circuit is closed" in line]) == 1
