"""nats-py as it comes: ``request`` against a subscription's callback, or against its micro service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import nats.micro

from tests.bench.echo import TIMEOUT_S, Echo, Prepare

__all__ = ["connect", "serve"]

#: Beyond the largest cell (256 × 512 KiB), so that no message is dropped as one too many.
_PENDING_BYTES = 1 << 30


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """Answer on ``bench.raw``: ``variant`` is ``request`` (a callback) or ``micro`` (an endpoint)."""
    client = await nats.connect(address)
    if variant == "micro":
        service = await nats.micro.add_service(client, name="bench", version="1.0.0")
        await service.add_endpoint(name="raw", subject="bench.raw", handler=_respond)
    else:
        await client.subscribe("bench.raw", queue="q", cb=_answer, pending_bytes_limit=_PENDING_BYTES)
    await client.flush()
    try:
        yield address
    finally:
        await client.close()


async def _answer(message: Any) -> None:
    await message.respond(message.data)


async def _respond(request: Any) -> None:
    await request.respond(request.data)


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """Calls by ``Client.request``, for both variants."""
    client = await nats.connect(address)

    def prepare(size: int) -> Echo:
        payload = b"x" * size
        return Echo(
            lambda: client.request("bench.raw", payload, timeout=TIMEOUT_S), lambda m: m.data, payload
        )

    try:
        yield prepare
    finally:
        await client.close()
