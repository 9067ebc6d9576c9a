"""``rollout``: from one version to the next, step by step."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command, Group
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Policies"

Service = Annotated[
    str | None,
    typer.Argument(metavar="[SERVICE]", help="Whose; may be left out where there is one rollout under way."),
]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="Why; the events tell it.")]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The operator to be; nats-mesh without it.")
]


def _start(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|SERVICE", help="A file with one Rollout, or the service of one that is stored."
        ),
    ],
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Carry it out from here, if nobody else does, and show how it goes."
        ),
    ] = False,
    message: Message = "",
    name: As = None,
) -> None:
    """Start a rollout: all calls go to the old subset, and step by step to the new one while its gates hold."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.rollout import start

    raise typer.Exit(
        run_async(start(options_of(ctx), out_of(ctx), what, follow=follow, message=message, name=name))
    )


def _status(
    ctx: typer.Context,
    service: Service = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
) -> None:
    """Show how far rollouts are, and why; exit code 1 where a service that is named has none."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.rollout import status

    raise typer.Exit(run_async(status(options_of(ctx), out_of(ctx), service, follow=follow)))


def _pause(ctx: typer.Context, service: Service = None, message: Message = "", name: As = None) -> None:
    """Have it stay at its step until it is resumed; its gates go on counting."""
    _ask(ctx, "pause", service, message, name)


def _resume(ctx: typer.Context, service: Service = None, message: Message = "", name: As = None) -> None:
    """Have a paused rollout go on; from a step that says pause, to the next one."""
    _ask(ctx, "resume", service, message, name)


def _abort(ctx: typer.Context, service: Service = None, message: Message = "", name: As = None) -> None:
    """Send all calls to the old subset at once, also where nobody carries the rollout out any more."""
    _ask(ctx, "abort", service, message, name)


def _ask(ctx: typer.Context, wish: str, service: str | None, message: str, name: str | None) -> None:
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.rollout import ask_for

    raise typer.Exit(
        run_async(ask_for(options_of(ctx), out_of(ctx), wish, service, message=message, name=name))
    )


def _run(ctx: typer.Context, name: As = None) -> None:
    """Carry out rollouts that nobody carries out, until Ctrl-C; run as many of these as you like."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.rollout import run

    raise typer.Exit(run_async(run(options_of(ctx), out_of(ctx), name=name)))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        cls=Group,
        help="Go from one version of a service to the next, step by step, and back by itself where it is worse.",
        epilog="Example: nats-mesh rollout start policies/rollout-canary.yaml --follow",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command, example in (
        ("start", _start, "rollout start reviews-v2.yaml --follow"),
        ("status", _status, "rollout status reviews -o json"),
        ("pause", _pause, "rollout pause reviews -m 'looking at the logs'"),
        ("resume", _resume, "rollout resume reviews"),
        ("abort", _abort, "rollout abort reviews -m 'wrong prices'"),
        ("run", _run, "rollout run -o jsonl"),
    ):
        group.command(name, cls=Command, epilog=f"Example: nats-mesh {example}")(command)
    app.add_typer(group, name="rollout", rich_help_panel=PANEL)
