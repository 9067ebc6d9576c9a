"""Calls on a real server, seen from the wire: exactly which messages pass, with which headers, and who may join in."""

from __future__ import annotations

import json
import re
from typing import Any

import anyio
import msgspec
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from nats_mesh import (
    ApplicationError,
    CallError,
    Context,
    Executed,
    NoInstancesError,
    RemoteError,
    Service,
    Status,
)
from tests.harness import PATIENCE_S, Bus, eventually, flushed
from tests.integration.victim import POLICIES
from tests.rawnats import RawMessage, RawNats, header_pairs, raw_nats

pytestmark = pytest.mark.anyio

INBOX = re.compile(r"_INBOX\.web\.([A-Za-z0-9]{22})\.([0-9a-f]{32})\.(\d+)")


class Order(msgspec.Struct):
    """A value."""

    sku: str


def _orders(**options: Any) -> Service:
    service = Service("orders", version="1.2.0")

    @service.endpoint(**options)
    async def place(order: Order) -> str:
        return order.sku

    @service.endpoint()
    async def fail(order: Order) -> str:
        raise ApplicationError("no\r\nX-Forged: ☺ 1", status=Status.NOT_FOUND, details={"sku": order.sku})

    @service.endpoint()
    async def wait() -> None:
        await anyio.sleep_forever()

    return service


def _of(tap: RawNats, bus: Bus, kind: str) -> list[RawMessage]:
    return [m for m in tap.messages if m.subject.startswith(f"mesh.{bus.namespace}.{kind}.")]


async def test_a_call_is_two_messages(bus: Bus, tap: RawNats) -> None:
    """A request and its reply, on exactly these subjects, with exactly these headers, and nothing else."""
    instance = await bus.serve(_orders(timeout=7.0))
    await bus.mesh.call("orders.place", Order("b-17"))
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    assert request.subject == f"mesh.{bus.namespace}.rpc.orders.all.place.web"
    assert request.payload == b'{"sku":"b-17"}'
    headers = dict(header_pairs(request.headers))
    assert set(headers) == {"Mesh-Timeout-Ms", "Mesh-Sent-Ms", "traceparent"}
    assert 4000 <= int(headers["Mesh-Timeout-Ms"]) < 5000
    assert int(headers["Mesh-Sent-Ms"]) > 0
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", headers["traceparent"])
    found = INBOX.fullmatch(request.reply)
    assert found is not None
    assert found[1] == bus.mesh.client.transport.connection
    [reply] = [m for m in tap.messages if m.subject == request.reply]
    assert (reply.reply, reply.payload) == ("", b'"b-17"')
    assert header_pairs(reply.headers) == [("Mesh-Instance", instance.id)]
    inboxes = f"_INBOX.web.{found[1]}."
    presence = (f"mesh.{bus.namespace}.presence.orders.", f"mesh.{bus.namespace}.audit.presence.orders.")
    known = (request.subject, *presence, inboxes, "$SRV.INFO.orders", POLICIES)
    assert [m.subject for m in tap.messages if not m.subject.startswith(known)] == []


async def test_an_inbox_secret_belongs_to_one_destination(bus: Bus, tap: RawNats) -> None:
    """Calls to one service share a secret, no two services and no two connections do; every reply has its number."""
    await bus.serve(_orders())
    other = Service("other", version="1.0.0")

    @other.endpoint()
    async def place() -> None: ...

    await bus.serve(other)
    second = await bus.caller("web")
    for caller, target in (
        (bus.mesh, "orders"),
        (bus.mesh, "orders"),
        (bus.mesh, "other"),
        (second, "orders"),
    ):
        value = Order("x") if target == "orders" else None
        await caller.call(f"{target}.place", value)
    await tap.flush()
    inboxes = [INBOX.fullmatch(message.reply) for message in _of(tap, bus, "rpc")]
    assert all(inboxes)
    first, same, elsewhere, another = [found.groups() for found in inboxes if found is not None]
    assert first[:2] == same[:2]
    assert first[2] != same[2]
    assert first[0] == elsewhere[0]
    assert len({first[1], elsewhere[1], another[1]}) == 3
    assert another[0] != first[0]


