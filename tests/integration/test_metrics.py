"""Metrics on a real server: the numbers are those of the calls that were made, on both sides."""

from __future__ import annotations

import re
import sys
import threading
import types
from typing import Any

import anyio
import msgspec
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics import exposition, parser

from nats_mesh import (
    ApplicationError,
    CallError,
    DeadlineExceededError,
    Mesh,
    NoInstancesError,
    OverloadedError,
    Service,
)
from nats_mesh.telemetry.collector import MeshCollector
from nats_mesh.telemetry.series import OTHER, Side
from nats_mesh.telemetry.stats import Stats
from tests.harness import Bus, eventually
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

#: These two bear no types.
generate_latest: Any = exposition.generate_latest
text_string_to_metric_families: Any = parser.text_string_to_metric_families


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """Declared."""

    sku: str


class Order(msgspec.Struct):
    """What is asked of the service."""

    sku: str


class Shop:
    """A service whose calls end as they are told to; ``narrow`` has one slot, held until ``release`` is set."""

    def __init__(self, version: str = "1.2.0") -> None:
        self.release = anyio.Event()
        self.entered = anyio.Event()
        self.service = service = Service("shop", version=version)

        @service.endpoint(raises=(OutOfStock,))
        async def place(order: Order) -> str:
            if order.sku == "none":
                raise OutOfStock("nothing left", sku=order.sku)
            if order.sku == "slow":
                await anyio.sleep_forever()
            return order.sku

        @service.endpoint(concurrency=1)
        async def narrow() -> None:
            self.entered.set()
            await self.release.wait()

        @service.endpoint()
        async def still_there() -> bool:
            return True

        self.place = place


class Scrapes:
    """What a Prometheus server sees of some meshes and instances."""

    def __init__(self, *sources: Any) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(MeshCollector(*sources))

    def samples(self) -> list[Any]:
        """Every sample, after the way over the wire; what does not parse is an error."""
        text = generate_latest(self.registry).decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of one metric over all label sets that have ``labels``."""
        found = [s for s in self.samples() if s.name == name and labels.items() <= s.labels.items()]
        return float(sum(sample.value for sample in found))

    def outcomes(self, reporter: str) -> dict[tuple[str, str, str], float]:
        """Requests by endpoint, status and flags on one side."""
        return {
            (s.labels["endpoint"], s.labels["status"], s.labels["flags"]): s.value
            for s in self.samples()
            if s.name == "mesh_requests_total" and s.labels["reporter"] == reporter
        }


async def _hundred_calls(bus: Bus, shop: Shop) -> None:
    """59 that work (one holds the slot of ``narrow``), 20 declared errors, 10 timeouts and 11 refused, all at once."""

    async def fails(expected: type[CallError], target: Any, value: Any = None, **options: Any) -> None:
        with pytest.raises(expected):
            await bus.mesh.call(target, value, **options)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "shop.narrow")
        await shop.entered.wait()
        async with anyio.create_task_group() as others:
            for number in range(58):
                others.start_soon(bus.mesh.call, shop.place, Order(f"b-{number}"))
            for _ in range(20):
                others.start_soon(fails, OutOfStock, shop.place, Order("none"))
            for _ in range(10):
                others.start_soon(
                    lambda: fails(DeadlineExceededError, shop.place, Order("slow"), timeout=1.0)
                )
            for _ in range(11):
                others.start_soon(fails, OverloadedError, "shop.narrow")
        shop.release.set()


async def test_a_hundred_mixed_calls_are_a_hundred(bus: Bus) -> None:
    """Each outcome is counted exactly once on each side, with its flag; durations and their sum are the mesh's own."""
    shop = Shop()
    instance = await bus.serve(shop.service)
    scrapes = Scrapes(bus.mesh, instance)
    await _hundred_calls(bus, shop)
    await bus.at_rest()

    common = {
        ("place", "OK", ""): 58,
        ("place", "FAILED_PRECONDITION", ""): 20,
        ("narrow", "OK", ""): 1,
    }
    refused = ("narrow", "RESOURCE_EXHAUSTED", "UO")
    made = scrapes.outcomes("source")
    exhausted = made.pop(("narrow", "RESOURCE_EXHAUSTED", "UO,URX"), 0)
    assert made.pop(refused, 0) == 11 - exhausted
    assert made == {**common, ("place", "DEADLINE_EXCEEDED", "UT"): 10}
    answered = scrapes.outcomes("destination")
    # Whose clock ends a call is open: the handler's own deadline, or the word of the caller that it waits no more.
    late = [
        answered.pop(("place", *ending), 0) for ending in (("DEADLINE_EXCEEDED", "UT"), ("CANCELLED", "DC"))
    ]
    again = answered.pop(refused) - 11  # who is refused is tried once more, as far as the retry budget goes
    assert 1 <= again <= 11
    assert again == exhausted == scrapes.total("mesh_retries_total", outcome="failure")
    assert scrapes.total("mesh_retries_total", outcome="denied") == 11 - exhausted
    assert scrapes.total("mesh_limited_total", policy="", reason="concurrency") == 11 + again
    assert (sum(late), answered) == (10, common)

    sides: tuple[tuple[str, Stats, Side, int, float], ...] = (
        ("source", bus.mesh.stats, "out", 100, 100),
        ("destination", instance.stats, "in", 89, 100 + again),
    )
    for reporter, stats, side, count, attempts in sides:
        ends = {"reporter": reporter, "source_service": "web", "destination_service": "shop"}
        assert scrapes.total("mesh_requests_total", **ends) == attempts
        assert scrapes.total("mesh_requests_in_flight", **ends) == 0
        assert scrapes.total("mesh_request_duration_seconds_count", **ends) == count
        assert scrapes.total("mesh_request_duration_seconds_bucket", le="+Inf", **ends) == count
        for endpoint, totals in stats.by_endpoint(side).items():
            seconds = scrapes.total("mesh_request_duration_seconds_sum", endpoint=endpoint, **ends)
            assert seconds == totals.busy_s > 0
    assert scrapes.total("mesh_requests_total", destination_version="1.2.0") == 100 + again
    assert scrapes.total("mesh_concurrency_limit", destination_service="shop", endpoint="narrow") == 1
    assert scrapes.total("mesh_bus_reconnects_total") == 0


