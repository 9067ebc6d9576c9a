"""``policy apply``, ``delete``, ``get``, ``history``, ``undo`` and ``status``: the policies on the bus."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["add_to"]

Files = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", metavar="FILE", help="A file, a folder, or - for stdin; repeatable."),
]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="KIND[/NAME]...", help="Which policies: Route/orders, Route.")
]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="Why; the history keeps it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, and store nothing.")]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", help="Until it is in effect at everybody, at most --timeout (5s); or say where not."
    ),
]
OneByOne = Annotated[
    bool, typer.Option("--one-by-one", help="Where the server cannot store several policies as one.")
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="MEMBER",
        help="Wait for everybody but this one: its id, host-pid, or SERVICE/ID; repeatable.",
    ),
]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The operator to be; nats-mesh without it.")
]


def _apply(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Files, folders, or - for stdin.")
    ] = None,
    files: Files = None,
    message: Message = "",
    dry_run: DryRun = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete every policy of the namespace that is not in the files.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse Istio documents of which something has no meaning here.")
    ] = False,
    wait: Wait = False,
    without: Without = None,
    one_by_one: OneByOne = False,
    name: As = None,
) -> None:
    """Store policies, the mesh's own or Istio's, so that every member follows them: all of them, or none."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_apply import Change, apply

    change = Change(
        name=name, message=message, dry_run=dry_run, wait=wait, one_by_one=one_by_one, without=without or ()
    )
    given = [*(files or ()), *(paths or ())]
    raise typer.Exit(
        run_async(apply(options_of(ctx), out_of(ctx), given, change, prune=prune, strict=strict))
    )


def _delete(
    ctx: typer.Context,
    names: Names = None,
    files: Files = None,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    without: Without = None,
    one_by_one: OneByOne = False,
    name: As = None,
) -> None:
    """Delete policies by name, or those that stand in files."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_apply import Change, delete

    change = Change(
        name=name, message=message, dry_run=dry_run, wait=wait, one_by_one=one_by_one, without=without or ()
    )
    raise typer.Exit(run_async(delete(options_of(ctx), out_of(ctx), names or [], files or [], change)))


def _get(
    ctx: typer.Context,
    names: Names = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", metavar="N", help="As of this revision of the store, or of a change's id."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As of then: a TIME of 'history', or -10m.")
    ] = None,
) -> None:
    """Show the policies in the store; with -o yaml as they were applied. KIND/NAME@N is one as of revision N."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_history import get

    raise typer.Exit(run_async(get(options_of(ctx), out_of(ctx), names or [], revision=revision, at=at)))


def _history(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND[/NAME]|CHANGE...", help="Of these policies, or of a change by its id."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="So many changes, the newest.")
    ] = 50,
) -> None:
    """Show who changed what, when and why; the newest first."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_history import history

    raise typer.Exit(run_async(history(options_of(ctx), out_of(ctx), names or [], limit=limit)))


def _undo(
    ctx: typer.Context,
    names: Names = None,
    revision: Annotated[
        str | None,
        typer.Option("--to-revision", metavar="N", help="What stood there then, or after a change's id."),
    ] = None,
    message: Message = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    without: Without = None,
    one_by_one: OneByOne = False,
    name: As = None,
) -> None:
    """Undo the last change that is not undone yet, or put back what stood at a revision; byte for byte.

    Said again it goes one change further back; what an undo took away comes back with --to-revision.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_apply import Change, undo

    change = Change(
        name=name, message=message, dry_run=dry_run, wait=wait, one_by_one=one_by_one, without=without or ()
    )
    raise typer.Exit(run_async(undo(options_of(ctx), out_of(ctx), names or [], revision, change)))


def _status(ctx: typer.Context) -> None:
    """Show which members follow the store, and who does not or refuses something; exit code 1 where anybody does."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_history import status

    raise typer.Exit(run_async(status(options_of(ctx), out_of(ctx))))


def add_to(group: typer.Typer) -> None:
    """Add these commands to ``policy``."""
    group.command(
        "apply", cls=Command, epilog="Example: nats-mesh policy apply policies/ -m 'first canary' --wait"
    )(_apply)
    group.command("delete", cls=Command, epilog="Example: nats-mesh policy delete Route/orders-canary")(
        _delete
    )
    group.command(
        "get", cls=Command, epilog="Example: nats-mesh policy get Route/orders-canary -o yaml --at -10m"
    )(_get)
    group.command("history", cls=Command, epilog="Example: nats-mesh policy history Route/orders-canary")(
        _history
    )
    group.command("undo", cls=Command, epilog="Example: nats-mesh policy undo --to-revision 41")(_undo)
    group.command("status", cls=Command, epilog="Example: nats-mesh policy status")(_status)
