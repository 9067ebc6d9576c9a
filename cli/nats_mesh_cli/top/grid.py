"""Tables of an exact width: columns that give way to one another, rows that are cut and never wrapped. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.cells import cell_len

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.top.words import clean

__all__ = ["SAMPLED", "Cell", "Field", "clip", "fitted", "pieces", "size_of", "wishes", "wrap"]

#: How much of a text is measured to find out how wide its column would like to be (characters).
SAMPLED = 200
_ELLIPSIS = "…"
#: What stands before the last column of a line: its indentation, and words that several blanks follow.
_HEAD = re.compile(r" *(?:\S.*? {2,}(?!.* {2}))?")
_WORD = re.compile(r"( *)([^ ]+)")


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One column: at least ``width`` cells, up to ``most`` where there is room; one of numbers (``right``) as many as
    its longest has. When it goes: the highest ``drop`` first, those with 0 last, from the right; the first column
    stays. It pushes others out until it has ``need`` cells, where what stands in it wants as many. ``tail``: what is
    too long loses its beginning, as what came last matters."""

    key: str
    head: str
    width: int
    most: int = 0
    right: bool = True
    drop: int = 0
    need: int = 0
    tail: bool = False


def fitted(
    fields: Sequence[Field], width: int, wanted: Mapping[str, int] | None = None
) -> list[tuple[Field, int]]:
    """Those columns that fit into ``width``, with their widths: what is left over goes to those that can use it, first
    come first served, up to what they want. Columns go whole: a number that is cut is another number."""
    wish = wanted or {}
    least = {each.key: _least(each, wish.get(each.key, 0)) for each in fields}
    shown = list(fields)

    def over() -> int:
        return sum(least[each.key] + 1 for each in shown) - 1 - width

    while len(shown) > 1 and over() > 0:
        going = max(shown, key=lambda each: each.drop)
        if going.drop == 0:
            break
        shown.remove(going)
    for each in shown:  # texts may be cut: they make room before what matters goes
        if not each.right:
            least[each.key] -= max(0, min(over(), least[each.key] - each.width))
    while len(shown) > 1 and over() > 0:
        shown.pop()
    if over() > 0:
        if shown[0].right:
            return []
        least[shown[0].key] = max(0, width)
    left = width - (sum(least[each.key] + 1 for each in shown) - 1)
    sizes = []
    for each in shown:
        most = max(each.most, each.width)
        if wanted is not None and each.most:
            most = min(most, wish.get(each.key, 0))
        grown = max(0, min(left, most - least[each.key]))
        left -= grown
        sizes.append((each, least[each.key] + grown))
    return sizes


def _least(field: Field, wanted: int) -> int:
    """The fewest cells that a column can do with."""
    return max(field.width, wanted if field.right else min(field.need, wanted))


def size_of(text: str) -> int:
    """How many cells of a terminal it takes."""
    return len(text) if text.isascii() else cell_len(text)


def clip(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells; an ellipsis says that it was longer."""
    if text.isascii():
        if len(text) <= width:
            return text
        return text[: width - 1] + _ELLIPSIS if width > 0 else ""
    if len(text) <= 2 * width and cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    used, kept = 0, []
    for character in text:
        used += cell_len(character)
        if used > width - 1:
            break
        kept.append(character)
    short = "".join(kept)
    while cell_len(short) > width - 1:  # some characters widen the one before them
        short = short[:-1]
    return short + _ELLIPSIS


def wishes(fields: Iterable[Field], rows: Sequence[Mapping[str, Cell]]) -> dict[str, int]:
    """How wide each column that can grow would like to be, and how wide each of numbers has to be."""
    return {
        field.key: max(
            [size_of(row[field.key].text[:SAMPLED]) for row in rows if field.key in row], default=0
        )
        for field in fields
        if field.most or field.right
    }


def pieces(sizes: Sequence[tuple[Field, int]], cells: Mapping[str, Cell]) -> list[Cell]:
    """One row as cells in order, blanks and all; one that is missing stays empty."""
    made: list[Cell] = []
    plain = ""  # what has no style and is not among them yet
    gap = ""
    for field, size in sizes:
        plain += gap
        gap = " "
        cell = cells.get(field.key)
        if cell is None:
            plain += " " * size
            continue
        text = cell.text
        if not text.isprintable():
            text = clean(text)
        used = len(text) if text.isascii() else cell_len(text)
        if used > size or field.tail:
            text = text[-size:] if field.tail and size else clip(text, size)
            used = size_of(text)
        blanks = " " * (size - used)
        if field.right:
            plain += blanks
            blanks = ""
        if not cell.style:
            plain += text + blanks
            continue
        if plain:
            made.append(Cell(plain))
        made.append(Cell(text, cell.style))
        plain = blanks
    if plain:
        made.append(Cell(plain))
    return made


def wrap(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells. What goes on stands under the last column of what began, as far as
    that leaves room; a word that is too long is broken."""
    if width < 1:
        return []
    if cell_len(text) <= width:
        return [text]
    match = _HEAD.match(text)
    head = match[0] if match is not None and cell_len(match[0]) <= width // 2 else ""
    indent = " " * cell_len(head)
    room = width - len(indent)
    lines: list[str] = []
    line = ""
    for blanks, word in _WORD.findall(text[len(head) :]):
        while cell_len(word) > room:
            if line:
                lines.append(line)
                line = ""
            part = clip(word, room + 1).removesuffix(_ELLIPSIS)[:room]
            while cell_len(part) > room:
                part = part[:-1]
            part = part or word[:1]
            lines.append(part)
            word = word[len(part) :]
        joined = f"{line}{blanks}{word}" if line else word
        if cell_len(joined) > room:
            lines.append(line)
            joined = word
        line = joined
    lines += [line] if line else []
    return [f"{head if at == 0 else indent}{part}" for at, part in enumerate(lines)]
