"""As much of the command tree as one command line can mean.

typer makes every command of a tree it is given, with all annotations of all parameters: that takes longer than most
commands do. Whatever is no word of the command line cannot be the command, so it is left out. Errors and help need the
whole tree.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import typer

__all__ = ["narrowed"]


def narrowed(app: typer.Typer, argv: Sequence[str]) -> typer.Typer:
    """``app`` with the commands and groups alone whose names are among ``argv``; all of it where none is, or where help
    is asked for."""
    words = set(argv)
    return app if words & {"-h", "--help"} else _narrowed(app, words)


def _narrowed(app: typer.Typer, words: Collection[str]) -> typer.Typer:
    commands = [each for each in app.registered_commands if each.name is None or each.name in words]
    groups = [each for each in app.registered_groups if not isinstance(each.name, str) or each.name in words]
    if not commands and not groups:
        return app
    found = copy.copy(app)
    found.registered_commands = commands
    found.registered_groups = []
    for group in groups:
        if group.typer_instance is not None:
            group = copy.copy(group)
            group.typer_instance = _narrowed(group.typer_instance, words)  # type: ignore[arg-type]  # it is no placeholder here
        found.registered_groups.append(group)
    return found
