"""The dashboards of members: one instance, and what resilience and policies do."""

from __future__ import annotations

from typing import Final

from nats_mesh_cli.gen.figures import ARROW, BY_ENDPOINT, CALLS, EDGE, ENDPOINT, INSTANCE, SERVICE, W, success
from nats_mesh_cli.gen.panels import Dashboard, Panel, Query, Row, Variable
from nats_mesh_cli.gen.promql import DESTINATION, SOURCE, flagged, quantile, rate, selector

__all__ = ["INSTANCES", "RESILIENCE"]

#: What is worth a look.
_NOT_CLOSED: Final = 'state!="CLOSED"'

INSTANCES: Final = Dashboard(
    uid="nats-mesh-instance",
    title="Mesh: instance",
    about="One process that gives metrics, or several of them side by side.",
    variables=(Variable("instance", "Instance", "mesh_build_info", "instance"),),
    rows=(
        Row(
            "What it answers",
            (
                Panel(
                    title="Calls",
                    about="Answered a second.",
                    queries=(Query(rate(CALLS, W, DESTINATION, INSTANCE, by="instance"), "{{instance}}"),),
                    unit="reqps",
                ),
                Panel(
                    title="Success",
                    about="Share without a failure of the service.",
                    queries=(Query(success(DESTINATION, INSTANCE, by="instance"), "{{instance}}"),),
                    unit="percentunit",
                ),
                Panel(
                    title="p99",
                    about="What 99 of 100 answers take at most.",
                    queries=(Query(quantile(0.99, W, DESTINATION, INSTANCE, by="instance"), "{{instance}}"),),
                    unit="s",
                ),
            ),
        ),
        Row(
            "What it calls",
            (
                Panel(
                    title="Calls",
                    about="Made a second.",
                    queries=(
                        Query(
                            rate(CALLS, W, SOURCE, INSTANCE, by="instance, destination_service"),
                            "{{instance}} → {{destination_service}}",
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    title="Success",
                    about="After retries.",
                    queries=(
                        Query(
                            success(SOURCE, INSTANCE, by="instance, destination_service"),
                            "{{instance}} → {{destination_service}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    title="How full it is",
                    about="Calls in flight as a share of what the instance runs at a time.",
                    queries=(
                        Query(
                            f"sum by (instance, {BY_ENDPOINT}) "
                            f"(mesh_requests_in_flight{selector(DESTINATION, INSTANCE)}) / "
                            f"sum by (instance, {BY_ENDPOINT}) (mesh_concurrency_limit{selector(INSTANCE)})",
                            f"{{{{instance}}}} {ENDPOINT}",
                        ),
                    ),
                    unit="percentunit",
                    warn=0.7,
                    bad=0.9,
                ),
            ),
        ),
        Row(
            "The process",
            (
                Panel(
                    title="Round trip to the bus",
                    about="To the NATS server and back.",
                    queries=(Query(f"mesh_bus_rtt_seconds{selector(INSTANCE)}", "{{instance}} {{service}}"),),
                    unit="s",
                ),
                Panel(
                    title="Reconnects",
                    about="Since its start.",
                    queries=(
                        Query(f"mesh_bus_reconnects_total{selector(INSTANCE)}", "{{instance}} {{service}}"),
                    ),
                    unit="none",
                ),
                Panel(
                    title="What it is",
                    about="The version of the mesh, and of Python.",
                    queries=(Query(f"mesh_build_info{selector(INSTANCE)}"),),
                    kind="table",
                    hidden=("Value", "__name__", "job"),
                ),
            ),
        ),
    ),
)

RESILIENCE: Final = Dashboard(
    uid="nats-mesh-resilience",
    title="Mesh: resilience and policy",
    about="What the mesh does by itself when something fails, and whether everybody follows the same policies.",
    variables=(Variable("service", "Service", CALLS, "destination_service"),),
    rows=(
        Row(
            "Retries and refusals",
            (
                Panel(
                    title="Retries",
                    about="Attempts beyond the first, by what came of them; denied: the budget had no room.",
                    queries=(Query(rate("mesh_retries_total", W, SERVICE, by="outcome"), "{{outcome}}"),),
                    unit="reqps",
                ),
                Panel(
                    title="Why the mesh ended calls",
                    about="UH nobody there, UT out of time, UO breaker or concurrency, URX retries exhausted, RL rate "
                    "limited, DC given up, FI and DI injected, NR no such endpoint.",
                    queries=(
                        Query(
                            rate(CALLS, W, SERVICE, 'flags!=""', by="reporter, flags"),
                            "{{reporter}} {{flags}}",
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    title="Limited",
                    about="Calls that instances refused to protect themselves, by endpoint and reason.",
                    queries=(
                        Query(
                            rate("mesh_limited_total", W, SERVICE, by=f"{BY_ENDPOINT}, reason"),
                            f"{ENDPOINT} {{{{reason}}}}",
                        ),
                    ),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Circuits and ejections",
            (
                Panel(
                    title="Circuits that are not closed",
                    about="By caller and destination endpoint.",
                    queries=(
                        Query(
                            f"max by ({EDGE}, endpoint, state) "
                            f"(mesh_circuit_breaker_state{selector(SERVICE, _NOT_CLOSED)})",
                            f"{ARROW}.{{{{endpoint}}}} {{{{state}}}}",
                        ),
                    ),
                    kind="state-timeline",
                    unit="none",
                    width=12,
                    warn=0.5,
                    bad=1,
                ),
                Panel(
                    title="Ejections",
                    about="Instances that a caller has taken out of its choice, within five minutes.",
                    queries=(
                        Query(
                            f"sum by ({EDGE}) (increase(mesh_ejections_total{selector(SERVICE)}[5m]))",
                            ARROW,
                        ),
                    ),
                    unit="none",
                    width=6,
                ),
                Panel(
                    title="Nobody there",
                    about="Calls that met no instance.",
                    queries=(Query(rate(CALLS, W, SOURCE, SERVICE, flagged("UH"), by=EDGE), ARROW),),
                    unit="reqps",
                    width=6,
                ),
            ),
        ),
        Row(
            "Policies",
            (
                Panel(
                    title="Revision",
                    about="Which revision of the policies each process follows.",
                    queries=(
                        Query(
                            "max by (instance, service) (mesh_policy_revision)", "{{instance}} {{service}}"
                        ),
                    ),
                    unit="none",
                    width=12,
                ),
                Panel(
                    title="Rejected",
                    about="Changes of policies that could not be followed; what was before stays in effect.",
                    queries=(Query("sum by (instance) (mesh_policy_rejected_total)", "{{instance}}"),),
                    unit="none",
                    width=12,
                ),
            ),
        ),
    ),
)
