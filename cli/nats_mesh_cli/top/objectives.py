"""What is promised of a service, on its page: how each objective stands, and how fast its windows burn. Pure."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len

from nats_mesh.telemetry.alert_messages import (
    Alert,
    Burn,
    coming_of,
    limit_text,
    promise_text,
    seen_text,
    span_text,
)
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.top import words
from nats_mesh_cli.top.frame import Line
from nats_mesh_cli.top.grid import Field, clip
from nats_mesh_cli.top.section import section

__all__ = ["objective_lines"]

_FIELDS: Final = (
    Field(key="name", head="OBJECTIVE", width=10, most=30, right=False),
    Field(key="level", head="LEVEL", width=8, right=False),
    Field(key="for", head="FOR", width=4, drop=2),
    Field(key="promised", head="PROMISED", width=24, most=60, right=False, drop=1),
)


def objective_lines(service: str, promised: Promised, width: int) -> list[Line]:
    """A table of its objectives; nothing where nothing is promised, a word where nobody watches any more."""
    if promised.at and not promised.live:
        told = f"  nobody has watched since {words.clean(promised.at[:19])}Z"
        return [[], [Cell("OBJECTIVES", words.HEAD), Cell(told, words.WARN)]]
    found = promised.of(service)
    if not found:
        return []
    blank, heads, *rows = section("OBJECTIVES", _FIELDS, [_row(each) for each in found], width)
    lines = [blank, heads]
    for alert, row in zip(found, rows, strict=True):
        lines += [row, *_burns(alert, width)]
    return lines


def _level(alert: Alert) -> str:
    """What stands under LEVEL: an objective that is well, and will not be for long, is not green."""
    return "soon" if alert.level == "ok" and coming_of(alert) else alert.level


def _row(alert: Alert) -> dict[str, Cell]:
    some = f" of {','.join(alert.endpoints)}" if alert.endpoints else ""
    return {
        "name": Cell(words.clean(alert.objective), words.NAME),
        "level": words.alert_cell(_level(alert)),
        "for": Cell(span_text(alert.for_s)),
        "promised": Cell(words.clean(f"{promise_text(alert)} over {span_text(alert.window_s)}{some}")),
    }


def _burns(alert: Alert, width: int) -> list[Line]:
    """Which limit is passed, where one is, and how fast each window burns, as many on a line as fit whole."""
    limit = limit_text(alert)
    lines = [f"  limit {limit}"] if limit else []
    first = True
    for text in map(_burn, alert.burns):
        if not first and cell_len(lines[-1]) + 2 + cell_len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(f"  {'burns' if first else '     '} {text}")
        first = False
    return [[Cell(clip(line, width), words.DIM)] for line in lines]


def _burn(burn: Burn) -> str:
    """``5m ×14.4``; where less was seen than the window is long: ``1h ×2.88 (seen 12m of 1h: ×14.4)``."""
    return f"{span_text(burn.window_s)} {seen_text(burn, '×')}"
