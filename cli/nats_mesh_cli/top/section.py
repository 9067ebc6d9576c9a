"""One table among others on a page: its title is the head of its first column. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.top import words
from nats_mesh_cli.top.frame import Line
from nats_mesh_cli.top.grid import Field, fitted, pieces, wishes

__all__ = ["section"]


def section(title: str, fields: Sequence[Field], rows: Sequence[dict[str, Cell]], width: int) -> list[Line]:
    """A blank line, the columns' names, the rows; without any that is said."""
    if not rows:
        return [[], [Cell(title, words.HEAD), Cell("  none known", words.DIM)]]
    sizes = fitted(fields, width, wishes(fields, rows))
    heads = pieces(sizes, {each.key: Cell(each.head, words.HEAD) for each, _ in sizes})
    return [[], heads, *[pieces(sizes, each) for each in rows]]
