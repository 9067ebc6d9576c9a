"""HTTP/1.1: an ASGI application under uvicorn (uvloop, httptools), called by aiohttp."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.echo import TIMEOUT_S, Echo, Prepare

__all__ = ["connect", "serve"]


async def _application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """Listen on a free port and say which; there is one variant."""
    uvicorn = importlib.import_module("uvicorn")
    config = uvicorn.Config(
        _application,
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """Connections are kept and reused, as many as calls are in flight."""
    aiohttp = importlib.import_module("aiohttp")
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        url = f"http://{address}/echo"

        def prepare(size: int) -> Echo:
            payload = b"x" * size

            async def call() -> bytes:
                async with session.post(url, data=payload) as response:
                    if response.status != 200:
                        raise RuntimeError(f"HTTP {response.status}")
                    data: bytes = await response.read()
                    return data

            return Echo(call, lambda data: data, payload)

        yield prepare
