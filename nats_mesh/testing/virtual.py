"""Virtual time: an event loop whose clock jumps to the next timer when nothing is ready.

A test that waits an hour takes no time, and two runs of it are the same. Worker threads are waited
for: while a plain-function handler runs in one, time stands still.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from nats_mesh.wire.loop import busy_threads

__all__ = ["MAX_VIRTUAL_S", "VIRTUAL_TIME", "LoopClock", "VirtualTimeLoop", "run_virtual"]

T = TypeVar("T")

#: 2023-11-14T22:13:20Z: where the wall clock of virtual time begins.
_WALL_START_S = 1_700_000_000.0
_START_S = 1000.0
#: How long a loop without timers waits for a socket or a thread before it is called stuck (real seconds).
_STUCK_S = 30.0
#: How far virtual time may run. A mesh has timers that repeat, so a test that waits in vain would spin for ever.
MAX_VIRTUAL_S = 2 * 86400.0


class LoopClock:
    """The running loop's clock, as the mesh's: virtual under :class:`VirtualTimeLoop`, real elsewhere."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def time(self) -> float:
        return _WALL_START_S + self._loop.time()


class _JumpingSelector(selectors.BaseSelector):
    """Looks at the sockets without waiting, and turns waiting into a jump of the clock."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = _START_S

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        if timeout is None or busy_threads():
            events = self._real.select(_STUCK_S)
            if not events:
                raise RuntimeError(
                    f"nothing will ever happen: no timer, and no event in {_STUCK_S:g} s of real time"
                )
            return events
        self.now += max(0.0, timeout)
        if self.now - _START_S > MAX_VIRTUAL_S:
            raise RuntimeError(
                f"{MAX_VIRTUAL_S / 86400:g} days of virtual time have passed: only timers that repeat go off, "
                "and what the test waits for never happens"
            )
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time (seconds from 1,000 on)."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now


#: For the anyio pytest plugin: a fixture ``anyio_backend`` that returns this puts its tests into virtual time.
VIRTUAL_TIME: tuple[str, dict[str, Any]] = ("asyncio", {"loop_factory": VirtualTimeLoop})


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``main(*args)`` in virtual time and return its result."""

    async def start() -> T:
        return await main(*args)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(start())
