"""The pytest fixtures of nats-mesh, there wherever it is installed.

``nats_server``: one nats-server with JetStream for the whole run (one per pytest-xdist worker). Tests
share it and keep apart by ``mesh_namespace``; they must not stop, kill or freeze it.
``nats_server_factory``: servers of one's own, to configure and to break.
``nats_cluster``: three clustered servers of one's own. ``mesh_namespace``: a name no other test has.

These are plain fixtures: they serve synchronous tests, and asynchronous ones under any plugin.
``mesh`` is a whole mesh in memory, for tests that run under the anyio plugin (``@pytest.mark.anyio``).
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

# What the fixtures need is imported when one is used: this module is loaded with every pytest run
# of every project that has nats-mesh installed.
if TYPE_CHECKING:
    from nats_mesh.testing.cluster import NatsCluster
    from nats_mesh.testing.memory import MemoryMesh
    from nats_mesh.testing.server import NatsServer

__all__ = ["NatsServerFactory"]

_NAMESPACE_LENGTH = 63


class NatsServerFactory(Protocol):
    """Starts one more server, which ends with the test; takes the options of ``NatsServer``."""

    def __call__(self, **options: Any) -> NatsServer:
        """A running server."""


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A running nats-server with JetStream, shared by all tests of this process."""
    from nats_mesh.testing.server import NatsServer

    with NatsServer() as server:
        yield server


@pytest.fixture
def nats_server_factory() -> Iterator[NatsServerFactory]:
    """``nats_server_factory(config=…, …)`` starts a server that ends with the test."""
    from nats_mesh.testing.server import NatsServer

    with contextlib.ExitStack() as servers:

        def start(**options: Any) -> NatsServer:
            return servers.enter_context(NatsServer(**options))

        yield start


@pytest.fixture
def nats_cluster() -> Iterator[NatsCluster]:
    """Three clustered servers with a JetStream leader, for this test alone."""
    from nats_mesh.testing.cluster import NatsCluster

    with NatsCluster() as cluster:
        yield cluster


@pytest.fixture
async def mesh(anyio_backend: object) -> AsyncIterator[MemoryMesh]:
    """A :class:`~nats_mesh.testing.MemoryMesh`: ``await mesh.serve(orders)``, then ``await mesh.call(…)``."""
    from nats_mesh.testing.memory import MemoryMesh

    async with MemoryMesh() as memory:
        yield memory


@pytest.fixture
def mesh_namespace(request: pytest.FixtureRequest) -> str:
    """A namespace that no other test uses; it starts with the name of this one."""
    unique = f"-{secrets.token_hex(6)}"
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)
    return readable[: _NAMESPACE_LENGTH - len(unique)] + unique
