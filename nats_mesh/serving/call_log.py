"""What an instance writes of calls: its access log, on both sides, and its slow calls; as policies ask for them."""

from __future__ import annotations

from collections.abc import Mapping

from nats_mesh.calling.call_log import ClientLog
from nats_mesh.calling.client import Client
from nats_mesh.clock import Clock
from nats_mesh.core.slowness import Slowness
from nats_mesh.layers.base import Tap
from nats_mesh.layers.call_log import Logged, ServerLog, SlowWatch, Watched
from nats_mesh.policy import PolicySet
from nats_mesh.policy.rules import DEFAULT, policy_of
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.telemetry.access_log import AccessLog
from nats_mesh.telemetry.series import OTHER
from nats_mesh.telemetry.slow import SlowCalls
from nats_mesh.telemetry.wants import Wants

__all__ = ["InstanceLog"]

_LOG, _SLOW = "access-log", "slow"


class InstanceLog:
    """Follows what policies say of logs and slow calls for one instance. While they say nothing, no call is asked
    anything. ``destination`` is where lines go, see :class:`~nats_mesh.telemetry.access_log.Writer`; ``keep`` is told
    of calls that took long for their endpoint."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        client: Client,
        *,
        version: str,
        clock: Clock,
        wants: Wants,
        destination: str,
        keep: Tap | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._keep = keep
        self._clock = clock
        self.log = AccessLog(destination)
        self._callers = ClientLog(self.log, client, dispatcher.instance, clock)
        self.slow = SlowCalls(
            service=dispatcher.service,
            instance=dispatcher.instance,
            version=version,
            subjects=client.subjects,
            transport=client.transport,
            mux=client.mux,
            wants=wants,
            clock=clock,
        )
        self.slow.learning = self._learning
        self._logged: dict[str, Logged] = {}
        self._watched: dict[str, Watched] = {}

    def apply(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on; what is known of an endpoint's own p99 stays known."""
        self._callers.apply(policies)
        logged: dict[str, Logged] = {}
        watched: dict[str, Watched] = {}
        dispatcher, service, now = self._dispatcher, self._dispatcher.service, self._clock.monotonic()
        for name in (*dispatcher.served, OTHER) if policies.telling else ():
            endpoint = "" if name == OTHER else name
            rules = policies.telemetry(service, endpoint)
            labels = dict(rules.labels)
            if rules.access_log is not None:
                limit = _policy(policies.inbound(service, endpoint).sources, "concurrency.limit")
                logged[name] = Logged(rules.access_log, labels, limit)
            if rules.slow is not None and name != OTHER:
                before = self._watched.get(name)
                slowness = Slowness(rules.slow, now)
                if before is not None:
                    slowness.tail = before.slowness.tail
                path = "slow.threshold" if rules.slow.threshold_s is not None else "slow.timesP99"
                watched[name] = Watched(slowness, labels, _policy(rules.sources, path))
        if logged or self._logged:
            log = ServerLog(self.log, service, dispatcher.instance, self._clock, logged)
            dispatcher.watching.set(_LOG, log if logged else None)
        if watched or self._watched:
            slow = SlowWatch(self.slow, self._clock, watched, self._keep) if watched else None
            dispatcher.watching.set(_SLOW, slow, own_calls=True)
        self._logged, self._watched = logged, watched

    def _learning(self) -> dict[str, int]:
        """The endpoints whose own p99 decides and is not known yet, with how many calls are known."""
        found = {name: watched.slowness.learning for name, watched in self._watched.items()}
        return {name: calls for name, calls in found.items() if calls is not None}

    def close(self) -> None:
        """Write what there is, and no more."""
        for name in (_LOG, _SLOW):
            self._dispatcher.watching.set(name, None)
        self.slow.close()
        self._callers.close()


def _policy(sources: Mapping[str, str], path: str) -> str:
    """The policy that a value comes from; empty where none says it."""
    return policy_of(sources.get(path, DEFAULT))
