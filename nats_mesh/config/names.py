"""Names in a configuration that its type does not know, wherever in it they stand: pure.

msgspec passes over fields that a struct does not have, unless each struct says otherwise; in a configuration a misspelt
setting would then be a default in silence. So what was decoded is gone through beside its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

__all__ = ["unknown_name"]

_LISTS: Final = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_OBJECTS: Final = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.DictType)
#: What takes a value of any form.
_ANYTHING: Final = (inspect.AnyType, inspect.RawType, inspect.CustomType)


def unknown_name(value: object, kind: type[msgspec.Struct]) -> tuple[str, frozenset[str]] | None:
    """The path of the first name in ``value``, plain data that fits ``kind``, that is no field there, and the fields
    that there are; ``None`` where all are known."""
    try:
        described = inspect.type_info(kind)
    except (TypeError, NameError):  # of a type that cannot be described nothing is known
        return None
    return _walk(value, described, "")


def _walk(value: object, kind: inspect.Type, path: str) -> tuple[str, frozenset[str]] | None:
    if isinstance(kind, inspect.Metadata):
        return _walk(value, kind.type, path)
    if isinstance(kind, inspect.UnionType):
        return _in_union(value, kind.types, path)
    if isinstance(value, dict):
        if isinstance(kind, inspect.StructType) and not kind.array_like:
            fields = {field.encode_name: field.type for field in kind.fields}
            return _fields(value, fields, path, kind.tag_field)
        if isinstance(kind, inspect.DataclassType | inspect.TypedDictType):
            return _fields(value, {field.encode_name: field.type for field in kind.fields}, path)
        if isinstance(kind, inspect.DictType):
            return _first((f"{path}.{name}", each, kind.value_type) for name, each in value.items())
    elif isinstance(value, list):
        if isinstance(kind, _LISTS):
            return _first((f"{path}[{at}]", each, kind.item_type) for at, each in enumerate(value))
        if isinstance(kind, inspect.TupleType):
            pairs = zip(value, kind.item_types, strict=False)
            return _first((f"{path}[{at}]", each, type_) for at, (each, type_) in enumerate(pairs))
        if isinstance(kind, inspect.StructType) and kind.array_like:
            pairs = zip(value, [field.type for field in kind.fields], strict=False)
            return _first((f"{path}[{at}]", each, type_) for at, (each, type_) in enumerate(pairs))
    return None


def _fields(
    value: Mapping[str, Any], fields: Mapping[str, inspect.Type], path: str, tag_field: str | None = None
) -> tuple[str, frozenset[str]] | None:
    for name in value:
        if name not in fields and name != tag_field:
            return f"{path}.{name}", frozenset(fields)
    return _first((f"{path}.{name}", value[name], kind) for name, kind in fields.items() if name in value)


def _first(parts: Iterable[tuple[str, object, inspect.Type]]) -> tuple[str, frozenset[str]] | None:
    return next((found for path, each, kind in parts if (found := _walk(each, kind, path))), None)


def _in_union(value: object, kinds: Iterable[inspect.Type], path: str) -> tuple[str, frozenset[str]] | None:
    """Of the types that ``value`` could be of: it is a name that none of them knows, or none is."""
    found: tuple[str, frozenset[str]] | None = None
    for kind in kinds:
        if not _could_be(value, kind):
            continue
        unknown = _walk(value, kind, path)
        if unknown is None:
            return None
        found = found or unknown
    return found


def _could_be(value: object, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _could_be(value, kind.type)
    if isinstance(kind, inspect.StructType) and kind.tag_field is not None and isinstance(value, dict):
        return bool(value.get(kind.tag_field) == kind.tag)
    if isinstance(value, dict):
        return isinstance(kind, (*_OBJECTS, *_ANYTHING))
    if isinstance(value, list):
        listed = isinstance(kind, inspect.StructType) and kind.array_like
        return listed or isinstance(kind, (*_LISTS, inspect.TupleType, *_ANYTHING))
    return False
