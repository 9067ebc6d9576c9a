"""A call that nobody makes, explained: which rules it would meet, where it would go, what it would get there.

Every decision is taken by what takes it for calls: rules by :mod:`nats_mesh.core.router`, targets by
:mod:`nats_mesh.calling.outbound`, attempts and their times by :mod:`nats_mesh.layers.retry`, instances by
:mod:`nats_mesh.layers.balance`. What depends on chance comes as a share, and what depends on the moment (a breaker, an
ejection, a budget that was spent) is not known here: it is each caller's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.routing import Routing
from nats_mesh.core.conditions import ExaminedRule, examined
from nats_mesh.core.likely import outcomes
from nats_mesh.core.router import Leg, Path, Rule, key_of
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.foreseeing import Ending, Retry, Silence, attempts_of, endings_of, retries_of
from nats_mesh.explaining.hypothetical import Hypothetical, selected, zones_of
from nats_mesh.model import NO_HEADERS, Headers, Request
from nats_mesh.policy import PolicySet

__all__ = ["AskedRoute", "Copy", "Explanation", "Question", "Way", "explain_call", "unanswered"]

#: An idempotency key that a call might have.
_SOME_KEY = "key"
_NO_WORD: Mapping[str, Silence] = {}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The call: who calls what, with which headers, and what its own arguments say. ``keyed``: it has an idempotency
    key. Of a ``timeout_s`` or ``idempotent`` of ``None`` others decide."""

    service: str
    endpoint: str
    caller: str
    headers: Headers = NO_HEADERS
    timeout_s: float | None = None
    idempotent: bool | None = None
    keyed: bool = False


class AskedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route that is about the call: where it stands, and each of its rules with why the call meets it or not."""

    source: str
    rules: tuple[ExaminedRule, ...]


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that ``share`` of the calls are sent as, too; ``instances`` would take it (``None``: nobody knows)."""

    target: Target
    share: float
    instances: tuple[InfoReply, ...] | None


