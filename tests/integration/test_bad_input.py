"""Bad input on a real server: each piece gets a typed error or is dropped and counted, and nothing else happens.

After every case the same connections go on working: ``bus`` checks that at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import nats
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from nats_mesh import (
    CallError,
    CodecError,
    ConfigError,
    Context,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    Mesh,
    NoInstancesError,
    OverloadedError,
    PermissionDeniedError,
    Refused,
    RemoteError,
    Service,
    Status,
)
from nats_mesh.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.wire import mux
from tests.harness import PATIENCE_S, Bus, eventually, open_bus
from tests.rawnats import RawMessage, RawNats, header_pairs, raw_nats

pytestmark = pytest.mark.anyio

BAD_NAMES = [
    "", " ", "a b", "a.b", "*", ">", "a.*", "zażółć", "☺", "a\r\nb", "a\n", "\x00", "\t", "a/b", "a" * 64, "a" * 10_000,
    "$SRV", "_INBOX.x", "all", "anonymous", "a\r\nPUB x 0\r\n\r\n",
]  # fmt: skip
OTHERS_INBOX = "_INBOX.other.AAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef.1"


class Order(msgspec.Struct):
    """A value."""

    sku: str
    count: int = 1


class Victim:
    """A service under attack, and what its handlers were given."""

    def __init__(self, instance: Instance, seen: list[Any]) -> None:
        self.instance = instance
        self.seen = seen

    @property
    def dropped(self) -> dict[str, int]:
        """What was not believed, by reason."""
        return dict(self.instance.dispatcher.dropped)


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server; whatever a test did, its connections still work and nothing is left of its calls."""
    with anyio.fail_after(60):
        async with open_bus(request, "nats", mesh_namespace) as bus:
            yield bus
            await bus.at_rest()
            transports = [mesh.client.transport for mesh in bus.callers] + [
                i.transport for i in bus.instances
            ]
            for transport in transports:
                await transport.fence()
                assert transport.stats.reconnects == 0
                assert transport.stats.dropped_handler_errors == 0
            for instance in bus.instances:
                with contextlib.suppress(RemoteError):
                    assert await bus.mesh.call(f"{instance.service.name}.still_there", returns=bool)


@pytest.fixture
async def raw(bus: Bus) -> AsyncIterator[RawNats]:
    """A client that sends whatever it is told to."""
    async with raw_nats(bus.url) as raw:
        yield raw


@pytest.fixture
async def tap(bus: Bus) -> AsyncIterator[RawNats]:
    """Everything that passes on the server."""
    async with raw_nats(bus.url, ">") as tap:
        yield tap


async def _victim(bus: Bus, **options: Any) -> Victim:
    seen: list[Any] = []
    service = Service("victim", version="1.0.0")

    @service.endpoint(subject=f"{bus.namespace}.plain")
    async def place(order: Order) -> str:
        seen.append(order)
        return order.sku

    @service.endpoint()
    async def anything(value: Any, ctx: Context) -> None:
        seen.append(value)
        ctx.reply_headers["x-seen"] = [f"{name}" for name in ctx.headers if name.startswith("x")]

    @service.endpoint()
    async def wait(ctx: Context) -> None:
        seen.append(ctx.caller)
        await anyio.sleep_forever()

    @service.endpoint()
    async def still_there() -> bool:
        return True

    return Victim(await bus.serve(service, **options), seen)


def _rpc(bus: Bus, endpoint: str, caller: str = "anonymous") -> str:
    return f"mesh.{bus.namespace}.rpc.victim.all.{endpoint}.{caller}"


async def _settled(bus: Bus, raw: RawNats) -> None:
    """Return when what ``raw`` sent has been handled by every instance."""
    await raw.flush()
    for instance in bus.instances:
        await instance.transport.fence()


