"""One mesh under test, on whichever transport: what conformance and integration tests stand on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from nats.aio.client import Client

from nats_mesh import Mesh, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.nats_transport import connect
from nats_mesh.wire.public_transport import PublicTransport
from nats_mesh.wire.transport import ConnectOptions, Connector, Transport

__all__ = ["KNOWN_LIMITS", "PATIENCE_S", "TRANSPORTS", "Bus", "eventually", "open_bus", "policies"]

#: How long anything may take before a test fails instead of hanging, seconds.
PATIENCE_S = 20.0

#: Every transport that must pass: its name, and how to get the server's address and a connector for it.
TRANSPORTS: dict[str, Callable[[pytest.FixtureRequest], tuple[str, Connector]]] = {
    "nats": lambda request: (request.getfixturevalue("nats_server").url, connect),
    "public": lambda request: (request.getfixturevalue("nats_server").url, connect_publicly),
    "memory": lambda request: ("nats://memory", MemoryBus().connect),
}

#: What a transport cannot do, by the end of a test's id, and why. Each of them must fail: a limit that went is said.
KNOWN_LIMITS: dict[str, str] = {
    "test_custom_metadata[public-x-bytes-bin-values2]": "nats-py keeps the last value of a repeated header",
    "test_custom_metadata[public-x-several-values3]": "nats-py keeps the last value of a repeated header",
    "test_custom_metadata[public-x-blanks-values5]": "nats-py keeps the last value, and strips blanks around it",
    "test_custom_metadata[public-x-colon-values6]": "nats-py keeps the last value of a repeated header",
    "test_interceptors_may_answer_themselves[public]": "nats-py keeps the last value of a repeated header",
}


async def connect_publicly(options: ConnectOptions) -> Transport:
    """Connect as where nats-py's inside is not the expected one: by its public API."""
    transport = PublicTransport(options)
    await transport.open()
    return transport


class Bus:
    """A bus with services and callers on it, in a namespace of its own. ``mesh`` calls as ``web``."""

    mesh: Mesh

    def __init__(self, settings: Settings, connector: Connector, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.connector = connector
        self.instances: list[Instance] = []
        self.callers: list[Mesh] = []
        self._stack = stack

    @property
    def url(self) -> str:
        """Where the server is."""
        return self.settings.servers[0]

    @property
    def namespace(self) -> str:
        """The namespace of this test."""
        return self.settings.namespace

    async def serve(self, service: Service, **options: Any) -> Instance:
        """Start an instance of ``service``; it ends with the test. ``mode`` and ``namespace`` replace settings."""
        settings = self._settings(options)
        instance = Instance(service, settings=settings, connector=self.connector, **options)
        await self._stack.enter_async_context(instance)
        self.instances.append(instance)
        return instance

    async def caller(self, name: str, **options: Any) -> Mesh:
        """Connect one more caller; it ends with the test. ``mode`` and ``namespace`` replace settings."""
        settings = self._settings(options)
        options.setdefault("rng", random.Random(f"{name} {len(self.callers)}"))  # the same shares every time
        mesh = Mesh(name, settings=settings, connector=self.connector, **options)
        await self._stack.enter_async_context(mesh)
        self.callers.append(mesh)
        return mesh

    def _settings(self, options: dict[str, Any]) -> Settings:
        changed = {key: options.pop(key) for key in ("mode", "namespace", "access_log") if key in options}
        return msgspec.structs.replace(self.settings, **changed)

    def leftovers(self) -> dict[str, int]:
        """Whatever calls that are over have left behind: tables, slots and tasks, those of them that are not empty."""
        found: dict[str, int] = {}
        for mesh in self.callers:
            found[f"{mesh.name} waits for replies"] = mesh.client.mux.pending
            found[f"{mesh.name} background tasks"] = len(mesh.client._background)
        for instance in self.instances:
            dispatcher = instance.dispatcher
            name = f"{instance.service.name} {instance.id}"
            found[f"{name} waits for replies"] = instance.client.mux.pending
            found[f"{name} runs"] = dispatcher.in_flight
            found[f"{name} remembers"] = len(dispatcher.waiting.by_reply) + len(dispatcher.waiting.calls)
            for endpoint, served in dispatcher.served.items():
                found[f"{name} slots of {endpoint}"] = served.concurrency.in_flight
        return {what: count for what, count in found.items() if count}

    async def at_rest(self) -> None:
        """Return when nothing is left of any call; fails with what still is."""
        await eventually(lambda: not self.leftovers(), self.leftovers)


def policies(folder: Path, *documents: str) -> Path:
    """A folder with these policies, in one file that is replaced at once; the folder itself."""
    found = folder / "policies"
    found.mkdir(exist_ok=True)
    new = folder / "new.yaml"
    new.write_text("\n---\n".join(documents), encoding="utf-8")
    new.replace(found / "policies.yaml")
    return found


async def flushed(client: Client) -> None:
    """Return when the server has all that nats-py's client was given: its PING overtakes what waits to be written, so
    that only the second one comes behind it."""
    await client.flush()
    await client.flush()


async def eventually(condition: Callable[[], object], explain: Callable[[], object] = lambda: "") -> None:
    """Return when ``condition`` holds, which some other task or process brings about."""
    give_up = anyio.current_time() + PATIENCE_S
    while not condition():
        assert anyio.current_time() < give_up, f"it never came true: {explain()}"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def open_bus(
    request: pytest.FixtureRequest, transport: str, namespace: str, *, mode: str = "open"
) -> AsyncIterator[Bus]:
    """A bus on ``transport`` (a key of :data:`TRANSPORTS`) with one caller on it."""
    url, connector = TRANSPORTS[transport](request)
    settings = Settings(servers=(url,), namespace=namespace, mode=mode)
    async with AsyncExitStack() as stack:
        bus = Bus(settings, connector, stack)
        bus.mesh = await bus.caller("web")
        yield bus
