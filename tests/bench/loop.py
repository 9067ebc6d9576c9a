"""The measured loop, in the caller's process: a closed loop of so many calls in flight. Standard library only."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat
from typing import Any

__all__ = ["drive", "quantile"]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values; 0 where there is none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


async def drive(
    call: Callable[[], Awaitable[Any]], *, in_flight: int, seconds: float, calls: int
) -> dict[str, Any]:
    """Keep ``in_flight`` calls going for ``seconds``, or until ``calls`` were made where that is not 0.

    ``elapsed_s`` lasts to the end of the last call. Failed calls are counted in ``errors``, and in nothing
    else. ``cpu_s`` is what this process used meanwhile; quantiles are in µs.
    """
    took: list[float] = []
    add = took.append
    clock = time.perf_counter
    errors = 0
    first_error = ""
    shares = [calls // in_flight + (number < calls % in_flight) for number in range(in_flight)]

    async def work(share: int) -> None:
        nonlocal errors, first_error
        now = clock()
        for _ in repeat(None, share) if calls else repeat(None):
            if now >= stop:
                return
            try:
                await call()
            except Exception as error:  # noqa: BLE001 - whatever a peer's library raises, it is told
                errors += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
                await asyncio.sleep(0.001)  # a call that fails at once must not keep the others from running
                now = clock()
                continue
            then = clock()
            add(then - now)
            now = then

    cpu = time.process_time()
    start = clock()
    stop = start + (seconds if not calls else 3600.0)
    await asyncio.gather(*(work(share) for share in shares))
    elapsed = clock() - start
    cpu = time.process_time() - cpu
    took.sort()
    return {
        "calls": len(took),
        "errors": errors,
        "first_error": first_error[:300],
        "elapsed_s": elapsed,
        "p50_us": quantile(took, 0.5) * 1e6,
        "p99_us": quantile(took, 0.99) * 1e6,
        "cpu_s": cpu,
    }