class Way(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What ``share`` of such calls meet: they have met the rules of ``path``, and go to ``leg`` because of ``why``.

    ``target`` has the layers of these calls. ``attempt_s`` are the times of their attempts, seconds, where each uses
    up its own. ``instances`` take such calls (``None``: nobody knows), those outside the mesh where ``foreign`` is
    their subject; ``chosen`` of them are what a balancer chooses among, ``only`` is the one it takes for these headers.
    """

    share: float
    path: Path
    leg: Leg
    why: str
    by: Rule | None
    target: Target
    request: Request
    timeout_s: float
    attempt_s: tuple[float, ...]
    retries: tuple[Retry, ...]
    copies: tuple[Copy, ...]
    instances: tuple[InfoReply, ...] | None
    all_instances: tuple[InfoReply, ...]
    foreign: str
    chosen: tuple[str, ...]
    only: str
    endings: tuple[Ending, ...]
    silence: Silence = Silence.UNKNOWN

    @property
    def fails(self) -> float:
        """How many of its calls fail, as far as can be seen."""
        return sum([each.share for each in self.endings])

    @property
    def undeclared(self) -> bool:
        """Whether nobody is there to say what the endpoint declares: its timeout, and whether it may be repeated."""
        return self.instances == () and not self.all_instances and not self.foreign

    @property
    def most_attempts(self) -> int:
        """How many attempts one of its calls may have."""
        retries = self.target.retries
        again = retries is not None and any(each.again for each in self.retries)
        return retries.rules.attempts if retries is not None and again else 1


class Explanation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything about a call. The shares of ``ways`` come to 1. ``zones`` are those that the caller's own instances
    are in."""

    question: Question
    routes: tuple[AskedRoute, ...]
    ways: tuple[Way, ...]
    zones: tuple[str, ...]

    @property
    def fails(self) -> float:
        """How many of such calls fail, as far as can be seen."""
        return sum([way.share * way.fails for way in self.ways])


def explain_call(
    question: Question,
    policies: PolicySet,
    infos: Sequence[InfoReply] | None = None,
    silence: Mapping[str, Silence] = _NO_WORD,
) -> Explanation:
    """What becomes of the call under ``policies``. ``infos`` are the answers of all who are there, of any namespace;
    ``None`` where nobody could be asked. ``silence`` says of services of which nobody answered what that means
    (:func:`unanswered` has those that matter). :class:`~nats_mesh.errors.ConfigError` for names that cannot be."""
    zones = zones_of(Hypothetical(question.caller, policies, infos).instances(question.caller))
    caller = Hypothetical(question.caller, policies, infos, zone=zones[0] if len(zones) == 1 else "")
    values = question.headers.get_all
    target = caller.target(question.service, question.endpoint)
    ways: list[Way] = []
    if isinstance(target.routing, Routing):
        for each in outcomes(target.routing.rules, values, question.caller, question.service):
            made = caller.settle(target.routing.target_of(each.path, each.leg))
            ways.append(_way(question, caller, infos, silence, made, each.share, each.path, each.leg))
    else:
        nothing = Path(rules=(), legs=(), mirrors=(), fault=None, sticky=None)
        ways.append(_way(question, caller, infos, silence, target, 1.0, nothing, Leg()))
    asked = [
        AskedRoute(
            source=source, rules=examined(rules, values, question.caller, question.endpoint, question.service)
        )
        for source, rules in policies.routes(question.service, question.endpoint)
    ]
    ways.sort(key=lambda way: -way.share)
    return Explanation(question=question, routes=tuple(asked), ways=tuple(ways), zones=zones)


def unanswered(explained: Explanation) -> list[str]:
    """The services that such calls go to and of which no instance answered; none where nobody was asked."""
    return list(dict.fromkeys(way.target.service for way in explained.ways if way.undeclared))


def _way(
    question: Question,
    caller: Hypothetical,
    infos: Sequence[InfoReply] | None,
    silence: Mapping[str, Silence],
    target: Target,
    share: float,
    path: Path,
    leg: Leg,
) -> Way:
    request: Request = target.usual.__copy__()  # type: ignore[attr-defined]  # every Struct has one, in C
    request.headers = question.headers
    timeout_s = target.timeout_s if question.timeout_s is None else question.timeout_s
    request.deadline = timeout_s
    if question.idempotent is not None:
        request.idempotent = question.idempotent
    if question.keyed:
        request.idempotency_key = _SOME_KEY
    everybody = caller.instances(target.service)
    instances = None if infos is None else selected(everybody, caller.subset(target.service, target.subset))
    foreign = _foreign(caller, target) if infos is not None and not everybody else ""
    by, why = _why(path, leg, question)
    silent = Silence.UNKNOWN if everybody else silence.get(target.service, Silence.UNKNOWN)
    chosen, only = _chosen(target, request)
    return Way(
        share=share,
        path=path,
        leg=leg,
        why=why,
        by=by,
        target=target,
        request=request,
        timeout_s=timeout_s,
        attempt_s=attempts_of(target, request),
        retries=retries_of(target, request),
        copies=_copies(caller, infos, target),
        instances=instances,
        all_instances=everybody,
        foreign=foreign,
        chosen=chosen,
        only=only,
        endings=endings_of(target, timeout_s, instances, foreign, silent),
        silence=silent,
    )


def _why(path: Path, leg: Leg, question: Question) -> tuple[Rule | None, str]:
    """Whose legs they are, and why it is this one."""
    by = next((rule for rule in reversed(path.rules) if rule.legs is not None), None)
    if by is None:
        return None, "as it was called"
    if len(path.legs) == 1:
        return by, "the only destination"
    key = key_of(path.sticky, question.headers.get_all, question.caller)
    if key is not None and path.sticky is not None:
        what = f"header {path.sticky.header} = {key!r}" if path.sticky.header else f"caller {key}"
        return by, f"{what} always goes there"
    return by, f"weight {leg.weight} of {sum([each.weight for each in path.legs])}"


def _foreign(caller: Hypothetical, target: Target) -> str:
    """Where a service outside any mesh takes such calls; empty where none does."""
    facts = caller.facts(target.service)
    if facts is None or facts.namespaces or target.subset:
        return ""
    return facts.foreign_subject(target.endpoint) or ""


def _chosen(target: Target, request: Request) -> tuple[tuple[str, ...], str]:
    """Among whom the balancer chooses, and whom it takes where that is settled by the call itself."""
    if target.balance is None:
        return (), ""
    chosen = tuple([each.id for each in target.balance.group.candidates(0.0)])
    if target.balance.key_of(request) is None:
        return chosen, ""
    way = target.balance.pick(0.0, request, ())
    return chosen, "" if way is None else way.member.id


def _copies(caller: Hypothetical, infos: Sequence[InfoReply] | None, target: Target) -> tuple[Copy, ...]:
    found: list[Copy] = []
    for mirror, share in () if target.effects is None else target.effects.mirrors:
        everybody = caller.instances(mirror.service)
        takes = None if infos is None else selected(everybody, caller.subset(mirror.service, mirror.subset))
        found.append(Copy(target=mirror, share=min(1.0, share), instances=takes))
    return tuple(found)
