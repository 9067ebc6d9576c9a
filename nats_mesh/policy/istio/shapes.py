"""How Istio's YAML is typed: what a field may hold, and how a document is checked against that.

The tables of fields (the modules called ``api_*``) are made of these. A field whose ``reason`` is set has no meaning on
this mesh whatever stands in it: it is checked like any other, and then named with that reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from nats_mesh.policy.kinds import shown
from nats_mesh.policy.problems import Problems, hint
from nats_mesh.policy.reader import Node

__all__ = [
    "DURATION",
    "FLAG",
    "FREE",
    "NUMBER",
    "TEXT",
    "WHOLE",
    "Field",
    "ListOf",
    "MapOf",
    "Message",
    "Scalar",
    "Shape",
    "check",
    "duration_s",
    "enum",
    "joined",
    "lost",
    "many",
    "message",
    "named",
    "whole",
]

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(h|ms|m|us|µs|μs|ns|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Scalar(msgspec.Struct, frozen=True, eq=False):
    """A single value. ``wrong`` says what is wrong with one, or nothing."""

    wrong: Callable[[object], str]


class Message(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """A mapping with named fields. Of the names in one of ``one_of`` at most one may stand in it."""

    name: str
    fields: dict[str, Field]
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    #: What may stand in its place: nothing at all means the mapping without a field.
    empty: bool = False


class ListOf(msgspec.Struct, frozen=True, eq=False):
    """A list of such values; ``filled``: of at least one."""

    item: Shape
    filled: bool = False


class MapOf(msgspec.Struct, frozen=True, eq=False):
    """Such values by names of the user's own."""

    item: Shape


Shape: TypeAlias = Scalar | Message | ListOf | MapOf


class Field(msgspec.Struct, frozen=True, eq=False):
    """One field. ``reason``: why it has no meaning here, where it never has."""

    shape: Shape
    reason: str = ""


def _text(value: object) -> str:
    return "" if isinstance(value, str) else f"must be text, got {shown(value)}"


def _flag(value: object) -> str:
    return "" if isinstance(value, bool) else f"must be true or false, got {shown(value)}"


def _number(value: object) -> str:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return "" if good else f"must be a number, got {shown(value)}"


def _duration(value: object) -> str:
    try:
        duration_s(value)
    except ValueError as error:
        return str(error)
    return ""


def duration_s(value: object) -> float:
    """Seconds of a duration as Istio writes them (`1h30m`, `0.5s`); :class:`ValueError` with the reason."""
    seconds, at = 0.0, 0
    if isinstance(value, str) and value:
        while (part := _DURATION.match(value, at)) is not None:
            seconds += float(part[1]) * _UNITS_S[part[2]]
            at = part.end()
        if at == len(value) or value == "0":
            return seconds
    raise ValueError(f"must be a duration with its unit, such as 250ms, 7s or 1h30m, got {shown(value)}")


TEXT = Scalar(_text)
FLAG = Scalar(_flag)
NUMBER = Scalar(_number)
DURATION = Scalar(_duration)
#: Anything at all.
FREE = Scalar(lambda _: "")


def whole(least: int = 0, most: int = 2**32 - 1) -> Scalar:
    """Whole numbers of a range."""

    def wrong(value: object) -> str:
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return "" if good else f"must be a whole number from {least} to {most}, got {shown(value)}"

    return Scalar(wrong)


WHOLE = whole()


def enum(*words: str) -> Scalar:
    """One of these words."""

    def wrong(value: object) -> str:
        if value in words:
            return ""
        said = f"must be one of {', '.join(words)}, got {shown(value)}"
        return f"{said}; {hint(value, words)}" if isinstance(value, str) and value else said

    return Scalar(wrong)


def lost(shape: Shape, reason: str) -> Field:
    """A field that has no meaning on this mesh, and why."""
    return Field(shape, reason)


def many(shape: Shape, *, filled: bool = False) -> Field:
    """A list of such values."""
    return Field(ListOf(shape, filled))


def named(shape: Shape) -> Field:
    """Such values by name."""
    return Field(MapOf(shape))


def message(
    name: str,
    fields: Mapping[str, Shape | Field],
    *,
    required: tuple[str, ...] = (),
    one_of: tuple[tuple[str, ...], ...] = (),
    empty: bool = False,
) -> Message:
    """A mapping with these fields."""
    made = {key: value if isinstance(value, Field) else Field(value) for key, value in fields.items()}
    return Message(name=name, fields=made, required=required, one_of=one_of, empty=empty)


def joined(path: str, key: str) -> str:
    """The path of a field in what stands at ``path``."""
    word = key if _WORD.fullmatch(key) else shown(key)
    return f"{path}.{word}" if path else word


class Check:
    """Checks one document; what is wrong goes to ``problems``, with its line and path."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems

    def wrong(self, path: str, line: int, text: str) -> None:
        """Note a mistake."""
        self._problems.add(text, file=self._file, line=line, path=path)

    def shape(self, shape: Shape, node: Node, path: str, line: int) -> None:
        """Check a value that stands at ``path``, in ``line``."""
        value = node.value
        if isinstance(shape, Scalar):
            if shape is not FREE and isinstance(value, dict | list):
                self.wrong(path, line, shape.wrong(node.plain()))
            elif text := shape.wrong(value):
                self.wrong(path, line, text)
        elif isinstance(shape, ListOf):
            if not isinstance(value, list):
                self.wrong(path, line, f"must be a list, got {shown(node.plain())}")
                return
            if shape.filled and not value:
                self.wrong(path, line, "names none: leave it out, or write what is meant")
            for index, item in enumerate(value):
                self.shape(shape.item, item, f"{path}[{index}]", item.line)
        elif isinstance(shape, MapOf):
            if not isinstance(value, dict):
                self.wrong(path, line, f"must be a mapping, got {shown(node.plain())}")
                return
            for key, item in value.items():
                self.shape(shape.item, item, joined(path, key), node.key_lines[key])
        else:
            self._message(shape, node, path, line)

    def _message(self, shape: Message, node: Node, path: str, line: int) -> None:
        value = node.value
        if value is None and shape.empty:
            return
        if not isinstance(value, dict):
            self.wrong(path, line, f"must be a mapping, got {shown(node.plain())}")
            return
        for key, item in value.items():
            at = node.key_lines[key]
            field = shape.fields.get(key)
            if field is None:
                near = hint(key, shape.fields) if shape.fields else "nothing may stand here"
                self.wrong(joined(path, key), at, f"is no field of Istio's {shape.name}; {near}")
            elif item.value is not None:  # nothing at all is the same as leaving it out
                self.shape(field.shape, item, joined(path, key), at)
        said = {key for key, item in value.items() if item.value is not None}
        for key in shape.required:
            if key not in said:
                self.wrong(joined(path, key), line, "is missing, and Istio needs it")
        for group in shape.one_of:
            both = [key for key in group if key in said]
            if len(both) > 1:
                self.wrong(path, line, f"says {' and '.join(both)}: only one of them can hold")


def check(shape: Shape, node: Node, path: str, line: int, file: str, problems: Problems) -> None:
    """Check what stands at ``path`` of a document against its shape."""
    Check(file, problems).shape(shape, node, path, line)
