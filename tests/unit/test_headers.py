"""Header blocks: what an application sets arrives, what nobody may set never gets onto the wire."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nats_mesh import ConfigError, Headers
from nats_mesh.core.trace import format_baggage
from nats_mesh.model import OwnHeaders, check_name, is_header_name, is_name, is_reserved_header
from nats_mesh.wire import headers as h

NAME_CHARACTERS = "!#$%&'*+.^_`|~-abcXYZ019"
names = st.text(NAME_CHARACTERS, min_size=1, max_size=20).filter(
    lambda name: not name.lower().endswith("-bin") and not is_reserved_header(name)
)
values = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters=[chr(c) for c in (*range(9), *range(10, 32), 127)])
)  # fmt: skip


# -- round trips --------------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(names, values), max_size=8))
@example(pairs=[("a", " "), ("A", "\t x "), ("a", ""), ("b", ":"), ("b", "☺")])
def test_text_round_trips(pairs: list[tuple[str, str]]) -> None:
    """Every value of every name comes back exactly and in order, names in their own spelling."""
    headers = Headers(pairs)
    again = h.user_headers(h.encode(headers))
    assert again.pairs() == pairs
    for name, _ in pairs:
        assert (
            again.get_all(name) == headers.get_all(name) == [v for n, v in pairs if n.lower() == name.lower()]
        )


@given(values=st.lists(st.binary(), max_size=4))
def test_binary_round_trips(values: list[bytes]) -> None:
    """Bytes under a -bin name come back exactly, whatever is in them."""
    block = h.encode(Headers({"x-bin": values}))
    assert h.user_headers(block).get_all("X-BIN") == values


@given(
    pairs=st.lists(st.tuples(st.text(max_size=10), st.text(max_size=20) | st.binary(max_size=20)), max_size=6)
)
@example(pairs=[("a", "b\r\nMesh-Status: OK")])
@example(pairs=[("a\r\nMesh-Status", "OK")])
@example(pairs=[("a: b\nc", "d")])
def test_nothing_an_application_sets_makes_another_line(pairs: list[tuple[str, Any]]) -> None:
    """Headers are refused, or give exactly one line each, also for clients to whom a bare CR or LF ends one."""
    try:
        headers = OwnHeaders(pairs)
    except ConfigError:
        return
    lines = re.split(r"\r\n|\r|\n", h.encode(headers).decode())
    assert lines[0] == "NATS/1.0"
    assert lines[-2:] == ["", ""]
    assert len(lines) == len(pairs) + 3
    assert not any(is_reserved_header(line) for line in lines)


@given(block=st.binary(max_size=200))
@example(block=b"NATS/1.0\r\nmesh-a\nMesh-Status: OK\r\n\r\n")
@example(block=b"NATS/1.0\r\na: b\nMesh-Status: OK\r\n\r\n")
@example(block=b"NATS/1.0\r\n Mesh-Status : OK\r\n\r\n")
def test_any_block_is_read_and_what_is_read_can_be_sent_on(block: bytes) -> None:
    """Reading never fails; what an application sees of a stranger's block makes no line of the stranger's."""
    for given_block in (block, b"NATS/1.0\r\n" + block):
        seen = h.user_headers(given_block)
        assert not any(is_reserved_header(name) for name in seen)
        lines = re.split(r"\r\n|\r|\n", h.encode(seen).decode())
        assert len(lines) == len(seen.pairs()) + 3
        for name in seen:
            seen.get_all(name)


# -- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("", "x", "header name ''"),
        ("a b", "x", "header name 'a b'"),
        ("a:b", "x", "header name 'a:b'"),
        ("a\r\nb", "x", "header name"),
        ("a\n", "x", "header name"),
        (" a", "x", "header name ' a'"),
        ("zażółć", "x", "header name"),
        ("x" * 257, "x", "header name"),
        (7, "x", "header name 7"),
        (None, "x", "header name None"),
        (b"a", "x", "header name b'a'"),
        ("a", "x\r\ny: z", r"header 'a': '\\r' at position 1"),
        ("a", "x\ny", r"'\\n' at position 1"),
        ("a", "\x00", r"'\\x00' at position 0"),
        ("a", "\x7f", r"'\\x7f' at position 0"),
        ("a", "\ud800", "not valid Unicode at position 0"),
        ("a", b"bytes", "bytes need a name that ends in '-bin'"),
        ("a", None, "a value must be str"),
        ("a", True, "a value must be str"),
        ("a", {"b": 1}, "a value must be str"),
        ("a-bin", "not base64!", "takes bytes"),
        ("a-bin", "x\r\n", r"'\\r' at position 1"),
    ],
    ids=repr,
)
def test_headers_that_are_refused(name: Any, value: Any, reason: str) -> None:
    """Whatever could forge a line or cannot travel is refused where it is set, by each way of setting it."""
    for attempt in _ways(name, value):
        with pytest.raises(ConfigError, match=reason):
            attempt(Headers())


@pytest.mark.parametrize(
    "name", ["Mesh-Status", "mesh-timeout-ms", "MESH-X", "Nats-Service-Error", "nats-x", "Mesh-"]
)
def test_the_meshs_own_headers_are_refused(name: str) -> None:
    """An application sets neither Mesh-* nor Nats-*, in no spelling; it may have names that merely look alike."""
    for attempt in _ways(name, "x"):
        with pytest.raises(ConfigError, match=f"header '{name}' belongs to the mesh"):
            attempt(OwnHeaders())
    for alike in ("Meshed", "mesh", "x-mesh-status", "Natsy-x"):
        assert OwnHeaders({alike: "1"})[alike] == "1"


def _ways(name: Any, value: Any) -> list[Callable[[Headers], Any]]:
    return [
        lambda headers: headers.add(name, value),
        lambda headers: headers.__setitem__(name, value),
        lambda headers: headers.__setitem__(
            name, ["ok", value] if not str(name).endswith("-bin") else [b"", value]
        ),
        lambda headers: type(headers)([(name, value)]),
        lambda headers: type(headers)({name: [value]}),
        lambda headers: headers.update([(name, value)]),
    ]


@pytest.mark.parametrize("headers", [7, "a: b", ["a"], [("a", "b", "c")], [None]], ids=repr)
def test_what_is_no_headers_at_all(headers: Any) -> None:
    """Something that is neither a mapping nor pairs is refused as such."""
    with pytest.raises(ConfigError, match="headers must be a mapping or pairs"):
        OwnHeaders(headers)


def test_a_refused_value_changes_nothing() -> None:
    """Setting several values of which one is bad leaves what was there."""
    headers = Headers({"a": "1"})
    with pytest.raises(ConfigError):
        headers["a"] = ["2", "3\n"]
    assert headers.get_all("a") == ["1"]


# -- behaving as a mapping ----------------------------------------------------------------------------


def test_headers_are_a_mapping_without_regard_to_case() -> None:
    """Setting replaces every spelling, adding appends, deleting removes all; numbers become text."""
    headers = Headers({"X-A": ["1", "2"], "b": 7, "c": 1.5})
    assert (headers["x-a"], headers.get_all("X-a"), "x-A" in headers, len(headers)) == (
        "1",
        ["1", "2"],
        True,
        3,
    )
    assert list(headers) == ["X-A", "b", "c"]
    assert (headers["b"], headers["c"]) == ("7", "1.5")
    headers.add("x-a", "3")
    assert headers.get_all("x-a") == ["1", "2", "3"]
    headers["x-A"] = "only"
    assert headers.get_all("X-A") == ["only"]
    del headers["X-a"]
    assert "x-a" not in headers
    assert headers.get_all("x-a") == []
    for missing in (lambda: headers["x-a"], lambda: headers.__delitem__("x-a")):
        with pytest.raises(KeyError):
            missing()


def test_a_strangers_binary_value_is_handed_on() -> None:
    """A -bin value of a client that does not encode is given as it is rather than lost."""
    assert h.user_headers(b"NATS/1.0\r\na-bin: not base64!\r\n\r\n")["a-bin"] == b"not base64!"


# -- fields of the mesh -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (b"", None),
        (b"NATS/1.0\r\n\r\n", None),
        (b"NATS/1.0\r\nMesh-Timeout-Ms: 250\r\n\r\n", 250),
        (b"NATS/1.0\r\nMesh-Timeout-Ms:250\r\n\r\n", 250),
        (b"NATS/1.0\r\nMesh-Timeout-Ms:   250  \r\n\r\n", 250),
        (b"NATS/1.0\r\na: b\r\nMesh-Timeout-Ms: -1\r\nMesh-Timeout-Ms: 7\r\n\r\n", -1),
        (b"NATS/1.0\r\nMesh-Timeout-Ms: 0\r\n\r\n", 0),
        (b"NATS/1.0\r\nx: Mesh-Timeout-Ms: 3\r\n\r\n", None),
        (b"NATS/1.0\r\nMesh-Timeout-Msx: 3\r\n\r\n", None),
        (b"NATS/1.0\r\nMesh-Timeout-Ms: 999999999999999\r\n\r\n", 999_999_999_999_999),
    ],
)
def test_whole_numbers(block: bytes, value: int | None) -> None:
    """The first field of exactly that name counts; blanks around the number do not matter."""
    assert h.int_field(block, h.TIMEOUT_MS) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "1e3", "+1", "--1", "-", "0x10", "٣", "²", "1 2", "1" * 16, "9" * 5000]
)
def test_numbers_that_are_none(text: str) -> None:
    """Anything else is a ValueError that names the field and quotes no more than a little of the value."""
    block = f"NATS/1.0\r\nMesh-Timeout-Ms: {text}\r\n\r\n".encode()
    with pytest.raises(ValueError, match=r"Mesh-Timeout-Ms: .* is not a whole number") as caught:
        h.int_field(block, h.TIMEOUT_MS)
    assert len(str(caught.value)) < 250


@given(block=st.binary(max_size=200))
@example(block=b"\r\nMesh-Timeout-Ms:")
@example(block=b"\r\ncontent-type:")
@example(block=b"NATS/1.0 \r\n")
@example(block=b"NATS/1.0 \xb2\xb3\xb9")
def test_reading_fields_is_total(block: bytes) -> None:
    """No bytes in a header block raise anything but the ValueError of a number that is none."""
    for key in (h.TIMEOUT_MS, h.SENT_MS, h.ATTEMPT):
        try:
            number = h.int_field(block, key)
        except ValueError:
            continue
        assert number is None or isinstance(number, int)
    for key in (h.STATUS, h.TRACEPARENT, h.BAGGAGE, h.CONTENT_TYPE):
        h.field(block, key)
        assert not re.search(r"[\r\n\x00]", h.text_field(block, key))
    h.content_type(block)
    assert h.server_status(block) in {None, *range(1000)}


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (b"NATS/1.0\r\ncontent-type: a\r\n\r\n", b"a"),
        (b"NATS/1.0\r\nContent-Type: a\r\n\r\n", b"a"),
        (b"NATS/1.0\r\nContent-Type: a\r\ncontent-type: b\r\n\r\n", b"b"),
        (b"NATS/1.0\r\n\r\n", None),
    ],
)
def test_the_content_type_in_either_spelling(block: bytes, value: bytes | None) -> None:
    """Clients from the world of HTTP write Content-Type; the mesh's own spelling wins."""
    assert h.content_type(block) == value


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"NATS/1.0 503\r\n\r\n", 503),
        (b"NATS/1.0 503 No Responders\r\n\r\n", 503),
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404),
        (b"NATS/1.0\r\na: 503\r\n\r\n", None),
        (b"NATS/1.0 5x3\r\n\r\n", None),
        (b"", None),
    ],
)
def test_the_servers_status_line(block: bytes, code: int | None) -> None:
    """Only a status on the first line is the server's."""
    assert h.server_status(block) == code


