"""Values to bytes and back: whatever arrives, the outcome is a value or one typed error."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh import CodecError, ConfigError
from nats_mesh.wire.codecs import (
    CODECS,
    JSON,
    MSGPACK,
    RAW,
    Codec,
    by_content_type,
    check_codec,
    encoder_for,
)

TYPED = [JSON, MSGPACK]


class Leaf(msgspec.Struct):
    """Something nested."""

    text: str
    number: int | float | None = None


class Tree(msgspec.Struct):
    """A value with a bit of everything."""

    name: str
    data: bytes
    when: datetime.datetime | None
    leaves: list[Leaf]
    table: dict[str, Leaf]
    price: decimal.Decimal = decimal.Decimal(0)


class Model(pydantic.BaseModel):
    """A value of pydantic's, with a rule of its own."""

    count: int

    @pydantic.field_validator("count")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("count must not be negative")
        return value


class Wrapped(msgspec.Struct):
    """A pydantic model inside a struct."""

    model: Model


class Broken:
    """Something that cannot be encoded, and has a property that fails."""

    @property
    def value(self) -> int:
        raise RuntimeError("no value")


class Strange:
    """A class that no codec knows."""


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
leaves = st.builds(Leaf, st.text(), st.integers(-(2**53), 2**53) | st.none())
trees = st.builds(
    Tree,
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.just(datetime.UTC)) | st.none(),
    st.lists(leaves, max_size=4),
    st.dictionaries(st.text(), leaves, max_size=4),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9),
)
kinds = st.sampled_from(
    [Any, int, str, bytes, float, bool, None, Tree, Leaf, Model, list[Leaf], dict[str, Any]]
)


@pytest.mark.parametrize("codec", TYPED, ids=repr)
@given(value=plain)
def test_plain_values_round_trip(codec: Codec, value: Any) -> None:
    """What JSON can say is the same after a journey in either codec."""
    assert codec.decoder(Any)(codec.encode(value)) == value


@pytest.mark.parametrize("codec", TYPED, ids=repr)
@given(value=trees)
def test_typed_values_round_trip(codec: Codec, value: Tree) -> None:
    """A struct with dates, bytes, decimals and nesting is the same after a journey in either codec."""
    assert codec.decoder(Tree)(codec.encode(value)) == value


@given(value=st.binary())
def test_raw_bytes_round_trip(value: bytes) -> None:
    """Raw bytes are never looked into, whatever kind of buffer they come in."""
    for each in (value, bytearray(value), memoryview(value)):
        assert RAW.decoder(bytes)(RAW.encode(each)) == value
        assert RAW.decoder(Any)(RAW.encode(each)) == value


@pytest.mark.parametrize("codec", TYPED, ids=repr)
@given(data=st.binary(max_size=200), kind=kinds)
def test_random_bytes_are_a_value_or_a_codec_error(codec: Codec, data: bytes, kind: Any) -> None:
    """No input makes a decoder raise anything but CodecError."""
    decode = codec.decoder(kind)
    try:
        decode(data)
    except CodecError:
        pass


