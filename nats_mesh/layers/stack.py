"""The order of the chain, as data: each layer with what it must sit above and why.

Chains are composed when they change, never per call; a layer that nothing asks for is not in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh.errors import ConfigError
from nats_mesh.layers.base import Gate
from nats_mesh.model import Interceptor, Next, Reply, Request, label_of

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
    Position("fault", "above concurrency: a call that is delayed or aborted on purpose must not hold a slot"),
    Position("concurrency", "above decode: a refusal must cost no parsing and no task"),
    Position("credit", "below concurrency: it says when the last slot was taken, and refuses nobody"),
    Position("decode", "above interceptors: they see the typed value"),
    Position(
        "duplicates",
        "below decode: what cannot be read claims no key; above interceptors: a reply is given again as it was",
    ),
    Position(
        "plug-ins",
        "above interceptors: what checks every call (entry points nats_mesh.inbound) must not be answered past",
    ),
    Position("interceptors", "around the handler alone: they may answer in its place"),
    Position("handler", "the work"),
    Position("encode", "below everything: what cannot be encoded is an error of the handler"),
)

#: The caller's side, in the order in which a call meets it: that of :mod:`nats_mesh.calling.client` down to the
#: interceptors, that of :mod:`nats_mesh.calling.sending` from there on. What stands below "retry" is met anew by every
#: attempt.
OUTBOUND: tuple[Position, ...] = (
    Position(
        "context",
        "above everything: on whose behalf, in which trace and within whose time is settled before anybody acts",
    ),
    Position("deadline", "above plug-ins: whatever they do counts against the call's time"),
    Position(
        "plug-ins",
        "above interceptors: what signs every call (entry points nats_mesh.outbound) must not be answered past",
    ),
    Position("interceptors", "above retry: they see one call with its typed value, not its attempts"),
    Position(
        "route",
        "below interceptors: it goes by the headers they leave; above retry: all attempts of a call go the same way",
    ),
    Position("encode", "above retry: done once, and a value that cannot be encoded is no failed attempt"),
    Position("fault", "above retry: what a route fails on purpose is not sent, and never tried again"),
    Position(
        "mirror", "below fault: what is not sent is not copied; above retry: one copy of a call, in its bytes"
    ),
    Position(
        "retry",
        "above breaker and balance: each attempt meets both anew; the budget is asked last, when all else allows it",
    ),
    Position("breaker", "above balance: what it refuses at once takes no instance's share and no time"),
    Position("attempt-timeout", "above hedge: all that race share the time of one attempt"),
    Position(
        "hedge",
        "above balance: it asks another instance; below retry and breaker: to them a race is one attempt",
    ),
    Position("balance", "above wire: the instance is chosen last, by what is known of its load by then"),
    Position("wire", "below everything: one request is written, one reply is waited for and decoded"),
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
        reply = await interceptor(request, proceed)
        if not isinstance(reply, Reply):
            raise ConfigError(
                f"interceptor {label_of(interceptor)} must return a Reply, such as that of proceed(request), got "
                f"{type(reply).__name__}"
            )
        return reply

    return step
