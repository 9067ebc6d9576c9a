"""Policies change under load, and operators' commands die in the middle of it: no call is lost."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from nats_mesh import Context, Mesh, Service
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing.server import NatsServer
from tests.cli.program import PROGRAM, environment
from tests.faults.load import steady
from tests.faults.results import Figure, write_results
from tests.tools import scaled

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

Record = Callable[[str, object], None]

PER_S = 200.0
CHANGES = scaled(4, 40)
#: How long an operator's command may go on before it is killed (seconds): from before it has stored anything to the
#: pause between its last two steps.
KILLED_AFTER_S = (0.6, 3.0)


def policies(number: int) -> str:
    """Subsets that have other names than those of the change before, and a route that leads to them."""
    one, two = f"one-{number}", f"two-{number}"
    return f"""
apiVersion: mesh/v1
kind: Destination
metadata: {{name: work}}
spec:
  target: {{service: work}}
  subsets:
    {one}: {{labels: {{version: v1}}}}
    {two}: {{labels: {{version: v2}}}}
---
apiVersion: mesh/v1
kind: Route
metadata: {{name: work}}
spec:
  target: {{service: work}}
  rules:
    - split: [{{subset: {one}, weight: {10 + number}}}, {{subset: {two}, weight: 90}}]
"""


def service(version: str) -> Service:
    """One of two versions."""
    made = Service("work", version="1.0.0", labels={"version": version})

    @made.endpoint()
    async def do(name: str, ctx: Context) -> str:
        await anyio.sleep(0.02)
        return version

    return made


async def test_changes_of_policies_under_load_lose_no_call(
    nats_server: NatsServer, mesh_namespace: str, tmp_path: Path, record_property: Record
) -> None:
    """Subsets are renamed again and again while calls come in steadily; half of the commands are killed at some moment.
    Not one call fails, and in the end everybody has acknowledged what the last command stored.

    Reduced count: 4 changes; with full counts 40.
    """
    rng = random.Random(7)
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
    env = environment({"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace})
    killed = 0

    def apply(number: int, kill_after_s: float | None) -> int:
        path = tmp_path / f"{number}.yaml"
        path.write_text(policies(number))
        command = [PROGRAM, "policy", "apply", str(path), "--wait", "--timeout", "20s"]
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            out, _ = process.communicate(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return -9
        assert process.returncode == 0, out
        return 0

    async with contextlib.AsyncExitStack() as stack:
        for version in ("v1", "v1", "v2", "v2"):
            await stack.enter_async_context(Instance(service(version), settings=settings))
        mesh = await stack.enter_async_context(Mesh("web", settings=settings))

        async def call(name: str) -> None:
            await mesh.call("work.do", name, timeout=10.0)

        async with steady(call, PER_S) as load:
            for number in range(CHANGES):
                kill_after_s = rng.uniform(*KILLED_AFTER_S) if number % 2 else None
                if await anyio.to_thread.run_sync(apply, number, kill_after_s):
                    killed += 1
            await anyio.to_thread.run_sync(apply, CHANGES, None)
            rate = load.rate()
        assert rate >= 0.9 * PER_S, f"void: {rate:.0f} calls/s"
        assert load.failed == {}
        assert killed
        known = mesh.client._targets["work.do"]
        assert known.routing is not None
        await mesh.call("work.do", "last")
        names = {each.subset for each in known.routing.targets()}
        assert names <= {f"one-{CHANGES}", f"two-{CHANGES}"}
        figures: dict[str, Figure] = {
            "changes": CHANGES + 1,
            "commands_killed": killed,
            "calls": len(load.sent),
            "failed": len(load.failed),
            "longest_call_ms": round(1e3 * max(load.ended[name] - at for name, at in load.sent.items()), 1),
        }
        record_property("figures", figures)
        write_results("policy_changes", figures)
