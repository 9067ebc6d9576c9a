"""NM04: policies that contradict each other, and values that never count because others go above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET

from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import RouteRule, View, whole
from nats_mesh.policy.decode import Policy
from nats_mesh.policy.kinds import RATE
from nats_mesh.policy.layering import leaves_of
from nats_mesh.policy.limit_parts import Rate
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.schema import Destination, DestinationSpec, Limit, Route
from nats_mesh.policy.scopes import Scope, around, scopes_of, subset_of
from nats_mesh.policy.telemetry_parts import Telemetry

__all__: list[str] = []


def _about(scope: Scope, subset: str = "") -> str:
    name = ".".join(part for part in scope if part) or "the whole namespace"
    return f"subset {subset} of {name}" if subset else name


@check(
    "NM0401", "error", "Two policies are about the same",
    "Put them into one; `apply` refuses the set as it is.",
)  # fmt: skip
def same_scope(view: View) -> Iterable[Hit]:
    """Two destinations, routes, rollouts or telemetries about one target."""
    for kind in (Destination, Route, Rollout, Telemetry):
        holders: dict[tuple[str, str, str], Policy] = {}
        for policy, _ in view.of(kind):
            for scope in scopes_of(policy):
                key = (*scope, subset_of(policy))
                holder = holders.setdefault(key, policy)
                if holder is not policy:
                    text = f"{holder.name} ({holder.place}) is about {_about(scope, key[2])}, too"
                    yield Hit(policy, "spec.target", text)
                    break


@check(
    "NM0402", "error", "Two policies have the same name",
    "Give one of them another name; of two with one name the store keeps the last.",
)  # fmt: skip
def same_name(view: View) -> Iterable[Hit]:
    """Two documents of one kind and name."""
    holders: dict[str, Policy] = {}
    for policy in view.policies:
        holder = holders.setdefault(policy.name, policy)
        if holder is not policy:
            yield Hit(policy, "metadata.name", f"{policy.name} stands at {holder.place}, too")


@check(
    "NM0403", "warning", "A route always goes above a value",
    "Remove the value where it never counts, or take it out of the route: a `Route` goes above every `Destination`, "
    "also a wider one above a narrower one.",
)  # fmt: skip
def under_route(view: View) -> Iterable[Hit]:
    """A value of a destination that every call of its target gets from a route instead."""
    for policy, spec in view.of(Destination):
        scopes = scopes_of(policy)
        for path, _ in leaves_of(spec):
            above = [_always_said(view, scope, path) for scope in scopes]
            first = above[0]
            if first is not None and all(above):
                yield Hit(policy, f"spec.{path}", f"never counts: {first.where} says it for every call")


def _always_said(view: View, scope: Scope, path: str) -> RouteRule | None:
    """A rule of a route whose every rule says ``path``, and of which every call of ``scope`` meets one."""
    for wider in around(*scope):
        for rule in view.routes.get(wider, ()):
            if not any(path == said for said, _ in leaves_of(rule.said)):
                break
            if whole(rule):
                return rule
    return None


@check(
    "NM0404", "info", "Narrower policies go above a value everywhere",
    "Remove the value, unless it is meant for endpoints to come.",
)  # fmt: skip
def under_endpoints(view: View) -> Iterable[Hit]:
    """A value for a service that each of its endpoints gets from a destination of its own."""
    for policy, spec in view.of(Destination):
        (service, endpoint), subset = scopes_of(policy)[0], subset_of(policy)
        names = sorted(view.endpoints(service)) if service and not endpoint else []
        narrow = [view.destinations.get((service, name, subset)) for name in names]
        for path, _ in leaves_of(spec) if names else ():
            if all(each is not None and _says(each, path) for each in narrow):
                text = (
                    f"never counts: all endpoints of {service} have a Destination of their own that says it"
                )
                yield Hit(policy, f"spec.{path}", text)


def _says(policy: Policy, path: str) -> bool:
    spec = policy.document.spec
    return isinstance(spec, DestinationSpec) and any(said == path for said, _ in leaves_of(spec))


@check(
    "NM0405", "warning", "A smaller limit always wins",
    "Remove the larger one, or raise the smaller: all limits must admit a call, whatever they are about.",
)  # fmt: skip
def larger_limit(view: View) -> Iterable[Hit]:
    """A concurrency limit above one that holds for all of its calls."""
    least: dict[Scope, tuple[int, Policy]] = {}
    for policy, limit in _limits(view):
        for scope in scopes_of(policy):
            if scope not in least or limit < least[scope][0]:
                least[scope] = limit, policy
    for policy, limit in _limits(view):
        winners = [
            next((least[wide] for wide in around(*scope) if wide in least and least[wide][0] < limit), None)
            for scope in scopes_of(policy)
        ]
        first = winners[0]
        if first is not None and all(winners):
            text = f"never counts: {first[1].name} ({first[1].place}) allows {first[0]} alone"
            yield Hit(policy, "spec.concurrency.limit", text)


def _limits(view: View) -> Iterator[tuple[Policy, int]]:
    for policy, spec in view.of(Limit):
        if spec.concurrency is not UNSET and spec.concurrency.limit is not UNSET:
            yield policy, spec.concurrency.limit


@check(
    "NM0406", "warning", "Two limits disagree about leaving the queue",
    "Say `leaveQueue` in one of them.",
)  # fmt: skip
def leave_queue(view: View) -> Iterable[Hit]:
    """Two limits about one target, of which one says leaveQueue: true and the other false."""
    said: dict[Scope, tuple[Policy, bool]] = {}
    for policy, spec in view.of(Limit):
        if spec.concurrency is UNSET or spec.concurrency.leave_queue is UNSET:
            continue
        for scope in scopes_of(policy):
            other, value = said.setdefault(scope, (policy, spec.concurrency.leave_queue))
            if value is not spec.concurrency.leave_queue:
                text = f"{other.name} ({other.place}) says the opposite about {_about(scope)}"
                yield Hit(policy, "spec.concurrency.leaveQueue", text)
                break


@check(
    "NM0407", "info", "A wide limit that lowers nothing",
    "Lower it, or name the endpoints it shall raise: one for a whole service or namespace never allows more than an "
    "endpoint declares.",
)  # fmt: skip
def lowers_nothing(view: View) -> Iterable[Hit]:
    """A limit for a service that is above what each of its endpoints declares."""
    for policy, limit in _limits(view):
        service, endpoint = scopes_of(policy)[0]
        own = [each.concurrency for each in view.endpoints(service).values()] if not endpoint else []
        declared = [each for each in own if each is not None]
        if declared and len(declared) == len(own) and limit >= max(declared):
            text = f"no endpoint of {service} declares more than {max(declared)}, so {limit} changes nothing"
            yield Hit(policy, "spec.concurrency.limit", text)


@check(
    "NM0408", "error", "A route splits the calls of a rollout",
    "Take the split out of the route while the rollout runs; both say where the service's calls go.",
)  # fmt: skip
def split_beside_rollout(view: View) -> Iterable[Hit]:
    """A rule that splits over the subsets between which a rollout moves the weights."""
    moving = {scopes_of(policy)[0][0]: (policy, {spec.from_, spec.to}) for policy, spec in view.of(Rollout)}
    for rule in view.rules:
        found = moving.get(rule.service)
        if found is None or rule.said.split is UNSET or len(rule.said.split) < 2:
            continue
        if any(leg.subset in found[1] for leg in rule.core.legs or ()):
            text = f"{found[0].name} ({found[0].place}) sets the weights of {rule.service}'s subsets, too"
            yield Hit(rule.policy, f"{rule.path}.split", text)


@check(
    "NM0409", "warning", "A lower rate always wins",
    "Remove the higher one, or raise the lower: all limits must admit a call, whatever they are about.",
)  # fmt: skip
def higher_rate(view: View) -> Iterable[Hit]:
    """A rate above another one that is counted alike and holds for all of its calls."""
    least: dict[tuple[object, ...], tuple[float, Policy]] = {}
    rates = [(policy, spec.rate) for policy, spec in view.of(Limit) if spec.rate is not UNSET]
    for policy, rate in rates:
        for scope in scopes_of(policy):
            key = (*_counted(rate), scope)
            if key not in least or rate.limit < least[key][0]:
                least[key] = rate.limit, policy
    for policy, rate in rates:
        winners = [
            next(
                (least[key] for key in _wider(rate, scope) if key in least and least[key][0] < rate.limit),
                None,
            )
            for scope in scopes_of(policy)
        ]
        first = winners[0]
        if first is not None and all(winners):
            text = f"never counts: {first[1].name} ({first[1].place}) allows {RATE.write(first[0])} alone"
            yield Hit(policy, "spec.rate", text)


def _counted(rate: Rate) -> tuple[object, ...]:
    """How calls are counted: what is counted otherwise is another limit."""
    return rate.scope or "local", tuple(sorted(rate.keys or ()))


def _wider(rate: Rate, scope: Scope) -> list[tuple[object, ...]]:
    return [(*_counted(rate), wide) for wide in around(*scope)]
