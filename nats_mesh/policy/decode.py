"""From what stands in a file to policies: every field checked against the schema, every mistake with its line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import UNSET

from nats_mesh.core.presence import check_labels
from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import BALANCER, Kind, shown
from nats_mesh.policy.parts import Balancer, Part, Target
from nats_mesh.policy.problems import Problems, hint, later_text, place
from nats_mesh.policy.schema import API_VERSION, KINDS, LATER_KINDS, Destination, Document, Limit, Route

if TYPE_CHECKING:
    from nats_mesh.policy.reader import Node

__all__ = ["Policy", "decode", "parse"]

#: Limits within a document.
MAX_ITEMS = 1000
MAX_SUBSETS = 64

_MISSING: Any = object()
_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Policy(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One document and where it stands. ``lines`` has the line of every field by its path (`spec.retry.attempts`)."""

    document: Document
    file: str
    line: int
    lines: Mapping[str, int]

    @property
    def kind(self) -> str:
        """`Destination`, `Route` or `Limit`."""
        return type(self.document).__name__

    @property
    def name(self) -> str:
        """What errors and `describe` call it: `Destination/orders`."""
        return f"{self.kind}/{self.document.metadata.name}"

    @property
    def place(self) -> str:
        """`file:line`."""
        return place(self.file, self.line)


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
        before = len(problems)
        reading = _Reading(file, problems)
        document = reading.document(node)
        if document is not None and len(problems) == before:
            found.append(Policy(document=document, file=file, line=node.line, lines=reading.lines))
    return found


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
            also = "; Istio's YAML is not translated yet" if ".istio.io/" in version else ""
            line = node.key_lines["apiVersion"]
            self._wrong(
                "apiVersion", line, f"{shown(version)} is unknown: this version reads {API_VERSION}{also}"
            )
        kind = self._head(node, "kind", f"one of {', '.join(KINDS)}")
        if version != API_VERSION or kind is None:
            return None
        if kind in LATER_KINDS:
            message = (
                f"{kind} is a kind of {API_VERSION}, but this version applies none yet; remove the document"
            )
        elif kind not in KINDS:
            message = f"{shown(kind)} is no kind of {API_VERSION}; {hint(kind, (*KINDS, *LATER_KINDS))}"
        else:
            document = cast("Document | None", self._part(KINDS[kind], node, ""))
            if document is not None:
                self._check(document)
            return document
        self._wrong("kind", node.key_lines["kind"], message)
        return None

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
            where = _joined(path, key)
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
                self._wrong(_joined(path, field.name), node.line, f"is missing: {field.text}")
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
        if field.part is Balancer and not isinstance(node.value, dict | list):
            self.lines[f"{path}.name"] = line
            name = self._value(BALANCER, node, path, line)
            return name if name is _MISSING else Balancer(name=name)
        if field.off and not isinstance(node.value, dict):
            fields = ", ".join(fields_of(field.part))
            self._wrong(path, line, f"must be off, or a mapping with {fields}; got {shown(node.plain())}")
            return _MISSING
        value = self._part(field.part, node, path)
        return _MISSING if value is None else value

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
        values = [
            self._value(kind, item, f"{path}[{index}]", item.line) for index, item in enumerate(node.value)
        ]
        return list(dict.fromkeys(value for value in values if value is not _MISSING))

    def _parts(self, part: type[Part], node: Node, path: str, line: int) -> Any:
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
        if not isinstance(node.value, dict) or len(node.value) > MAX_SUBSETS:
            self._wrong(
                path, line, f"must be a mapping of up to {MAX_SUBSETS} names, got {shown(node.plain())}"
            )
            return _MISSING
        values: dict[str, Any] = {}
        for key, child in node.value.items():
            where, at = _joined(path, key), node.key_lines[key]
            self.lines[where] = at
            try:
                if field.part is None:
                    assert field.kind is not None
                    values.update(check_labels({key: field.kind.parse(cast("Any", child.value))}))
                elif (value := self._part(field.part, child, where)) is not None:
                    values[check_name("subset", key)] = value
            except (ConfigError, ValueError) as error:
                self._wrong(where, at, str(error))
        return values

    def _check(self, document: Document) -> None:
        """What fields may only say together."""
        spec = document.spec
        target = Target() if spec.target is UNSET else spec.target
        if target.endpoints is not UNSET:
            line = self.lines["spec.target.endpoints"]
            if target.service is UNSET:
                self._wrong("spec.target.endpoints", line, "needs a service beside it: whose endpoints?")
            if not target.endpoints:
                self._wrong("spec.target.endpoints", line, "names none: leave it out to mean all of them")
        rules = document.spec.rules if isinstance(document, Route) else []
        said = {f"spec.rules[{index}].timeout": rule.timeout for index, rule in enumerate(rules)}
        if isinstance(document, Destination):
            said["spec.timeout"] = document.spec.timeout
        for path, timeout in said.items():
            if timeout == 0.0:
                self._wrong(path, self.lines[path], "must be above 0s")
        if isinstance(document, Limit):
            path = "spec.concurrency"
            if not any(f"{path}.{name}" in self.lines for name in ("limit", "leaveQueue")):
                self._wrong(path, self.lines[path], "limits nothing: give it a limit, leaveQueue, or both")
        if len(rules) > 1:
            line = self.lines["spec.rules[1]"]
            self._wrong("spec.rules[1]", line, "is never reached: the rule above applies to every call")
        if isinstance(document, Destination) and document.spec.subsets is not UNSET:
            if target.service is UNSET or target.endpoints is not UNSET:
                self._wrong(
                    "spec.subsets",
                    self.lines["spec.subsets"],
                    "need a target with a service and no endpoints",
                )
            for name in document.spec.subsets:
                where = f"spec.subsets.{name}"
                if not any(path.startswith((f"{where}.version", f"{where}.labels.")) for path in self.lines):
                    line = self.lines[where]
                    self._wrong(where, line, "selects nothing in particular: give it a version or labels")


def _joined(path: str, key: str) -> str:
    name = key if _WORD.fullmatch(key) else shown(key)
    return sys.intern(f"{path}.{name}" if path else name)  # the same few paths in thousands of policies
