"""In which steps a change of policies is made, so that no call ever meets half of it.

A route that leads to a subset nobody knows yet sends calls where nobody listens, and so does one whose subset has just
gone. So what defines comes before what leads there, and goes after it: destinations, acknowledgements, routes; and
where a subset goes, routes, acknowledgements, the longest time that a call may take, destinations. A change that does
neither is one step. Every step leaves a set that holds by itself: whoever makes the change may stop after any of them.

Destinations say more than which subsets there are, and what they say anew may contradict the routes of before, as what
they said before may contradict the new ones. Where it does, the subsets alone go ahead, added to what stands there, and
everything else comes at once with the routes (``narrow``). That is the second choice: whatever is not a route is
better in effect everywhere before the routes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.rules import SubsetRules
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.routing import subsets_of
from nats_mesh.policy.schema import Destination, DestinationSpec, Route

__all__ = ["Document", "Step", "longest_timeout_s", "steps_of"]

#: No step waits longer than this for calls that are under way (seconds).
MAX_PAUSE_S = 60.0

_Subsets = dict[str, dict[str, SubsetRules]]


class Document(msgspec.Struct, frozen=True, eq=False):
    """A policy, and its text as it is stored: one JSON object."""

    policy: Policy
    value: bytes


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a change, stored as one. ``values`` has the new text of each key, ``None``: it is deleted.

    ``why`` is what the step is for; ``pause_s`` how long to wait before it, once the step before is acknowledged.
    """

    why: str
    values: Mapping[str, bytes | None]
    pause_s: float = 0.0


def steps_of(
    current: Mapping[str, Document], changes: Mapping[str, Document | None], *, narrow: bool = False
) -> list[Step]:
    """The steps of ``changes`` to the ``current`` documents, by their keys; ``None`` deletes one.

    What changes nothing is left out; no steps: nothing changes at all. Both sets must hold by themselves. ``narrow``:
    of what routes will lead to, the subsets alone go ahead; of what they led to, the subsets alone stay behind.
    """
    after = {key: document for key, document in current.items() if key not in changes}
    after |= {key: document for key, document in changes.items() if document is not None}
    values = {
        key: None if document is None else document.value
        for key, document in changes.items()
        if (None if document is None else document.value) != _value(current.get(key))
    }
    if not values:
        return []
    before_table, after_table = _subsets(current.values()), _subsets(after.values())
    created = {
        (service, name)
        for service, name in _led_to(after.values())
        if after_table.get(service, {}).get(name) != before_table.get(service, {}).get(name)
    }
    removed = {
        (service, name)
        for service, name in _led_to(current.values())
        if name not in after_table.get(service, {}) and name in before_table.get(service, {})
    }
    routes = {key: value for key, value in values.items() if key.startswith("Route.")}
    first = {key: value for key, value in values.items() if key not in routes}
    last: dict[str, bytes | None] = {}
    for service in sorted({service for service, _ in removed}):
        names = {name for whose, name in removed if whose == service}
        _keep(service, names, current, after, first, last, narrow=narrow)
    steps: list[Step] = []
    ahead = _ahead(created, current, after) if narrow and routes else {}
    if ahead:
        steps.append(Step(why="subsets that routes will lead to", values=ahead))
        rest = {**first, **routes}
        then = {key: value for key, value in rest.items() if key not in ahead or ahead[key] != value}
        steps.append(Step(why="routes, and all else", values=then))
    elif created and routes and first:
        steps.append(Step(why="what routes will lead to", values=first))
        steps.append(Step(why="routes", values=routes))
    elif first or routes:
        steps.append(Step(why="all of it" if not last else "routes", values={**first, **routes}))
    if last:
        pause_s = longest_timeout_s(current.values())
        steps.append(Step(why="what no route leads to any more", values=last, pause_s=pause_s))
    return steps


