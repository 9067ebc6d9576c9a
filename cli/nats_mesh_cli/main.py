"""The program: reads the command line, runs one command, and turns whatever happens into an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from nats_mesh_cli import starting
from nats_mesh_cli.argv import arrange, level_of
from nats_mesh_cli.commands import (
    alerts,
    audit,
    calls,
    config,
    dashboard,
    gen,
    look,
    operate,
    policy,
    record,
    rollout,
    serve,
    slow,
    stat,
    tap,
    trace,
)
from nats_mesh_cli.demo import command as demo
from nats_mesh_cli.errors import FAILED, INTERRUPTED, OK, CliError, as_cli_error
from nats_mesh_cli.help import Group
from nats_mesh_cli.narrowing import narrowed
from nats_mesh_cli.options import Format, Options, Session, duration
from nats_mesh_cli.output import Out
from nats_mesh_cli.top import command as top

__all__ = ["app", "main", "report", "run"]

GLOBAL = "Global options, before or behind the command"

app = typer.Typer(
    name="nats-mesh",
    help="A service mesh over NATS: run services, call them, see what is there.",
    epilog="Example: nats-mesh up & nats-mesh run shop.app:orders & nats-mesh call orders.place '{}'",
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from nats_mesh import __version__
        from nats_mesh.variant import COMPILED

        typer.echo(f"nats-mesh {__version__}{' (compiled)' if COMPILED else ''}")
        raise typer.Exit(OK)


@app.callback()
def _globals(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            metavar="URL",
            help="The bus: nats://host:port[,…]; else NATS_URL, a context, localhost.",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="NAME", help="A context of the nats CLI.", rich_help_panel=GLOBAL),
    ] = None,
    creds: Annotated[
        str | None,
        typer.Option("--creds", metavar="FILE", help="Credentials; else NATS_CREDS.", rich_help_panel=GLOBAL),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            help="The namespace; else MESH_NAMESPACE, default.",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    output: Annotated[
        Format,
        typer.Option(
            "--output",
            "-o",
            metavar="FORMAT",
            help="table, wide, json, jsonl, yaml or name.",
            rich_help_panel=GLOBAL,
        ),
    ] = Format.TABLE,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            parser=duration,
            metavar="TIME",
            help="How long to wait: 250ms, 2s, 1m.",
            rich_help_panel=GLOBAL,
        ),
    ] = None,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.", rich_help_panel=GLOBAL)
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the version and end.",
            rich_help_panel=GLOBAL,
        ),
    ] = False,
) -> None:
    session: Session = ctx.obj
    session.out.colorless |= no_color
    session.read = True
    session.options = Options(
        server=server,
        context=context,
        creds=creds,
        namespace=namespace,
        format=output,
        timeout_s=timeout,
        color=not session.out.colorless,
    )


demo.register(app)
serve.register(app)
calls.register(app)
look.register(app)
stat.register(app)
top.register(app)
dashboard.register(app)
operate.register(app)
audit.register(app)
alerts.register(app)
record.register(app)
trace.register(app)
slow.register(app)
tap.register(app)
policy.register(app)
config.register(app)
rollout.register(app)
gen.register(app)


def run(argv: Sequence[str], program: str = "nats-mesh", out: Out | None = None) -> int:
    """Run one command line and return its exit code; what there is to say has been said."""
    session = Session(out or Out())
    _quiet_logging()
    try:
        command, arranged = _read(argv or ["--help"], program)
        result = command.main(args=arranged, prog_name=program, obj=session, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.Exit as ended:
        return ended.exit_code
    except Exception as error:  # noqa: BLE001 - whatever ends a command becomes a message and an exit code here
        return report(error, session.out, session.options.format if session.read else _format_of(argv))


def _read(argv: Sequence[str], program: str) -> tuple[Any, list[str]]:
    """The commands that there are, as far as they are needed, and the line in order."""
    tree = narrowed(app, argv)
    try:
        command: Any = typer.main.get_command(tree)
        line = arrange(argv, level_of(command), program)
        if tree is app or "--help" not in line:
            return command, line
    except CliError:
        if tree is app:
            raise
    # What is told of an error names what there is, and so does the help that a line without a command gets.
    command = typer.main.get_command(app)
    return command, arrange(argv, level_of(command), program)


def _format_of(argv: Sequence[str]) -> Format:
    """The format of a command line that could not be read, as far as it says one."""
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("-o", "--output") and not equals:
            value = words[at + 1] if at + 1 < len(words) else ""
        elif name != "--output":
            value = word[2:] if word.startswith("-o") else ""
        if value in list(Format):
            return Format(value)
    return Format.TABLE


def report(error: Exception, out: Out, fmt: Format = Format.TABLE) -> int:
    """Say what ended a command, and return the exit code for it."""
    if os.environ.get("MESH_LOG", "").lower() == "debug":
        traceback.print_exception(error)
    known = as_cli_error(error)
    if known is None:
        known = CliError(
            f"a defect of nats-mesh: {type(error).__name__}: {error}",
            hint="MESH_LOG=debug shows the traceback; please report it",
            code=FAILED,
        )
    out.error(known, fmt)
    return known.code


def _quiet_logging() -> None:
    """The library's log goes to stderr where MESH_LOG asks for it; otherwise commands say what matters themselves."""
    level = os.environ.get("MESH_LOG", "").upper()
    if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    else:
        logging.getLogger("nats_mesh").addHandler(logging.NullHandler())
        logging.getLogger("nats_mesh").propagate = False


def main() -> None:
    """The entry point of ``nats-mesh`` and ``mesh``."""
    starting.begin()
    program = os.path.basename(sys.argv[0])
    if program not in ("nats-mesh", "mesh"):
        program = "nats-mesh"
    if f"_{program}_COMPLETE".replace("-", "_").upper() in os.environ:
        app(prog_name=program)  # the shell asks for completions: typer answers and ends
    code = run(sys.argv[1:], program)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
