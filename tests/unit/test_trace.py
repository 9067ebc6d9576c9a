"""W3C Trace Context and Baggage, by the letter of the two recommendations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.trace import (
    TraceContext,
    checked_tracestate,
    format_baggage,
    format_traceparent,
    parse_baggage,
    parse_traceparent,
)
from nats_mesh.wire.headers import trace_parent, trace_state

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


# -- tracestate: https://www.w3.org/TR/trace-context/#tracestate-header ----------------------------------

LONG_KEY, LONG_VALUE = "k" * 256, "v" * 256


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([], ""),
        ([""], ""),
        (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
        (["rojo=1,congo=2"], "rojo=1,congo=2"),
        (["rojo=1", "congo=2"], "rojo=1,congo=2"),  # several headers are one list, in their order
        ([" rojo=1 ,\tcongo=2\t"], "rojo=1,congo=2"),  # blanks around members
        (["rojo=1,,congo=2,"], "rojo=1,congo=2"),  # empty members
        (["rojo=a b"], "rojo=a b"),  # a blank within a value
        (["rojo= 1"], "rojo= 1"),  # or before it: it belongs to the value
        (["a_b-c*d/e=!#$%&'()*+-./:;<>?@[]^_`{|}~"], "a_b-c*d/e=!#$%&'()*+-./:;<>?@[]^_`{|}~"),
        (["fw529a3039@dt=1"], "fw529a3039@dt=1"),  # a tenant and a system
        (["0tenant@sys=1"], "0tenant@sys=1"),  # a tenant may begin with a digit
        ([f"{'t' * 241}@{'s' * 14}=1"], f"{'t' * 241}@{'s' * 14}=1"),
        ([f"{LONG_KEY}=1"], f"{LONG_KEY}=1"),
        ([f"k={LONG_VALUE}"], f"k={LONG_VALUE}"),
        ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
    ],
)
def test_a_tracestate_is_handed_on(values: list[str], state: str) -> None:
    """What keeps to the rules, as one list."""
    assert checked_tracestate(values) == state


@pytest.mark.parametrize(
    "value",
    [
        "rojo", "=1", "rojo=", "Rojo=1", "0rojo=1", "rojo=1=2", "ro jo=1", "rojo =1", "rojo=\x7f", "rojo=1\n,congo=2",
        "rojo=é", "rojo=1,rojo=2", f"{LONG_KEY}k=1", f"k={LONG_VALUE}v", f"{'t' * 242}@s=1", f"t@{'s' * 15}=1",
        "t@0s=1", "@s=1", "t@=1", "t@s@x=1", "rojo=1;congo=2\t=", ",".join(f"k{n}=1" for n in range(33)),
    ],
)  # fmt: skip
def test_a_tracestate_that_breaks_the_rules_is_dropped_whole(value: str) -> None:
    """Half a list would say something that nobody meant. The trace itself goes on."""
    assert checked_tracestate([value]) == ""
    assert checked_tracestate(["good=1", value]) == ""


def test_a_long_tracestate_loses_long_members_first_and_then_the_oldest() -> None:
    """More than 512 characters need not be handed on; members of more than 128 go first, then those at the end."""
    small = [f"k{n:02}={'v' * 36}" for n in range(12)]  # 12 × 40 and 11 commas: 491
    assert checked_tracestate([",".join(small)]) == ",".join(small)
    large = f"big={'v' * 200}"
    assert checked_tracestate([",".join([large, *small])]) == ",".join(small)
    more = [f"k{n:02}={'v' * 36}" for n in range(20)]
    assert checked_tracestate([",".join(more)]) == ",".join(more[:12])


@given(st.lists(st.text(max_size=300), max_size=5))
def test_no_text_makes_a_tracestate_that_breaks_a_header(values: list[str]) -> None:
    """One line, within the limit, and read again as itself."""
    state = checked_tracestate(values)
    assert state.isascii()
    assert state.isprintable()
    assert len(state) <= 512
    assert checked_tracestate([state]) == state


PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ([f"traceparent: {PARENT}"], True),
        ([f"traceparent:{PARENT}"], True),
        ([f"x: 1\r\ntraceparent: {PARENT}\r\ny: 2"], True),
        ([f"traceparent: {PARENT}", f"traceparent: {PARENT}"], False),  # said twice is not said
        ([f"traceparent: {PARENT}", "traceparent: "], False),
        ([f"Traceparent: {PARENT}"], False),  # names are lower case on this wire
        ([f"xtraceparent: {PARENT}"], False),
        (["traceparent: \xff"], False),
        ([], False),
    ],
)
def test_a_request_has_one_parent_or_none(lines: list[str], known: bool) -> None:
    """Two headers may contradict each other: then the trace begins anew."""
    block = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode("latin-1")
    assert trace_parent(block) == (TraceContext(TRACE, SPAN, True) if known else None)


def test_the_states_of_a_request_are_one_list() -> None:
    """All headers of that name, in order; what they say is checked."""
    block = b"NATS/1.0\r\ntracestate: a=1\r\nx: y\r\ntracestate: b=2\r\n\r\n"
    assert trace_state(block) == "a=1,b=2"
    assert trace_state(block.replace(b"b=2", b"a=2")) == ""
    assert trace_state(b"NATS/1.0\r\n\r\n") == ""
