"""Istio's documents while they are translated: every field is taken by somebody, or said to be lost.

An :class:`Item` is a mapping that was checked against its shape. Whoever translates asks it for its fields; what nobody
asked for is reported in the end, so that nothing can be dropped in silence by an oversight.
"""

from __future__ import annotations

from typing import Any

from nats_mesh.policy.istio.found import Severity, Untranslated
from nats_mesh.policy.istio.shapes import ListOf, MapOf, Message, Shape, duration_s, joined
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import Node

__all__ = ["Item", "Report", "Source"]


class Report:
    """What of all documents is not in the policies. The same thing at the same place counts once."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self._found: dict[tuple[str, int, str, str, str], Untranslated] = {}

    def add(self, each: Untranslated) -> None:
        """Note something."""
        self._found.setdefault((each.file, each.line, each.document, each.path, each.reason), each)

    @property
    def found(self) -> tuple[Untranslated, ...]:
        """All of it, in the order of the files' lines."""
        names = dict.fromkeys(each.file for each in self._found.values())
        files = {file: index for index, file in enumerate(names)}
        return tuple(sorted(self._found.values(), key=lambda each: (files[each.file], each.line, each.path)))


class Source:
    """One Istio document: where it stands, what it is called, and where to say what is lost of it."""

    def __init__(self, file: str, line: int, kind: str, name: str, namespace: str, report: Report) -> None:
        self.file = file
        self.line = line
        self.kind = kind
        self.name = name
        self.namespace = namespace  # as the document says, which may be nothing
        self.labels: Node | None = None
        self.annotations: dict[str, str] = {}
        self.report = report
        self.items: list[Item] = []

    @property
    def title(self) -> str:
        """`VirtualService/reviews`."""
        return f"{self.kind}/{self.name}"

    def lost(self, path: str, line: int, reason: str, severity: Severity = "warning") -> None:
        """Say that what stands at ``path`` is not in the policies."""
        self.report.add(Untranslated(self.file, line, path, reason, severity, self.title))

    def wrong(self, path: str, line: int, text: str) -> None:
        """Say that what stands at ``path`` is a mistake, with which nothing can be translated."""
        self.report.problems.add(text, file=self.file, line=line, path=path)

    def finish(self) -> None:
        """Report what nobody asked for."""
        for item in self.items:
            item.finish()


class Item:
    """A mapping of a document, checked already. Fields that hold nothing are the same as fields that are not there."""

    def __init__(
        self, source: Source, node: Node, shape: Message, path: str, around: Item | None = None
    ) -> None:
        self.source = source
        self._around = around
        self._gone = False
        self.node = node
        self.path = path
        self._shape = shape
        self._nodes: dict[str, Node] = {}
        self._made: dict[str, Any] = {}
        value = node.value if isinstance(node.value, dict) else {}
        for key, each in value.items():
            if each.value is None and not _may_be_empty(shape.fields[key].shape):
                continue
            self._nodes[key] = each
        self._left = set(self._nodes)
        source.items.append(self)
        for key in self._nodes:
            if reason := shape.fields[key].reason:
                self.lost(key, reason)

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def has(self, name: str) -> bool:
        """Whether the field is there; asking takes nothing."""
        return name in self._nodes

    def names(self) -> tuple[str, ...]:
        """The fields that are there."""
        return tuple(self._nodes)

    def at(self, name: str = "") -> str:
        """The path of a field."""
        return joined(self.path, name) if name else self.path

    def line(self, name: str = "") -> int:
        """The line of a field, or of all of this."""
        return self.node.key_lines.get(name, self.node.line)

    def take(self, name: str) -> Node | None:
        """The field as it stands there."""
        self._left.discard(name)
        return self._nodes.get(name)

    def text(self, name: str) -> str:
        """A text; empty where it is not there."""
        node = self.take(name)
        return node.value if node is not None and isinstance(node.value, str) else ""

    def flag(self, name: str) -> bool | None:
        """True or false; ``None`` where it is not there."""
        node = self.take(name)
        return node.value if node is not None and isinstance(node.value, bool) else None

    def whole(self, name: str) -> int | None:
        """A whole number; ``None`` where it is not there."""
        node = self.take(name)
        return node.value if node is not None and isinstance(node.value, int) else None

    def number(self, name: str) -> float | None:
        """A number; ``None`` where it is not there."""
        node = self.take(name)
        return float(node.value) if node is not None and isinstance(node.value, int | float) else None

    def seconds(self, name: str) -> float | None:
        """A duration in seconds; ``None`` where it is not there."""
        node = self.take(name)
        return None if node is None else duration_s(node.value)

    def words(self, name: str) -> list[str]:
        """A list of texts."""
        node = self.take(name)
        return [] if node is None else list(node.plain())

    def pairs(self, name: str) -> dict[str, Any]:
        """Single values by name."""
        node = self.take(name)
        return {} if node is None else dict(node.plain())

    def one(self, name: str) -> Item | None:
        """A mapping; ``None`` where it is not there. Always the same object."""
        node = self.take(name)
        if node is None:
            return None
        if name not in self._made:
            inside = _message(self._shape.fields[name].shape)
            self._made[name] = Item(self.source, node, inside, self.at(name), self)
        item: Item = self._made[name]
        return item

    def many(self, name: str) -> list[Item]:
        """A list of mappings. Always the same objects."""
        node = self.take(name)
        if node is None or not isinstance(node.value, list):
            return []
        if name not in self._made:
            shape = self._shape.fields[name].shape
            assert isinstance(shape, ListOf)
            inside = _message(shape.item)
            self._made[name] = [
                Item(self.source, each, inside, f"{self.at(name)}[{index}]", self)
                for index, each in enumerate(node.value)
            ]
        items: list[Item] = self._made[name]
        return items

    def by_name(self, name: str) -> dict[str, Item]:
        """Mappings by name. Always the same objects."""
        node = self.take(name)
        if node is None or not isinstance(node.value, dict):
            return {}
        if name not in self._made:
            shape = self._shape.fields[name].shape
            assert isinstance(shape, MapOf)
            inside = _message(shape.item)
            found = {}
            for key, each in node.value.items():
                found[key] = Item(self.source, each, inside, joined(self.at(name), key), self)
            self._made[name] = found
        items: dict[str, Item] = self._made[name]
        return items

    def lost(self, name: str, reason: str, severity: Severity = "warning") -> None:
        """Say that a field, or with an empty name all of this, is not in the policies. Nothing where it is not
        there."""
        if not name:
            self.give_up()
            self.source.lost(self.path, self.node.line, reason, severity)
        elif name in self._nodes:
            self._left.discard(name)
            self.source.lost(self.at(name), self.line(name), reason, severity)

    def note(self, name: str, reason: str) -> None:
        """Say that a field is in the policies in another way, or needs no setting here."""
        self.lost(name, reason, "info")

    def give_up(self) -> None:
        """All of this is left out, which was said elsewhere: nothing inside of it is missing."""
        self._gone = True

    @property
    def is_gone(self) -> bool:
        """Whether this, or anything around it, is left out."""
        return self._gone or (self._around is not None and self._around.is_gone)

    def finish(self) -> None:
        """Report what nobody asked for."""
        if self.is_gone:
            return
        for name in sorted(self._left):
            self.lost(name, "has no meaning here")


def _message(shape: Shape) -> Message:
    assert isinstance(shape, Message)
    return shape


def _may_be_empty(shape: Shape) -> bool:
    return isinstance(shape, Message) and shape.empty
