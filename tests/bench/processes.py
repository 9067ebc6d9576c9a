"""The processes of a measured pair: started, talked to line by line, weighed, and ended."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.tools import ROOT

__all__ = ["BenchError", "Worker", "cpu_s", "end", "peak_mib"]

_END_S = 3.0


class BenchError(Exception):
    """A peer could not be measured; the text says which process and what it said last."""


def cpu_s(pids: Iterable[int]) -> float | None:
    """CPU time of these processes so far, seconds; ``None`` where there is none, or the system does not tell.

    Linux keeps a clock for every process, whose number is made of its id (clock_getcpuclockid(3)): that
    resolves nanoseconds, where ``/proc/PID/stat`` counts ticks of 10 ms.
    """
    numbers = tuple(pids)
    if not numbers:
        return None
    try:
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in numbers)
    except (AttributeError, OSError):
        return None


def peak_mib(pid: int) -> float | None:
    """The most memory that a process ever had resident, MiB; ``None`` where the system does not tell.

    ``getrusage`` would count what its parent had when it was forked.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started: asked first, then made to."""
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except OSError:
            pass  # it ended before it read all that was sent
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Worker:
    """One child that speaks lines of JSON; use it as a context manager. ``address`` is where it serves."""

    def __init__(self, name: str, arguments: list[str], *, start_timeout_s: float = 30.0) -> None:
        self.name = name
        self._arguments = arguments
        self._start_timeout_s = start_timeout_s
        self._rest = b""
        self.address = ""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._arguments,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            self.address = str(self.hear(self._start_timeout_s)["address"])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)
        self._errors.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, **values: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None, "it was opened as a pipe"
        try:
            self._process.stdin.write(msgspec.json.encode(values) + b"\n")
        except BrokenPipeError:
            raise self._failure("ended") from None

    def hear(self, timeout_s: float) -> dict[str, Any]:
        """The next line; :class:`BenchError` where none comes in time, or the process has ended."""
        assert self._process.stdout is not None, "it was opened as a pipe"
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._failure(f"said nothing for {timeout_s:g} s")
            data = os.read(output, 65536)
            if not data:
                raise self._failure("ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            raise self._failure(f"said {line[:200]!r}, which is no line of ours,") from None

    def _failure(self, what: str) -> BenchError:
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-12:]
        return BenchError("\n  ".join([f"{self.name} {what}", *last]))
