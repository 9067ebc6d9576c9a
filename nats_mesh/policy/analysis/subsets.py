"""NM05: which instances subsets select, and who sends calls there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from nats_mesh.core.router import Leg
from nats_mesh.core.rules import SubsetRules
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import RouteRule, View, aims
from nats_mesh.policy.analysis.world import Instance
from nats_mesh.policy.schema import Destination
from nats_mesh.policy.scopes import scopes_of, subset_of

__all__: list[str] = []


def _selected(view: View, service: str, rules: SubsetRules) -> tuple[Instance, ...]:
    return tuple(each for each in view.instances(service) if rules.selects(each.version, each.labels))


def _said(rules: SubsetRules) -> str:
    parts = [f"version {rules.version}"] if rules.version else []
    return ", ".join(parts + [f"{name}={value}" for name, value in rules.labels])


@check(
    "NM0501", "error", "Calls are sent to a subset that selects nobody",
    "Start such instances, mend the subset's version or labels, or take the weight from it: these calls fail.",
)  # fmt: skip
def empty_routed(view: View) -> Iterable[Hit]:
    """A subset without an instance, to which a rule sends calls."""
    told: set[tuple[str, str]] = set()
    for rule in view.rules:
        for field, service, subset in aims(rule):
            found = view.subsets.get(service, {}).get(subset)
            weight = 1
            if field.startswith("split["):
                weight = (rule.core.legs or ())[int(field[6:-1])].weight
            if found is None or weight == 0 or (service, subset) in told or field.startswith("mirror"):
                continue
            if view.instances(service) and not _selected(view, service, found[0]):
                told.add((service, subset))
                there = _there(view, service, found[0])
                text = f"no instance of {service} has {_said(found[0])}{there}"
                yield Hit(rule.policy, f"{rule.path}.{field}.subset", text)


def _there(view: View, service: str, rules: SubsetRules) -> str:
    """What the instances have in the place of what a subset asks for."""
    name = "" if rules.version or not rules.labels else rules.labels[0][0]
    instances = view.instances(service)
    values = sorted({each.labels.get(name, "") if name else each.version for each in instances} - {""})
    what = f"label {name}" if name else "version"
    return f"; there are: {what} {', '.join(values[:10])}" if values else f"; none of them says its {what}"


@check(
    "NM0502", "info", "A subset selects nobody",
    "Mend its version or labels, or remove it; nobody sends calls there.",
)  # fmt: skip
def empty(view: View) -> Iterable[Hit]:
    """A subset without an instance, to which no rule sends calls (copies may go there)."""
    calls = {
        (service, subset)
        for rule in view.rules
        for field, service, subset in aims(rule)
        if not field.startswith("mirror")
    }
    for service, named in view.subsets.items():
        for name, (rules, policy) in named.items():
            if (service, name) in calls or not view.instances(service):
                continue
            if not _selected(view, service, rules):
                text = f"no instance of {service} has {_said(rules)}{_there(view, service, rules)}"
                yield Hit(policy, f"spec.subsets.{name}", text)


@check(
    "NM0503", "info", "No route leads to a subset",
    "Remove it, or send calls there; instances subscribe once more for each subset that selects them.",
)  # fmt: skip
def unused(view: View) -> Iterable[Hit]:
    """A subset that no rule names, of a service whose other subsets rules do name."""
    used = {service for service, subset in view.routed if subset}
    for service, named in view.subsets.items():
        for name, (_, policy) in named.items():
            if service in used and (service, name) not in view.routed:
                yield Hit(policy, f"spec.subsets.{name}", f"no route sends calls to {service}/{name}")


@check(
    "NM0504", "warning", "Two subsets are the same",
    "Mend one of them, or keep one: they select the same instances.",
)  # fmt: skip
def twins(view: View) -> Iterable[Hit]:
    """Subsets of one service with the same version and labels."""
    for service, named in view.subsets.items():
        for (one, (rules, _)), (other, (others, policy)) in combinations(named.items(), 2):
            if (rules.version, rules.labels) == (others.version, others.labels):
                text = f"selects the same instances of {service} as {one}: {_said(rules)}"
                yield Hit(policy, f"spec.subsets.{other}", text)


@check(
    "NM0505", "warning", "Destinations of a split share instances",
    "Let the subsets exclude each other, so that the weights say what each instance gets.",
)  # fmt: skip
def overlapping(view: View) -> Iterable[Hit]:
    """Two legs that lead to the same instances, by what they say or by who runs now."""
    for rule in view.rules:
        legs = [(index, leg) for index, leg in enumerate(rule.core.legs or ()) if leg.weight > 0]
        for (_, one), (index, other) in combinations(legs, 2):
            service = other.service or rule.service
            if service and (one.service or rule.service) == service:
                yield from _shared(view, rule, service, one, index, other)


def _shared(view: View, rule: RouteRule, service: str, one: Leg, index: int, other: Leg) -> Iterator[Hit]:
    path = f"{rule.path}.split[{index}]"
    named = view.subsets.get(service, {})
    if not one.subset or not other.subset:
        which = one.subset or other.subset
        text = (
            f"instances of {which} get calls from both: the other destination is every instance of {service}"
        )
        yield Hit(rule.policy, path, text)
        return
    mine, others = named.get(one.subset), named.get(other.subset)
    if mine is None or others is None:
        return
    if _within(mine[0], others[0]) or _within(others[0], mine[0]):
        inner = one.subset if _within(mine[0], others[0]) else other.subset
        outer = other.subset if inner == one.subset else one.subset
        yield Hit(rule.policy, path, f"every instance of {inner} is one of {outer}, too")
        return
    both = [each for each in _selected(view, service, mine[0]) if each in _selected(view, service, others[0])]
    if both:
        text = f"{len(both)} of {service}'s instances are both {one.subset} and {other.subset}"
        yield Hit(rule.policy, path, text)


def _within(one: SubsetRules, other: SubsetRules) -> bool:
    """Whether everybody that ``one`` selects is selected by ``other``, whoever runs."""
    return other.version in ("", one.version) and set(other.labels) <= set(one.labels)


@check(
    "NM0506", "warning", "A destination for a subset to which nobody is sent",
    "Send calls to the subset by a `Route`, or remove the `Destination`: its values never count.",
)  # fmt: skip
def idle_destination(view: View) -> Iterable[Hit]:
    """Values for a subset that no route leads to. Only where there are routes at all: they may stand elsewhere."""
    if not view.rules:
        return
    for policy, _ in view.of(Destination):
        service, subset = scopes_of(policy)[0][0], subset_of(policy)
        if subset in view.subsets.get(service, {}) and (service, subset) not in view.routed:
            text = f"no route sends calls to {service}/{subset}, so these values never count"
            yield Hit(policy, "spec.target.subset", text)
