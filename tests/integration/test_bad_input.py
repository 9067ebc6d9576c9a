"""Bad input on a real server: each piece gets a typed error, and nothing else happens.

After every case the same connections go on working: ``bus`` checks that at its end.
"""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from nats_mesh import (
    CallError,
    CodecError,
    ConfigError,
    Context,
    DeadlineExceededError,
    Executed,
    RemoteError,
    Service,
    Status,
)
from tests.harness import Bus, eventually
from tests.integration.victim import Order, by_mesh, rpc, victim_on
from tests.rawnats import RawNats, header_pairs

pytestmark = pytest.mark.anyio

BAD_NAMES = [
    "", " ", "a b", "a.b", "*", ">", "a.*", "zażółć", "☺", "a\r\nb", "a\n", "\x00", "\t", "a/b", "a" * 64, "a" * 10_000,
    "$SRV", "_INBOX.x", "all", "anonymous", "a\r\nPUB x 0\r\n\r\n",
]  # fmt: skip


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
    assert by_mesh(tap, bus) == []


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
        "😀" * 1000,
    ],
    ids=lambda subject: ascii(subject)[:20],
)
async def test_bad_plain_subjects_never_reach_the_wire(bus: Bus, tap: RawNats, subject: str) -> None:
    """A plain subject with blanks, wildcards, empty tokens or control characters is refused, unsent; so is one that
    makes a longer line than the server reads, for which it would close the connection."""
    with pytest.raises(ConfigError, match="need tokens joined by") as caught:
        await bus.mesh.call(f"nats://{subject}")
    assert str(caught.value).isprintable()
    await bus.mesh.client.transport.fence()
    await tap.flush()
    assert by_mesh(tap, bus) == []
    assert bus.mesh.client.transport.stats.reconnects == 0


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
    await victim_on(bus)
    with pytest.raises(ConfigError, match=reason):
        await bus.mesh.call("victim.place", Order("x"), **options)
    await bus.mesh.client.transport.fence()
    await tap.flush()
    assert by_mesh(tap, bus) == []


async def test_nothing_a_caller_sends_makes_another_line(bus: Bus, tap: RawNats) -> None:
    """Values with CR and LF travel in bodies alone: every block on the wire has exactly the lines of its fields."""
    victim = await victim_on(bus)
    evil = "x\r\nMesh-Status: OK\r\n\r\nPUB mesh.x 0\r\n\r\n"
    await bus.mesh.call("victim.place", Order(evil))
    with pytest.raises(RemoteError):
        await bus.mesh.call("victim.place", {"sku": {evil: evil}})
    with pytest.raises(RemoteError):
        await bus.mesh.call("victim.place", evil.encode())
    await tap.flush()
    for message in by_mesh(tap, bus):
        names = {name for name, _ in header_pairs(message.headers)}
        assert names <= {
            "Mesh-Timeout-Ms", "Mesh-Sent-Ms", "traceparent", "content-type", "Mesh-Instance", "Mesh-Status",
            "Mesh-Refused", "Nats-Service-Error", "Nats-Service-Error-Code",
        }, message  # fmt: skip
        assert "mesh.x" not in message.subject
    assert victim.seen == [Order(evil)]


async def test_nothing_a_handler_hands_on_makes_another_line(bus: Bus, raw: RawNats, tap: RawNats) -> None:
    """Baggage, trace state, priority and headers with a bare CR or LF, sent raw, forge nothing at the next hop."""
    await victim_on(bus)
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
    passed = [m for m in by_mesh(tap, bus) if ".rpc.relay." not in m.subject]
    assert len([m for m in passed if ".rpc.victim." in m.subject]) == 3
    for message in passed:
        assert not [pair for pair in header_pairs(message.headers) if "forged" in pair[0].lower()], message


