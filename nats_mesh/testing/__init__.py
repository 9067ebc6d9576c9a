"""What a user needs to test a service: a mesh without a broker, virtual time, a real embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nats_mesh.testing.cluster import NatsCluster
    from nats_mesh.testing.memory import MemoryMesh
    from nats_mesh.testing.proxy import TcpProxy
    from nats_mesh.testing.server import NatsServer
    from nats_mesh.testing.virtual import VIRTUAL_TIME, LoopClock, VirtualTimeLoop, run_virtual

__all__ = [
    "VIRTUAL_TIME",
    "LoopClock",
    "MemoryMesh",
    "NatsCluster",
    "NatsServer",
    "TcpProxy",
    "VirtualTimeLoop",
    "run_virtual",
]

_HOMES = {
    "LoopClock": "virtual",
    "MemoryMesh": "memory",
    "NatsCluster": "cluster",
    "NatsServer": "server",
    "TcpProxy": "proxy",
    "VIRTUAL_TIME": "virtual",
    "VirtualTimeLoop": "virtual",
    "run_virtual": "virtual",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the pytest plugin loads this package in every run of every project."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
