"""Keeps worker processes running: starts them, restarts those that die, drains all of them at the end.

A worker that has never served and ends with 2, 3 or 4 cannot start (bad target, no bus, not allowed):
trying again would not help, so the supervisor ends with its code. Any other end that nobody asked for is
an accident: the worker is started again, after a pause that doubles while it goes on dying.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from nats_mesh.serving.instance import DRAIN_S
from nats_mesh_cli.errors import BUS, DENIED, OK, USAGE
from nats_mesh_cli.output import counted
from nats_mesh_cli.reload import MAX_FILES, POLICIES, Snapshot, difference, scan, shown

if TYPE_CHECKING:
    from nats_mesh.telemetry.workers import WorkersCollector

__all__ = ["Supervisor", "how_it_ended", "restart_delay_s"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
#: A worker that ran this long was sound; its next death is a first one again (seconds).
_SOUND_S = 10.0
#: What a worker may take beyond its own drain before it is killed (seconds).
_GRACE_S = 5.0
_LOOK_EVERY_S = 0.5
_CANNOT_START = (USAGE, BUS, DENIED)


def restart_delay_s(deaths: int) -> float:
    """The pause before the next start after so many deaths in a row."""
    return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(deaths - 1, 16)))


def how_it_ended(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class _Worker:
    """One process: whether it ever served, and whether we asked it to end."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self.ready = False
        self.asked = False

    def signal(self, number: signal.Signals) -> None:
        self.asked = True
        if self.process.returncode is None:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                pass  # it ended between the look and the signal


