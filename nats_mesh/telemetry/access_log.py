"""The access log: a JSON object a line for each call that a policy asks for, written beside the calls.

The path of a call makes one struct and appends it to a list. A batch is handed to a thread, which encodes and writes
it, so that a full disk or a terminal that nobody reads holds up no call: what finds no room is counted, and the log of
the process says how many that were.

A line never holds what was sent or answered, no header, and no text of an application's error: those are not for
everybody who may read a log. Every text in it is a name or a word of the mesh; JSON escapes all control characters.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import select
import threading
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.clock import rfc3339
from nats_mesh.core.seldom import worth_saying
from nats_mesh.wire.loop import Timer, call_later

__all__ = ["BATCH", "LOGGER", "MAX_WAITING", "AccessLine", "AccessLog", "Reporter", "Writer", "stamp"]

log = logging.getLogger("nats_mesh.telemetry")

Reporter: TypeAlias = Literal["source", "destination"]
#: Where lines go where no file and no stream is named: whoever configures logging decides.
LOGGER: Final = "nats_mesh.access"
#: How many lines wait at most until they are written; what comes beyond that is dropped.
MAX_WAITING: Final = 10_000
#: How many lines are handed over at once, and how long they are collected (seconds).
BATCH: Final = 256
BATCH_S: Final = 0.1
#: How long the end of the process waits for what was handed over (seconds).
_CLOSE_S: Final = 2.0
_MODE: Final = 0o640
_STREAMS: Final = {"stdout": 1, "stderr": 2}


#: The last second that was written, and how: calls of one second share all of it but the fraction.
_second: tuple[int, str] = (-1, "")


def stamp(wall_s: float) -> str:
    """As :func:`nats_mesh.clock.rfc3339`, which costs as much as all the rest of a line; to the microsecond, cut."""
    global _second
    whole = int(wall_s)
    second, text = _second
    if second != whole:
        text = rfc3339(float(whole))[:20]
        _second = whole, text
    return f"{text}{int((wall_s - whole) * 1e6):06d}Z"


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """One call as one side saw it, in the order in which it is written.

    ``bytes_in`` and ``bytes_out`` are payloads as they came to and went from whoever reports. ``queue_ms`` passed
    before the handler began; at the source, before the first attempt was sent. ``attempt`` is which one it was; at the
    source, how many there were. ``error`` is a word (why it was refused or stopped, the class of an error), never a
    text. ``policy`` is the one that decided how it ended, or where it went. What is not known is ``null``.
    """

    ts: str
    reporter: Reporter
    source_service: str
    source_instance: str | None
    destination_service: str
    destination_instance: str | None
    endpoint: str
    status: str
    flags: str | None
    error: str | None
    duration_ms: float
    queue_ms: float | None
    attempt: int
    bytes_in: int
    bytes_out: int
    caller: str
    policy: str | None
    trace_id: str | None
    span_id: str | None
    #: What a fault delayed it on purpose; ``queue_ms`` is without that.
    fault_ms: float | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class Writer(threading.Thread):
    """Writes lines to ``destination``: ``stdout``, ``stderr``, ``logger``, or the path of a file, which is opened anew
    where it was moved away.

    ``written`` and ``lost`` are counted by the thread, everything else by whoever hands over.
    """

    def __init__(self, destination: str) -> None:
        super().__init__(name="mesh-access-log", daemon=True)
        self.destination = destination
        self.written = 0
        self.lost = 0
        #: Whoever hands over counts here, so that no lock is needed.
        self.handed = 0
        self._batches: queue.SimpleQueue[list[AccessLine] | None] = queue.SimpleQueue()
        self._file = -1
        self._failures = 0
        self._logger = logging.getLogger(LOGGER)
        self._encode = msgspec.json.Encoder().encode

    @property
    def waiting(self) -> int:
        """How many lines were handed over and not written yet."""
        return self.handed - self.written - self.lost

    def hand_over(self, lines: list[AccessLine]) -> None:
        """Have these written; the list is the thread's from now on."""
        self.handed += len(lines)
        self._batches.put(lines)

    def finish(self) -> None:
        """Write what was handed over, and end; nobody waits for it but the end of the process."""
        self._batches.put(None)
        _ending.append(self)

    def run(self) -> None:
        """The thread."""
        while (lines := self._batches.get()) is not None:
            try:
                self._write(lines)
                self.written += len(lines)
            # Whatever is wrong with where lines go, the next ones may find it well again.
            except Exception as error:  # noqa: BLE001
                self.lost += len(lines)
                self._failures += 1
                if worth_saying(self._failures):
                    log.warning(
                        "the access log cannot be written to %s: %s (%d lines lost so far)",
                        self.destination,
                        error,
                        self.lost,
                    )
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: list[AccessLine]) -> None:
        if self.destination == "logger":
            for line in lines:
                self._logger.info("%s", self._encode(line).decode())
            return
        data = b"".join([self._encode(line) + b"\n" for line in lines])
        # Not through sys.stdout: whoever waits in there holds its lock, and with it the end of the process.
        file = _STREAMS.get(self.destination)
        if file is None:
            file = self._opened()
        while data:
            try:
                data = data[os.write(file, data) :]
            except BlockingIOError:  # somebody made the stream one that does not wait
                select.select([], [file], [], 1.0)

    def _opened(self) -> int:
        """The file, which may have been moved away by whatever rotates logs."""
        if self._file >= 0:
            try:
                there, own = os.stat(self.destination), os.fstat(self._file)
                if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                    return self._file
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = -1
        self._file = os.open(self.destination, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        return self._file


#: Writers that nobody uses any more and that may still write.
_ending: Final[list[Writer]] = []


def _end() -> None:
    """The process ends: what was handed over is written, as far as that can be done in a moment."""
    for writer in _ending:
        writer.join(_CLOSE_S)
        if writer.is_alive():
            log.warning(
                "%d lines of the access log are lost: %s does not take them",
                writer.waiting,
                writer.destination,
            )


atexit.register(_end)


class _Shared:
    """The writers of this process, one for each destination, however many members write there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Writer, int]] = {}

    def take(self, destination: str) -> Writer:
        with self._lock:
            writer, users = self._held.get(destination, (None, 0))
            if writer is None:
                writer = Writer(destination)
                writer.start()
            self._held[destination] = writer, users + 1
            _ending[:] = [each for each in _ending if each.is_alive()]
            return writer

    def give_back(self, writer: Writer) -> bool:
        """Whether nobody uses it any more: then it is to be finished."""
        with self._lock:
            _, users = self._held[writer.destination]
            if users > 1:
                self._held[writer.destination] = writer, users - 1
                return False
            del self._held[writer.destination]
            return True


_shared: Final = _Shared()


class AccessLog:
    """The lines of one member. Every method belongs to the event loop's thread. ``dropped`` lines found no room."""

    def __init__(self, destination: str) -> None:
        self.dropped = 0
        self._destination = destination or "logger"
        self._writer: Writer | None = None
        self._lines: list[AccessLine] = []
        self._timer: Timer | None = None
        self._said = 0

    def write(self, line: AccessLine) -> None:
        """One more line."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = call_later(BATCH_S, self._due)
        elif len(self._lines) >= BATCH:
            self._hand_over()

    def _due(self) -> None:
        self._timer = None
        self._hand_over()

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._writer is None:
            self._writer = _shared.take(self._destination)
        room = MAX_WAITING - self._writer.waiting
        if len(lines) > room:
            self._drop(len(lines) - max(0, room))
            lines = lines[: max(0, room)]
        if lines:
            self._writer.hand_over(lines)

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self.dropped >= 2 * self._said:  # ever more rarely
            self._said = self.dropped
            log.warning(
                "%d lines of the access log were dropped so far: %s takes them too slowly",
                self.dropped,
                self._destination,
            )

    def close(self) -> None:
        """Write what there is, and end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over()
        writer, self._writer = self._writer, None
        if writer is not None and _shared.give_back(writer):
            writer.finish()
