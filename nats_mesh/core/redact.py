"""What may be shown of a body: values are hidden by the paths that a policy names, and where they look like secrets.

A path is made of names joined by points: ``card.number``. ``*`` stands for any one name, ``**`` for any number of them,
none included. A list on the way is gone through element by element, without being named. Whatever a path leads to is
hidden whole. Hidden is also, whatever a policy says, the value of every name that looks like a secret's
(:func:`nats_mesh.core.envelope.is_secret`) and every text that holds a credential.

To search the text of a body for names instead would be quicker, but what stands in another codec, in an escape
(``"\\u0070assword"``) or across a cut would be shown: so a body is decoded whole, or not shown at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from nats_mesh.core.envelope import (
    HIDDEN,
    hidden_text,
    is_secret,
    names_secret,
    no_secret_names,
    no_secret_values,
    small,
)

__all__ = ["MAX_PATHS", "Path", "Redactor", "parse_path"]

#: How many paths a policy may name: each is held against every name of a body.
MAX_PATHS: Final = 64
_MAX_STEPS: Final = 16
_MAX_PATH: Final = 256
#: What is nested deeper than this is hidden.
_MAX_DEPTH: Final = 64
#: What is shorter holds no credential, nor a secret with its name (characters).
_LEAST: Final = 6
_is_step = re.compile(r"[^\x00-\x20\x7f-\xa0.*\[\]$'\"\u2028\u2029]{1,128}").fullmatch
_ANY, _DEEP = "*", "**"
#: Stands for every name that no path begins with: no step can be that.
_OTHER: Final = ""
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
#: How many places on their way are remembered of the paths of one policy.
_MAX_STATES: Final = 1024

#: A path, step by step.
Path: TypeAlias = tuple[str, ...]


def parse_path(text: str) -> Path:
    """The steps of ``card.number``; :class:`ValueError` says what is wrong with it."""
    steps = tuple(text.split("."))
    if not text or len(text) > _MAX_PATH:
        raise ValueError(f"must be a path of 1 to {_MAX_PATH} characters, as in card.number")
    for step in steps:
        if step not in (_ANY, _DEEP) and _is_step(step) is None:
            raise ValueError(
                f"{step[:40]!r} is no step of a path: write names joined by points, as in card.number; "
                "* is any name, ** any number of them, and lists need no step"
            )
    if len(steps) > _MAX_STEPS:
        raise ValueError(f"has {len(steps)} steps, at most {_MAX_STEPS} are looked for")
    if all(step == _DEEP for step in steps):
        raise ValueError("would hide everything: leave payloads off instead")
    return steps


class _Steps:
    """Where some paths stand on the way through a body: what becomes of them under each name."""

    __slots__ = ("_by_name", "_known", "_made", "_paths", "empty")

    def __init__(self, paths: tuple[Path, ...], made: dict[tuple[Path, ...], _Steps]) -> None:
        self.empty = not paths
        self._paths = paths
        self._made = made
        self._by_name: dict[str, _Steps | None] = {}
        #: Names that paths here begin with; under every other one the same comes of them.
        self._known = frozenset([path[0] for path in paths])

    def under(self, name: str) -> _Steps | None:
        """Where they stand below ``name``; ``None`` where one of them ends there."""
        name = name if name in self._known else _OTHER
        found = self._by_name.get(name, self)
        if found is self and name not in self._by_name:
            found = self._by_name[name] = self._step(name)
        return found

    def _step(self, name: str) -> _Steps | None:
        left: list[Path] = []
        for path in self._paths:
            step = path[0]
            if step == _DEEP:
                left.append(path)
            elif step == _ANY or (step == name and name is not _OTHER):
                if all(each == _DEEP for each in path[1:]):  # any number of names is none, too
                    return None
                left.append(path[1:])
        return _steps(left, self._made)


def _steps(paths: Iterable[Path], made: dict[tuple[Path, ...], _Steps]) -> _Steps:
    """These paths; the same object for the same ones."""
    opened = tuple(sorted(_opened(paths)))
    found = made.get(opened)
    if found is None:
        if len(made) >= _MAX_STATES:
            made.clear()
        found = made[opened] = _Steps(opened, made)
    return found


class Redactor:
    """Hides values by ``paths``."""

    __slots__ = ("_begin", "_known", "_names", "_values", "hidden")

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._begin = _steps(paths, {})
        #: Whether names, or texts, are to be looked at: not where all of them together have nothing of the kind.
        self._names = self._values = True
        #: Whether the names of this body look like secrets; most stand in it many times.
        self._known: dict[str, bool] = {}
        #: How many values the last :meth:`shown` has hidden.
        self.hidden = 0

    def shown(self, value: Any, whole: str | None = None) -> Any:
        """A decoded body with :data:`HIDDEN` in the place of what must not be seen; ``value`` stays as it is. ``whole``
        is a text in which every name and text of it stands, without escapes of letters, where there is one."""
        self.hidden = 0
        whole = None if whole is None else small(whole)
        self._names = whole is None or not no_secret_names(whole)
        self._values = whole is None or not no_secret_values(whole)
        self._known = {}
        return self._walk(value, self._begin, 0)

    def _walk(self, value: Any, steps: _Steps, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            return self._hide()
        if isinstance(value, dict):
            return self._fields(value, steps, depth + 1)
        if isinstance(value, list | tuple):
            if depth >= _MAX_DEPTH:
                return [self._hide() for _ in value]
            return [
                each
                if (kind := type(each)) is int or kind is float
                else self._text(each)
                if kind is str
                else self._walk(each, steps, depth + 1)
                for each in value
            ]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes) and hidden_text(value.decode("latin-1")) == HIDDEN:
            return self._hide()
        return value

    def _fields(self, value: dict[Any, Any], steps: _Steps, depth: int) -> dict[Any, Any]:
        shown: dict[Any, Any] = {}
        names, known, empty, secret = self._names, self._known, steps.empty, False
        for key, each in value.items():
            name = key if type(key) is str else str(_text_of(key))
            below = steps if empty else steps.under(name)
            if names:
                if name not in known:
                    known[name] = is_secret(name)
                secret = known[name]
            if below is None or secret:
                each = self._hide()
            elif depth > _MAX_DEPTH or type(each) not in _NUMBERS:
                each = self._walk(each, below, depth)
            shown[self._name(key) if names or self._values or name is not key else key] = each
        return shown

    def _name(self, key: Any) -> Any:
        """A name as it may be shown; one in bytes, as some codecs have it, as the text that it is."""
        name = _text_of(key)
        return self._text(name) if isinstance(name, str) else name

    def _text(self, text: str) -> str:
        if len(text) < _LEAST or not (self._names or self._values):
            return text
        # A document within the document, as events of other systems have them.
        inner = self._names and text.lstrip()[:1] in ("{", "[") and names_secret(text)
        clean = HIDDEN if inner else hidden_text(text) if self._values else text
        if clean != text:
            self.hidden += 1
        return clean

    def _hide(self) -> str:
        self.hidden += 1
        return HIDDEN


def _text_of(key: Any) -> Any:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return key


def _opened(paths: Iterable[Path]) -> list[Path]:
    """These paths, and for each that begins with ``**`` also what it is where that stands for nothing."""
    found: dict[Path, None] = {}
    for path in paths:
        found[path] = None
        while len(path) > 1 and path[0] == _DEEP:
            path = path[1:]
            found[path] = None
    return list(found)
