"""``slow``."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]


def _slow(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[SERVICE[.ENDPOINT]]", help="Calls that this service, or endpoint, answered."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="From then on: a TIME as it is shown, or -10m; all kept ones without it.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=10_000, help="So many, the worst.")] = 20,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="WHAT", help="What is worst: time, or excess over the endpoint's own p99."
        ),
    ] = "time",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show each as it comes.")] = False,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Show the slow calls that instances keep, the worst first, and where their time went.

    From when on a call is slow, a Telemetry policy says.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.slow import slow

    run_async(
        slow(options_of(ctx), out_of(ctx), target, since=since, top=top, by=by, follow=follow, name=name)
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "slow",
        cls=Command,
        rich_help_panel="Look",
        epilog="Example: nats-mesh slow reviews --since -10m --by excess",
    )(_slow)
