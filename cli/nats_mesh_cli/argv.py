"""The command line put in order before typer reads it, so that global options may stand anywhere.

``call orders.place -o json -1 -n shop`` becomes ``-o json -n shop call -- orders.place -1``: global
options in front, each command's own options behind its name, everything else behind ``--`` (a JSON
number may begin with a minus). An option's value is never touched, whatever it looks like, and what
stands behind ``--`` is no option. Pure; the tables come from the commands themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nats_mesh_cli.errors import CliError, did_you_mean, option_meant

__all__ = ["Level", "arrange", "level_of"]

_NUMBER = re.compile(r"-(\d|\.\d)")
_HELP = {"--help": 0, "-h": 0}


@dataclass(frozen=True, slots=True)
class Level:
    """A command or a group of commands: its options with the number of values each takes, its subcommands, and what
    its arguments are called (``None``: it takes any number of them)."""

    options: Mapping[str, int] = field(default_factory=dict)
    children: Mapping[str, Level] = field(default_factory=dict)
    arguments: tuple[str, ...] | None = None


def level_of(command: Any) -> Level:
    """The tables of a typer command and of everything below it."""
    options = dict(_HELP)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            values = 0 if parameter.is_flag or getattr(parameter, "count", False) else parameter.nargs
            options |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), values)
    children = {name: level_of(child) for name, child in getattr(command, "commands", {}).items()}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    names = tuple((each.metavar or each.name.upper()).strip("[]") for each in arguments)
    return Level(options, children, None if any(each.nargs != 1 for each in arguments) else names)


def arrange(argv: Sequence[str], root: Level, program: str = "nats-mesh") -> list[str]:
    """``argv`` in the order typer wants; :class:`CliError` for unknown commands and options, for missing values and
    for arguments that are left over.

    A line without a command asks which there are: it gets a ``--help``.
    """
    return _Line(argv, root, program).arrange()


class _Line:
    def __init__(self, argv: Sequence[str], root: Level, program: str) -> None:
        self._left = list(reversed(argv))
        self._levels = [root]
        self._names = [program]
        self._options: list[list[str]] = [[]]
        self._arguments: list[str] = []

    def arrange(self) -> list[str]:
        while self._left:
            token = self._left.pop()
            if token == "--":
                self._arguments += reversed(self._left)
                break
            if token.startswith("--"):
                self._long(token)
            elif len(token) > 1 and token[0] == "-" and not self._is_number(token):
                self._short(token)
            elif self._levels[-1].children and not self._arguments:
                self._descend(token)
            else:
                self._arguments.append(token)
        if self._levels[-1].children and not self._arguments and not self._asks():
            self._options[-1].append("--help")  # a group by itself: which commands there are
        self._look_at_arguments()
        result = list(self._options[0])
        for name, options in zip(self._names[1:], self._options[1:], strict=True):
            result += [name, *options]
        return [*result, "--", *self._arguments] if self._arguments else result

    def _look_at_arguments(self) -> None:
        names = self._levels[-1].arguments
        if names is None or self._levels[-1].children or len(self._arguments) <= len(names) or self._asks():
            return
        over = ", ".join(repr(word) for word in self._arguments[len(names) :])
        hint = f"see '{self._path()} --help'"
        if names:
            hint = f"give one {names[-1]} at a time, in quotes where it has blanks; {hint}"
        takes = f"takes {' and '.join(names)}, and no more" if names else "takes no name"
        raise CliError(f"{' '.join(self._names[1:])} {takes}: {over} is left over", hint=hint)

    def _asks(self) -> bool:
        return any(option in _HELP for options in self._options for option in options)

    def _is_number(self, token: str) -> bool:
        return _NUMBER.match(token) is not None and self._level_with(token[:2]) is None

    def _descend(self, name: str) -> None:
        children = self._levels[-1].children
        if name not in children:
            hint = did_you_mean(name, children) or f"there are: {', '.join(children)}"
            raise CliError(f"no command {' '.join([*self._names[1:], name])!r}", hint=hint)
        self._levels.append(children[name])
        self._names.append(name)
        self._options.append([])

    def _level_with(self, option: str) -> int | None:
        """The innermost level that has this option."""
        for at in range(len(self._levels) - 1, -1, -1):
            if option in self._levels[at].options:
                return at
        return None

    def _long(self, token: str) -> None:
        name, equals, _ = token.partition("=")
        at = self._level_with(name)
        if at is None:
            raise self._unknown(name)
        self._options[at].append(token)
        if not equals:
            self._take(at, name, self._levels[at].options[name])

    def _short(self, token: str) -> None:
        """One or several short options in one word; the value of the last may follow without a blank."""
        for position, letter in enumerate(token[1:], 2):
            name = f"-{letter}"
            at = self._level_with(name)
            if at is None:
                raise self._unknown(name if len(token) == 2 else f"-{letter} in {token}")
            self._options[at].append(name)
            count = self._levels[at].options[name]
            if count:
                if rest := token[position:]:
                    self._options[at].append(rest)
                    count -= 1
                self._take(at, name, count)
                return

    def _take(self, at: int, name: str, count: int) -> None:
        for _ in range(count):
            if not self._left or self._left[-1] == "--":
                raise CliError(f"option {name} needs a value", hint=f"see '{self._path()} --help'")
            self._options[at].append(self._left.pop())

    def _unknown(self, name: str) -> CliError:
        known = [option for level in self._levels for option in level.options]
        hint = option_meant(name, known) or f"see '{self._path()} --help'"
        return CliError(f"{' '.join(self._names[1:]) or self._names[0]}: no option {name}", hint=hint)

    def _path(self) -> str:
        return " ".join(self._names)
