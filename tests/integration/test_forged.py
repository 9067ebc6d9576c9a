"""Messages that are not what they claim to be: dropped undecoded, counted, and answered to nobody.

After every case the same connections go on working: ``bus`` checks that at its end.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import nats
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from nats_mesh import (
    CallError,
    CodecError,
    Executed,
    NoInstancesError,
    OverloadedError,
    RemoteError,
    Status,
)
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry.span_messages import decode_spans
from nats_mesh.wire import mux
from tests.harness import PATIENCE_S, Bus, eventually
from tests.integration.victim import POLICIES, Order, by_mesh, rpc, settled, victim_on
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio

OTHERS_INBOX = "_INBOX.other.AAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef.1"


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
    victim = await victim_on(bus, mode=mode)
    await tap.flush()
    before = len(tap.messages)
    raw.publish(rpc(bus, "place", "web"), b'{"sku":"x"}', reply)
    raw.publish(rpc(bus, "missing", "web"), b"\xff", reply, b"Mesh-Timeout-Ms: x\r\n")
    raw.publish(f"mesh.{bus.namespace}.direct.victim.{victim.instance.id}.place.web", b"{}", reply)
    raw.publish(f"mesh.{bus.namespace}.cancel.victim.web", b"x", reply)
    await settled(bus, raw)
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
    victim = await victim_on(bus, mode=mode)
    client = await nats.connect(bus.url)
    try:
        js, stream, target = client.jetstream(), f"S{bus.namespace}"[:60], rpc(bus, "place", "web")
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
        await tap.flush()
        delivered = [m for m in tap.messages if m.payload == b'{"sku":"stored"}']
        assert sorted(m.reply[:8] for m in delivered) == ["", "", "$JS.ACK."]
        assert victim.seen == []
        await js.delete_stream(stream)
    finally:
        await client.close()


@pytest.mark.parametrize(("mode", "answered"), [("open", True), ("enforced", False)])
async def test_foreign_inboxes(bus: Bus, raw: RawNats, mode: str, answered: bool) -> None:
    """Foreign clients with inboxes of their own are served in open mode and dropped in enforced mode."""
    victim = await victim_on(bus, mode=mode)
    await raw.subscribe("_INBOX.>")
    for caller in ("web", "anonymous"):
        for inbox in ("_INBOX.6LqfNuDvU2QXZzQmYYYYYY", "_INBOX.6LqfNuDvU2QXZzQmYYYYYY.1", "_INBOX.a.b.c.d.e"):
            raw.publish(rpc(bus, "place", caller), b'{"sku":"x"}', inbox)
    await settled(bus, raw)
    if answered:
        await raw.until(lambda: len(raw.messages) == 6)
        assert (len(victim.seen), victim.dropped) == (6, {})
    else:
        assert (victim.seen, victim.dropped) == ([], {"forged": 6})
    own = await bus.caller("web", mode=mode)
    assert await own.call("victim.place", Order("x")) == "x"


async def test_nobody_cancels_for_another(bus: Bus, raw: RawNats) -> None:
    """A cancellation counts only from the caller whose call it is, and only for a call that exists."""
    victim = await victim_on(bus)
    await raw.subscribe("_INBOX.first.x")
    raw.publish(rpc(bus, "wait", "first"), b"", "_INBOX.first.x")
    await eventually(lambda: victim.seen == ["first"])
    cancel = f"mesh.{bus.namespace}.cancel.victim"
    raw.publish(f"{cancel}.second", b"_INBOX.first.x", "_INBOX.second.y")
    raw.publish(f"{cancel}.first", b"_INBOX.first.x", "")
    raw.publish(f"{cancel}.first", b"_INBOX.first.z", "_INBOX.first.y")
    raw.publish(f"{cancel}.first", b"", "_INBOX.first.y")
    raw.publish(f"{cancel}.first", b"\xff\x00" * 1000, "_INBOX.first.y")
    await settled(bus, raw)
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
    victim = await victim_on(bus)
    raw.publish(f"{bus.namespace}.plain", b'{"sku":"x"}', reply)
    await settled(bus, raw)
    await tap.flush()
    assert (victim.seen, victim.dropped) == ([], {"forged": 1})
    passed = [m.subject for m in tap.messages if ".presence." not in m.subject and POLICIES not in m.subject]
    assert passed == [f"{bus.namespace}.plain"]


@pytest.mark.parametrize(
    "reply", ["", "mesh.default.rpc.bank.all.transfer.victim", "reply.anywhere", "$JS.ACK.x"]
)
async def test_the_services_api_answers_to_inboxes_alone(
    bus: Bus, raw: RawNats, tap: RawNats, reply: str
) -> None:
    """The same for $SRV: its answers could otherwise be aimed at anybody."""
    await victim_on(bus)
    for verb in ("PING", "INFO", "STATS"):
        raw.publish(f"$SRV.{verb}.victim", b"", reply)
    raw.publish("$SRV.NONSENSE", b"", "_INBOX.x")
    raw.publish("$SRV.PING.victim.nobody", b"", "_INBOX.x")
    await settled(bus, raw)
    await tap.flush()
    assert by_mesh(tap, bus, answers=True) == []


@pytest.mark.parametrize(
    "caller",
    [b"a" * 64, b"a" * 1000, "zażółć".encode(), b"\xff\xfe", b"\x1b[31m", b"*", b">", b"web\x00"],
    ids=repr,
)
async def test_subjects_with_impossible_names_are_dropped(
    bus: Bus, raw: RawNats, caplog: pytest.LogCaptureFixture, caller: bytes
) -> None:
    """A caller token that is no name is not taken for one, whatever bytes it has; nothing is run or answered."""
    victim = await victim_on(bus)
    subject = rpc(bus, "place", "").encode() + caller
    raw.send(b"PUB " + subject + b" _INBOX.x 2\r\n{}\r\n")
    await settled(bus, raw)
    assert victim.seen == []
    assert sum(victim.dropped.values()) == victim.dropped.get("malformed", 0) <= 1
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_foreign_service_cannot_lead_a_caller_astray(bus: Bus, raw: RawNats) -> None:
    """Anybody may answer $SRV.INFO: a subject of the mesh, the server or an inbox is not called for it."""
    victim = await victim_on(bus)
    for subject in ("$SRV.INFO.nosuch", "$JS.API.STREAM.DELETE.x", "_INBOX.other.>", "a.*", "_R_.>"):
        await raw.subscribe(subject)
    subjects = [
        rpc(bus, "place", "web"),
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
    await settled(bus, raw)
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
    await settled(bus, raw)
    await client.transport.fence()
    before = client.mux.late
    raw.publish(inbox, b'"late"')
    raw.publish(inbox, b"", headers=b"Mesh-Status: ABORTED\r\n")
    await raw.flush()
    await client.transport.fence()
    assert results == ["first"]
    assert (client.mux.late, client.mux.pending) == (before + 2, 0)


@pytest.mark.parametrize("who", [b"\x1b[2J", b"x" * 100_000], ids=["odd", "long"])
@pytest.mark.parametrize("headers", [{}, {"tenant": "a"}], ids=["a row", "a span"])
async def test_who_answers_cannot_spoil_what_its_caller_tells(
    bus: Bus, raw: RawNats, who: bytes, headers: dict[str, str]
) -> None:
    """An instance that says nonsense of itself is nobody in its caller's span: one odd span would have its whole
    message dropped, and those of all others with it."""
    await raw.subscribe(f"mesh.{bus.namespace}.rpc.fake.all.*.*", "q")
    await raw.subscribe(f"mesh.{bus.namespace}.telemetry.span.web.*")
    policies = "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {name: t}\nspec: {tracing: 100%}\n"
    web = await bus.caller("web", policies=PolicySet.of(parse(policies)))

    async def answer() -> None:
        asked = await raw.next(f"mesh.{bus.namespace}.rpc.fake")
        raw.publish(asked.reply, b"1", headers=b"Mesh-Instance: " + who + b"\r\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        assert await web.call("fake.place", headers=headers, timeout=PATIENCE_S) == 1
    told = decode_spans((await raw.next(f"mesh.{bus.namespace}.telemetry.span")).payload)
    assert [(span.service, span.instance) for span in told.spans] == [("fake", "")]


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
    victim = await victim_on(bus)
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
    victim = await victim_on(bus)
    for number in range(6_000):
        lines, inbox = b"Mesh-Sent-Ms: 1\r\n", f"_INBOX.c{number}.CONN.{number:032x}.1"
        raw.publish(rpc(bus, f"e{number}", f"c{number}"), b"", inbox, lines)
        raw.publish(rpc(bus, "place", f"c{number}"), b"", inbox, lines)
        if number % 250 == 0:
            await settled(bus, raw)  # in portions, because a loop that stands still learns no clocks
    await settled(bus, raw)
    dispatcher = victim.instance.dispatcher
    assert len(dispatcher.subjects.known) <= 4096
    assert len(dispatcher._gauge) <= 4096
    assert len(victim.instance.stats) <= 2048
    endpoints = {series.endpoint for series in victim.instance.stats}
    assert endpoints <= {"place", "anything", "wait", "still_there", "_OTHER"}, (
        "no invented name is ever a label"
    )
