"""Values that are fine by themselves and can have no effect where they stand: said to whoever wrote them.

Policies are laid over each other field by field, so that a value may wait for company: an `ejection` for the whole
namespace counts where a service's own policy chooses a balancer. So it is looked at in every scope that any policy
is about, and only a value that has no effect in a single one of those its own policy reaches is refused. What turns
something off (`off`, `false`, `0s`) is never idle: it says what shall hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET

from nats_mesh.policy.decode import Policy
from nats_mesh.policy.layering import Layers, Leaf
from nats_mesh.policy.problems import Problems

__all__ = ["Effects", "Idle", "Inert"]

_QUEUE = "queue"
#: What only a balancer that addresses instances looks at.
_ADDRESSED = (
    "balancer.bound",
    "balancer.slowStart",
    "balancer.locality",
    "balancer.localityHealthy",
    "balancer.ewmaDecay",
)
_NAME_ONE = "name a balancer that addresses instances, such as least_request, or remove it"


class Idle(NamedTuple):
    """A value that has no effect where it was looked at: the path to name it by, and why."""

    leaf: Leaf
    path: str
    reason: str

    def note(self, problems: Problems) -> None:
        """Note it, unless something else is wrong at its place already."""
        where = f"{self.leaf.prefix}{self.path}"
        file, line = self.leaf.policy.file, self.leaf.policy.lines.get(where, self.leaf.line)
        if not problems.concern(file, line, where):
            problems.add(self.reason, file=file, line=line, path=where)


class Inert:
    """Collects them for the policies of one service: :meth:`look` at what holds in each scope, then :meth:`report`.

    What ``everywhere``, the destination for all services, says may have its effect in any other of them: it is told
    by :meth:`effects`, and reported by whoever knows all services.
    """

    def __init__(self, everywhere: Policy | None) -> None:
        self._everywhere = everywhere
        #: By policy and path: what has an effect somewhere, and what has none in a scope.
        self._used: set[tuple[int, str]] = set()
        self._idle: dict[tuple[int, str], Idle] = {}

    def look(self, layers: Layers) -> None:
        """What has an effect in one scope, and what has none."""
        for path, leaf, reason in _judged(layers):
            key = (id(leaf.policy), path)
            if reason:
                self._idle.setdefault(key, Idle(leaf, path, reason))
            else:
                self._used.add(key)

    def report(self, problems: Problems) -> None:
        """Note what has no effect in any scope."""
        for key, idle in self._idle.items():
            if key not in self._used and idle.leaf.policy is not self._everywhere:
                idle.note(problems)

    def effects(self) -> Effects:
        """What ``everywhere`` says that has an effect here, and that has none in a scope."""
        own = id(self._everywhere)
        used = frozenset([path for policy, path in self._used if policy == own])
        return Effects(used, tuple([idle for (policy, _), idle in self._idle.items() if policy == own]))


class Effects(NamedTuple):
    """Of the destination for all services, in the scopes of one service: the paths of values that have an effect in
    any of them, and the values that have none in one."""

    used: frozenset[str]
    idle: tuple[Idle, ...]


def _judged(layers: Layers) -> Iterator[tuple[str, Leaf, str]]:
    """Every value that needs company: the path to name it by, the value, and why it has no effect (empty: it has)."""
    leaves = layers.leaves
    name = leaves.get("balancer.name")
    by_queue = name is None or name.value == _QUEUE
    queue = f"has no effect with the balancer queue ({layers.source('balancer.name')})"
    for path in _ADDRESSED:
        leaf = leaves.get(path)
        if leaf is not None and leaf.value:
            why = f"{queue}, where the server chooses the instance: {_NAME_ONE}"
            yield path, leaf, why if by_queue else ""
    drain = leaves.get("ejection.verdicts.drain")
    drains = drain is not None and drain.value  # that is the instances' own affair, whoever chooses them
    for path, leaf in leaves.items():
        if path.startswith("ejection.") and leaf.value not in (None, "off") and not _is_wide(leaf.policy):
            why = f"{queue}, which cannot avoid an instance: {_NAME_ONE}"
            yield "ejection", leaf, why if by_queue and not drains else ""
    ratio, slow = leaves.get("breaker.slowRatio"), leaves.get("breaker.slowCall")
    if ratio is not None:
        needs = slow is None or slow.value is None
        why = "has no effect without slowCall: say beside it from when on a call is slow, or remove it"
        yield "breaker.slowRatio", ratio, why if needs else ""
    delay = leaves.get("hedge.delay")
    for path in ("hedge.quantile", "hedge.minDelay"):
        leaf = leaves.get(path)
        if leaf is not None:
            fixed = delay is not None and delay.value is not None
            why = (
                f"has no effect beside delay ({layers.source('hedge.delay')}): remove it, or write delay: off"
            )
            yield path, leaf, why if fixed else ""


def _is_wide(policy: Policy) -> bool:
    """Whether it is about services that may choose a balancer by policies of their own, today or tomorrow."""
    target = policy.target
    return target is UNSET or target.service is UNSET
