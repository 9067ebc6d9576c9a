"""Spans of a running instance: of the calls it answers, and of those it makes."""

from __future__ import annotations

import random

from nats_mesh.calling.client import Client
from nats_mesh.calling.tracing import SPANS, MemberTracing
from nats_mesh.clock import Clock
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.spans import ServerSpans
from nats_mesh.policy import PolicySet
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.telemetry.wants import Wants

__all__ = ["InstanceTracing"]


class InstanceTracing(MemberTracing):
    """As :class:`MemberTracing`, with what ``dispatcher`` answers."""

    def __init__(
        self,
        client: Client,
        dispatcher: Dispatcher,
        *,
        version: str,
        clock: Clock,
        rng: random.Random,
        wants: Wants | None,
        policies: PolicySet,
        otlp: bool = False,
    ) -> None:
        super().__init__(
            client,
            instance=dispatcher.instance,
            version=version,
            clock=clock,
            rng=rng,
            wants=wants,
            policies=policies,
            otlp=otlp,
        )
        self._dispatcher = dispatcher
        self._answered = ServerSpans(self.tracing, dispatcher.service, rng, self.slow_s, self.labels)
        self._watch_answered()

    def apply(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on."""
        super().apply(policies)
        self._answered.settle(list(self._dispatcher.served))
        self._watch_answered()

    def keep_long(self, call: Arrival, took_s: float) -> None:
        """Have ``call`` leave a span: it took long for its endpoint (seconds)."""
        self._answered.keep_long(call, took_s)

    def _watch_answered(self) -> None:
        spans = self._answered
        self._dispatcher.watching.set(SPANS, spans, every=False, slow_s=self.lowest_s, notes=spans.notes)

    def close(self) -> None:
        """Tell what there is, where somebody takes it, and nothing any more."""
        self._dispatcher.watching.set(SPANS, None)
        super().close()