async def test_an_error_on_the_wire(bus: Bus, tap: RawNats) -> None:
    """The headers are a copy on one clean line each; the body has all of it."""
    instance = await bus.serve(_orders())
    with pytest.raises(RemoteError):
        await bus.mesh.call("orders.fail", Order("b-17"))
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    [reply] = [m for m in tap.messages if m.subject == request.reply]
    assert header_pairs(reply.headers) == [
        ("Nats-Service-Error", "no X-Forged: ☺ 1"),
        ("Nats-Service-Error-Code", "404"),
        ("Mesh-Status", "NOT_FOUND"),
        ("Mesh-Instance", instance.id),
    ]
    assert json.loads(reply.payload) == {
        "status": "NOT_FOUND", "message": "no\r\nX-Forged: ☺ 1", "details": {"sku": "b-17"},
    }  # fmt: skip


async def test_a_refusal_on_the_wire(bus: Bus, tap: RawNats) -> None:
    """What did not run says so in Mesh-Refused, with a status that foreign clients understand."""
    await bus.serve(_orders())
    with pytest.raises(RemoteError):
        await bus.mesh.call("orders.missing")
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    [reply] = [m for m in tap.messages if m.subject == request.reply]
    headers = dict(header_pairs(reply.headers))
    assert (headers["Mesh-Status"], headers["Mesh-Refused"]) == ("UNIMPLEMENTED", "unimplemented")
    assert headers["Nats-Service-Error-Code"] == "501"


async def test_a_cancellation_on_the_wire(bus: Bus, tap: RawNats) -> None:
    """Giving up is one message to the service's cancel subject; its body is the attempt's inbox, its reply our own."""
    instance = await bus.serve(_orders())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.mesh.call, "orders.wait")
        await eventually(lambda: instance.dispatcher.in_flight == 1)
        tasks.cancel_scope.cancel()
    await bus.at_rest()
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    [cancel] = _of(tap, bus, "cancel")
    assert cancel.subject == f"mesh.{bus.namespace}.cancel.orders.web"
    assert cancel.payload.decode() == request.reply
    assert cancel.headers == b""
    assert INBOX.fullmatch(cancel.reply)
    assert cancel.reply.rpartition(".")[0] == request.reply.rpartition(".")[0]
    assert cancel.reply.endswith(".0")


