"""The wire survives whatever cut, garbage and odd bytes the socket gives."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.wire.parser import MAX_LINE, MAX_MESSAGE, Parser, ProtocolError
from tests.tools import scaled
from tests.unit.parser_rig import (
    ENTRIES,
    SAMPLE,
    Event,
    Message,
    cut,
    expected,
    fed,
    feed_all,
    random_cuts,
    reader,
    written,
)


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request: pytest.FixtureRequest) -> str:
    """Every way into the parser in turn."""
    return str(request.param)


subjects = st.binary(min_size=1, max_size=40).filter(lambda s: not set(s) & set(b" \r\n"))
messages = st.tuples(
    st.integers(1, 10**6).map(lambda n: b"%d" % n),
    subjects,
    st.one_of(st.just(b""), subjects),
    st.one_of(st.just(b""), st.binary(min_size=12, max_size=80)),
    st.one_of(
        st.binary(max_size=300), st.sampled_from([b"\r\n", b"\r", b"MSG a 1 3\r\nabc\r\n", b"PING\r\n"])
    ),
)
words = st.sampled_from([b"PING", b"PONG", b"+OK", b"-ERR 'x'", b"INFO {}"])


# -- cuts -------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(messages, words), max_size=12), st.data())
def test_any_cut_gives_the_same(entry: str, script: list[Event], data: st.DataObject) -> None:
    """However the stream is cut into buffers, the same messages and lines come out, in order."""
    stream = b"".join(written(event) for event in script)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    parser, seen = reader(entry)
    for piece in cut(stream, cuts):
        parser.feed(piece)
    assert seen == expected(entry, script)
    assert parser.pending == 0


@given(messages)
def test_every_single_cut(entry: str, message: Message) -> None:
    """Cut at each position in turn, byte by byte included, a message arrives once and whole."""
    stream = written(message)
    for at in range(len(stream) + 1):
        assert fed(cut(stream, [at]), entry) == (expected(entry, [message]), False)
    assert fed(cut(stream, range(1, len(stream))), entry) == (expected(entry, [message]), False)


@pytest.mark.parametrize("always_headers", [False, True])
def test_a_stream_of_everything_cut_at_every_position(entry: str, always_headers: bool) -> None:
    """All kinds of messages and lines, empty header blocks too: one cut anywhere changes nothing."""
    stream = b"".join(written(event, always_headers=always_headers) for event in SAMPLE)
    for at in range(len(stream) + 1):
        assert fed(cut(stream, [at]), entry) == (list(SAMPLE), False), at


@pytest.mark.parametrize("first", range(len(SAMPLE)))
def test_neighbours_cut_at_every_pair_of_positions(entry: str, first: int) -> None:
    """Two events that follow each other, in three pieces of every size."""
    events = [SAMPLE[first], SAMPLE[(first + 1) % len(SAMPLE)]]
    stream = b"".join(written(event) for event in events)
    step = 1 if len(stream) < scaled(120, 10_000) else 3  # in `make test`, every third pair of the long ones
    for cuts in itertools.combinations(range(0, len(stream) + 1, step), 2):
        assert fed(cut(stream, cuts), entry) == (events, False), cuts


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, 97, 1460])
def test_pieces_of_one_size(entry: str, size: int) -> None:
    """Whatever a network's segments hold, byte by byte included, many times over."""
    stream = b"".join(written(event) for event in SAMPLE) * 5
    assert fed(cut(stream, range(size, len(stream), size)), entry) == (list(SAMPLE) * 5, False)


def test_any_merging_of_many(entry: str) -> None:
    """Hundreds of events in buffers that hold none, half a one, or many of them."""
    rng = random.Random("merging")
    for _ in range(scaled(40, 2_000)):
        events = [rng.choice(SAMPLE) for _ in range(rng.randint(1, 60))]
        stream = b"".join(written(event, always_headers=rng.random() < 0.5) for event in events)
        assert fed(cut(stream, random_cuts(rng, len(stream), 40)), entry) == (events, False)