def _by_mesh(tap: RawNats, bus: Bus) -> list[RawMessage]:
    """What passed that neither presence nor $SRV and its answers explain."""
    quiet = ("$SRV.", f"mesh.{bus.namespace}.presence.")
    return [
        message
        for message in tap.messages
        if not message.subject.startswith(quiet) and b'"io.nats.micro.v1.' not in message.payload
    ]


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
async def test_bad_names_never_reach_the_wire(bus: Bus, tap: RawNats, name: str) -> None:
    """A bad name of a service, endpoint, caller, namespace or instance is refused with its reason, unsent."""
    attempts: list[Any] = [
        lambda: bus.mesh.call(f"{name}.place"),
        lambda: bus.mesh.call(f"victim.{name}"),
        lambda: bus.caller(name),
        lambda: bus.serve(Service(name, version="1.0.0")),
        lambda: bus.serve(Service("victim", version="1.0.0", instance=name)),
        lambda: bus.serve(Service("victim", version="1.0.0", namespace=name)),
        lambda: bus.caller("other", namespace=name),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises(ConfigError) as caught:
            await attempt()
        text = str(caught.value)
        assert text.isprintable(), number
        assert len(text) < 500, number
    await bus.mesh.client.transport.fence()
    await tap.flush()
    assert _by_mesh(tap, bus) == []


@pytest.mark.parametrize(
    "subject",
    [
        "",
        " ",
        "a b",
        "*",
        "a.*",
        "a.*.b",
        ">",
        "a.>",
        "a..b",
        ".a",
        "a.",
        "a\r\nPUB b 0",
        "a\tb",
        "\x00",
        "\x7f",
        "a" * 1025,
    ],
    ids=lambda subject: ascii(subject)[:20],
)
async def test_bad_plain_subjects_never_reach_the_wire(bus: Bus, tap: RawNats, subject: str) -> None:
    """A plain subject with blanks, wildcards, empty tokens or control characters is refused, unsent."""
    with pytest.raises(ConfigError, match="need tokens joined by") as caught:
        await bus.mesh.call(f"nats://{subject}")
    assert str(caught.value).isprintable()
    await bus.mesh.client.transport.fence()
    await tap.flush()
    assert _by_mesh(tap, bus) == []


@pytest.mark.parametrize(
    "target",
    ["victim", "", ".", "nats://", "nats:/x", None, 7, ["victim.place"], {}, object(), print, b"a.b"],
)
async def test_targets_that_are_none(bus: Bus, target: Any) -> None:
    """What is neither a name, a plain subject nor a served function is refused, and the message says what would do."""
    with pytest.raises(ConfigError):
        await bus.mesh.call(target)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": -1}, "timeout must be above 0"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"timeout": 1e9}, "at most 86400 s"),
        ({"timeout": "1s"}, "must be a number of seconds"),
        ({"codec": "yaml"}, "codec 'yaml' is unknown"),
        ({"priority": "urgent"}, "use one of critical, default, sheddable"),
        ({"priority": "critical\r\nMesh-Status: OK"}, "use one of critical"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "a\r\nMesh-Status: OK"}, "1 to 256 printable ASCII"),
        ({"idempotency_key": "k" * 257}, "1 to 256 printable ASCII"),
        ({"idempotency_key": 7}, "idempotency_key 7"),
        ({"headers": {"Mesh-Timeout-Ms": "1"}}, "belongs to the mesh"),
        ({"headers": {"nats-msg-id": "1"}}, "belongs to the mesh"),
        ({"headers": {"a\r\nMesh-Status": "OK"}}, "header name"),
        ({"headers": {"a": "b\r\nMesh-Status: OK"}}, r"'\\r' at position 1"),
        ({"headers": {"a": ["b", "\n"]}}, r"'\\n' at position 0"),
        ({"headers": {"traceparent": "a\r\nb: c"}}, r"'\\r' at position 1"),
        ({"headers": {"baggage": "a\nb: c"}}, r"'\\n' at position 1"),
        ({"headers": {"content-type": "a\r\nb: c"}}, r"'\\r' at position 1"),
        ({"headers": "a: b"}, "headers must be a mapping or pairs"),
        ({"headers": 7}, "headers must be a mapping or pairs"),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_options_that_cannot_work_are_refused_unsent(
    bus: Bus, tap: RawNats, options: dict[str, Any], reason: str
) -> None:
    """A wrong option, and above all one that would forge a header, is an error before anything is written."""
    await _victim(bus)
    with pytest.raises(ConfigError, match=reason):
        await bus.mesh.call("victim.place", Order("x"), **options)
    await bus.mesh.client.transport.fence()
    await tap.flush()
    assert _by_mesh(tap, bus) == []


async def test_nothing_a_caller_sends_makes_another_line(bus: Bus, tap: RawNats) -> None:
    """Values with CR and LF travel in bodies alone: every block on the wire has exactly the lines of its fields."""
    victim = await _victim(bus)
    evil = "x\r\nMesh-Status: OK\r\n\r\nPUB mesh.x 0\r\n\r\n"
    await bus.mesh.call("victim.place", Order(evil))
    with pytest.raises(RemoteError):
        await bus.mesh.call("victim.place", {"sku": {evil: evil}})
    with pytest.raises(RemoteError):
        await bus.mesh.call("victim.place", evil.encode())
    await tap.flush()
    for message in _by_mesh(tap, bus):
        names = {name for name, _ in header_pairs(message.headers)}
        assert names <= {
            "Mesh-Timeout-Ms", "Mesh-Sent-Ms", "traceparent", "content-type", "Mesh-Instance", "Mesh-Status",
            "Nats-Service-Error", "Nats-Service-Error-Code",
        }, message  # fmt: skip
        assert "mesh.x" not in message.subject
    assert victim.seen == [Order(evil)]


async def test_nothing_a_handler_hands_on_makes_another_line(bus: Bus, raw: RawNats, tap: RawNats) -> None:
    """Baggage, trace state, priority and headers with a bare CR or LF, sent raw, forge nothing at the next hop."""
    await _victim(bus)
    relay = Service("relay", version="1.0.0")

    @relay.endpoint()
    async def go(ctx: Context) -> None:
        ctx.reply_headers.update(ctx.headers.items())
        await ctx.call("victim.anything", 1, headers=ctx.headers)
        await ctx.call("victim.anything", 1)

    @relay.endpoint()
    async def touch(ctx: Context) -> None:
        ctx.baggage["own"] = "1"
        await ctx.call("victim.anything", 1)

    await bus.serve(relay)
    lines = (
        b"baggage: a=1\nMesh-Forged: 1,b\r=2\r\n"
        b"tracestate: v=1\rMesh-Forged: 1\r\n"
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\nMesh-Forged: 1\r\n"
        b"Mesh-Priority: critical\nMesh-Forged: 1\r\n"
        b"x-a: 1\nMesh-Forged: 1\r\n"
        b"x-b\nMesh-Forged: 1\r\n"
        b"x-c\xff: \xff\xfe\r\n"
        b" Mesh-Forged : 1\r\n"
        b"mesh-forged: 1\r\n"
        b"no colon\r\n"
    )
    for endpoint in ("go", "touch"):
        subject = f"mesh.{bus.namespace}.rpc.relay.all.{endpoint}.anonymous"
        reply = await raw.request(subject, b"", lines)
        assert b"Nats-Service-Error" not in reply.headers, reply
    await tap.flush()
    passed = [m for m in _by_mesh(tap, bus) if ".rpc.relay." not in m.subject]
    assert len([m for m in passed if ".rpc.victim." in m.subject]) == 3
    for message in passed:
        assert not [pair for pair in header_pairs(message.headers) if "forged" in pair[0].lower()], message


