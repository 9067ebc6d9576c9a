"""The schema as data: every field of every part, for whoever reads, explains or lays policies over each other."""

from __future__ import annotations

import functools
import types
import typing
from typing import Any

import msgspec

from nats_mesh.policy.kinds import Kind
from nats_mesh.policy.parts import Part

__all__ = ["Field", "fields_of"]


class Field(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One field. ``name`` as in a file, ``attribute`` as in the struct, ``rule`` as in the rules of the core.

    Exactly one says what it holds: ``kind`` (a value, or with ``each`` == "name" values by name), or ``part`` (a
    mapping; with ``each`` == "item" a list of such, with ``each`` == "name" such by name). ``key`` is how such names
    are written where they are no labels.
    """

    name: str
    attribute: str
    text: str
    kind: Kind | None
    part: type[Part] | None
    each: str
    off: bool
    default: str
    required: bool
    key: Kind | None = None

    @property
    def rule(self) -> str:
        """What the rules of the core call it: the same name, with the unit."""
        return self.attribute + (self.kind.suffix if self.kind is not None else "")


@functools.cache
def fields_of(part: type[Part]) -> dict[str, Field]:
    """The fields of ``part`` by their names in a file, in their order."""
    hints = typing.get_type_hints(part, include_extras=True)
    found = {}
    for declared in msgspec.structs.fields(part):
        annotation, meta = typing.get_args(hints[declared.name])
        held, each = _held(annotation)
        found[declared.encode_name] = Field(
            name=declared.encode_name,
            attribute=declared.name,
            text=meta.description,
            part=held,
            each=each,
            **meta.extra,
        )
    return found


def _held(annotation: Any) -> tuple[type[Part] | None, str]:
    """The part that a field of this type holds, and whether as an item of a list or by name."""
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    for member in members:
        origin, inside = typing.get_origin(member), typing.get_args(member)
        if origin is list and _is_part(inside[0]):
            return inside[0], "item"
        if origin is dict:
            return (inside[1] if _is_part(inside[1]) else None), "name"
        if _is_part(member):
            return member, ""
    return None, ""


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)
