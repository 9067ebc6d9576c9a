"""What is measured: each peer serves an echo in one process and calls it from another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import nats

from nats_mesh import Mesh, Service
from nats_mesh.instance import Instance

__all__ = ["PEERS", "Call", "Peer"]

Call = Callable[[], Awaitable[object]]


class Echo(msgspec.Struct):
    """The typed value of a mesh call; ``text`` makes up the size."""

    text: str


class Peer(msgspec.Struct, frozen=True):
    """``serve(url)`` answers while it is open; ``caller(url, size)`` yields one call of ``size`` bytes."""

    name: str
    serve: Callable[[str], Any]
    caller: Callable[[str, int], Any]


@asynccontextmanager
async def _serve_raw(url: str) -> AsyncIterator[None]:
    client = await nats.connect(url)

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe("bench.raw", queue="q", cb=answer)
    await client.flush()
    try:
        yield
    finally:
        await client.close()


@asynccontextmanager
async def _call_raw(url: str, size: int) -> AsyncIterator[Call]:
    client = await nats.connect(url)
    payload = b"x" * size
    try:
        yield lambda: client.request("bench.raw", payload, timeout=5)
    finally:
        await client.close()


@asynccontextmanager
async def _serve_mesh(url: str) -> AsyncIterator[None]:
    service = Service("bench", version="1.0.0", servers=url)

    @service.endpoint()
    async def echo(value: Echo) -> Echo:
        return value

    async with Instance(service):
        yield


@asynccontextmanager
async def _call_mesh(url: str, size: int) -> AsyncIterator[Call]:
    value = Echo("x" * max(0, size - len('{"text":""}')))
    async with Mesh("bench-caller", servers=url) as mesh:
        yield lambda: mesh.call("bench.echo", value, returns=Echo)


#: In the order of the table; the first is what the others are compared with.
PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="nats-py request", serve=_serve_raw, caller=_call_raw),
        Peer(name="mesh call, typed JSON", serve=_serve_mesh, caller=_call_mesh),
    )
}
