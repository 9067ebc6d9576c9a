"""Policies as YAML for people, with a comment that says where each of them, and each of their rules, comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from nats_mesh.policy.istio.found import Converted, Made
from nats_mesh.policy.reader import Node, resolved

__all__ = ["yaml_of"]

_PLAIN = re.compile(r"[A-Za-z0-9_./*][A-Za-z0-9_./%*+@-]*")
_KEY = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
_WIDE = 80


def yaml_of(converted: Iterable[Converted]) -> str:
    """The documents, one after the other; what is read from it are the very same documents."""
    texts = []
    for each in converted:
        lines = list(_comment(each.node, ""))
        lines += _mapping(each.node, "")
        texts.append("\n".join(lines) + "\n")
    return "---\n".join(texts)


def _comment(node: Node, indent: str) -> Iterator[str]:
    if isinstance(node, Made) and node.origin:
        yield f"{indent}# from {_printable(node.origin)}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _mapping(node: Node, indent: str) -> Iterator[str]:
    assert isinstance(node.value, dict)
    for key, child in node.value.items():
        name = _key(key)
        if _is_nested(child):
            yield from _comment(child, indent)
            yield f"{indent}{name}:"
            yield from _nested(child, f"{indent}  ")
        else:
            yield from _comment(child, indent)
            yield f"{indent}{name}: {_flow(child)}"


def _nested(node: Node, indent: str) -> Iterator[str]:
    if isinstance(node.value, dict):
        yield from _mapping(node, indent)
        return
    assert isinstance(node.value, list)
    for item in node.value:
        yield from _comment(item, indent)
        if not _is_nested(item):
            yield f"{indent}- {_flow(item)}"
            continue
        lines = list(_nested(item, f"{indent}  "))
        # The first line of the item stands behind its dash, unless that is a comment or the item is a list itself.
        if isinstance(item.value, dict) and not lines[0].lstrip().startswith("#"):
            lines[0] = f"{indent}- {lines[0].lstrip()}"
        else:
            yield f"{indent}-"
        yield from lines


def _is_nested(node: Node) -> bool:
    """Whether it needs lines of its own."""
    if not isinstance(node.value, dict | list) or not node.value:
        return False
    return _has_comments(node) or _depth(node) > 2 or len(_flow(node)) > _WIDE


def _has_comments(node: Node) -> bool:
    inside = (
        node.value.values()
        if isinstance(node.value, dict)
        else node.value
        if isinstance(node.value, list)
        else ()
    )
    return any((isinstance(each, Made) and each.origin) or _has_comments(each) for each in inside)


def _depth(node: Node) -> int:
    inside = (
        node.value.values()
        if isinstance(node.value, dict)
        else node.value
        if isinstance(node.value, list)
        else None
    )
    return 0 if inside is None else 1 + max([_depth(each) for each in inside], default=0)


def _flow(node: Node) -> str:
    if isinstance(node.value, dict):
        return "{" + ", ".join([f"{_key(key)}: {_flow(each)}" for key, each in node.value.items()]) + "}"
    if isinstance(node.value, list):
        return "[" + ", ".join([_flow(each) for each in node.value]) + "]"
    return _scalar(node.value)


def _key(key: str) -> str:
    return key if _KEY.fullmatch(key) else _quoted(key)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    plain = (
        _PLAIN.fullmatch(value) is not None and not value.startswith("*") and isinstance(resolved(value), str)
    )
    return value if plain and value not in ("yes", "no", "on", "y", "n") else _quoted(value)


def _quoted(text: str) -> str:
    """As JSON, whose texts are YAML's where every character that cannot be printed is escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escaped(char) for char in quoted)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
