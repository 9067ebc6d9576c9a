"""From a call that has ended at its caller to its line in the access log, where a policy asks for one."""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import UNSET

from nats_mesh.calling.client import Client
from nats_mesh.calling.exchange import Target
from nats_mesh.calling.watching import CallEnd
from nats_mesh.clock import Clock
from nats_mesh.core.envelope import sampled
from nats_mesh.core.telemetry_rules import AccessLogRules
from nats_mesh.errors import CallError, CircuitOpenError, Status
from nats_mesh.model import is_name
from nats_mesh.policy import PolicySet
from nats_mesh.policy.rules import DEFAULT, policy_of
from nats_mesh.telemetry.access_log import AccessLine, AccessLog, stamp

__all__ = ["ClientLog"]

_WATCHER: Final = "access-log"
_MAX_TARGETS: Final = 4096


class _Kind(NamedTuple):
    """What is written of calls of one target; ``rules`` is ``None`` where nothing is."""

    rules: AccessLogRules | None
    labels: dict[str, str]
    route: str


class ClientLog:
    """Writes lines of the calls that one client makes, as ``instance``."""

    def __init__(self, log: AccessLog, client: Client, instance: str, clock: Clock) -> None:
        self._log = log
        self._client = client
        self._instance = instance
        self._clock = clock
        self._policies = PolicySet.empty(namespace=client.namespace)
        self._kinds: dict[Target, _Kind] = {}

    def apply(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on; where none asks for a log, no call is asked anything."""
        self._policies, self._kinds = policies, {}
        self._client.watching.set(_WATCHER, self if policies.logging() else None)

    def close(self) -> None:
        """Write what there is, and no more."""
        self._client.watching.set(_WATCHER, None)
        self._log.close()

    def __call__(self, call: CallEnd) -> None:
        """``call`` has ended."""
        kind = self._kinds.get(call.known) or self._kind_of(call.known)
        rules = kind.rules
        if rules is None:
            return
        trace, _, span = call.attempts[-1].ids.partition("-") if call.attempts else ("", "", "")
        if not trace and call.parent is not None:
            trace = call.parent.trace_id
        if call.status is Status.OK and (
            rules.mode == "errors" or not sampled(trace or span or call.known.label, rules.share)
        ):
            return
        known, attempts, delayed_s = call.known, call.attempts, call.delayed_s
        waited_s = (attempts[0].start if attempts else call.end) - call.start
        now = self._clock.monotonic()
        self._log.write(
            AccessLine(
                ts=stamp(self._clock.time() - (now - call.start)),
                reporter="source",
                source_service=self._client.name,
                source_instance=self._instance,
                destination_service=known.service,
                destination_instance=attempts[-1].instance
                if attempts and is_name(attempts[-1].instance)
                else None,
                endpoint=known.endpoint,
                status=str(call.status),
                flags=call.flags or None,
                error=_word(call),
                duration_ms=round((call.end - call.start) * 1e3, 3),
                queue_ms=round(max(0.0, waited_s - delayed_s) * 1e3, 3),
                attempt=max(call.sent, len(attempts)),
                bytes_in=call.bytes_in,
                bytes_out=call.bytes_out,
                caller=self._client.name,
                policy=_policy(call, kind) or None,
                trace_id=trace or None,
                span_id=span or None,
                fault_ms=round(delayed_s * 1e3, 3) if delayed_s else UNSET,
                labels=kind.labels or UNSET,
            )
        )

    def _kind_of(self, known: Target) -> _Kind:
        found = _Kind(None, {}, "")
        if known.mesh:  # a plain subject is no service, and no policy is about it
            rules = self._policies.telemetry(known.service, known.endpoint)
            if rules.access_log is not None:
                found = _Kind(rules.access_log, dict(rules.labels), self._route_of(known))
        if len(self._kinds) >= _MAX_TARGETS:
            self._kinds.clear()
        self._kinds[known] = found
        return found

    def _route_of(self, known: Target) -> str:
        """The rule of the most specific route that sent a call there."""
        if not known.via:
            return ""
        return self._policies.rule_names().get(known.via[-1], "")


def _word(call: CallEnd) -> str | None:
    """Why a call did not end well, in a word of the mesh's own or the name of a class."""
    error = call.error
    if error is None:
        return None
    if isinstance(error, CallError):
        if error.fault:
            return "fault"
        if error.refused is not None:
            return str(error.refused)
    return type(error).__name__


def _policy(call: CallEnd, kind: _Kind) -> str:
    """The policy that ended it, else the one that sent it where it went."""
    if isinstance(call.error, CircuitOpenError) and call.known.rules is not None:
        return policy_of(call.known.rules.sources.get("breaker", DEFAULT)) or kind.route
    return kind.route
