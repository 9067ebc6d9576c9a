"""What a field of a policy says, in words, and the schema for editors."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.errors import PolicyError
from nats_mesh.policy.decode import MAX_ITEMS, MAX_NAMES
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import Kind, shown
from nats_mesh.policy.layering import RULES
from nats_mesh.policy.parts import Part
from nats_mesh.policy.problems import hint
from nats_mesh.policy.schema import KINDS, LATER_KINDS, Concurrency, Document

__all__ = ["NOT_YET", "default_of", "explain", "json_schema", "written"]

#: What is said of a kind or a field that has no layer.
NOT_YET = "Nothing in this version applies it: it is checked and translated, and refused where it would have to hold."
#: How many places are named where somebody looks for a field at another one.
_SHOWN = 3
#: How a label is called, for JSON Schema.
_LABEL = "^(?!mesh\\.)[A-Za-z0-9_./-]{1,63}$"


def explain(name: str) -> str:
    """The text for `Kind` or `Kind.field`, such as `Destination.breaker.open`; `spec.` may be left out.

    An unknown name is a :class:`PolicyError` that names the nearest known one, or where below it such a field is.
    """
    kind, *path = name.split(".")
    if kind not in KINDS:
        raise PolicyError(f"{shown(kind)} is no kind; {_hint(kind, KINDS, KINDS.items())}", path=name)
    owner: type[Part] = KINDS[kind]
    if path and path[0] not in fields_of(owner):
        path = ["spec", *path]
    part: type[Part] | None = owner
    field: Field | None = None
    later = kind in LATER_KINDS
    at = kind
    for step in path:
        if part is None:
            raise PolicyError(f"{name}: there is nothing below {field.name if field else kind}", path=name)
        known = fields_of(part)
        if step not in known:
            raise PolicyError(
                f"{name}: no field {shown(step)}; {_hint(step, known, [(at, part)])}", path=name
            )
        later = later or step in part.later
        owner, field = part, known[step]
        part = field.part
        at = at if step == "spec" else f"{at}.{step}"
    lines = [name]
    if field is not None:
        lines += [f"  {field.text}", f"  {written(field)}, default: {default_of(owner, field)}"]
    if later:
        lines.append(f"  {NOT_YET}")
    if part is not None:
        inside = fields_of(part)
        width = max(map(len, inside))
        said = inspect.cleandoc(part.__doc__ or "").replace("\n", "\n  ")
        lines += [f"  {said}", ""]
        lines += [f"  {each.name:{width}}  {each.text}" for each in inside.values()]
    return "\n".join(lines)


def _hint(word: str, known: Iterable[str], inside: Iterable[tuple[str, type[Part]]]) -> str:
    """What to look for in place of ``word``: one of ``known`` that is near, where such a field is below ``inside``
    (names and what is there), or which there are."""
    names = list(known)
    below = list(_below(inside))
    by_name: dict[str, list[str]] = {}
    for path in below:
        by_name.setdefault(path.rpartition(".")[2].lower(), []).append(path)
    near = difflib.get_close_matches(word.lower(), [*by_name, *map(str.lower, names)], n=1, cutoff=0.8)
    here = near and near[0] in map(str.lower, names)
    if not near or here or word.lower() in map(str.lower, names):
        said = hint(word, names)
        others = [path for path in _below(KINDS.items()) if path.rpartition(".")[2].lower() == word.lower()]
        return said if here or not others else f"{said}; elsewhere there is {', '.join(others[:_SHOWN])}"
    paths = by_name[near[0]]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"did you mean {', '.join(paths[:_SHOWN])}{more}?"


def _below(inside: Iterable[tuple[str, type[Part]]]) -> Iterator[str]:
    """The fields at ``inside`` and below, as they are asked for, the nearest first."""
    level, seen = list(inside), set[type[Part]]()
    while level:
        further: list[tuple[str, type[Part]]] = []
        for prefix, part in level:
            for field in fields_of(part).values():
                yield f"{prefix}.{field.name}"
                if field.part is not None and field.part not in seen:
                    seen.add(field.part)
                    further.append((prefix if field.name == "spec" else f"{prefix}.{field.name}", field.part))
        level = further


def written(field: Field) -> str:
    """How the value of a field is written, in words."""
    forms: list[str]
    if field.kind is not None:
        forms = [f"{field.kind.name} by name" if field.each == "name" else field.kind.name]
    elif field.part is None:
        forms = ["text"]
    else:
        short = _short(field.part)
        if field.each == "item":
            forms = ["list of mappings", *(["one mapping"] if field.part.alone else [])]
        else:
            by_name = " by name" if field.each else ""
            forms = [f"{'mappings' if by_name else 'mapping'}", *([] if short is None else [short.name])]
            forms[-1] += by_name
    if field.off:
        forms.append("off")
    return forms[0] if len(forms) == 1 else f"{', '.join(forms[:-1])} or {forms[-1]}"


def _short(part: type[Part]) -> Kind | None:
    """How a bare value in the place of a mapping is written."""
    return fields_of(part)[part.short].kind if part.short else None


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
            if field.kind is not None or field.part is not None:
                text = f"{field.text} {NOT_YET}" if field.name in part.later else field.text
                properties[field.name] = {"description": text, **_value(field)}
    for kind in LATER_KINDS:
        definition = definitions[kind]
        definition["description"] = f"{definition['description']} {NOT_YET}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _value(field: Field) -> dict[str, Any]:
    """What may stand there."""
    forms: list[dict[str, Any]]
    if field.part is None:
        assert field.kind is not None
        forms = [dict(field.kind.schema)]
        if field.kind.several:
            forms = [{"type": "array", "items": forms[0], "maxItems": MAX_ITEMS}]
    else:
        forms = [{"$ref": f"#/$defs/{field.part.__name__}"}]
        short = _short(field.part)
        if short is not None and field.each != "item":
            forms.append(dict(short.schema))
    if field.each == "item":
        each = {"type": "array", "items": forms[0], "minItems": 1, "maxItems": MAX_ITEMS}
        forms = [forms[0], each] if field.part is not None and field.part.alone else [each]
    elif field.each == "name":
        names = {"pattern": _LABEL} if field.key is None else dict(field.key.schema)
        forms = [
            {
                "type": "object",
                "propertyNames": names,
                "additionalProperties": _any(forms),
                "maxProperties": MAX_NAMES,
            }
        ]
    if field.off:
        forms.append({"enum": ["off", False]})
    return _any(forms)


def _any(forms: list[dict[str, Any]]) -> dict[str, Any]:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _parts() -> Iterator[type[Part]]:
    seen: set[type[Part]] = set()
    waiting: list[type[Part]] = list(KINDS.values())
    while waiting:
        part = waiting.pop()
        if part not in seen:
            seen.add(part)
            yield part
            waiting += [field.part for field in fields_of(part).values() if field.part is not None]
