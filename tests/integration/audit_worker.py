"""A process that serves one service and leaves signs of life at a fast pace; it ends when it is told to, or killed."""

from __future__ import annotations

import sys

import anyio

from nats_mesh import Service
from nats_mesh.audit import signs
from nats_mesh.discovery import messages
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings


async def main(url: str, namespace: str, name: str) -> None:
    """Serve until stdin ends."""
    signs.SIGN_S = 0.2  # type: ignore[misc]  # a constant, made shorter for this process
    messages.BASE_INTERVAL_S = 0.1  # type: ignore[misc]  # a constant, made shorter for this process
    service = Service(name, version="1.2.0", labels={"zone": "eu-1"})

    @service.endpoint(name="get")
    async def get() -> str:
        return "here"

    async with Instance(service, settings=Settings(servers=(url,), namespace=namespace)) as instance:
        sys.stdout.write(f"{instance.id}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)


anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
