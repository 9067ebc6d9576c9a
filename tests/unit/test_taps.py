"""Calls told of on the bus: what is in an envelope, what is hidden, how many, and for how long."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nats_mesh import Service
from nats_mesh.core.envelope import (
    HIDDEN,
    MAX_HEADERS,
    MAX_NAMES,
    MAX_VALUE,
    Envelope,
    check_header_names,
    hashed_key,
    is_secret,
    is_whole,
    kept_headers,
    names_secret,
    sampled,
)
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry.tap_messages import (
    MAX_BYTES,
    TapCall,
    TapMessage,
    Wish,
    decode_tap,
    decode_wish,
    encode_tap,
    recorded_call,
    together,
)
from nats_mesh.telemetry.tap_sink import TapSink
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.codecs import JSON


def envelope(**fields: object) -> TapCall:
    """A call."""
    given_fields = {
        "at": "2026-01-01T00:00:00.000000Z", "endpoint": "place", "caller": "web", "route": "all",
        "status": "OK", "duration_s": 0.01,
    }  # fmt: skip
    return msgspec.convert({**given_fields, **fields}, TapCall)


def message(*calls: TapCall, **fields: object) -> TapMessage:
    """A message of one instance of orders."""
    given_fields = {
        "instance": "a1", "service": "orders", "version": "1.0.0", "namespace": "default", "seq": 1,
        "seen": len(calls),
    }  # fmt: skip
    return msgspec.structs.replace(msgspec.convert({**given_fields, **fields}, TapMessage), calls=calls)


# -- headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "Set-Cookie", "X-Auth-Token", "client-secret", "password", "X-Api-Key", "passwd",
     "aws-credentials", "x-signature", "idempotency-key", "x-auth", "X-Authenticated-User", "sessionid", "x-jwt",
     "db-pwd", "proxy-authorisation"],
)  # fmt: skip
def test_secrets_keep_their_name_and_lose_their_value(name: str) -> None:
    """Whatever the case, and whoever asks for them."""
    assert is_secret(name)
    for wanted in (None, (name.lower(),)):
        kept, cut = kept_headers([(name, "s3cr3t")], wanted)
        assert (kept, cut) == (((name.lower(), HIDDEN),), False)
    assert not is_whole(HIDDEN)


@pytest.mark.parametrize(
    "value",
    ["Bearer abcdefgh12345678", "x=1; basic dXNlcjpwYXNz", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
     *[f"{letter}eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln" for letter in "\u0130\u0131\u017f\u212a"]],
)  # fmt: skip
def test_a_secret_in_a_value_is_hidden_too(value: str) -> None:
    """Whatever the header is called."""
    assert kept_headers([("x-forwarded", value)], None) == ((("x-forwarded", HIDDEN),), False)


@given(st.lists(st.sampled_from([*"-._ aé", "eyJ", "EYJ", "abcdef"]), max_size=30).map("".join))
@example("x-eyJaaaaaa.b.")
@example("a.eyJaaaaaa.b.")
def test_tokens_are_found_wherever_they_stand(text: str) -> None:
    """The same that one pattern finds, which takes too long where a text is long."""
    token = re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.", re.IGNORECASE)
    if token.search(text):
        assert kept_headers([("a", text)], None) == ((("a", HIDDEN),), False)
    elif "é" not in text:
        assert kept_headers([("a", text)], None)[0][0][1] == text


@pytest.mark.parametrize("part", ["-eyJaaaaaa", "eyJaaaaaa.", "bearer ", "a.", "key-"])
def test_a_long_value_takes_no_longer_than_it_is_long(part: str) -> None:
    """A caller decides what a header holds, and the instance looks at it while others wait: with a pattern that begins
    anew at each place this takes a quarter of an hour."""
    value = part * 100_000
    kept, _ = kept_headers([("a", value)], None)
    assert kept[0][1] in (HIDDEN, f"{value[: MAX_VALUE - 1]}…")
    names_secret(value)


@pytest.mark.parametrize("name", ["author", "x-authority", "tenant", "end-user", "x-basic"])
def test_what_is_no_secret_is_shown(name: str) -> None:
    """A recording is tried on rules: what is hidden nobody can tell."""
    assert kept_headers([(name, "basic plan")], None) == (((name, "basic plan"),), False)


def test_only_what_is_asked_for_is_kept() -> None:
    """By name; what the mesh itself hands on is never kept."""
    pairs = [
        ("Tenant", "acme"),
        ("user", "7"),
        ("traceparent", "00-…"),
        ("baggage", "a=b"),
        ("content-type", "x"),
    ]
    assert kept_headers(pairs, None) == ((("tenant", "acme"), ("user", "7")), False)
    assert kept_headers(pairs, ("tenant", "baggage")) == ((("tenant", "acme"),), False)
    assert kept_headers(pairs, ()) == ((), False)


def test_headers_are_bounded_and_what_is_cut_is_told() -> None:
    """A long value ends in an ellipsis; beyond so many headers the call says that some are missing."""
    kept, cut = kept_headers([("a", "x" * 1000)], None)
    assert len(kept[0][1]) == MAX_VALUE
    assert not is_whole(kept[0][1])
    assert not cut
    kept, cut = kept_headers([(f"h{n}", "v") for n in range(MAX_HEADERS + 1)], None)
    assert (len(kept), cut) == (MAX_HEADERS, True)
    assert kept_headers([(f"h{n}", "v") for n in range(MAX_HEADERS)], None)[1] is False


@given(st.text())
def test_whatever_headers_hold_an_envelope_can_be_read(value: str) -> None:
    """No text of a caller makes a message unreadable for observers."""
    kept, cut = kept_headers([("h", value), ("x-" + "n" * 300, value)], None)
    (body,) = encode_tap(message(envelope(headers=kept, cut=cut)), MAX_BYTES)
    assert decode_tap(body).calls[0].headers == kept
    assert len(kept) == 1, "a name that is too long finds no room"
    assert cut


def test_names_of_headers_are_checked() -> None:
    """In lower case, each once, and not too many."""
    assert check_header_names(["Tenant", "tenant", "user"]) == ("tenant", "user")
    with pytest.raises(ConfigError, match="'a b' is no name of a header"):
        check_header_names(["a b"])
    with pytest.raises(ConfigError, match="33 headers are too many"):
        check_header_names([f"h{n}" for n in range(MAX_NAMES + 1)])


def test_a_key_is_told_by_its_hash() -> None:
    """The same key has the same one, and the key is not in it."""
    assert hashed_key(b"order-7") == hashed_key(b"order-7") != hashed_key(b"order-8")
    assert len(hashed_key(b"order-7")) == 16


# -- samples ------------------------------------------------------------------------------------------


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    """So that observers who want different shares can be told by the same messages."""
    traces = [f"{n:032x}" for n in range(2000)]
    five, fifty = ({trace for trace in traces if sampled(trace, share)} for share in (0.05, 0.5))
    assert five < fifty
    assert 60 < len(five) < 140
    assert 900 < len(fifty) < 1100
    assert all(sampled(trace, 1.0) for trace in traces)


def test_wishes_are_put_together() -> None:
    """The largest sample, every header, the highest rate: each observer takes less of it."""
    one, other = Wish(sample=0.1, headers=("a",), rate=10.0), Wish(sample=0.5, headers=("b",), rate=5.0)
    assert together([one, other]) == Wish(sample=0.5, headers=("a", "b"), rate=10.0)
    assert together([one, Wish(headers=None)]).headers is None
    many = [Wish(headers=tuple(f"h{n}" for n in range(start, start + 20))) for start in (0, 20)]
    assert together(many).headers is None


@pytest.mark.parametrize(
    "body",
    [b"x", b"[]", b'{"sample":0}', b'{"sample":1.5}', b'{"rate":0}', b'{"rate":1e9}', b'{"headers":["A"]}',
     b'{"headers":["a b"]}', b'{"wire":2}', b'{"sample":"1"}', b" " * 20_000],
)  # fmt: skip
def test_a_wish_that_cannot_be_is_refused(body: bytes) -> None:
    """Whatever it is."""
    with pytest.raises(CodecError):
        decode_wish(body)


def test_an_empty_lease_is_a_wish() -> None:
    """As other kinds of telemetry have it."""
    assert decode_wish(b"") == Wish()
    assert decode_wish(b'{"sample":0.5,"headers":null,"later":true}') == Wish(sample=0.5, headers=None)


# -- messages -----------------------------------------------------------------------------------------


def test_a_message_goes_there_and_back() -> None:
    """With every field; and whose calls these are."""
    call = envelope(
        trace="4bf92f3577b34da6a3ce929d0e0e4736", key="0123456789abcdef", headers=(("tenant", "acme"),),
        attempt=2, mirror=True, refused="concurrency", injected="delay", bytes_in=1, bytes_out=2, cut=True,
        queue_s=0.001,
    )  # fmt: skip
    sent = message(call, concurrency={"place": 64}, headers=None, sample=0.1, dropped=3)
    (body,) = encode_tap(sent, MAX_BYTES)
    read = decode_tap(body, service="orders", instance="a1", namespace="default")
    assert read == sent
    (told,) = [recorded_call(call, read) for call in read.calls]
    assert (told.service, told.instance, told.version, told.concurrency) == ("orders", "a1", "1.0.0", 64)
    assert all(getattr(told, name) == getattr(call, name) for name in Envelope.__struct_fields__)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"service": "billing"}, "its subject says 'billing'"),
        ({"instance": "b2"}, "its subject says 'b2'"),
        ({"namespace": "other"}, "its subject says 'other'"),
    ],
)
def test_nobody_speaks_for_another(said: dict[str, str], text: str) -> None:
    """What the subject says, which the server enforces, must be what the body says."""
    (body,) = encode_tap(message(envelope()), MAX_BYTES)
    with pytest.raises(CodecError, match=text):
        decode_tap(body, **said)


@pytest.mark.parametrize(
    "fields",
    [
        {"duration_s": -1.0}, {"duration_s": 1e12}, {"status": "OK\r\n"}, {"caller": "a.b"}, {"trace": "xyz"},
        {"attempt": 0}, {"bytes_in": -1}, {"headers": [["a", "b\x1b[2J"]]}, {"at": "yesterday"}, {"key": "k" * 16},
        {"headers": [["a", "b"]] * (MAX_HEADERS + 1)}, {"refused": "DROP TABLE"}, {"route": "a b"},
    ],
)  # fmt: skip
def test_an_envelope_that_could_harm_is_refused(fields: dict[str, object]) -> None:
    """Whole: who sends one such call is not believed about the others."""
    plain = msgspec.to_builtins(message(envelope()))
    plain["calls"] = [{**plain["calls"][0], **fields}]
    with pytest.raises(CodecError):
        decode_tap(JSON.encode(plain))


def test_a_large_batch_travels_in_parts() -> None:
    """None above what a server takes, no call twice, and what was seen is said once."""
    calls = [envelope(headers=tuple((f"h{n}", "v" * 200) for n in range(20)), bytes_in=n) for n in range(64)]
    bodies = encode_tap(message(*calls, seen=100, dropped=5), 32 * 1024)
    read = [decode_tap(body) for body in bodies]
    assert len(bodies) > 4
    assert all(len(body) <= 32 * 1024 for body in bodies)
    assert [call.bytes_in for part in read for call in part.calls] == list(range(64))
    assert (sum(part.seen for part in read), sum(part.dropped for part in read)) == (100, 5)
    assert {part.seq for part in read} == {1}


def test_the_calls_of_an_endpoint_are_said_once() -> None:
    """In the first part; an instance that does not tell them apart says so in none."""
    calls = [envelope(headers=tuple((f"h{n}", "v" * 200) for n in range(20))) for n in range(16)]
    for fields, first, rest in (
        ({"seen_by": {"place": 40}}, {"place": 40}, {}),
        ({}, msgspec.UNSET, msgspec.UNSET),
    ):
        parts = [decode_tap(body) for body in encode_tap(message(*calls, seen=40, **fields), 32 * 1024)]
        assert len(parts) > 1
        assert [part.seen_by for part in parts] == [first, *[rest] * (len(parts) - 1)]


def test_an_instance_that_does_not_tell_endpoints_apart_counts_all() -> None:
    """An older one: of what was named nobody knows how many ended."""
    sink = TapSink(
        lambda call, _: call,
        namespace="default",
        enforced=True,
        now=lambda: 0.0,
        targets={"orders": ("place",)},
    )
    sink.take(message(envelope(), seen=9))
    assert sink.counts.ended == 9
    sink.take(message(envelope(), seen=9, seen_by={"place": 2, "cancel": 7}))
    assert sink.counts.ended == 11


# -- leases -------------------------------------------------------------------------------------------


def asked(instance: Instance) -> bool:
    """Whether calls are asked anything."""
    return "tap" in instance.dispatcher.watching.names


def test_a_recording_ends_with_its_last_lease() -> None:
    """However long that is; what an instance tells then is told, and nothing after it."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def buy() -> str:
        return "tea"

    async def main() -> None:
        async with MemoryMesh(service) as mesh:
            told: list[TapMessage] = []
            client, (instance,) = mesh.mesh.client, mesh.instances
            client.transport.subscribe(
                client.subjects.telemetry_of("tap"), lambda s, r, h, payload: told.append(decode_tap(payload))
            )
            want = client.subjects.want("tap", "shop", "test")
            for sample in (1.0, 0.5):
                body = JSON.encode(Wish(sample=sample))
                client.transport.publish(want, body, client.mux.one_way("telemetry"))
                await asyncio.sleep(3.0)
            await mesh.call("shop.buy")
            await asyncio.sleep(1.0)
            assert asked(instance), "7 s after the first lease, 4 after the second"
            assert [(each.sample, each.seen) for each in told] == [(0.5, 1)]
            await asyncio.sleep(LEASE_S)
            assert not asked(instance)
            await mesh.call("shop.buy")
            await asyncio.sleep(1.0)
            assert len(told) == 1

    run_virtual(main)


def test_what_a_lost_connection_kept_back_is_counted() -> None:
    """Calls that could not be told of count as dropped in the next message."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def buy() -> str:
        return "tea"

    async def main() -> None:
        async with MemoryMesh(service) as mesh:
            told: list[TapMessage] = []
            client = mesh.mesh.client
            client.transport.subscribe(
                client.subjects.telemetry_of("tap"), lambda s, r, h, payload: told.append(decode_tap(payload))
            )
            want = client.subjects.want("tap", "shop", "test")
            client.transport.publish(want, b"", client.mux.one_way("telemetry"))
            await client.transport.fence()
            await mesh.call("shop.buy")
            mesh.cut("shop")
            await asyncio.sleep(1.0)
            mesh.mend("shop")
            await asyncio.sleep(1.0)
            await mesh.call("shop.buy")
            await asyncio.sleep(1.0)
            (message,) = told
            assert (message.seen, message.dropped, len(message.calls)) == (2, 1, 1)

    run_virtual(main)
