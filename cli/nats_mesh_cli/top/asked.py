"""The line on which it is written which calls to tap, with what is wrong with it. Pure."""

from __future__ import annotations

import textwrap
from typing import Final

from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.tap_line import EXAMPLE
from nats_mesh_cli.top import words
from nats_mesh_cli.top.frame import Line, boxed
from nats_mesh_cli.top.grid import clip
from nats_mesh_cli.top.state import State

__all__ = ["asked_lines"]

_HEAD: Final = "only "
_CURSOR: Final = "▏"
#: Below so many lines of a body one line has to do for what is wrong.
_ROOMY: Final = 8
_MOST: Final = 3


def asked_lines(state: State, width: int, height: int) -> list[Line]:
    """The line, of which the end shows, and under it what is wrong or an example; none while nobody writes."""
    if state.asking is None:
        return []
    inner = width - 4
    room = max(1, inner - len(_HEAD) - 1)
    text = words.clean(state.asking)
    while len(clip(text, room)) < len(text):  # what was written last matters
        text = text[1:]
    lines = [boxed([Cell(" "), Cell(_HEAD, words.HEAD), Cell(text, "bold yellow"), Cell(_CURSOR)], width)]
    if not state.refused:
        return [*lines, boxed([Cell(" "), Cell(clip(f"as in: {EXAMPLE}", inner), words.DIM)], width)]
    told = textwrap.wrap(f"✗ {words.clean(state.refused)}", inner)
    most = _MOST if height >= _ROOMY else 1
    shown = told if len(told) <= most else [*told[: most - 1], clip(" ".join(told[most - 1 :]), inner)]
    return [*lines, *[boxed([Cell(" "), Cell(part, words.BAD)], width) for part in shown]]
