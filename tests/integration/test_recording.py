"""Calls recorded on a real server, and tried again: nothing while nobody listens, envelopes while somebody does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nats_mesh import Context, Mesh, RemoteError, Service
from nats_mesh.core.envelope import HIDDEN, RecordedCall
from nats_mesh.errors import CodecError
from nats_mesh.policy import PolicySet, parse
from nats_mesh.policy.whatif.recording import Header, Recording
from nats_mesh.policy.whatif.replay import Candidate, replay
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.telemetry.tap_messages import (
    MAX_PLACES,
    TapCall,
    TapMessage,
    Wish,
    decode_tap,
    encode_tap,
    recorded_call,
)
from nats_mesh.telemetry.tap_sink import TapSink
from nats_mesh.wire.codecs import JSON
from tests.harness import Bus, eventually
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


def shop(version: str = "1.0.0", policies: PolicySet | None = None) -> Service:
    """Something to call."""
    service = Service("shop", version=version, policies=policies)

    @service.endpoint(concurrency=7, idempotent=True)
    async def buy(text: str, ctx: Context) -> str:
        if text == "nothing":
            raise ValueError("nobody sells nothing")
        return f"{ctx.service} {text}"

    @service.endpoint(subject="shop.plain")
    async def plain(text: str) -> str:
        return text

    return service


class Listener:
    """An observer, as `nats-mesh record` is one."""

    def __init__(self, mesh: Mesh, **wish: Any) -> None:
        self.messages: list[TapMessage] = []
        self.refused = 0
        self.wish = Wish(**wish)
        self._mesh = mesh
        client = mesh.client
        client.transport.subscribe(client.subjects.telemetry_of("tap"), self._on_message)

    @property
    def calls(self) -> list[RecordedCall]:
        """Every call that was heard of."""
        return [recorded_call(call, message) for message in self.messages for call in message.calls]

    def _on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        _, namespace, _, _, service, instance = subject.split(".")
        assert reply.startswith(f"_INBOX.{service}.")
        try:
            self.messages.append(decode_tap(payload, service=service, instance=instance, namespace=namespace))
        except CodecError:
            self.refused += 1

    async def want(self, bus: Bus, name: str = "all") -> None:
        """Hold a lease, and see that every instance knows of it."""
        client = self._mesh.client
        client.transport.publish(
            client.subjects.want("tap", name, self._mesh.name),
            JSON.encode(self.wish),
            client.mux.one_way("telemetry"),
        )
        await client.transport.fence()
        for instance in bus.instances:
            await instance.client.transport.fence()


def listened(dispatcher: Dispatcher) -> bool:
    """Whether calls are asked anything."""
    return "tap" in dispatcher.watching.names


async def test_calls_are_told_of_while_somebody_wants_them(bus: Bus) -> None:
    """And not before; with everything that a replay needs, and nothing that was said."""
    instance = await bus.serve(shop())
    listener = Listener(await bus.caller("observer"), headers=None)
    assert await bus.mesh.call("shop.buy", "before", returns=str)
    await listener.want(bus)
    reply = await bus.mesh.request(
        "shop.buy", "tea", returns=str, headers={"Tenant": "acme", "X-Auth-Token": "s3cr3t"}
    )
    assert reply.value == "shop tea"
    with pytest.raises(RemoteError):
        await bus.mesh.call("shop.buy", "nothing", returns=str)
    await eventually(lambda: len(listener.calls) == 2)
    good, bad = listener.calls
    assert (good.service, good.instance, good.version) == ("shop", instance.id, "1.0.0")
    assert (good.endpoint, good.caller, good.route, good.status) == ("buy", "web", "all", "OK")
    assert (good.attempt, good.mirror, good.refused, good.key) == (1, False, "", "")
    assert (good.bytes_in, good.bytes_out) == (len(b'"tea"'), len(b'"shop tea"'))
    assert dict(good.headers) == {"tenant": "acme", "x-auth-token": HIDDEN}
    assert good.concurrency == 7
    assert len(good.trace) == 32
    assert good.at.endswith("Z")
    assert good.duration_s >= good.queue_s >= 0.0
    assert bad.status == "INTERNAL"
    assert sum(message.seen for message in listener.messages) == 2
    assert b"s3cr3t" not in JSON.encode(listener.messages)


async def test_how_a_call_came_is_told(bus: Bus, raw: RawNats) -> None:
    """Directly to an instance, on a subject of the endpoint's own, again, as a copy, and refused."""
    instance = await bus.serve(shop())
    listener = Listener(await bus.caller("observer"))
    await listener.want(bus)
    prefix = f"mesh.{bus.namespace}."
    head = b"Mesh-Timeout-Ms: 2000\r\n"
    for subject, more in (
        (f"{prefix}direct.shop.{instance.id}.buy.raw", b"Mesh-Attempt: 2\r\nMesh-Mirror: 1\r\n"),
        (f"{prefix}rpc.shop.all.buy.raw", b"Mesh-Idempotency-Key: order-7\r\n"),
        (f"{prefix}rpc.shop.all.sell.raw", b""),
        (f"{prefix}rpc.shop.all.buy.raw", b"Mesh-Timeout-Ms: x\r\n"),
        ("shop.plain", b""),
    ):
        raw.publish(subject, b'"tea"', "_INBOX.raw.x.1", more if b"Timeout-Ms: x" in more else head + more)
    await eventually(lambda: len(listener.calls) == 5, lambda: listener.calls)
    direct, keyed, unknown, invalid, plain = sorted(
        listener.calls,
        key=lambda call: (call.route != "direct", not call.key, call.route == "plain", call.endpoint),
    )
    assert (direct.route, direct.attempt, direct.mirror, direct.caller) == ("direct", 2, True, "raw")
    assert (keyed.route, len(keyed.key)) == ("all", 16)
    assert "order-7" not in str(keyed)
    assert (unknown.endpoint, unknown.refused, unknown.status) == ("_OTHER", "unimplemented", "UNIMPLEMENTED")
    assert (invalid.refused, invalid.status) == ("invalid", "INVALID_ARGUMENT")
    assert (plain.route, plain.caller, plain.endpoint) == ("plain", "anonymous", "plain")


