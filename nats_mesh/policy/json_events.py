"""A document of JSON as the events that PyYAML's parser gives for YAML, so that its values know their lines, too.

YAML's parser does not read all of JSON: it wants the colon in the line of its key and keys of less than 1024
characters, takes some characters of a text for line ends (U+2028, U+0085), and refuses others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final

import yaml

__all__ = ["JsonError", "events_of_json", "is_torn"]

#: A line end, a bracket, a text, or any other word. What stands between them says nothing.
_WORD: Final = re.compile(r'\n|[{}\[\]]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}\[\],:"]+')
_HALF: Final = re.compile("[\ud800-\udfff]")
_NO_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")


class JsonError(ValueError):
    """What is wrong, and in which line (from 1; ``None``: nobody knows)."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def events_of_json(text: str) -> Iterator[yaml.Event]:
    """The events of the document ``text``. Raises :class:`JsonError` where that is no JSON, or holds what cannot be
    passed on: half of a surrogate pair, or a number beyond all floats."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"is no valid JSON: {error.msg}", error.lineno) from None
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        raise JsonError(
            "is no JSON that can be read: it is nested too deep or a number is too long", None
        ) from None
    line = 0
    for match in _WORD.finditer(text):
        word = match[0]
        if word == "\n":
            line += 1
            continue
        mark = yaml.Mark("", match.start(), line, 0, None, 0)
        if word == "{":
            yield yaml.MappingStartEvent(None, None, True, mark, mark)
        elif word == "}":
            yield yaml.MappingEndEvent(mark, mark)
        elif word == "[":
            yield yaml.SequenceStartEvent(None, None, True, mark, mark)
        elif word == "]":
            yield yaml.SequenceEndEvent(mark, mark)
        elif word[0] == '"':
            yield yaml.ScalarEvent(None, None, (False, True), _text(word, line + 1), mark, mark, '"')
        else:
            yield yaml.ScalarEvent(None, None, (True, False), _plain(word, line + 1), mark, mark)


def is_torn(text: str) -> bool:
    """Whether half of a surrogate pair stands in ``text``: no such text can be written as UTF-8."""
    return not text.isascii() and _HALF.search(text) is not None


def _text(word: str, line: int) -> str:
    text: str = json.loads(word)
    if is_torn(text):
        raise JsonError(
            "has half of a surrogate pair in a text, which is no character: write both halves", line
        )
    return text


def _plain(word: str, line: int) -> str:
    """A number, true, false or null, in the words of YAML 1.2."""
    if word in _NO_NUMBERS:
        raise JsonError(f"is no valid JSON: {word} is no number there", line)
    if word in ("true", "false", "null"):
        return word
    number = float(word)
    if math.isinf(number):
        raise JsonError(f"has a number that is too large: {word[:20]}", line)
    return repr(number) if "e" in word or "E" in word else word
