"""The numbers of several worker processes under one port: each hands its tables to the process that supervises it.

A worker answers questions on a socket that it was started with, and says its last word there at its end. So the
supervisor's counters are the sum of all workers that ever were, and never go back; of a worker that was killed the sum
has what it said last.
"""

from __future__ import annotations

import logging
import platform
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nats_mesh.errors import CodecError
from nats_mesh.telemetry.collector import BUILD, BUILD_HELP, own_version
from nats_mesh.telemetry.metrics import (
    METRICS,
    Exemplars,
    Labels,
    Tables,
    decode_tables,
    empty,
    encode_tables,
    families,
    family,
    lasting,
    latest,
    merge,
)

__all__ = ["WorkerReport", "WorkersCollector"]

log = logging.getLogger("nats_mesh.telemetry")

_HEAD: Final = struct.Struct("!I?")
_ASK: Final = b"?"
_MAX_BYTES: Final = 64 * 1024 * 1024
#: How long a worker may take to answer (seconds); then what it said last stands for it.
_ANSWER_S: Final = 2.0


class WorkerReport:
    """At a worker: answers on the socket ``fd`` with ``tables()`` and ``examples()``, and whether it serves."""

    def __init__(
        self,
        fd: int,
        tables: Callable[[], Tables],
        ready: Callable[[], bool],
        examples: Callable[[], Exemplars] = dict,
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        self._tables = tables
        self._ready = ready
        self._examples = examples
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="mesh-metrics").start()

    def _run(self) -> None:
        try:
            while self._socket.recv(1) == _ASK:
                self._send()
        except OSError:
            pass  # the supervisor has gone: nobody asks any more

    def _send(self) -> None:
        with self._lock:
            body = encode_tables(self._tables(), self._examples())
            self._socket.sendall(_HEAD.pack(len(body), self._ready()) + body)

    def finish(self) -> None:
        """Say the last word; whoever supervises reads it when the process has ended."""
        try:
            self._socket.settimeout(_ANSWER_S)
            self._send()
        except OSError:
            pass  # as above


class _Worker:
    def __init__(self, mine: socket.socket) -> None:
        self.socket = mine
        self.tables = empty()
        self.examples: Exemplars = {}
        self.ready = False
        self.asked = False


class WorkersCollector(Collector):
    """At the supervisor: the sum of all workers, those that have ended included."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._left: Tables = empty()
        #: Exemplars of all workers, the latest of each bucket; those of workers that have ended included.
        self._examples: dict[Labels, dict[int, tuple[str, float, float]]] = {}
        self._lock = threading.Lock()
        self._build = {"version": own_version(), "python_version": platform.python_version()}

    def begin(self, number: int) -> socket.socket:
        """A worker is about to start; the socket that it is to be given, to be closed here once it has it."""
        mine, its = socket.socketpair()
        mine.settimeout(_ANSWER_S)
        with self._lock:
            self._workers[number] = _Worker(mine)
        return its

    def ended(self, number: int) -> None:
        """A worker's process is over: hear its last word, and keep what it counted."""
        with self._lock:
            worker = self._workers.pop(number, None)
            if worker is None:
                return
            worker.socket.setblocking(False)
            try:
                while self._read(worker):
                    pass
            except OSError:
                pass  # there is nothing more
            worker.socket.close()
            merge(self._left, lasting(worker.tables))
            latest(self._examples, worker.examples)

    def states(self) -> dict[str, bool]:
        """Whether each worker serves, by its number; asks all of them."""
        with self._lock:
            self._ask_all()
            return {str(number): worker.ready for number, worker in sorted(self._workers.items())}

    def describe(self) -> Iterable[Metric]:
        """Every metric there may be, without values."""
        return [*(family(name, {}) for name in METRICS), InfoMetricFamily(BUILD, BUILD_HELP)]

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the values that there are now."""
        tables = empty()
        with self._lock:
            self._ask_all()
            merge(tables, self._left)
            for worker in self._workers.values():
                merge(tables, worker.tables)
                latest(self._examples, worker.examples)
            examples = {labels: dict(found) for labels, found in self._examples.items()}
        yield from families(tables, examples)
        yield InfoMetricFamily(BUILD, BUILD_HELP, value=self._build)

    def _ask_all(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            if worker.asked:
                continue  # it owes an answer
            try:
                worker.socket.sendall(_ASK)
                worker.asked = True
            except OSError:
                worker.ready = False
        for worker in workers:
            if worker.asked:
                try:
                    worker.asked = not self._read(worker)
                except OSError as error:
                    worker.ready = False
                    log.debug("a worker does not answer: %s", error)

    def _read(self, worker: _Worker) -> bool:
        """One answer; false where there is none to come."""
        head = _receive(worker.socket, _HEAD.size)
        if head is None:
            return False
        size, ready = _HEAD.unpack(head)
        if size > _MAX_BYTES:
            raise OSError(f"{size} bytes are no table")
        body = _receive(worker.socket, size)
        if body is None:
            return False
        try:
            (worker.tables, worker.examples), worker.ready = decode_tables(body), ready
        except CodecError as error:
            log.warning("what a worker counted could not be read: %s", error)
        return True


def _receive(source: Any, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            return None
        found += more
    return bytes(found)
