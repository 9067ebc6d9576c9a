"""Lines that nobody waits for: written by a thread of their own, so that a slow terminal holds up nothing else.

What waits to be written is bounded; what finds no room is dropped, and counted. To write in the event loop instead
would stop it for as long as whoever reads takes, with what the server sends meanwhile piling up on its side until it
closes the connection.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

from nats_mesh_cli.errors import PIPE, CliError
from nats_mesh_cli.output import Out

__all__ = ["MAX_WAITING", "Printer"]

#: How much waits to be written at most (bytes): some thousand lines.
MAX_WAITING: Final = 1 << 20
#: How long the end waits for whoever reads (seconds).
_LAST_S: Final = 1.0


class Printer:
    """Writes to the stdout of ``out``. ``dropped`` counts lines that found no room."""

    def __init__(self, out: Out, *, limit: int = MAX_WAITING) -> None:
        self.dropped = 0
        self._out = out
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._over = False
        self._gone = False
        try:
            self._fd = out.stdout.fileno()
        except (
            OSError,
            ValueError,
            AttributeError,
        ):  # no file: whoever made the stream keeps what is written
            self._fd = -1
        else:
            # A thread that writes by Python's own buffer would hold its lock, for which the end of the program waits.
            out.stdout.flush()
            threading.Thread(target=self._run, name="printer", daemon=True).start()

    def put(self, text: str) -> bool:
        """Have a line (or several) written; false where there is no room for it. Ends the command where the reader has
        gone."""
        if self._fd < 0:
            self._out.data(text)
            return True
        line = f"{text}\n".encode("utf-8", "backslashreplace")
        with self._changed:
            if self._gone:
                raise self._closed()
            if self._size + len(line) > self._limit and self._lines:
                self.dropped += 1
                return False
            self._lines.append(line)
            self._size += len(line)
            self._changed.notify_all()
        return True

    def finish(self, timeout_s: float = _LAST_S) -> None:
        """Wait for what is left to be written, for a bounded time; what is not counts as dropped."""
        if self._fd < 0:
            return
        with self._changed:
            self._over = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._size or self._gone, timeout_s)
            if self._gone:
                raise self._closed()
            self.dropped += len(self._lines)
            self._lines.clear()  # a line that is half written stays so

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._over)
                if not self._lines:
                    return
                line = self._lines.popleft()
            left = memoryview(line)
            try:
                while left:
                    left = left[os.write(self._fd, left) :]
            except OSError:
                with self._changed:
                    self._gone = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._size -= len(line)
                self._changed.notify_all()

    def _closed(self) -> CliError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._fd)
        os.close(devnull)
        return CliError("", code=PIPE)
