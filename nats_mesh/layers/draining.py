"""An instance that is leaving takes no new work: what still reaches it is told to go elsewhere."""

from __future__ import annotations

from nats_mesh.errors import Refused, Status
from nats_mesh.layers.base import Arrival, Refusal

__all__ = ["DrainingGate"]

_REFUSAL = Refusal(
    Status.UNAVAILABLE, Refused.DRAINING, "this instance is draining; another one will answer", 0.0
)


class DrainingGate:
    """Shut once the instance has left the queue group and the server has confirmed it."""

    name = "draining"
    holds = False

    def __init__(self) -> None:
        self.shut = False

    @property
    def present(self) -> bool:
        return self.shut

    def enter(self, call: Arrival) -> Refusal | None:
        return _REFUSAL if self.shut else None

    def leave(self, call: Arrival) -> None:
        """Nothing was taken."""
