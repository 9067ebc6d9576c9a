"""Where services stand in the picture: callers left of whom they call, few lines that cross. Pure.

The method is Sugiyama's (Sugiyama, Tagawa, Toda: "Methods for visual understanding of hierarchical system
structures", 1981): leave out what closes a circle, put everybody one column behind the last of his callers, order
columns by the mean place of the neighbours. Rejected: springs (Fruchterman and Reingold): they need chance or many
rounds, and a picture that looks another way after each change cannot be learnt. It is computed here and not in the
page, so that every browser shows the same picture, and only when a service or an edge comes or goes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

__all__ = ["MAX_ROWS", "Place", "arrange"]

#: A column that is longer goes on in another one beside it; in a large mesh it may be as long as keeps the picture in
#: the shape of a screen.
MAX_ROWS: Final = 12
_SHAPE: Final = 2.0
_SWEEPS: Final = 4


class Place(msgspec.Struct, frozen=True):
    """The middle of a box: ``column`` from the left, ``row`` from the top, in boxes."""

    column: float
    row: float


def arrange(nodes: Collection[str], edges: Iterable[tuple[str, str]]) -> dict[str, Place]:
    """A place for every node; the same for the same input, in whatever order it comes.

    Edges of nodes that are not there, and of a node to itself, are left out of account.
    """
    names = sorted(set(nodes))
    known = set(names)
    links = sorted({(a, b) for a, b in edges if a != b and a in known and b in known})
    below: dict[str, list[str]] = {name: [] for name in names}
    for source, target in links:
        below[source].append(target)
    busy = {name for link in links for name in link}
    order, forward = _acyclic(names, below)
    columns = _columns([name for name in order if name in busy], forward)
    _uncross(columns, forward)
    alone = [name for name in names if name not in busy]
    return _places(columns, alone)


def _acyclic(names: list[str], below: Mapping[str, list[str]]) -> tuple[list[str], dict[str, list[str]]]:
    """The nodes so that callers come first, and the edges that lead forward in it.

    Depth first from those that nobody calls; an edge back to where one comes from closes a circle.
    """
    called = {target for targets in below.values() for target in targets}
    starts = [name for name in names if name not in called] + [name for name in names if name in called]
    done: dict[str, bool] = {}  # false: its callees are still being looked at
    forward: dict[str, list[str]] = {name: [] for name in names}
    finished: list[str] = []
    for start in starts:
        if start in done:
            continue
        done[start] = False
        stack = [(start, iter(below[start]))]
        while stack:
            node, targets = stack[-1]
            for target in targets:
                if done.get(target) is False:
                    continue
                forward[node].append(target)
                if target not in done:
                    done[target] = False
                    stack.append((target, iter(below[target])))
                    break
            else:
                done[node] = True
                finished.append(node)
                stack.pop()
    return finished[::-1], forward


def _columns(order: list[str], forward: Mapping[str, list[str]]) -> list[list[str]]:
    """Everybody one column behind the last of his callers."""
    depth = dict.fromkeys(order, 0)
    for node in order:
        for target in forward[node]:
            depth[target] = max(depth[target], depth[node] + 1)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in sorted(order):
        columns[depth[node]].append(node)
    return columns


def _uncross(columns: list[list[str]], forward: Mapping[str, list[str]]) -> None:
    """Order each column by the mean row of the neighbours before it, then of those behind it, some times."""
    above: dict[str, list[str]] = {node: [] for column in columns for node in column}
    for node in above:
        for target in forward[node]:
            above[target].append(node)
    row = {node: _middle(at, column) for column in columns for at, node in enumerate(column)}
    for sweep in range(_SWEEPS):
        neighbours: Mapping[str, list[str]] = forward if sweep % 2 else above
        for column in columns[::-1] if sweep % 2 else columns:
            mean = {
                node: sum(row[each] for each in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else row[node]
                for node in column
            }
            column.sort(key=lambda node: (mean[node], node))
            row.update((node, _middle(at, column)) for at, node in enumerate(column))


def _middle(at: int, column: list[str]) -> float:
    return at - (len(column) - 1) / 2


def _places(columns: list[list[str]], alone: list[str]) -> dict[str, Place]:
    """Columns side by side, each around one middle line; those without any edge in rows beneath."""
    places: dict[str, Place] = {}
    longest = max(MAX_ROWS, math.isqrt(int(_SHAPE * sum(map(len, columns)))))
    left = 0
    for column in columns:
        parts = -(-len(column) // longest)
        for part in range(parts):
            rows = column[part::parts]
            for at, node in enumerate(rows):
                # Boxes side by side stand half a row apart: lines to the farther one pass between the nearer.
                places[node] = Place(left + part, _middle(at, rows) + (part % 2) / 2)
        left += parts
    top = min((place.row for place in places.values()), default=0.0)
    under = max((place.row for place in places.values()), default=-1.0) - top + 1.0
    places = {node: Place(place.column, place.row - top) for node, place in places.items()}
    width = max(left, min(len(alone), 6))
    for at, node in enumerate(alone):
        places[node] = Place(at % width, under + at // width)
    return places
