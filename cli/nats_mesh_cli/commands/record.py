"""``record``: keep calls for what-if replays."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import duration_with_unit, options_of, out_of

__all__ = ["register"]

PANEL = "Look"


def _share(text: str) -> float:
    from nats_mesh_cli.operate import percent

    return percent(text)


def _rate(text: str) -> float:
    from nats_mesh_cli.record import rate

    return rate(text)


def _record(
    ctx: typer.Context,
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Calls of this service; of all without it.")
    ] = None,
    path: Annotated[
        str, typer.Option("--out", metavar="FILE", help="A new file; stdout without it, or for -.")
    ] = "-",
    for_s: Annotated[
        float | None,
        typer.Option("--for", parser=duration_with_unit, metavar="TIME", help="How long; else until Ctrl-C."),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option("--sample", parser=_share, metavar="PERCENT", help="How many of the traces; else 100%."),
    ] = None,
    headers: Annotated[
        str | None,
        typer.Option("--headers", metavar="A,B", help="Only these headers of the application; else all."),
    ] = None,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No headers at all.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            parser=_rate,
            metavar="RATE",
            help="At most so many calls, 200/s.",
            show_default="1000/s",
        ),
    ] = None,
    payloads: Annotated[bool, typer.Option("--payloads", hidden=True)] = False,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The observer to be; nats-mesh without it.")
    ] = None,
) -> None:
    """Record calls as their instances see them, without payloads and secrets, for policy diff --replay."""
    if payloads:
        raise CliError(
            "--payloads: payloads are never recorded",
            hint="leave it out: replays need none. 'nats-mesh tap --payload' shows them where a policy allows it",
        )
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.record import RATE_PER_S, Plan, headers_of, record

    plan = Plan(
        service=service,
        path=path,
        for_s=for_s,
        sample=1.0 if sample is None else sample,
        headers=headers_of(headers, none=no_headers),
        rate_per_s=RATE_PER_S if rate is None else rate,
    )
    raise typer.Exit(run_async(record(options_of(ctx), out_of(ctx), plan, name=name)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "record",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh record orders --for 30s --out calls.jsonl",
    )(_record)
