"""A mesh on a real server, and a peer in JavaScript beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.harness import PATIENCE_S, Bus, open_bus
from tests.tools import require_npm_packages, require_tool

HERE = Path(__file__).resolve().parent / "js"


class JsPeer:
    """A node process with @nats-io/services; :meth:`ask` sends it one command of ``js/peer.mjs``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: str, **options: Any) -> Any:
        """The result of one command; what it throws is an AssertionError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **options}).encode() + b"\n")
        with anyio.fail_after(PATIENCE_S):
            line = await self._process.stdout.readline()
        assert line, "the peer ended"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer["result"]


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server, in a namespace of its own."""
    async with open_bus(request, "nats", mesh_namespace) as bus:
        yield bus
        await bus.at_rest()


@pytest.fixture
async def js(bus: Bus) -> AsyncIterator[JsPeer]:
    """A JavaScript peer on the same server; skipped where node or its packages are missing."""
    require_npm_packages(HERE)
    process = await asyncio.create_subprocess_exec(
        require_tool("node"),
        str(HERE / "peer.mjs"),
        bus.url,
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield JsPeer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with anyio.move_on_after(PATIENCE_S, shield=True):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
