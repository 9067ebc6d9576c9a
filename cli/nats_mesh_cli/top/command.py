"""``top`` as typed: options and help. The work is imported when it runs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import Format, options_of, out_of

__all__ = ["register"]

PANEL = "Look"


def _top(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Listen for 3s (--timeout), print what there is, and end.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The observer to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Watch the mesh live: services, edges, instances, policies, calls, events; ? in it lists the keys.

    It needs a terminal; --once prints the same to anything, -o json for scripts. Nothing is changed by looking.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.top.run import once as print_once
    from nats_mesh_cli.top.run import top

    options, out = options_of(ctx), out_of(ctx)
    if once:
        raise typer.Exit(run_async(print_once(options, out, name=name)))
    if options.format not in (Format.TABLE, Format.WIDE):
        raise CliError(
            f"top: -o {options.format} is no view", hint=f"say --once: top --once -o {options.format}"
        )
    if not out.tty or os.environ.get("TERM", "dumb") == "dumb":
        raise CliError("top needs a terminal that can be drawn on", hint="top --once prints the same once")
    raise typer.Exit(run_async(top(options, out, name=name)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh top --once -o json")(
        _top
    )