# -- forged messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "",
        OTHERS_INBOX,
        "mesh.default.control.command.victim.all.web",
        "mesh.default.rpc.bank.all.transfer.victim",
        "$SRV.PING",
        "reply.anywhere",
        "_INBOX.",
    ],
)
@pytest.mark.parametrize("mode", ["open", "enforced"])
async def test_requests_without_their_callers_inbox_are_dropped_undecoded(
    bus: Bus, raw: RawNats, tap: RawNats, caplog: pytest.LogCaptureFixture, reply: str, mode: str
) -> None:
    """No reply, JetStream's, another member's or no inbox at all: not decoded, not run, not answered, counted."""
    victim = await _victim(bus, mode=mode)
    await tap.flush()
    before = len(tap.messages)
    raw.publish(_rpc(bus, "place", "web"), b'{"sku":"x"}', reply)
    raw.publish(_rpc(bus, "missing", "web"), b"\xff", reply, b"Mesh-Timeout-Ms: x\r\n")
    raw.publish(f"mesh.{bus.namespace}.direct.victim.{victim.instance.id}.place.web", b"{}", reply)
    raw.publish(f"mesh.{bus.namespace}.cancel.victim.web", b"x", reply)
    await _settled(bus, raw)
    await tap.flush()
    assert victim.dropped == {"forged": 4}
    assert victim.seen == []
    sent = [m for m in tap.messages[before:] if not m.subject.startswith(f"mesh.{bus.namespace}.")]
    assert sent == [], "nothing was answered to anybody"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("dropped a message on" in text and "forged" in text for text in warnings)
    assert len(warnings) < 4, "said ever more rarely"


@pytest.mark.parametrize("mode", ["open", "enforced"])
async def test_jetstream_is_no_deputy(bus: Bus, tap: RawNats, mode: str) -> None:
    """JetStream can be talked into publishing onto a service's subjects as anybody: none of it is believed."""
    victim = await _victim(bus, mode=mode)
    client = await nats.connect(bus.url)
    try:
        js, stream, target = client.jetstream(), f"S{bus.namespace}"[:60], _rpc(bus, "place", "web")
        await js.add_stream(StreamConfig(name=stream, subjects=[target], allow_direct=True))
        await client.publish(
            target, b'{"sku":"stored"}'
        )  # into the stream, and to the service without a reply
        direct = f"mesh.{bus.namespace}.direct.victim.{victim.instance.id}.place.web"
        # A consumer delivers with an acknowledgement subject for reply, a direct get with none.
        await js.add_consumer(stream, ConsumerConfig(durable_name="pull"))
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.pull", b'{"batch":1}', reply=direct)
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1}', reply=direct)
        await eventually(lambda: victim.dropped == {"forged": 3}, lambda: victim.dropped)
        delivered = [m for m in tap.messages if m.payload == b'{"sku":"stored"}']
        assert sorted(m.reply[:8] for m in delivered) == ["", "", "$JS.ACK."]
        assert victim.seen == []
        await js.delete_stream(stream)
    finally:
        await client.close()


@pytest.mark.parametrize(("mode", "answered"), [("open", True), ("enforced", False)])
async def test_foreign_inboxes(bus: Bus, raw: RawNats, mode: str, answered: bool) -> None:
    """Foreign clients with inboxes of their own are served in open mode and dropped in enforced mode."""
    victim = await _victim(bus, mode=mode)
    await raw.subscribe("_INBOX.>")
    for caller in ("web", "anonymous"):
        for inbox in ("_INBOX.6LqfNuDvU2QXZzQmYYYYYY", "_INBOX.6LqfNuDvU2QXZzQmYYYYYY.1", "_INBOX.a.b.c.d.e"):
            raw.publish(_rpc(bus, "place", caller), b'{"sku":"x"}', inbox)
    await _settled(bus, raw)
    if answered:
        await raw.until(lambda: len(raw.messages) == 6)
        assert (len(victim.seen), victim.dropped) == (6, {})
    else:
        assert (victim.seen, victim.dropped) == ([], {"forged": 6})
    own = await bus.caller("web", mode=mode)
    assert await own.call("victim.place", Order("x")) == "x"


