"""Laying policies over each other, field by field, and making rules of what comes out.

A policy is flattened into its leaves (`retry.attempts`: 3). From the least to the most specific, each replaces the
leaves it names. A block that may be off is a leaf, too (`breaker`: on or off): off clears what less specific
policies said inside it, and whoever says anything inside it turns it on again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from nats_mesh.core.rules import (
    BackoffRules,
    BalancerRules,
    BreakerRules,
    BreakerVerdictRules,
    BudgetRules,
    EjectionRules,
    HedgeRules,
    RetryRules,
    VerdictRules,
)
from nats_mesh.errors import ConfigError
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.parts import (
    Backoff,
    Balancer,
    Breaker,
    BreakerVerdicts,
    Budget,
    Ejection,
    Hedge,
    Part,
    Retry,
    Verdicts,
)  # fmt: skip
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.rules import DEFAULT, source_text
from nats_mesh.policy.schema import DestinationSpec
from nats_mesh.policy.telemetry_parts import AccessLog, Slow, Tap, Tracing

__all__ = ["BLOCKS", "RULES", "Layers", "Leaf", "leaves_of"]

#: The rules that a part of the schema becomes.
RULES: Mapping[type[Part], type[msgspec.Struct]] = {
    Retry: RetryRules, Backoff: BackoffRules, Budget: BudgetRules, Hedge: HedgeRules, Breaker: BreakerRules,
    BreakerVerdicts: BreakerVerdictRules, Ejection: EjectionRules, Verdicts: VerdictRules, Balancer: BalancerRules,
}  # fmt: skip
#: The blocks of a destination that become rules.
BLOCKS = tuple(f for f in fields_of(DestinationSpec).values() if f.part in RULES)

#: What is laid over each other field by field.
_LAID: frozenset[type[Part]] = frozenset({*RULES, Tracing, AccessLog, Slow, Tap})

_ON, _OFF = "on", "off"
_BOUND = re.compile(r"(at least|above) ([0-9.e+-]+)")
#: What belongs to another balancer once the name is another.
_OF_ITS_NAME = {"balancer.name": ("balancer.header",)}
#: Of what only one may be said, the other is gone.
_INSTEAD_OF = {"slow.threshold": "slow.timesP99", "slow.timesP99": "slow.threshold"}


def leaves_of(part: Part, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is set in ``part``, by its path; ``None`` where a single value is off."""
    for field in fields_of(type(part)).values():
        value = getattr(part, field.attribute)
        path = f"{prefix}{field.name}"
        if value is UNSET or field.each == "name" or (field.part is not None and field.part not in _LAID):
            continue  # what it is about, and where calls go, are no values to lay over each other
        if isinstance(value, Part):
            if field.off:
                yield path, _ON
            yield from leaves_of(value, f"{path}.")
        elif value == _OFF and field.part is None:
            yield path, None
        else:
            yield path, value


class Leaf(msgspec.Struct, frozen=True):
    """A value, who says it, and where: ``prefix`` is the path of its spec in that policy, ``line`` in its file."""

    value: Any
    policy: Policy
    prefix: str
    line: int


