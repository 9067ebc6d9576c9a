"""Taps of a whole instance in virtual time: what policies show, who is written down, and what many observers cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nats_mesh import Context, RemoteError, Service
from nats_mesh.audit.records import TapRecord, Writer, decode_record
from nats_mesh.core.envelope import HIDDEN
from nats_mesh.core.tap_filter import Filter
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.tapping import RECORDS_PER_S
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.tap_feed import SeenCall, TapFeed
from nats_mesh.telemetry.tap_messages import MAX_PLACES
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.testing.virtual import LoopClock
from nats_mesh.wire.ids import new_id

ORDER = {"sku": "b-17", "card": {"number": "4929"}, "password": "hunter2"}


def telemetry(tap: str, target: str = "service: shop", name: str = "shop") -> str:
    """A policy on taps."""
    head = f"apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {{name: {name}}}\n"
    return f"{head}spec: {{target: {{{target}}}, tap: {tap}}}\n"


def shop(*documents: str) -> Service:
    """Something to call, under these policies."""
    policies = PolicySet.of(parse("---\n".join(documents)), namespace="default") if documents else None
    service = Service("shop", version="1.0.0", policies=policies)

    @service.endpoint()
    async def buy(order: dict[str, Any], ctx: Context) -> dict[str, Any]:
        if order.get("sku") == "none":
            raise ValueError("nothing left")
        return {"id": 7, "token": "t0p"}

    @service.endpoint()
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    return service


def run(service: Service, work: Callable[[MemoryMesh], Awaitable[None]]) -> None:
    """``work`` with that service, in virtual time."""

    async def main() -> None:
        async with MemoryMesh(service) as mesh:
            await work(mesh)

    run_virtual(main)


async def seen(
    mesh: MemoryMesh, work: Callable[[], Awaitable[None]], **wish: Any
) -> tuple[list[SeenCall], TapFeed]:
    """The calls that an observer with that wish sees while ``work`` is done."""
    async with TapFeed(mesh.mesh, clock=LoopClock(), **wish) as feed:
        await asyncio.sleep(0.1)
        await work()
        await asyncio.sleep(0.5)
        return feed.taken(), feed


def test_filters_are_applied_at_the_instance() -> None:
    """What nobody asked for is not sent; what was asked for comes with its facts."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            await mesh.call("shop.buy", ORDER, headers={"tenant": "acme"})
            await mesh.call("shop.slow", 0.3)
            with pytest.raises(RemoteError):
                await mesh.call("shop.buy", {"sku": "none"})

        mesh.bus.recorded = []
        found, feed = await seen(mesh, calls, only=Filter(failed=True))
        assert [(call.endpoint, call.status) for call in found] == [("buy", "INTERNAL")]
        assert (feed.counts.ended, feed.counts.shown, feed.counts.left_out, feed.older) == (3, 1, 0, set())
        sent = b"".join(
            [payload for subject, _, _, payload in mesh.bus.recorded if ".telemetry.tap." in subject]
        )
        assert (sent.count(b"INTERNAL"), sent.count(b'"endpoint":"slow"')) == (1, 0)
        for only, endpoints in (
            (Filter(slow_s=0.2), ["slow"]),
            (Filter(headers=(("tenant", "acme"),)), ["buy"]),
            (Filter(headers=(("tenant", "acme"),), failed=True), []),
            (Filter(callers=("nobody",)), []),
            (Filter(), ["buy", "slow", "buy"]),
        ):
            found, _ = await seen(mesh, calls, only=only)
            assert [call.endpoint for call in found] == endpoints
        found, feed = await seen(mesh, calls, targets={"shop": ("slow",), "other": ()})
        assert [call.endpoint for call in found] == ["slow"]
        assert feed.counts.ended == 1, "of what was asked for, not of all"
        found, feed = await seen(mesh, calls, targets={"shop": ("buy", "slo")}, only=Filter(failed=True))
        assert (len(found), feed.counts.ended) == (1, 2)
        found, _ = await seen(mesh, calls, targets={"other": ()})
        assert found == []

    run(shop(), work)


def test_two_observers_of_one_name_get_what_each_asked_for() -> None:
    """Their connections tell them apart, so that neither wish replaces the other."""

    async def work(mesh: MemoryMesh) -> None:
        (instance,) = mesh.instances
        one, two = Filter(failed=True), Filter(slow_s=0.2)
        async with (
            TapFeed(mesh.mesh, only=one),
            mesh.client(mesh.mesh.name) as other,
            TapFeed(other, only=two),
        ):
            await asyncio.sleep(0.1)
            taps = instance._parts.taps
            assert taps is not None
            assert {held.wish.only for held in taps._wishes} == {one, two}
            assert {held.name for held in taps._wishes} == {mesh.mesh.name}

    run(shop(), work)


