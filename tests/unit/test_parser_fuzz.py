"""Fuzzed streams: 4,000 in ``make test``, a million in ``make verify``; seeded, so that each can be run again.

A stream of good events is broken as a hostile or faulty server would break it, and fed twice: whole, and
cut at random. Both must tell the same story, and end in nothing but a refusal that says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from nats_mesh.wire.parser import MAX_LINE, ProtocolError
from tests.tools import scaled
from tests.unit.parser_rig import (
    ENTRIES,
    SAMPLE,
    Event,
    Parsing,
    cut,
    random_cuts,
    random_events,
    reader,
    written,
)

BATCHES = 8
INPUTS = scaled(4_000, 1_000_000) // BATCHES
#: What every parser must still read right after a reset.
PROBE = b"PING\r\nMSG probe 1 2\r\nok\r\n"
PROBED: list[Event] = [b"PING", (b"1", b"probe", b"", b"", b"ok")]

_TOKENS = (
    b"\r\n", b"\r", b"\n", b" ", b"  ", b"\x00", b"\xff", b"MSG ", b"HMSG ", b"MSG", b"M", b"H", b"INFO ", b"PING\r\n",
    b"-ERR ", b"+OK\r\n", b"MSG a 1 3\r\n", b"HMSG a 1 0 0\r\n\r\n", b"MSG  1 1\r\n", b"msg a 1 1\r\nx\r\n", b"\t",
)  # fmt: skip
_NUMBERS = (
    b"0", b"-1", b"1", b"00", b"1_0", b"+1", b"65536", b"1048577", b"4294967296", b"9" * 19, b"9" * 400, b"1e3",
    b"0x10", b"", b"\xd9\xa1", b"18446744073709551615", b"nan",
)  # fmt: skip


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 12)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 60)] * rng.randint(1, 3)


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(_TOKENS)


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _renumber(rng: random.Random, data: bytearray) -> None:
    """Another number where a line says a size."""
    end = data.find(b"\r\n", rng.randrange(len(data)))
    if end < 0:
        return
    start = data.rfind(b" ", 0, end) + 1
    data[start:end] = rng.choice(_NUMBERS)


def _splice(rng: random.Random, data: bytearray) -> None:
    """The beginning of one stream and the end of another, as where bytes were lost underway."""
    other = b"".join(written(event) for event in random_events(rng))
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def _noise(rng: random.Random, data: bytearray) -> None:
    data[:] = rng.randbytes(rng.randint(1, 200))


_MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip, _delete, _repeat, _insert, _insert, _truncate, _renumber, _renumber, _splice, _noise,
)  # fmt: skip


def fuzzed(rng: random.Random) -> bytes:
    """One broken stream (now and then an unbroken one)."""
    events = random_events(rng) if rng.random() < 0.8 else list(SAMPLE)
    data = bytearray(b"".join(written(event, always_headers=rng.random() < 0.2) for event in events))
    for _ in range(rng.randint(0, 3)):
        if data:
            rng.choice(_MUTATIONS)(rng, data)
    return bytes(data)


def _run(parser: Parsing, seen: list[Event], pieces: list[bytes]) -> tuple[list[Event], str, int]:
    """What ``parser`` makes of ``pieces``: events, why it refused (empty: it did not), and what it holds on to."""
    seen.clear()
    given = 0
    try:
        for piece in pieces:
            parser.feed(piece)
            given += len(piece)
            assert parser.pending <= given
    except ProtocolError as error:
        return list(seen), str(error), 0
    return list(seen), "", parser.pending


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_fuzzed_stream_is_read_or_refused(entry: str, batch: int) -> None:
    """Nothing but ProtocolError is raised, no byte is made up, cuts change nothing, and a reset heals."""
    rng = random.Random(f"parser-{batch}")
    whole, whole_seen = reader(entry)
    pieced, pieced_seen = reader(entry)
    refused = complete = 0
    for number in range(INPUTS):
        stream = fuzzed(rng)
        pieces = cut(stream, random_cuts(rng, len(stream)))
        where = f"batch {batch}, input {number}: {stream!r}"
        events, refusal, held = _run(whole, whole_seen, [stream] if stream else [])
        other, other_refusal, other_held = _run(pieced, pieced_seen, pieces)
        assert (events, bool(refusal), held) == (other, bool(other_refusal), other_held), where
        assert len(refusal) + len(other_refusal) < 2_000, where
        # Every event took its own bytes from the stream, and what waits is not among them.
        assert sum(_least(event) for event in events) + held <= len(stream), where
        refused += bool(refusal)
        complete += not refusal and not held
        for parser, seen in ((whole, whole_seen), (pieced, pieced_seen)):
            parser.reset()
            seen.clear()
            parser.feed(PROBE)
            assert seen == PROBED, where
            parser.reset()
    # A fuzzer that breaks everything, or nothing, tests nothing.
    assert refused > INPUTS // 20
    assert complete > INPUTS // 20


def _least(event: Event) -> int:
    """The fewest bytes that can have meant this event."""
    if isinstance(event, bytes):
        return len(event) + 2
    return sum(map(len, event)) + len(b"MSG \r\n\r\n")


@pytest.mark.parametrize("entry", ENTRIES)
def test_noise_without_end_is_bounded(entry: str) -> None:
    """However long a server sends noise, the parser refuses it, or holds no more of it than a line."""
    rng = random.Random("noise")
    alphabets = (bytes(range(256)), b"x", b"MSG ", b"\r", b"\n ", b"HMSG 1 ", b"\r\n", b"P\r\n")
    refused = 0
    for _ in range(scaled(16, 400)):
        parser, seen = reader(entry)
        alphabet = rng.choice(alphabets)
        try:
            for _ in range(200):
                parser.feed(bytes(rng.choices(alphabet, k=1_000)))
                assert len(seen) <= 501
                seen.clear()
                assert parser.pending <= MAX_LINE
        except ProtocolError:
            refused += 1
    assert refused