@pytest.mark.parametrize("codec", TYPED, ids=repr)
@given(value=trees, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damaged_bytes_are_a_value_or_a_codec_error(codec: Codec, value: Tree, at: int, byte: int) -> None:
    """One wrong byte in a good message is found, or makes another good message; nothing else happens."""
    data = bytearray(codec.encode(value))
    data[at % len(data)] = byte
    try:
        assert isinstance(codec.decoder(Tree)(bytes(data)), Tree)
    except CodecError:
        pass


HOSTILE = [
    (JSON, b"", "the body is empty"),
    (JSON, b"[" * 200_000, "nests too deeply"),
    (JSON, b'{"a":' * 200_000, "nests too deeply"),
    (JSON, b"1" * 100_000, "does not fit"),
    (JSON, b"1e99999999", "does not fit"),
    (JSON, b'"\xff\xfe"', "not valid json"),
    (JSON, b'"\\ud800"', "not valid json"),
    (JSON, b"\xef\xbb\xbf1", "not valid json"),
    (JSON, b"NaN", "not valid json"),
    (JSON, b"{} {}", "trailing"),
    (JSON, b"\x00", "not valid json"),
    (MSGPACK, b"", "the body is empty"),
    (MSGPACK, b"\x91" * 200_000, "nests too deeply"),
    (MSGPACK, b"\x81\xa1a" * 200_000, "nests too deeply"),
    (MSGPACK, b"\xdd\xff\xff\xff\xff", "truncated"),
    (MSGPACK, b"\xdf\xff\xff\xff\xff", "truncated"),
    (MSGPACK, b"\xc6\xff\xff\xff\xff", "truncated"),
    (MSGPACK, b"\xa1\xff", "not valid msgpack"),
    (MSGPACK, b"\xc1", "not valid msgpack"),
    (MSGPACK, b"\x81\x80\x01", "not valid msgpack"),
    (MSGPACK, b"\xd7\xff" + b"\xff" * 8, "does not fit"),
]


@pytest.mark.parametrize(("codec", "data", "reason"), HOSTILE, ids=lambda value: repr(value)[:30])
def test_hostile_bytes(codec: Codec, data: bytes, reason: str) -> None:
    """Bombs of nesting, sizes that lie and broken text cost nothing and say what they are, briefly."""
    with pytest.raises(CodecError, match=reason) as caught:
        codec.decoder(Any)(data)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("codec", TYPED, ids=repr)
def test_a_misfit_names_its_field(codec: Codec) -> None:
    """The error carries the path of the field, what was expected there and what was found."""
    data = codec.encode({"name": "x", "data": b"", "when": None, "leaves": [{"text": 7}], "table": {}})
    with pytest.raises(CodecError, match=r"Expected `str`, got `int`.*\$\.leaves\[0\]\.text"):
        codec.decoder(Tree)(data)


@pytest.mark.parametrize("codec", TYPED, ids=repr)
def test_pydantic_models_travel(codec: Codec) -> None:
    """They are encoded and validated by pydantic itself, on their own and inside structs."""
    assert codec.decoder(Model)(codec.encode(Model(count=1))) == Model(count=1)
    assert codec.decoder(Wrapped)(codec.encode(Wrapped(Model(count=1)))) == Wrapped(Model(count=1))
    with pytest.raises(CodecError, match="count must not be negative"):
        codec.decoder(Wrapped)(codec.encode({"model": {"count": -1}}))


UNENCODABLE: list[tuple[Any, str]] = [
    (object(), "cannot encode object"),
    (Broken(), "cannot encode Broken"),
    ({"a": {object()}}, "object"),
    ("\ud800", "surrogates"),
]


@pytest.mark.parametrize("codec", TYPED, ids=repr)
@pytest.mark.parametrize(("value", "reason"), UNENCODABLE, ids=lambda value: repr(value)[:20])
def test_what_cannot_be_encoded_is_a_codec_error(codec: Codec, value: Any, reason: str) -> None:
    """It says which type; the original error is its cause."""
    with pytest.raises(CodecError, match=reason) as caught:
        codec.encode(value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("codec", TYPED, ids=repr)
def test_a_value_that_contains_itself(codec: Codec) -> None:
    """Endless nesting is an error and no crash."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CodecError, match="nests too deeply"):
        codec.encode(endless)


@pytest.mark.parametrize("value", ["text", 7, None, [b"x"]])
def test_the_raw_codec_takes_bytes_alone(value: Any) -> None:
    """Text or numbers under codec='bytes' are refused, not guessed at."""
    with pytest.raises(CodecError, match=f"takes bytes, got {type(value).__name__}"):
        RAW.encode(value)


@pytest.mark.parametrize(
    ("codec", "kind", "reason"),
    [
        (RAW, int, "raw bytes cannot become"),
        (RAW, Leaf, "use returns=bytes"),
        (JSON, Strange, "Strange is no type that travels"),
        (MSGPACK, list[Strange | None], "Strange is no type that travels"),
        (JSON, Leaf | Tree, "cannot decode json to"),
    ],
    ids=str,
)
def test_types_that_cannot_be_decoded_to(codec: Codec, kind: Any, reason: str) -> None:
    """A type that no message could ever fit is refused before the first one."""
    with pytest.raises(ConfigError, match=reason):
        codec.decoder(kind)


def test_decoders_are_made_once() -> None:
    """Asking again for a type's decoder gives the same one; an annotation without a hash still works."""
    from typing import Annotated

    assert JSON.decoder(Leaf) is JSON.decoder(Leaf)
    assert JSON.decoder(Annotated[int, {"unhashable": []}])(b"7") == 7


@pytest.mark.parametrize(
    ("value", "codec"),
    [
        (None, JSON),
        (b"application/json", JSON),
        (b"application/msgpack", MSGPACK),
        (b"application/octet-stream", RAW),
        (b"Application/JSON; charset=utf-8", JSON),
        (b" application/msgpack ;x=1", MSGPACK),
        (b"", None),
        (b";", None),
        (b"text/plain", None),
        (b"application/jsonx", None),
        (b"\xff\xfe", None),
        (b"application/json, application/msgpack", None),
    ],
)
def test_content_types(value: bytes | None, codec: Codec | None) -> None:
    """Parameters and case do not matter; JSON where nothing is said; what is unknown is said to be."""
    assert by_content_type(value) is codec


@given(value=st.binary(max_size=100))
def test_any_content_type_is_known_or_not(value: bytes) -> None:
    """No bytes in a content type raise anything."""
    assert by_content_type(value) in (None, JSON, MSGPACK, RAW)


def test_codecs_by_name() -> None:
    """Every codec answers to its name; an unknown name lists those that exist."""
    for name, codec in CODECS.items():
        assert check_codec(name) is codec
    with pytest.raises(ConfigError, match="'yaml' is unknown; use one of: bytes, json, msgpack"):
        check_codec("yaml")


@pytest.mark.parametrize("codec", TYPED, ids=repr)
def test_bytes_travel_raw_whatever_the_codec_is(codec: Codec) -> None:
    """A value that is bytes already is not encoded again."""
    assert encoder_for(b"x", codec) is RAW
    assert encoder_for("x", codec) is codec
