"""The tables of what is called: services, edges, and the edges as a graph. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nats_mesh.telemetry.snapshots import Edge, Service
from nats_mesh_cli.demo.layout import Cell
from nats_mesh_cli.last_errors import last_error_of
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.top import words
from nats_mesh_cli.top.columns import ERROR, GAVE_UP, RED, Order, Sheet, high, red_cells, share, trouble
from nats_mesh_cli.top.following import Facts
from nats_mesh_cli.top.graph import Branch, branches
from nats_mesh_cli.top.grid import Field
from nats_mesh_cli.top.model import edge_key
from nats_mesh_cli.trouble import edge_level, service_level

__all__ = ["EDGES", "GRAPH", "SERVICES"]


def _worst_service(service: Service) -> tuple[Any, ...]:
    red = service.red
    return -trouble(service_level(service)), share(red.success), high(red.p99_s), service.name


def _versions(versions: dict[str, int]) -> str:
    if len(versions) <= 2:
        return ",".join(versions)
    return f"×{len(versions)}"


def _service_cells(service: Service, facts: Facts) -> dict[str, Cell]:
    red, capacity = service.red, service.capacity
    ejected = Cell(f"▲ {service.ejected}", words.WARN) if service.ejected else Cell("-", words.DIM)
    # Of the limit that instances have, what runs at them; callers count what is on its way, too.
    flight = f"{capacity.in_flight}/{capacity.limit}" if capacity.limit else str(red.in_flight)
    return {
        "name": Cell(words.clean(service.name), words.NAME),
        "version": Cell(words.clean(_versions(service.versions))),
        "ready": words.ready_cell(service.ready, service.instances),
        "alert": words.alert_cell(facts.levels.get(service.name)),
        **red_cells(red),
        "trend": Cell(words.trend_text(service.trend.rates, 30), "cyan"),
        "breaker": words.breaker_cell(service.breakers),
        "ejected": ejected,
        "flight": Cell(flight),
        "error": words.error_cell(facts.errors.get((service.name, "")) or last_error_of(red), facts.at),
    }


SERVICES: Final = Sheet(
    fields=(
        Field(key="name", head="NAME", width=10, most=40, need=20, right=False),
        Field(key="alert", head="ALERT", width=6, most=8, need=8, right=False),
        Field(key="version", head="VER", width=5, most=14, right=False, drop=5),
        Field(key="ready", head="INST", width=5, drop=3),
        *RED,
        GAVE_UP,
        Field(key="ejected", head="EJECTED", width=7, drop=13),
        Field(key="flight", head="IN FLIGHT", width=9, drop=12),
        Field(key="tries", head="TRIES/S", width=7, drop=11),
        ERROR,
    ),
    orders=(
        Order("worst first", "", _worst_service),
        Order("p99", "p99", lambda s: (high(s.red.p99_s), s.name)),
        Order("rps", "rate", lambda s: (-s.red.rate_per_s, s.name)),
        Order("success", "success", lambda s: (share(s.red.success), s.name)),
        Order("name", "name", lambda s: s.name),
    ),
    items=lambda data: data.mesh.services,
    key=lambda s: s.name,
    text=lambda s: f"{s.name} {' '.join(s.versions)} {' '.join(s.breakers)}",
    cells=_service_cells,
    nothing="no services yet: nobody is there, and nobody is called",
    unheard="nobody has been heard so far",
    left_out=lambda facts: frozenset(
        [key for key, shown in (("alert", facts.fires), ("gave", facts.some_gave_up)) if not shown]
    ),
)


def _worst_edge(edge: Edge) -> tuple[Any, ...]:
    return (
        -trouble(edge_level(edge)),
        share(edge.red.success),
        high(edge.red.p99_s),
        edge.source,
        edge.service,
    )


def _edge_cells(edge: Edge, facts: Facts) -> dict[str, Cell]:
    return {
        "source": Cell(words.clean(edge.source)),
        "name": Cell(f"→ {words.clean(called_text(edge.service))}", words.NAME),
        **red_cells(edge.red),
        "trend": Cell(words.trend_text(edge.trend.rates, 30), "cyan"),
        "breaker": words.breaker_cell(edge.breakers),
        "error": words.error_cell(last_error_of(edge.red), facts.at),
    }


EDGES: Final = Sheet(
    fields=(
        Field(key="source", head="CALLER", width=9, most=30, need=16, right=False),
        Field(key="name", head="→ SERVICE", width=11, most=30, need=18, right=False),
        *RED,
        GAVE_UP,
        Field(key="tries", head="TRIES/S", width=7, drop=11),
        ERROR,
    ),
    orders=(
        Order("worst first", "", _worst_edge),
        Order("p99", "p99", lambda e: (high(e.red.p99_s), edge_key(e))),
        Order("rps", "rate", lambda e: (-e.red.rate_per_s, edge_key(e))),
        Order("success", "success", lambda e: (share(e.red.success), edge_key(e))),
        Order("caller", "source", lambda e: (e.source, e.service)),
        Order("service", "name", lambda e: (e.service, e.source)),
    ),
    items=lambda data: data.mesh.edges,
    key=edge_key,
    text=lambda e: f"{e.source} {called_text(e.service)} {' '.join(e.breakers)}",
    cells=_edge_cells,
    nothing="no calls yet: an edge appears with the first call",
    unheard="nobody has told of calls so far",
    left_out=lambda facts: frozenset() if facts.some_gave_up else frozenset({"gave"}),
)


def _branch_cells(branch: Branch, facts: Facts) -> dict[str, Cell]:
    edge = branch.edge
    if edge is None:
        return {"name": Cell(f"{branch.rails}{words.clean(branch.name)}", words.NAME)}
    again = f" {branch.note}" if branch.note else ""
    return {
        **_edge_cells(edge, facts),
        "name": Cell(f"{branch.rails}{words.clean(branch.name)}{again}", words.NAME),
    }


GRAPH: Final = Sheet(
    fields=(
        Field(key="name", head="WHO CALLS WHOM", width=20, most=90, need=50, right=False),
        Field(key="success", head="SUCCESS", width=8),
        Field(key="rate", head="RPS", width=5),
        Field(key="p99", head="P99", width=5, drop=1),
        Field(key="breaker", head="BREAKER", width=7, right=False, drop=2),
        Field(key="retry", head="RETRY%", width=6, drop=4),
        msgspec.structs.replace(GAVE_UP, drop=3),
    ),
    orders=(Order("from the callers on", "", None),),
    items=lambda data: branches(data.mesh.edges),
    key=lambda b: b.key,
    text=lambda b: f"{b.name} {'' if b.edge is None else b.edge.source}",
    cells=_branch_cells,
    nothing=EDGES.nothing,
    unheard=EDGES.unheard,
    left_out=EDGES.left_out,
)
