"""The services of the demo as separate processes, none of which outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio

from nats_mesh.errors import ConfigError
from nats_mesh.settings import DEFAULT_SERVER, Settings
from nats_mesh.testing._process import Guard, reap
from nats_mesh.testing._steps import drive
from nats_mesh_cli.demo.locate import Bookinfo
from nats_mesh_cli.demo.logs import LogFile, Logs

__all__ = ["Fleet", "ServiceProcess", "child_environment", "metrics_environment"]

_WATCH_POLL_S = 0.1
_STOP_GRACE_S = 5.0
_KEPT_BYTES = 16 * 1024
_SHOWN_LINES = 8
#: Settings of the user's real mesh that must not reach the demo.
_FOREIGN = ("NATS_CREDS", "NATS_CA", "NATS_CONTEXT", "NATS_URL", "MESH_", "BOOKINFO_")
#: Where each of the services tells its metrics: the demo says, and no setting of the user's real mesh.
_METRICS = ("MESH_METRICS_PORT", "MESH_METRICS_HOSTS")
#: Says where policies are cached: a place of the user's, or none.
_CACHE = "MESH_CACHE_DIR"


def metrics_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the services are told of their metrics: each may have a port of its own, any that is free (0).

    :class:`ConfigError` for a port that says which: several processes cannot share it.
    """
    given = {name: environ[name] for name in _METRICS if environ.get(name)}
    said = Settings.resolve(servers=DEFAULT_SERVER, env=given).metrics
    if said is None:
        return {}
    if said[1]:
        raise ConfigError(
            f"MESH_METRICS_PORT is {given['MESH_METRICS_PORT']!r}: the services of the demo are several processes, "
            "which cannot share one port; use 0, and each takes one that is free (nats-mesh get instances -o wide "
            "lists them), or off"
        )
    return given


def child_environment(
    environ: Mapping[str, str], *, url: str, namespace: str, python_path: str
) -> dict[str, str]:
    """The environment of a service: the demo's bus and no setting of another mesh, but where policies are cached; only
    warnings are logged, until a command or a policy asks for more."""
    kept = {name: value for name, value in environ.items() if name == _CACHE or not name.startswith(_FOREIGN)}
    kept |= {"NATS_URL": url, "MESH_NAMESPACE": namespace, "MESH_LOG": "WARNING"}
    if python_path:
        kept["PYTHONPATH"] = python_path
    return kept


class ServiceProcess:
    """One service in a process of its own session; a :class:`Guard` kills it when this process ends, however.

    What it writes is read all the time, so that it can never block, and the end of it is kept; all of it goes to
    ``log``, where there is one.
    """

    __slots__ = ("_guard", "_log", "_loop", "_output", "child", "name")

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], log: LogFile | None = None
    ) -> None:
        self.name = name
        self._output = b""
        self._log = log
        self._guard = Guard()
        try:
            # A session of its own: Ctrl-C in the terminal is for us, who end the services in order.
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=dict(environ),
                start_new_session=True,
            )
        except BaseException:
            self._guard.release()
            raise
        self._guard.watch(self.child)
        os.set_blocking(self._pipe, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe, self._read)

    @property
    def _pipe(self) -> int:
        assert self.child.stdout is not None  # asked for above
        return self.child.stdout.fileno()

    def _read(self) -> None:
        try:
            while data := os.read(self._pipe, 65_536):
                self._output = (self._output + data)[-_KEPT_BYTES:]
                if self._log is not None:
                    self._log.write(data)
        except BlockingIOError:
            return  # that is all for now
        self._loop.remove_reader(self._pipe)  # the other end is closed

    @property
    def output(self) -> list[str]:
        """The last lines it wrote."""
        return self._output.decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]

    @property
    def stopped(self) -> bool | None:
        """Whether a signal has stopped it (SIGSTOP) and it does not run now; ``None`` where the system does not say."""
        if sys.platform != "linux":
            return None
        if self.child.poll() is not None:
            return False
        # WNOWAIT leaves the report in place: it is there for as long as the process is stopped.
        return os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    def failure(self) -> str:
        """How it ended, with its last words."""
        status = self.child.returncode
        how = (
            f"was killed by signal {-status}"
            if status is not None and status < 0
            else f"ended with status {status}"
        )
        last = [line.strip() for line in self.output if line.strip()]
        return f"{self.name} (pid {self.child.pid}) {how}: {last[-1] if last else 'it wrote nothing'}"

    def close(self) -> None:
        """Kill it if it still runs, collect it, and let the guard go."""
        reap(self.child)
        self._read()
        self._loop.remove_reader(self._pipe)
        assert self.child.stdout is not None  # asked for above
        self.child.stdout.close()
        self._guard.unwatch()
        self._guard.release()


