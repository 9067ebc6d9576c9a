"""What a field of a policy says, in words, and the schema for editors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec

from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.errors import PolicyError
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import BALANCER, shown
from nats_mesh.policy.layering import RULES
from nats_mesh.policy.parts import Balancer, Part
from nats_mesh.policy.problems import hint, later_text
from nats_mesh.policy.schema import API_VERSION, KINDS, LATER_KINDS, Concurrency, Document

__all__ = ["default_of", "explain", "json_schema", "written"]


def explain(name: str) -> str:
    """The text for `Kind` or `Kind.field`, such as `Destination.breaker.open`; `spec.` may be left out.

    An unknown name is a :class:`PolicyError` that names the nearest known one.
    """
    kind, *path = name.split(".")
    if kind not in KINDS:
        if kind in LATER_KINDS:
            reason = f"{kind} is a kind of {API_VERSION}, but this version applies none yet"
        else:
            reason = f"{shown(kind)} is no kind; {hint(kind, KINDS)}"
        raise PolicyError(reason, path=name)
    owner: type[Part] = KINDS[kind]
    if path and path[0] not in fields_of(owner):
        path = ["spec", *path]
    part: type[Part] | None = owner
    field: Field | None = None
    for step in path:
        if part is None:
            raise PolicyError(f"{name}: there is nothing below {field.name if field else kind}", path=name)
        known = fields_of(part)
        if step not in known:
            later = part.later.get(step)
            reason = f"no field {shown(step)}; {hint(step, known)}" if later is None else later_text(later)
            raise PolicyError(f"{name}: {reason}", path=name)
        owner, field = part, known[step]
        part = field.part
    lines = [name]
    if field is not None:
        lines += [f"  {field.text}", f"  {written(field)}, default: {default_of(owner, field)}"]
    if part is not None:
        inside = fields_of(part)
        width = max(map(len, inside))
        lines += [f"  {inspect.cleandoc(part.__doc__ or '')}", ""]
        lines += [f"  {each.name:{width}}  {each.text}" for each in inside.values()]
    return "\n".join(lines)


def written(field: Field) -> str:
    """How the value of a field is written, in words."""
    if field.kind is not None:
        words = f"{field.kind.name} by name" if field.each == "name" else field.kind.name
    elif field.part is None:
        words = "text"
    else:
        words = {"item": "list of mappings", "name": "mappings by name"}.get(field.each, "mapping")
    return f"{words} or off" if field.off else words


def default_of(part: type[Part], field: Field) -> str:
    """What holds where nobody says anything, as it would be written."""
    if field.required:
        return "none, it must be said"
    if field.default:
        return field.default
    rules = ConcurrencyRules if part is Concurrency else RULES.get(part)
    if rules is None or field.kind is None:
        return "none" if field.part is None else "on, see its fields" if field.off else "see its fields"
    default: Any = getattr(rules(), field.rule)
    if field.kind.several:
        return f"[{', '.join(sorted(default))}]"
    return field.kind.write(default)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one document, for editors; what only holds in company is not in it."""
    (schema,), definitions = msgspec.json.schema_components([Document], ref_template="#/$defs/{name}")
    for part in _parts():
        properties = definitions[part.__name__]["properties"]
        for field in fields_of(part).values():
            properties[field.name] = _property(field, properties[field.name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _property(field: Field, generated: dict[str, Any]) -> dict[str, Any]:
    if field.kind is None:
        if field.part is not Balancer:
            return generated
        reference = {"$ref": generated["$ref"]}
        return {"description": field.text, "anyOf": [reference, dict(BALANCER.schema)]}
    one = dict(field.kind.schema)
    if field.off:
        one = {"anyOf": [one, {"enum": ["off"]}]}
    if field.kind.several:
        one = {"type": "array", "items": one}
    elif field.each == "name":
        one = {"type": "object", "additionalProperties": one}
    return {"description": field.text, **one}


def _parts() -> Iterator[type[Part]]:
    seen: set[type[Part]] = set()
    waiting: list[type[Part]] = list(KINDS.values())
    while waiting:
        part = waiting.pop()
        if part not in seen:
            seen.add(part)
            yield part
            waiting += [field.part for field in fields_of(part).values() if field.part is not None]
