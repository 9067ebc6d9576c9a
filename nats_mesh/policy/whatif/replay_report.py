"""What came of trying policies on recorded calls: groups of calls that would have been handled differently."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from nats_mesh.core.envelope import RecordedCall

__all__ = ["MAX_EXAMPLES", "Example", "Facet", "Group", "NotEvaluated", "Replay", "Tally"]

#: How many calls of a group are named.
MAX_EXAMPLES: Final = 5
#: How many groups are told apart; what is beyond falls into one group of its facet.
MAX_GROUPS: Final = 2000
#: Below this, what is left of a share is an error of rounding.
_NOTHING: Final = 1e-9

Facet: TypeAlias = Literal[
    "route", "access", "limit", "abort", "timeout", "attempt-timeout", "delay", "mirror", "setting", "unknown"
]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One of the calls."""

    at: str
    trace: str
    caller: str
    service: str
    endpoint: str
    instance: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that would be handled differently in one way: ``before`` became ``after``, by ``policies`` (those that
    decided before, and those that would). ``calls`` is how many: a number of calls where ``exact``, else what is to
    be expected where chance decides. ``share`` is of all calls of the recording that were looked at."""

    facet: Facet
    target: str
    before: str
    after: str
    policies: tuple[str, ...]
    calls: float
    share: float
    exact: bool
    examples: tuple[Example, ...]


class NotEvaluated(msgspec.Struct, frozen=True, kw_only=True):
    """Something that differs between the policies and was left out, because nothing applies it yet."""

    policy: str
    place: str
    path: str
    what: str


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. ``calls`` are the first attempts of calls, which were looked at; ``retries``, ``mirrors`` and
    ``plain`` ones (on subjects of their own, where no route leads) only took slots. ``affected`` is how many calls
    would be routed, let in, limited, failed or cut short differently, at least; ``unknown`` of how many nobody can
    tell."""

    calls: int
    retries: int
    mirrors: int
    plain: int
    affected: float
    affected_share: float
    unknown: int
    groups: tuple[Group, ...]
    not_evaluated: tuple[NotEvaluated, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every recorded call would be handled as before, as far as anybody can tell."""
        return not self.groups and not self.not_evaluated


_Key: TypeAlias = tuple[Facet, str, str, str, tuple[str, ...]]


class _Counted:
    __slots__ = ("calls", "exact", "examples")

    def __init__(self) -> None:
        self.calls = 0.0
        self.exact = True
        self.examples: list[Example] = []


class Tally:
    """Counts what would be different, call by call."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Counted] = {}
        self._affected: dict[int, float] = {}

    def add(
        self,
        number: int,
        call: RecordedCall,
        facet: Facet,
        before: str,
        after: str,
        policies: tuple[str, ...] = (),
        *,
        amount: float = 1.0,
        target: str = "",
    ) -> None:
        """Call ``number`` of the recording would be handled differently, with a probability of ``amount``."""
        if amount <= _NOTHING:
            return
        key: _Key = (facet, target or f"{call.service}.{call.endpoint}", before, after, policies)
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key = (facet, "others", "", "", ())
        counted = self._groups.setdefault(key, _Counted())
        counted.calls += amount
        counted.exact = counted.exact and abs(amount - 1.0) <= _NOTHING
        if len(counted.examples) < MAX_EXAMPLES:
            counted.examples.append(
                Example(
                    at=call.at,
                    trace=call.trace,
                    caller=call.caller,
                    service=call.service,
                    endpoint=call.endpoint,
                    instance=call.instance,
                )
            )
        if facet not in ("mirror", "setting", "unknown"):
            self._affected[number] = min(1.0, max(self._affected.get(number, 0.0), amount))

    @property
    def affected(self) -> float:
        """How many calls would be handled differently in what matters to their callers."""
        return sum(self._affected.values())

    def groups(self, calls: int) -> tuple[Group, ...]:
        """The groups, the largest of each facet first. ``calls`` were looked at."""
        found = [
            Group(
                facet=facet,
                target=target,
                before=before,
                after=after,
                policies=policies,
                calls=round(counted.calls, 6),
                share=counted.calls / calls if calls else 0.0,
                exact=counted.exact,
                examples=tuple(counted.examples),
            )
            for (facet, target, before, after, policies), counted in self._groups.items()
        ]
        return tuple(sorted(found, key=_order))


_PLACES: Final = {
    name: place
    for place, name in enumerate(
        (
            "access",
            "limit",
            "abort",
            "route",
            "timeout",
            "attempt-timeout",
            "delay",
            "mirror",
            "setting",
            "unknown",
        )
    )
}


def _order(group: Group) -> tuple[int, float, str, str, str]:
    return _PLACES[group.facet], -group.calls, group.target, group.before, group.after
