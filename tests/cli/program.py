"""The installed command as a child process: run to its end, or kept running and listened to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

__all__ = ["PATIENCE_S", "PROGRAM", "Background", "Done", "environment", "run_cli", "run_many"]

#: How long anything may take before a test fails instead of hanging (seconds).
PATIENCE_S = 45.0
#: What ``pip install`` puts beside Python.
PROGRAM = str(Path(sys.executable).with_name("nats-mesh"))
_FOREIGN = ("NATS_", "MESH_", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES")


class Done(msgspec.Struct, frozen=True):
    """How a run ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return msgspec.json.decode(self.out)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what a developer's own mesh or terminal would set."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    return {**own, "MESH_CACHE_DIR": "off", **extra}  # and nothing is kept for the next run


def run_cli(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", cwd: Path | None = None
) -> Done:
    """Run the command to its end, without a terminal."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=environment(env or {}),
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return Done(done.returncode, done.stdout, done.stderr)


_DRIVER = """
import io, json, sys
from nats_mesh_cli.main import run
from nats_mesh_cli.output import Out

for line in json.load(sys.stdin):
    streams = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2)]
    sys.stdout, sys.stderr = streams
    code = run(line, out=Out(*streams))
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    print(json.dumps([code, *(stream.buffer.getvalue().decode() for stream in streams)]))
"""


def run_many(lines: Sequence[Sequence[str]], env: Mapping[str, str]) -> list[Done]:
    """Run many short commands one after the other in one process: Python starts once for all of them."""
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        env=environment(env),
        input=msgspec.json.encode(lines).decode(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 2,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "whatever a command says goes through its own streams"
    results = [msgspec.json.decode(line, type=tuple[int, str, str]) for line in done.stdout.splitlines()]
    return [Done(*result) for result in results]


class Background:
    """The command while it runs; what it prints is collected and can be waited for. Killed at the end if need be."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._told = threading.Condition()
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=environment(env or {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal's foreground job has
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._told:
                    lines.append(line.rstrip("\n"))
                    self._told.notify_all()
        with self._told:
            self._told.notify_all()

    def wait_for(self, text: str, times: int = 1) -> str:
        """Return the last line by which ``text`` was printed so many times; fails where that does not happen."""

        def found() -> list[str]:
            return [line for line in [*self.out, *self.err] if text in line]

        def over() -> bool:
            return len(found()) >= times or not any(reader.is_alive() for reader in self._readers)

        with self._told:
            self._told.wait_for(over, timeout=PATIENCE_S)
            lines = found()
        assert len(lines) >= times, f"{text!r} was not said {times} times:\n" + "\n".join(
            [*self.out, *self.err]
        )
        return lines[-1]

    def end(self, number: int) -> int:
        """Send a signal and return the exit code once everything printed has been read."""
        self.process.send_signal(number)
        return self.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C: the terminal signals the whole process group. Returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once the command has ended and everything printed has been read."""
        code = self.process.wait(timeout=PATIENCE_S)
        for reader in self._readers:
            reader.join(timeout=PATIENCE_S)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
