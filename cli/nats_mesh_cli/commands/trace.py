"""``trace``."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import duration_with_unit, options_of, out_of

__all__ = ["register"]


def _share(text: str) -> float:
    from nats_mesh_cli.operate import percent

    return percent(text)


def _trace(
    ctx: typer.Context,
    which: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Draw this one; the first digits of its id will do.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", metavar="NAME", help="Those in which this service has a part.")
    ] = None,
    slow: Annotated[
        float | None,
        typer.Option(
            "--slow",
            parser=duration_with_unit,
            metavar="TIME",
            help="Those that took so long, or longer, to their very end.",
        ),
    ] = None,
    error: Annotated[bool, typer.Option("--error", help="Those in which a call failed.")] = False,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS[,STATUS]",
            help="Those whose first call ended so: UNAVAILABLE. May be repeated.",
        ),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option("--why", metavar="TEXT", help="Those with these words in WHY: 'fault', 'circuit open'."),
    ] = None,
    refused: Annotated[
        bool,
        typer.Option(
            "--refused/--no-refused",
            help="With those that failed for nothing but a refusal: an open circuit, a limit.",
        ),
    ] = True,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From then on: a TIME as it is shown, or -5m.")
    ] = "-15m",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many rows, the latest.")] = 50,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="A row for each, also of those that say the same (a terminal's table has one for them).",
        ),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show those that come.")] = False,
    sample: Annotated[
        float | None,
        typer.Option(
            "--sample", parser=_share, metavar="PERCENT", help="With --watch: sample so many meanwhile."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Make the stream that keeps spans, where there is none.")
    ] = True,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who to be; nats-mesh without it.")
    ] = None,
) -> None:
    """List the traces of the last minutes, or draw one: who called whom, how often, and where the time went."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.statuses import statuses_of
    from nats_mesh_cli.trace import trace
    from nats_mesh_cli.trace_finding import Query

    query = Query(
        service=service,
        slow_s=slow or 0.0,
        error=error,
        statuses=statuses_of(status or []),
        why=why or "",
        unrefused=not refused,
        since=since,
        limit=limit,
        each=each,
        watch=watch,
        sampling=sample or 0.0,
        keep=keep,
    )
    raise typer.Exit(run_async(trace(options_of(ctx), out_of(ctx), which, query, name=name)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "trace",
        cls=Command,
        rich_help_panel="Look",
        epilog="Example: nats-mesh trace --service reviews --error",
    )(_trace)
