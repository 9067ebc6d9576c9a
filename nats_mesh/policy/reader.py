"""Reading YAML and JSON into plain values that know their line.

The events of PyYAML's parser (of JSON: those of :mod:`~nats_mesh.policy.json_events`) are put together here, and not
by its composer and constructors, for four reasons: a line for every key and value; nothing but text, numbers, true,
false and null can ever be made, whatever tag stands in a file; no recursion, so that nesting has a limit instead of a
crash; an alias costs what it stands for, so that ten lines cannot become a billion values. Plain words mean what YAML
1.2 says: `off`, `yes` and `12:30` are text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import yaml

from nats_mesh.policy.json_events import JsonError, events_of_json, is_torn
from nats_mesh.policy.kinds import Scalar, shown
from nats_mesh.policy.problems import Problems

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Node", "read", "resolved"]

#: Limits of one file: its size, its documents; and of one document: its values (aliases counted as what they
#: stand for) and how deep they are nested.
MAX_BYTES = 4 * 1024 * 1024
MAX_DOCUMENTS = 10_000
MAX_VALUES = 10_000
MAX_DEPTH = 32

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_MAX_INTEGER = 10**18
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_STANDARD_TAGS = {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}

Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


class Node:
    """One value of a file: where it begins (``line``, from 1), and for a mapping the lines of its keys.

    ``weight`` is how many values it is made of.
    """

    __slots__ = ("key_lines", "line", "value", "weight")

    def __init__(self, value: Value, line: int) -> None:
        self.value = value
        self.line = line
        self.key_lines: dict[str, int] = {}
        self.weight = 1

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read(content: bytes, file: str, problems: Problems) -> Iterator[Node]:
    """The documents in ``content``; whatever cannot be read goes to ``problems``. Empty documents are left out.

    A file called ``*.json`` holds one document of JSON, any other one documents of YAML.
    """
    if len(content) > MAX_BYTES:
        problems.add(f"is larger than {MAX_BYTES // 1024 // 1024} MiB; split it", file=file)
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(f"is no UTF-8 text (byte {error.start})", file=file, line=line)
        return
    if text[:1] == "{" and "\n" not in text and (short := _short(text)) is not None:
        yield short
        return
    builder = _Builder(file, problems)
    try:
        for event in events_of_json(text) if file.endswith(".json") else yaml.parse(text, Loader=_LOADER):
            builder.take(event)
            if builder.document is not None:
                yield builder.document
                builder.document = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        line_text = text.split("\n")[mark.line : mark.line + 1] if mark else []
        if line_text and "\t" in line_text[0][: -len(line_text[0].lstrip()) or None]:
            said += "; indent with blanks, not with tabs"
        problems.add(f"is no valid YAML: {said}", file=file, line=mark.line + 1 if mark else None)
    except yaml.YAMLError as error:  # a character that cannot stand in a text
        said = " ".join(str(error).split("\n")[0].split())
        problems.add(f"is no valid YAML: {said}", file=file, line=_line_of_reader(error, text))
    except (JsonError, _UnreadableError) as error:
        problems.add(str(error), file=file, line=error.line)


class _Pairs(list[tuple[str, Any]]):
    """A mapping of JSON as it stands there, with keys that stand there twice."""


class _CarefulError(Exception):
    """Not for the short way."""


def _short(text: str) -> Node | None:
    """The short way for what the policy store holds, one document of JSON in one line: a fifth of the time.

    ``None``: for the careful way, which alone knows the limits and words the errors.
    """
    try:
        return _node(json.loads(text, object_pairs_hook=_Pairs, parse_constant=_careful), 1)
    except (_CarefulError, RecursionError, ValueError):
        return None


def _careful(word: str) -> None:
    raise _CarefulError(word)


def _node(value: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise _CarefulError
    if type(value) is _Pairs:
        members: dict[str, Node] = {}
        node = Node(members, 1)
        for key, child in value:
            if key in members or key == "<<" or is_torn(key):
                raise _CarefulError
            members[key] = found = _node(child, depth + 1)
            node.key_lines[key] = 1
            node.weight += found.weight
    elif type(value) is list:
        node = Node([_node(child, depth + 1) for child in value], 1)
        node.weight += sum(child.weight for child in cast("list[Node]", node.value))
    elif (
        (type(value) is int and not -_MAX_INTEGER < value < _MAX_INTEGER)
        or (type(value) is float and math.isinf(value))
        or (type(value) is str and is_torn(value))
    ):
        raise _CarefulError
    else:
        node = Node(value, 1)
    if node.weight > MAX_VALUES:
        raise _CarefulError
    return node


def _line_of_reader(error: yaml.YAMLError, text: str) -> int | None:
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else None


class _UnreadableError(Exception):
    """The rest of the file is not read."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Builder:
    """Puts the values of a file together, event by event."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.document: Node | None = None  # the one that has just ended, for whoever takes it
        self._documents = 0
        self._file = file
        self._problems = problems
        self._stack: list[Node] = []
        self._names: list[str | None] = []  # the anchor of each open value
        self._keys: list[tuple[str, int] | None] = []  # the key of each open mapping that waits for its value
        self._anchors: dict[str, Node] = {}
        self._values = 0

    def take(self, event: Any) -> None:
        """Go on with the next event."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event.tag, line)
            self._open(Node({}, line), event.anchor)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event.tag, line)
            self._open(Node([], line), event.anchor)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors = {}
            self._values = 0

    def _scalar(self, event: Any, line: int) -> None:
        if self._wants_key():
            self._key(event.value, line)
            return
        self._check_tag(event.tag, line)
        # Only plain words without a tag can be anything but text (the style of such: none, or empty).
        value = resolved(event.value) if not event.style and event.tag is None else event.value
        self._count(1, line)
        self._place(Node(value, line), event.anchor)

    def _alias(self, name: str | None, line: int) -> None:
        if self._wants_key():
            raise _UnreadableError("a key must be text, and no alias", line)
        node = self._anchors.get(name or "")
        if node is None:
            inside = name is not None and name in self._names
            reason = (
                "stands inside of what it names" if inside else "names no anchor above it in this document"
            )
            raise _UnreadableError(f"the alias *{ascii(name)[1:-1]} {reason}", line)
        self._count(node.weight, line)
        self._place(node, None)

    def _open(self, node: Node, name: str | None) -> None:
        if self._wants_key():
            raise _UnreadableError("a key must be text, and neither a list nor a mapping", node.line)
        if len(self._stack) >= MAX_DEPTH:
            raise _UnreadableError(f"values are nested more than {MAX_DEPTH} deep", node.line)
        self._count(1, node.line)
        self._stack.append(node)
        self._names.append(name)
        self._keys.append(None)

    def _close(self) -> None:
        node, name = self._stack.pop(), self._names.pop()
        self._keys.pop()
        self._place(node, name)

    def _place(self, node: Node, name: str | None) -> None:
        """Put a finished value where it belongs."""
        if name is not None:
            self._anchors[name] = node
        if not self._stack:
            self._documents += 1  # empty ones take their time, too
            if self._documents > MAX_DOCUMENTS:
                raise _UnreadableError(f"has more than {MAX_DOCUMENTS} documents; split it", node.line)
            if node.value is None:
                return
            self.document = node
            return
        parent = self._stack[-1]
        parent.weight += node.weight
        if isinstance(parent.value, list):
            parent.value.append(node)
            return
        key = self._keys[-1]
        self._keys[-1] = None
        assert isinstance(parent.value, dict)
        assert key is not None
        first = parent.key_lines.get(key[0])
        if first is not None:
            self._problems.add(
                f"the key {shown(key[0])} stands here twice, first in line {first}; keep one of them",
                file=self._file, line=key[1],
            )  # fmt: skip
            return
        parent.value[key[0]] = node
        parent.key_lines[key[0]] = key[1]

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._keys[-1] is None

    def _key(self, text: str, line: int) -> None:
        if text == "<<":
            raise _UnreadableError("merge keys (<<) are not read: write the fields out", line)
        self._keys[-1] = (text, line)

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag not in _STANDARD_TAGS:
            raise _UnreadableError(f"the tag {shown(tag)} is not read: write the value without it", line)

    def _count(self, weight: int, line: int) -> None:
        self._values += weight
        if self._values > MAX_VALUES:
            raise _UnreadableError(
                f"the document has more than {MAX_VALUES} values, aliases counted as what they stand for",
                line,
            )


def resolved(text: str) -> Scalar:
    """What a plain word means (YAML 1.2, core schema, decimal numbers only)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
