"""``run``: services in this process, or in several that are kept running."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from nats_mesh.policy import load_folder
from nats_mesh_cli.bus import run_async
from nats_mesh_cli.errors import OK, CliError
from nats_mesh_cli.loader import split_target
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.supervisor import Supervisor
from nats_mesh_cli.worker import Order, serve_here

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

    def command(number: int, ready_fd: int) -> list[str]:
        order = Order(
            targets=tuple(targets),
            app_dir=str(app_dir.absolute()),
            options=options,
            ready_fd=ready_fd,
            label=f"worker {number}: " if workers > 1 else "",
        )
        return [sys.executable, "-m", "nats_mesh_cli.worker", msgspec.json.encode(order).decode()]

    watched = app_dir.absolute() if reload else None
    policies = None if settings.policies is None else Path(settings.policies)
    return run_async(Supervisor(command, workers, out.note, watched=watched, policies=policies).run())
