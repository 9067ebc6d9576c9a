"""The mesh without ``async``: scripts, notebooks, threads."""

from __future__ import annotations

import threading

import anyio
import anyio.from_thread
import pytest

from nats_mesh import ConfigError, Mesh, NoInstancesError, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer


def test_a_script_calls_from_several_threads(nats_server: NatsServer, mesh_namespace: str) -> None:
    """Calls without await return values and raise the same errors, from whichever thread they come."""
    service = Service("sums", version="1.0.0")

    @service.endpoint()
    async def double(n: int) -> int:
        return n * 2

    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    with anyio.from_thread.start_blocking_portal() as portal:
        instance = Instance(service, settings=settings)
        with (
            portal.wrap_async_context_manager(instance),
            Mesh("script", settings=settings).blocking() as mesh,
        ):
            results: list[int] = []
            threads = [
                threading.Thread(target=lambda n=n: results.append(mesh.call("sums.double", n, returns=int)))
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(results) == [2 * n for n in range(8)]
            with pytest.raises(NoInstancesError):
                mesh.call("nobody.home")


def test_a_blocking_mesh_that_is_not_open_says_so() -> None:
    """Calling before entering is a mistake with a remedy in its message."""
    with pytest.raises(ConfigError, match="not open"):
        Mesh("script", settings=Settings()).blocking().call("sums.double", 1)
