"""What holds for the calls of one endpoint, value by value, and where each comes from.

Pure: made of what the endpoint declares (a record of ``catalog.py``) and of what policies say. A parameter is
``{"value", "source", "field"}``; the source is ``default``, ``endpoint`` (it declares so) or the policy with its place
(`Destination/orders (file:line)`), the field what a policy calls it, where one can say it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.endpoint import DEFAULT_CONCURRENCY
from nats_mesh.policy import InboundRules, OutboundRules, PolicySet
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.output import Record

__all__ = [
    "ARGUMENT",
    "ENDPOINT",
    "PRECEDENCE",
    "Known",
    "concurrency_of",
    "declared_timeout",
    "idempotent_of",
    "parameter",
    "parameters_of",
    "timeout_of",
]

#: Who decides what a call's timeout is and whether it may be repeated; the first who says anything.
PRECEDENCE = ("argument", "Route", "Destination", "function", "endpoint", "default")

ENDPOINT = "endpoint"
#: What a call says itself.
ARGUMENT = "argument"
#: A limit that an instance says comes of a policy, which is not among those that were read here.
_FOREIGN_POLICY = "policy of the instances"


def parameter(value: Any, source: str, field: str = "") -> Record:
    """One parameter of a layer."""
    return {"value": value, "source": source, "field": field}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the endpoint's record. ``caller`` is ``None`` where nobody in particular calls.

    ``timeout_s`` and ``idempotent`` are what a call's own arguments say; with ``subset`` and ``via`` it goes to that
    subset of the instances and has met these rules of routes.
    ``plugins_out`` are those that run at the caller, ``None`` where nobody knows; ``faults`` and ``draining`` are of
    the instances that serve the endpoint.
    """

    policies: PolicySet
    caller: str | None = None
    plugins_in: Sequence[str] = ()
    plugins_out: Sequence[str] | None = None
    faults: int = 0
    draining: Sequence[str] = ()
    timeout_s: float | None = None
    idempotent: bool | None = None
    subset: str = ""
    via: tuple[tuple[tuple[str, str], int], ...] | None = None

    def outbound(self, record: Record) -> tuple[OutboundRules, Mapping[str, str]]:
        """What the caller does on its way to the endpoint, and where each value comes from."""
        at = (record["service"], record["name"], self.caller or "")
        return (
            self.policies.outbound(*at, subset=self.subset, via=self.via),
            self.policies.outbound_sources(*at, subset=self.subset, via=self.via),
        )

    def inbound(self, record: Record) -> tuple[InboundRules, Mapping[str, str]]:
        """What an instance does with calls of the endpoint, and where each value comes from."""
        at = (record["service"], record["name"])
        return self.policies.inbound(*at), self.policies.inbound_sources(*at)


def timeout_of(record: Record, rules: OutboundRules, sources: Mapping[str, str]) -> Record:
    """How long a call may take that says nothing itself, seconds."""
    if rules.timeout_s is not None:
        return parameter(rules.timeout_s, sources["timeout"], "timeout")
    return declared_timeout(record)


def declared_timeout(record: Record) -> Record:
    """The endpoint's own timeout, seconds; the default where it declares none."""
    declared_ms = record["timeout_ms"]
    if declared_ms is None:
        return parameter(DEFAULT_TIMEOUT_S, DEFAULT, "timeout")
    return parameter(declared_ms / 1000.0, ENDPOINT, "timeout")


def idempotent_of(record: Record, rules: OutboundRules, sources: Mapping[str, str]) -> Record:
    """Whether a call that says nothing itself may be run twice."""
    if rules.idempotent is not None:
        return parameter(rules.idempotent, sources["idempotent"], "idempotent")
    said = bool(record["idempotent"])
    return parameter(said, ENDPOINT if said else DEFAULT, "idempotent")


def concurrency_of(record: Record, rules: InboundRules, sources: Mapping[str, str]) -> Record:
    """The limit that holds; beside it ``running``, what the instances say that they have (``None``: nobody says).

    What an endpoint declares is not known while its instances follow a policy's number; where nobody says, it is taken
    for the default.
    """
    field = "concurrency.limit"
    running, followed = record["concurrency"], bool(record["concurrency_source"])
    said = ConcurrencyRules() if rules.concurrency is None else rules.concurrency
    declared = DEFAULT_CONCURRENCY if running is None else running
    if said.limit is not None and (followed or not said.lowers or said.limit < declared):
        limit, source = said.limit, sources[field]
    elif followed:
        limit, source = running, _FOREIGN_POLICY
    elif running is None or running == DEFAULT_CONCURRENCY:
        limit, source = DEFAULT_CONCURRENCY, DEFAULT
    else:
        limit, source = running, ENDPOINT
    return {**parameter(limit, source, field), "running": running}


def parameters_of(
    block: Field, rules: Any, sources: Mapping[str, str], path: str = "", key: str = ""
) -> Iterator[tuple[str, str, Record]]:
    """Every value of a block of rules: its path in a policy, its key with the unit, and the parameter."""
    path = path or block.name
    assert block.part is not None
    for field in fields_of(block.part).values():
        where, value = f"{path}.{field.name}", getattr(rules, field.rule)
        if field.part is None:
            if isinstance(value, frozenset):
                value = sorted(value)
            yield where, f"{key}{field.rule}", parameter(value, sources[where], where)
        elif value is None:  # a block that is off
            yield where, f"{key}{field.attribute}", parameter(None, sources[where], where)
        else:
            yield from parameters_of(field, value, sources, where, f"{key}{field.attribute}_")
