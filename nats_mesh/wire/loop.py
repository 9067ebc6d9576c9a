"""Plain asyncio, in this one place, because it stands on the path of every call.

Measured on the data path: an anyio cancel scope or ``asyncio.wait_for`` per call costs several
microseconds each, one ``call_later`` and one future less than one; so a call has exactly one future
and one timer, and an instance one task per request. Everything else in the package uses anyio.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread

__all__ = [
    "CancelledError",
    "Deadline",
    "Expiries",
    "Expiry",
    "Future",
    "TaskPool",
    "Timer",
    "being_cancelled",
    "busy_threads",
    "call_later",
    "future_maker",
    "in_thread",
]

T = TypeVar("T")

CancelledError = asyncio.CancelledError
Timer = asyncio.TimerHandle
#: A wait for the header block and the payload of one reply.
Future: TypeAlias = "asyncio.Future[tuple[bytes, bytes]]"

#: How much too early a timer may fire: loops round to milliseconds.
_EARLY_S = 0.0005
#: What arithmetic may add to a length of whole milliseconds.
_EXACT_MS = 0.001


class Deadline(Exception):
    """What a wait ends with when its time is up; whoever waits knows what that means."""


class Expiry:
    """Ends waits of one length at their time, with one timer of the loop for all of them.

    Waits of one length end in the order in which they began, so only the first needs a timer. It is set
    when there is none and otherwise left alone: a wait that ends before its time costs a table entry,
    not a timer made and taken back. Instants are ``now``'s, lengths in seconds.
    """

    __slots__ = ("_length_s", "_now", "_single", "_timer", "waiting")

    def __init__(self, length_s: float, now: Callable[[], float], *, single: bool = False) -> None:
        self._length_s = length_s
        self._now = now
        self._single = single
        self._timer: asyncio.TimerHandle | None = None
        #: In the order in which they end.
        self.waiting: dict[str, tuple[float, Future]] = {}

    def add(self, key: str, future: Future, now: float) -> None:
        """End ``future`` with :class:`Deadline` in as many seconds as this is for, unless :meth:`drop` comes first."""
        self.waiting[key] = (now + self._length_s, future)
        if self._timer is None:
            self._timer = call_later(self._length_s, self._expire)

    def drop(self, key: str) -> None:
        """A wait is over."""
        self.waiting.pop(key, None)
        if self._single:
            self.close()

    def _expire(self) -> None:
        self._timer = None
        now = self._now() + _EARLY_S
        while self.waiting:
            key = next(iter(self.waiting))
            ends, future = self.waiting[key]
            if ends > now:
                self._timer = call_later(ends - now + _EARLY_S, self._expire)
                return
            del self.waiting[key]
            if not future.done():
                future.set_exception(Deadline())

    def close(self) -> None:
        """No timer is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Expiries:
    """The :class:`Expiry` of each length of wait, in whole milliseconds, rounded up: calls of one kind share one.

    Beyond ``limit`` lengths in use at a time, a wait gets one for itself.
    """

    __slots__ = ("_known", "_limit", "_now")

    def __init__(self, now: Callable[[], float], limit: int = 64) -> None:
        self._known: dict[int, Expiry] = {}
        self._now = now
        self._limit = limit

    def of(self, length_s: float) -> Expiry:
        """Where to :meth:`~Expiry.add` a wait of ``length_s``; it ends at most a millisecond late."""
        length_ms = math.ceil(length_s * 1000.0 - _EXACT_MS)
        found = self._known.get(length_ms)
        return self._add(length_ms) if found is None else found

    def _add(self, length_ms: int) -> Expiry:
        if len(self._known) >= self._limit:
            for length, known in list(self._known.items()):
                if not known.waiting:
                    known.close()
                    del self._known[length]
        if len(self._known) >= self._limit:
            return Expiry(length_ms / 1000.0, self._now, single=True)
        made = self._known[length_ms] = Expiry(length_ms / 1000.0, self._now)
        return made

    def close(self) -> None:
        """No timer is left behind."""
        for each in self._known.values():
            each.close()
        self._known.clear()

    def __len__(self) -> int:
        return sum(len(each.waiting) for each in self._known.values())


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
