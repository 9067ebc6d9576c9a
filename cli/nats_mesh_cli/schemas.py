"""JSON schemas for people: ``Order`` is ``{sku: string, count: integer = 1}``. Pure.

What comes from the bus may hold anything, so depth and length are bounded and nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["definitions", "type_name"]

_MAX_DEPTH = 8
_MAX_FIELDS = 64
_MAX_DEFINITIONS = 64
_NAMED = "#/$defs/"


def type_name(schema: Any, depth: int = 0) -> str:
    """The type on one line; structs by name."""
    if schema is True or schema == {}:
        return "any"
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return "…"
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return reference.removeprefix(_NAMED)
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            return " | ".join(dict.fromkeys(type_name(option, depth + 1) for option in options[:_MAX_FIELDS]))
    if isinstance(options := schema.get("allOf"), list) and len(options) == 1:
        return type_name(options[0], depth + 1)
    if isinstance(values := schema.get("enum"), list):
        return " | ".join(_literal(value) for value in values[:_MAX_FIELDS])
    if "const" in schema:
        return _literal(schema["const"])
    return _by_type(schema, depth)


def _by_type(schema: Mapping[str, Any], depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(str(each) for each in kind)
    if kind == "array":
        if isinstance(items := schema.get("prefixItems"), list):
            return f"[{', '.join(type_name(item, depth + 1) for item in items[:_MAX_FIELDS])}]"
        item = type_name(schema.get("items", {}), depth + 1)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if kind == "object":
        if isinstance(schema.get("properties"), Mapping):
            return str(schema.get("title") or _fields(schema, depth))
        extra = schema.get("additionalProperties", True)
        return f"{{string: {type_name(extra, depth + 1)}}}"
    if isinstance(kind, str):
        detail = schema.get("format") or schema.get("contentEncoding")
        return f"{kind} ({detail})" if isinstance(detail, str) else kind
    return "any"


def _fields(schema: Mapping[str, Any], depth: int) -> str:
    properties = schema["properties"]
    listed = schema.get("required")
    required = listed if isinstance(listed, list) else []
    shown = []
    for name, field in list(properties.items())[:_MAX_FIELDS]:
        text = f"{name}: {type_name(field, depth + 1)}"
        if isinstance(field, Mapping) and "default" in field:
            text += f" = {_literal(field['default'])}"
        elif name not in required:
            text = text.replace(":", "?:", 1)
        shown.append(text)
    if len(properties) > _MAX_FIELDS:
        shown.append(f"… {len(properties) - _MAX_FIELDS} more")
    return f"{{{', '.join(shown)}}}"


def definitions(*schemas: Any) -> list[tuple[str, str]]:
    """Every named struct that these schemas use, with its fields on one line."""
    found: dict[str, str] = {}
    for schema in schemas:
        if not isinstance(schema, Mapping):
            continue
        named = schema.get("$defs", {})
        if isinstance(schema.get("properties"), Mapping):
            found.setdefault(str(schema.get("title", "")), _fields(schema, 0))
        if isinstance(named, Mapping):
            for name, definition in list(named.items())[:_MAX_DEFINITIONS]:
                found.setdefault(name, _definition(definition))
    found.pop("", None)
    return list(found.items())


def _definition(definition: Any) -> str:
    if isinstance(definition, Mapping) and isinstance(definition.get("properties"), Mapping):
        return _fields(definition, 0)
    return type_name(definition)


def _literal(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return "…"
