"""NM07: times that do not go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET

from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.rules import BackoffRules, RetryRules
from nats_mesh.policy.analysis.findings import Hit, check
from nats_mesh.policy.analysis.view import Situation, View
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.layering import Leaf
from nats_mesh.policy.scopes import scopes_of
from nats_mesh.policy.telemetry_parts import Telemetry

__all__: list[str] = []

_RETRY = RetryRules()


def _hit(leaf: Leaf, path: str, message: str) -> Hit:
    return Hit(leaf.policy, f"{leaf.prefix}{path}", message)


def _timeout(view: View, situation: Situation) -> tuple[float, str]:
    """How long a call has that says nothing itself, and who says so."""
    leaf = situation.leaf("timeout")
    if leaf is not None:
        return leaf.value, f"the timeout {DURATION.write(leaf.value)} of {leaf.policy.name}"
    declared = view.endpoint(situation.service, situation.endpoint)
    if declared is not None and declared.timeout_s is not None:
        return declared.timeout_s, f"the endpoint's own timeout {DURATION.write(declared.timeout_s)}"
    return DEFAULT_TIMEOUT_S, f"the default timeout {DURATION.write(DEFAULT_TIMEOUT_S)}"


@check(
    "NM0701", "warning", "A timeout shorter than the endpoint's own",
    "Give the calls the time that the endpoint declares, or lower its own timeout in its code: callers give up on work "
    "that it expects to finish.",
)  # fmt: skip
def shorter_than_own(view: View) -> Iterable[Hit]:
    """Callers that wait less long than the callee says that it takes."""
    for situation in view.situations:
        leaf = situation.leaf("timeout")
        declared = view.endpoint(situation.service, situation.endpoint)
        if leaf is None or declared is None or declared.timeout_s is None or leaf.value >= declared.timeout_s:
            continue
        yield _hit(
            leaf,
            "timeout",
            f"{DURATION.write(leaf.value)} is less than the {DURATION.write(declared.timeout_s)} that "
            f"{situation.service}.{situation.endpoint} declares itself",
        )


def _tries(view: View, situation: Situation) -> Iterator[tuple[Leaf, float, int, float, str]]:
    """What one attempt may take, where policies say so, the attempts, and the time for all of them."""
    per_try, attempts = situation.leaf("retry.perTryTimeout"), situation.leaf("retry.attempts")
    count = _RETRY.attempts if attempts is None else attempts.value
    if per_try is not None and per_try.value is not None:
        total, who = _timeout(view, situation)
        yield per_try, per_try.value, count, total, who


@check(
    "NM0702", "warning", "Attempts that never begin",
    "Raise the timeout, lower `perTryTimeout`, or have fewer attempts: the timeout is for all of them together.",
)  # fmt: skip
def never_begins(view: View) -> Iterable[Hit]:
    """A timeout that is over before the last attempt can begin."""
    for situation in view.situations:
        for leaf, each, count, total, who in _tries(view, situation):
            if count > 1 and (count - 1) * each >= total:
                began = min(count - 1, int(total / each) + (total % each > 0))
                text = (
                    f"{who} is over before attempt {began + 1} of {count} begins, {DURATION.write(each)} each"
                )
                yield _hit(leaf, "retry.perTryTimeout", text)


@check(
    "NM0703", "info", "The last attempt has less time than the others",
    "Raise the timeout or lower `perTryTimeout`, so that all attempts fit in.",
)  # fmt: skip
def cut_short(view: View) -> Iterable[Hit]:
    """A timeout that ends within the last attempt, or an only attempt that may take longer than its call."""
    for situation in view.situations:
        for leaf, each, count, total, who in _tries(view, situation):
            left = total - (count - 1) * each
            if 0 < left < each:
                text = f"attempt {count} gets {DURATION.write(left)} of its {DURATION.write(each)}: {who} ends it"
                yield _hit(leaf, "retry.perTryTimeout", text)


@check(
    "NM0704", "warning", "An injected delay longer than the timeout",
    "Shorten the delay, or abort with DEADLINE_EXCEEDED, which does the same without the wait; where calls shall "
    "only be late, give them more time.",
)  # fmt: skip
def delay_too_long(view: View) -> Iterable[Hit]:
    """A delay that no call survives, by what policies say themselves."""
    for situation in view.situations:
        timeout = situation.leaf("timeout")
        for rule in situation.rules:
            fault = rule.said.fault
            if timeout is None or fault is UNSET or fault.delay is UNSET or fault.delay.share == 0.0:
                continue
            delay = fault.delay.duration
            if delay >= timeout.value:
                text = (
                    f"every call that waits {DURATION.write(delay)} has failed by then: its timeout is "
                    f"{DURATION.write(timeout.value)} ({timeout.policy.name})"
                )
                yield Hit(rule.policy, f"{rule.path}.fault.delay.duration", text)


@check(
    "NM0705", "warning", "A hedge that comes too late",
    "Let the hedge ask well before the timeout, or raise the timeout.",
)  # fmt: skip
def late_hedge(view: View) -> Iterable[Hit]:
    """A second question that would be asked after the call has ended."""
    for situation in view.situations:
        total, who = _timeout(view, situation)
        for path in ("hedge.delay", "hedge.minDelay"):
            leaf = situation.leaf(path)
            if leaf is not None and leaf.value is not None and leaf.value >= total:
                text = f"never asks again: {DURATION.write(leaf.value)} is not less than {who}"
                yield _hit(leaf, path, text)


@check(
    "NM0706", "warning", "A wait between attempts that is longer than the call",
    "Shorten `backoff.initial`, or raise the timeout.",
)  # fmt: skip
def long_backoff(view: View) -> Iterable[Hit]:
    """A backoff after which no time is left."""
    for situation in view.situations:
        leaf = situation.leaf("retry.backoff.initial")
        attempts = situation.leaf("retry.attempts")
        if leaf is None or (_RETRY.attempts if attempts is None else attempts.value) < 2:
            continue
        jitter = situation.leaf("retry.backoff.jitter")
        shortest = leaf.value * (1.0 - (BackoffRules().jitter if jitter is None else jitter.value))
        total, who = _timeout(view, situation)
        if shortest >= total:
            text = f"a second attempt never begins: {DURATION.write(leaf.value)} is not less than {who}"
            yield _hit(leaf, "retry.backoff.initial", text)


@check(
    "NM0707", "warning", "A call ends before it can be slow",
    "Let `slowCall` be well below the timeout: calls that end by their timeout are failures already.",
)  # fmt: skip
def slow_too_late(view: View) -> Iterable[Hit]:
    """A breaker that counts slow calls from a time on that no call reaches."""
    for situation in view.situations:
        leaf, timeout = situation.leaf("breaker.slowCall"), situation.leaf("timeout")
        if (
            leaf is not None
            and timeout is not None
            and leaf.value is not None
            and leaf.value >= timeout.value
        ):
            text = f"no call is ever that slow: the timeout is {DURATION.write(timeout.value)} ({timeout.policy.name})"
            yield _hit(leaf, "breaker.slowCall", text)


@check(
    "NM0708", "warning", "A call ends before it is told as slow",
    "Let `slow` be well below the timeout: calls that reach that are stopped, and told as failures.",
)  # fmt: skip
def slow_never_told(view: View) -> Iterable[Hit]:
    """A threshold for slow calls that no call of its target lives to reach."""
    for policy, spec in view.of(Telemetry):
        slow, scopes = spec.slow, scopes_of(policy)
        if slow is UNSET or slow == "off" or slow.threshold is UNSET or not scopes[0][0]:
            continue
        service = scopes[0][0]
        names = [name for _, name in scopes if name] or sorted(view.endpoints(service))
        found = [_bound(view, service, name) for name in names]
        known = [each for each in found if each is not None]
        if known and len(known) == len(found) and max(known)[0] <= slow.threshold:
            text = f"no call that brings no time of its own is ever that slow: {max(known)[1]} ends it"
            yield Hit(policy, "spec.slow", text)


def _bound(view: View, service: str, endpoint: str) -> tuple[float, str] | None:
    """How long a call of an endpoint has, and who says so; ``None`` where nobody does."""
    situation = Situation(service, endpoint, "", (), view.layers(service, endpoint, "", ()))
    declared = view.endpoint(service, endpoint)
    if situation.leaf("timeout") is None and (declared is None or declared.timeout_s is None):
        return None
    return _timeout(view, situation)
