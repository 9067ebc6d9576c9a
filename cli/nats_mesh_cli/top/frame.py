"""A drawn screen: exactly so many lines of exactly so many cells, that rich can put on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top.grid import clip
from nats_mesh_cli.top.words import DIM

__all__ = ["Frame", "Line", "boxed", "filled", "joined", "ruled", "width_of"]

#: Cells side by side.
Line = list[Cell]


class Frame:
    """Lines of cells. ``plain`` is the text alone."""

    def __init__(self, lines: Sequence[Line], size: Size) -> None:
        self.size = size
        self.lines = [_merged(_exact(line, size.width)) for line in lines[: size.height]]
        self.lines += [[Cell(" " * size.width)]] * (size.height - len(self.lines))

    @property
    def plain(self) -> str:
        """The text, lines without the blanks at their ends."""
        return "\n".join(["".join([cell.text for cell in line]).rstrip() for line in self.lines])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """For rich: segments straight away, as laying out text anew would cost more than all the rest."""
        get_style = console.get_style
        last = len(self.lines) - 1
        for at, line in enumerate(self.lines):
            for cell in line:
                yield Segment(cell.text, get_style(cell.style) if cell.style else None)
            if at != last:
                yield Segment.line()


def width_of(cells: Iterable[Cell]) -> int:
    """How many cells of a terminal they take."""
    used = 0
    for cell in cells:
        text = cell.text
        used += len(text) if text.isascii() else cell_len(text)
    return used


def _merged(line: Line) -> Line:
    """The same with fewer cells: those of one style side by side become one."""
    made: Line = []
    before: Cell | None = None
    for cell in line:
        if before is not None and cell.style == before.style:
            before = made[-1] = Cell(before.text + cell.text, cell.style)
        else:
            made.append(cell)
            before = cell
    return made


def _exact(line: Line, width: int) -> Line:
    used = width_of(line)
    if used == width:
        return line
    if used < width:
        return [*line, Cell(" " * (width - used))]
    kept: Line = []
    left = width
    for cell in line:
        size = width_of([cell])
        if size > left:
            short = clip(cell.text, left)
            kept.append(Cell(short + " " * (left - width_of([Cell(short)])), cell.style))
            break
        kept.append(cell)
        left -= size
    return kept


def joined(cells: Iterable[Cell], width: int, gap: str = "  ") -> Line:
    """As many as fit side by side, in order; one that does not fit is left out whole."""
    line: Line = []
    used = 0
    for cell in cells:
        size = width_of([cell]) + (len(gap) if line else 0)
        if used + size <= width:
            line += [Cell(gap), cell] if line else [cell]
            used += size
    return line


def boxed(line: Line, width: int, left: str = "│", right: str = "│") -> Line:
    """A line between the two sides of the box."""
    return [Cell(left, DIM), *_exact(line, max(0, width - 2)), Cell(right, DIM)]


def ruled(line: Line, width: int, left: str, right: str, fill: str = "─") -> Line:
    """A line in a border: what is left of the width is filled with it."""
    inner = max(0, width - 2)
    used = width_of(line)
    if used > inner:
        return [Cell(left, DIM), *_exact(line, inner), Cell(right, DIM)]
    return [Cell(left, DIM), *line, Cell(fill * (inner - used), DIM), Cell(right, DIM)]


def filled(lines: list[Line], width: int, height: int) -> list[Line]:
    """Exactly so many lines between the two sides of the box."""
    return lines[:height] + [boxed([], width)] * (height - len(lines))
