"""A service mesh without sidecars and without a control-plane process: the bus is the mesh."""

from nats_mesh.calling.gathering import Gathered
from nats_mesh.config.live import Configuration
from nats_mesh.context import Context
from nats_mesh.errors import (
    ApplicationError,
    CallError,
    CancelledByPeerError,
    CircuitOpenError,
    CodecError,
    ConfigError,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    MeshError,
    NoInstancesError,
    OverloadedError,
    PermissionDeniedError,
    PolicyError,
    RateLimitedError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.mesh import Mesh
from nats_mesh.model import Headers, Interceptor, Next, Reply, Request
from nats_mesh.runner import run, serve
from nats_mesh.service import Service

__version__ = "0.1.0"

__all__ = [
    "ApplicationError",
    "CallError",
    "CancelledByPeerError",
    "CircuitOpenError",
    "CodecError",
    "ConfigError",
    "Configuration",
    "Context",
    "DeadlineExceededError",
    "DisconnectedError",
    "Executed",
    "Gathered",
    "Headers",
    "Interceptor",
    "Mesh",
    "MeshError",
    "Next",
    "NoInstancesError",
    "OverloadedError",
    "PermissionDeniedError",
    "PolicyError",
    "RateLimitedError",
    "Refused",
    "RemoteError",
    "Reply",
    "Request",
    "Service",
    "Status",
    "__version__",
    "run",
    "serve",
]
