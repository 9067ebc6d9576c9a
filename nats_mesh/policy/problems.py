"""Collecting everything that is wrong with a set of policies, so that one look is enough to mend it."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence

from nats_mesh.errors import PolicyError
from nats_mesh.policy.kinds import shown

__all__ = ["Problems", "hint", "joined", "later_text", "place", "together"]

#: How many problems are kept, and how many of them stand in the text of the error.
MAX_PROBLEMS = 1000
_SHOWN = 50
_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Problems:
    """What was found so far. The same problem at the same place counts once; ``unkept`` are beyond the limit."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int | None, str, str], PolicyError] = {}
        self.unkept = 0

    def __len__(self) -> int:
        return len(self._found) + self.unkept

    def add(self, message: str, *, file: str = "", line: int | None = None, path: str = "") -> None:
        """Note a problem: ``message`` says what is wrong and what to do, without the place."""
        key = (file, line, path, message)
        if key in self._found:
            return
        if len(self._found) >= MAX_PROBLEMS:
            self.unkept += 1
            return
        where = place(file, line)
        text = ": ".join(part for part in (where, path, message) if part)
        self._found[key] = PolicyError(text, path=path, line=line, file=file)

    def take(self, others: Problems) -> None:
        """Note what somebody else found."""
        for key, error in others._found.items():
            if key in self._found:
                continue
            if len(self._found) >= MAX_PROBLEMS:
                self.unkept += 1
            else:
                self._found[key] = error
        self.unkept += others.unkept

    def concern(self, file: str, line: int | None, path: str) -> bool:
        """Whether something at this very place was found already."""
        return any(key[:3] == (file, line, path) for key in self._found)

    def error(self) -> PolicyError | None:
        """All of it as one error, in the order of the files; ``None`` where nothing was found."""
        found = [self._found[key] for key in sorted(self._found, key=_order)]
        return together(found, len(self)) if found else None

    def raise_if_any(self) -> None:
        """Raise what was found."""
        if (error := self.error()) is not None:
            raise error


def together(found: Sequence[PolicyError], count: int = 0) -> PolicyError:
    """Several problems as one error; ``count`` is how many there are, where not all of them were kept."""
    count = count or len(found)
    first = found[0]
    if count == 1:
        return first
    lines = [f"{count} problems:", *(f"  {error}" for error in found[:_SHOWN])]
    if count > _SHOWN:
        lines.append(f"  and {count - _SHOWN} more")
    return PolicyError(
        "\n".join(lines), path=first.path, line=first.line, file=first.file, problems=tuple(found)
    )


def _order(key: tuple[str, int | None, str, str]) -> tuple[str, int, str, str]:
    file, line, path, message = key
    return file, line or 0, path, message


def place(file: str, line: int | None) -> str:
    """``file:line``, or as much of it as is known; what cannot be printed of a file's name is escaped."""
    file = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in file)
    if line is None:
        return file
    return f"{file}:{line}" if file else f"line {line}"


def joined(path: str, key: str) -> str:
    """The path of the field ``key`` below ``path``; what is no plain word stands in quotes."""
    name = key if _WORD.fullmatch(key) else shown(key)
    return sys.intern(f"{path}.{name}" if path else name)  # the same few paths in thousands of policies


def later_text(what: str) -> str:
    """The plain word for a field of the contract that nothing applies yet; ``what`` it would do."""
    return f"{what}: not in this version yet"


def hint(word: str, known: Iterable[str]) -> str:
    """``did you mean x?`` for the nearest of ``known``; all of them where none is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:80], names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]}?" if near else f"there are: {', '.join(names.values())}"
