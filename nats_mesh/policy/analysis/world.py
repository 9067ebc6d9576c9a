"""What is there now, as far as policies speak of it: services, their endpoints, their instances."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["Endpoint", "Instance", "Service", "World"]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint declares itself: its timeout (seconds), whether it may run twice, how many calls it takes at a
    time. ``None`` is what nobody says, as of services outside the mesh."""

    timeout_s: float | None = None
    idempotent: bool | None = None
    concurrency: int | None = None


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A running instance, by what subsets select: its version and labels."""

    id: str
    version: str = ""
    labels: Mapping[str, str] = {}


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service that somebody serves now."""

    endpoints: Mapping[str, Endpoint] = {}
    instances: tuple[Instance, ...] = ()


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The services of one namespace, by their names."""

    services: Mapping[str, Service] = {}