def test_who_leaves_wants_nothing_any_more() -> None:
    """At once, though the lease runs on: no call is looked at for it, and no payload told."""

    async def work(mesh: MemoryMesh) -> None:
        (instance,) = mesh.instances
        async with TapFeed(mesh.mesh, targets={"shop": ("buy",)}, body=100, why="ticket 7"):
            await asyncio.sleep(0.1)
            await mesh.call("shop.buy", ORDER)
            await asyncio.sleep(0.5)
        mesh.bus.recorded = []
        await mesh.mesh.client.transport.fence()
        await mesh.call("shop.buy", ORDER)
        await asyncio.sleep(0.5)
        taps = instance._parts.taps
        assert taps is not None
        assert [held.wish.body for held in taps._wishes] == [0]
        told = [payload for subject, _, _, payload in mesh.bus.recorded if ".telemetry.tap." in subject]
        assert b"".join(told).count(b'"endpoint"') == 0

    run(shop(telemetry("{payloads: true}")), work)


def test_payloads_are_shown_where_a_policy_and_the_observer_say_so() -> None:
    """With what must not be seen hidden; the observer is written down before, with its reason."""

    async def work(mesh: MemoryMesh) -> None:
        mesh.bus.recorded = []

        async def calls() -> None:
            await mesh.call("shop.buy", ORDER)
            await mesh.call("shop.slow", 0.0)
            with pytest.raises(RemoteError):
                await mesh.call("shop.buy", {"sku": "none"})

        found, feed = await seen(
            mesh, calls, body=1000, why="ticket 7", only=Filter(callers=(mesh.mesh.name,))
        )
        buy, slow, failed = found
        assert buy.sent is not None
        assert json.loads(buy.sent.text) == {"sku": "b-17", "card": {"number": HIDDEN}, "password": HIDDEN}
        assert buy.answered is not None
        assert json.loads(buy.answered.text) == {"id": 7, "token": HIDDEN}
        assert (slow.sent, slow.answered, slow.silent) == (None, None, True)
        assert failed.answered is not None
        assert json.loads(failed.answered.text)["status"] == "INTERNAL"
        assert feed.counts.silent == 1
        ((subject, body),) = [
            (subject, payload) for subject, _, _, payload in mesh.bus.recorded if ".audit.tap." in subject
        ]
        (instance,) = mesh.instances
        assert subject == f"mesh.default.audit.tap.shop.{instance.id}"
        record = decode_record(body, writer=Writer("tap", "shop", instance.id), namespace="default")
        assert isinstance(record, TapRecord)
        assert (record.who, record.why, record.characters) == (mesh.mesh.name, "ticket 7", 1000)
        assert record.calls == f"caller {mesh.mesh.name}"
        (event,) = [each for each in instance.events.recent if each.kind == EventKind.TAP_PAYLOADS]
        assert "ticket 7" in event.detail
        everything = b"".join(
            [payload for subject, _, _, payload in mesh.bus.recorded if ".telemetry." in subject]
        )
        assert b"4929" not in everything
        assert b"hunter2" not in everything

    run(
        shop(telemetry("{payloads: true, redactFields: [card.number]}", "service: shop, endpoints: [buy]")),
        work,
    )


@pytest.mark.parametrize(
    ("documents", "wish"),
    [
        ((), {"body": 1000, "why": "ticket 7"}),
        ((telemetry("{payloads: true}"),), {"body": 0, "why": "ticket 7"}),
        ((telemetry("{payloads: true}"),), {"body": 1000, "why": "  "}),
        ((telemetry("{payloads: false}"),), {"body": 1000, "why": "ticket 7"}),
    ],
)
def test_without_either_no_payload_leaves_the_instance(
    documents: tuple[str, ...], wish: dict[str, Any]
) -> None:
    """And nobody is written down for what nobody sees."""

    async def work(mesh: MemoryMesh) -> None:
        mesh.bus.recorded = []

        async def calls() -> None:
            await mesh.call("shop.buy", ORDER)

        found, _ = await seen(mesh, calls, **wish)
        assert [(call.sent, call.answered) for call in found] == [(None, None)]
        assert not [subject for subject, *_ in mesh.bus.recorded if ".audit.tap." in subject]
        told = b"".join([payload for subject, _, _, payload in mesh.bus.recorded if ".telemetry." in subject])
        assert b"b-17" not in told

    run(shop(*documents), work)


