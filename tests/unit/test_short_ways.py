"""The short ways of the usual call say and read exactly what the careful ways do."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.calling.exchange import Target, encode_value
from nats_mesh.calling.heads import PlainHeads, request_block
from nats_mesh.calling.replies import UsualReplies, decode_value, raw_reply_decoder, reply_decoder
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.model import NO_HEADERS, Headers, OwnHeaders, Request
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import CODECS, JSON, MSGPACK, RAW, Codec

codecs = st.sampled_from([JSON, MSGPACK, RAW])


class Point(msgspec.Struct):
    """A typed value."""

    x: int
    y: int = 0


def block_of(request: Request, codec: Codec, remaining_s: float, now: float) -> bytes:
    """The header block that the careful way makes."""
    ids = PlainHeads(random.Random(2)).ids()
    return request_block(request, None, codec, ids=ids, sampled=False, remaining_s=remaining_s, now=now)


@given(
    codec=codecs,
    remaining_s=st.floats(0.0000001, 86_400.0),
    now=st.floats(0.0, 1e9),
    number=st.integers(1, 10**12),
    size=st.integers(0, 10**8),
)
def test_a_plain_head_is_the_command_that_publish_would_write(
    codec: Codec, remaining_s: float, now: float, number: int, size: int
) -> None:
    """Line and sizes are right to the byte, and the block holds the same fields in the same order."""
    line = "HPUB mesh.d.rpc.a.all.b.web _INBOX.web.c.s."
    heads = PlainHeads(random.Random(1))
    head = heads.head(line, number, size, codec, heads.ids(), False, remaining_s, now)
    first, _, block = head.partition("\r\n")
    verb, subject, inbox, length, total = first.split(" ")
    assert (verb, subject, inbox) == ("HPUB", "mesh.d.rpc.a.all.b.web", f"_INBOX.web.c.s.{number}")
    assert int(length) == len(block.encode())
    assert int(total) == int(length) + size
    request = Request("a", "b", "web", "d", None, NO_HEADERS, now + remaining_s)
    careful = block_of(request, codec, remaining_s, now).decode()
    ids = re.compile(r"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00")
    assert len(ids.findall(block)) == len(ids.findall(careful)) == 1
    assert ids.sub("", block) == ids.sub("", careful)
    assert h.usual_request(block.encode()) is not None


def test_a_plain_head_owes_nothing_to_the_one_before() -> None:
    """Whatever changed since, or nothing: each says what a first one would, and no two have an id in common."""
    rng = random.Random("heads")
    heads = PlainHeads(random.Random(1))
    ids = re.compile(r"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]")
    seen: list[str] = []
    for number in range(400):
        line = rng.choice(("HPUB a _INBOX.a.", "HPUB b _INBOX.b."))
        size, codec = rng.choice((0, 3, 12)), rng.choice((JSON, MSGPACK, RAW))
        remaining_s, now = rng.choice((0.0001, 1.0, 1.0004, 2.0)), rng.choice((5.0, 5.0009, 5.001))
        sampled, other = rng.random() < 0.5, PlainHeads(random.Random(2))
        head = heads.head(line, number, size, codec, heads.ids(), sampled, remaining_s, now)
        first = other.head(line, number, size, codec, other.ids(), sampled, remaining_s, now)
        assert ids.sub("", head) == ids.sub("", first)
        assert f"-0{int(sampled)}\r\n" in head
        assert f"-0{int(sampled)}\r\n" in first
        found = ids.search(head)
        assert found is not None
        seen += found.groups()
    assert len(set(seen)) == len(seen) == 800


def a_target() -> Target:
    """A destination, new."""
    series = Stats().series("out", "a", "b", "web")
    return Target("a", "b", "mesh.d.rpc.a.all.b.web", "mesh.d.cancel.a.web", series, None, "_INBOX.web.c.s.")


def outcome(encode: Callable[[], tuple[bytes, Codec]]) -> tuple[Any, ...]:
    """What came of it, errors included."""
    try:
        body, codec = encode()
    except (CodecError, ConfigError) as error:
        return type(error), str(error)
    return body, codec.name


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    None,
                    1,
                    "a",
                    b"raw",
                    bytearray(b"raw"),
                    {"a": 1},
                    {"a": object()},
                    Point(1),
                    Point(2),
                    object(),
                ]
            ),
            st.sampled_from([*sorted(CODECS), "nonsense"]),
        ),
        max_size=12,
    )
)
def test_a_value_is_written_as_if_it_were_the_first(values: list[tuple[Any, str]]) -> None:
    """Whatever types and codecs came before: the bytes, the codec, and what is wrong are those of the careful way."""
    known = a_target()
    for value, name in values:
        short = outcome(partial(known.encoded, value, name))
        assert short == outcome(partial(encode_value, "a.b", value, name))


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\r\nMesh-Instance: i-1\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\ncontent-type: application/msgpack\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\ncontent-type: application/octet-stream\r\n\r\n",
    ],
)
def test_a_usual_reply_is_kept_and_says_who_answered(block: bytes) -> None:
    """What an instance sends with every usual reply is read once."""
    replies = UsualReplies()
    replies.learn(block)
    assert replies.known[block].instance == "i-1"


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nx: 1\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Status: INTERNAL\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nNats-Service-Error: no\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\ncontent-type: text/html\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\ncontent-type: application/json\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i 1\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\n\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\nMesh-Status: INTERNAL\r\n\r\n",
    ],
)
def test_any_other_reply_is_read_with_care_each_time(block: bytes) -> None:
    """An error, a header of the user, or anything odd is never taken for a usual reply."""
    replies = UsualReplies()
    replies.learn(block)
    assert replies.known == {}


BUSY = b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: 3/64\r\n\r\n"


@pytest.mark.parametrize("first", [BUSY, b"NATS/1.0\r\nMesh-Instance: i-1\r\n\r\n"])
def test_a_reply_that_tells_its_load_is_known_by_what_else_it_says(first: bytes) -> None:
    """Whatever the load is, the rest of the block was read once; with or without a load."""
    replies = UsualReplies()
    replies.learn(first)
    for load in (b"0/1", b"17/64", b"", b"nonsense"):
        found = replies.of_busy(b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: " + load + b"\r\n\r\n")
        assert found is not None
        assert found.instance == "i-1"
    assert len(replies.known) == 1


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-2\r\nMesh-Load: 3/64\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: 3/64\r\nMesh-Status: INTERNAL\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Status: INTERNAL\r\nMesh-Load: 3/64\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: 3/64\r\nx: 1\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: 3/64\nMesh-Status: INTERNAL",
        b"NATS/1.0\r\nMesh-Instance: i-1\r\nMesh-Load: 3/64\r\n",
        b"\r\nMesh-Load: 3/64\r\n\r\n",
    ],
)
def test_what_says_more_than_its_load_is_read_with_care(block: bytes) -> None:
    """A line before or after it that is no part of a usual reply."""
    replies = UsualReplies()
    replies.learn(BUSY)
    assert replies.of_busy(block) is None


_NUMBERS = st.sampled_from(
    [b"", b" ", b"-", b"0", b"17", b"007", b"999999999999999", b"1234567890123456", b"1 7"]
)


@given(timeout=_NUMBERS, sent=_NUMBERS, rest=st.sampled_from([b"", b"Mesh-Timeout-Ms: 9\r\n", b"x: 1\r\n"]))
def test_the_beginning_of_a_request_says_what_the_fields_say(
    timeout: bytes, sent: bytes, rest: bytes
) -> None:
    """Where the short way reads the two times the careful way reads the same."""
    block = b"NATS/1.0\r\nMesh-Timeout-Ms: %b\r\nMesh-Sent-Ms: %b\r\n%b\r\n" % (timeout, sent, rest)
    found = h.usual_beginning(block)
    if found is not None:
        assert int(found[1]) == h.int_field(block, h.TIMEOUT_MS)
        assert int(found[2]) == h.int_field(block, h.SENT_MS)


@pytest.mark.parametrize("name", ["X-A", "x-bin", "Mesh-X", "nats-y", "a b", "", 3, None, ["x"]])
@pytest.mark.parametrize(
    "value", ["plain", "ünï", "a\tb", "a\x00b", "a\r\nb", "", "\ud800", b"x", 3, True, None]
)
@pytest.mark.parametrize("kind", [Headers, OwnHeaders])
def test_a_header_that_was_found_good_is_judged_the_same_the_second_time(
    kind: type[Headers], name: Any, value: Any
) -> None:
    """What the short way for known names lets through is what the careful way does."""

    def outcome() -> tuple[str, Any]:
        headers = kind()
        try:
            headers.add(name, value)
        except ConfigError as error:
            return "refused", str(error)
        return "taken", headers.pairs()

    first = outcome()
    with contextlib.suppress(ConfigError):
        kind().add(name, "good")  # from now on the name is known, if it is a good one
    assert outcome() == first


def test_known_replies_are_bounded() -> None:
    """However many instances answer, the table keeps the newest ones alone."""
    replies = UsualReplies(limit=10)
    blocks = [b"NATS/1.0\r\nMesh-Instance: i-%d\r\n\r\n" % n for n in range(100)]
    for block in blocks:
        replies.learn(block)
    assert list(replies.known) == blocks[-10:]


@given(body=st.binary(max_size=40), returns=st.sampled_from([Any, Point, int, str, dict, list, bytes, None]))
def test_raw_decoders_read_what_careful_ones_read(body: bytes, returns: Any) -> None:
    """Where the short way yields a value the careful way yields the same; where it fails, the careful way decides."""
    for codec in (JSON, MSGPACK, RAW):
        try:
            short = raw_reply_decoder(codec, returns)(body)
        except Exception:  # noqa: BLE001 - whatever it is, the careful way is asked then
            continue
        assert repr(short) == repr(reply_decoder(codec, codec is not JSON, returns)(body))


@pytest.mark.parametrize("returns", [Any, bytes])
def test_empty_bytes_are_bytes(returns: Any) -> None:
    """A handler that returns b"" has said something, the first time as every time; in the other codecs an empty body is
    no value."""
    block = b"NATS/1.0\r\nMesh-Instance: i-1\r\ncontent-type: application/octet-stream\r\n\r\n"
    assert decode_value(block, b"", returns) == b""
    assert raw_reply_decoder(RAW, returns)(b"") == b""
    assert decode_value(b"NATS/1.0\r\nMesh-Instance: i-1\r\n\r\n", b"", Any) is None
    assert decode_value(block.replace(b"octet-stream", b"msgpack"), b"", Any) is None


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("value", [None, b"raw", bytearray(b"raw"), memoryview(b"raw")])
def test_bytes_and_nothing_travel_as_they_are(name: str, value: Any) -> None:
    """Whatever the codec: bytes raw, None as an empty body in the codec that was asked for."""
    body, codec = encode_value("a.b", value, name)
    assert (body, codec.name) == ((b"", name) if value is None else (b"raw", "bytes"))


def test_what_cannot_be_encoded_is_said_with_its_target() -> None:
    """The short way's failure leads to the careful way's message."""
    with pytest.raises(CodecError, match=r"^a\.b: cannot encode object as json"):
        encode_value("a.b", object(), "json")
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(CodecError, match="nests too deeply"):
        encode_value("a.b", nested, "json")


def test_a_reply_that_does_not_fit_says_what_it_should_have_been() -> None:
    """The type and the path of the field are in the message, on either way."""
    with pytest.raises(CodecError, match=r"does not fit .*Point.*\$\.x"):
        decode_value(b"", b'{"x":"no"}', Point)
