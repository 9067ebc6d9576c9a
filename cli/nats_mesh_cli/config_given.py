"""What ``config set`` is given: a whole configuration, single values, or both."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from nats_mesh.policy.files import read_files
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import read
from nats_mesh_cli.errors import CliError

__all__ = ["assign", "read_configuration", "read_value"]

_FORMS: Final = "name=value, a JSON object, a file of YAML or JSON, or - for stdin"
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)


def read_configuration(
    given: Sequence[str], files: Sequence[str]
) -> tuple[dict[str, Any] | None, list[tuple[str, Any]]]:
    """A whole value out of a file, stdin or JSON, and single ones (``rows=20``, ``db.pool=5``)."""
    whole: dict[str, Any] | None = None
    assigned: list[tuple[str, Any]] = []
    sources = list(files)
    for word in given:
        match = _ASSIGNMENT.fullmatch(word)
        if match is None:
            sources.append(word)
        else:
            assigned.append((match[1], read_value(match[2])))
    for word in sources:
        if whole is not None:
            raise CliError(
                "say all of the configuration once: in one file, or as one JSON object",
                hint="single values go over it: name=value",
            )
        whole = _whole(word, is_file=word in files)
    if whole is None and not assigned:
        raise CliError("say what to set", hint=_FORMS)
    return whole, assigned


def _whole(word: str, *, is_file: bool) -> dict[str, Any]:
    """A configuration out of a file, of stdin (``-``), or out of the JSON that stands there itself."""
    inline = not is_file and word.lstrip()[:1] in ("{", "[", '"')
    if not inline and word != "-" and not os.path.exists(word):
        text = "there is no such file" if is_file else "there is no such file, and it is no name=value"
        raise CliError(f"{word}: {text}", hint=_FORMS)
    if inline:
        held: dict[str, bytes | str] = {"the JSON given": word.encode()}
    else:
        held = {"stdin": sys.stdin.buffer.read()} if word == "-" else dict(read_files(word))
    problems = Problems()
    nodes = []
    for name, content in held.items():
        if isinstance(content, str):
            raise CliError(f"{name}: {content}")
        nodes += list(read(content, name, problems))
    problems.raise_if_any()
    plain = nodes[0].plain() if len(nodes) == 1 else None
    if not isinstance(plain, dict):
        raise CliError(f"{next(iter(held), word)}: must hold one mapping, the configuration")
    return plain


def read_value(text: str) -> Any:
    """``20``, ``true``, ``[1, 2]``, ``{"a": 1}`` as JSON reads them; anything else is text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    except (RecursionError, UnicodeError):
        raise CliError(f"{text[:40]!a}… is nested too deep, or no text", hint=_FORMS) from None


def assign(value: dict[str, Any], path: str, each: Any) -> None:
    """Set what ``path`` (`db.pool`) names within ``value`` to ``each``."""
    *above, last = steps = path.split(".")
    if not all(steps):
        raise CliError(f"{path!r} has an empty name in it", hint="write a.b=value for what stands below a")
    for step in above:
        inner = value.setdefault(step, {})
        if not isinstance(inner, dict):
            raise CliError(f"{path}: {step} is {inner!r:.40} and has nothing below it")
        value = inner
    value[last] = each
