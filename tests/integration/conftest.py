"""What the tests of calls and of bad input stand on: a mesh on a real server, and raw connections beside it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

from nats_mesh import RemoteError
from tests.harness import Bus, open_bus
from tests.rawnats import RawNats, raw_nats


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server; whatever a test did, its connections still work and nothing is left of its calls."""
    with anyio.fail_after(60):
        async with open_bus(request, "nats", mesh_namespace) as bus:
            yield bus
            await bus.at_rest()
            transports = [mesh.client.transport for mesh in bus.callers] + [
                i.transport for i in bus.instances
            ]
            for transport in transports:
                await transport.fence()
                assert transport.stats.reconnects == 0
                assert transport.stats.dropped_handler_errors == 0
            for instance in bus.instances:
                with contextlib.suppress(RemoteError):
                    assert await bus.mesh.call(f"{instance.service.name}.still_there", returns=bool)


@pytest.fixture
async def raw(bus: Bus) -> AsyncIterator[RawNats]:
    """A client that sends whatever it is told to."""
    async with raw_nats(bus.url) as raw:
        yield raw


@pytest.fixture
async def tap(bus: Bus) -> AsyncIterator[RawNats]:
    """Everything that passes on the server."""
    async with raw_nats(bus.url, ">") as tap:
        yield tap
