"""Waiting written once, for code with an event loop and for code without.

Something that takes a while is a generator ("steps") which yields whenever there is nothing to do
yet. :func:`drive` runs it between sleeps on the event loop, :func:`drive_blocking` in a script or a
fixture; there is one implementation to get right, and no thread.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self, TypeVar

import anyio

__all__ = ["Startable", "drive", "drive_blocking", "pause_steps", "together"]

T = TypeVar("T")

_POLL_S = 0.005


async def drive(steps: Generator[None, None, T], poll_s: float = _POLL_S) -> T:
    """Run ``steps`` to their end on the event loop; cancelling closes them, and so cleans up."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            await anyio.sleep(poll_s)
    finally:
        steps.close()


def drive_blocking(steps: Generator[None, None, T], poll_s: float = _POLL_S) -> T:
    """Run ``steps`` to their end in a script or a fixture that has no event loop."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            time.sleep(poll_s)
    finally:
        steps.close()


def together(many: Iterable[Generator[None, None, object]]) -> Generator[None, None, None]:
    """Advance several steps side by side until all have ended; the first error closes the others."""
    running = list(many)
    try:
        while running:
            for steps in list(running):
                try:
                    next(steps)
                except StopIteration:
                    running.remove(steps)
            if running:
                yield
    finally:
        for steps in running:
            steps.close()


def pause_steps(duration_s: float) -> Generator[None, None, None]:
    """Do nothing for ``duration_s`` seconds."""
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        yield


class Startable(abc.ABC):
    """Something to ``start`` and ``stop``, or to enter with ``async with``, or with ``with``."""

    @abc.abstractmethod
    def start_steps(self) -> Generator[None, None, None]:
        """The start as steps, for who starts several at once; closing them half-way undoes it."""

    @abc.abstractmethod
    def stop_steps(self) -> Generator[None, None, None]:
        """The end as steps; closing them half-way still ends and removes everything."""

    async def start(self) -> None:
        """Start it and return when clients can use it."""
        await drive(self.start_steps())

    async def stop(self) -> None:
        """End it, gracefully if it listens, and remove what it left; harmless when done twice."""
        with anyio.CancelScope(shield=True):
            await drive(self.stop_steps())

    def start_sync(self) -> None:
        """``start`` for scripts and fixtures without an event loop."""
        drive_blocking(self.start_steps())

    def stop_sync(self) -> None:
        """``stop`` for scripts and fixtures without an event loop."""
        drive_blocking(self.stop_steps())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self.start_sync()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop_sync()
