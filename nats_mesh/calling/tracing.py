"""Spans of one member, put together: what it notes, what policies and observers want sampled, and where spans go."""

from __future__ import annotations

import math
import random
from typing import Final

from msgspec import UNSET

from nats_mesh.calling.client import Client
from nats_mesh.calling.spans import ClientSpans
from nats_mesh.clock import Clock
from nats_mesh.policy import PolicySet
from nats_mesh.policy.telemetry_parts import Slow, Telemetry
from nats_mesh.telemetry.otel import start_export
from nats_mesh.telemetry.tracing import Tracing
from nats_mesh.telemetry.wants import Wants

__all__ = ["SPANS", "MemberTracing"]

#: What the watchers of calls are called that make spans.
SPANS: Final = "spans"


class MemberTracing:
    """Has the calls of one client leave spans, from when it is made. Of a service, :meth:`slow_s` says the rest."""

    def __init__(
        self,
        client: Client,
        *,
        instance: str,
        version: str,
        clock: Clock,
        rng: random.Random,
        wants: Wants | None,
        policies: PolicySet,
        otlp: bool = False,
    ) -> None:
        self._export = (
            start_export(
                member=client.name, instance=instance, member_version=version, namespace=client.namespace
            )
            if otlp
            else None
        )
        self._client = client
        self._policies = policies
        self._boost = 0.0
        self.tracing = Tracing(
            member=client.name,
            instance=instance,
            version=version,
            subjects=client.subjects,
            transport=client.transport,
            mux=client.mux,
            wants=wants,
            clock=clock,
            boost=self._boosted,
            export=self._export,
        )
        self._spans = ClientSpans(self.tracing, client.name, rng, policies)
        self.tracing.on_share = lambda share: client.sample(self._share)
        self._watch()

    def apply(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on."""
        self._policies = policies
        self._spans.settle(policies)
        self._watch()

    def _watch(self) -> None:
        spans = self._spans
        self._client.watching.set(SPANS, spans, every=False, slow_s=self.lowest_s, notes=spans.notes)
        self._client.sample(self._share)

    @property
    def lowest_s(self) -> float:
        """From how many seconds on a call is slow by any policy."""
        found = [
            policy.document.spec.slow
            for policy in self._policies.policies
            if isinstance(policy.document, Telemetry)
        ]
        limits = [each.threshold for each in found if isinstance(each, Slow)]
        return min([each for each in limits if each is not UNSET], default=math.inf)

    def slow_s(self, endpoint: str) -> float:
        """From how many seconds on a call that this service answers is slow."""
        rules = self._policies.telemetry(self._client.name, endpoint).slow
        return math.inf if rules is None or rules.threshold_s is None else rules.threshold_s

    def labels(self, endpoint: str) -> dict[str, str]:
        """What policies want to stand on the spans of calls that this service answers."""
        return self._policies.telemetry(self._client.name, endpoint).span_labels()

    def _share(self, service: str, endpoint: str) -> float:
        wanted = max(self._boost, self._policies.telemetry(service, endpoint).sampling)
        return min(wanted, self.tracing.share)

    def _boosted(self, sampling: float) -> None:
        self._boost = sampling
        self._client.sample(self._share)

    def close(self) -> None:
        """Tell what there is, where somebody takes it, and nothing any more."""
        self._client.watching.set(SPANS, None)
        self.tracing.close()
        if self._export is not None:
            self._export.close()
