"""``demo`` as typed: options and help. The work is imported when it runs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, duration, options_of, out_of

__all__ = ["register"]

PANEL = "Serve"
#: How long the load lasts where nobody looks on who could end it (seconds).
UNWATCHED_S = 10.0
_MAX_RATE_PER_S = 5000.0


def _demo(
    ctx: typer.Context,
    lasting: Annotated[
        float | None,
        typer.Option(
            "--duration",
            "-d",
            parser=duration,
            metavar="TIME",
            help="How long the load lasts; until q without it, 10s where no terminal looks on.",
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            "--rate", min=0.1, max=_MAX_RATE_PER_S, metavar="N", help="Pages a second, whatever comes back."
        ),
    ] = 50.0,
    logs: Annotated[
        str | None,
        typer.Option(
            "--logs",
            metavar="DIR",
            help="Append what each service writes (warnings, access logs, what log-level asks for) to a file in DIR; "
            "without it only the end is kept, and told where one fails.",
        ),
    ] = None,
) -> None:
    """See the whole mesh on this machine: an embedded server, Bookinfo in processes of its own, load, a live view.

    Its first line is the address of the server, for NATS_URL in another shell. What happens is told on stderr where
    there is no view; what the services write is not, see --logs.

    Ends with a summary of what the bus counted: calls, errors, latency per service and edge. Exit code 0: all is
    well; 1: not, with the reasons on stderr. Nothing is left behind but the files of --logs.
    """
    options, out = options_of(ctx), out_of(ctx)
    if given := [
        f"--{name}" for name in ("server", "context", "creds") if getattr(options, name) is not None
    ]:
        raise CliError(f"demo takes no {' and no '.join(given)}", hint="it starts a server of its own")
    from nats_mesh.model import check_name
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.demo.fleet import metrics_environment
    from nats_mesh_cli.demo.run import demo
    from nats_mesh_cli.demo.session import Options

    shown = (
        options.format in (Format.TABLE, Format.WIDE) and out.tty and os.environ.get("TERM", "dumb") != "dumb"
    )
    chosen = Options(
        rate_per_s=rate,
        duration_s=lasting if lasting is not None or shown else UNWATCHED_S,
        namespace=check_name("namespace", options.namespace or "default"),
        start_timeout_s=options.timeout_s or 60.0,
        environ=metrics_environment(os.environ),
        logs=logs,
    )
    raise typer.Exit(run_async(demo(chosen, out, options.format, live=shown)))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", rich_help_panel=PANEL, epilog="Example: nats-mesh demo --duration 10s -o json")(_demo)
