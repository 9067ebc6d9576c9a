"""A whole mesh inside one process: services under test, callers, scripted faults, no broker."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from nats_mesh.errors import ConfigError
from nats_mesh.mesh import Mesh
from nats_mesh.model import Reply
from nats_mesh.service import Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.virtual import LoopClock
from nats_mesh.wire.memory import Fault, MemoryBus

__all__ = ["MemoryMesh"]


class MemoryMesh:
    """``async with MemoryMesh(orders) as mesh: await mesh.call("orders.place", order)``.

    Services start with the mesh, in order; :meth:`serve` adds more. Calls are made as ``caller``. Time is
    the event loop's: real, or virtual under :func:`nats_mesh.testing.run_virtual`. Chance is seeded.
    ``bus.fault`` scripts delays and losses, :meth:`cut` and :meth:`mend` connections.
    """

    def __init__(
        self,
        *services: Service,
        caller: str = "test",
        namespace: str = "default",
        mode: str = "open",
        seed: int = 0,
        fault: Fault | None = None,
    ) -> None:
        self.settings = Settings(servers=("nats://memory",), namespace=namespace, mode=mode)
        self.bus = MemoryBus(rng=random.Random(seed))
        self.bus.fault = fault
        self.instances: list[Instance] = []
        self._services = services
        self._caller = caller
        self._seed = seed
        self._stack = AsyncExitStack()
        self._mesh: Mesh | None = None

    async def __aenter__(self) -> Self:
        try:
            for service in self._services:
                await self.serve(service)
            self._mesh = await self._stack.enter_async_context(self.client(self._caller))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh = None
        await self._stack.aclose()

    async def serve(self, service: Service) -> Instance:
        """Start one more instance of ``service``; it ends with the mesh."""
        instance = Instance(
            service,
            settings=self.settings,
            connector=self.bus.connect,
            clock=LoopClock(),
            rng=self._rng(),
        )
        await self._stack.enter_async_context(instance)
        self.instances.append(instance)
        return instance

    def client(self, name: str, **options: Any) -> Mesh:
        """Another caller on the same bus, to be entered with ``async with``."""
        return Mesh(
            name,
            settings=self.settings,
            connector=self.bus.connect,
            clock=LoopClock(),
            rng=self._rng(),
            **options,
        )

    def _rng(self) -> random.Random:
        self._seed += 1
        return random.Random(self._seed)

    @property
    def mesh(self) -> Mesh:
        """The caller that :meth:`call` and :meth:`request` use."""
        if self._mesh is None:
            raise ConfigError("this MemoryMesh is not open; use 'async with MemoryMesh(…) as mesh:'")
        return self._mesh

    async def call(self, target: Any, value: Any = None, **options: Any) -> Any:
        """As :meth:`nats_mesh.Mesh.call`."""
        return await self.mesh.call(target, value, **options)

    async def request(self, target: Any, value: Any = None, **options: Any) -> Reply[Any]:
        """As :meth:`nats_mesh.Mesh.request`."""
        return await self.mesh.request(target, value, **options)

    def cut(self, name: str) -> None:
        """Lose every connection of the member called ``name``."""
        for client in list(self.bus.clients):
            if client.name == name:
                client.cut()

    def mend(self, name: str) -> None:
        """Bring the connections of ``name`` back."""
        for client in self.bus.clients:
            if client.name == name:
                client.mend()

    def __repr__(self) -> str:
        return f"<MemoryMesh {len(self.instances)} instances>"
