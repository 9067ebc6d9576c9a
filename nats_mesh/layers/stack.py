"""The order of the chain, as data: each layer with what it must sit above and why.

Chains are composed when they change, never per call; a layer that nothing asks for is not in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh.layers.base import Gate
from nats_mesh.model import Interceptor, Next, Reply, Request

__all__ = ["INBOUND", "OUTBOUND", "Position", "compose", "in_order"]


class Position(msgspec.Struct, frozen=True):
    """One place of the chain and the reason for it."""

    name: str
    why: str


#: The instance's side, in the order in which a request meets it.
INBOUND: tuple[Position, ...] = (
    Position(
        "identity", "above everything: a message without its publisher's own inbox is dropped undecoded"
    ),
    Position("draining", "above deadline: who leaves answers at once, whatever the call asks for"),
    Position("deadline", "above concurrency: expired work must not take a slot"),
    Position("concurrency", "above decode: a refusal must cost no parsing and no task"),
    Position("decode", "above interceptors: they see the typed value"),
    Position("interceptors", "around the handler alone: they may answer in its place"),
    Position("handler", "the work"),
    Position("encode", "below everything: what cannot be encoded is an error of the handler"),
)

#: The caller's side, in the order in which a call meets it.
OUTBOUND: tuple[Position, ...] = (
    Position("deadline", "above interceptors: whatever they do counts against the call's time"),
    Position("interceptors", "above the attempt: they see one call, not its tries"),
    Position("attempt", "one try: encode, write, wait, decode"),
)


def in_order(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """``gates`` in the order of :data:`INBOUND`; :class:`KeyError` for one that has no place there."""
    place = {position.name: at for at, position in enumerate(INBOUND)}
    return tuple(sorted(gates, key=lambda gate: place[gate.name]))


def compose(interceptors: Sequence[Interceptor], end: Next) -> Next:
    """One function out of ``interceptors`` (the first outermost) around ``end``."""
    chain = end
    for interceptor in reversed(interceptors):
        chain = _link(interceptor, chain)
    return chain


def _link(interceptor: Interceptor, proceed: Next) -> Next:
    async def step(request: Request) -> Reply[Any]:
        return await interceptor(request, proceed)

    return step
