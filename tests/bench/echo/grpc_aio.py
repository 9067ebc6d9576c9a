"""gRPC's asyncio API with generic handlers: bytes in, bytes out, no message to decode (which favours it)."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.echo import TIMEOUT_S, Echo, Prepare

__all__ = ["connect", "serve"]

_SERVICE, _METHOD = "bench.Bench", "Echo"


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """Listen on a free port and say which; there is one variant."""
    grpc = importlib.import_module("grpc")
    aio = importlib.import_module("grpc.aio")

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    server = aio.server()
    handlers = {_METHOD: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """One channel, kept open, for all calls."""
    aio = importlib.import_module("grpc.aio")
    async with aio.insecure_channel(address) as channel:
        method = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")

        def prepare(size: int) -> Echo:
            payload = b"x" * size
            return Echo(lambda: method(payload, timeout=TIMEOUT_S), lambda data: data, payload)

        yield prepare