class Supervisor:
    """Runs ``count`` processes made by ``command(number, ready_fd, metrics_fd)``; ``watched`` is the folder whose
    changes restart them, if any. ``policies`` is a folder that they follow by themselves: a change there only has those
    tried again that could not start. ``say`` prints a line for people. ``metrics`` hears what each has counted, by the
    socket ``metrics_fd`` (-1 where nobody asks)."""

    def __init__(
        self,
        command: Callable[[int, int, int], Sequence[str]],
        count: int,
        say: Callable[[str], None],
        *,
        watched: Path | None = None,
        policies: Path | None = None,
        drain_s: float = DRAIN_S,
        metrics: WorkersCollector | None = None,
    ) -> None:
        self._metrics = metrics
        self._command = command
        self._count = count
        self._say = say
        self._watched = watched
        self._policies = policies
        self._patience_s = drain_s + _GRACE_S
        self._workers: dict[int, _Worker] = {}
        self._stopping = anyio.Event()
        self._wake = anyio.Event()
        self._served = anyio.Event()
        self._code = OK

    async def run(self) -> int:
        """Supervise until SIGINT or SIGTERM, or until a worker cannot start; returns the exit code."""
        async with anyio.create_task_group() as around:
            around.start_soon(self._watch_signals)
            if self._watched is not None:
                around.start_soon(self._watch_files, self._watched)
            try:
                async with anyio.create_task_group() as workers:
                    workers.start_soon(self._keep, 1)
                    await self._served.wait()  # what keeps the first from starting is said once, not by each
                    for number in range(2, self._count + 1):
                        workers.start_soon(self._keep, number)
            finally:
                for worker in self._workers.values():
                    worker.signal(signal.SIGKILL)
            around.cancel_scope.cancel()
        return self._code

    # -- one worker ---------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        deaths = 0
        while not self._stopping.is_set():
            begun = anyio.current_time()
            worker, code = await self._run_once(number)
            if self._stopping.is_set():
                break
            if worker.asked:
                deaths = 0
                continue
            who = f"worker {number} (pid {worker.process.pid})"
            if code in _CANNOT_START and not worker.ready:
                if self._watched is None:
                    self._code = code
                    self._stop()
                    break
                self._say(f"{who} cannot start; it is tried again when a file changes")
                await self._pause(None)
                continue
            deaths = 1 if anyio.current_time() - begun >= _SOUND_S else deaths + 1
            pause_s = restart_delay_s(deaths)
            self._say(f"{who} ended on its own, {how_it_ended(code)}; started again in {pause_s:g} s")
            await self._pause(pause_s)
        self._served.set()

    async def _run_once(self, number: int) -> tuple[_Worker, int]:
        read_fd, write_fd = os.pipe()
        told = None
        if self._metrics is not None:  # in a thread: somebody may be asking the others at this moment
            told = await anyio.to_thread.run_sync(self._metrics.begin, number)
        metrics_fd = -1 if told is None else told.fileno()
        loop = asyncio.get_running_loop()
        try:
            process = await anyio.open_process(
                list(self._command(number, write_fd, metrics_fd)),
                stdin=subprocess.PIPE,  # its end tells the worker that we are gone
                stdout=None,
                stderr=None,
                start_new_session=True,  # Ctrl-C is for us: a worker that gets it too would hear it twice
                pass_fds=(write_fd,) if told is None else (write_fd, metrics_fd),
            )
        except BaseException:
            os.close(read_fd)
            await self._metrics_ended(number)
            raise
        finally:
            os.close(write_fd)
            if told is not None:
                told.close()
        worker = self._workers[number] = _Worker(process)

        def heard() -> None:
            loop.remove_reader(read_fd)
            if os.read(read_fd, 1):
                worker.ready = True
                self._served.set()

        loop.add_reader(read_fd, heard)
        try:
            if self._stopping.is_set():
                worker.signal(signal.SIGTERM)
            code = await process.wait()
        finally:
            loop.remove_reader(read_fd)
            os.close(read_fd)
            if process.returncode is None:
                worker.signal(signal.SIGKILL)
            else:
                del self._workers[number]
            with anyio.CancelScope(shield=True):
                await process.aclose()
            await self._metrics_ended(number)
        return worker, code

    async def _metrics_ended(self, number: int) -> None:
        if self._metrics is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._metrics.ended, number)

    async def _pause(self, seconds: float | None) -> None:
        """Wait, but no longer than until a change or the end."""
        with anyio.move_on_after(float("inf") if seconds is None else seconds):
            await self._wake.wait()

    # -- all of them --------------------------------------------------------------------------------

    def _rouse(self) -> None:
        wake, self._wake = self._wake, anyio.Event()
        wake.set()

    def _stop(self) -> None:
        self._stopping.set()
        self._rouse()
        self._end_all(signal.SIGTERM)

    def _end_all(self, number: signal.Signals) -> None:
        """Send a signal to whoever has not been asked yet, and kill who has not ended in time."""
        loop = asyncio.get_running_loop()
        for worker in self._workers.values():
            if not worker.asked:
                worker.signal(number)
                loop.call_later(self._patience_s, self._kill, worker)

    def _kill(self, worker: _Worker) -> None:
        if worker.process.returncode is None:
            self._say(f"pid {worker.process.pid} did not end in {self._patience_s:g} s: killed")
            worker.signal(signal.SIGKILL)

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            count = 0
            async for received in signals:
                count += 1
                if count == 1:
                    self._say(
                        f"{received.name}: draining {counted(len(self._workers), 'worker')}; once more to stop at once"
                    )
                    self._stop()
                    continue
                for worker in self._workers.values():
                    worker.signal(signal.SIGTERM if count == 2 else signal.SIGKILL)

    async def _watch_files(self, root: Path) -> None:
        before, more = await anyio.to_thread.run_sync(scan, root)
        policies = await self._scan_policies()
        if more:
            self._say(f"--reload watches the first {MAX_FILES} .py files below {root} only")
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            after, _ = await anyio.to_thread.run_sync(scan, root)
            changed = difference(before, after)
            policies_before, policies = policies, await self._scan_policies()
            before = after
            if self._stopping.is_set():
                continue
            if changed:
                self._say(f"changed: {shown(changed, root)}; starting again")
                self._end_all(signal.SIGTERM)
                self._rouse()
            elif difference(policies_before, policies):
                self._rouse()

    async def _scan_policies(self) -> Snapshot:
        if self._policies is None:
            return {}
        return (await anyio.to_thread.run_sync(scan, self._policies, MAX_FILES, POLICIES))[0]
