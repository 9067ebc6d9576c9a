"""Where a rule of Istio's leads, as the service and the subset that a rule of ours names."""

from __future__ import annotations

from typing import Any

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import NO_SERVICE
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.world import OTHER_NAMESPACE, World

__all__ = ["destination_of"]


def destination_of(destination: Item, world: World, namespace: str) -> dict[str, Any] | None:
    """A destination as the service and subset that a rule names; ``None``, and said why, where it is none of the
    mesh."""
    text, subset = destination.text("host"), destination.text("subset")
    host = world.names.host(text)
    reason = ""
    if host is None or not host.service:
        reason = f"{text[:80] or 'it'} {NO_SERVICE}"
    elif host.namespace not in ("", namespace):
        reason = (
            f"{text[:80]} is {host.service} of the namespace {host.namespace}, and this is for {namespace}: "
            f"{OTHER_NAMESPACE}. Where {namespace} has a {host.service} of its own, write the short name"
        )
    if host is None or reason:
        destination.lost("host", reason, "serious")
        return None
    found = {"service": made(host.service, destination.line("host"))}
    if subset:
        found["subset"] = made(subset, destination.line("subset"))
    return found
