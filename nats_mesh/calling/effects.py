"""What a route does to a call on its way, on purpose: it delays or fails it, and sends copies of it to others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import anyio

from nats_mesh.calling.exchange import Effects, Target
from nats_mesh.calling.heads import PlainHeads, request_block
from nats_mesh.context import Context
from nats_mesh.core.durations import duration_text
from nats_mesh.errors import CallError, DeadlineExceededError, Executed
from nats_mesh.model import Request
from nats_mesh.policy.scopes import Place
from nats_mesh.wire.codecs import Codec
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.outcome import failed_with
from nats_mesh.wire.transport import Transport

__all__ = ["Affecting"]

log = logging.getLogger("nats_mesh.client")


class Affecting:
    """Does it to the calls of one identity on one connection. ``chance`` draws a number from 0 to 1, ``rule_names``
    says how the rules of now are called."""

    __slots__ = ("_chance", "_heads", "_mux", "_now", "_rule_names", "_transport")

    def __init__(
        self,
        transport: Transport,
        mux: ReplyMux,
        heads: PlainHeads,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        rule_names: Callable[[], Mapping[Place, str]],
    ) -> None:
        self._transport = transport
        self._mux = mux
        self._heads = heads
        self._now = now
        self._chance = chance
        self._rule_names = rule_names

    async def affect(
        self,
        effects: Effects,
        request: Request,
        parent: Context | None,
        codec: Codec,
        payload: bytes,
        trace_id: str,
        *,
        sampled: bool,
    ) -> bool:
        """What a route does to a call before it is sent: a fault, then copies, of which nothing reaches the caller.
        Returns whether it was delayed."""
        fault, chance = effects.fault, self._chance
        delayed = False
        if fault is not None:
            if fault.delay_s > 0.0 and (fault.delay_share >= 1.0 or chance() < fault.delay_share):
                delayed = True
                left = request.deadline - self._now()
                await anyio.sleep(max(0.0, min(fault.delay_s, left)))
                if fault.delay_s >= left:
                    error = DeadlineExceededError(
                        f"{self._who(effects)} delays it by {duration_text(fault.delay_s)} on purpose, "
                        f"and it had {duration_text(max(0.0, left))}",
                        executed=Executed.NO,
                    )
                    error.fault = "delay"
                    raise error
            if fault.abort is not None and (fault.abort_share >= 1.0 or chance() < fault.abort_share):
                raise failed_with(
                    fault.abort, f"{self._who(effects)} fails this call on purpose", fault="abort"
                )
        for mirror, share in effects.mirrors:
            if share >= 1.0 or chance() < share:
                self._mirror(
                    mirror, request, parent, codec, payload, self._heads.ids(trace_id), sampled=sampled
                )
        return delayed

    def _who(self, effects: Effects) -> str:
        """The rule that does it, by its name now; it is looked up where a call fails of it alone."""
        found = None if effects.by is None else self._rule_names().get(effects.by)
        return found or "a route"

    def _mirror(
        self,
        mirror: Target,
        request: Request,
        parent: Context | None,
        codec: Codec,
        payload: bytes,
        ids: str,
        *,
        sampled: bool,
    ) -> None:
        """Publish a copy. Whatever becomes of it is no affair of the call's."""
        now = self._now()
        remaining = request.deadline - now
        if remaining <= 0.0 or not self._transport.ready:
            return
        block = request_block(
            request, parent, codec, ids=ids, sampled=sampled, remaining_s=remaining, now=now, mirror=True
        )
        try:
            self._transport.publish(mirror.subject, payload, self._mux.one_way(mirror.service), block)
        except CallError as error:
            log.debug("a copy for %s could not be sent: %s", mirror.label, error.message)
