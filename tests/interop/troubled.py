"""What Prometheus is shown beside Bookinfo: everything that goes wrong in a mesh, over and over.

`python -m tests.interop.troubled`: services with troubles, and `web`, which calls them and Bookinfo's pages. Runs until
it is ended; the environment says where the bus is and where the metrics are.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import anyio

from nats_mesh import CallError, Mesh, Service
from nats_mesh.runner import serve

#: How often each of the calls is made (seconds).
EVERY_S = 0.1

steady = Service("steady", version="1.0.0")
shaky = Service("shaky", version="1.0.0")
good, bad = Service("uneven", version="1.0.0"), Service("uneven", version="2.0.0")


@shaky.endpoint()
async def fails() -> str:
    """Every call fails: its caller's circuit opens."""
    raise RuntimeError("as always")


@shaky.endpoint(concurrency=1, timeout=2.0)
async def narrow() -> str:
    """One call at a time: others are refused, and attempted again."""
    await anyio.sleep(0.4)
    return "done"


@steady.endpoint(idempotent=True, timeout=0.3)
async def sometimes() -> str:
    """Half of the attempts take too long."""
    if random.random() < 0.5:
        await anyio.sleep(1.0)
    return "done"


@good.endpoint(name="ask")
async def ask_good() -> str:
    """All is well."""
    return "done"


@bad.endpoint(name="ask")
async def ask_bad() -> str:
    """The instance that is ejected."""
    raise RuntimeError("as always")


async def _over_and_over(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await call()
        except CallError:
            pass  # that is what it is for
        await anyio.sleep(EVERY_S)


async def _main() -> None:
    async with Mesh("web") as mesh, anyio.create_task_group() as tasks:

        async def until_told_to_stop() -> None:
            await serve(shaky, steady, good, bad)
            tasks.cancel_scope.cancel()

        tasks.start_soon(until_told_to_stop)
        for target in ("shaky.fails", "steady.sometimes", "uneven.ask", "nobody.there"):
            tasks.start_soon(_over_and_over, lambda target=target: mesh.call(target, timeout=2.0))
        for _ in range(3):
            tasks.start_soon(_over_and_over, lambda: mesh.call("shaky.narrow", timeout=2.0))
        tasks.start_soon(_over_and_over, lambda: mesh.call("productpage.page", timeout=5.0))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    anyio.run(_main)
