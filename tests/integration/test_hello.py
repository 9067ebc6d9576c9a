"""The smallest example: short, runnable by one command, and right."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import anyio.to_thread
import pytest

from examples.hello.app import hello
from nats_mesh import Mesh, NoInstancesError
from nats_mesh.settings import Settings
from nats_mesh.testing import MemoryMesh, NatsServer
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

APP = ROOT / "examples" / "hello" / "app.py"


async def test_hello_greets() -> None:
    """It greets whom it is told to, and the world where it is told nothing."""
    async with MemoryMesh(hello) as mesh:
        assert await mesh.call("hello.greet", "Ada") == "Hello, Ada!"
        assert await mesh.call("hello.greet") == "Hello, world!"


def test_hello_is_short() -> None:
    """A first service takes less than 20 lines."""
    assert len(APP.read_text(encoding="utf-8").splitlines()) < 20


async def test_hello_runs_with_one_command(nats_server: NatsServer, mesh_namespace: str) -> None:
    """`python examples/hello/app.py` serves until SIGTERM."""
    environ = {**os.environ, "NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace}
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    with subprocess.Popen([sys.executable, APP], env=environ, stderr=subprocess.DEVNULL) as child:
        try:
            async with Mesh("test", settings=settings) as mesh:
                with anyio.fail_after(60):
                    answer = None
                    while answer is None:
                        assert child.poll() is None
                        try:
                            answer = await mesh.call("hello.greet", "Ada", returns=str)
                        except NoInstancesError:
                            await anyio.sleep(0.02)
            assert answer == "Hello, Ada!"
            child.terminate()
            assert await anyio.to_thread.run_sync(child.wait, 20) == 0
        finally:
            child.kill()
