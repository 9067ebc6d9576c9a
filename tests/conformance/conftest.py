"""The bus every case runs on: each transport in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness import TRANSPORTS, Bus, open_bus


@pytest.fixture(params=sorted(TRANSPORTS))
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus in a namespace of its own, on each transport; at the end of a test nothing may be left of its calls."""
    async with open_bus(request, request.param, mesh_namespace) as bus:
        yield bus
        await bus.at_rest()
