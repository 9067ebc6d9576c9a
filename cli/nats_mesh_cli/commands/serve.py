"""``up``, ``run`` and ``demo``: something to talk to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import PoliciesOption, options_of, out_of

__all__ = ["register"]

PANEL = "Serve"


def _up(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65_535, help="The port for clients; 0 takes a free one.")
    ] = 4222,
    cluster: Annotated[
        int | None, typer.Option("--cluster", min=2, max=9, help="So many servers, on ports from --port on.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Keep JetStream's data here; without it, data goes with the server.",
        ),
    ] = None,
) -> None:
    """Run a nats-server with JetStream for development, until Ctrl-C or SIGTERM."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.up import up

    run_async(up(options_of(ctx), out_of(ctx), port=port, cluster=cluster, store=store))


def _run(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MOD:APP…", help="A module and the Service (or list of Services) in it."),
    ],
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="So many processes, each an instance.")
    ] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a .py file changes: all workers at once.")
    ] = False,
    app_dir: Annotated[
        Path, typer.Option("--app-dir", metavar="DIR", help="Where to look for the module.")
    ] = Path(),
    policies: PoliciesOption = None,
) -> None:
    """Run services until Ctrl-C or SIGTERM, then drain: finish what is held, take nothing new."""
    from nats_mesh_cli.run import run

    raise typer.Exit(
        run(options_of(ctx, policies), out_of(ctx), targets, workers=workers, reload=reload, app_dir=app_dir)
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        "up", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh up --cluster 3 --store ./data"
    )(_up)
    app.command(
        "run",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh run shop.app:orders --workers 2 --reload",
    )(_run)
