"""NM09: breakers, ejection, balancers and faults that do nothing, or more than was meant."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from nats_mesh.core.rules import BreakerRules
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import View, aims, whole
from nats_mesh.policy.layering import Leaf
from nats_mesh.policy.parts import Ejection, Verdicts
from nats_mesh.policy.schema import Destination, Limit
from nats_mesh.policy.scopes import scopes_of

__all__: list[str] = []

_QUEUE = "queue"
#: More calls of one endpoint in a second than one caller makes.
_MANY_CALLS_PER_S = 10_000.0
_BREAKER = BreakerRules()


def _hit(leaf: Leaf, path: str, message: str) -> Hit:
    return Hit(leaf.policy, f"{leaf.prefix}{path}", message)


def _drains(ejection: Ejection) -> bool:
    """Whether instances heed it themselves, whoever chooses them."""
    verdicts = ejection.verdicts
    return isinstance(verdicts, Verdicts) and verdicts.drain is True


@check(
    "NM0901", "error", "Ejection without a balancer that addresses instances",
    "Name one beside it, such as `balancer: least_request`, or remove `ejection`: with the queue group the server "
    "chooses.",
)  # fmt: skip
def ejection_by_queue(view: View) -> Iterable[Hit]:
    """Ejection of a service that is called by its queue group."""
    chosen: set[int] = set()
    for situation in view.situations:
        balancer = situation.leaf("balancer.name")
        if balancer is not None and balancer.value != _QUEUE:
            chosen |= {
                id(leaf.policy)
                for path, leaf in situation.layers.leaves.items()
                if path.startswith("ejection.")
            }
    for policy, spec in view.of(Destination):
        drains = (
            "spec.ejection.verdicts.drain" in policy.lines
        )  # the instances' own affair, whoever chooses them
        if spec.ejection is not UNSET and scopes_of(policy)[0][0] and id(policy) not in chosen and not drains:
            yield Hit(
                policy, "spec.ejection", "has no effect with the balancer queue, where the server chooses"
            )


@check(
    "NM0902", "warning", "Ejection for all services, and none that could use it",
    "Let the services that shall be watched choose a balancer that addresses instances.",
)  # fmt: skip
def ejection_for_nobody(view: View) -> Iterable[Hit]:
    """Ejection for the namespace while no policy names a balancer but the queue."""
    balanced = any(
        spec.balancer is not UNSET and spec.balancer.name not in (UNSET, _QUEUE)
        for _, spec in view.of(Destination)
    )
    for policy, spec in view.of(Destination):
        if spec.ejection is UNSET or _drains(spec.ejection):
            continue
        if not scopes_of(policy)[0][0] and not balanced:
            yield Hit(policy, "spec.ejection", "no policy names a balancer that could avoid an instance")


@check(
    "NM0903", "warning", "A breaker that can hardly open",
    "Lower `minCalls`, widen `window`, or add `consecutive`: it counts what one caller sends to one endpoint.",
)  # fmt: skip
def never_opens(view: View) -> Iterable[Hit]:
    """A breaker that needs more calls than a caller makes."""
    for situation in view.situations:
        leaf, window = situation.leaf("breaker.minCalls"), situation.leaf("breaker.window")
        consecutive = situation.leaf("breaker.consecutive")
        if consecutive is not None and consecutive.value is not None:
            continue
        count = _BREAKER.min_calls if leaf is None else leaf.value
        over_s = _BREAKER.window_s if window is None else window.value
        said = leaf or window
        if said is not None and over_s > 0.0 and count / over_s > _MANY_CALLS_PER_S:
            text = f"needs {count / over_s:,.0f} calls a second of one caller to open"
            yield _hit(said, "breaker.minCalls" if leaf is not None else "breaker.window", text)


@check(
    "NM0904", "warning", "A breaker that opens only where every call fails",
    "Lower `failureRatio`, or add `consecutive`: one call that works keeps it closed.",
)  # fmt: skip
def all_must_fail(view: View) -> Iterable[Hit]:
    """A failure ratio of 100 %, and nothing else that opens it."""
    for situation in view.situations:
        ratio, consecutive = situation.leaf("breaker.failureRatio"), situation.leaf("breaker.consecutive")
        if ratio is not None and ratio.value >= 1.0 and (consecutive is None or consecutive.value is None):
            yield _hit(ratio, "breaker.failureRatio", "one call that works within the window keeps it closed")


@check(
    "NM0905", "warning", "A fault for every call",
    "Give the rule a `match`, or the fault a `share`, unless it shall take the service down.",
)  # fmt: skip
def fault_for_all(view: View) -> Iterable[Hit]:
    """An abort that no call escapes."""
    for rule in view.rules:
        abort = UNSET if rule.said.fault is UNSET else rule.said.fault.abort
        if abort is not UNSET and whole(rule) and (abort.share is UNSET or abort.share >= 1.0):
            where = f"of {rule.service}" if rule.service else "of the whole namespace"
            text = f"every call {where} that comes here fails with {abort.status}"
            yield Hit(rule.policy, f"{rule.path}.fault.abort", text)


@check(
    "NM0906", "warning", "Locality, and no instance says its zone",
    "Give the instances the label `zone`; without it all of them are equally far.",
)  # fmt: skip
def no_zones(view: View) -> Iterable[Hit]:
    """A balancer that prefers a zone of which nobody knows."""
    for situation in view.situations:
        leaf = situation.leaf("balancer.locality")
        instances = view.instances(situation.service)
        if (
            leaf is not None
            and leaf.value
            and instances
            and not any(each.labels.get("zone") for each in instances)
        ):
            yield _hit(
                leaf, "balancer.locality", f"none of {situation.service}'s instances has the label zone"
            )


@check(
    "NM0907", "info", "Nobody else to ask",
    "Run another instance: hedges, and retries elsewhere, need one.",
)  # fmt: skip
def only_one(view: View) -> Iterable[Hit]:
    """A hedge for a service with a single instance."""
    for situation in view.situations:
        leaf = situation.leaf("hedge")
        if leaf is not None and leaf.value == "on" and len(view.instances(situation.service)) == 1:
            text = f"{situation.service} has one instance, which would be asked twice"
            yield _hit(leaf, "hedge", text)


@check(
    "NM0908", "info", "Leaving the queue where callers choose",
    "Keep one of them: whoever addresses instances does not go by the queue group that a full instance leaves.",
)  # fmt: skip
def leaves_unused_queue(view: View) -> Iterable[Hit]:
    """leaveQueue at instances that callers address."""
    balanced = {
        scopes_of(policy)[0]: policy
        for policy, spec in view.of(Destination)
        if spec.balancer is not UNSET and spec.balancer.name not in (UNSET, _QUEUE)
    }
    for policy, spec in view.of(Limit):
        if spec.concurrency is UNSET or spec.concurrency.leave_queue is not True:
            continue
        found = [balanced.get(scope) for scope in scopes_of(policy)]
        if found[0] is not None and all(found):
            text = f"{found[0].name} ({found[0].place}) lets callers choose the instance"
            yield Hit(policy, "spec.concurrency.leaveQueue", text)


@check(
    "NM0909", "warning", "A mirror that goes where the call goes",
    "Mirror to another subset or service, or let the split leave that one out: these instances get the call twice.",
)  # fmt: skip
def mirror_to_self(view: View) -> Iterable[Hit]:
    """Copies for the very destination that has the call."""
    for rule in view.rules:
        legs = [(leg.service or rule.service, leg.subset) for leg in rule.core.legs or () if leg.weight > 0]
        for field, service, subset in aims(rule):
            if field.startswith("mirror") and (service, subset) in (legs or [(rule.service, "")]):
                what = f"{service}/{subset}" if subset else service
                yield Hit(rule.policy, f"{rule.path}.{field}", f"{what} gets these calls already")
