"""``policy diff``: two sets of policies side by side, and what recorded calls would meet."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["add_to"]


def _diff(
    ctx: typer.Context,
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A folder, a file, or live: what is in the store.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same; what would be in its place.")],
    recording: Annotated[
        str | None,
        typer.Option(
            "--replay", metavar="FILE", help="Try both on the calls of a recording (nats-mesh record)."
        ),
    ] = None,
) -> None:
    """Show which policies differ; with --replay which recorded calls would be routed, let in, limited or failed
    differently. Exit code 0 where nothing differs, 1 where something does, 2 and more for errors."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_diff import diff

    raise typer.Exit(run_async(diff(options_of(ctx), out_of(ctx), old, new, recording)))


def add_to(group: typer.Typer) -> None:
    """Add the command to ``policy``."""
    group.command(
        "diff", cls=Command, epilog="Example: nats-mesh policy diff live policies/ --replay calls.jsonl"
    )(_diff)
