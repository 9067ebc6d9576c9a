"""What is promised of a service, on its page: how each objective stands, and how fast its windows burn. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.core.shares import share_text
from nats_mesh.telemetry.alert_messages import Alert, Burn, burn_text, span_text
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.top import words
from nats_mesh_cli.top.frame import Line
from nats_mesh_cli.top.grid import Field
from nats_mesh_cli.top.section import section

__all__ = ["objective_lines"]

_FIELDS: Final = (
    Field(key="name", head="OBJECTIVE", width=10, most=30, right=False),
    Field(key="level", head="LEVEL", width=8, right=False),
    Field(key="burns", head="BURN RATES", width=12, most=120, need=50, right=False),
    Field(key="for", head="FOR", width=4, drop=2),
    Field(key="promised", head="PROMISED", width=24, most=40, right=False, drop=1),
)


def objective_lines(service: str, promised: Promised, width: int) -> list[Line]:
    """A table of its objectives; nothing where nothing is promised, a word where nobody watches any more."""
    if promised.at and not promised.live:
        told = f"  nobody has watched since {words.clean(promised.at[:19])}Z"
        return [[], [Cell("OBJECTIVES", words.HEAD), Cell(told, words.WARN)]]
    found = promised.of(service)
    return section("OBJECTIVES", _FIELDS, [_row(each) for each in found], width) if found else []


def _row(alert: Alert) -> dict[str, Cell]:
    within = "" if alert.threshold_s is None else f" within {words.duration_text(alert.threshold_s)}"
    some = f" of {','.join(alert.endpoints)}" if alert.endpoints else ""
    return {
        "name": Cell(words.clean(alert.objective), words.NAME),
        "level": words.alert_cell(alert.level),
        "for": Cell(span_text(alert.for_s)),
        "promised": Cell(
            words.clean(f"{share_text(alert.share, 9)}{within} over {span_text(alert.window_s)}{some}")
        ),
        "burns": Cell("  ".join([_burn(each) for each in alert.burns]) or "-"),
    }


def _burn(burn: Burn) -> str:
    """``5m ×14.4``; where less was seen than the window is long that is said: ``1h ×1000 (52s seen)``."""
    part = "" if burn.seen_s >= burn.window_s else f" ({span_text(burn.seen_s)} seen)"
    return f"{span_text(burn.window_s)} ×{burn_text(burn.burn)}{part}"