async def test_calls_in_flight_are_seen_while_they_run(bus: Bus) -> None:
    """A call that is held stands in both gauges, and in no counter until it has ended."""
    shop = Shop()
    scrapes = Scrapes(bus.mesh, await bus.serve(shop.service))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "shop.narrow")
        await shop.entered.wait()
        for reporter in ("source", "destination"):
            assert scrapes.total("mesh_requests_in_flight", reporter=reporter, endpoint="narrow") == 1
        assert scrapes.total("mesh_requests_total") == 0
        shop.release.set()
    await bus.at_rest()
    assert (scrapes.total("mesh_requests_in_flight"), scrapes.total("mesh_requests_total")) == (0, 2)


async def test_nobody_there_and_nobody_waiting(bus: Bus) -> None:
    """No instance is UH at the caller, who has asked twice; a caller that gives up is DC on both sides."""
    shop = Shop()
    scrapes = Scrapes(bus.mesh, await bus.serve(shop.service))
    with pytest.raises(NoInstancesError):
        await bus.mesh.call("nobody.home")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "shop.narrow")
        await shop.entered.wait()
        tasks.cancel_scope.cancel()
    await bus.at_rest()
    assert scrapes.outcomes("source") == {
        ("home", "UNAVAILABLE", "UH,URX"): 1,
        ("narrow", "CANCELLED", "DC"): 1,
    }
    assert scrapes.outcomes("destination") == {("narrow", "CANCELLED", "DC"): 1}


async def test_names_that_were_made_up_are_no_labels(bus: Bus) -> None:
    """Endpoints that do not exist and plain subjects stand as _OTHER on whichever side, each call counted."""
    scrapes = Scrapes(bus.mesh, await bus.serve(Shop().service))
    secret = "u-4711"
    for number in range(20):
        with pytest.raises(CallError):
            await bus.mesh.call(f"shop.{secret}-{number}")
    with pytest.raises(CallError):
        await bus.mesh.call(f"nats://{bus.namespace}.{secret}")
    await bus.at_rest()
    for reporter in ("source", "destination"):
        assert (
            scrapes.total(
                "mesh_requests_total", reporter=reporter, destination_service="shop", endpoint=OTHER
            )
            == 20
        )
    assert scrapes.total("mesh_requests_total", endpoint=OTHER) == 41
    assert secret not in generate_latest(scrapes.registry).decode()