async def test_nobody_cancels_for_another(bus: Bus, raw: RawNats) -> None:
    """A cancellation counts only from the caller whose call it is, and only for a call that exists."""
    victim = await _victim(bus)
    await raw.subscribe("_INBOX.first.x")
    raw.publish(_rpc(bus, "wait", "first"), b"", "_INBOX.first.x")
    await eventually(lambda: victim.seen == ["first"])
    cancel = f"mesh.{bus.namespace}.cancel.victim"
    raw.publish(f"{cancel}.second", b"_INBOX.first.x", "_INBOX.second.y")
    raw.publish(f"{cancel}.first", b"_INBOX.first.x", "")
    raw.publish(f"{cancel}.first", b"_INBOX.first.z", "_INBOX.first.y")
    raw.publish(f"{cancel}.first", b"", "_INBOX.first.y")
    raw.publish(f"{cancel}.first", b"\xff\x00" * 1000, "_INBOX.first.y")
    await _settled(bus, raw)
    assert victim.instance.dispatcher.in_flight == 1
    assert victim.dropped == {"forged": 1}
    raw.publish(f"{cancel}.first", b"_INBOX.first.x", "_INBOX.first.y")
    answer = await raw.next("_INBOX.first.x")
    assert b"Mesh-Status: CANCELLED" in answer.headers


@pytest.mark.parametrize(
    "reply", ["mesh.default.control.command.victim.all.web", "$SRV.PING", "reply.anywhere", "$JS.API.INFO"]
)
async def test_plain_subjects_answer_to_inboxes_alone(
    bus: Bus, raw: RawNats, tap: RawNats, reply: str
) -> None:
    """On a plain subject, too, whoever asks does not choose what the instance publishes on."""
    victim = await _victim(bus)
    await tap.flush()
    before = len(tap.messages)
    raw.publish(f"{bus.namespace}.plain", b'{"sku":"x"}', reply)
    await _settled(bus, raw)
    await tap.flush()
    assert (victim.seen, victim.dropped) == ([], {"forged": 1})
    assert [m.subject for m in tap.messages[before:]] == [f"{bus.namespace}.plain"]


@pytest.mark.parametrize(
    "reply", ["", "mesh.default.rpc.bank.all.transfer.victim", "reply.anywhere", "$JS.ACK.x"]
)
async def test_the_services_api_answers_to_inboxes_alone(
    bus: Bus, raw: RawNats, tap: RawNats, reply: str
) -> None:
    """The same for $SRV: its answers could otherwise be aimed at anybody."""
    await _victim(bus)
    await tap.flush()
    before = len(tap.messages)
    for verb in ("PING", "INFO", "STATS"):
        raw.publish(f"$SRV.{verb}.victim", b"", reply)
    raw.publish("$SRV.NONSENSE", b"", "_INBOX.x")
    raw.publish("$SRV.PING.victim.nobody", b"", "_INBOX.x")
    await _settled(bus, raw)
    await tap.flush()
    assert [m for m in tap.messages[before:] if not m.subject.startswith("$SRV.")] == []