class Fleet:
    """All service processes. Leaving stops them: in order where all is well, at once where it is not.

    ``on_exit`` gets every process that ends before it was told to, ``on_stop`` every one that a signal stops, and again
    when it goes on. What they write goes to ``logs``, where somebody wants to have it.
    """

    def __init__(
        self,
        bookinfo: Bookinfo,
        names: Sequence[str],
        environ: Mapping[str, str],
        on_exit: Callable[[ServiceProcess], None],
        on_stop: Callable[[ServiceProcess, bool], None] = lambda process, stopped: None,
        logs: Logs | None = None,
    ) -> None:
        self.processes: list[ServiceProcess] = []
        self._bookinfo = bookinfo
        self._names = names
        self._environ = environ
        self._on_exit = on_exit
        self._on_stop = on_stop
        self._logs = logs
        self.crashed: list[ServiceProcess] = []
        #: Those that had to be killed, or ended with an error, when they were told to stop.
        self.unruly: list[ServiceProcess] = []

    async def __aenter__(self) -> Self:
        try:
            for name in self._names:
                log = None if self._logs is None else self._logs.of(name)
                command = self._bookinfo.command(name)
                self.processes.append(ServiceProcess(name, command, self._environ, log))
        except OSError as error:
            self._close()
            raise ConfigError(f"a service process cannot be started: {error}") from error
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with anyio.CancelScope(shield=True):
                    await drive(self._stop_steps())
        finally:
            self._close()

    async def watch(self) -> None:
        """Report processes that end by themselves; runs until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            for process in self.processes:
                tasks.start_soon(self._watch_one, process)

    async def _watch_one(self, process: ServiceProcess) -> None:
        await drive(self._life_steps(process), _WATCH_POLL_S)
        self.crashed.append(process)
        self._on_exit(process)

    def _life_steps(self, process: ServiceProcess) -> Generator[None, None, None]:
        """Until it has ended."""
        was_stopped = False
        while process.child.poll() is None:
            stopped = process.stopped is True
            if stopped is not was_stopped and process.child.returncode is None:
                was_stopped = stopped
                self._on_stop(process, stopped)
            yield

    def of(self, pid: str) -> ServiceProcess | None:
        """The process of this id; ``None`` where it is none of ours."""
        return next((each for each in self.processes if str(each.child.pid) == pid), None)

    def is_running(self, pid: str) -> bool | None:
        """Whether the process of this id runs; ``None`` where it is none of ours."""
        process = self.of(pid)
        return None if process is None else process.child.poll() is None

    def _stop_steps(self) -> Generator[None, None, None]:
        """SIGTERM, which lets each finish what it holds, then SIGKILL for whoever is still there. Who was stopped by a
        signal goes on for that."""
        asked = [process for process in self.processes if process.child.poll() is None]
        for process in asked:
            process.child.terminate()
            if process.stopped:
                process.child.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + _STOP_GRACE_S
        while any(process.child.poll() is None for process in asked) and time.monotonic() < deadline:
            yield
        for process in asked:
            reap(process.child)
        self.unruly = [process for process in asked if process.child.returncode != 0]

    def _close(self) -> None:
        for process in self.processes:
            process.close()
