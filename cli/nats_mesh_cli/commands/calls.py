"""``call`` and ``bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import PoliciesOption, duration, options_of, out_of

__all__ = ["register"]

PANEL = "Call"

Target = Annotated[str, typer.Argument(metavar="TARGET", help="SERVICE.ENDPOINT, or nats://subject.")]
Value = Annotated[
    str | None, typer.Argument(metavar="JSON|-|@FILE", help="The value: JSON, - for stdin, @FILE for a file.")
]
Header = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="KEY=VALUE", help="A header to send along; may be repeated."),
]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The caller to be; nats-mesh without it.")
]
CodecName = Annotated[str, typer.Option("--codec", metavar="json|msgpack", help="How the value travels.")]


def _call(
    ctx: typer.Context,
    target: Target,
    value: Value = None,
    header: Header = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many times, one after the other.")] = 1,
    codec: CodecName = "json",
    raw: Annotated[bool, typer.Option("--raw", help="Send and print bytes as they are.")] = False,
    name: As = None,
    policies: PoliciesOption = None,
) -> None:
    """Call an endpoint and print the reply's value."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.call import call

    code = run_async(
        call(
            options_of(ctx, policies),
            out_of(ctx),
            target,
            value,
            headers=header or [],
            count=count,
            codec=codec,
            raw=raw,
            name=name,
        )
    )
    raise typer.Exit(code)


def _bench(
    ctx: typer.Context,
    target: Target,
    value: Value = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Calls a second, started on time whatever comes back."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=10_000, help="Calls at a time, at most.")
    ] = 64,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many calls.")] = None,
    lasting: Annotated[
        float | None,
        typer.Option(
            "--duration",
            "-d",
            parser=duration,
            metavar="TIME",
            help="End after this time; 10s without --count.",
        ),
    ] = None,
    header: Header = None,
    codec: CodecName = "json",
    name: As = None,
    policies: PoliciesOption = None,
) -> None:
    """Call under load: rate, errors, latency percentiles and a histogram."""
    from nats_mesh_cli.bench import bench

    code = bench(
        options_of(ctx, policies),
        out_of(ctx),
        target,
        value,
        headers=header or [],
        rate=rate,
        concurrency=concurrency,
        count=count,
        duration_s=lasting,
        codec=codec,
        name=name,
    )
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    example = """Example: nats-mesh call orders.place '{"sku": "b-17"}' -H tenant=acme"""
    app.command("call", cls=Command, rich_help_panel=PANEL, epilog=example)(_call)
    example = """Example: nats-mesh bench orders.place '{"sku": "b-17"}' --rate 500 --duration 10s"""
    app.command("bench", cls=Command, rich_help_panel=PANEL, epilog=example)(_bench)
