"""What the tables of all views are made of: columns, orders, cells. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats_mesh.telemetry.snapshots import Red
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.top import words
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.grid import Field
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.trouble import RANKS, Level

__all__ = ["ERROR", "GAVE_UP", "RED", "SHORT", "Order", "Sheet", "high", "red_cells", "share", "trouble"]

#: How much of an id is shown in a column.
SHORT: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """A way to sort: its word, the column that shows it (empty: none), and what to sort by (``None``: as it comes)."""

    word: str
    column: str
    by: Callable[[Any], Any] | None

    @property
    def first(self) -> bool:
        """Whether the word says all: not a column's name but what comes first."""
        return self.word.endswith(" first") or not self.column


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: its ``items`` out of the data, what tells each from all others, what a filter looks at, its cells.

    ``nothing`` is what stands where there are no rows at all, ``unheard`` while it is too early to say so (empty: it
    never is). ``left_out``: columns that have nothing to say now.
    """

    fields: tuple[Field, ...]
    orders: tuple[Order, ...]
    items: Callable[[Data], Sequence[Any]]
    key: Callable[[Any], str]
    text: Callable[[Any], str]
    cells: Callable[[Any, Facts], dict[str, Cell]]
    nothing: str
    unheard: str = ""
    left_out: Callable[[Facts], frozenset[str]] = lambda facts: frozenset()


def high(value: float | None) -> float:
    """For sorting, the highest first; nothing is the lowest."""
    return 0.0 if value is None else -value


def share(value: float | None) -> float:
    """For sorting, the lowest first; nothing is the highest."""
    return 1.0 if value is None else value


#: A table, because a sort asks for each of its rows.
_TROUBLE: Final[dict[Level, int]] = {level: max(0, rank - 1) for level, rank in RANKS.items()}


def trouble(level: Level) -> int:
    """For sorting, the worst last; what is well and what cannot be said are one."""
    return _TROUBLE[level]


def red_cells(red: Red) -> dict[str, Cell]:
    """The columns that everything has that is called."""
    return {
        "success": words.success_cell(red.success, red.gave_up),
        "rate": Cell(words.rate_text(red.rate_per_s)),
        "tries": Cell(words.rate_text(red.attempts_per_s)),
        "p50": Cell(words.duration_text(red.p50_s)),
        "p95": Cell(words.duration_text(red.p95_s)),
        "p99": Cell(words.duration_text(red.p99_s)),
        "retry": words.retry_cell(red.retry_share),
        "gave": words.gave_up_cell(red.gave_up),
    }


RED: Final = (
    Field(key="success", head="SUCCESS", width=8),
    Field(key="rate", head="RPS", width=5),
    Field(key="p50", head="P50", width=6, drop=7),
    Field(key="p95", head="P95", width=6, drop=10),
    Field(key="p99", head="P99", width=6),
    Field(key="trend", head="TREND", width=6, most=30, right=False, tail=True, drop=9),
    Field(key="breaker", head="BREAKER", width=7, right=False, drop=4),
    Field(key="retry", head="RETRY%", width=6, drop=8),
)
#: Stands there from when some of the calls of any row were given up: see ``Sheet.left_out``.
GAVE_UP: Final = Field(key="gave", head="GAVE UP", width=8, drop=6)
ERROR: Final = Field(key="error", head="LAST ERROR", width=16, most=80, right=False, drop=14)
