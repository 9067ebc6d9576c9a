"""What the tests of the parser share: parsers to drive, streams to feed, ways to cut them.

A faster way into the parser is one more line of :data:`ENTRIES`; every test then runs on it too.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from nats_mesh.wire.parser import Handler, NotTextError, Parser, ProtocolError

__all__ = [
    "ENTRIES",
    "SAMPLE",
    "Event",
    "Message",
    "Parsing",
    "Verdict",
    "cut",
    "expected",
    "fed",
    "feed_all",
    "random_cuts",
    "random_events",
    "reader",
    "written",
]

#: ``(sid, subject, reply, header block, payload)``
Message: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes]
#: A message, or a control line without its end.
Event: TypeAlias = Message | bytes
#: What came out, and whether the stream was refused in the end.
Verdict: TypeAlias = tuple[list[Event], bool]


class Parsing(Protocol):
    """A parser as these tests see it."""

    @property
    def pending(self) -> int:
        """Bytes it holds on to."""

    def feed(self, data: bytes) -> None:
        """Take in what a socket gave."""

    def reset(self) -> None:
        """Begin a new connection."""


def _plain() -> tuple[Parsing, list[Event]]:
    seen: list[Event] = []
    return Parser(lambda *message: seen.append(message), seen.append), seen


class _Everyone(Mapping[str, Handler]):
    """A handler for whatever subscription id comes."""

    def __init__(self, seen: list[Event]) -> None:
        self._seen = seen

    def __getitem__(self, sid: str) -> Handler:
        def handle(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
            self._seen.append((sid.encode(), subject.encode(), reply.encode(), headers, payload))

        return handle

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _handled() -> tuple[Parsing, list[Event]]:
    seen: list[Event] = []

    def failed(subject: str, error: Exception) -> None:
        if not isinstance(error, NotTextError):
            raise error

    def nobody(*message: bytes) -> None:
        raise AssertionError(f"there was a handler: {message}")

    return Parser(nobody, seen.append, _Everyone(seen), failed), seen


def is_text(event: Event) -> bool:
    """Whether subject and reply are UTF-8."""
    if isinstance(event, bytes):
        return True
    try:
        (event[1] + b" " + event[2]).decode()
    except UnicodeDecodeError:
        return False
    return True


def expected(entry: str, events: Iterable[Event]) -> list[Event]:
    """What of ``events`` an entry reports: handlers get text, so that other subjects never reach them."""
    return [event for event in events if entry == "feed" or is_text(event)]


#: Every way into the parser: name → a new parser, and the list that it reports to.
ENTRIES: Final[dict[str, Callable[[], tuple[Parsing, list[Event]]]]] = {
    "feed": _plain,
    "handlers": _handled,
}


def reader(entry: str = "feed") -> tuple[Parsing, list[Event]]:
    """A new parser and the list of what it reports."""
    return ENTRIES[entry]()


def written(event: Event, *, always_headers: bool = False) -> bytes:
    """An event as the server writes it; ``always_headers`` writes empty header blocks as such."""
    if isinstance(event, bytes):
        return event + b"\r\n"
    sid, subject, reply, headers, payload = event
    where = b"%b %b %b" % (subject, sid, reply) if reply else b"%b %b" % (subject, sid)
    if headers or always_headers:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (
            where, len(headers), len(headers) + len(payload), headers, payload,
        )  # fmt: skip
    return b"MSG %b %d\r\n%b\r\n" % (where, len(payload), payload)


def cut(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``stream`` in the pieces between ``cuts``, which are ascending; empty pieces are left out, as sockets do."""
    edges = [0, *cuts, len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges) if start < end]


def random_cuts(rng: random.Random, size: int, most: int = 8) -> list[int]:
    """A few places to cut at."""
    return sorted(rng.randrange(size + 1) for _ in range(rng.randint(0, most)))


def feed_all(parser: Parsing, pieces: Iterable[bytes], most_pending: float = math.inf) -> None:
    """Feed every piece; after none of them may more than ``most_pending`` bytes wait."""
    for piece in pieces:
        parser.feed(piece)
        assert parser.pending <= most_pending


def fed(pieces: Sequence[bytes], entry: str = "feed") -> Verdict:
    """What a new parser makes of ``pieces``; nothing but ProtocolError is caught."""
    parser, seen = reader(entry)
    try:
        for piece in pieces:
            parser.feed(piece)
    except ProtocolError:
        return seen, True
    return seen, False


_NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
_HEADERS = b"NATS/1.0\r\nMesh-Timeout-Ms: 5000\r\ncontent-type: application/msgpack\r\n\r\n"
_PROTOCOL_WORDS = b"PING\r\nMSG a 1 5\r\nHMSG b 2 12 20\r\n-ERR 'x'\r\nINFO {}\r\n\r\n"

#: Everything a server says, the awkward included, in one order.
SAMPLE: Final[tuple[Event, ...]] = (
    b'INFO {"server_id":"F","headers":true,"max_payload":1048576}',
    (b"1", b"a", b"", b"", b""),
    b"PING",
    (b"2", b"mesh.default.rpc.orders.all.place.web", b"_INBOX.web.c.s.1", _HEADERS, b'{"sku":"b-17"}'),
    (b"3", b"_INBOX.web.c.s.1", b"", _NO_RESPONDERS, b""),
    b"+OK",
    (b"45", b"a.b", b"_INBOX.x", b"", _PROTOCOL_WORDS),
    (b"45", b"a.b", b"", _HEADERS, _PROTOCOL_WORDS),
    b"PONG",
    (b"6", b"a", b"r", b"", b"\r\n"),
    (b"6", b"a", b"", _NO_RESPONDERS, b"\r\n\r\n\r"),
    b"-ERR 'Permissions Violation for Publish to \"a.b\"'",
    (b"999999", b"a\x0bb.\xc3\xa9", b"\x0c", b"", b"\x00\xff\r"),
    (b"7", b"a", b"", b"", b"MSG a 7 1"),
    b"PING",
)

_WORDS = (b"PING", b"PONG", b"+OK", b"-ERR 'Slow Consumer'", b'INFO {"connect_urls":["a:1"]}')
_SUBJECTS = (b"a", b"_INBOX.web.c.s.77", b"mesh.default.rpc.orders.all.place.web", b"x\x0by", b"\xff\xfe")
_BLOCKS = (b"", _NO_RESPONDERS, _HEADERS, b"NATS/1.0\r\n\r\n")
_PAYLOADS = (b"", b"x", b"\r\n", _PROTOCOL_WORDS, b'{"key":1}', b"\x00" * 40, b"y" * 300)


def random_events(rng: random.Random, most: int = 5) -> list[Event]:
    """A few events of every kind."""
    return [
        rng.choice(_WORDS)
        if rng.random() < 0.3
        else (
            b"%d" % rng.randint(1, 10 ** rng.randint(1, 6)),
            rng.choice(_SUBJECTS),
            rng.choice((b"", *_SUBJECTS)),
            rng.choice(_BLOCKS),
            rng.choice(_PAYLOADS),
        )
        for _ in range(rng.randint(1, most))
    ]
