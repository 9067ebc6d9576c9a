"""The dashboards, by the names of their files."""

from __future__ import annotations

from typing import Final

from nats_mesh_cli.gen.inside import INSTANCES, RESILIENCE
from nats_mesh_cli.gen.outside import MESH, SERVICES

__all__ = ["DASHBOARDS"]

DASHBOARDS: Final = {"mesh": MESH, "service": SERVICES, "instance": INSTANCES, "resilience": RESILIENCE}
