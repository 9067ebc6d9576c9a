"""What the demo comes to, out of what was counted and what was done to it: what is wrong, and what came of a deed."""

from __future__ import annotations

from nats_mesh import Mesh
from nats_mesh_cli.demo.collect import in_order
from nats_mesh_cli.demo.deeds import Deeds
from nats_mesh_cli.demo.load import CALLER, ENDPOINT, SERVICE, Load
from nats_mesh_cli.demo.locate import EXPECTED
from nats_mesh_cli.demo.rows import edge_rows, service_rows
from nats_mesh_cli.demo.summary import PagesSummary, Summary, differences, milliseconds, missing, summarise
from nats_mesh_cli.demo.watch import BusWatch

__all__ = ["OWN", "verdict"]

#: Whose calls are the demo's own: what anybody else calls besides is his affair.
OWN = frozenset((CALLER, *EXPECTED))


def verdict(
    *, mesh: Mesh, watch: BusWatch, load: Load, deeds: Deeds, problems: list[str], complete: bool
) -> Summary:
    """The summary of a run, of which ``problems`` are known already. ``complete``: every instance lived to give its
    last figures, and only then can sums agree."""
    snapshot = watch.snapshot()
    services = in_order(service_rows(snapshot, watch.own_calls(OWN)), EXPECTED)
    edges = in_order(edge_rows(snapshot), EXPECTED)
    seen = mesh.stats.series("out", SERVICE, ENDPOINT, CALLER).histogram
    before, caused, problems = deeds.before, list[str](), [*problems]
    pages = PagesSummary(
        calls=load.calls,
        errors=load.failed,
        success=1.0 - load.failed / load.calls if load.calls else None,
        p50_ms=milliseconds(seen.quantile(0.5)),
        p90_ms=milliseconds(seen.quantile(0.9)),
        p99_ms=milliseconds(seen.quantile(0.99)),
        rate_per_s=load.rate_per_s,
        degraded=load.degraded,
        skipped=load.skipped,
        statuses=dict(load.statuses),
        parts=dict(load.parts),
    )
    if pages.failures:
        (caused if before is not None and not before.failed else problems).append(pages.failures)
    if pages.losses:
        (caused if before is not None and not before.degraded else problems).append(pages.losses)
    for service, text in missing(services, EXPECTED, edges, OWN):
        own = before is None or service in before.services
        (problems if own else caused).append(text)
    if complete and deeds.comparable:
        problems += differences(
            services,
            edges,
            target=SERVICE,
            caller=CALLER,
            sent=load.calls - load.unsent - load.unknown,
            unknown=load.unknown,
        )
    return summarise(
        duration_s=load.asked_s,
        pages=pages,
        services=services,
        edges=edges,
        problems=problems,
        done=deeds.all,
        caused=caused,
        silences=deeds.silences.all,
    )
