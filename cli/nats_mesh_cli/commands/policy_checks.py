"""``policy analyze`` and ``policy test``: what policies come to, before anybody follows them."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["add_to"]


def _analyze(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|DIR]...", help="Files and folders; without any what is in effect."),
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option(
            "--policies", metavar="DIR", help="Without FILE or DIR: this folder's files; else MESH_POLICIES."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Look at the files alone, and ask nobody what runs.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings, too.")] = False,
) -> None:
    """Find what policies do together that cannot be meant: each finding with its code, place and remedy."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_analyze import analyze_policies

    found = analyze_policies(
        options_of(ctx, policies), out_of(ctx), paths or [], offline=offline, strict=strict
    )
    raise typer.Exit(run_async(found))


def _test(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR...", help="Files of tests (kind: PolicyTest).")
    ],
    policies: Annotated[
        str | None,
        typer.Option(
            "--policies",
            metavar="DIR",
            help="Hold these against the tests, and not those that the tests name.",
        ),
    ] = None,
) -> None:
    """Hold policies against what tests expect of calls; exit code 1 where a test fails. No mesh is needed."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.policy_trial import test_policies

    raise typer.Exit(run_async(test_policies(options_of(ctx, policies), out_of(ctx), paths)))


def add_to(group: typer.Typer) -> None:
    """Add these commands to ``policy``."""
    group.command("analyze", cls=Command, epilog="Example: nats-mesh policy analyze policies/ --strict")(
        _analyze
    )
    group.command("test", cls=Command, epilog="Example: nats-mesh policy test policies/expectations")(_test)