def test_what_waits_is_counted(entry: str) -> None:
    """While something is incomplete, ``pending`` says how much; complete, nothing waits."""
    stream = written(SAMPLE[3])
    parser, seen = reader(entry)
    for at in range(len(stream) - 1):
        parser.feed(stream[at : at + 1])
        assert parser.pending == at + 1
    parser.feed(stream[-1:])
    assert (parser.pending, seen) == (0, [SAMPLE[3]])


# -- lines of a kind --------------------------------------------------------------------------------


def lines_alike(rng: random.Random) -> bytes:
    """A message whose line is nearly that of others: few subjects, subscriptions, inboxes and sizes; a field of one is
    the beginning or the end of one of another, or is missing."""
    fields = [rng.choice((b"a", b"aa", b"a.1", b"1", b"")), rng.choice((b"1", b"11", b"12"))]
    if rng.random() < 0.6:
        fields.append(rng.choice((b"a", b"1", b"1.a", b"12", b"", b"\xc3\xa9")))
    payload = b"x" * rng.choice((0, 1, 1, 12))
    if rng.random() < 0.2:
        return b" ".join([b"MSG", *fields, b"%d" % len(payload)]) + b"\r\n" + payload + b"\r\n"
    block = b"NATS/1.0\r\n\r\n" if rng.random() < 0.7 else b"NATS/1.0\r\nX:1\r\n\r\n"
    sizes = [b"%d" % len(block), b"%d" % len(block + payload)]
    return b" ".join([b"HMSG", *fields, *sizes]) + b"\r\n" + block + payload + b"\r\n"


def test_a_line_is_read_as_if_it_were_the_first(entry: str) -> None:
    """Whatever lines came before it, and however much it is like one of them: as by a parser that saw none."""
    rng = random.Random("alike")
    for _ in range(scaled(300, 10_000)):
        pieces = [lines_alike(rng) for _ in range(rng.randint(2, 12))]
        alone = [fed([piece], entry) for piece in pieces]
        assert fed([b"".join(pieces)], entry) == ([event for seen, _ in alone for event in seen], False)


# -- what is no protocol ----------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(entry: str, garbage: bytes) -> None:
    """No bytes make the parser raise anything but ProtocolError, or hold on to more than it was given."""
    parser, _ = reader(entry)
    try:
        parser.feed(garbage)
    except ProtocolError:
        return
    assert parser.pending <= len(garbage)


def test_a_vertical_tab_is_part_of_a_subject(entry: str) -> None:
    """The server hands on control characters in subjects; they must not end anybody's connection."""
    parser, seen = reader(entry)
    parser.feed(b"MSG a.b\x0bc 1 _INBOX.x\x0c.y 2\r\nok\r\nMSG a 1 1\r\nx\r\n")
    assert seen == [(b"1", b"a.b\x0bc", b"_INBOX.x\x0c.y", b"", b"ok"), (b"1", b"a", b"", b"", b"x")]


def test_a_field_that_is_empty_is_empty(entry: str) -> None:
    """No inbox becomes a subject, whichever of the two is missing."""
    block = b"NATS/1.0\r\n\r\n"
    for subject, inbox in ((b"", b"r"), (b"s", b""), (b"", b"")):
        line = b"HMSG %b 1 %b 12 12\r\n" % (subject, inbox)
        event: Event = (b"1", subject, inbox, block, b"")
        assert fed([(line + block + b"\r\n") * 2], entry) == ([event, event], False)


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 " + b"9" * 5000 + b"\r\n",
        b"MSG a 1 5 \r\n",
        b"MSG a 1 \xd9\xa3\r\n",
        b"MSG\r\n",
        b"MSG \r\n",
        b"HMSG a 1 9 4\r\n",
        b"HMSG a 1 -1 4\r\n",
        b"HMSG a 1 4\r\n"[:-4] + b"x 4\r\n",
        b"HMSG \r\n",
        b"HMSG a 1 12\r\n"[:-4] + b"\r\n",
    ],
)
def test_lines_that_cannot_be_are_refused(entry: str, line: bytes) -> None:
    """A message line without a usable size is no protocol: the connection is read no further; the error quotes it."""
    for pieces in ([line + b"x" * 40], cut(line, range(1, len(line)))):
        parser, seen = reader(entry)
        with pytest.raises(ProtocolError, match="MSG") as caught:
            feed_all(parser, pieces)
        assert seen == []
        assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("extra", [b"", b"\xc3\xa9"], ids=["ascii", "utf-8"])
