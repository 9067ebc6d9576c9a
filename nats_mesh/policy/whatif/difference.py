"""What two sets of documents have that the other has not: by their content, whatever file it stands in.

A document is compared as it was understood and written back in one way, so that order, comments, short forms and the
unit of a duration are no difference.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import Kind
from nats_mesh.policy.parts import Part
from nats_mesh.policy.scopes import namespace_of

__all__ = ["Change", "ChangeKind", "difference", "plain_of", "text_of"]

ChangeKind: TypeAlias = Literal["added", "removed", "changed"]
_OFF = "off"
_AS_THEY_ARE = ("integer", "number", "boolean")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One document that is not the same in both. ``before`` and ``after`` are its places (`file:line`), ``diff`` the
    unified difference of its YAML."""

    policy: str
    kind: ChangeKind
    before: str = ""
    after: str = ""
    diff: str = ""


def difference(
    old: Iterable[Policy], new: Iterable[Policy], *, namespace: str = "default"
) -> tuple[Change, ...]:
    """The documents that were added, removed or changed, by their names. ``namespace`` is that of documents which name
    none; of several documents of one name the last one counts."""
    before, after = _by_name(old, namespace), _by_name(new, namespace)
    changes: list[Change] = []
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        if one is not None and other is not None and one.document == other.document:
            continue
        present = one if one is not None else other
        assert present is not None, "it is in one of them"
        kind: ChangeKind = "added" if one is None else "removed" if other is None else "changed"
        changes.append(
            Change(
                policy=present.name if key[0] == namespace else f"{present.name} in {key[0]}",
                kind=kind,
                before="" if one is None else one.place,
                after="" if other is None else other.place,
                diff=_diff(present.name, one, other),
            )
        )
    return tuple(changes)


def _by_name(policies: Iterable[Policy], namespace: str) -> dict[tuple[str, str], Policy]:
    found: dict[tuple[str, str], Policy] = {}
    for policy in policies:
        found[namespace_of(policy, namespace), policy.name] = policy
    return found


def _diff(name: str, one: Policy | None, other: Policy | None) -> str:
    before = [] if one is None else text_of(one).splitlines()
    after = [] if other is None else text_of(other).splitlines()
    lines = difflib.unified_diff(
        before,
        after,
        "/dev/null" if one is None else f"{name} ({one.place})" if one.file else name,
        "/dev/null" if other is None else f"{name} ({other.place})" if other.file else name,
        lineterm="",
    )
    return "\n".join(lines)


def text_of(policy: Policy) -> str:
    """A document as YAML, always written the same way."""
    import yaml  # which who compares nothing can do without

    text: str = yaml.safe_dump(plain_of(policy), sort_keys=False, allow_unicode=True, width=100)
    return text


def plain_of(policy: Policy) -> dict[str, Any]:
    """A document as plain values, as a file would have them."""
    document = {"apiVersion": policy.document.api_version, "kind": policy.kind}
    return document | {
        name: value for name, value in _part(policy.document).items() if name not in ("apiVersion", "kind")
    }


def _part(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields_of(type(part)).values():
        value = getattr(part, field.attribute)
        if value is not UNSET:
            found[field.name] = _field(field, value)
    return found


def _field(field: Field, value: Any) -> Any:
    if value == _OFF and field.off:
        return _OFF
    if isinstance(value, Part):
        return _part(value)
    if isinstance(value, Mapping):
        return {
            name: _part(each) if isinstance(each, Part) else _single(field.kind, each)
            for name, each in sorted(value.items())
        }
    if isinstance(value, list | tuple | frozenset):
        items = sorted(value) if isinstance(value, frozenset) else value
        return [_part(each) if isinstance(each, Part) else _single(field.kind, each) for each in items]
    return _single(field.kind, value)


def _single(kind: Kind | None, value: Any) -> Any:
    """One value: a number or a flag as it is, everything else in the words of a policy."""
    if kind is None or (kind.schema.get("type") in _AS_THEY_ARE and not isinstance(value, str)):
        return value
    return kind.write(value)