async def test_nothing_stays_once_nobody_listens(bus: Bus) -> None:
    """The last lease over, calls are asked nothing any more; what was under way is still told."""
    instance = await bus.serve(shop())
    listener = Listener(await bus.caller("observer"))
    dispatcher, taps = instance.dispatcher, instance._parts.taps
    assert taps is not None
    assert not listened(dispatcher)
    await listener.want(bus)
    assert listened(dispatcher)
    await bus.mesh.call("shop.buy", "tea", returns=str)
    assert all(subject.noted for subject in dispatcher.subjects.known.values())
    taps.close()
    assert not listened(dispatcher)
    assert not dispatcher.subjects.known
    await eventually(lambda: len(listener.calls) == 1)
    await bus.mesh.call("shop.buy", "tea", returns=str)
    await instance.client.transport.fence()
    await bus.callers[-1].client.transport.fence()
    assert (len(listener.calls), taps._seen, taps._batch) == (1, 0, None)


async def test_more_than_was_asked_for_is_counted(bus: Bus) -> None:
    """Above the rate calls are dropped, which costs their callers nothing; the count travels."""
    await bus.serve(shop())
    listener = Listener(await bus.caller("observer"), rate=2.0)
    await listener.want(bus)
    for n in range(20):
        await bus.mesh.call("shop.buy", str(n), returns=str)
    await eventually(lambda: sum(message.seen for message in listener.messages) == 20)
    dropped = sum(message.dropped for message in listener.messages)
    assert dropped > 10
    assert len(listener.calls) + dropped == 20


async def test_a_sample_is_the_same_everywhere(bus: Bus) -> None:
    """Half of the traces, by their ids: two instances choose alike, and two observers get what each asked for."""
    for _ in range(2):
        await bus.serve(shop())
    one = Listener(await bus.caller("half"), sample=0.5, rate=2000.0)
    other = Listener(await bus.caller("tenth"), sample=0.1, rate=2000.0)
    await one.want(bus)
    await other.want(bus)
    for n in range(100):
        await bus.mesh.call("shop.buy", str(n), returns=str)
    await eventually(lambda: sum(message.seen for message in other.messages) == 100)
    assert {message.sample for message in other.messages} == {0.5}
    assert 25 < len(other.calls) < 75
    assert sum(message.dropped for message in other.messages) == 0


async def test_observers_are_bounded_and_hostile_leases_ignored(bus: Bus, raw: RawNats) -> None:
    """What cannot be read starts no recording, and is counted. Whoever comes beyond so many observers is heard: who
    fills the table shuts nobody out, and it grows no further."""
    instance = await bus.serve(shop())
    wants = instance._parts.wants
    assert wants is not None
    subject = f"mesh.{bus.namespace}.telemetry.want.tap.all."
    for body in (b"{", b'{"sample":7}', b"\xff" * 100):
        raw.publish(f"{subject}raw", body, "_INBOX.raw.x.0")
    await eventually(lambda: wants.ignored == 3)
    assert not listened(instance.dispatcher)
    taps = instance._parts.taps
    assert taps is not None
    wishes = [b'{"sample":0.1}'] * MAX_PLACES + [b'{"sample":0.5,"headers":["a"]}'] * 50
    wishes += [b'{"sample":0.2,"headers":["b"],"rate":300}']
    for n, wish in enumerate(wishes):
        raw.publish(f"{subject}o{n}", wish, f"_INBOX.o{n}.x.0")
    await eventually(lambda: taps.wish.rate == 300.0)
    assert (taps.wish.sample, taps.wish.headers) == (0.5, ("a", "b"))
    assert len(taps._wishes) == MAX_PLACES + 1
    assert wants.ignored == 3
    assert listened(instance.dispatcher)