async def test_meshes_and_instances_of_one_process_stand_side_by_side(bus: Bus) -> None:
    """Two callers and two versions of a service keep their numbers apart, and every call is counted on both sides."""
    old, new = Shop("1.0.0"), Shop("2.0.0")
    instances = [await bus.serve(shop.service) for shop in (old, new)]
    app: Mesh = await bus.caller("app")
    scrapes = Scrapes(bus.mesh, app, *instances)
    for _ in range(15):
        await bus.mesh.call("shop.place", Order("x"))
    for _ in range(25):
        await app.call("shop.place", Order("x"))
    await bus.at_rest()
    for reporter in ("source", "destination"):
        ends = {"reporter": reporter, "destination_service": "shop"}
        assert scrapes.total("mesh_requests_total", source_service="web", **ends) == 15
        assert scrapes.total("mesh_requests_total", source_service="app", **ends) == 25
    for instance in instances:
        answered = scrapes.total("mesh_requests_total", destination_version=instance.service.version)
        assert answered == instance.stats.totals("in")[0]
    assert scrapes.total("mesh_concurrency_limit", endpoint="narrow") == 2
    services = {s.labels["service"] for s in scrapes.samples() if s.name == "mesh_bus_reconnects_total"}
    assert services == {"web", "app", "shop"}


async def test_scrapes_from_another_thread_never_fail(bus: Bus) -> None:
    """While calls run and new series appear, every scrape parses, and no counter ever goes back."""
    shop = Shop()
    scrapes = Scrapes(bus.mesh, await bus.serve(shop.service))
    over = threading.Event()
    seen: list[float] = []

    def scrape() -> None:
        while not over.is_set():
            seen.append(scrapes.total("mesh_requests_total", reporter="destination"))

    async def call(number: int) -> None:
        await bus.mesh.call(shop.place, Order("x"))
        with pytest.raises(CallError):
            await bus.mesh.call(f"shop.nothing-{number}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, scrape)
        try:
            for wave in range(8):
                async with anyio.create_task_group() as calls:
                    for number in range(25):
                        calls.start_soon(call, wave * 25 + number)
            await eventually(lambda: len(seen) > 3)
        finally:
            over.set()
    await bus.at_rest()
    assert seen == sorted(seen)
    assert scrapes.total("mesh_requests_total", reporter="destination") == 400


async def test_totals_outlive_the_connection(bus: Bus) -> None:
    """What was counted is still there after an instance has left, so that a last scrape sees every call."""
    shop = Shop()
    instance = await bus.serve(shop.service)
    mesh = Mesh("late", settings=bus.settings)
    scrapes = Scrapes(mesh, instance)
    async with mesh:
        await mesh.call(shop.place, Order("x"))
    bus.instances.remove(instance)
    await instance.__aexit__(None, None, None)
    assert scrapes.total("mesh_requests_total", source_service="late") == 2
    assert "mesh_concurrency_limit" not in {sample.name for sample in scrapes.samples()}


async def test_the_guide_measures(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service started as the guide shows stands in the process's own registry, with the calls it answers."""
    monkeypatch.setenv("NATS_URL", bus.url)
    monkeypatch.setenv("MESH_NAMESPACE", bus.namespace)
    module = types.ModuleType("guide_of_metrics")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved through it
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide.md").read_text(), re.S | re.M):
        exec(compile(block, "docs/guide.md", "exec"), module.__dict__)
    registered: list[Any] = []
    monkeypatch.setattr(REGISTRY, "register", registered.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(module.serve_measured)
        await eventually(lambda: registered)
        assert await bus.mesh.call("orders.price", "b-17") == 9.5
        [collector] = registered
        own = CollectorRegistry()
        own.register(collector)
        count = own.get_sample_value
        labels = {"reporter": "destination", "source_service": "web", "destination_service": "orders"}
        await eventually(
            lambda: count("mesh_request_duration_seconds_count", {**labels, "endpoint": "price"}) == 1
        )
        tasks.cancel_scope.cancel()
