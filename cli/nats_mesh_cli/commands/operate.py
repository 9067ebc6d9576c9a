"""``drain``, ``undrain``, ``fault``, ``log-level``, ``events``: work on running instances, and see what happens."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import duration_with_unit, options_of, out_of

__all__ = ["register"]

PANEL = "Operate"
#: How long a level lasts where nobody says how long (seconds).
_LEVEL_S = 900.0

Instance = Annotated[
    str, typer.Argument(metavar="INSTANCE", help="An instance's id or host-pid, or how it begins.")
]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The operator to be; nats-mesh without it.")
]


def _share(text: str) -> float:
    from nats_mesh_cli.operate import percent

    return percent(text)


def _drain(ctx: typer.Context, instance: Instance, name: As = None) -> None:
    """Have an instance take no more calls and finish what it holds; it lives on, for undrain."""
    _run_drain(ctx, instance, name, back=False)


def _undrain(ctx: typer.Context, instance: Instance, name: As = None) -> None:
    """Have a drained instance take calls again."""
    _run_drain(ctx, instance, name, back=True)


def _run_drain(ctx: typer.Context, instance: str, name: str | None, *, back: bool) -> None:
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.operate import drain

    raise typer.Exit(run_async(drain(options_of(ctx), out_of(ctx), instance, back=back, name=name)))


def _fault(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="SERVICE[.ENDPOINT]", help="Whose calls are concerned.")],
    delay: Annotated[
        float | None,
        typer.Option(
            "--delay", parser=duration_with_unit, metavar="TIME", help="How long calls wait: 200ms."
        ),
    ] = None,
    abort: Annotated[
        str | None, typer.Option("--abort", metavar="STATUS", help="What calls end with: UNAVAILABLE.")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share", parser=_share, metavar="PERCENT", help="How many of the calls; 100% without it."
        ),
    ] = None,
    lasting: Annotated[
        float | None,
        typer.Option(
            "--for", parser=duration_with_unit, metavar="TIME", help="When it ends by itself; 60s without it."
        ),
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="ID", help="In this instance alone.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End what was injected.")] = False,
    reason: Annotated[
        str, typer.Option("-m", "--message", metavar="TEXT", help="Why; the event tells it.")
    ] = "",
    name: As = None,
) -> None:
    """Inject a fault into running instances: delay calls, end them with an error, or both; or end that."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.operate import fault, fault_command

    command = fault_command(
        target.partition(".")[2],
        delay_s=delay,
        abort=abort,
        share=share,
        lasting_s=lasting,
        clear=clear,
        reason=reason,
    )
    code = run_async(fault(options_of(ctx), out_of(ctx), target, command, instance=instance, name=name))
    raise typer.Exit(code)


def _log_level(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE",
            help="An instance's id or host-pid, or how it begins; or a service: all of its instances.",
        ),
    ],
    level: Annotated[
        str,
        typer.Argument(
            metavar="LEVEL", help="debug, info, warning, error or critical; reset: as it was at first."
        ),
    ],
    logger: Annotated[
        str,
        typer.Option(
            "--logger", metavar="NAME", help="A logger of Python's; root: all that set no level themselves."
        ),
    ] = "nats_mesh",
    lasting: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=duration_with_unit,
            metavar="TIME",
            help="When it goes back by itself; 15m without it.",
        ),
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Never go back by itself.")] = False,
    name: As = None,
) -> None:
    """Have the process of an instance, or of all instances of a service, log more or less, for a while."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.operate import level_command, log_level

    if stay and lasting is not None:
        raise CliError("log-level: --stay and --for contradict each other", hint="give one of them")
    command = level_command(level, logger=logger, for_s=None if stay else lasting or _LEVEL_S)
    raise typer.Exit(run_async(log_level(options_of(ctx), out_of(ctx), target, command, name=name)))


def _events(
    ctx: typer.Context,
    about: Annotated[
        str | None,
        typer.Argument(metavar="[SERVICE]", help="Those of this service, or of this caller, alone."),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option("--service", metavar="NAME", help="The same, as an option."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--watch", "-w", "--follow", "-f", help="Go on, and show what comes, too.")
    ] = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="breaker.open, or breaker for all of it; may be repeated."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="From then on: a TIME as it is shown, or -10m."),
    ] = None,
    name: As = None,
) -> None:
    """Show what happened lately: breakers, ejections, drains, faults, limits, policies, rollouts, who came and went.

    Members remember what happened to them; of who has gone since, and of what was changed, the audit tells, where the
    namespace keeps one.
    """
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.events import events

    if about is not None and service not in (None, about):
        raise CliError(
            f"events: {about} and --service {service} contradict each other", hint="give one of them"
        )
    run_async(
        events(
            options_of(ctx),
            out_of(ctx),
            service=about or service,
            follow=follow,
            name=name,
            kinds=kinds or [],
            since=since,
        )
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("drain", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh drain web-1-4711")(
        _drain
    )
    app.command(
        "undrain", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh undrain web-1-4711"
    )(_undrain)
    app.command(
        "fault",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh fault orders.place --delay 200ms --abort UNAVAILABLE --share 10% --for 60s",
    )(_fault)
    app.command(
        "log-level",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh log-level orders debug --logger nats_mesh.client --for 5m",
    )(_log_level)
    app.command("events", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh events -f -o jsonl")(
        _events
    )
