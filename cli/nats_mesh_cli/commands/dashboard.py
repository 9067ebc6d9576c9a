"""``dashboard``: the web view."""

from __future__ import annotations

from typing import Annotated

import typer

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.help import Command
from nats_mesh_cli.options import options_of, out_of

__all__ = ["register"]

PANEL = "Look"
PORT = 8480


def _dashboard(
    ctx: typer.Context,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen; anywhere but here is open to others."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65_535, help="The port; 0 takes a free one.")
    ] = PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A name that browsers may call it by; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve a page with the live service graph, services, policies and events, until Ctrl-C. It changes nothing.

    stdout has its address. It needs the extra 'dashboard': pip install 'nats-mesh[dashboard]'.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CliError(
            f"the web view needs {error.name}, which is not installed",
            hint="pip install 'nats-mesh[dashboard]'",
        ) from None
    from nats_mesh_cli.bus import run_async
    from nats_mesh_cli.dashboard.serving import dashboard

    run_async(dashboard(options_of(ctx), out_of(ctx), host=host, port=port, allowed=allow_host or []))


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "Example: nats-mesh dashboard --port 8480"
    app.command("dashboard", cls=Command, rich_help_panel=PANEL, epilog=example)(_dashboard)
