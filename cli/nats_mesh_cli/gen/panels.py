"""Grafana's dashboards as plain data: rows of panels, each with what it asks Prometheus, laid out by the program.

Grafana reads a JSON of its own; this makes the part of it that these dashboards use. The layout has 24 columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

__all__ = ["COLUMNS", "Dashboard", "Panel", "Query", "Row", "Unit", "Variable", "document"]

COLUMNS: Final = 24
#: The version of the JSON's form, as Grafana counts it; newer ones bring it up to date when they load it.
_SCHEMA: Final = 39
#: What all dashboards call their data source: a variable, so that each Grafana may have its own.
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Unit = Literal["s", "reqps", "percentunit", "short", "none"]
Kind = Literal["timeseries", "stat", "table", "state-timeline", "heatmap"]


class Query(msgspec.Struct, frozen=True):
    """One expression, and what its series are called (empty: as Grafana would)."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One picture. Its colour changes at ``warn`` and ``bad``; where ``bad`` is below ``warn``, less is worse."""

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    unit: Unit = "short"
    width: int = 8
    height: int = 8
    warn: float | None = None
    bad: float | None = None
    stacked: bool = False
    #: Of a table: its labels that are not shown.
    hidden: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


class Variable(msgspec.Struct, frozen=True):
    """What the viewer picks: the values of ``label`` of the series ``metric``; several of them, or all."""

    name: str
    title: str
    metric: str
    label: str


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """One page."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    def panels(self) -> Iterator[Panel]:
        """Every panel, from top to bottom."""
        for row in self.rows:
            yield from row.panels


def document(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana reads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["nats-mesh"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Mesh",
                "tags": ["nats-mesh"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_source(), *[_variable(each) for each in dashboard.variables]]},
        "annotations": {"list": []},
        "panels": list(_laid_out(dashboard.rows)),
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": variable.name},
        "refresh": 2,  # whenever the time range changes: services come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _laid_out(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Panels from left to right, below each other where a row is full."""
    top, number = 0, 1
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }
        top, left, tallest = top + 1, 0, 0
        number += 1
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield _panel(panel, number, position)
            left, tallest, number = left + panel.width, max(tallest, panel.height), number + 1
        top += tallest


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    found: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": position,
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": table or panel.kind == "stat",
                "range": not table and panel.kind != "stat",
                "format": "table" if table else "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for at, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if table:
        hidden = {"Time": True, **dict.fromkeys(panel.hidden, True)}
        found["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return found


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "min": 0, **_thresholds(panel)}
    if panel.kind == "timeseries":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    if panel.kind == "state-timeline":
        found["custom"] = {"fillOpacity": 70, "lineWidth": 0}
    return found


def _thresholds(panel: Panel) -> dict[str, Any]:
    if panel.warn is None or panel.bad is None:
        return {"color": {"mode": "palette-classic"}}
    steps: list[dict[str, Any]]
    if panel.bad > panel.warn:
        steps = [{"color": "green", "value": None}, {"color": "orange", "value": panel.warn}]
        steps.append({"color": "red", "value": panel.bad})
    else:
        steps = [{"color": "red", "value": None}, {"color": "orange", "value": panel.bad}]
        steps.append({"color": "green", "value": panel.warn})
    mode = "palette-classic" if panel.kind == "timeseries" else "thresholds"
    return {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": mode}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
        }
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    if panel.kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": panel.unit}, "tooltip": {"mode": "single"}}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "legend": {"showLegend": False}}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
