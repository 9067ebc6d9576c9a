"""``get``, ``describe``, ``why``, ``check``: what is there, what would become of a call, and what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.help import Command
from nats_mesh_cli.options import Options, PoliciesOption, options_of, out_of
from nats_mesh_cli.output import Out

__all__ = ["register"]

PANEL = "Look"


def _get(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="services, instances, endpoints, policies, edges, breakers or faults.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A service, an endpoint, a policy, or how an instance begins."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show every change.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of every namespace.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="As of then, from the audit: 2026-01-31T12:00:00Z, or -10m."
        ),
    ] = None,
) -> None:
    """List what is there: services (also those of the NATS Services API), instances, endpoints, policies, who calls
    whom (edges), circuits that are not closed (breakers), faults that operators set."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.get import OTHERS, plural_of

    options, out = options_of(ctx), out_of(ctx)
    if at is not None and watch:
        raise typer.BadParameter("a past moment does not change: say --at or --watch")
    if (plural := plural_of(kind)) in OTHERS:
        if everywhere:
            raise typer.BadParameter(f"--all-namespaces: {plural} are those of one namespace (-n names it)")
        raise typer.Exit(_get_other(options, out, plural, name, at=at, watch=watch))
    if at is not None:
        from nats_mesh_cli.past import get_at

        run_async(get_at(options, out, kind, name, at, everywhere=everywhere))
    elif watch:
        from nats_mesh_cli.watch import watch as work

        run_async(work(options, out, kind, name, everywhere=everywhere))
    else:
        from nats_mesh_cli.get import get

        run_async(get(options, out, kind, name, everywhere=everywhere))


def _get_other(
    options: Options, out: Out, plural: str, name: str | None, *, at: str | None, watch: bool
) -> int:
    """What stands in the store, or is counted."""
    from nats_mesh_cli.bus import run_async

    if plural == "policies":
        from nats_mesh_cli.get_policies import get_policies, watch_policies

        if not watch:
            return run_async(get_policies(options, out, name, at=at))
        run_async(watch_policies(options, out, name))
        return 0
    if at is not None:
        raise typer.BadParameter(
            f"--at: what {plural} there were is not kept; 'nats-mesh record' can keep it"
        )
    from nats_mesh_cli.stat import breakers, edges

    if plural == "edges":
        named = [] if name is None else [name]
        run_async(edges(options, out, named, by="service", window_s=None, watch=watch))
    else:
        run_async(breakers(options, out, name, watch=watch))
    return 0


def _describe(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="SERVICE, SERVICE.ENDPOINT, or how an instance's id or host-pid begins."
        ),
    ],
    policies: PoliciesOption = None,
    caller: Annotated[
        str | None, typer.Option("--from", metavar="CALLER", help="As this caller would meet it.")
    ] = None,
) -> None:
    """Say everything known of a service, an endpoint or an instance: schemas, layers, parameters and their sources."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.describe import describe

    run_async(describe(options_of(ctx, policies), out_of(ctx), what, caller=caller))


def _why(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="SERVICE.ENDPOINT; with --trace: its calls alone."),
    ] = None,
    caller: Annotated[
        str | None,
        typer.Option("--from", metavar="CALLER", help="Who calls; who you are without it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who to be; nats-mesh without it.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="KEY=VALUE", help="A header of the call; may be repeated."),
    ] = None,
    idempotent: Annotated[
        bool | None,
        typer.Option("--idempotent/--not-idempotent", help="What the call itself says about being repeated."),
    ] = None,
    keyed: Annotated[bool, typer.Option("--keyed", help="The call has an idempotency key.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Of so many calls, how many go each way.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="ID", help="The calls of a trace, as they were made.")
    ] = None,
    policies: PoliciesOption = None,
) -> None:
    """Explain a call that nobody makes, or with --trace one that was made, layer by layer on both sides: what happens,
    by which policy, and where it goes.

    --timeout is what the call itself says. Exit code 1 where every such call would fail, surely or most likely, as its
    last line says; with --trace where no such trace or call is known.
    """
    from nats_mesh_cli.bus import run_async

    if trace is not None:
        from nats_mesh_cli.why_trace import why_trace

        if caller is not None or header or keyed or count is not None or idempotent is not None:
            raise typer.BadParameter("--trace tells of calls as they were made: leave the other options out")
        raise typer.Exit(
            run_async(why_trace(options_of(ctx, policies), out_of(ctx), trace, target, name=name))
        )
    if target is None:
        raise typer.BadParameter("say which call: SERVICE.ENDPOINT, or --trace ID")
    from nats_mesh_cli.why import why

    code = run_async(
        why(
            options_of(ctx, policies),
            out_of(ctx),
            target,
            caller=caller,
            name=name,
            headers=header or [],
            idempotent=idempotent,
            keyed=keyed,
            count=count,
        )
    )
    raise typer.Exit(code)


def _check(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Check what this service or caller may do.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Do not listen to instances and calls (about 6 s), nor look at policies."
        ),
    ] = False,
) -> None:
    """Find what is wrong here, each with its remedy: server, JetStream, permissions, clock, versions, instances,
    operators' faults, open circuits, calls that fail or that nobody takes, policies."""
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.check import check

    code = run_async(check(options_of(ctx), out_of(ctx), name=name, quick=quick))
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(
        "get", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh get instances orders -o wide"
    )(_get)
    app.command(
        "describe",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh describe orders.place --policies policies --from web",
    )(_describe)
    app.command(
        "why",
        cls=Command,
        rich_help_panel=PANEL,
        epilog="Example: nats-mesh why reviews.get --from web -H 'end-user: jason' --policies policies",
    )(_why)
    app.command(
        "check", cls=Command, rich_help_panel=PANEL, epilog="Example: nats-mesh check -s nats://bus:4222"
    )(_check)
