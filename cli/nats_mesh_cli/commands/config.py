"""``config``: the configuration of services."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command, Group
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Policies"

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="Whose configuration.")]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="Why; the history keeps it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check it, and store nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until every instance has it, or say which has not.")]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="Store it though no instance says that it fits.")
]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The operator to be; nats-mesh without it.")
]


def _set(
    ctx: typer.Context,
    service: Service,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE...|JSON|FILE",
            help="Single values, or all of it: a JSON object, a file, - for stdin.",
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--file", metavar="FILE", help="All of it from a file of YAML or JSON, - for stdin."
        ),
    ] = None,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    unchecked: Unchecked = False,
    name: As = None,
) -> None:
    """Store the configuration of a service, once every running instance has said that it fits."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import Setting, set_value

    setting = Setting(name=name, message=message, dry_run=dry_run, wait=wait, unchecked=unchecked)
    raise typer.Exit(
        run_async(set_value(options_of(ctx), out_of(ctx), service, given or [], files or [], setting))
    )


def _get(ctx: typer.Context, service: Service) -> None:
    """Show the configuration of a service as it stands in the store."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import get

    raise typer.Exit(run_async(get(options_of(ctx), out_of(ctx), service)))


def _delete(
    ctx: typer.Context,
    service: Service,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    name: As = None,
) -> None:
    """Delete the configuration of a service: the defaults that it declares hold then."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import Setting, delete

    setting = Setting(name=name, message=message, dry_run=dry_run, wait=wait)
    raise typer.Exit(run_async(delete(options_of(ctx), out_of(ctx), service, setting)))


def _history(ctx: typer.Context, service: Service) -> None:
    """Show who changed the configuration, when and why; the newest first."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import history

    raise typer.Exit(run_async(history(options_of(ctx), out_of(ctx), service)))


def _undo(
    ctx: typer.Context,
    service: Service,
    revision: Annotated[
        str | None,
        typer.Option("--to-revision", metavar="N", help="What it was then, or after a change's id."),
    ] = None,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    unchecked: Unchecked = False,
    name: As = None,
) -> None:
    """Undo the last change that is not undone yet, or put back a revision; byte for byte.

    Said again it goes one change further back; what an undo took away comes back with --to-revision.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import Setting, undo

    setting = Setting(name=name, message=message, dry_run=dry_run, wait=wait, unchecked=unchecked)
    raise typer.Exit(run_async(undo(options_of(ctx), out_of(ctx), service, revision, setting)))


def _status(ctx: typer.Context, service: Service) -> None:
    """Show which instances have which revision; exit code 1 where one is behind or refuses it."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.config import status

    raise typer.Exit(run_async(status(options_of(ctx), out_of(ctx), service)))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        cls=Group,
        help="Configure services: typed values on the bus, pushed to their instances.",
        epilog="Example: nats-mesh config set orders rows=50 --wait",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(
        "set", cls=Command, epilog="Example: nats-mesh config set orders orders.yaml -m 'more rows'"
    )(_set)
    group.command("get", cls=Command, epilog="Example: nats-mesh config get orders -o json")(_get)
    group.command("delete", cls=Command, epilog="Example: nats-mesh config delete orders")(_delete)
    group.command("history", cls=Command, epilog="Example: nats-mesh config history orders")(_history)
    group.command("undo", cls=Command, epilog="Example: nats-mesh config undo orders --wait")(_undo)
    group.command("status", cls=Command, epilog="Example: nats-mesh config status orders")(_status)
    app.add_typer(group, name="config", rich_help_panel=PANEL)
