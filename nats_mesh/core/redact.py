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
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from nats_mesh.core.envelope import HIDDEN, hidden_text, is_secret, names_secret

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


class Redactor:
    """Hides values by ``paths``."""

    __slots__ = ("_paths", "hidden")

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._paths = tuple(paths)
        #: How many values the last :meth:`shown` has hidden.
        self.hidden = 0

    def shown(self, value: Any) -> Any:
        """A decoded body with :data:`HIDDEN` in the place of what must not be seen; ``value`` stays as it is."""
        self.hidden = 0
        return self._walk(value, _opened(self._paths), 0)

    def _walk(self, value: Any, paths: Sequence[Path], depth: int) -> Any:
        if depth > _MAX_DEPTH:
            return self._hide()
        if isinstance(value, dict):
            return {self._name(key): self._under(key, each, paths, depth) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._walk(each, paths, depth + 1) for each in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes) and hidden_text(value.decode("latin-1")) == HIDDEN:
            return self._hide()
        return value

    def _name(self, key: Any) -> Any:
        """A name as it may be shown; one in bytes, as some codecs have it, as the text that it is."""
        name = _text_of(key)
        return self._text(name) if isinstance(name, str) else name

    def _text(self, text: str) -> str:
        if len(text) < _LEAST:
            return text
        # A document within the document, as events of other systems have them.
        inner = text.lstrip()[:1] in ("{", "[") and names_secret(text)
        clean = HIDDEN if inner else hidden_text(text)
        if clean != text:
            self.hidden += 1
        return clean

    def _under(self, key: Any, value: Any, paths: Sequence[Path], depth: int) -> Any:
        name = str(_text_of(key))
        if is_secret(name):
            return self._hide()
        left: list[Path] = []
        for path in paths:
            step = path[0]
            if step == _DEEP:
                left.append(path)
            elif step in (_ANY, name):
                if len(path) == 1:
                    return self._hide()
                left.append(path[1:])
        return self._walk(value, _opened(left), depth + 1)

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