async def test_options_on_the_wire(bus: Bus, tap: RawNats) -> None:
    """Timeout, key, priority, codec and headers of a call stand where the contract says."""
    await bus.serve(_orders())
    await bus.mesh.call(
        "orders.place",
        Order("x"),
        timeout=1.5,
        idempotency_key="k-1",
        priority="sheddable",
        codec="msgpack",
        headers={"x-a": ["1", "2"], "x-b-bin": b"\x00", "baggage": "a=1"},
    )
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    pairs = header_pairs(request.headers)
    assert 1000 <= int(dict(pairs)["Mesh-Timeout-Ms"]) <= 1500
    assert [pair for pair in pairs if pair[0] not in ("Mesh-Timeout-Ms", "Mesh-Sent-Ms", "traceparent")] == [
        ("Mesh-Idempotency-Key", "k-1"),
        ("Mesh-Priority", "sheddable"),
        ("content-type", "application/msgpack"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b-bin", "AA=="),
        ("baggage", "a=1"),
    ]
    assert msgspec.msgpack.decode(request.payload) == {"sku": "x"}
    [reply] = [m for m in tap.messages if m.subject == request.reply]
    assert dict(header_pairs(reply.headers))["content-type"] == "application/msgpack"


async def test_a_declared_timeout_becomes_the_callers_default(bus: Bus, tap: RawNats) -> None:
    """What an endpoint declares is learnt in the background; the argument of a call still wins."""
    await bus.serve(_orders(timeout=2.0))
    await bus.mesh.call("orders.place", Order("x"))
    await eventually(lambda: bus.mesh.client._targets["orders.place"].timeout_s == 2.0)
    await bus.mesh.call("orders.place", Order("x"))
    await bus.mesh.call("orders.place", Order("x"), timeout=9.0)
    await tap.flush()
    times = [int(dict(header_pairs(m.headers))["Mesh-Timeout-Ms"]) for m in _of(tap, bus, "rpc")]
    assert 4000 <= times[0] < 5000
    assert 1000 <= times[1] < 2000
    assert 8000 <= times[2] < 9000


async def test_the_timeout_of_the_function_is_known_at_the_first_call(bus: Bus, tap: RawNats) -> None:
    """Called by the function, an endpoint's timeout counts from the start, and nobody is asked for it."""
    service = _orders(timeout=2.0)
    await bus.serve(service)
    await bus.mesh.call(service.endpoints["place"].handler, Order("x"))
    await tap.flush()
    [request] = _of(tap, bus, "rpc")
    assert int(dict(header_pairs(request.headers))["Mesh-Timeout-Ms"]) < 2000
    assert not [m for m in tap.messages if m.subject == "$SRV.INFO.orders"]


async def test_a_call_to_one_instance(bus: Bus) -> None:
    """Each instance answers on its direct subject, and only the one that is meant does."""
    instances = [await bus.serve(_orders()) for _ in range(3)]
    async with raw_nats(bus.url) as raw:
        for instance in instances:
            subject = f"mesh.{bus.namespace}.direct.orders.{instance.id}.place.anonymous"
            reply = await raw.request(subject, b'{"sku":"x"}')
            assert dict(header_pairs(reply.headers))["Mesh-Instance"] == instance.id
        reply = await raw.request(f"mesh.{bus.namespace}.direct.orders.nobody.place.anonymous", b"{}")
        assert reply.headers.startswith(b"NATS/1.0 503")


# -- plain NATS subjects ------------------------------------------------------------------------------


async def test_a_plain_subject_can_be_called(bus: Bus) -> None:
    """Any responder that speaks no mesh at all: JSON, text, nothing, with and without headers."""
    client = await nats.connect(bus.url)
    seen: list[Any] = []
    try:

        async def answer(message: Any) -> None:
            seen.append((message.data, dict(message.headers or {})))
            await message.respond(message.data)

        await client.subscribe(f"{bus.namespace}.plain.echo", cb=answer)
        await flushed(client)
        target = f"nats://{bus.namespace}.plain.echo"
        assert await bus.mesh.call(target, {"a": 1}) == {"a": 1}
        assert await bus.mesh.call(target, {"sku": "x"}, returns=Order) == Order("x")
        assert await bus.mesh.call(target, b"raw \xff", returns=bytes) == b"raw \xff"
        assert await bus.mesh.call(target) is None
        reply = await bus.mesh.request(target, 7)
        assert (reply.value, reply.instance) == (7, "")
        assert seen[0][0] == b'{"a":1}'
        assert "Mesh-Timeout-Ms" in seen[0][1]
    finally:
        await client.close()


async def test_a_plain_answer_that_is_not_json_is_handed_over_as_it_is(bus: Bus) -> None:
    """Without a content type and without a wish of the caller, bytes that are no JSON are bytes."""
    async with raw_nats(bus.url, f"{bus.namespace}.plain") as raw, anyio.create_task_group() as tasks:

        async def answer() -> None:
            request = await raw.next(f"{bus.namespace}.plain")
            raw.publish(request.reply, b"not json")

        tasks.start_soon(answer)
        assert await bus.mesh.call(f"nats://{bus.namespace}.plain", timeout=PATIENCE_S) == b"not json"


async def test_a_plain_subject_that_nobody_serves(bus: Bus) -> None:
    """The server's no-responders is known at once and names the subject."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoInstancesError) as caught:
        await bus.mesh.call(f"nats://{bus.namespace}.nobody", timeout=1000.0)
    assert caught.value.executed is Executed.NO
    assert str(caught.value) == f"{bus.namespace}.nobody: nobody listens there (UNAVAILABLE)"


@pytest.mark.parametrize(
    ("code", "status"), [(404, Status.NOT_FOUND), (408, Status.UNKNOWN), (503, Status.UNAVAILABLE)]
)
async def test_a_status_line_of_the_server_is_no_value(bus: Bus, code: int, status: Status) -> None:
    """JetStream answers misses with a status line and no body: that is an error, not an empty success."""
    async with raw_nats(bus.url, f"{bus.namespace}.plain") as raw, anyio.create_task_group() as tasks:

        async def answer() -> None:
            request = await raw.next(f"{bus.namespace}.plain")
            block = f"NATS/1.0 {code} Message Not Found\r\n\r\n".encode()
            raw.send(f"HPUB {request.reply} {len(block)} {len(block)}\r\n".encode() + block + b"\r\n")

        tasks.start_soon(answer)
        with pytest.raises(CallError) as caught:
            await bus.mesh.call(f"nats://{bus.namespace}.plain", timeout=PATIENCE_S)
    assert caught.value.status is status


def _plain_service(bus: Bus, **options: Any) -> Service:
    service = Service("legacy", version="1.0.0")

    @service.endpoint(subject=f"{bus.namespace}.legacy.price", **options)
    async def price(sku: str, ctx: Context) -> list[str]:
        return [sku, ctx.caller]

    return service


async def test_an_endpoint_serves_a_plain_subject_as_well(bus: Bus) -> None:
    """Clients of an existing system reach it under the old subject, the mesh under its name; nobody is named there."""
    await bus.serve(_plain_service(bus))
    assert await bus.mesh.call("legacy.price", "b-17") == ["b-17", "web"]
    assert await bus.mesh.call(f"nats://{bus.namespace}.legacy.price", "b-17") == ["b-17", "anonymous"]
    async with raw_nats(bus.url) as raw:
        reply = await raw.request(f"{bus.namespace}.legacy.price", b'"b-17"')
    assert json.loads(reply.payload) == ["b-17", "anonymous"]


async def test_instances_share_a_plain_subject_by_its_queue(bus: Bus) -> None:
    """In the queue group of the existing system one member answers, be it ours or the old one."""
    for _ in range(2):
        await bus.serve(_plain_service(bus, queue="workers"))
    answered: dict[str, int] = {}
    async with raw_nats(bus.url) as raw:
        for _ in range(40):
            reply = await raw.request(f"{bus.namespace}.legacy.price", b'"x"')
            who = dict(header_pairs(reply.headers))["Mesh-Instance"]
            answered[who] = answered.get(who, 0) + 1
        await raw.flush()
        assert len([m for m in raw.messages if m.subject.startswith("_INBOX.")]) == 40
    assert set(answered) == {instance.id for instance in bus.instances}


async def test_jetstream_may_push_to_a_plain_subject(bus: Bus) -> None:
    """A message that JetStream delivers runs the handler; its acknowledgement subject is not taken for an inbox."""
    seen: list[str] = []
    done = anyio.Event()
    service = Service("legacy", version="1.0.0")

    @service.endpoint(subject=f"{bus.namespace}.push")
    async def take(value: str) -> str:
        seen.append(value)
        done.set()
        return "+TERM would be an acknowledgement"

    await bus.serve(service)
    client = await nats.connect(bus.url)
    try:
        stream, js = f"S{bus.namespace}"[:60], client.jetstream()
        await js.add_stream(StreamConfig(name=stream, subjects=[f"{bus.namespace}.in"]))
        await js.publish(f"{bus.namespace}.in", b'"pushed"')
        await js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name="push",
                deliver_subject=f"{bus.namespace}.push",
                deliver_group="q",
                ack_policy=AckPolicy.EXPLICIT,
            ),
        )
        with anyio.fail_after(PATIENCE_S):
            await done.wait()
        await bus.at_rest()
        await flushed(client)
        state = await js.consumer_info(stream, "push")
        assert (state.num_ack_pending, state.num_redelivered) == (1, 0), (
            "nothing was acknowledged in its name"
        )
        await js.delete_stream(stream)
    finally:
        await client.close()
    assert seen == ["pushed"]


# -- leaving ------------------------------------------------------------------------------------------


async def test_an_instance_that_leaves_loses_no_call(bus: Bus) -> None:
    """While calls run, one of two instances leaves and another joins, again and again: every call is answered."""
    service = _orders()
    await bus.serve(service)
    failed: list[BaseException] = []
    answered = 0
    stop = False

    async def load() -> None:
        nonlocal answered
        while not stop:
            try:
                await bus.mesh.call("orders.place", Order("x"))
                answered += 1
            except CallError as error:
                failed.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(load)
        for _ in range(10):
            newcomer = await bus.serve(service)
            before = answered
            await eventually(lambda before=before: answered > before + 20)  # type: ignore[misc]  # a default holds what the loop's variable is now
            leaving = bus.instances.pop(0)
            assert leaving is not newcomer
            await leaving.__aexit__(None, None, None)
        stop = True
    assert failed == []
    assert answered > 200