@pytest.mark.parametrize(
    "caller",
    [b"a" * 64, b"a" * 1000, "zażółć".encode(), b"\xff\xfe", b"\x1b[31m", b"*", b">", b"web\x00"],
    ids=repr,
)
async def test_subjects_with_impossible_names_are_dropped(
    bus: Bus, raw: RawNats, caplog: pytest.LogCaptureFixture, caller: bytes
) -> None:
    """A caller token that is no name is not taken for one, whatever bytes it has; nothing is run or answered."""
    victim = await _victim(bus)
    subject = _rpc(bus, "place", "").encode() + caller
    raw.send(b"PUB " + subject + b" _INBOX.x 2\r\n{}\r\n")
    await _settled(bus, raw)
    assert victim.seen == []
    assert sum(victim.dropped.values()) == victim.dropped.get("malformed", 0) <= 1
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_foreign_service_cannot_lead_a_caller_astray(bus: Bus, raw: RawNats) -> None:
    """Anybody may answer $SRV.INFO: a subject of the mesh, the server or an inbox is not called for it."""
    victim = await _victim(bus)
    for subject in ("$SRV.INFO.nosuch", "$JS.API.STREAM.DELETE.x", "_INBOX.other.>", "a.*", "_R_.>"):
        await raw.subscribe(subject)
    subjects = [
        _rpc(bus, "place", "web"),
        "$JS.API.STREAM.DELETE.x",
        OTHERS_INBOX,
        "a.*",
        ">",
        "_R_.x",
        "a b",
        "",
        7,
    ]
    endpoints = [{"name": f"e{n}", "subject": subject} for n, subject in enumerate(subjects)]
    info = {
        "type": "io.nats.micro.v1.info_response", "name": "nosuch", "id": "x", "version": "1.0.0",
        "description": "", "metadata": {}, "endpoints": endpoints,
    }  # fmt: skip

    async def answer() -> None:
        answered = 0
        while True:
            question = await raw.next("$SRV.INFO", after=answered)
            raw.publish(question.reply, json.dumps(info).encode())
            answered += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        for number in range(len(subjects)):
            with pytest.raises(RemoteError) as caught:
                await bus.mesh.call(f"nosuch.e{number}", {"sku": "x"})
            assert (caught.value.status, caught.value.executed) == (Status.UNIMPLEMENTED, Executed.NO)
        tasks.cancel_scope.cancel()
    await _settled(bus, raw)
    assert victim.seen == []
    assert {message.subject for message in raw.messages} == {"$SRV.INFO.nosuch"}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b"[" * 100_000, b"\xff", b'{"name":"nosuch"}', b'{"name":"nosuch","id":7}']
)
async def test_nonsense_from_the_services_api_is_no_service(bus: Bus, raw: RawNats, body: bytes) -> None:
    """An answer to $SRV.INFO that is none leaves the service unknown."""
    await raw.subscribe("$SRV.INFO.nosuch")

    async def answer() -> None:
        raw.publish((await raw.next("$SRV.INFO")).reply, body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        with pytest.raises(NoInstancesError):
            await bus.mesh.call("nosuch.place")
        tasks.cancel_scope.cancel()


# -- malformed requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status", "refused", "text"),
    [
        (b"Mesh-Timeout-Ms: soon\r\n", "INVALID_ARGUMENT", None, "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: \r\n", "INVALID_ARGUMENT", None, "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: 1.5\r\n", "INVALID_ARGUMENT", None, "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: " + b"9" * 500 + b"\r\n", "INVALID_ARGUMENT", None, "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: \xff\r\n", "INVALID_ARGUMENT", None, "Mesh-Timeout-Ms"),
        (b"Mesh-Sent-Ms: never\r\n", "INVALID_ARGUMENT", None, "Mesh-Sent-Ms"),
        (b"Mesh-Attempt: -\r\n", "INVALID_ARGUMENT", None, "Mesh-Attempt"),
        (b"Mesh-Timeout-Ms: 0\r\n", "DEADLINE_EXCEEDED", "deadline", "expired on arrival"),
        (b"Mesh-Timeout-Ms: -999999999999999\r\n", "DEADLINE_EXCEEDED", "deadline", "expired on arrival"),
        (b"content-type: text/html\r\n", "INVALID_ARGUMENT", None, "unknown content-type"),
        (b"Content-Type: text/html\r\n", "INVALID_ARGUMENT", None, "unknown content-type"),
        (b"content-type: \r\n", "INVALID_ARGUMENT", None, "unknown content-type"),
        (b"content-type: application/octet-stream\r\n", "INVALID_ARGUMENT", None, "does not take raw bytes"),
        (b"content-type: application/msgpack\r\n", "INVALID_ARGUMENT", None, "not valid msgpack"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_malformed_headers(
    bus: Bus, raw: RawNats, lines: bytes, status: str, refused: str | None, text: str
) -> None:
    """A field that cannot be read is answered with what is wrong with it; the handler does not run."""
    victim = await _victim(bus)
    reply = await raw.request(_rpc(bus, "place"), b'{"sku":"x"}', lines)
    headers = dict(header_pairs(reply.headers))
    assert (headers["Mesh-Status"], headers.get("Mesh-Refused")) == (status, refused)
    assert text in json.loads(reply.payload)["message"]
    assert victim.seen == []


@pytest.mark.parametrize(
    "lines",
    [
        b"Mesh-Timeout-Ms: 999999999999999\r\n",
        b"Mesh-Sent-Ms: 999999999999999\r\n",
        b"Mesh-Sent-Ms: -999999999999999\r\n",
        b"Mesh-Attempt: 999999999999999\r\n",
        b"Mesh-Attempt: -5\r\n",
        b"Mesh-Priority: whatever\r\n",
        b"Mesh-Priority: \xff\r\n",
        b"Mesh-Idempotency-Key: " + b"k" * 10_000 + b"\r\n",
        b"Mesh-Unknown: 1\r\nMesh-Status: ABORTED\r\nMesh-Refused: access\r\nNats-Service-Error: x\r\n",
        b"traceparent: nonsense\r\ntracestate: \xff\r\nbaggage: =,;%ff,%\r\n",
        b"traceparent: " + b"0" * 10_000 + b"\r\n",
        b"x: y\r\n" * 5_000,
        b"x-" + b"n" * 5_000 + b": y\r\n",
        b"no colon at all\r\n",
        b": no name\r\n",
        b"\xff\xfe: \xff\r\n",
        b"a: b\nMesh-Timeout-Ms: 0\r\n",
        b"x" * 500_000 + b"\r\n",
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_odd_headers_that_do_no_harm(bus: Bus, raw: RawNats, lines: bytes) -> None:
    """Huge, unknown or broken fields of no consequence are lived with: the call is answered as ever."""
    victim = await _victim(bus)
    for endpoint, body in (("place", b'{"sku":"x"}'), ("anything", b"1")):
        reply = await raw.request(_rpc(bus, endpoint), body, lines)
        assert b"Nats-Service-Error" not in reply.headers, reply.payload[:200]
    assert victim.seen == [Order("x"), 1]


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\n\r\n",
        b"\x00" * 12,
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"\r\n\r\n",
        b"garbage",
    ],
)
async def test_header_blocks_that_are_none(bus: Bus, raw: RawNats, block: bytes) -> None:
    """A block that is no block reads as one without fields; a request with it is answered."""
    await _victim(bus)
    await raw.subscribe("_INBOX.raw")
    body = b'{"sku":"x"}'
    head = f"HPUB {_rpc(bus, 'place')} _INBOX.raw {len(block)} {len(block) + len(body)}\r\n".encode()
    raw.send(head + block + body + b"\r\n")
    assert (await raw.next("_INBOX.raw")).payload == b'"x"'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty"),
        (b"{", "not valid json"),
        (b"\xff\xfe\x00", "not valid json"),
        (b"7", "Expected `object`, got `int`"),
        (b'{"sku":7}', "$.sku"),
        (b"{}", "missing required field `sku`"),
        (b'{"sku":"x","count":1e999}', "not valid json"),
        (b"[" * 500_000, "place"),
        (b'{"sku":' * 100_000, "place"),
        (b'{"sku":"x"} trailing', "not valid json"),
        (b"\x00" * 1000, "not valid json"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_undecodable_bodies(bus: Bus, raw: RawNats, body: bytes, text: str) -> None:
    """What does not decode is INVALID_ARGUMENT, naming endpoint and field; the handler does not run."""
    victim = await _victim(bus)
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("victim.place", body, headers={"content-type": "application/json"})
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert text in caught.value.message
    reply = await raw.request(_rpc(bus, "place"), body)
    assert b"Nats-Service-Error-Code: 400" in reply.headers
    assert victim.seen == []


async def test_a_deeply_nested_value_is_an_error_on_both_sides(bus: Bus) -> None:
    """A bomb of nesting is refused where it is decoded, and where it is encoded."""
    victim = await _victim(bus)
    for body in (b"[" * 300_000 + b"]" * 300_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
        with pytest.raises(RemoteError, match="nests too deeply") as caught:
            await bus.mesh.call("victim.anything", body, headers={"content-type": "application/json"})
        assert caught.value.status is Status.INVALID_ARGUMENT
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CodecError, match=r"victim\.anything: .*nests too deeply"):
        await bus.mesh.call("victim.anything", deep)
    while deep:  # taken apart by hand: the interpreter's own way is recursive
        [deep] = deep
    assert victim.seen == []


async def test_a_value_that_cannot_be_encoded_is_not_sent(bus: Bus, tap: RawNats) -> None:
    """A caller's value that no codec takes is a CodecError that names the call and the type."""
    await _victim(bus)
    with pytest.raises(CodecError, match=r"^victim\.place: cannot encode object"):
        await bus.mesh.call("victim.place", object())
    with pytest.raises(CodecError, match=r"^plain\.subject: cannot encode object"):
        await bus.mesh.call("nats://plain.subject", object())
    await tap.flush()
    assert _by_mesh(tap, bus) == []


# -- deadlines ----------------------------------------------------------------------------------------


async def test_expired_work_is_refused_before_it_is_decoded(bus: Bus, raw: RawNats) -> None:
    """A request whose time is up is refused as such, although its body would not decode and its type is unknown."""
    victim = await _victim(bus)
    reply = await raw.request(_rpc(bus, "place"), b"\xff", b"Mesh-Timeout-Ms: 0\r\ncontent-type: x\r\n")
    headers = dict(header_pairs(reply.headers))
    assert (headers["Mesh-Status"], headers["Mesh-Refused"]) == ("DEADLINE_EXCEEDED", "deadline")
    assert victim.instance.dispatcher.served["place"].concurrency.in_flight == 0


async def test_work_that_waited_too_long_is_expired(bus: Bus, raw: RawNats) -> None:
    """By the sender's own clock a request that lay about longer than its time is refused, a fresh one is not."""
    victim = await _victim(bus)
    inbox = f"_INBOX.old.conn.{'a' * 32}"
    await raw.subscribe(f"{inbox}.*")

    async def send(number: int, sent_ms: int) -> str:
        lines = f"Mesh-Timeout-Ms: 500\r\nMesh-Sent-Ms: {sent_ms}\r\n".encode()
        raw.publish(_rpc(bus, "place", "old"), b'{"sku":"x"}', f"{inbox}.{number}", lines)
        reply = await raw.next(f"{inbox}.{number}")
        return dict(header_pairs(reply.headers)).get("Mesh-Refused", "")

    assert await send(1, 10_000_000) == ""
    assert await send(2, 10_000_000 - 3_000) == "deadline"
    assert await send(3, 10_000_000 + 60_000) == ""
    assert len(victim.seen) == 2


async def test_a_caller_without_time_sends_nothing(bus: Bus, tap: RawNats) -> None:
    """A nested call made after the deadline is over before it begins, and says that nothing ran."""
    await _victim(bus)
    errors: list[CallError] = []
    relay = Service("relay", version="1.0.0")

    @relay.endpoint()
    def go(ctx: Context) -> None: ...

    @relay.endpoint()
    async def late(ctx: Context) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await ctx.call("victim.place", Order("x"))
                except CallError as error:
                    errors.append(error)

    await bus.serve(relay)
    with pytest.raises(DeadlineExceededError):
        await bus.mesh.call("relay.late", timeout=0.1)
    await eventually(lambda: errors)
    assert (errors[0].status, errors[0].executed) == (Status.DEADLINE_EXCEEDED, Executed.NO)
    await tap.flush()
    assert not [m for m in tap.messages if ".rpc.victim." in m.subject]


# -- replies ------------------------------------------------------------------------------------------


async def test_forged_duplicate_and_late_replies(bus: Bus, raw: RawNats) -> None:
    """One outcome per call: the first reply under the right secret; all others are dropped and counted as late."""
    await raw.subscribe(f"mesh.{bus.namespace}.rpc.fake.all.*.*", "q")
    client = bus.mesh.client
    results: list[Any] = []

    async def call() -> None:
        results.append(await bus.mesh.call("fake.place", timeout=PATIENCE_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        inbox = (await raw.next(f"mesh.{bus.namespace}.rpc.fake")).reply
        root, secret, number = inbox.rsplit(".", 2)
        forged = [
            f"{root}.{'0' * 32}.{number}",
            f"{root}.{secret[::-1]}.{number}",
            f"{root}.{secret}.{int(number) + 1}",
            f"{root}.{secret}.x",
            f"{root}.{secret}.-1",
            f"{root}.x.{number}",
        ]
        for subject in forged:
            raw.publish(subject, b'"forged"')
        raw.publish(f"{root}.{secret}.0", b'"to a one-way message"')
        await raw.flush()
        await client.transport.fence()
        assert (results, client.mux.late, client.mux.pending) == ([], len(forged), 1)
        raw.publish(inbox, b'"first"')
        raw.publish(inbox, b'"at the same time"')
    before = client.mux.late
    raw.publish(inbox, b'"late"')
    raw.publish(inbox, b"", headers=b"Mesh-Status: ABORTED\r\n")
    await raw.flush()
    await client.transport.fence()
    assert results == ["first"]
    assert (client.mux.late, client.mux.pending) == (before + 2, 0)


@pytest.mark.parametrize(
    ("lines", "body", "expected"),
    [
        (b"", b"\xff", b"\xff"),
        (b"", b"", None),
        (b"content-type: text/html\r\n", b"<p>", b"<p>"),
        (b"content-type: application/json\r\n", b"\xff", CodecError),
        (b"content-type: application/msgpack\r\n", b"\xc1", CodecError),
        (b"Mesh-Status: OK\r\n", b"1", 1),
        (b"Mesh-Status: NONSENSE\r\n", b"1", Status.UNKNOWN),
        (b"Mesh-Status: ABORTED\r\n", b"\xff", Status.ABORTED),
        (b"Mesh-Status: ABORTED\r\n", b"[" * 100_000, Status.ABORTED),
        (b"Mesh-Status: \xff\r\n", b"", Status.UNKNOWN),
        (b"Nats-Service-Error: x\r\nNats-Service-Error-Code: 99999999999999999999\r\n", b"", Status.UNKNOWN),
        (b"Mesh-Status: ABORTED\r\nMesh-Retry-After-Ms: -1\r\nMesh-Refused: \xff\r\n", b"", Status.ABORTED),
        (b"Mesh-Instance: \xff\xfe\r\n", b"1", 1),
        (b"Mesh-Instance: " + b"x" * 100_000 + b"\r\n", b"1", 1),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_replies_that_make_no_sense(
    bus: Bus, raw: RawNats, lines: bytes, body: bytes, expected: Any
) -> None:
    """Whatever a peer answers, the call ends at once with a value or a typed error."""
    await raw.subscribe(f"mesh.{bus.namespace}.rpc.fake.all.*.*", "q")

    async def answer() -> None:
        raw.publish((await raw.next(f"mesh.{bus.namespace}.rpc.fake")).reply, body, headers=lines)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        call = bus.mesh.call("fake.place", timeout=PATIENCE_S)
        if isinstance(expected, Status):
            with pytest.raises(CallError) as caught:
                await call
            assert caught.value.status is expected
        elif expected is CodecError:
            with pytest.raises(CodecError, match=r"^fake\.place: "):
                await call
        else:
            assert await call == expected


async def test_too_many_calls_at_once_are_refused_at_the_caller(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of pending replies is bounded: the call beyond it is refused at once, unsent, and leaves no timer."""
    monkeypatch.setattr(mux, "_MAX_PENDING", 2)
    victim = await _victim(bus)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(bus.mesh.call, "victim.wait")
        await eventually(lambda: len(victim.seen) == 2)
        with pytest.raises(OverloadedError) as caught:
            await bus.mesh.call("victim.place", Order("x"), timeout=0.05)
        assert (caught.value.executed, caught.value.attempts) == (Executed.NO, 0)
        await anyio.sleep(0.1)  # a timer left behind would go off now, and complain that nobody waits for it
        tasks.cancel_scope.cancel()


async def test_tables_stay_bounded_whatever_is_sent(bus: Bus, raw: RawNats) -> None:
    """Thousands of invented callers, endpoints and connections do not grow an instance's memory without end."""
    victim = await _victim(bus)
    for number in range(6_000):
        lines = b"Mesh-Sent-Ms: 1\r\n"
        raw.publish(_rpc(bus, f"e{number}", f"c{number}"), b"", f"_INBOX.c{number}.x", lines)
        raw.publish(_rpc(bus, "place", f"c{number}"), b"", f"_INBOX.c{number}.x", lines)
    await _settled(bus, raw)
    dispatcher = victim.instance.dispatcher
    assert len(dispatcher._routes) <= 4096
    assert len(dispatcher._gauge) <= 4096
    assert len(victim.instance.stats) <= 2048
    endpoints = {series.endpoint for series in victim.instance.stats}
    assert endpoints <= {"place", "anything", "wait", "still_there", "_OTHER"}, (
        "no invented name is ever a label"
    )


# -- starting -----------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    """Connecting to nothing fails in its time with the address and what to do, for callers and for services."""
    settings = Settings(servers=(f"nats://user:hunter2@127.0.0.1:{unused_tcp_port}",))
    service = Service("s", version="1.0.0")
    service.endpoint(name="e")(_nothing)
    for member in (
        Mesh("web", settings=settings, connect_timeout=0.5),
        Instance(service, settings=settings, connect_timeout=0.5),
    ):
        with anyio.fail_after(PATIENCE_S), pytest.raises(DisconnectedError) as caught:
            await member.__aenter__()
        assert caught.value.executed is Executed.NO
        assert f"cannot reach nats://127.0.0.1:{unused_tcp_port} within 0.5 s" in caught.value.message
        assert "is a nats-server running there?" in caught.value.message
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n", b"INFO {}\r\n", b"\x00" * 100]
)
async def test_something_else_listens_there(greeting: bytes) -> None:
    """A port where no nats-server answers is said to be unreachable in time, not waited for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        mesh = Mesh("web", settings=Settings(servers=(f"nats://127.0.0.1:{port}",)), connect_timeout=0.5)
        with anyio.fail_after(PATIENCE_S), pytest.raises((DisconnectedError, ConfigError), match=str(port)):
            await mesh.__aenter__()
    finally:
        server.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nats://",
        "http://x",
        "nats://a b",
        "x\r\ny",
        "ftp:4222",
        "nats:/x",
        "nats://h:99999",
        "nats://h:x",
    ],
)
async def test_addresses_that_are_none(url: str) -> None:
    """An address that cannot be one is refused with what it should look like."""
    with anyio.fail_after(PATIENCE_S), pytest.raises((ConfigError, DisconnectedError)) as caught:
        async with Mesh("web", servers=[url], connect_timeout=0.5):
            pass
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


async def test_wrong_credentials(nats_server_factory: NatsServerFactory) -> None:
    """A server that does not let us in is UNAUTHENTICATED at once, and nothing is tried for ever."""
    server = nats_server_factory(jetstream=False, config='authorization { user: "a", password: "b" }')
    settings = Settings(servers=(server.url,), user="a", password="wrong")
    with anyio.fail_after(PATIENCE_S), pytest.raises(PermissionDeniedError) as caught:
        await Mesh("web", settings=settings, connect_timeout=5.0).__aenter__()
    assert caught.value.status is Status.UNAUTHENTICATED
    assert "wrong" not in str(caught.value)


async def test_a_second_instance_with_a_used_id(bus: Bus) -> None:
    """An id that is taken is refused with what to do; the first instance goes on, and the id is free once it left."""
    service = Service("victim", version="1.0.0", instance="fixed")

    @service.endpoint()
    async def still_there() -> bool:
        return True

    first = await bus.serve(service)
    with pytest.raises(
        ConfigError, match=r"victim: an instance with the id 'fixed' is running already; stop it"
    ):
        await bus.serve(service)
    reply = await bus.mesh.request("victim.still_there")
    assert reply.instance == first.id == "fixed"
    bus.instances.remove(first)
    await first.__aexit__(None, None, None)
    assert (await bus.serve(service)).id == "fixed"


async def test_a_namespace_that_differs(bus: Bus) -> None:
    """A service in another namespace is not reached, and the error names both."""
    await _victim(bus)
    stranger = await bus.caller("web", namespace="elsewhere")
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoInstancesError) as caught:
        await stranger.call("victim.place", Order("x"), timeout=1000.0)
    assert (
        f"'victim' runs in namespace '{bus.namespace}', this caller is in 'elsewhere'" in caught.value.message
    )
    assert caught.value.executed is Executed.NO


async def test_a_request_that_is_too_large(bus: Bus) -> None:
    """What the server would close the connection for is refused before it is written; headers count."""
    victim = await _victim(bus)
    limit = bus.mesh.client.transport.max_payload
    for value, headers in (
        (bytes(limit), {}),
        (b"", {"x-a": "x" * limit}),
        (b"", {"x-a": ["x" * 65_536] * 17}),
    ):
        with pytest.raises(CallError) as caught:
            await bus.mesh.call("victim.anything", value, headers=headers)
        error = caught.value
        assert (error.status, error.executed, error.refused) == (Status.RESOURCE_EXHAUSTED, Executed.NO, None)
        assert "max_payload" in error.message
    assert victim.seen == []


async def test_a_refusal_tells_the_caller_that_nothing_ran(bus: Bus) -> None:
    """An unknown endpoint, an unknown service and an expired call all say executed: no."""
    await _victim(bus)
    with pytest.raises(RemoteError) as unknown:
        await bus.mesh.call("victim.nothing_like_it")
    assert (unknown.value.refused, unknown.value.executed) == (Refused.UNIMPLEMENTED, Executed.NO)
    with pytest.raises(NoInstancesError) as missing:
        await bus.mesh.call("nobody.there")
    assert missing.value.executed is Executed.NO


async def test_a_mesh_that_is_not_open(nats_server: NatsServer) -> None:
    """Using a Mesh before or after its time, or opening it twice, is a mistake with a remedy in its message."""
    mesh = Mesh("web", servers=nats_server.url)
    with pytest.raises(ConfigError, match="use 'async with Mesh"):
        await mesh.call("a.b")
    async with mesh:
        with pytest.raises(ConfigError, match="open already"):
            await mesh.__aenter__()
    with pytest.raises(ConfigError, match="is not open"):
        await mesh.call("a.b")


async def _nothing() -> None: ...


@pytest.fixture
def unused_tcp_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
