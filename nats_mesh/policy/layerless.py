"""What a policy says that nothing in this version applies: named, so that nobody takes it for being in effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.parts import Part
from nats_mesh.policy.schema import LATER_KINDS, LimitSpec

__all__ = ["layerless", "without_layerless"]


def layerless(policy: Policy) -> Iterator[tuple[str, str]]:
    """The path of everything in ``policy`` that has no layer yet, and what it would do; of a whole kind only that."""
    if policy.kind in LATER_KINDS:
        yield "kind", f"{policy.kind} policies"
    else:
        yield from _within(policy.document.spec, "spec")


def without_layerless(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """What of ``policies`` a :class:`~nats_mesh.policy.PolicySet` can apply: those that have nothing else as they are,
    the others without what has no layer, and without those that would then limit nothing."""
    found = []
    for policy in policies:
        if policy.kind in LATER_KINDS:
            continue
        spec = policy.document.spec
        left = _stripped(spec)
        if left is spec:
            found.append(policy)
        elif not isinstance(left, LimitSpec) or left.concurrency is not UNSET:
            # mypy cannot know that the spec of a kind stays one of that kind
            document: Any = msgspec.structs.replace(policy.document, spec=left)
            found.append(msgspec.structs.replace(policy, document=document))
    return tuple(found)


def _within(part: Part, path: str) -> Iterator[tuple[str, str]]:
    for field in fields_of(type(part)).values():
        value = getattr(part, field.attribute)
        where = f"{path}.{field.name}"
        if value is UNSET:
            continue
        if field.name in part.later:
            yield where, part.later[field.name]
        elif isinstance(value, Part):
            yield from _within(value, where)
        elif field.part is not None and isinstance(value, dict):
            for name, each in value.items():
                yield from _within(each, f"{where}.{name}")
        elif field.part is not None and isinstance(value, list):
            for index, each in enumerate(value):
                yield from _within(each, f"{where}[{index}]")


def _stripped(part: Part) -> Part:
    """``part`` itself where everything in it has a layer, else a copy without what has none."""
    changed: dict[str, Any] = {}
    for field in fields_of(type(part)).values():
        value = getattr(part, field.attribute)
        if value is UNSET:
            continue
        left = UNSET if field.name in part.later else _stripped_value(field, value)
        if left is not value:
            changed[field.attribute] = left
    return msgspec.structs.replace(part, **changed) if changed else part


def _stripped_value(field: Field, value: Any) -> Any:
    if isinstance(value, Part):
        left = _stripped(value)
        if left is not value and not field.required and _is_empty(left):
            return UNSET  # it said nothing else
        return left
    if field.part is None:
        return value
    # A rule of a route stays, also where nothing is left of what it does: it keeps its calls from those below it.
    if isinstance(value, list):
        items = [_stripped(each) for each in value]
        return items if any(map(_differ, items, value)) else value
    if isinstance(value, dict):
        by_name = {name: _stripped(each) for name, each in value.items()}
        return by_name if any(by_name[name] is not value[name] for name in value) else value
    return value


def _differ(one: Part, other: Part) -> bool:
    return one is not other


def _is_empty(part: Part) -> bool:
    return all(getattr(part, name) is UNSET for name in part.__struct_fields__)
