"""What is to be written: everything that one turn of the loop appends leaves in one piece, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Outbox"]


class Outbox:
    """Commands that wait for the end of the loop's turn; ``write`` then gets all of them joined.

    ``scheduled``: somebody will write what is appended now.
    """

    __slots__ = ("_write", "pending", "scheduled")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.pending: list[bytes] = []
        self.scheduled = False
        self._write = write

    def put(self, command: bytes) -> None:
        """Append one command."""
        self.pending.append(command)
        if not self.scheduled:
            self.schedule()

    def put_message(self, head: bytes, payload: bytes) -> None:
        """Append a message in its parts, which are joined once, when they are written."""
        pending = self.pending
        pending.append(head)
        pending.append(payload)
        pending.append(b"\r\n")
        if not self.scheduled:
            self.schedule()

    def cork(self) -> None:
        """Keep what is appended: whoever appends now says when it is to be written (:meth:`flush`)."""
        self.scheduled = True

    def schedule(self) -> None:
        """Write what is appended in the loop's next turn."""
        self.scheduled = True
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what was appended."""
        self.scheduled = False
        if self.pending:
            data = b"".join(self.pending)
            self.pending.clear()
            self._write(data)
