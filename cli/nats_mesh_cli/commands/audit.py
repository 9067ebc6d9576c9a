"""``audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]


def _audit(
    ctx: typer.Context,
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="Of this alone: KIND/NAME, a service, an instance, a change's id, a record's number.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From then on: a TIME as it is shown, or -1h.")
    ] = "-1h",
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="policy, config, presence, rollout or tap alone."),
    ] = None,
    signs: Annotated[
        bool, typer.Option("--signs", help="The instances' regular signs of life, too.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show what comes.")] = False,
    make: Annotated[bool, typer.Option("--make", help="Make the stream first, where there is none.")] = False,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Show who changed what, when and why, and which instances came and went."""
    from nats_mesh_cli.audit import audit
    from nats_mesh_cli.bus import run_async

    code = run_async(
        audit(
            options_of(ctx),
            out_of(ctx),
            about=about,
            since=since,
            kind=kind,
            signs=signs,
            follow=follow,
            make=make,
            name=name,
        )
    )
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "audit",
        cls=Command,
        rich_help_panel="Look",
        epilog="Example: nats-mesh audit --since -1h --kind policy -o jsonl",
    )(_audit)
