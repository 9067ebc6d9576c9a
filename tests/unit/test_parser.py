"""The wire survives whatever cut, garbage and odd bytes the socket gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.wire.parser import MAX_LINE, Parser, ProtocolError
from tests.tools import scaled

Message = tuple[bytes, bytes, bytes, bytes, bytes]

subjects = st.binary(min_size=1, max_size=40).filter(lambda s: not set(s) & set(b" \r\n"))
messages = st.tuples(
    st.integers(1, 10**6).map(lambda n: b"%d" % n),
    subjects,
    st.one_of(st.just(b""), subjects),
    st.one_of(st.just(b""), st.binary(min_size=12, max_size=80)),
    st.binary(max_size=300),
)


def _written(message: Message) -> bytes:
    sid, subject, reply, headers, payload = message
    where = b"%b %b %b" % (subject, sid, reply) if reply else b"%b %b" % (subject, sid)
    if headers:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (
            where, len(headers), len(headers) + len(payload), headers, payload,
        )  # fmt: skip
    return b"MSG %b %d\r\n%b\r\n" % (where, len(payload), payload)


def _reader() -> tuple[Parser, list[Message | bytes]]:
    seen: list[Message | bytes] = []
    return Parser(lambda *message: seen.append(message), seen.append), seen


@given(st.lists(st.one_of(messages, st.sampled_from([b"PING", b"PONG", b"+OK"])), max_size=12), st.data())
def test_any_cut_gives_the_same(script: list[Message | bytes], data: st.DataObject) -> None:
    """However the stream is cut into buffers, the same messages and lines come out, in order."""
    stream = b"".join(item + b"\r\n" if isinstance(item, bytes) else _written(item) for item in script)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    parser, seen = _reader()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        parser.feed(stream[start:end])
    assert seen == script
    assert parser.pending == 0


@given(messages)
def test_every_single_cut(message: Message) -> None:
    """Cut at each position in turn, byte by byte included, a message arrives once and whole."""
    stream = _written(message)
    parser, seen = _reader()
    for at in range(len(stream)):
        parser.feed(stream[at : at + 1])
    assert seen == [message]


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(garbage: bytes) -> None:
    """No bytes make the parser raise anything but ProtocolError, or hold on to more than it was given."""
    parser, _ = _reader()
    try:
        parser.feed(garbage)
    except ProtocolError:
        return
    assert parser.pending <= len(garbage)


def test_a_vertical_tab_is_part_of_a_subject() -> None:
    """The server hands on control characters in subjects; they must not end anybody's connection."""
    parser, seen = _reader()
    parser.feed(b"MSG a.b\x0bc 1 _INBOX.x\x0c.y 2\r\nok\r\nMSG a 1 1\r\nx\r\n")
    assert seen == [(b"1", b"a.b\x0bc", b"_INBOX.x\x0c.y", b"", b"ok"), (b"1", b"a", b"", b"", b"x")]


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -5\r\n",
        b"HMSG a 1 9 4\r\n",
        b"HMSG a 1 -1 4\r\n",
        b"MSG \r\n",
    ],
)
def test_lines_that_cannot_be_are_refused(line: bytes) -> None:
    """A message line without a usable size is no protocol: the connection is read no further."""
    parser, _ = _reader()
    with pytest.raises(ProtocolError):
        parser.feed(line + b"x" * 40)


def test_an_endless_line_is_refused() -> None:
    """A line that does not end is waited for up to a bound."""
    parser, _ = _reader()
    for _ in range(MAX_LINE // 1000):
        parser.feed(b"x" * 1000)
    with pytest.raises(ProtocolError, match="more than"):
        parser.feed(b"x" * 1000)


def test_a_large_payload_in_pieces_arrives_whole() -> None:
    """Half a megabyte in small reads is joined once and exact."""
    payload = bytes(range(256)) * 2048
    stream = _written((b"1", b"a", b"", b"NATS/1.0\r\n\r\n", payload))
    parser, seen = _reader()
    for at in range(0, len(stream), 997):
        parser.feed(stream[at : at + 997])
    assert seen == [(b"1", b"a", b"", b"NATS/1.0\r\n\r\n", payload)]


def test_reset_forgets_what_was_incomplete() -> None:
    """A new connection begins with nothing of the old one."""
    parser, seen = _reader()
    parser.feed(b"MSG a 1 10\r\nhalf")
    parser.reset()
    parser.feed(b"PING\r\n")
    assert seen == [b"PING"]


def test_many_messages_leave_nothing_behind() -> None:
    """After any number of messages no byte is held."""
    parser, seen = _reader()
    chunk = b"MSG a 1 3\r\nabc\r\n" * 100
    for _ in range(scaled(100, 10_000)):
        parser.feed(chunk)
        seen.clear()
    assert parser.pending == 0
