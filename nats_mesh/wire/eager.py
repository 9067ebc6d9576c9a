"""Runs the handlers of an instance: at once and one after another, until one has to wait.

A task per call costs more than most of what a mesh does for it. So calls are taken from a queue by one
task, each in a context of its own, and a handler that never waits is done in that turn of the loop. The
first one that waits keeps the task for itself from then on, to its end: what it knows as the current task
(timeouts, cancel scopes) stays true, and no other call can be hit by what it leaves there. The rest of the
queue goes to another task. Where the last call of its kind had to wait, a call gets a task of its own at once.

The idea is that of asyncio's eager tasks (Python 3.12), which start before they are scheduled; this works
from 3.11 on and makes no task at all for what need not wait.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

__all__ = ["EagerPool", "Held", "Kind", "Work"]

#: A handler that waits: its coroutine or the generator of its steps, and what it waits for.
Held: TypeAlias = tuple[Coroutine[Any, Any, Any] | Generator[Any, Any, Any], Any]


class Kind(Protocol):
    """What calls have in common; ``waits`` is kept by the pool: whether the last one had to wait."""

    waits: bool


class Item(Protocol):
    """One call in the queue."""

    @property
    def kind(self) -> Kind: ...


T = TypeVar("T", bound=Item)
T_contra = TypeVar("T_contra", bound=Item, contravariant=True)


class Work(Protocol[T_contra]):
    """What is to be done with a call; nothing of it may raise, except KeyboardInterrupt."""

    def opened(self) -> None:
        """Calls are about to be taken from the queue, in this turn of the loop."""

    def rested(self) -> None:
        """That was all of them for this turn."""

    def first(self, item: T_contra) -> Held | None:
        """Start a call, in a context of its own; ``None`` where it is over already."""

    def held(self, item: T_contra, stop: Callable[[], object]) -> None:
        """It has to wait; ``stop`` cancels it from now on."""

    def done(self, item: T_contra, result: Any) -> None:
        """A call that waited has returned."""

    def failed(self, item: T_contra, error: BaseException) -> None:
        """A call that waited has raised, or was stopped."""


class EagerPool(Generic[T]):
    """The calls that wait to begin (``queue``) and those that have begun and wait (``tasks``).

    ``on_error`` gets what a task dies of, which :class:`Work` should never let happen.
    """

    __slots__ = ("_base", "_empty", "_on_error", "_parked", "_runner", "_starting", "_work", "queue", "tasks")

    def __init__(self, work: Work[T], on_error: Callable[[BaseException], None]) -> None:
        self.queue: collections.deque[T] = collections.deque()
        self.tasks: set[asyncio.Task[None]] = set()
        #: Those that have a task, which has not made its first step.
        self._starting: dict[int, T] = {}
        self._work = work
        self._on_error = on_error
        self._base = contextvars.copy_context()
        self._runner: asyncio.Task[None] | None = None
        self._parked: asyncio.Future[None] | None = None
        self._empty: asyncio.Event | None = None

    def push(self, item: T) -> None:
        """Run ``item`` in the loop's next turn, after those that came before."""
        self.queue.append(item)
        if self._parked is not None:
            if not self._parked.done():
                self._parked.set_result(None)
            self._parked = None
        elif self._runner is None:
            self._runner = self._task(self._run())

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=self._base.copy())
        task.add_done_callback(self._forget)
        return task

    async def _run(self) -> None:
        """Take calls from the queue until one has to wait."""
        me = asyncio.current_task()
        try:
            while True:
                waiting = self._take()
                if waiting is not None:
                    self._hand_over(me)
                    await self._hold(*waiting)
                    return
                if self._empty is not None and not self.tasks:
                    self._empty.set()
                    self._empty = None
                parked = self._parked = asyncio.get_running_loop().create_future()
                try:
                    await parked
                finally:
                    if self._parked is parked:
                        self._parked = None
        finally:
            if self._runner is me:  # it was stopped, or something is broken: the queue goes on
                self._runner = self._task(self._run()) if self.queue else None

    def _take(self) -> tuple[T, contextvars.Context, Held] | None:
        """Run what is in the queue; the first that has to wait, if one does."""
        queue, first, context = self.queue, self._work.first, self._base.copy
        self._work.opened()
        try:
            while queue:
                item = queue.popleft()
                if item.kind.waits:
                    self._starting[id(item)] = item
                    self.tasks.add(self._task(self._single(item)))
                    continue
                own = context()
                held = own.run(first, item)
                if held is not None:
                    return item, own, held
        finally:
            self._work.rested()
        return None

    def _hand_over(self, task: asyncio.Task[None] | None) -> None:
        """``task`` belongs to the call it runs from now on."""
        assert task is not None, "it runs in one"
        self.tasks.add(task)
        self._runner = self._task(self._run()) if self.queue else None

    async def _single(self, item: T) -> None:
        """One call in a task of its own, because the last of its kind had to wait."""
        del self._starting[id(item)]
        context = self._base.copy()
        held = context.run(self._work.first, item)
        item.kind.waits = held is not None
        if held is not None:
            await self._hold(item, context, held)

    async def _hold(self, item: T, context: contextvars.Context, held: Held) -> None:
        """The rest of a call that has to wait."""
        task = asyncio.current_task()
        assert task is not None, "it runs in one"
        item.kind.waits = True
        self._work.held(item, task.cancel)
        try:
            result = await _rest(context, *held)
        except KeyboardInterrupt:
            raise
        # Whatever a handler raises is its call's affair: it is answered and logged there.
        except BaseException as error:  # noqa: BLE001
            self._work.failed(item, error)
        else:
            self._work.done(item, result)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
        if not self.tasks and not self.queue and self._empty is not None:
            self._empty.set()
            self._empty = None

    def unstarted(self) -> Iterator[T]:
        """The calls that were pushed and have not begun."""
        yield from self.queue
        yield from self._starting.values()

    async def join(self, timeout_s: float) -> bool:
        """Wait until nothing runs; ``False`` where something still does after ``timeout_s``."""
        if not len(self):
            return True
        if self._empty is None:
            self._empty = asyncio.Event()  # shared by all who wait
        empty = self._empty
        try:
            async with asyncio.timeout(timeout_s):
                await empty.wait()
        except TimeoutError:
            return not len(self)
        return True

    def close(self) -> None:
        """Let go of the task that waits for calls; the next call would start another."""
        if self._parked is not None and self._runner is not None:
            self._runner.cancel()

    @property
    def others(self) -> int:
        """How many calls there are besides the one that runs at this moment."""
        return len(self) - (asyncio.current_task() in self.tasks)

    def __len__(self) -> int:
        return len(self.queue) + len(self.tasks)


@types.coroutine
def _rest(
    context: contextvars.Context,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
    waits_for: Any,
) -> Generator[Any, Any, Any]:
    """Go on with a coroutine whose first step was made elsewhere, each step in its own ``context``."""
    step: Callable[[Any], Any]
    while True:
        try:
            sent = yield waits_for
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        # Thrown in by the task (a cancellation): the coroutine is who must get it, whatever it is.
        except BaseException as error:  # noqa: BLE001
            step, argument = coroutine.throw, error
        else:
            step, argument = coroutine.send, sent
        try:
            waits_for = context.run(step, argument)
        except StopIteration as end:
            return end.value
