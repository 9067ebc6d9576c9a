"""``policy``: what is in policy files, and (in :mod:`nats_mesh_cli.commands.policy_store`) on the bus."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.commands import policy_checks, policy_diff
from nats_mesh_cli.commands.policy_store import add_to
from nats_mesh_cli.help import Command, Group
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Policies"


def _validate(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder of policy files (YAML or JSON), or one.")
    ],
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


def _schema(ctx: typer.Context) -> None:
    """The JSON Schema of policies, for editors that complete and check YAML."""
    from nats_mesh_cli.policy import schema

    schema(options_of(ctx), out_of(ctx))


def _convert(
    ctx: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Istio's YAML; a folder for all in it, - for stdin.")
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="FILE|live",
            help="Look here, too, for what the files name: other files, folders, the store; repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where anything has no meaning here.")
    ] = False,
) -> None:
    """Translate Istio's YAML into policies on stdout; what has no meaning here is named by its path on stderr."""
    from nats_mesh_cli.policy_convert import convert

    raise typer.Exit(convert(options_of(ctx), out_of(ctx), files, beside=beside or [], strict=strict))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        cls=Group,
        help="Change the policies of the mesh, see who follows them, and check files before.",
        epilog="Example: nats-mesh policy apply policies/ --wait",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("validate", cls=Command, epilog="Example: nats-mesh policy validate policies -o json")(
        _validate
    )
    group.command("explain", cls=Command, epilog="Example: nats-mesh policy explain Destination.retry")(
        _explain
    )
    group.command("schema", cls=Command, epilog="Example: nats-mesh policy schema > mesh-policy.schema.json")(
        _schema
    )
    group.command(
        "convert", cls=Command, epilog="Example: nats-mesh policy convert istio/ > policies/mesh.yaml"
    )(_convert)
    policy_checks.add_to(group)
    policy_diff.add_to(group)
    add_to(group)
    app.add_typer(group, name="policy", rich_help_panel=PANEL)
