"""``stat`` and ``edges``: how calls go, without a monitoring system."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import duration, options_of, out_of

__all__ = ["register"]

PANEL = "Look"

_Services = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVICE]...", help="These services alone; all without it.")
]
_Window = Annotated[
    float | None,
    typer.Option(
        "--window", parser=duration, metavar="TIME", help="How long to look: 3s once, 10s with --watch."
    ),
]
_Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on, once a second.")]


class By(enum.StrEnum):
    """What makes a row of ``stat``."""

    SERVICE = "service"
    ENDPOINT = "endpoint"
    VERSION = "version"


class EdgeBy(enum.StrEnum):
    """What makes a row of ``edges``."""

    SERVICE = "service"
    ENDPOINT = "endpoint"


def _stat(
    ctx: typer.Context,
    services: _Services = None,
    by: Annotated[By, typer.Option("--by", help="What makes a row.")] = By.SERVICE,
    window: _Window = None,
    watch: _Watch = False,
) -> None:
    """Rate, success and durations of services: calls as callers made them (RPS), and the attempts these took (ACTUAL).

    -o wide adds why the mesh itself ended calls (as Envoy's flags), and what is left of the concurrency limits.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.stat import stat

    run_async(stat(options_of(ctx), out_of(ctx), services or [], by=by.value, window_s=window, watch=watch))


def _edges(
    ctx: typer.Context,
    services: _Services = None,
    by: Annotated[EdgeBy, typer.Option("--by", help="What makes a row.")] = EdgeBy.SERVICE,
    window: _Window = None,
    watch: _Watch = False,
) -> None:
    """Who calls whom, how often, and how that goes: as callers see it, or where they tell nothing, the instances."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.stat import edges

    run_async(edges(options_of(ctx), out_of(ctx), services or [], by=by.value, window_s=window, watch=watch))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        "stat",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh stat orders --by endpoint -o wide",
    )(_stat)
    app.command("edges", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh edges --watch")(
        _edges
    )