@given(text=st.text(max_size=600), limit=st.integers(2, 300))
@example(text="", limit=2)
@example(text="\r\n\x00\ud800", limit=10)
def test_one_line_is_one_line(text: str, limit: int) -> None:
    """Free text becomes one printable line, never empty, never longer than its limit (or the word 'error')."""
    line = h.one_line(text, limit)
    assert line.isprintable()
    assert 0 < len(line) <= max(limit, len("error"))
    line.encode()


# -- names -------------------------------------------------------------------------------


@given(value=st.text(max_size=70))
@example(value="a\n")
@example(value="all")
def test_a_name_is_valid_or_refused_with_a_reason(value: str) -> None:
    """check_name returns exactly what is_name admits (reserved words apart), and quotes little of the rest."""
    if is_name(value) and value not in ("all", "anonymous"):
        assert check_name("service", value) == value
        return
    with pytest.raises(ConfigError) as caught:
        check_name("service", value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@given(name=st.text(max_size=20))
def test_header_names(name: str) -> None:
    """A header name is a token: no blank, no colon, no control character, nothing but ASCII."""
    if is_header_name(name):
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set(' :"(),/;<=>?@[\\]{}')


# -- baggage, which becomes a header --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {"a\r\nMesh-Status": "OK"},
        {"a b": "x"},
        {"": "x"},
        {"ż": "x"},
        {"a=b": "x"},
        {"a,b": "x"},
        {"a": "\ud800"},
        {f"k{n}": "v" for n in range(65)},
        {"a": "x" * 8192},
        {"a": "☺" * 1000},
    ],
    ids=lambda members: repr(members)[:30],
)
def test_baggage_that_cannot_be_written(members: dict[str, str]) -> None:
    """A name that is no token, too much of it, or half a character is a ValueError, never a line on the wire."""
    with pytest.raises(ValueError, match=r"baggage|surrogates"):
        format_baggage(members)


def test_base64_of_the_wire_is_plain() -> None:
    """-bin values stand on the wire in standard base64, as other systems' do."""
    data = bytes(range(256))
    assert dict(Headers({"x-bin": data}).pairs()) == {"x-bin": base64.b64encode(data).decode()}
