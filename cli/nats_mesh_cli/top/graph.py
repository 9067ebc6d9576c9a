"""Who calls whom as a tree of lines: from those that nobody calls down to those that call nobody. Pure.

What is called from several sides is drawn in full where it stands first, and named at the others; a circle of calls
ends where it closes. So every edge is one line, however many there are. Rejected: boxes in layers with lines between
them, which a terminal of 80 cells has no room for beyond a handful of services.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from nats_mesh.telemetry.snapshots import Edge
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.top.model import edge_key

__all__ = ["Branch", "branches"]

#: Deeper than so many cells what leads to a line loses its beginning: the name itself matters more.
_DEEPEST: Final = 32


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a caller that nobody calls (``edge`` is ``None``), or a call to ``name``. ``rails`` lead to it;
    ``note`` says why it does not go on."""

    key: str
    name: str
    rails: str = ""
    edge: Edge | None = None
    note: str = ""


def branches(edges: Sequence[Edge]) -> list[Branch]:
    """All edges, each once."""
    calls: dict[str, list[Edge]] = {}
    called: set[str] = set()
    for edge in edges:
        calls.setdefault(edge.source, []).append(edge)
        if edge.source != edge.service:
            called.add(edge.service)
    roots = sorted(source for source in calls if source not in called)
    lines: list[Branch] = []
    drawn: set[str] = set()
    for root in [*roots, *sorted(calls)]:  # who only calls in a circle is begun with at the end
        if root in drawn:
            continue
        lines.append(Branch(key=root, name=root))
        lines += _below(root, calls, drawn)
    return lines


def _below(root: str, calls: dict[str, list[Edge]], drawn: set[str]) -> Iterator[Branch]:
    """The lines below a root, in the order in which they stand; without recursion, as chains may be long."""
    drawn.add(root)
    above = {root}
    # Each level: what is left of it (the next one last), the rails that lead there, and whose calls they are.
    levels: list[tuple[list[Edge], str, str]] = [(_ordered(calls.get(root, ())), "", root)]
    while levels:
        rest, rails, caller = levels[-1]
        if not rest:
            levels.pop()
            above.discard(caller)
            continue
        edge = rest.pop()
        target = edge.service
        note = ""
        if target in above:
            note = "(calls back)"
        elif target in drawn and target in calls:
            note = "(see above)"
        yield Branch(
            key=edge_key(edge),
            name=called_text(target),
            rails=f"{rails}{'├' if rest else '└'}─▶ ",
            edge=edge,
            note=note,
        )
        if target not in drawn:
            drawn.add(target)
            above.add(target)
            further = f"{rails}{'│' if rest else ' '}   "
            if len(further) > _DEEPEST:
                further = f"…{further[-_DEEPEST:]}"
            levels.append((_ordered(calls.get(target, ())), further, target))


def _ordered(edges: Sequence[Edge]) -> list[Edge]:
    return sorted(edges, key=lambda each: each.service, reverse=True)
