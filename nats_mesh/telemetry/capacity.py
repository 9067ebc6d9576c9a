"""How much more instances can take, of how busy they are and how long their calls take. Pure."""

from __future__ import annotations

from nats_mesh.telemetry.snapshots import Capacity, Figures
from nats_mesh.telemetry.stats_messages import EndpointLoad

__all__ = ["capacity_of", "plus"]


def plus(one: EndpointLoad, other: EndpointLoad) -> EndpointLoad:
    """Two of them together."""
    return EndpointLoad(
        limit=one.limit + other.limit,
        in_flight=one.in_flight + other.in_flight,
        queue=one.queue + other.queue,
    )


def capacity_of(load: EndpointLoad | None, recent: Figures, rate_per_s: float) -> Capacity:
    """What is left of the slots, by Little's law: L = λ·W, with W the mean of the window's durations."""
    if load is None:
        return Capacity()
    durations = sum([count for _, count in recent.buckets])
    if not durations or not load.limit:
        return Capacity(limit=load.limit, in_flight=load.in_flight, queue=load.queue)
    mean_s = recent.sum_s / durations
    busy = rate_per_s * mean_s
    return Capacity(
        limit=load.limit,
        in_flight=load.in_flight,
        queue=load.queue,
        busy=busy,
        utilisation=busy / load.limit,
        headroom_per_s=max(0.0, load.limit / mean_s - rate_per_s) if mean_s > 0.0 else None,
    )