def _keep(
    service: str,
    names: set[str],
    current: Mapping[str, Document],
    after: Mapping[str, Document],
    first: dict[str, bytes | None],
    last: dict[str, bytes | None],
    *,
    narrow: bool,
) -> None:
    """Have subsets of a service that go stay until the last step: in what defines the service's subsets afterwards, or
    else in what did."""
    old_key, old = _definer(service, current)
    new_key, new = _definer(service, after)
    if new is None:
        if old_key in first:
            last[old_key] = first.pop(old_key)
            if narrow and old is not None and last[old_key] is None:
                first[old_key] = _bare(old, names)
        return
    assert old is not None
    document, kept = msgspec.json.decode(new.value), msgspec.json.decode(old.value)["spec"]["subsets"]
    subsets = document["spec"].setdefault("subsets", {})
    subsets |= {name: kept[name] for name in sorted(names)}
    last[new_key] = new.value
    merged = msgspec.json.encode(document)
    if merged == _value(current.get(new_key)):
        first.pop(new_key, None)
    else:
        first[new_key] = merged


def _ahead(
    created: Iterable[tuple[str, str]], current: Mapping[str, Document], after: Mapping[str, Document]
) -> dict[str, bytes | None]:
    """What stands there with the new subsets added to it, and no other change."""
    ahead: dict[str, bytes | None] = {}
    for service in sorted({service for service, _ in created}):
        names = sorted(name for whose, name in created if whose == service)
        old_key, old = _definer(service, current)
        new_key, new = _definer(service, after)
        assert new is not None  # it defines what is created
        if old is None:
            ahead[new_key] = _bare(new, names)
            continue
        document: dict[str, Any] = msgspec.json.decode(old.value)
        wanted = msgspec.json.decode(new.value)["spec"]["subsets"]
        document["spec"].setdefault("subsets", {}).update({name: wanted[name] for name in names})
        ahead[old_key] = msgspec.json.encode(document)
    return ahead


def _bare(document: Document, names: Iterable[str]) -> bytes:
    """A destination that says nothing but some of its subsets."""
    plain: dict[str, Any] = msgspec.json.decode(document.value)
    spec = plain["spec"]
    kept = {name: spec["subsets"][name] for name in sorted(names)}
    return msgspec.json.encode({**plain, "spec": {"target": spec["target"], "subsets": kept}})


def _definer(service: str, documents: Mapping[str, Document]) -> tuple[str, Document | None]:
    """The destination that is about the whole of a service, where its subsets stand."""
    for key, document in documents.items():
        spec = document.policy.document.spec
        if isinstance(spec, DestinationSpec) and spec.target is not UNSET:
            target = spec.target
            if target.service == service and target.endpoints is UNSET and target.subset is UNSET:
                return key, document
    return "", None


def _value(document: Document | None) -> bytes | None:
    return None if document is None else document.value


def _subsets(documents: Iterable[Document]) -> _Subsets:
    found: _Subsets = {}
    for document in documents:
        policy = document.policy.document
        if isinstance(policy, Destination) and policy.spec.subsets is not UNSET:
            target = policy.spec.target
            if target is not UNSET and target.service is not UNSET:
                found[target.service] = subsets_of(policy.spec)
    return found


def _led_to(documents: Iterable[Document]) -> set[tuple[str, str]]:
    """The subsets that routes lead to, as service and name."""
    found: set[tuple[str, str]] = set()
    for document in documents:
        policy = document.policy.document
        if not isinstance(policy, Route):
            continue
        target = policy.spec.target
        own = "" if target is UNSET or target.service is UNSET else target.service
        for rule in policy.spec.rules:
            aims = [] if rule.split is UNSET else [(each.service, each.subset) for each in rule.split]
            aims += [] if rule.mirror is UNSET else [(each.service, each.subset) for each in rule.mirror]
            for service, subset in aims:
                if subset is not UNSET:
                    found.add((own if service is UNSET else service, subset))
    return found


def longest_timeout_s(documents: Iterable[Document]) -> float:
    """How long a call may still be under way, by what these policies say and the default (seconds)."""
    longest = DEFAULT_TIMEOUT_S
    for document in documents:
        policy = document.policy.document
        said: list[object] = []
        if isinstance(policy, Destination):
            said.append(policy.spec.timeout)
        elif isinstance(policy, Route):
            said += [rule.timeout for rule in policy.spec.rules]
        longest = max([longest, *[each for each in said if isinstance(each, float)]])
    return min(longest, MAX_PAUSE_S)
