"""Trying policies on recorded calls: which of them would be routed, let in, limited or failed differently, and why.

Both sides are asked with the very code of the data path, and a call counts as far as the answers differ: where chance
decides, by the difference of the exact probabilities, and no dice are thrown. So the same policies never differ from
themselves, whatever was recorded.

What a recording cannot tell is said, not guessed: headers that were not kept, claims, the timeout that a caller gave
with its call, and what a call was named at its caller where a route led it to another service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nats_mesh.core.access import Decision
from nats_mesh.core.envelope import RecordedCall
from nats_mesh.policy.kinds import SHARE
from nats_mesh.policy.layerless import layerless
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.rules import OutboundRules
from nats_mesh.policy.ways import keep
from nats_mesh.policy.whatif.difference import difference
from nats_mesh.policy.whatif.recording import Recording
from nats_mesh.policy.whatif.replay_fates import Candidate, Fates, Seen, Way
from nats_mesh.policy.whatif.replay_limits import full, spans_of
from nats_mesh.policy.whatif.replay_report import NotEvaluated, Replay, Tally
from nats_mesh.policy.whatif.replay_shares import (
    aborts,
    by,
    copies,
    cut,
    delays,
    fault_rule,
    largest,
    late,
    targets,
)  # fmt: skip
from nats_mesh.policy.whatif.replay_words import (
    distinct,
    flat,
    known,
    said_decision,
    said_delays,
    said_limit,
    said_share,
    said_time,
)  # fmt: skip

__all__ = ["Candidate", "replay"]

_PLAIN = "plain"
_OTHER = "_OTHER"


def replay(recording: Recording, old: Candidate, new: Candidate) -> Replay:
    """Try ``new`` in the place of ``old``."""
    kept = recording.header.headers
    names = None if kept is None else frozenset(kept)
    found = _Replaying(old, new, recording.header.sample)
    for number, call in enumerate(recording.calls):
        found.take(Seen(number, call, names))
    found.limits(recording.calls)
    return found.report()


class _Replaying:
    def __init__(self, old: Candidate, new: Candidate, sample: float) -> None:
        self._old, self._new = Fates(old), Fates(new)
        self._sample = sample
        self._tally = Tally()
        self._calls = self._retries = self._mirrors = self._plain = 0
        self._unknown: set[int] = set()
        self._led: dict[str, int] = {}
        self._changes: dict[tuple[int, int], tuple[list[tuple[str, str]], OutboundRules, OutboundRules]] = {}
        self._aims = _aims(old.applied)

    def take(self, seen: Seen) -> None:
        """One call: what its caller and its instance would do otherwise."""
        call = seen.call
        if call.mirror:
            self._mirrors += 1
            return
        if call.attempt > 1:
            self._retries += 1
            return
        self._calls += 1
        if call.route == _PLAIN:
            self._plain += 1
        elif call.endpoint != _OTHER:
            self._sent(seen)
        if call.endpoint != _OTHER:
            self._admitted(seen)

    # -- the caller's side --------------------------------------------------------------------------

    def _sent(self, seen: Seen) -> None:
        call = seen.call
        for source in self._aims.get(call.service, ()):
            self._led[source] = self._led.get(source, 0) + 1
        untold = self._old.untold(seen) or self._new.untold(seen)
        if untold:
            if not self._old.says_as(self._new, call):
                self._doubt(
                    seen.number, call, f"the header {untold} decides, and the recording does not tell it"
                )
            return
        before, after = self._old.ways(seen), self._new.ways(seen)
        self._routed(seen, before, after)
        self._aborted(seen, before, after)
        self._delayed(seen, before, after)
        self._mirrored(seen, before, after)
        self._timed(seen, before, after)
        self._set_otherwise(seen, before, after)

    def _routed(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        one, other = targets(before), targets(after)
        less = {name: share - other.get(name, (0.0, ""))[0] for name, (share, _) in one.items()}
        more = {name: share - one.get(name, (0.0, ""))[0] for name, (share, _) in other.items()}
        less = {name: share for name, share in less.items() if share > 0.0}
        more = {name: share for name, share in more.items() if share > 0.0}
        moved = sum(more.values())
        for source, lost in less.items():
            for target, won in more.items():
                policies = distinct(one[source][1], other[target][1])
                self._tally.add(
                    seen.number, seen.call, "route", source, target, policies, amount=lost * won / moved
                )

    def _aborted(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        one, other = aborts(before), aborts(after)
        for status in sorted(one.keys() | other.keys()):
            was, would = one.get(status, 0.0), other.get(status, 0.0)
            self._tally.add(
                seen.number, seen.call, "abort", said_share(was, status), said_share(would, status),
                distinct(fault_rule(before), fault_rule(after)), amount=abs(would - was),
            )  # fmt: skip

    def _delayed(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        one, other = delays(before), delays(after)
        if not one and not other:
            return
        changed = sum(abs(one.get(each, 0.0) - other.get(each, 0.0)) for each in one.keys() | other.keys())
        policies = distinct(fault_rule(before), fault_rule(after))
        self._tally.add(
            seen.number, seen.call, "delay", said_delays(one), said_delays(other), policies,
            amount=min(1.0, changed),
        )  # fmt: skip

    def _mirrored(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        one, other = copies(before), copies(after)
        for target in sorted(one.keys() | other.keys()):
            was, would = one.get(target, 0.0), other.get(target, 0.0)
            self._tally.add(
                seen.number, seen.call, "mirror", said_share(was, f"copied to {target}"),
                said_share(would, f"copied to {target}"), amount=abs(would - was),
            )  # fmt: skip

    def _timed(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        duration_s = seen.call.duration_s
        if seen.call.refused:
            return  # it took no time
        was, would = late(before, duration_s), late(after, duration_s)
        lost, loses = cut(before, duration_s), cut(after, duration_s)
        if was == would and lost == loses:
            return
        one, other = largest(before), largest(after)
        policies = distinct(by(one, "timeout"), by(other, "timeout"))
        self._tally.add(
            seen.number, seen.call, "timeout", said_time(one.rules.timeout_s), said_time(other.rules.timeout_s),
            policies, amount=abs(would - was),
        )  # fmt: skip
        policies = distinct(by(one, "retry.perTryTimeout"), by(other, "retry.perTryTimeout"))
        self._tally.add(
            seen.number, seen.call, "attempt-timeout", said_time(one.rules.retry.per_try_timeout_s),
            said_time(other.rules.retry.per_try_timeout_s), policies, amount=abs(loses - lost),
        )  # fmt: skip

    def _set_otherwise(self, seen: Seen, before: Sequence[Way], after: Sequence[Way]) -> None:
        """Values that a call follows on the same way and that are not the same."""
        for one in before:
            for other in after:
                if one.target != other.target or one.rules is other.rules:
                    continue
                for was, would in self._changed(one.rules, other.rules):
                    self._tally.add(
                        seen.number, seen.call, "setting", was, would,
                        amount=min(one.share, other.share), target=one.target,
                    )  # fmt: skip

    def _changed(self, one: OutboundRules, other: OutboundRules) -> list[tuple[str, str]]:
        """The values that are not the same, each with its name: before, and after."""
        key = (id(one), id(other))
        found = self._changes.get(key)
        if found is None:
            values, others = flat(one), flat(other)
            pairs = [
                (name, values.get(name), others.get(name)) for name in sorted(values.keys() | others.keys())
            ]
            said = [
                (f"{name} {was or 'unset'}", f"{name} {would or 'unset'}")
                for name, was, would in pairs
                if was != would
            ]
            # With both, so that neither's identity goes to another while it is known here.
            found = (said, one, other)
            keep(self._changes, key, found)
        return found[0]

    # -- the instance's side ------------------------------------------------------------------------

    def _admitted(self, seen: Seen) -> None:
        if self._old.same_access(self._new, seen.call):
            return
        before, after = self._old.admitted(seen), self._new.admitted(seen)
        for each in (before, after):
            if isinstance(each, str):
                self._doubt(seen.number, seen.call, each)
                return
        assert isinstance(before, Decision), "there is no doubt"
        assert isinstance(after, Decision), "there is no doubt"
        if before.allowed != after.allowed:
            self._tally.add(seen.number, seen.call, "access", said_decision(before), said_decision(after))

    def limits(self, every: Sequence[RecordedCall]) -> None:
        """Which calls find no slot, by how they overlapped: mirrors and retries took slots as well."""
        groups: dict[tuple[str, str, str], list[tuple[int, RecordedCall]]] = {}
        for number, call in enumerate(every):
            if call.endpoint != _OTHER:
                key = (call.service, call.instance, call.endpoint)
                groups.setdefault(key, []).append((number, call))
        for calls in groups.values():
            first = calls[-1][1]
            (was, old_source), (would, new_source) = self._old.slots(first), self._new.slots(first)
            if was == would:
                continue
            slots = spans_of(calls)
            before = set() if was is None else full(slots, was, self._sample)
            after = set() if would is None else full(slots, would, self._sample)
            if before is None or after is None:
                share = SHARE.write(self._sample)
                why = f"its limit changes, and a sample of {share} is too small to say what that does"
                for number, call in calls:
                    self._doubt(number, call, why)
                continue
            sources = distinct(known(old_source), known(new_source))
            said, says = f"at most {said_limit(was)} at a time", f"at most {said_limit(would)} at a time"
            for number in sorted(after - before):
                self._tally.add(number, every[number], "limit", said, f"{says}: refused", sources)
            for number in sorted(before - after):
                self._tally.add(number, every[number], "limit", f"{said}: refused", says, sources)

    # -- the answer ---------------------------------------------------------------------------------

    def _doubt(self, number: int, call: RecordedCall, why: str) -> None:
        """Nobody can tell what becomes of a call."""
        self._unknown.add(number)
        self._tally.add(number, call, "unknown", why, "")

    def report(self) -> Replay:
        """What came of it."""
        affected = self._tally.affected
        notes = [
            f"{count} calls may have come there by {source}, and were looked at as if they had been made there"
            for source, count in sorted(self._led.items())
        ]
        return Replay(
            calls=self._calls,
            retries=self._retries,
            mirrors=self._mirrors,
            plain=self._plain,
            affected=round(affected, 6),
            affected_share=affected / self._calls if self._calls else 0.0,
            unknown=len(self._unknown),
            groups=self._tally.groups(self._calls),
            not_evaluated=_left_out(self._old.candidate, self._new.candidate),
            notes=tuple(notes),
        )


def _aims(policies: PolicySet) -> Mapping[str, tuple[str, ...]]:
    """The rules that lead calls to other services, by that service."""
    found: dict[str, list[str]] = {}
    for rule in policies.all_rules():
        for leg in rule.legs or ():
            if leg.service and leg.service != rule.scope[0]:
                found.setdefault(leg.service, []).append(policies.rule_source(rule))
    return {service: tuple(dict.fromkeys(sources)) for service, sources in found.items()}


def _left_out(old: Candidate, new: Candidate) -> tuple[NotEvaluated, ...]:
    """What differs and has no layer, but for what decides who may call."""
    namespace = new.applied.namespace
    changed = {change.policy for change in difference(old.policies, new.policies, namespace=namespace)}
    found: dict[tuple[str, str], NotEvaluated] = {}
    for policy in (*old.policies, *new.policies):
        if policy.name not in changed or policy.kind == "Access":
            continue
        for path, what in layerless(policy):
            where = policy.place_of(path)
            found[policy.name, path] = NotEvaluated(policy=policy.name, place=where, path=path, what=what)
    return tuple(found.values())
