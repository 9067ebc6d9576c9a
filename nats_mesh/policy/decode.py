"""From what stands in a file to policies: every field checked against the schema, every mistake with its line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.presence import check_labels
from nats_mesh.errors import ConfigError
from nats_mesh.policy.checks import check_together
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.gateway_parts import GatewaySpec
from nats_mesh.policy.kinds import Kind, shown
from nats_mesh.policy.parts import Part, Target
from nats_mesh.policy.problems import Problems, hint, joined, later_text, place
from nats_mesh.policy.rules import source_text
from nats_mesh.policy.schema import API_VERSION, KINDS, Document

if TYPE_CHECKING:
    from nats_mesh.policy.reader import Node

__all__ = ["MAX_ITEMS", "MAX_NAMES", "TEST_KIND", "Policy", "decode", "decode_node", "decode_part", "parse"]

#: Limits within a document.
MAX_ITEMS = 1000
MAX_NAMES = 64

#: Documents that say what policies shall do. They may stand beside policies, and are none.
TEST_KIND = "PolicyTest"

_MISSING: Any = object()


class Policy(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One document and where it stands. ``lines`` has the line of every field by its path (`spec.retry.attempts`)."""

    document: Document
    file: str
    line: int
    lines: Mapping[str, int]

    @property
    def kind(self) -> str:
        """`Destination`, `Route`, `Limit`, …"""
        return type(self.document).__name__

    @property
    def name(self) -> str:
        """What errors and `describe` call it: `Destination/orders`."""
        return f"{self.kind}/{self.document.metadata.name}"

    @property
    def target(self) -> Target | UnsetType:
        """What it is about; ``UNSET`` for the whole namespace, and for a `Gateway`, which has no target."""
        spec = self.document.spec
        return UNSET if isinstance(spec, GatewaySpec) else spec.target

    @property
    def place(self) -> str:
        """`file:line`."""
        return place(self.file, self.line)

    def place_of(self, path: str) -> str:
        """`file:line` of a field, or of the document that does not write it; empty where it is in no file."""
        return place(self.file, self.lines.get(path, self.line)) if self.file else ""

    def source_of(self, path: str) -> str:
        """Where a value comes from: its name, and the place of the field where there is one."""
        return source_text(self.name, self.file, self.lines.get(path, self.line))


def parse(content: bytes | str, *, file: str = "") -> tuple[Policy, ...]:
    """The policies in a file's content; everything that is wrong with it is one :class:`PolicyError`."""
    problems = Problems()
    policies = decode(content.encode() if isinstance(content, str) else content, file, problems)
    problems.raise_if_any()
    return tuple(policies)


def decode(content: bytes, file: str, problems: Problems) -> list[Policy]:
    """The policies in a file's content that are in order; what is wrong goes to ``problems``."""
    from nats_mesh.policy.reader import read  # and PyYAML with it, which who reads no files can do without

    found = []
    for node in read(content, file, problems):
        if (policy := decode_node(node, file, problems)) is not None:
            found.append(policy)
    return found


def decode_node(node: Node, file: str, problems: Problems) -> Policy | None:
    """The policy in a document that was read already; ``None`` where something is wrong with it."""
    before = len(problems)
    reading = _Reading(file, problems)
    document = reading.document(node)
    if document is None or len(problems) > before:
        return None
    return Policy(document=document, file=file, line=node.line, lines=reading.lines)


def decode_part(
    part: type[Part], node: Node, file: str, problems: Problems
) -> tuple[Part | None, Mapping[str, int]]:
    """A document that is no policy, and is written as they are; and the line of every field."""
    before = len(problems)
    reading = _Reading(file, problems)
    found = reading.whole(part, node)
    return (found if len(problems) == before else None), reading.lines


