"""``gen``: files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nats_mesh_cli.help import Command, Group
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Files"

Folder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The folder to write to; it is made where it is missing."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that say something else.")]


def _grafana(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One dashboard: mesh, service, instance or resilience."),
    ] = None,
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Make dashboards for Grafana, and the provisioning that finds them and Prometheus."""
    from nats_mesh_cli.gen.command import gen_grafana

    gen_grafana(options_of(ctx), out_of(ctx), name, folder, force=force)


def _alerts(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Files or folders of policies; those on the bus without any."
        ),
    ] = None,
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Make rules for Prometheus: burn-rate alerts for what Telemetry policies promise, and the mesh's own.

    Without --out they go to stdout.
    """
    from nats_mesh_cli.gen.command import gen_alerts

    gen_alerts(options_of(ctx), out_of(ctx), paths or [], folder, force=force)


def _compose(
    ctx: typer.Context,
    folder: Folder = None,
    context: Annotated[
        str,
        typer.Option(
            "--context",
            metavar="DIR",
            help="The checkout of nats-mesh that the services' image is built from, as seen from --out.",
        ),
    ] = "..",
    force: Force = False,
) -> None:
    """Make a stack for docker compose: a NATS cluster, Bookinfo under load, Prometheus, Grafana and Jaeger."""
    from nats_mesh_cli.gen.command import gen_compose

    gen_compose(options_of(ctx), out_of(ctx), folder, context, force=force)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        cls=Group,
        help="Make files that other tools read.",
        epilog="Example: nats-mesh gen alerts policies/ --out prometheus",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command, example in (
        ("grafana", _grafana, "gen grafana --out grafana"),
        ("alerts", _alerts, "gen alerts policies/ --out prometheus"),
        ("compose", _compose, "gen compose --out compose"),
    ):
        group.command(name, cls=Command, epilog=f"Example: nats-mesh {example}")(command)
    app.add_typer(group, name="gen", rich_help_panel=PANEL)
