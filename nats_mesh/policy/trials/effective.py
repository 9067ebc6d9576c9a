"""Any value of the effective policy, by its path in a policy: `retry.backoff.max`, `breaker.open`, `concurrency.limit`.

The paths are those of `Destination` and of `Limit`'s `concurrency`, as far as something applies them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import Kind, shown
from nats_mesh.policy.layering import BLOCKS
from nats_mesh.policy.parts import Part
from nats_mesh.policy.problems import hint, later_text
from nats_mesh.policy.rules import InboundRules, OutboundRules
from nats_mesh.policy.schema import Concurrency, DestinationSpec, LimitSpec

__all__ = ["OFF", "VALUES", "found_at", "is_inbound", "source_of", "written"]

#: What is off, or said by nobody.
OFF: Final = "off"
_LIMIT: Final = "concurrency"


@functools.cache
def _paths() -> Mapping[str, Field]:
    """Every path that has a value, with its field."""
    found: dict[str, Field] = {}

    def take(field: Field, path: str) -> None:
        if field.part is None:
            found[path] = field
            return
        if field.off:
            found[path] = field
        for name, inner in fields_of(field.part).items():
            if name not in field.part.later:
                take(inner, f"{path}.{name}")

    top = fields_of(DestinationSpec)
    for field in (top["timeout"], top["idempotent"], *BLOCKS):
        take(field, field.name)
    for name, field in fields_of(Concurrency).items():
        if name not in Concurrency.later:
            found[f"{_LIMIT}.{name}"] = field
    return found


def is_inbound(path: str) -> bool:
    """Whether it is a value of instances, and not of callers."""
    return path.startswith(f"{_LIMIT}.")


def found_at(path: str, outbound: OutboundRules, inbound: InboundRules) -> Any:
    """What holds at ``path``: the value; :data:`OFF` where it is off, or nobody says it; ``on`` for a block that is."""
    held: Any = outbound
    part: type[Part] = DestinationSpec
    names = path.split(".")
    if is_inbound(path):
        held, part, names = inbound.concurrency, Concurrency, names[1:]
    for name in names:
        if held is None:
            return OFF
        field = fields_of(part)[name]
        held = getattr(held, field.rule)
        if field.part is not None:
            part = field.part
    if held is None:
        return OFF
    return "on" if isinstance(held, msgspec.Struct) else _plain(held)


def source_of(path: str, sources: Mapping[str, str]) -> str:
    """Where the value comes from; inside a block that is off, who says that."""
    while path and path not in sources:
        path = path.rpartition(".")[0]
    return sources.get(path, "")


def written(path: str, value: Any) -> str:
    """A value as a policy writes it."""
    kind = _paths()[path].kind
    if value in (OFF, "on") or kind is None:
        return str(value)
    if kind.several:
        return ", ".join(value)
    return ("true" if value else "false") if isinstance(value, bool) else str(kind.write(value))


def _plain(value: Any) -> Any:
    """A set of words in the order in which it is compared and shown."""
    return sorted(value) if isinstance(value, frozenset | set | tuple | list) else value


def _parse(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping such as {{retry.attempts: 3}}, got {shown(value)}")
    if not value:
        raise ValueError("expects nothing: say at least one value, such as {retry.attempts: 3}")
    return {path: _value(path, node) for path, node in value.items()}


def _value(path: str, node: Any) -> Any:
    later = {**LimitSpec.later, **DestinationSpec.later}
    first = path.partition(".")[0]
    if first in later:
        raise ValueError(f"{path}: {later_text(later[first])}, so nothing comes of it")
    field = _paths().get(path)
    if field is None:
        raise ValueError(f"{shown(path)} is no value that a policy decides; {_near(path)}")
    if node.value == OFF or (node.value is False and (field.part is not None or field.off)):
        return OFF
    if field.kind is None:
        if node.value is True or node.value == "on":
            return "on"
        raise ValueError(f"{path}: must be on or off, got {shown(node.plain())}")
    try:
        if field.kind.several:
            items = node.value if isinstance(node.value, list) else [node]
            return sorted({field.kind.parse(each.value) for each in items})
        return field.kind.parse(node.value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _near(path: str) -> str:
    """The paths that are near, or those at the same place."""
    inside = [each for each in _paths() if each.startswith(f"{path}.")]
    return f"say which of it: {', '.join(inside)}" if inside else hint(path, _paths())


VALUES = Kind(name="values by their paths in a policy", parse=_parse, write=str, schema={"type": "object"})
