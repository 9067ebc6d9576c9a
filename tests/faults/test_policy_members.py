"""Members that are there and do not answer while policies change: nobody says that all have acknowledged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from nats_mesh.testing.server import NatsServer
from tests.cli.program import PROGRAM, environment
from tests.faults.workers import WorkerFactory

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {{name: work}}
spec: {{target: {{service: work}}, timeout: {timeout}}}
"""
SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: work}
spec: {target: {service: work}, subsets: {new: {version: "1.0.0"}}}
---
apiVersion: mesh/v1
kind: Route
metadata: {name: work}
spec: {target: {service: work}, rules: [{split: [{subset: new}]}]}
"""


class Operator:
    """Runs commands against one namespace."""

    def __init__(self, server: NatsServer, namespace: str, folder: Path) -> None:
        self._env = environment({"NATS_URL": server.url, "MESH_NAMESPACE": namespace})
        self._path = folder / "policy.yaml"

    async def run(self, *line: str) -> tuple[int, str]:
        """The exit code of ``nats-mesh policy LINE``, and all that it said."""
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [PROGRAM, "policy", *line], env=self._env, capture_output=True, text=True, check=False
            )
        )
        return done.returncode, done.stdout + done.stderr

    async def apply(self, text: str, *line: str) -> tuple[int, str]:
        """Apply a file, and wait."""
        self._path.write_text(text)
        return await self.run("apply", str(self._path), "--wait", *line)


async def test_a_frozen_instance_is_named_and_no_success_is_said(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory, tmp_path: Path
) -> None:
    """Stopped by a signal it answers no roll call, and counts all the same: `--wait` names it and fails within its
    timeout, `status` lists it, no step is stored that builds upon what it has not acknowledged, and it can be left out.
    Once it goes on, the same command says success."""
    operator = Operator(nats_server, mesh_namespace, tmp_path)
    code, said = await operator.apply(POLICY.format(timeout="9s"))  # makes the store, and the audit beside it
    assert code == 0, said
    well = worker_factory(nats_server.url, mesh_namespace)
    frozen = worker_factory(nats_server.url, mesh_namespace)
    code, said = await operator.apply(POLICY.format(timeout="8s"))
    assert (code, "acknowledged by 2 of 2 members" in said) == (0, True), said

    frozen.freeze()
    code, said = await operator.apply(POLICY.format(timeout="7s"), "--timeout", "2s")
    assert code == 1, said
    assert (
        f"(service {frozen.id}): does not answer; its last sign in the audit (it gives one a minute) is "
        in said
    )
    assert "acknowledged by 1 of 1 member that answers" in said
    assert well.id not in said
    code, said = await operator.run("status", "-o", "wide")
    assert code == 1, said
    (line,) = [line for line in said.splitlines() if frozen.id in line]
    assert "STALE" in line
    assert "does not answer" in line

    code, said = await operator.apply(SUBSETS, "--timeout", "2s")
    assert code == 1, said
    assert "what builds upon it was not stored" in said
    assert f"--without {frozen.id}" in said
    code, said = await operator.run("get", "Route")
    assert "Route/work" not in said
    code, said = await operator.apply(SUBSETS, "--without", frozen.id)
    assert (code, "not waited for: work/" in said) == (0, True), said

    code, said = await operator.apply(
        SUBSETS, "--timeout", "2s"
    )  # nothing changes, and it is not in effect there
    assert (code, frozen.id in said) == (1, True), said
    frozen.thaw()
    code, said = await operator.apply(SUBSETS)
    assert (code, "acknowledged by 2 of 2 members" in said) == (0, True), said


async def test_an_instance_that_was_killed_is_not_waited_for(
    nats_server: NatsServer, mesh_namespace: str, worker_factory: WorkerFactory, tmp_path: Path
) -> None:
    """It said no goodbye and presence still shows it; the server knows that its connection has ended."""
    operator = Operator(nats_server, mesh_namespace, tmp_path)
    code, said = await operator.apply(POLICY.format(timeout="9s"))
    assert code == 0, said
    worker_factory(nats_server.url, mesh_namespace)
    killed = worker_factory(nats_server.url, mesh_namespace)
    killed.kill()
    code, said = await operator.apply(POLICY.format(timeout="8s"))
    assert (code, "acknowledged by 1 of 1 member " in said) == (0, True), said
    assert killed.id not in said
