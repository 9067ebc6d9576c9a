"""W3C Trace Context and Baggage, by the letter of the two recommendations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.trace import (
    TraceContext,
    format_baggage,
    format_traceparent,
    parse_baggage,
    parse_traceparent,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
hexes = "0123456789abcdef"


def lower_hex(length: int) -> st.SearchStrategy[str]:
    """Hexadecimal digits, not all zero."""
    return st.text(hexes, min_size=length, max_size=length).filter(lambda text: set(text) != {"0"})


@given(lower_hex(32), lower_hex(16), st.booleans())
def test_a_context_survives_the_wire(trace: str, span: str, sampled: bool) -> None:
    """Format and parse are inverse."""
    context = TraceContext(trace, span, sampled)
    assert parse_traceparent(format_traceparent(context)) == context


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"  00-{TRACE}-{SPAN}-01 ", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
        (f"fe-{TRACE}-{SPAN}-02-", False),
    ],
)
def test_versions_known_and_unknown_are_read(value: str, sampled: bool) -> None:
    """Version 00 as it is, later ones as far as they are known; of the flags only the last bit counts."""
    assert parse_traceparent(value) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}g-01",
        f"00-{TRACE}-{SPAN}-0G",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_breaks_the_rules_starts_a_new_trace(value: str | None) -> None:
    """A malformed parent is no parent; it never fails a call."""
    if value is not None and value.endswith("\n"):
        assert parse_traceparent(value) == TraceContext(
            TRACE, SPAN, True
        )  # blanks around it are no part of it
        return
    assert parse_traceparent(value) is None


@given(st.text(max_size=200))
def test_no_text_makes_the_parsers_raise(text: str) -> None:
    """Whatever a peer sends."""
    parse_traceparent(text)
    parse_baggage(text)


tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=20)


@given(st.dictionaries(tokens, st.text(st.characters(codec="utf-8"), max_size=30), max_size=20))
def test_baggage_survives_the_wire(members: dict[str, str]) -> None:
    """Any text is a value: what cannot stand in a header is percent-encoded, and the line stays one line."""
    text = format_baggage(members)
    assert text.isascii()
    assert not set(text) & set("\r\n\x00")
    assert parse_baggage(text) == members


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (
            "key1=value1,key2=value2;property1;propertyKey=propertyValue, key3=value3",
            {"key1": "value1", "key2": "value2", "key3": "value3"},
        ),
        (" a = b ", {"a": "b"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%20%C3%BC", {"a": " ü"}),
        ("a=", {"a": ""}),
        ("a=1,a=2", {"a": "2"}),
        ("nonsense,=x,;,a=1", {"a": "1"}),
        ("sp ace=1,a=1", {"a": "1"}),
        ("", {}),
        (None, {}),
    ],
)
def test_baggage_is_read_with_patience(value: str | None, members: dict[str, str]) -> None:
    """Properties are dropped, what is malformed is skipped, the rest arrives."""
    assert parse_baggage(value) == members


def test_baggage_has_the_limits_of_the_recommendation() -> None:
    """64 members and 8,192 bytes pass, one more does not; a peer that sends more is read up to there."""
    assert len(parse_baggage(format_baggage({f"k{n}": "v" for n in range(64)}))) == 64
    with pytest.raises(ValueError, match="65 members"):
        format_baggage({f"k{n}": "v" for n in range(65)})
    format_baggage({"k": "v" * 8190})
    with pytest.raises(ValueError, match="8193 bytes"):
        format_baggage({"k": "v" * 8191})
    assert len(parse_baggage(",".join(f"k{n}=v" for n in range(100)))) == 64
