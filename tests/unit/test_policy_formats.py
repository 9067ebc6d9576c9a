"""Periods, sizes, addresses, paths and keys in policies: read with their unit, written as they are read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy import formats
from nats_mesh.policy.kinds import Kind, Scalar


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (formats.PERIOD, "30d", 2_592_000.0), (formats.PERIOD, "1.5h", 5400.0), (formats.PERIOD, "500ms", 0.5),
        (formats.PERIOD, "366d", 31_622_400.0), (formats.SIZE, "64KiB", 65_536), (formats.SIZE, "0B", 0),
        (formats.SIZE, "1GiB", 1 << 30), (formats.AMOUNT, 10**15, 10**15), (formats.PERCENT, 0, 0),
        (formats.PERCENT, 100, 100), (formats.PORT, 1, 1), (formats.PORT, 65_535, 65_535),
        (formats.KEYS, "caller", "caller"), (formats.KEYS, "header:X-A", "header:x-a"),
        (formats.KEYS, "claim:a:b c", "claim:a:b c"), (formats.CLAIM, "https://a/b", "https://a/b"),
        (formats.HOST, "API.example.com", "api.example.com"), (formats.HOST, "10.0.0.1", "10.0.0.1"),
        (formats.HOST, "[::1]", "[::1]"), (formats.HOSTS, "*.Example.com", "*.example.com"), (formats.HOSTS, "*", "*"),
        (formats.URL, "https://a.example:8443/x?y=1", "https://a.example:8443/x?y=1"),
        (formats.URL, "http://[::1]:80/", "http://[::1]:80/"), (formats.ORIGINS, "*", "*"),
        (formats.ORIGINS, "http://localhost:3000", "http://localhost:3000"), (formats.PATH, "/", "/"),
        (formats.PATH, "/a/{b}/*", "/a/{b}/*"), (formats.PATH, "/a/", "/a/"), (formats.METHODS, "GET", "GET"),
    ],
)  # fmt: skip
def test_a_value_is_what_it_says(kind: Kind, text: Scalar, value: object) -> None:
    """Periods become seconds, sizes bytes; names of headers and hosts lose their case; the rest is itself."""
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (formats.PERIOD, 5, "must be a period with its unit, such as 10m, 24h or 30d, got 5"),
        (formats.PERIOD, "1d12h", "with its unit"), (formats.PERIOD, "-1d", "with its unit"),
        (formats.PERIOD, "367d", "must be at most 366d, got '367d'"), (formats.SIZE, 5, "must be a size with its unit"),
        (formats.SIZE, "1.5KiB", "with its unit"), (formats.SIZE, "1kb", "with its unit"),
        (formats.SIZE, "1025GiB", "must be at most 1024GiB"), (formats.AMOUNT, 0, "from 1 to 1000000000000000"),
        (formats.AMOUNT, True, "got true"), (formats.PERCENT, 101, "from 0 to 100, got 101"),
        (formats.PORT, 65_536, "from 1 to 65535"), (formats.KEYS, "ip", "must be caller, endpoint, header:NAME"),
        (formats.KEYS, "header:", "must be the name of a header"),
        (formats.KEYS, "header:Mesh-A", "belong to the mesh"),
        (formats.KEYS, "claim:a\n", "printable"), (formats.HOST, "*", "must be a host such as"),
        (formats.HOST, "a..b", "must be a host"), (formats.HOST, "-a.b", "must be a host"),
        (formats.HOST, "a:80", "without scheme, port and path"), (formats.HOST, "x" * 64 + ".b", "must be a host"),
        (formats.HOSTS, "*a.b", "must be a host"), (formats.HOSTS, "**", "must be a host"),
        (formats.URL, "//a/b", "must be an address"), (formats.URL, "https://", "must be an address"),
        (formats.URL, "https://a:99999/", "must be an address"), (formats.URL, "https://a:0/", "must be an address"),
        (formats.URL, "https://a b/", "must be an address"), (formats.URL, "https://[a/", "must be an address"),
        (formats.URL, "file:///etc/passwd", "must be an address"), (formats.URL, "https://u@a/", "without a password"),
        (formats.ORIGINS, "https://a/", "without a path"), (formats.ORIGINS, "null", "must be an address"),
        (formats.PATH, "a", "must be a path"), (formats.PATH, "/a b", "must be a path"),
        (formats.PATH, "/a?b", "must be a path"), (formats.PATH, "//a", "must be a path"),
        (formats.PATH, "/a/../b", "must be a path"), (formats.PATH, "/{1a}", "must be a path"),
        (formats.PATH, "/" + "a" * 1024, "must be a path"), (formats.FILE, "", "must be the path of a file"),
        (formats.FILE, "a\nb", "must be the path of a file"), (formats.METHODS, "get", "must be one of GET"),
        (formats.JWKS, "[" * 5000, "is no JSON"), (formats.JWKS, "[]", 'must have "keys"'),
        (formats.JWKS, '{"keys": [1]}', 'must have "keys"'), (formats.JWKS, "x" * 70_000, "of up to 64 KiB"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(kind: Kind, value: Scalar, reason: str) -> None:
    """Nothing is guessed at, and the reason says what to write."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        kind.parse(value)


@given(st.integers(0, 31_622_400_000))
def test_periods_are_written_as_they_are_read(milliseconds: int) -> None:
    """What a period is written as reads back as the same, to the millisecond."""
    seconds = milliseconds / 1e3
    assert formats.PERIOD.parse(formats.PERIOD.write(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-6)


@given(st.integers(0, 999_999_999))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    """What a size is written as reads back as the same, to the byte."""
    assert formats.SIZE.parse(formats.SIZE.write(size)) == size


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (formats.PERIOD, 2_592_000.0, "30d"), (formats.PERIOD, 86_400.0, "1d"), (formats.PERIOD, 129_600.0, "36h"),
        (formats.PERIOD, 90.0, "90s"), (formats.PERIOD, 0.0, "0s"), (formats.PERIOD, 0.25, "250ms"),
        (formats.SIZE, 65_536, "64KiB"), (formats.SIZE, 1 << 20, "1MiB"), (formats.SIZE, 1000, "1000B"),
        (formats.SIZE, 0, "0B"),
    ],
)  # fmt: skip
def test_the_largest_unit_that_fits_is_written(kind: Kind, value: object, text: str) -> None:
    """As people would write it."""
    assert kind.write(value) == text


def test_what_a_word_may_be_is_said_with_the_mistake() -> None:
    """All of them, in their order; and what is no text is none of them."""
    kind = formats.word("one or two", "one", "two")
    assert (kind.name, kind.parse("two")) == ("one or two", "two")
    for wrong in ("three", 1, None, True):
        with pytest.raises(ValueError, match="must be one of one, two, got "):
            kind.parse(wrong)