@pytest.mark.parametrize("word", [b"MSG", b"HMSG"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8])
def test_a_line_has_as_many_fields_as_a_message_has(
    entry: str, count: int, word: bytes, extra: bytes
) -> None:
    """One field too few, and a size would be read as the subscription; one too many, and one of them as the inbox. Each
    line is well-formed otherwise, and a message of its sizes follows."""
    sizes = [b"12", b"17"] if word == b"HMSG" else [b"5"]
    fields = [b"a" + extra, b"1", b"_INBOX.x", b"2", b"3", b"4", b"5", b"6"][:count] + sizes
    stream = (
        b" ".join([word, *fields]) + b"\r\n" + b"NATS/1.0\r\n\r\n"[: 12 * (word == b"HMSG")] + b"hello\r\n"
    )
    for pieces in ([stream], cut(stream, range(1, len(stream)))):
        seen, refused = fed(pieces, entry)
        assert (len(seen), refused) == ((1, False) if count in (2, 3) else (0, True))


def test_what_came_before_garbage_is_reported(entry: str) -> None:
    """Messages that were complete before the stream broke have happened, whatever follows in the same buffer."""
    good = b"".join(written(event) for event in SAMPLE)
    for pieces in ([good + b"MSG a 1 x\r\n"], cut(good + b"MSG a 1 x\r\n", range(1, len(good) + 11))):
        assert fed(pieces, entry) == (list(SAMPLE), True)


@pytest.mark.parametrize(
    ("stream", "where"),
    [
        (b"MSG a 1 3\r\nabcXXPING\r\n", b"XX"),
        (b"MSG a 1 3\r\nabcd\r\nPING\r\n", b"d"),
        (b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nabc\r\n", b"c"),
        (b"MSG a 1 0\r\n\nMSG a 1 1\r\nx\r\n", b"\nM"),
    ],
)
def test_a_payload_that_does_not_end_where_it_should_is_refused(
    entry: str, stream: bytes, where: bytes
) -> None:
    """A byte too many or too few means that nothing after it can be believed; the message itself is not reported."""
    assert where in stream
    for pieces in ([stream], cut(stream, range(1, len(stream)))):
        assert fed(pieces, entry) == ([], True)


@pytest.mark.parametrize(
    "line", [b"x" * (MAX_LINE + 10), b"MSG " + b"x" * MAX_LINE + b" 1 1", b"HMSG " * MAX_LINE]
)
def test_the_bound_of_a_line_does_not_depend_on_cuts(entry: str, line: bytes) -> None:
    """A line that is too long is refused, whole or in pieces, with its end or without."""
    for pieces in ([line + b"\r\n"], [line], cut(line + b"\r\n", range(9_000, len(line), 9_000))):
        parser, seen = reader(entry)
        with pytest.raises(ProtocolError, match="more than"):
            feed_all(parser, pieces)
        assert seen == []


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 10**14])
def test_a_size_that_no_server_sends_is_refused(entry: str, size: int) -> None:
    """What is waited for is bounded, whatever the server announces."""
    for line in (b"MSG a 1 %d\r\n" % size, b"HMSG a 1 12 %d\r\n" % size):
        assert fed([line], entry) == ([], True)
    parser, _ = reader(entry)
    parser.feed(b"MSG a 1 %d\r\n" % MAX_MESSAGE)
    assert parser.pending < 100


