"""The services of the demo as separate processes, none of which outlives it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio

from nats_mesh.errors import ConfigError
from nats_mesh.testing._process import Guard, exited_steps, reap
from nats_mesh.testing._steps import drive
from nats_mesh_cli.demo.locate import Bookinfo

__all__ = ["Fleet", "ServiceProcess", "child_environment"]

_WATCH_POLL_S = 0.1
_STOP_GRACE_S = 5.0
_KEPT_BYTES = 16 * 1024
_SHOWN_LINES = 8
#: Settings of the user's real mesh that must not reach the demo.
_FOREIGN = ("NATS_CREDS", "NATS_CA", "NATS_CONTEXT", "NATS_URL", "MESH_", "BOOKINFO_")
#: Says where policies are cached: a place of the user's, or none.
_CACHE = "MESH_CACHE_DIR"


def child_environment(
    environ: Mapping[str, str], *, url: str, namespace: str, python_path: str
) -> dict[str, str]:
    """The environment of a service: the demo's bus and no setting of another mesh, but where policies are cached; only
    warnings are logged."""
    kept = {name: value for name, value in environ.items() if name == _CACHE or not name.startswith(_FOREIGN)}
    kept |= {"NATS_URL": url, "MESH_NAMESPACE": namespace, "MESH_LOG": "WARNING"}
    if python_path:
        kept["PYTHONPATH"] = python_path
    return kept


class ServiceProcess:
    """One service in a process of its own session; a :class:`Guard` kills it when this process ends, however.

    What it writes is read all the time, so that it can never block, and the end of it is kept.
    """

    __slots__ = ("_guard", "_loop", "_output", "child", "name")

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._output = b""
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
        except BlockingIOError:
            return  # that is all for now
        self._loop.remove_reader(self._pipe)  # the other end is closed

    @property
    def output(self) -> list[str]:
        """The last lines it wrote."""
        return self._output.decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]

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

    ``on_exit`` gets every process that ends before it was told to.
    """

    def __init__(
        self,
        bookinfo: Bookinfo,
        names: Sequence[str],
        environ: Mapping[str, str],
        on_exit: Callable[[ServiceProcess], None],
    ) -> None:
        self.processes: list[ServiceProcess] = []
        self._bookinfo = bookinfo
        self._names = names
        self._environ = environ
        self._on_exit = on_exit
        self.crashed: list[ServiceProcess] = []
        #: Those that had to be killed, or ended with an error, when they were told to stop.
        self.unruly: list[ServiceProcess] = []

    async def __aenter__(self) -> Self:
        try:
            for name in self._names:
                self.processes.append(ServiceProcess(name, self._bookinfo.command(name), self._environ))
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
        await drive(exited_steps(process.child), _WATCH_POLL_S)
        self.crashed.append(process)
        self._on_exit(process)

    def is_running(self, pid: str) -> bool | None:
        """Whether the process of this id runs; ``None`` where it is none of ours."""
        found = [process.child.poll() is None for process in self.processes if str(process.child.pid) == pid]
        return found[0] if found else None

    def _stop_steps(self) -> Generator[None, None, None]:
        """SIGTERM, which lets each finish what it holds, then SIGKILL for whoever is still there."""
        asked = [process for process in self.processes if process.child.poll() is None]
        for process in asked:
            process.child.terminate()
        deadline = time.monotonic() + _STOP_GRACE_S
        while any(process.child.poll() is None for process in asked) and time.monotonic() < deadline:
            yield
        for process in asked:
            reap(process.child)
        self.unruly = [process for process in asked if process.child.returncode != 0]

    def _close(self) -> None:
        for process in self.processes:
            process.close()
