"""Wanting what members publish only while it is wanted: the observer's side of :mod:`nats_mesh.telemetry.wants`."""

from __future__ import annotations

from typing import NoReturn

import anyio

from nats_mesh.errors import CallError
from nats_mesh.telemetry.wants import LEASE_S
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["hold_lease"]


async def hold_lease(want: str, body: bytes = b"", *, transport: Transport, mux: ReplyMux) -> NoReturn:
    """Hold the lease that the subject ``want`` names until cancelled; ``body`` says more of what is wanted."""
    inbox = mux.lease()
    while True:
        try:
            transport.publish(want, body, inbox)
        except CallError:
            pass  # the bus is away: the next one is in time, or its loss shows as a gap
        await anyio.sleep(LEASE_S / 2)
