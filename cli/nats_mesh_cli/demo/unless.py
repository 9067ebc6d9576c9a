"""Work that is given up when somebody says stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from nats_mesh import MeshError

__all__ = ["unless"]


async def unless(stop: anyio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``, or give it up when ``stop`` is set. A :class:`MeshError` of the work goes to the caller."""
    failure: MeshError | None = None

    async def give_up() -> None:
        await stop.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_up)
        try:
            await work()
        except MeshError as error:  # raised outside the group: callers want it, not a group of one
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
