"""The mesh: every line of :data:`~tests.bench.layers.LAYERS` is a variant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats

from nats_mesh.serving.instance import Instance
from nats_mesh.wire.subjects import ALL, Subjects
from tests.bench.echo import Prepare
from tests.bench.layers import LAYERS

__all__ = ["connect", "serve"]

_OBSERVER = "bench-observer"
#: Within the five seconds of a lease.
_LEASE_EVERY_S = 2.0


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """One instance; or, as ``observer``, somebody who has all statistics published meanwhile."""
    if variant == "observer":
        async with _observer(address):
            yield address
        return
    async with Instance(LAYERS[variant].service(address)):
        yield address


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """One pure client."""
    layer = LAYERS[variant]
    async with layer.mesh(address) as mesh:
        yield lambda size: layer.echo(mesh, size)


@asynccontextmanager
async def _observer(address: str) -> AsyncIterator[None]:
    subjects = Subjects("default")
    client = await nats.connect(address)
    await client.subscribe(subjects.telemetry_of("stats"))

    async def lease() -> None:
        while True:
            await client.publish(subjects.want("stats", ALL, _OBSERVER), b"")
            await asyncio.sleep(_LEASE_EVERY_S)

    leasing = asyncio.create_task(lease())
    try:
        await client.flush()
        yield
    finally:
        leasing.cancel()
        await client.close()
