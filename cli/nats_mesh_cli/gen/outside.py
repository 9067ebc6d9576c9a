"""The dashboards of calls: the whole mesh, and one service."""

from __future__ import annotations

from typing import Final

from nats_mesh_cli.gen.figures import ARROW, BY_ENDPOINT, CALLS, EDGE, ENDPOINT, SERVICE, W, services, success
from nats_mesh_cli.gen.panels import Dashboard, Panel, Query, Row, Variable
from nats_mesh_cli.gen.promql import DESTINATION, SOURCE, quantile, rate, selector

__all__ = ["MESH", "SERVICES"]

MESH: Final = Dashboard(
    uid="nats-mesh",
    title="Mesh",
    about="All services and who calls whom.",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    title="Calls",
                    about="Calls that instances answer, a second.",
                    queries=(Query(rate(CALLS, W, DESTINATION)),),
                    kind="stat",
                    unit="reqps",
                    width=4,
                    height=4,
                ),
                Panel(
                    title="Success",
                    about="Share of calls that do not fail, as callers see it.",
                    queries=(Query(success(SOURCE)),),
                    kind="stat",
                    unit="percentunit",
                    width=4,
                    height=4,
                    warn=0.999,
                    bad=0.99,
                ),
                Panel(
                    title="p99",
                    about="What 99 of 100 calls take at most, as callers see it.",
                    queries=(Query(quantile(0.99, W, SOURCE)),),
                    kind="stat",
                    unit="s",
                    width=4,
                    height=4,
                ),
                Panel(
                    title="Open circuits",
                    about="Destination endpoints that some caller does not call at the moment.",
                    queries=(Query('sum(mesh_circuit_breaker_state{state="OPEN"}) or vector(0)'),),
                    kind="stat",
                    unit="none",
                    width=4,
                    height=4,
                    warn=1,
                    bad=2,
                ),
                Panel(
                    title="In flight",
                    about="Calls that instances run now.",
                    queries=(Query(f"sum(mesh_requests_in_flight{selector(DESTINATION)})"),),
                    kind="stat",
                    unit="none",
                    width=4,
                    height=4,
                ),
                Panel(
                    title="Processes",
                    about="Processes that give metrics.",
                    queries=(Query("count(count by (instance) (mesh_build_info))"),),
                    kind="stat",
                    unit="none",
                    width=4,
                    height=4,
                ),
            ),
        ),
        Row("Services", services("")),
        Row(
            "Who calls whom",
            (
                Panel(
                    title="Calls",
                    about="Calls made, a second, as callers count them.",
                    queries=(Query(rate(CALLS, W, SOURCE, by=EDGE), ARROW),),
                    unit="reqps",
                ),
                Panel(
                    title="Success",
                    about="After retries, and with what never reached an instance.",
                    queries=(Query(success(SOURCE, by=EDGE), ARROW),),
                    unit="percentunit",
                ),
                Panel(
                    title="p99",
                    about="From the call to its end, retries and the way included.",
                    queries=(Query(quantile(0.99, W, SOURCE, by=EDGE), ARROW),),
                    unit="s",
                ),
            ),
        ),
        Row(
            "The bus",
            (
                Panel(
                    title="Round trip",
                    about="To the NATS server and back.",
                    queries=(
                        Query(
                            "max by (instance, service) (mesh_bus_rtt_seconds)", "{{instance}} {{service}}"
                        ),
                    ),
                    unit="s",
                    width=12,
                ),
                Panel(
                    title="Reconnects",
                    about="How often the connection was lost and came back within five minutes.",
                    queries=(
                        Query("sum by (instance) (increase(mesh_bus_reconnects_total[5m]))", "{{instance}}"),
                    ),
                    unit="none",
                    width=12,
                ),
            ),
        ),
    ),
)

SERVICES: Final = Dashboard(
    uid="nats-mesh-service",
    title="Mesh: service",
    about="What a service does, endpoint by endpoint, and for whom.",
    variables=(Variable("service", "Service", CALLS, "destination_service"),),
    rows=(
        Row("As its instances see it", services(SERVICE)),
        Row(
            "Endpoints",
            (
                Panel(
                    title="Calls by endpoint",
                    about="Answered a second.",
                    queries=(Query(rate(CALLS, W, DESTINATION, SERVICE, by=BY_ENDPOINT), ENDPOINT),),
                    unit="reqps",
                    width=6,
                ),
                Panel(
                    title="Success by endpoint",
                    about="Share without a failure of the service.",
                    queries=(Query(success(DESTINATION, SERVICE, by=BY_ENDPOINT), ENDPOINT),),
                    unit="percentunit",
                    width=6,
                ),
                Panel(
                    title="p50, p90, p99",
                    about="Over all endpoints.",
                    queries=tuple(
                        [
                            Query(quantile(q, W, DESTINATION, SERVICE), f"p{q * 100:g}")
                            for q in (0.5, 0.9, 0.99)
                        ]
                    ),
                    unit="s",
                    width=6,
                ),
                Panel(
                    title="Durations",
                    about="How many answers took how long.",
                    queries=(
                        Query(
                            rate("mesh_request_duration_seconds_bucket", W, DESTINATION, SERVICE, by="le"),
                            "{{le}}",
                        ),
                    ),
                    kind="heatmap",
                    unit="s",
                    width=6,
                ),
            ),
        ),
        Row(
            "Statuses and versions",
            (
                Panel(
                    title="By status",
                    about="How calls end, as instances count them.",
                    queries=(Query(rate(CALLS, W, DESTINATION, SERVICE, by="status"), "{{status}}"),),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    title="By version",
                    about="Which version answers how much.",
                    queries=(
                        Query(
                            rate(
                                CALLS,
                                W,
                                DESTINATION,
                                SERVICE,
                                by="destination_service, destination_version",
                            ),
                            "{{destination_service}} {{destination_version}}",
                        ),
                    ),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    title="By caller",
                    about="Who calls how much, as callers count it.",
                    queries=(
                        Query(rate(CALLS, W, SOURCE, SERVICE, by="source_service"), "{{source_service}}"),
                    ),
                    unit="reqps",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    title="In flight and limit",
                    about="Calls that run, and how many may at a time over all instances.",
                    queries=(
                        Query(
                            f"sum by ({BY_ENDPOINT}) (mesh_requests_in_flight{selector(DESTINATION, SERVICE)})",
                            ENDPOINT,
                        ),
                        Query(
                            f"sum by ({BY_ENDPOINT}) (mesh_concurrency_limit{selector(SERVICE)})",
                            f"limit of {ENDPOINT}",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    title="Waiting",
                    about="Calls that have come and not begun.",
                    queries=(
                        Query(
                            f"sum by ({BY_ENDPOINT}) (mesh_queue_depth{selector(SERVICE)})",
                            ENDPOINT,
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    title="Calls and attempts",
                    about="Calls as their callers count them, and what reached instances: more where calls are "
                    "attempted again, or where a caller is not read.",
                    queries=(
                        Query(rate(CALLS, W, SOURCE, SERVICE), "calls"),
                        Query(rate(CALLS, W, DESTINATION, SERVICE), "attempts"),
                    ),
                    unit="reqps",
                ),
            ),
        ),
    ),
)
