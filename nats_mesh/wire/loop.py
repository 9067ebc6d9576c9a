"""Plain asyncio, in this one place, because it stands on the path of every call.

Measured on the data path: an anyio cancel scope or ``asyncio.wait_for`` per call costs several
microseconds each, one future less than one; so an attempt has one future, all attempts of a connection share
one timer, and an instance makes a task only for a handler that waits. Everything else in the package uses anyio.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread

__all__ = [
    "CancelledError",
    "Deadline",
    "Future",
    "InvalidStateError",
    "TaskPool",
    "Timer",
    "Waiter",
    "being_cancelled",
    "busy_threads",
    "call_later",
    "future_maker",
    "in_thread",
]

T = TypeVar("T")

CancelledError = asyncio.CancelledError
InvalidStateError = asyncio.InvalidStateError
Timer = asyncio.TimerHandle
#: A wait for the header block and the payload of one reply.
Future: TypeAlias = "asyncio.Future[tuple[bytes, bytes]]"


class Waiter(Protocol):
    """Who gets the first reply to one request, or the reason why none comes: a future does, or what stands in the place
    of one where several attempts are made for one call.

    It gets one of the two once, on the event loop, from whoever reads the connection or looks at deadlines: so it must
    not block, and must raise nothing, except :class:`InvalidStateError` where it is ``done`` already.
    """

    def done(self) -> bool:
        """Whether it has had its result, or waits no more: nothing that comes afterwards is wanted."""

    def set_result(self, result: tuple[bytes, bytes], /) -> None:
        """The header block of the reply (empty where it has none), and its payload."""

    def set_exception(self, error: BaseException, /) -> None:
        """Why none comes: :class:`Deadline`, or the :class:`~nats_mesh.errors.CallError` of a broken connection."""


class Deadline(Exception):
    """What a wait ends with when its time is up; whoever waits knows what that means."""


class TaskPool:
    """The tasks that run now. ``on_error`` gets what a task dies of; nothing is swallowed."""

    __slots__ = ("_context", "_empty", "_on_error", "tasks")

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._on_error = on_error
        self._context = contextvars.copy_context()
        self._empty: asyncio.Event | None = None

    def spawn(
        self, work: Coroutine[Any, Any, None], on_done: Callable[[], None] | None = None
    ) -> asyncio.Task[None]:
        """Start ``work`` in a copy of the context the pool was made in: no request sees another's variables.

        ``on_done`` runs when the task is over, also where it was cancelled before its first step.
        """
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self.tasks.add(task)
        task.add_done_callback(
            self._done if on_done is None else functools.partial(self._done, on_done=on_done)
        )
        return task

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """As :meth:`spawn`, for whoever needs no handle on the task."""
        _ = self.spawn(work)

    def _done(self, task: asyncio.Task[None], on_done: Callable[[], None] | None = None) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
        if on_done is not None:
            on_done()
        if not self.tasks and self._empty is not None:
            self._empty.set()
            self._empty = None

    async def join(self, timeout_s: float) -> bool:
        """Wait until nothing runs; ``False`` where something still does after ``timeout_s``."""
        if not self.tasks:
            return True
        if self._empty is None:
            self._empty = asyncio.Event()  # shared by all who wait
        empty = self._empty
        try:
            async with asyncio.timeout(timeout_s):
                await empty.wait()
        except TimeoutError:
            return not self.tasks
        return True

    def cancel_all(self) -> int:
        """Ask everything that runs to stop; returns how many that were."""
        for task in (running := list(self.tasks)):
            task.cancel()
        return len(running)

    def __len__(self) -> int:
        return len(self.tasks)


_threads = 0


def busy_threads() -> int:
    """How many worker threads run a handler now; virtual time stands still meanwhile."""
    return _threads


def _contained(function: Callable[[], T]) -> T:
    """Run ``function``; sys.exit() in it must end its call, not the loop that waits for the thread."""
    try:
        return function()
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__}({error}) was raised in a worker thread") from error


def being_cancelled() -> bool:
    """Whether somebody asked the current task to stop (and not merely something it awaited was cancelled)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def in_thread(function: Callable[[], T], limiter: anyio.CapacityLimiter) -> T:
    """Run ``function`` in a worker thread; cancelled, it waits for the thread, which nobody can stop."""
    global _threads
    # A task of its own, because no scope shields against asyncio's own cancellation of the one that waits.
    work = asyncio.ensure_future(anyio.to_thread.run_sync(_contained, function, limiter=limiter))
    _threads += 1
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                pass  # told again: the thread ends no sooner, and this task ends with it
        if not work.cancelled():
            work.exception()  # looked at, because nobody is left who waits for what came of it
        raise
    finally:
        _threads -= 1


def future_maker() -> Callable[[], Future]:
    """What makes futures of the running loop, looked up once."""
    return asyncio.get_running_loop().create_future


def call_later(delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
    """Run ``callback`` on the loop in ``delay_s`` seconds."""
    return asyncio.get_running_loop().call_later(delay_s, callback, *args)