class Layers:
    """Leaves of several policies, the most specific on top. ``add`` them from the least specific on."""

    def __init__(self) -> None:
        self._leaves: dict[str, Leaf] = {}
        self._blocks: set[str] = set()  # the blocks of which any leaf was ever set

    def add(self, policy: Policy, spec: Part, prefix: str) -> None:
        """Lay ``spec`` over what is there; ``prefix`` is its path in ``policy``'s file (`spec.`)."""
        leaves = self._leaves
        for path, value in leaves_of(spec):
            if value == _OFF:
                self._clear(path)
            for other in _OF_ITS_NAME.get(path, ()):
                if path in leaves and leaves[path].value != value:
                    leaves.pop(other, None)
            if path in _INSTEAD_OF:
                leaves.pop(_INSTEAD_OF[path], None)
            line = policy.lines.get(f"{prefix}{path}", policy.line)
            leaves[path] = Leaf(value, policy, prefix, line)
            self._blocks.add(path.partition(".")[0])

    def forget(self, path: str) -> None:
        """What was said at ``path`` so far does not hold any more."""
        self._leaves.pop(path, None)

    def _clear(self, block: str) -> None:
        for path in [path for path in self._leaves if path.startswith(f"{block}.")]:
            del self._leaves[path]

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """What holds, by its path: `retry.attempts`; ``None`` for a single value that is off."""
        return self._leaves

    def value(self, path: str) -> Any:
        """What is said at ``path``, else ``None``."""
        leaf = self._leaves.get(path)
        return None if leaf is None else leaf.value

    def source(self, path: str) -> str:
        """Where the value at ``path`` comes from."""
        leaf = self._leaves.get(path)
        if leaf is None:
            return DEFAULT
        policy = leaf.policy
        return source_text(policy.name, policy.file, leaf.line)

    def sources(self, fields: Iterable[Field], prefix: str = "") -> Iterator[tuple[str, str]]:
        """The source of every value below ``fields``; of a block that is off, only who says so."""
        for field in fields:
            path = f"{prefix}{field.name}"
            if field.part is None:
                yield path, self.source(path)
                continue
            if field.off:
                yield path, self.source(path)
                if not self._is_on(field, path):
                    continue
            yield from self.sources(fields_of(field.part).values(), f"{path}.")

    def _is_on(self, field: Field, path: str) -> bool:
        leaf = self._leaves.get(path)
        return field.default != _OFF if leaf is None else leaf.value == _ON

    def rules(self, block: Field, problems: Problems, prefix: str = "") -> Any:
        """The rules of a block, ``None`` where it is off. What they refuse goes to ``problems``, with its place."""
        path = f"{prefix}{block.name}"
        assert block.part is not None
        if block.off and not self._is_on(block, path):
            return None
        if not prefix and block.name not in self._blocks:
            return _default_rules(block.part)
        blocks = [field for field in fields_of(block.part).values() if field.part is not None]
        fields = {name: field for name, field in fields_of(block.part).items() if field.part is None}
        inside = {field.rule: self.rules(field, problems, f"{path}.") for field in blocks}
        said = {f"{path}.{name}": field for name, field in fields.items() if f"{path}.{name}" in self._leaves}
        refused: set[str] = set()
        while True:
            values = {field.rule: _made(field, self._leaves[name].value) for name, field in said.items()}
            try:
                return RULES[block.part](**inside, **values)
            except ConfigError as error:
                where, _, reason = str(error).partition(": ")
                name = where.removeprefix(f"{path}.")
                if (
                    not said or name not in fields
                ):  # rules that refuse their own defaults: no policy is to blame
                    raise
                if where not in refused:
                    refused.add(where)
                    self._note(where, fields[name], reason, said, problems)
                for gone in [where] if where in said else list(said):  # without it, to see the rest
                    del said[gone]

    def _note(
        self, path: str, field: Field, reason: str, said: Mapping[str, Field], problems: Problems
    ) -> None:
        """Note what the rules refused at ``path``, in the words and at the place of whoever wrote it."""
        if field.kind is DURATION:
            reason = _BOUND.sub(lambda match: f"{match[1]} {DURATION.write(float(match[2]))}", reason)
        reason, got, _ = reason.partition(", got ")
        if path in said:
            leaf = self._leaves[path]
            if got and field.kind is not None:
                reason += f", got {field.kind.write(leaf.value)}"
        else:  # a default that does not go with what a policy says beside it
            leaf = self._leaves[list(said)[-1]]
            reason += ", which its default is not: set it, too"
        problems.add(reason, file=leaf.policy.file, line=leaf.line, path=f"{leaf.prefix}{path}")


@functools.cache
def _default_rules(part: type[Part]) -> Any:
    """The rules of a block that no policy mentions, the same object for every target."""
    inside = {
        f.rule: _default_rules(f.part) for f in fields_of(part).values() if f.part is not None and not f.off
    }
    return RULES[part](**inside)


def _made(field: Field, value: Any) -> Any:
    return frozenset(value) if field.kind is not None and field.kind.several else value
