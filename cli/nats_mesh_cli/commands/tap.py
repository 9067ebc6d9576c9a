"""``tap``: live calls."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import duration_with_unit, options_of, out_of

__all__ = ["register"]


def _rate(text: str) -> float:
    from nats_mesh_cli.record import rate

    return rate(text)


def _tap(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERVICE[.ENDPOINT]", help="Calls of these; of every service without one."),
    ] = None,
    callers: Annotated[
        list[str] | None, typer.Option("--from", metavar="CALLER", help="By this caller; may be repeated.")
    ] = None,
    statuses: Annotated[
        list[str] | None,
        typer.Option(
            "--status", metavar="STATUS", help="That ended so: UNAVAILABLE,INTERNAL; may be repeated."
        ),
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="That did not end well.")] = False,
    slow: Annotated[
        float | None,
        typer.Option("--slow", parser=duration_with_unit, metavar="TIME", help="That took so long: 100ms."),
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="KEY=VALUE", help="With this header; may be repeated."),
    ] = None,
    routes: Annotated[
        list[str] | None,
        typer.Option(
            "--route", metavar="NAME", help="To this subset, or all, direct, plain; may be repeated."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            parser=_rate,
            metavar="RATE",
            help="At most so many, 20/s; what is left out is counted.",
            show_default="100/s",
        ),
    ] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many calls.")] = None,
    for_s: Annotated[
        float | None,
        typer.Option(
            "--duration", "-d", parser=duration_with_unit, metavar="TIME", help="How long; else until Ctrl-C."
        ),
    ] = None,
    payload: Annotated[
        bool,
        typer.Option("--payload", help="What is sent and answered, too, where a Telemetry policy allows it."),
    ] = False,
    message: Annotated[
        str, typer.Option("-m", "--message", metavar="TEXT", help="Why --payload; the audit keeps it.")
    ] = "",
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The observer to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Show calls as they end, filtered where they are answered; without payloads unless a policy and you say so."""
    if message and not payload:
        raise CliError("-m says why payloads are looked at", hint="give it with --payload, or leave it out")
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.tap import tap
    from nats_mesh_cli.tap_given import RATE_PER_S, Plan, filter_of, targets_of

    plan = Plan(
        targets=targets_of(targets or []),
        only=filter_of(
            callers=callers or [],
            statuses=statuses or [],
            errors=errors,
            slow_s=slow,
            headers=headers or [],
            routes=routes or [],
        ),
        rate_per_s=RATE_PER_S if rate is None else rate,
        most=most,
        for_s=for_s,
        why=message if payload else None,
    )
    raise typer.Exit(run_async(tap(options_of(ctx), out_of(ctx), plan, name=name)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "tap",
        cls=Command,
        rich_help_panel="Look",
        epilog="Example: nats-mesh tap orders.place --errors --slow 100ms",
    )(_tap)
