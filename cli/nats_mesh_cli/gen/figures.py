"""What several dashboards ask in the same way."""

from __future__ import annotations

from typing import Final

from nats_mesh_cli.gen.panels import Panel, Query
from nats_mesh_cli.gen.promql import ANSWERED, DESTINATION, FAILED, quantile, rate, share

__all__ = [
    "ARROW",
    "BY_ENDPOINT",
    "CALLS",
    "EDGE",
    "ENDPOINT",
    "INSTANCE",
    "SERVICE",
    "W",
    "services",
    "success",
]

#: The window that fits the time range and how often Prometheus reads; Grafana puts it in.
W: Final = "$__rate_interval"
CALLS: Final = "mesh_requests_total"
SERVICE: Final = 'destination_service=~"$service"'
INSTANCE: Final = 'instance=~"$instance"'
EDGE: Final = "source_service, destination_service"
ARROW: Final = "{{source_service}} → {{destination_service}}"
ENDPOINT: Final = "{{destination_service}}.{{endpoint}}"
BY_ENDPOINT: Final = "destination_service, endpoint"


def success(*matchers: str, by: str = "") -> str:
    """Which share of the calls that were not given up did not fail; 1 where none did."""
    whole = rate(CALLS, W, *matchers, ANSWERED, by=by)
    failed = rate(CALLS, W, *matchers, FAILED, by=by)
    return f"1 - {share(failed, whole, by=by)}"


def services(matcher: str) -> tuple[Panel, ...]:
    """Rate, errors and duration of services, as their instances count them."""
    by = "destination_service"
    return (
        Panel(
            title="Calls",
            about="Calls that instances answered, a second.",
            queries=(Query(rate(CALLS, W, DESTINATION, matcher, by=by), "{{destination_service}}"),),
            unit="reqps",
        ),
        Panel(
            title="Success",
            about="Share of them without a failure of the service (a status of 500 and above).",
            queries=(Query(success(DESTINATION, matcher, by=by), "{{destination_service}}"),),
            unit="percentunit",
        ),
        Panel(
            title="p99",
            about="What 99 of 100 answers take at most, as instances see it.",
            queries=(Query(quantile(0.99, W, DESTINATION, matcher, by=by), "{{destination_service}}"),),
            unit="s",
        ),
    )
