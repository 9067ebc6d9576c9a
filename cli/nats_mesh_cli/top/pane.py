"""What stands under a table: more about the selected row. Pure."""

from __future__ import annotations

from typing import Any, Final

from rich.cells import cell_len

from nats_mesh.core.sync_state import ORDER
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.top import words
from nats_mesh_cli.top.drill import errors_of, latency_lines, red_of, title_of
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.frame import Line, boxed, filled, ruled, width_of
from nats_mesh_cli.top.grid import Field, clip, fitted, pieces, wishes
from nats_mesh_cli.top.sheets import sheet_of
from nats_mesh_cli.top.state import State, View

__all__ = ["pane_of"]


def pane_of(state: State, facts: Facts, item: Any, width: int, height: int) -> list[Line]:
    """More about the selected row, in so many lines under a heading; none where the view has nothing more to say."""
    if state.view is View.POLICIES:
        return _members(facts, width, height)
    if state.view is View.TAP:
        return [ruled([Cell(f" {words.clean(state.data.tapped)} ", words.DIM)], width, "├", "┤")]
    if state.view is View.EVENTS:
        return []
    if item is None:
        return []
    drill = _drill_of(state, item)
    red, _, _ = red_of(drill, state.data)
    if red is None:
        return []
    inner = width - 2
    left = (inner - 1) // 2
    right = inner - 1 - left
    head = clip(f" {title_of(drill)} ▸ latency ", left)
    lines: list[Line] = [
        [
            Cell("├", words.DIM),
            Cell(head, words.HEAD),
            Cell("─" * (left - cell_len(head)) + "┬", words.DIM),
            Cell(clip(" last errors ", right), words.HEAD),
            Cell("─" * max(0, right - 13) + "┤", words.DIM),
        ]
    ]
    bars = latency_lines(red, left - 1, height)
    told = errors_of(drill, state.data, right - 1, height)
    for at in range(height):
        one = bars[at] if at < len(bars) else []
        two = told[at] if at < len(told) else []
        blank = Cell(" " * max(0, left - 1 - width_of(one)))
        lines.append(boxed([Cell(" "), *one, blank, Cell("│", words.DIM), Cell(" "), *two], width))
    return lines


def _drill_of(state: State, item: Any) -> str:
    sheet = sheet_of(state)
    if state.view is View.INSTANCES:
        return str(item.service)
    return str(sheet.key(item))


_MEMBERS: Final = (
    Field(key="member", head="MEMBER", width=16, most=48, right=False),
    Field(key="state", head="STATE", width=11, right=False),
    Field(key="revision", head="REV", width=5),
    Field(key="reason", head="WHY", width=4, most=300, right=False, drop=1),
)


def _members(facts: Facts, width: int, height: int) -> list[Line]:
    """Who follows the policies, the worst first."""
    sync = facts.counts
    count = "  ".join(f"{state} {sync[state]}" for state in ORDER if sync[state])
    if not facts.policed:
        count = "there are no policies to follow"
    head = [Cell(f" members ▸ {count or 'nobody'} ", words.HEAD)]
    if facts.data.policies and facts.data.store:
        head.append(
            Cell(clip(f"▲ {words.clean(facts.data.store)} ", max(0, width - 4 - width_of(head))), words.WARN)
        )
    lines = [ruled(head, width, "├", "┤")]
    if not facts.policed:
        return filled(lines, width, height + 1)
    shown = facts.followers[: height - 1]
    cells = [
        {
            "member": Cell(words.clean(f"{each.service}/{each.name or each.id}"), words.NAME),
            "state": words.state_cell(each.state),
            "revision": Cell("-" if each.revision is None else str(each.revision)),
            "reason": Cell(words.clean(each.reason), words.DIM),
        }
        for each in shown
    ]
    sizes = fitted(_MEMBERS, width - 3, wishes(_MEMBERS, cells))
    lines += [boxed([Cell(" "), *pieces(sizes, each)], width) for each in cells]
    if len(facts.followers) > len(shown):
        more = len(facts.followers) - len(shown)
        lines.append(boxed([Cell(" "), Cell(f"… and {more} more", words.DIM)], width))
    return filled(lines, width, height + 1)