# -- malformed requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status", "refused", "text"),
    [
        (b"Mesh-Timeout-Ms: soon\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: \r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: 1.5\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: " + b"9" * 500 + b"\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Timeout-Ms"),
        (b"Mesh-Timeout-Ms: \xff\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Timeout-Ms"),
        (b"Mesh-Sent-Ms: never\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Sent-Ms"),
        (b"Mesh-Attempt: -\r\n", "INVALID_ARGUMENT", "invalid", "Mesh-Attempt"),
        (b"Mesh-Timeout-Ms: 0\r\n", "DEADLINE_EXCEEDED", "deadline", "expired on arrival"),
        (b"Mesh-Timeout-Ms: -999999999999999\r\n", "DEADLINE_EXCEEDED", "deadline", "expired on arrival"),
        (b"content-type: text/html\r\n", "INVALID_ARGUMENT", "invalid", "unknown content-type"),
        (b"Content-Type: text/html\r\n", "INVALID_ARGUMENT", "invalid", "unknown content-type"),
        (b"content-type: \r\n", "INVALID_ARGUMENT", "invalid", "unknown content-type"),
        (
            b"content-type: application/octet-stream\r\n",
            "INVALID_ARGUMENT",
            "invalid",
            "does not take raw bytes",
        ),
        (b"content-type: application/msgpack\r\n", "INVALID_ARGUMENT", "invalid", "it does not fit"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_malformed_headers(
    bus: Bus, raw: RawNats, lines: bytes, status: str, refused: str | None, text: str
) -> None:
    """A field that cannot be read is answered with what is wrong with it; the handler does not run."""
    victim = await victim_on(bus)
    reply = await raw.request(rpc(bus, "place"), b'{"sku":"x"}', lines)
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
    victim = await victim_on(bus)
    for endpoint, body in (("place", b'{"sku":"x"}'), ("anything", b"1")):
        reply = await raw.request(rpc(bus, endpoint), body, lines)
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
    await victim_on(bus)
    await raw.subscribe("_INBOX.raw")
    body = b'{"sku":"x"}'
    head = f"HPUB {rpc(bus, 'place')} _INBOX.raw {len(block)} {len(block) + len(body)}\r\n".encode()
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
        (b'{"sku":"x","count":1e999}', "does not fit"),
        (b"[" * 500_000, "place"),
        (b'{"sku":' * 100_000, "place"),
        (b'{"sku":"x"} trailing', "not valid json"),
        (b"\x00" * 1000, "not valid json"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_undecodable_bodies(bus: Bus, raw: RawNats, body: bytes, text: str) -> None:
    """What does not decode is INVALID_ARGUMENT, naming endpoint and field; the handler does not run."""
    victim = await victim_on(bus)
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("victim.place", body, headers={"content-type": "application/json"})
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert text in caught.value.message
    reply = await raw.request(rpc(bus, "place"), body)
    assert b"Nats-Service-Error-Code: 400" in reply.headers
    assert victim.seen == []


async def test_a_deeply_nested_value_is_an_error_on_both_sides(bus: Bus) -> None:
    """A bomb of nesting is refused where it is decoded, and where it is encoded."""
    victim = await victim_on(bus)
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
    await victim_on(bus)
    with pytest.raises(CodecError, match=r"^victim\.place: cannot encode object"):
        await bus.mesh.call("victim.place", object())
    with pytest.raises(CodecError, match=r"^plain\.subject: cannot encode object"):
        await bus.mesh.call("nats://plain.subject", object())
    with pytest.raises(CodecError) as caught:
        await bus.mesh.call("victim.place", object())
    assert caught.value.executed is Executed.NO
    await tap.flush()
    assert by_mesh(tap, bus) == []


async def test_a_reply_that_does_not_fit_says_that_the_handler_ran(bus: Bus) -> None:
    """The caller cannot read it, and must not believe that nothing was done: the first time as later."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def get() -> str:
        return "text"

    await bus.serve(service)
    for _ in range(3):
        with pytest.raises(CodecError, match=r"^shop\.get: the reply does not fit") as caught:
            await bus.mesh.call("shop.get", returns=int)
        assert caught.value.executed is Executed.YES


# -- deadlines ----------------------------------------------------------------------------------------


async def test_expired_work_is_refused_before_it_is_decoded(bus: Bus, raw: RawNats) -> None:
    """A request whose time is up is refused as such, although its body would not decode and its type is unknown."""
    victim = await victim_on(bus)
    reply = await raw.request(rpc(bus, "place"), b"\xff", b"Mesh-Timeout-Ms: 0\r\ncontent-type: x\r\n")
    headers = dict(header_pairs(reply.headers))
    assert (headers["Mesh-Status"], headers["Mesh-Refused"]) == ("DEADLINE_EXCEEDED", "deadline")
    assert victim.instance.dispatcher.served["place"].concurrency.in_flight == 0


@pytest.mark.parametrize(
    ("inbox", "refused"),
    [("_INBOX.old.CONN.0123456789abcdef0123456789abcdef", "deadline"), ("_INBOX.anybody", "")],
    ids=["mesh", "foreign"],
)
async def test_work_that_waited_too_long_is_expired(bus: Bus, raw: RawNats, inbox: str, refused: str) -> None:
    """By its connection's own clock a request that lay about longer than its time is refused, a fresh one is not.

    A foreign inbox names no connection, so that no clock is known to be its sender's.
    """
    victim = await victim_on(bus)
    await raw.subscribe(f"{inbox}.*")

    async def send(number: int, sent_ms: int) -> str:
        lines = f"Mesh-Timeout-Ms: 500\r\nMesh-Sent-Ms: {sent_ms}\r\n".encode()
        raw.publish(rpc(bus, "place", "old"), b'{"sku":"x"}', f"{inbox}.{number}", lines)
        reply = await raw.next(f"{inbox}.{number}")
        return dict(header_pairs(reply.headers)).get("Mesh-Refused", "")

    assert await send(1, 10_000_000) == ""
    assert await send(2, 10_000_000 - 3_000) == refused
    assert await send(3, 10_000_000 + 60_000) == ""
    assert len(victim.seen) == (2 if refused else 3)


async def test_a_caller_without_time_sends_nothing(bus: Bus, tap: RawNats) -> None:
    """A nested call made after the deadline is over before it begins, and says that nothing ran."""
    await victim_on(bus)
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
                await anyio.sleep(ctx.remaining() + 0.001)  # the caller's own time ends a little earlier
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