@pytest.mark.parametrize("chunk", [16, 1000, 65_536])
@pytest.mark.parametrize("start", [b"", b"MSG ", b"HMSG a 1 ", b"INFO {", b"\r"])
def test_an_endless_line_is_refused(entry: str, start: bytes, chunk: int) -> None:
    """A line that does not end is waited for up to a bound; the error says so without repeating the line."""
    parser, seen = reader(entry)
    parser.feed(start)
    with pytest.raises(ProtocolError, match="more than") as caught:
        feed_all(parser, [b"x" * chunk] * (MAX_LINE // chunk + 2), MAX_LINE + chunk)
    assert seen == []
    assert len(str(caught.value)) < 1_000


def test_a_line_up_to_the_bound_is_read(entry: str) -> None:
    """The INFO of a large cluster is one long line."""
    line = b'INFO {"x":"' + b"x" * (MAX_LINE - 13) + b'"}'
    assert len(line) == MAX_LINE
    for pieces in ([line + b"\r\n"], cut(line + b"\r\n", range(1460, MAX_LINE, 1460))):
        assert fed(pieces, entry) == ([line], False)


# -- sizes and memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [997, 65_536, 1 << 20])
def test_a_large_payload_in_pieces_arrives_whole(entry: str, piece: int) -> None:
    """Half a megabyte among small messages is joined once and exact."""
    large: Message = (b"1", b"a", b"", b"NATS/1.0\r\n\r\n", bytes(range(256)) * 2048)
    small: Message = (b"2", b"b", b"r", b"", b"ok")
    events: list[Event] = [small, large, small, large, large, b"PING", small]
    stream = b"".join(written(event) for event in events)
    assert fed(cut(stream, range(piece, len(stream), piece)), entry) == (events, False)


def test_a_large_payload_is_not_copied_for_each_piece(entry: str) -> None:
    """What is kept of a payload in small pieces grows with its size alone: a few times its bytes."""
    size = 256 * 1024
    stream = written((b"1", b"a", b"", b"", b"x" * size))
    pieces = cut(stream, range(64, len(stream), 64))
    parser, seen = reader(entry)
    tracemalloc.start()
    try:
        for piece in pieces:
            parser.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen) == 1
    assert peak < 6 * size


def test_reset_forgets_what_was_incomplete(entry: str) -> None:
    """A new connection begins with nothing of the old one, wherever that one was cut."""
    stream = b"".join(written(event) for event in SAMPLE[:5])
    parser, seen = reader(entry)
    for at in range(len(stream)):
        parser.feed(stream[:at])
        parser.reset()
        assert parser.pending == 0
        seen.clear()
        parser.feed(b"PING\r\nMSG a 1 2\r\nok\r\n")
        assert seen == [b"PING", (b"1", b"a", b"", b"", b"ok")]
        seen.clear()


def test_after_an_error_a_reset_begins_anew(entry: str) -> None:
    """A refused stream leaves nothing that the next connection could stumble over."""
    parser, seen = reader(entry)
    for broken in (b"MSG a 1 x\r\n", b"HMSG a 1 9 4\r\n", b"x" * (MAX_LINE + 1), b"MSG a 1 10\r\nhalf"):
        try:
            parser.feed(b"PING\r\nMSG a 1 3\r\nab")
            parser.feed(b"c\r\n" + broken)
        except ProtocolError:
            pass
        parser.reset()
        seen.clear()
        parser.feed(b"PONG\r\n")
        assert (seen, parser.pending) == ([b"PONG"], 0)


def test_a_handler_that_raises_harms_nobody_else() -> None:
    """Its error is handed over with the subject; the messages behind it in the same buffer arrive."""
    heard: list[bytes] = []
    failed: list[tuple[str, str]] = []
    foreign: list[bytes] = []

    def bad(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        raise RuntimeError(subject)

    def good(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        heard.append(payload)

    parser = Parser(
        lambda sid, *rest: foreign.append(sid),
        foreign.append,
        {"1": bad, "2": good},
        lambda subject, error: failed.append((subject, str(error))),
    )
    stream = b"MSG a 1 1\r\nx\r\nMSG b 2 1\r\ny\r\nMSG c 3 1\r\nz\r\nPING\r\n" * 2
    for pieces in ([stream], cut(stream, range(1, len(stream)))):
        feed_all(parser, pieces)
        assert (heard, failed, foreign) == ([b"y"] * 2, [("a", "a")] * 2, [b"3", b"PING"] * 2)
        for told in (heard, failed, foreign):
            told.clear()
    assert parser.messages == 8


def test_many_messages_leave_nothing_behind(entry: str) -> None:
    """After any number of messages no byte is held."""
    parser, seen = reader(entry)
    chunk = b"MSG a 1 3\r\nabc\r\n" * 100
    for _ in range(scaled(100, 10_000)):
        parser.feed(chunk)
        assert len(seen) == 100
        seen.clear()
    assert parser.pending == 0
