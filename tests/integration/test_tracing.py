"""Traces on a real server: of Bookinfo with its hops and retries, kept in a stream, and found again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from examples.bookinfo import load
from examples.bookinfo.model import Page, ProductId
from nats_mesh import ApplicationError, CallError, Context, Mesh, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.span_messages import SpanMessage, SpanWish
from nats_mesh.telemetry.span_parts import Span
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.telemetry.spans import Trace, assemble, summary_of, traces_of
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh.wire.subjects import ALL
from nats_mesh_cli.trace_document import document_of
from nats_mesh_cli.trace_finding import Query, look, one_of
from nats_mesh_cli.trace_text import waterfall
from nats_mesh_cli.why_calls import calls_of
from tests.harness import Bus, eventually

pytestmark = pytest.mark.anyio

LONG_AGO = "2020-01-01T00:00:00Z"


def sampling(share: str) -> PolicySet:
    """So many of the traces are kept."""
    text = (
        "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: traces}\n"
        f"spec: {{tracing: {share}, labels: {{team: shop}}}}\n"
    )
    return PolicySet.of(parse(text))


def store_of(mesh: Mesh) -> SpanStore:
    """The stream of the mesh's namespace."""
    client = mesh.client
    return SpanStore(client.subjects, transport=client.transport, mux=client.mux)


@pytest.fixture
async def observer(bus: Bus) -> AsyncIterator[Mesh]:
    """Somebody who looks; the stream that was made for it goes with the test."""
    mesh = await bus.caller("observer")
    yield mesh
    log = store_of(mesh).log
    await log.api(f"STREAM.DELETE.{log.stream}", None, timeout_s=5.0)


def flaky_ratings(fail: int) -> Service:
    """Bookinfo's ratings, which are busy at first: who asks gets another try."""
    service = Service("ratings", version="1.0.0", policies=sampling("100%"))
    left = [fail]

    class Busy(ApplicationError, status="UNAVAILABLE"):
        pass

    @service.endpoint(idempotent=True)
    async def get(ctx: Context, wanted: ProductId) -> dict[str, Any]:
        if left[0]:
            left[0] -= 1
            raise Busy("busy")
        return {"id": wanted.id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}

    return service


