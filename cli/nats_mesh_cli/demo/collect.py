"""From what the bus said to what the view shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nats_mesh.core.members import Health, Instance, ServiceSummary
from nats_mesh_cli.demo.rows import Row
from nats_mesh_cli.demo.state import EdgeLine, InstanceLine, Recent, ServiceLine
from nats_mesh_cli.demo.watch import Heard

__all__ = ["edge_lines", "in_order", "instance_lines", "service_lines"]


def service_lines(
    rows: Sequence[Row],
    present: Sequence[ServiceSummary],
    expected: Mapping[str, Sequence[str]],
    trends: Mapping[str, Sequence[float]],
) -> tuple[ServiceLine, ...]:
    """The expected services in their order, then whoever else is there."""
    by_name = {row.service: row for row in rows}
    there = {service.name: service for service in present}
    names = [*expected, *sorted((by_name.keys() | there.keys()) - expected.keys())]
    return tuple(
        ServiceLine(
            name=name,
            ready=there[name].ready if name in there else 0,
            instances=max(there[name].instances if name in there else 0, len(expected.get(name, ()))),
            recent=_recent(by_name.get(name)),
            shares=_shares(by_name.get(name)),
            trend=tuple(trends.get(name, ())),
        )
        for name in names
    )


def edge_lines(rows: Sequence[Row], expected: Mapping[str, Sequence[str]]) -> tuple[EdgeLine, ...]:
    """Who calls whom, in the order in which a call gets there."""
    return tuple(
        EdgeLine(source=row.source, service=row.service, recent=_recent(row))
        for row in in_order(rows, expected)
    )


def in_order(rows: Sequence[Row], expected: Mapping[str, Sequence[str]]) -> list[Row]:
    """``rows`` by caller and service, callers before those they call; strangers call first and are called last."""
    order = {name: place for place, name in enumerate(expected)}

    def place(row: Row) -> tuple[int, int, str, str]:
        return (order.get(row.source, -1), order.get(row.service, len(order)), row.source, row.service)

    return sorted(rows, key=place)


def instance_lines(
    instances: Sequence[Instance],
    heard: Mapping[tuple[str, str], Heard],
    expected: Mapping[str, Sequence[str]],
    is_running: Callable[[str], bool | None],
) -> tuple[InstanceLine, ...]:
    """One line per instance. A process that has ended is said to have, long before its beats are missed."""
    order = {name: place for place, name in enumerate(expected)}
    lines = []
    for instance in instances:
        pid = instance.name.rpartition("-")[2]
        word = heard.get((instance.service, instance.id))
        state = str(instance.state)
        if is_running(pid) is False:
            state = "ended"
        elif instance.health is Health.SUSPECT:
            state = "suspect"
        lines.append(
            InstanceLine(
                service=instance.service,
                version=instance.version,
                pid=pid,
                state=state,
                in_flight=instance.load.in_flight if word is None else word.in_flight,
                calls=instance.load.requests if word is None else word.calls,
            )
        )
    return tuple(
        sorted(
            lines,
            key=lambda line: (order.get(line.service, len(order)), line.service, line.version, line.pid),
        )
    )


def _recent(row: Row | None) -> Recent:
    if row is None:
        return Recent()
    return Recent(
        rate_per_s=row.rate_per_s,
        success=row.recent.success,
        p50_s=row.recent.p50_s,
        p99_s=row.recent.p99_s,
        calls=row.total.requests,
    )


def _shares(row: Row | None) -> tuple[tuple[str, float], ...]:
    if row is None:
        return ()
    total = sum(figures.requests for figures in row.versions.values())
    return tuple(
        (version, figures.requests / total if total else 0.0) for version, figures in row.versions.items()
    )
