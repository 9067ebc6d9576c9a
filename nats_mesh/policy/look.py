"""What checks of a whole policy are made of: saying what is wrong at its line, and questions that come up often."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import UNSET

from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.parts import Part
from nats_mesh.policy.problems import joined
from nats_mesh.policy.routing_parts import HeaderMatch, Sticky

__all__ = ["Look", "Wrong"]

#: Notes a mistake: the path, the line, and what is wrong.
Wrong: TypeAlias = Callable[[str, int, str], None]


class Look:
    """A look at one document; ``lines`` has the line of every field that is there, also of those that were refused."""

    def __init__(self, lines: Mapping[str, int], wrong: Wrong) -> None:
        self.lines = lines
        self._wrong = wrong
        self._parents: set[str] | None = None

    def say(self, path: str, message: str) -> None:
        """Note what is wrong with ``path``."""
        where, line = path, self.lines.get(path)
        while line is None and "." in where:  # a mapping that is written in short has no line of its own
            where = where.rpartition(".")[0]
            line = self.lines.get(where)
        self._wrong(path, 0 if line is None else line, message)

    def place(self, path: str, index: int) -> str:
        """The path of an item of a list, which may be written without the list."""
        where = f"{path}[{index}]"
        return where if where in self.lines else path

    def says(self, path: str, names: Collection[str]) -> bool:
        """Whether any of the fields ``names`` stands below ``path``."""
        return any(f"{path}.{name}" in self.lines for name in names)

    def stands(self, path: str) -> bool:
        """Whether anything stands below ``path``."""
        if self._parents is None:
            self._parents = _parents(self.lines)
        return path in self._parents

    def something(self, path: str, names: Sequence[str]) -> None:
        """At least one of ``names`` must be said."""
        if not self.says(path, names):
            self.say(path, f"says nothing: give it {_either(names)}")

    def one_of(self, path: str, part: Part, names: Sequence[str]) -> None:
        """Exactly one of ``names`` must be said."""
        attributes = {field.name: field.attribute for field in fields_of(type(part)).values()}
        said = [name for name in names if getattr(part, attributes[name]) is not UNSET]
        if not said and not self.says(path, names):
            self.say(path, f"says nothing: give it one of {', '.join(names)}")
        elif len(said) > 1:
            self.say(path, f"says {' and '.join(said)}: only one of them can hold")

    def positive(self, path: str, value: object, unit: str = "0s") -> None:
        """A value that is set must not be zero."""
        if value == 0.0:
            self.say(path, f"must be above {unit}")

    def at_least(self, path: str, value: Any, least: float, words: str = "") -> None:
        """A value that is set must not be smaller; ``words`` is how the least one is written."""
        if value is not UNSET and value < least:
            self.say(path, f"must be {words or f'{least:g}'} or more")

    def names(self, path: str, part: Part, attributes: Sequence[str]) -> None:
        """A list or a mapping that is there must not be empty: does it mean none, or all?"""
        fields = {field.attribute: field.name for field in fields_of(type(part)).values()}
        for attribute in attributes:
            value = getattr(part, attribute)
            if value is not UNSET and not value:
                name = fields[attribute]
                if not self.stands(f"{path}.{name}"):  # else all of it was refused
                    self.say(f"{path}.{name}", "names none: leave it out to mean all of them")

    def conditions(self, path: str, headers: Any) -> None:
        """Each condition on a header, or on what is asked for as a header is."""
        for name, said in {} if headers is UNSET else headers.items():
            self._condition(joined(path, name), said)

    def _condition(self, path: str, header: HeaderMatch) -> None:
        self.one_of(path, header, ("exact", "prefix", "suffix", "regex", "present", "absent", "range"))
        bounds = header.range
        if bounds is not UNSET:
            if bounds.start is UNSET and bounds.end is UNSET:
                self.say(f"{path}.range", "bounds nothing: give it a start, an end, or both")
            elif bounds.start is not UNSET and bounds.end is not UNSET and bounds.start >= bounds.end:
                self.say(f"{path}.range", f"no number is from {bounds.start} on and below {bounds.end}")

    def sticky(self, path: str, sticky: Any) -> None:
        """What keeps calls together, where it is said."""
        if isinstance(sticky, Sticky):
            self.one_of(path, sticky, ("header", "claim", "identity"))
            if sticky.identity is False:
                self.say(f"{path}.identity", "must be true, or left out")


def _parents(paths: Collection[str]) -> set[str]:
    """Every path that another one lies below."""
    found: set[str] = set()
    for path in paths:
        while (end := max(path.rfind("."), path.rfind("["))) > 0:
            path = path[:end]
            if path in found:
                break
            found.add(path)
    return found


def _either(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    both = f"{', '.join(names[:-1])} or {names[-1]}"
    return f"{both}, or both" if len(names) == 2 else f"{both}, or several"
