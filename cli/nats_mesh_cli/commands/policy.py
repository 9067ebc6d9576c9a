"""``policy``: what is in policy files. What manages policies on the bus comes with their store."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command, Group
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Policies"


def _validate(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder of policy files (YAML or JSON).")],
) -> None:
    """Check every policy file of a folder: all that is wrong, with file and line; exit code 1 where anything is."""
    from nats_mesh_cli.policy import validate

    raise typer.Exit(validate(options_of(ctx), out_of(ctx), folder))


def _explain(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="KIND[.FIELD]", help="Such as Destination.breaker; the kinds without it."),
    ] = None,
) -> None:
    """Say what a kind of policy or a field of it does, how it is written, and its default."""
    from nats_mesh_cli.policy import explain

    explain(options_of(ctx), out_of(ctx), name)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        cls=Group,
        help="Check policy files, and look up what may stand in them.",
        epilog="Example: nats-mesh policy validate policies",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("validate", cls=Command, epilog="Example: nats-mesh policy validate policies -o json")(
        _validate
    )
    group.command("explain", cls=Command, epilog="Example: nats-mesh policy explain Destination.retry")(
        _explain
    )
    app.add_typer(group, name="policy", rich_help_panel=PANEL)
