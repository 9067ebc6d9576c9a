"""From one document a second to any number of browsers, without a queue for any of them.

What is kept is the newest document and the last few differences, once for all. A browser is nothing but the number of
what it has: it gets the differences since then, or everything where these are gone. One that is slow gets fewer and
larger answers, one that takes nothing any more is dropped by whoever writes to it (:mod:`nats_mesh_cli.dashboard.app`).
Rejected: a queue per browser. It must be bounded, and what it may drop is just what the next document says better.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import anyio
import msgspec

from nats_mesh_cli.output import Record

__all__ = ["MAX_BROWSERS", "Document", "FullError", "Hub", "difference"]

Document = Mapping[str, Mapping[str, Record]]

#: How many browsers look on at most.
MAX_BROWSERS: Final = 64
#: How many differences are kept: whoever is farther behind gets everything.
_KEPT: Final = 15
#: How soon a browser is to come back whose connection ended (milliseconds).
_RETRY_MS: Final = 1000

_encode = msgspec.json.Encoder(order="deterministic").encode


class FullError(Exception):
    """There are :data:`MAX_BROWSERS` already."""


def difference(before: Document, after: Document) -> dict[str, dict[str, Any]]:
    """What became of each section: ``set`` has the records that are new or not as before, ``gone`` the keys of those
    that are no more. Sections without news are left out."""
    found: dict[str, dict[str, Any]] = {}
    for section, records in after.items():
        old = before.get(section, {})
        changed = {key: record for key, record in records.items() if old.get(key) != record}
        gone = [key for key in old if key not in records]
        if changed or gone:
            found[section] = {"set": changed, "gone": gone}
    return found


class Hub:
    """Where documents come in (:meth:`put`) and browsers follow them. ``epoch`` names this run of the program:
    numbers of another one mean nothing here."""

    def __init__(self, epoch: str, *, kept: int = _KEPT, most: int = MAX_BROWSERS) -> None:
        self.browsers = 0
        self._epoch = epoch
        self._most = most
        self._sequence = 0
        self._document: Document | None = None
        self._trends: Mapping[str, list[float]] = {}
        self._full = b""
        self._differences: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self._news = anyio.Event()
        self._wanted = anyio.Event()
        self._closed = False

    # -- who makes the documents ----------------------------------------------------------------------

    def put(self, document: Document, trends: Mapping[str, list[float]]) -> None:
        """The newest document, whether or not anything in it is new: that it comes says that all is well here."""
        before, self._document = self._document, document
        self._trends = trends
        self._sequence += 1
        self._full = b""
        if before is not None:
            body = _encode(difference(before, document))
            self._differences.append((self._sequence, self._message("delta", body)))
        self._rouse()

    def rest(self) -> None:
        """Nobody looks on: what is kept is old by the time that somebody does."""
        self._document = None
        self._differences.clear()

    async def wanted(self) -> None:
        """Return as soon as some browser looks on."""
        await self._wanted.wait()

    def close(self) -> None:
        """Send everybody away."""
        self._closed = True
        self._rouse()

    def _rouse(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    # -- who reads them -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """A place for one browser; :class:`FullError` where there is none."""
        if self.browsers >= self._most or self._closed:
            raise FullError(f"{self.browsers} browsers look on already")
        self.browsers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.browsers -= 1
            if not self.browsers:
                self._wanted = anyio.Event()

    async def follow(self, last: str = "") -> AsyncIterator[bytes]:
        """Messages of a stream of server-sent events, for whoever has the ``last`` id; ends with :meth:`close`."""
        yield b"retry: %d\n\n" % _RETRY_MS
        at = self._position(last)
        while not self._closed:
            if self._document is None or at == self._sequence:
                await self._news.wait()
                continue
            missed = [] if at is None else [body for number, body in self._differences if number > at]
            complete = at is not None and len(missed) == self._sequence - at
            at = self._sequence
            yield b"".join(missed) if complete else self._everything()

    def _position(self, last: str) -> int | None:
        epoch, _, number = last.rpartition("-")
        if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        return int(number) if int(number) <= self._sequence else None

    def _everything(self) -> bytes:
        """All of the newest document; made once, for all who ask for it."""
        if not self._full:
            body = _encode({"document": self._document, "trends": self._trends})
            self._full = self._message("full", body)
        return self._full

    def _message(self, kind: str, body: bytes) -> bytes:
        # One line: in JSON a line end is written \n.
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
            self._epoch.encode(),
            self._sequence,
            kind.encode(),
            body,
        )

    def __repr__(self) -> str:
        return f"<Hub {self._epoch}-{self._sequence}: {self.browsers} browsers>"
