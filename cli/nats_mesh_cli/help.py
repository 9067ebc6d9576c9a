"""Help as plain text: grouped, quick to make (rich is not loaded for it), and the same in a pipe.

typer's own panels cost more time than all the rest of ``--help``, and wrap options that people copy.
"""

from __future__ import annotations

import inspect
from typing import Any

import typer.core

__all__ = ["Command", "Group"]

_OPTIONS = "Options"
_COMMANDS = "Commands"
_GLOBAL_HINT = "Global options such as -s, -n, -o and --timeout may stand here too: see '{} --help'."


class Command(typer.core.TyperCommand):
    """A command whose help shows what it does, an example, its arguments and its options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        _head(self, ctx, formatter)
        _parameters(self, ctx, formatter)
        root = ctx.find_root().info_name
        formatter.write_paragraph()
        formatter.write_text(_GLOBAL_HINT.format(root))


class Group(typer.core.TyperGroup):
    """The program itself, or a group of commands: its commands by panel, then its options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        _head(self, ctx, formatter)
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                text = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
                panels.setdefault(_panel(command, _COMMANDS), []).append((name, text))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
        _parameters(self, ctx, formatter)


def _head(command: Any, ctx: Any, formatter: Any) -> None:
    command.format_usage(ctx, formatter)
    formatter.write_paragraph()
    formatter.write_text(inspect.cleandoc(command.help or ""))
    if command.epilog:
        formatter.write_paragraph()
        # One line, whatever the width: an example is there to be copied.
        formatter.write(f"{command.epilog}\n")


def _parameters(command: Any, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            rows = panels.setdefault("Arguments", [])
            rows.append((parameter.metavar or parameter.name.upper(), parameter.help or ""))
        else:
            panels.setdefault(_panel(parameter, _OPTIONS), []).append(
                (_names(parameter), _text(parameter, ctx))
            )
    for panel, rows in panels.items():
        with formatter.section(panel):
            formatter.write_dl(rows)


def _panel(item: Any, default: str) -> str:
    # typer keeps a placeholder object where no panel was named
    panel = getattr(item, "rich_help_panel", None)
    return panel if isinstance(panel, str) else default


def _names(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return (
        names if option.is_flag or getattr(option, "count", False) else f"{names} {option.metavar or 'VALUE'}"
    )


def _text(option: Any, ctx: Any) -> str:
    text = (option.help or "").strip()
    default = option.get_default(ctx, call=False)
    if option.is_flag or default is None or callable(default) or default in ("", [], ()):
        return text
    return f"{text} [{getattr(default, 'value', default)}]"