def test_who_asked_for_none_gets_none_though_another_did() -> None:
    """An observer of the same calls who gave no reason hands out no payloads."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            await mesh.call("shop.buy", ORDER)

        async with mesh.client("ann") as ann, TapFeed(ann) as other:
            found, _ = await seen(mesh, calls, body=1000, why="ticket 7")
            assert found[0].sent is not None
            assert [(call.sent, call.answered) for call in other.taken()] == [(None, None)]

    run(shop(telemetry("{payloads: true}")), work)


def test_who_cannot_be_written_down_sees_nothing() -> None:
    """A flood of observers who want payloads gets as many of them as records may be written, and calls go on."""

    async def work(mesh: MemoryMesh) -> None:
        (instance,) = mesh.instances
        taps = instance._parts.taps
        assert taps is not None
        client, told = mesh.mesh.client, 0
        subject = client.subjects.want("tap", "shop", mesh.mesh.name)
        mesh.bus.recorded = []
        for n in range(200):
            inbox = f"_INBOX.{mesh.mesh.name}.{new_id()}.{n:032x}.0"
            client.transport.publish(subject, b'{"body":100,"why":"flood"}', inbox)
            await asyncio.sleep(0.01)
            await mesh.call("shop.buy", ORDER)
        told = len([subject for subject, *_ in mesh.bus.recorded if ".audit.tap." in subject])
        assert 1 <= told <= 16 + 3 * RECORDS_PER_S
        assert len(taps._wishes) <= MAX_PLACES + 1

    run(shop(telemetry("{payloads: true}")), work)


def test_a_policy_may_show_nothing_at_all() -> None:
    """Of an endpoint whose tap is off nobody hears; how many such calls were asked for is said."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            await mesh.call("shop.buy", ORDER)
            await mesh.call("shop.slow", 0.0)
            await mesh.call("shop.slow", 0.0)

        found, feed = await seen(mesh, calls)
        assert [call.endpoint for call in found] == ["buy"]
        assert (feed.counts.withheld, feed.counts.ended) == (2, 3)

    run(shop(telemetry("off", "service: shop, endpoints: [slow]")), work)


def test_headers_that_a_policy_names_are_hidden() -> None:
    """From whoever asks for them, and whoever filters by them."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            await mesh.call("shop.buy", ORDER, headers={"X-Card": "4929", "tenant": "acme"})

        found, _ = await seen(mesh, calls, headers=None)
        assert dict(found[0].headers) == {"x-card": HIDDEN, "tenant": "acme"}
        found, _ = await seen(mesh, calls, only=Filter(headers=(("x-card", "4929"),)))
        assert found == []

    run(shop(telemetry("{redact: [X-Card]}")), work)


def test_a_policy_bounds_what_an_instance_tells() -> None:
    """However much observers ask for; what is above it is counted."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            for _ in range(40):
                await mesh.call("shop.buy", ORDER)
                await asyncio.sleep(0.05)

        found, feed = await seen(mesh, calls, rate_per_s=2000.0)
        assert 20 <= len(found) <= 26, "2 s at 10 a second, and the burst of half a second"
        assert feed.counts.capped == 40 - len(found)

    run(shop(telemetry("{rate: 10/s}")), work)


def test_who_wants_much_takes_no_room_from_who_wants_little() -> None:
    """Each wish has a rate of its own: a rare error is told though everything else has found no room."""

    async def work(mesh: MemoryMesh) -> None:
        async def calls() -> None:
            for n in range(100):
                if n % 20 == 19:
                    with pytest.raises(RemoteError):
                        await mesh.call("shop.buy", {"sku": "none"})
                else:
                    await mesh.call("shop.buy", ORDER)

        async with mesh.client("ann") as ann, TapFeed(ann, rate_per_s=2.0):
            found, _ = await seen(mesh, calls, only=Filter(failed=True), rate_per_s=100.0)
            assert len(found) == 5

    run(shop(), work)


def test_thousands_of_wishes_leave_nothing_behind() -> None:
    """Whatever is in them; calls are answered meanwhile, and five seconds later nobody is asked anything."""

    async def work(mesh: MemoryMesh) -> None:
        (instance,) = mesh.instances
        taps, wants, client = instance._parts.taps, instance._parts.wants, mesh.mesh.client
        assert taps is not None
        assert wants is not None
        bodies = [b"", b"{", b"[" * 10_000, b'{"rate":1e308}', b'{"only":{"callers":["a b"]}}', b"\xff" * 20_000,
                  b'{"only":{"headers":[["authorization","x"]]}}', b'{"sample":0.001}']  # fmt: skip
        for n in range(4000):
            subject = client.subjects.want("tap", "shop", f"o{n}")
            client.transport.publish(subject, bodies[n % len(bodies)], f"_INBOX.o{n}.{n}.{n:032x}.0")
            if n % 500 == 0:
                await client.transport.fence()
                assert await mesh.call("shop.buy", ORDER) == {"id": 7, "token": "t0p"}
                assert len(taps._wishes) <= MAX_PLACES + 1
        await client.transport.fence()
        assert wants.ignored == 4000 * 5 // 8
        assert "tap" in instance.dispatcher.watching.names
        await asyncio.sleep(LEASE_S + 1.0)
        assert (len(taps._wishes), "tap" in instance.dispatcher.watching.names) == (0, False)

    run(shop(), work)


def test_an_observer_that_takes_slowly_loses_the_oldest_and_knows_how_many() -> None:
    """What waits is bounded, whatever comes."""

    async def work(mesh: MemoryMesh) -> None:
        async with TapFeed(mesh.mesh, rate_per_s=2000.0) as feed:
            feed._room = 10
            await asyncio.sleep(0.1)
            for n in range(30):
                await mesh.call("shop.buy", {"n": n})
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            calls = feed.taken()
            assert (len(calls), feed.counts.shown, feed.counts.slow) == (10, 10, 20)

    run(shop(), work)