async def test_a_forged_envelope_is_dropped_and_counted(bus: Bus, raw: RawNats) -> None:
    """Whoever speaks on another's subject, for another in the body, or what nobody can read."""
    taken = TapSink(
        recorded_call, namespace=bus.namespace, enforced=True, now=time.monotonic, wish=Wish(headers=None)
    )
    transport = bus.mesh.client.transport
    transport.subscribe(bus.mesh.client.subjects.telemetry_of("tap"), taken.on_message)
    await transport.fence()
    call = TapCall(
        at="2026-01-01T00:00:00Z", endpoint="buy", caller="web", route="all", status="OK", duration_s=0.1
    )
    message = TapMessage(
        instance="i1", service="shop", version="1.0.0", namespace=bus.namespace, seq=4, seen=1, calls=(call,)
    )
    (body,) = encode_tap(message, 100_000)
    subject = f"mesh.{bus.namespace}.telemetry.tap."
    inbox = f"_INBOX.shop.c.{'0' * 32}.0"
    raw.publish(f"{subject}shop.i1", body, inbox)
    await eventually(lambda: taken.counts.shown == 1)
    for to, data, reply in (
        (f"{subject}shop.i1", body, f"_INBOX.thief.c.{'0' * 32}.0"),  # not the publisher's own inbox
        (f"{subject}shop.i1", body, ""),  # an answer of JetStream's, for all anybody knows
        (f"{subject}shop.i2", body, inbox),  # another instance's calls
        (f"{subject}bank.i1", body, f"_INBOX.bank.c.{'0' * 32}.0"),  # another service's
        (f"{subject}shop.i1", b"{}", inbox),
        (f"{subject}shop.i1", body, inbox),  # old news
    ):
        raw.publish(to, data, reply)
    await eventually(lambda: taken.counts.ignored == 6, lambda: taken.counts.ignored)
    assert (taken.counts.shown, taken.counts.ended, taken.counts.lost) == (1, 1, 0)
    raw.publish(f"{subject}shop.i1", body.replace(b'"seq":4', b'"seq":9'), inbox)
    await eventually(lambda: taken.counts.shown == 2)
    assert taken.counts.lost == 4


SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: shop}
spec: {target: {service: shop}, subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}}}
---
"""


def by_tenant(tenant: str) -> str:
    """Policies that send one tenant to version 2."""
    return SUBSETS + (
        "apiVersion: mesh/v1\nkind: Route\nmetadata: {name: shop}\nspec:\n  target: {service: shop}\n  rules:\n"
        f"    - {{match: {{headers: {{tenant: {tenant}}}}}, split: [{{subset: v2}}]}}\n"
        "    - {split: [{subset: v1}]}\n"
    )


async def test_what_was_recorded_can_be_tried(bus: Bus) -> None:
    """The same policies find every call where it really went, and change nothing; others move whom they would move."""
    policies = PolicySet.of(parse(by_tenant("acme")), namespace=bus.namespace)
    v1, v2 = [await bus.serve(shop(version, policies)) for version in ("1.0.0", "2.0.0")]
    web = await bus.caller("shopper", policies=policies)
    listener = Listener(await bus.caller("observer"), headers=("tenant",))
    await listener.want(bus)
    for n in range(12):
        headers = {"tenant": "acme"} if n % 3 == 0 else {"tenant": "globex"} if n % 3 == 1 else {}
        await web.call("shop.buy", str(n), returns=str, headers=headers)
    await eventually(lambda: len(listener.calls) == 12)
    assert {(call.route, call.instance) for call in listener.calls} == {("v1", v1.id), ("v2", v2.id)}
    recording = Recording(
        header=Header(format=1, namespace=bus.namespace, started="2026-01-01T00:00:00Z", headers=("tenant",)),
        calls=tuple(listener.calls),
    )

    def side(text: str) -> Candidate:
        return Candidate.of(parse(text), namespace=bus.namespace)

    assert replay(recording, side(by_tenant("acme")), side(by_tenant("acme"))).same
    moved = replay(recording, side(by_tenant("acme")), side(by_tenant("globex")))
    assert {(group.before, group.after, group.calls) for group in moved.groups} == {
        ("shop.buy/v2", "shop.buy/v1", 4.0),
        ("shop.buy/v1", "shop.buy/v2", 4.0),
    }
    assert moved.affected == 8.0
    trace = moved.groups[0].examples[0].trace
    assert trace in {call.trace for call in listener.calls}
