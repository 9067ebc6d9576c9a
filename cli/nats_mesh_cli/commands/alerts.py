"""``alerts``: how what is promised stands."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import PoliciesOption, options_of, out_of

__all__ = ["register"]

PANEL = "Look"


def _alerts(
    ctx: typer.Context,
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="What is promised of this service alone.")
    ] = None,
    watching: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Watch until Ctrl-C and show every change; one of all who do tells events."
        ),
    ] = False,
    policies: PoliciesOption = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The observer to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Show how fast the budgets of what Telemetry policies promise are used, as whoever watches knows it.

    A level is reached where a long and a short window burn too fast: page 14.4 times over 1h and 5m or 6 times over 6h
    and 30m, ticket 3 times over 1d and 2h or once over 3d and 6h. Exit code 1: something fires, or nobody watches.
    """
    from nats_mesh_cli import alerts
    from nats_mesh_cli.bus import run_async

    options, out = options_of(ctx, policies), out_of(ctx)
    if watching:
        if service is not None:
            raise CliError("--watch watches everything that is promised", hint="leave the service out")
        raise typer.Exit(run_async(alerts.watch(options, out, name=name)))
    raise typer.Exit(run_async(alerts.alerts(options, out, service=service, name=name)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "alerts", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh alerts --watch -o jsonl"
    )(_alerts)
