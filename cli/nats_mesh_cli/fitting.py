"""Text for people, made to fit the width of their terminal. Pure.

A terminal breaks a long line in the middle of a word and goes on at its left edge, where names stand. Here it breaks
between words, and goes on below the value that it belongs to. No word is cut: what is cut cannot be copied.
"""

from __future__ import annotations

import re
from typing import Final

from nats_mesh_cli.tables import plain, width

__all__ = ["fitted"]

_TOKENS: Final = re.compile("(\x1b\\[[0-9]{1,2}m)|( +)|([^ \x1b]+|\x1b)")
_RESET: Final = "\x1b[0m"
#: Two blanks and more part the columns of a line.
_GAP: Final = re.compile("(?<=[^ ]) {2,}(?=[^ ])")
_DEEPER: Final = 2


def fitted(text: str, columns: int | None) -> str:
    """``text`` with its lines broken where they are wider than ``columns`` cells; as it is where that is ``None``."""
    if columns is None:
        return text
    return "\n".join([part for line in text.split("\n") for part in _broken(line, columns)])


def _broken(line: str, columns: int) -> list[str]:
    bare = plain(line)
    if width(bare) <= columns:
        return [line]
    hanging = _hanging(bare, columns)
    lines: list[str] = []
    # What stands on the line that is made, how many cells it takes, the blanks that wait for a word, and the colour
    # that holds: on the line, and from the next word on.
    made, cells, blanks, held, color = "", 0, 0, "", ""
    for code, gap, word in _TOKENS.findall(line):
        if code:
            color = "" if code == _RESET else code
            if not blanks:
                made, held = made + code, color
        elif gap:
            blanks += len(gap)
        else:
            if cells + blanks + width(word) > columns and cells > hanging:
                lines.append(made + (_RESET if held else ""))
                made, cells, blanks, held = " " * hanging, hanging, 0, ""
            made += " " * blanks
            if held != color:
                made += color or _RESET
            made += word
            cells, blanks, held = cells + blanks + width(word), 0, color
    return [*lines, made + (_RESET if held and not color else "")]


def _hanging(bare: str, columns: int) -> int:
    """Where the lines below go on: at the last column that begins in the left half, else a little deeper."""
    starts = [width(bare[: gap.end()]) for gap in _GAP.finditer(bare)]
    left = [start for start in starts if start <= columns // 2]
    return left[-1] if left else len(bare) - len(bare.lstrip(" ")) + _DEEPER
