"""The guide and the README show code that runs."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh, NatsServer

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def guide() -> Iterator[dict[str, Any]]:
    """All blocks of the guide, run in order as one module."""
    module = types.ModuleType("guide_under_test")
    sys.modules[module.__name__] = module  # annotations are resolved through it
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide.md").read_text(), re.S | re.M):
        exec(compile(block, "docs/guide.md", "exec"), module.__dict__)
    yield module.__dict__
    del sys.modules[module.__name__]


async def test_the_guide_runs(
    guide: dict[str, Any], nats_server: NatsServer, mesh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guide calls answers as the guide says, on a real server with its settings from the environment."""
    monkeypatch.setenv("NATS_URL", nats_server.url)
    monkeypatch.setenv("MESH_NAMESPACE", mesh_namespace)
    async with Instance(guide["orders"], settings=Settings.resolve()):
        await guide["shop"]()
        await guide["careful"]()
        await guide["count_everywhere"]()
        await guide["pay"]()


async def test_the_guides_own_test_passes(guide: dict[str, Any], mesh: MemoryMesh) -> None:
    """The five lines that show how to test a service are a test that passes."""
    await guide["test_place"](mesh)


async def test_interceptor_and_lifespan_of_the_guide(guide: dict[str, Any], mesh: MemoryMesh) -> None:
    """The interceptor changes the reply, the lifespan's state reaches the handler."""
    await mesh.serve(guide["greeter"])
    await mesh.serve(guide["inventory"])
    assert await mesh.call("greeter.hello", "ann") == "HELLO ANN"
    assert [await mesh.call("inventory.reserve", "b-17") for _ in range(2)] == [2, 1]