class Books:
    """Bookinfo with a version of reviews that asks again, and a browser."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def open(self, share: str, *, fail: int = 0) -> Mesh:
        """Start it; the caller that looks at pages."""
        reviews = Service("reviews", version="2.0.0", policies=sampling(share))

        @reviews.endpoint(idempotent=True)
        async def get(ctx: Context, wanted: ProductId) -> dict[str, Any]:
            await ctx.call("ratings.get", wanted, idempotent=True)
            return {"id": wanted.id, "podname": "p", "clustername": "c", "reviews": []}

        for service in (flaky_ratings(fail), load("details:v1"), reviews, load("productpage:v1")):
            await self.bus.serve(service)
        return await self.bus.caller("browser", policies=sampling(share))


async def found_by(mesh: Mesh, spans: int) -> Trace:
    """The one trace that the stream has, once it has so many spans."""
    while True:
        traces = traces_of(await store_of(mesh).read(since=LONG_AGO))
        if len(traces) == 1 and sum(map(len, traces.values())) >= spans:
            return assemble(next(iter(traces.values())).values())
        await anyio.sleep(0.05)


async def test_a_trace_of_bookinfo_has_its_hops_and_its_retries(bus: Bus, observer: Mesh) -> None:
    """Browser to page to reviews to ratings, each side's view of each call, and both attempts where one failed; with no
    code in any of the services for it."""
    assert await store_of(observer).make()
    browser = await Books(bus).open("100%", fail=1)
    await browser.call("productpage.page", ProductId(), returns=Page)
    with anyio.fail_after(20):
        trace = await found_by(observer, 11)
    shape = [
        f"{'.' * each.depth}{each.span.kind} {each.span.name} {each.span.status}" for each in trace.placed
    ]
    at = shape.index("..client reviews/get OK")
    assert shape[:2] == ["client productpage/page OK", ".server productpage/page OK"]
    assert shape[at : at + 7] == [
        "..client reviews/get OK",
        "...server reviews/get OK",
        "....client ratings/get OK",
        ".....attempt ratings/get UNAVAILABLE",
        "......server ratings/get UNAVAILABLE",
        ".....attempt ratings/get OK",
        "......server ratings/get OK",
    ]
    assert {"..client details/get OK", "...server details/get OK"} <= set(shape)
    summary = summary_of(trace)
    assert (summary.retries, summary.lost, summary.status) == (1, 0, "OK")
    text = waterfall(trace, 100)
    assert "attempt 1 ✗ UNAVAILABLE" in text
    assert "attempt 2" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    (ratings,) = [each for each in calls_of(trace) if each["service"] == "ratings"]
    told = [(step["side"], step["layer"], step["ok"]) for step in ratings["steps"]]
    assert told == [
        ("outbound", "retry", True), ("outbound", "attempt", False), ("outbound", "attempt", True),
        ("inbound", "arrival", True), ("inbound", "handler", False), ("inbound", "arrival", True),
        ("inbound", "handler", True),
    ]  # fmt: skip


async def test_labels_of_policies_stand_on_spans_at_both_ends(bus: Bus, observer: Mesh) -> None:
    """On those of each attempt and on those that travel together, as far as the teller's own policies say so; and
    `trace` shows them."""
    assert await store_of(observer).make()
    browser = await Books(bus).open("100%", fail=1)
    await browser.call("productpage.page", ProductId(), returns=Page)
    with anyio.fail_after(20):
        trace = await found_by(observer, 11)
    tree = document_of(trace)["tree"]
    labels = {(each["kind"], each["member"], each["service"]): each["labels"] for each in tree}
    for key in (
        ("client", "browser", "productpage"), ("server", "reviews", "reviews"), ("client", "reviews", "ratings"),
        ("attempt", "reviews", "ratings"), ("server", "ratings", "ratings"),
    ):  # fmt: skip
        assert labels[key] == {"team": "shop"}, key
    # These two have no policies.
    assert labels["server", "productpage", "productpage"] == labels["server", "details", "details"] == {}


async def test_whoever_looks_first_sees_what_members_remember(bus: Bus, observer: Mesh) -> None:
    """Without a stream nothing was kept but at the members; looking makes the stream, and brings it there."""
    browser = await Books(bus).open("100%")
    await browser.call("productpage.page", ProductId(), returns=Page)
    with pytest.raises(KvAbsentError):
        await store_of(observer).info()
    await eventually(lambda: all(each._parts.tracing.tracing.waiting for each in bus.instances))  # type: ignore[union-attr]
    found = await look(observer, Query())
    (spans,) = found.traces.values()
    assert len(spans) >= 7
    assert any("made the stream" in note for note in found.notes)
    again = await look(observer, Query())
    assert {name: set(spans) for name, spans in again.traces.items()} == {
        name: set(spans) for name, spans in found.traces.items()
    }
    name = next(iter(found.traces))
    assert one_of(again, name[:6]) == again.traces[name]


async def test_the_stream_is_made_once_and_stays_as_it_is(bus: Bus, observer: Mesh) -> None:
    """Bounded in age and bytes, it drops what is oldest."""
    store = store_of(observer)
    with pytest.raises(KvAbsentError):
        await store.read(since=LONG_AGO)
    assert await store.make()
    assert not await store.make()
    assert (await store.info())["messages"] == 0
    said = JSON.decoder(dict)(await store.log.api(f"STREAM.INFO.{store.log.stream}", None, timeout_s=5.0))
    config = said["config"]
    assert (config["storage"], config["discard"], config["max_age"]) == ("memory", "old", 900 * 10**9)
    assert 0 < config["max_bytes"] <= 64 << 20


async def test_who_tells_of_anothers_calls_is_not_believed(bus: Bus, observer: Mesh) -> None:
    """Neither in what is read from the stream, nor live; and it is counted."""
    store = store_of(observer)
    await store.make()
    span = Span(
        trace="1" * 32, id="2" * 16, kind="server", service="bank", endpoint="pay", caller="eve", start_us=1, took_us=1
    )  # fmt: skip
    forged = SpanMessage(
        instance="i", service="eve", version="1.0.0", namespace=bus.namespace, seq=1, spans=(span,)
    )
    subject = observer.client.subjects.telemetry("span", "eve", "i")
    observer.client.transport.publish(subject, JSON.encode(forged), observer.client.mux.one_way("telemetry"))
    observer.client.transport.publish(subject, b"\xff", observer.client.mux.one_way("telemetry"))
    while (await store.info())[
        "messages"
    ] < 2:  # the server answers a fence before its stream has stored them
        await anyio.sleep(0.01)
    assert await store.read(since=LONG_AGO) == []
    assert store.untrusted["malformed"] == 2


async def test_observers_come_and_go_without_a_service_noticing(bus: Bus, observer: Mesh) -> None:
    """Twenty of them, asking for everything, while calls go on: none fails, and afterwards nothing is left of them."""
    browser = await Books(bus).open("0%")
    failed = 0
    async with anyio.create_task_group() as tasks:

        async def watch(number: int) -> None:
            client = observer.client
            want = client.subjects.want("span", ALL, f"observer{number}")
            with anyio.move_on_after(0.2 + 0.05 * number):
                await hold_lease(
                    want, JSON.encode(SpanWish(sampling=1.0)), transport=client.transport, mux=client.mux
                )

        for number in range(20):
            tasks.start_soon(watch, number)
        for _ in range(100):
            try:
                await browser.call("productpage.page", ProductId(), returns=Page)
            except CallError:
                failed += 1
    assert failed == 0
    await bus.at_rest()
