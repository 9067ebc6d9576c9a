"""The chain of one endpoint as ``describe`` tells it: each layer, whether it is there, its parameters, their sources.

Pure, over what :mod:`nats_mesh_cli.effective` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh.policy.fields import fields_of
from nats_mesh.policy.rules import DEFAULT
from nats_mesh.policy.schema import DestinationSpec
from nats_mesh_cli.effective import (
    ARGUMENT,
    ENDPOINT,
    Known,
    concurrency_of,
    declared_timeout,
    idempotent_of,
    parameter,
    parameters_of,
    timeout_of,
)
from nats_mesh_cli.hints import listed
from nats_mesh_cli.output import Record
from nats_mesh_cli.routes import rule_text

__all__ = ["chain_of", "options_of_endpoint"]

_DUPLICATES = 'for calls with an idempotency key, unless the endpoint says duplicates="off"'
_UNDECLARED = "there where the endpoint is idempotent, which it says itself when it runs"
_BLOCKS = {field.name: field for field in fields_of(DestinationSpec).values() if field.part is not None}
#: What only one balancer looks at; shown for others where a policy says it nevertheless.
_OF_BALANCER = {"header": "consistent_hash", "bound": "consistent_hash", "ewmaDecay": "peak_ewma"}


class _Layer:
    """What is to be said of one layer. ``present`` is ``None`` where only the program itself knows."""

    def __init__(
        self,
        present: bool | None = True,
        reason: str = "",
        parameters: Record | None = None,
        note: str = "",
    ) -> None:
        self.present = present
        self.reason = reason
        self.parameters = parameters or {}
        self.note = note

    def record(self, name: str, why: str) -> Record:
        return {
            "layer": name,
            "why": why,
            "present": self.present,
            "reason": self.reason,
            "parameters": self.parameters,
            "note": self.note,
        }


def chain_of(record: Record, known: Known) -> Record:
    """Both sides' layers in the order in which a call meets them; a service outside the mesh has the caller's alone."""
    outbound = _Outbound(record, known)
    sides: dict[str, list[Record]] = {
        "outbound": [
            outbound.layer(position.name).record(position.name, position.why) for position in OUTBOUND
        ],
        "inbound": [],
    }
    if record["kind"] == "mesh":
        inbound = _Inbound(record, known)
        sides["inbound"] = [
            inbound.layer(position.name).record(position.name, position.why) for position in INBOUND
        ]
    return sides


def options_of_endpoint(record: Record, known: Known) -> Record:
    """What applies to its calls, in short: one value and its source for each layer that policies can change."""
    outbound = _Outbound(record, known)
    rules, sources = outbound.rules, outbound.sources
    options: Record = {
        "timeout_s": outbound.timeout,
        "idempotent": outbound.idempotent,
        "retry_attempts": parameter(rules.retry.attempts, sources["retry.attempts"], "retry.attempts"),
        "balancer": parameter(rules.balancer.name, sources["balancer.name"], "balancer.name"),
        "breaker": parameter(rules.breaker is not None, sources["breaker"], "breaker"),
        "hedge": parameter(rules.hedge is not None, sources["hedge"], "hedge"),
    }
    if record["kind"] == "mesh":
        options["concurrency"] = concurrency_of(record, *known.inbound(record))
    return options


# -- the caller's side --------------------------------------------------------------------------------


class _Outbound:
    def __init__(self, record: Record, known: Known) -> None:
        self._known = known
        self.rules, self.sources = known.outbound(record)
        self.timeout = timeout_of(record, self.rules, self.sources)
        if known.timeout_s is not None:
            self.timeout = parameter(known.timeout_s, ARGUMENT, "timeout")
        self.idempotent = idempotent_of(record, self.rules, self.sources)
        if known.idempotent is not None:
            self.idempotent = parameter(known.idempotent, ARGUMENT, "idempotent")
        #: Nobody says whether it is idempotent, because it does not run.
        said = self.rules.idempotent if known.idempotent is None else known.idempotent
        self._undeclared = record["instances"] == 0 and said is None
        self._layers: Mapping[str, Callable[[], _Layer]] = {
            "context": _Layer,
            "deadline": lambda: _Layer(parameters={"timeout_s": self.timeout}),
            "plug-ins": self._plugins,
            "interceptors": lambda: _Layer(None, "as the caller's code gives them"),
            "route": self._route,
            "encode": _Layer,
            "fault": lambda: self._effect("fault"),
            "mirror": lambda: self._effect("mirror"),
            "retry": self._retry,
            "breaker": self._breaker,
            "attempt-timeout": self._attempt_timeout,
            "hedge": self._hedge,
            "balance": self._balance,
            "wire": _Layer,
        }

    def layer(self, name: str) -> _Layer:
        return self._layers[name]()

    def _block(self, name: str, rules: Any, skip: Sequence[str] = ()) -> Record:
        return {
            key: found
            for path, key, found in parameters_of(_BLOCKS[name], rules, self.sources)
            if path not in skip
        }

    def _plugins(self) -> _Layer:
        return _plugins(self._known.plugins_out, "as they are installed where the caller runs", "the caller")

    def _route(self) -> _Layer:
        if not self.rules.routing:
            return _Layer(False, "no route asks anything of its calls")
        policies = self._known.policies
        rules = [rule for rules in self.rules.routing for rule in rules]
        parameters = {
            policies.rule_name(rule): parameter(rule_text(rule), policies.rule_source(rule)) for rule in rules
        }
        note = "" if len(self.rules.routing) == 1 else "of each route the first rule that a call meets counts"
        return _Layer(parameters=parameters, note=note)

    def _effect(self, name: str) -> _Layer:
        """Faults and copies: there where a rule of a route has one."""
        rules = [rule for rules in self.rules.routing for rule in rules]
        if any((rule.fault if name == "fault" else rule.mirrors) for rule in rules):
            return _Layer(reason="for calls that meet a rule with it, see route")
        return _Layer(False, f"no route asks for a {name}")

    def _retry(self) -> _Layer:
        retry = self.rules.retry
        if retry.attempts == 1:
            return _Layer(
                False,
                f"one attempt alone, by {_by(self.sources['retry.attempts'])}",
                {"idempotent": self.idempotent},
            )
        parameters = {
            "idempotent": self.idempotent,
            **self._block("retry", retry, skip=("retry.perTryTimeout",)),
        }
        note = ""
        if not self.idempotent["value"] and not self._undeclared:
            note = "not idempotent: another attempt is made only where the handler surely did not run"
        return _Layer(parameters=parameters, note=note)

    def _breaker(self) -> _Layer:
        breaker = self.rules.breaker
        if breaker is None:
            return _Layer(False, f"off by {_by(self.sources['breaker'])}")
        return _Layer(parameters=self._block("breaker", breaker))

    def _attempt_timeout(self) -> _Layer:
        retry = self.rules.retry
        why = ""
        if self._undeclared and retry.per_try_timeout_s is None:
            return _Layer(None, f"no perTryTimeout; {_UNDECLARED}")
        if not self.idempotent["value"]:
            why = "only calls that are idempotent keep time for another attempt"
        elif retry.attempts == 1:
            why = f"there is one attempt alone, by {_by(self.sources['retry.attempts'])}"
        elif "attempt-timeout" not in retry.retry_on:
            why = f"attempt-timeout is not in retryOn, by {_by(self.sources['retry.retryOn'])}"
        if retry.per_try_timeout_s is None and why:
            return _Layer(False, f"no perTryTimeout, and {why}")
        field = "retry.perTryTimeout"
        return _Layer(
            parameters={
                "per_try_timeout_s": parameter(retry.per_try_timeout_s, self.sources[field], field),
            }
        )

    def _hedge(self) -> _Layer:
        hedge, source = self.rules.hedge, self.sources["hedge"]
        if hedge is None:
            return _Layer(False, "no policy asks for it" if source == DEFAULT else f"off by {source}")
        if self._undeclared:
            return _Layer(None, f"{source} asks for it; {_UNDECLARED}")
        if not self.idempotent["value"]:
            whose = self.idempotent["source"]
            return _Layer(False, f"{source} asks for it, but the endpoint is not idempotent ({whose})")
        note = ""
        if self.rules.balancer.name == "queue":
            note = "with the balancer queue the second request may reach the same instance"
        return _Layer(parameters=self._block("hedge", hedge), note=note)

    def _balance(self) -> _Layer:
        balancer, source = self.rules.balancer, self.sources["balancer.name"]
        said = {
            path: by for path, by in self.sources.items() if path.startswith("ejection.") and by != DEFAULT
        }
        if balancer.name == "queue":
            why = "no policy asks for it, so" if source == DEFAULT else f"queue by {source}:"
            note = ""
            if said:
                by = next(iter(said.values()))
                note = f"ejection ({by}) has no effect: only balancers that address instances eject"
            return _Layer(False, f"{why} the server's queue group chooses the instance", note=note)
        parameters = self._block("balancer", balancer, skip=self._beside(balancer.name))
        ejection = self._block("ejection", self.rules.ejection)
        return _Layer(parameters=parameters | {f"ejection_{key}": each for key, each in ejection.items()})

    def _beside(self, name: str) -> list[str]:
        """The fields of a balancer that the one called ``name`` does not look at, and that nobody set."""
        beside = [f"balancer.{field}" for field, only in _OF_BALANCER.items() if only != name]
        if not self.rules.balancer.locality:
            beside.append("balancer.localityHealthy")
        return [path for path in beside if self.sources[path] == DEFAULT]


# -- the instance's side ------------------------------------------------------------------------------


class _Inbound:
    def __init__(self, record: Record, known: Known) -> None:
        self._record = record
        self._known = known
        self.rules, self.sources = known.inbound(record)
        self._layers: Mapping[str, Callable[[], _Layer]] = {
            "identity": _Layer,
            "draining": self._draining,
            "deadline": self._deadline,
            "fault": self._fault,
            "concurrency": self._slots,
            "credit": self._credit,
            "decode": _Layer,
            "duplicates": lambda: _Layer(None, _DUPLICATES),
            "plug-ins": self._plugins,
            "interceptors": lambda: _Layer(None, "as the service's code gives them"),
            "handler": _Layer,
            "encode": _Layer,
        }

    def layer(self, name: str) -> _Layer:
        return self._layers[name]()

    def _draining(self) -> _Layer:
        draining = self._known.draining
        if not draining:
            return _Layer(False, "no instance drains")
        return _Layer(note=f"draining now: {listed(draining)}")

    def _deadline(self) -> _Layer:
        return _Layer(
            parameters={"default_timeout_s": {**declared_timeout(self._record), "field": ""}},
            note="for calls that bring no time of their own",
        )

    def _fault(self) -> _Layer:
        if not self._known.faults:
            return _Layer(False, "no operator injects one")
        return _Layer(note=f"{self._known.faults} injected by operators")

    def _slots(self) -> _Layer:
        return _Layer(parameters={"limit": concurrency_of(self._record, self.rules, self.sources)})

    def _credit(self) -> _Layer:
        source = self.sources["concurrency.leaveQueue"]
        if source == DEFAULT and self._record["concurrency_source"] == "policy":
            return _Layer(
                None, "not known here: a policy of the instances says so, name its files with --policies"
            )
        if self.rules.concurrency is None or not self.rules.concurrency.leave_queue:
            return _Layer(False, "no policy asks for it" if source == DEFAULT else f"off by {source}")
        return _Layer(
            parameters={"leave_queue": parameter(True, source, "concurrency.leaveQueue")},
        )

    def _plugins(self) -> _Layer:
        names = None if self._record["instances"] == 0 else self._known.plugins_in
        return _plugins(names, "as they are installed where the service runs", "the instances")


def _plugins(names: Sequence[str] | None, unknown: str, where: str) -> _Layer:
    if names is None:
        return _Layer(None, unknown)
    if not names:
        return _Layer(False, f"none is installed at {where}")
    return _Layer(parameters={"names": parameter(list(names), "installed packages")})


def _by(source: str) -> str:
    """Who decides, in a sentence."""
    words = {DEFAULT: "default", ENDPOINT: "its own declaration", ARGUMENT: "the call's own argument"}
    return words.get(source, source)
