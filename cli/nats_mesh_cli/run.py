"""``run``: services in this process, or in several that are kept running."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nats_mesh.policy import load_folder
from nats_mesh.settings import Settings
from nats_mesh_cli.bus import run_async
from nats_mesh_cli.errors import OK, CliError
from nats_mesh_cli.loader import split_target
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.supervisor import Supervisor
from nats_mesh_cli.worker import Order, serve_here

if TYPE_CHECKING:
    from nats_mesh.telemetry.workers import WorkersCollector

__all__ = ["run"]


def run(
    options: Options, out: Out, targets: Sequence[str], *, workers: int, reload: bool, app_dir: Path
) -> int:
    """Serve until told to stop; returns the exit code.

    :class:`nats_mesh.PolicyError` before the start where a file of ``--policies`` has a mistake.
    """
    for target in targets:
        split_target(target)
    if not app_dir.is_dir():
        raise CliError(f"--app-dir {app_dir}: there is no such folder")
    settings = options.settings()  # what is wrong with them is said here, once
    if options.policies is not None:
        load_folder(options.policies, namespace=settings.namespace)  # likewise, before anything starts
        # Wherever a service goes to live later, the folder stays the one that was meant.
        options = replace(options, policies=os.path.abspath(options.policies))
    if workers == 1 and not reload:
        serve_here(options, out, targets, app_dir)
        return OK

    if settings.metrics is None:
        return _supervise(options, out, targets, workers, reload, app_dir, settings)
    from nats_mesh.telemetry.http import MetricsServer
    from nats_mesh.telemetry.workers import WorkersCollector

    collector = WorkersCollector()
    server = MetricsServer(
        collector,
        *settings.metrics,
        healthy=_healthy,
        ready=partial(_ready, collector),
        hosts=settings.metrics_hosts,
    )
    out.note(f"metrics of all workers are on port {server.port}: /metrics, /healthz, /readyz")
    try:
        return _supervise(
            options, out, targets, workers, reload, app_dir, settings, collector=collector, port=server.port
        )
    finally:
        server.close()


def _healthy() -> tuple[bool, dict[str, Any]]:
    """Whoever answers runs; its workers are restarted where they do not."""
    return True, {}


def _ready(collector: WorkersCollector) -> tuple[bool, dict[str, Any]]:
    """Whether at least one worker serves: callers reach the service then."""
    workers = collector.states()
    return any(workers.values()), {"workers": workers}


def _supervise(
    options: Options,
    out: Out,
    targets: Sequence[str],
    workers: int,
    reload: bool,
    app_dir: Path,
    settings: Settings,
    *,
    collector: WorkersCollector | None = None,
    port: int = 0,
) -> int:
    def command(number: int, ready_fd: int, metrics_fd: int) -> list[str]:
        order = Order(
            targets=tuple(targets),
            app_dir=str(app_dir.absolute()),
            options=options,
            ready_fd=ready_fd,
            metrics_fd=metrics_fd,
            metrics_port=port,
            label=f"worker {number}: " if workers > 1 else "",
        )
        # Python takes compiled code for that of a file of the same size that was saved in the same second: what is
        # changed while it runs leaves none.
        flags = ["-B"] if reload else []
        return [sys.executable, *flags, "-m", "nats_mesh_cli.worker", msgspec.json.encode(order).decode()]

    watched = app_dir.absolute() if reload else None
    policies = None if settings.policies is None else Path(settings.policies)
    supervisor = Supervisor(command, workers, out.note, watched=watched, policies=policies, metrics=collector)
    return run_async(supervisor.run())
