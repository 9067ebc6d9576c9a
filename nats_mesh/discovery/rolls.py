"""One question to everybody in the namespace, and the answers as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from nats_mesh.discovery.reports import Member
from nats_mesh.errors import CallError
from nats_mesh.wire import headers as h

__all__ = ["MAX_ANSWER", "Roll"]

#: The largest answer that is read (bytes).
MAX_ANSWER: Final = 64 << 10


class Roll:
    """A sink of the reply mux: who answered one question to everybody, at most ``most``.

    Answers are read as they come, and none is kept: anybody may send any number of any size. ``ignored`` counts those
    that were too large to be read.
    """

    def __init__(self, subject: str, read: Callable[[bytes], Member | None], *, most: int) -> None:
        self.subject = subject
        self.found: list[Member] = []
        self.ignored = 0
        self.over = self.more = False
        self.error: CallError | None = None
        self._read = read
        self._most = most
        self._event = anyio.Event()

    async def next(self) -> None:
        """Wait for one more answer, or the end."""
        event = self._event
        await event.wait()

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if h.server_status(headers) is not None:
            self.over = True
        elif len(payload) > MAX_ANSWER:
            self.ignored += 1
        elif len(self.found) >= self._most:
            self.over = self.more = True
        elif (member := self._read(payload)) is not None:
            self.found.append(member)
        self._tell()

    def on_failure(self, error: CallError) -> None:
        self.over, self.error = True, error
        self._tell()

    def _tell(self) -> None:
        self._event.set()
        self._event = anyio.Event()
