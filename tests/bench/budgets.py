"""The budgets of the data path, as ratios within one run, and whether a run meets them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from tests.bench.figures import Cell, Verdict, cell_of, ratio

__all__ = ["BUDGETS", "Budget", "judge"]

_SIZE = 128


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """``figure`` of ``peer`` over that of ``over``, at 128 B and so many in flight; p50 is a ceiling."""

    name: str
    over: str
    must: float
    aim: float | None = None
    peer: str = "mesh"
    figure: Literal["rate", "p50"] = "rate"
    in_flight: int = 64


_PURE = (
    Budget(name="throughput over raw nats-py request, 64 in flight", over="nats-py", must=1.3, aim=1.7),
    Budget(
        name="p50 over raw nats-py request, 1 in flight",
        over="nats-py",
        must=0.85,
        aim=0.7,
        figure="p50",
        in_flight=1,
    ),
    Budget(name="throughput over the bare protocol", over="bare", must=0.4, aim=0.55),
    Budget(name="throughput over Moleculer with everything on", over="moleculer-all", must=1.5),
    Budget(name="throughput over HTTP through two Envoys", over="http-envoys", must=8.0),
    Budget(name="throughput over gRPC through two Envoys", over="grpc-envoys", must=8.0),
)
_COMPILED = "mesh-compiled"

BUDGETS = (
    *_PURE,
    *(msgspec.structs.replace(each, name=f"{each.name}: compiled", peer=_COMPILED) for each in _PURE),
)
"""Each for the pure modules and for the compiled ones, which wheels for one platform have."""


def judge(cells: Sequence[Cell], budgets: Sequence[Budget] = BUDGETS) -> tuple[Verdict, ...]:
    """What these cells say of each budget. A cell with failed calls meets nothing."""
    return tuple(_verdict(cells, budget) for budget in budgets)


def _verdict(cells: Sequence[Cell], budget: Budget) -> Verdict:
    mine = cell_of(cells, budget.peer, _SIZE, budget.in_flight)
    theirs = cell_of(cells, budget.over, _SIZE, budget.in_flight)
    at_most = budget.figure == "p50"
    found: float | None = None
    met: bool | None = None
    if mine is not None and theirs is not None:
        found = ratio(mine.p50_us, theirs.p50_us) if at_most else ratio(mine.rate_per_s, theirs.rate_per_s)
    if found is not None and mine is not None:
        met = not mine.errors and (found <= budget.must if at_most else found >= budget.must)
    return Verdict(name=budget.name, ratio=found, must=budget.must, aim=budget.aim, at_most=at_most, met=met)