class _Reading:
    """The reading of one document."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.lines: dict[str, int] = {}
        self._file = file
        self._problems = problems

    def _wrong(self, path: str, line: int, message: str) -> None:
        self._problems.add(message, file=self._file, line=line, path=path)

    def document(self, node: Node) -> Document | None:
        """The document, or ``None`` where it is too wrong to be one."""
        if not isinstance(node.value, dict):
            said = "a policy is a mapping with apiVersion, kind, metadata and spec"
            self._wrong("", node.line, f"{said}, not {shown(node.plain())}")
            return None
        version = self._head(node, "apiVersion", f"write {API_VERSION}")
        if version is not None and version != API_VERSION:
            also = "; nats-mesh policy convert translates Istio's" if ".istio.io/" in version else ""
            line = node.key_lines["apiVersion"]
            self._wrong(
                "apiVersion", line, f"{shown(version)} is unknown: this version reads {API_VERSION}{also}"
            )
        kind = self._head(node, "kind", f"one of {', '.join(KINDS)}")
        if version != API_VERSION or kind is None:
            return None
        if kind == TEST_KIND:
            return None
        if kind not in KINDS:
            message = f"{shown(kind)} is no kind of {API_VERSION}; {hint(kind, KINDS)}"
            self._wrong("kind", node.key_lines["kind"], message)
            return None
        self.lines["kind"] = node.key_lines["kind"]
        document = cast("Document | None", self._part(KINDS[kind], node, ""))
        if document is not None:
            check_together(document, self.lines, self._wrong)
        return document

    def whole(self, part: type[Part], node: Node) -> Part | None:
        """A document that is known to be such a one."""
        return self._part(part, node, "")

    def _head(self, node: Node, key: str, what: str) -> str | None:
        assert isinstance(node.value, dict)
        child = node.value.get(key)
        if child is None:
            self._wrong(key, node.line, f"is missing: {what}")
            return None
        if not isinstance(child.value, str):
            self._wrong(key, node.key_lines[key], f"must be text, got {shown(child.plain())}: {what}")
            return None
        return child.value

    def _part(self, part: type[Part], node: Node, path: str) -> Part | None:
        known = fields_of(part)
        if not isinstance(node.value, dict):
            self._wrong(
                path, node.line, f"must be a mapping with {', '.join(known)}, got {shown(node.plain())}"
            )
            return None
        values: dict[str, Any] = {}
        for key, child in node.value.items():
            line = node.key_lines[key]
            where = joined(path, key)
            field = known.get(key)
            if field is None:
                if path or key not in ("kind", "apiVersion"):
                    self._unknown(part, key, where, line)
            elif child.value is None:
                self._wrong(where, line, "has no value: give it one, or leave the line out")
            elif field.kind is None and field.part is None:
                values[field.attribute] = child.value  # apiVersion, which is checked already
            else:
                self.lines[where] = line
                value = self._field(field, child, where, line)
                if value is not _MISSING:
                    values[field.attribute] = value
        missing = [f for f in known.values() if f.required and f.attribute not in values]
        for field in missing:
            if field.name not in node.value:
                self._wrong(joined(path, field.name), node.line, f"is missing: {field.text}")
        return None if missing else part(**values)

    def _unknown(self, part: type[Part], key: str, where: str, line: int) -> None:
        if key in part.later:
            self._wrong(where, line, f"{later_text(part.later[key])}; remove it")
        else:
            self._wrong(where, line, f"is no field here; {hint(key, (*fields_of(part), *part.later))}")

    def _field(self, field: Field, node: Node, path: str, line: int) -> Any:
        if field.off and (node.value == "off" or node.value is False):
            return "off"
        if field.each == "name":
            return self._by_name(field, node, path, line)
        if field.part is None:
            assert field.kind is not None
            if field.kind.several:
                return self._list(field.kind, node, path, line)
            return self._value(field.kind, node, path, line, off=field.off)
        if field.each == "item":
            return self._parts(field.part, node, path, line)
        if field.part.short and not isinstance(node.value, dict | list):
            return self._short(field.part, node, path, line, off=field.off)
        if field.off and not isinstance(node.value, dict):
            fields = ", ".join(fields_of(field.part))
            self._wrong(path, line, f"must be off, or a mapping with {fields}; got {shown(node.plain())}")
            return _MISSING
        value = self._part(field.part, node, path)
        return _MISSING if value is None else value

    def _short(self, part: type[Part], node: Node, path: str, line: int, *, off: bool = False) -> Any:
        """A bare value in the place of a mapping."""
        short = fields_of(part)[part.short]
        self.lines[f"{path}.{short.name}"] = line
        assert short.kind is not None
        value = self._value(short.kind, node, path, line, off=off)
        return value if value is _MISSING else part(**{short.attribute: value})

    def _value(self, kind: Kind, node: Node, path: str, line: int, *, off: bool = False) -> Any:
        try:
            return kind.parse(cast("Any", node.value))
        except ValueError as error:
            self._wrong(path, line, f"{error}{', or off' if off else ''}")
            return _MISSING

    def _list(self, kind: Kind, node: Node, path: str, line: int) -> Any:
        if not isinstance(node.value, list) or len(node.value) > MAX_ITEMS:
            self._wrong(
                path, line, f"must be a list of up to {MAX_ITEMS}, such as [a, b]; got {shown(node.value)}"
            )
            return _MISSING
        values = []
        for index, item in enumerate(node.value):
            where = sys.intern(f"{path}[{index}]")
            self.lines[where] = item.line
            values.append(self._value(kind, item, where, item.line))
        return list(dict.fromkeys(value for value in values if value is not _MISSING))

    def _parts(self, part: type[Part], node: Node, path: str, line: int) -> Any:
        if part.alone and isinstance(node.value, dict):
            value = self._part(part, node, path)
            return _MISSING if value is None else [value]
        if not isinstance(node.value, list) or not 0 < len(node.value) <= MAX_ITEMS:
            self._wrong(path, line, f"must be a list of 1 to {MAX_ITEMS} mappings, got {shown(node.plain())}")
            return _MISSING
        values = []
        for index, item in enumerate(node.value):
            where = f"{path}[{index}]"
            self.lines[where] = item.line
            values.append(self._part(part, item, where))
        return [value for value in values if value is not None]

    def _by_name(self, field: Field, node: Node, path: str, line: int) -> Any:
        if not isinstance(node.value, dict) or len(node.value) > MAX_NAMES:
            self._wrong(
                path, line, f"must be a mapping of up to {MAX_NAMES} names, got {shown(node.plain())}"
            )
            return _MISSING
        values: dict[str, Any] = {}
        for key, child in node.value.items():
            where, at = joined(path, key), node.key_lines[key]
            self.lines[where] = at
            try:
                if field.part is None:
                    assert field.kind is not None
                    values.update(check_labels({key: field.kind.parse(cast("Any", child.value))}))
                    continue
                name = key if field.key is None else field.key.parse(key)
                if child.value is None:
                    self._wrong(where, at, "has no value: give it one, or leave the line out")
                elif field.part.short and not isinstance(child.value, dict | list):
                    value = self._short(field.part, child, where, at)
                    if value is not _MISSING:
                        values[name] = value
                elif (part := self._part(field.part, child, where)) is not None:
                    values[name] = part
            except (ConfigError, ValueError) as error:
                self._wrong(where, at, str(error))
        return values
