"""From the rules of a `Route` to those of the core: what a caller asks of each call."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from nats_mesh.core import router
from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.rules import SubsetRules
from nats_mesh.errors import Status
from nats_mesh.policy import routing_parts as parts
from nats_mesh.policy.schema import DestinationSpec, RouteSpec, Rule

__all__ = ["header_test", "rules_of", "subsets_of"]


def rules_of(spec: RouteSpec, scope: tuple[str, str]) -> tuple[router.Rule, ...]:
    """The rules of a route about ``scope`` in their order, without the values that are laid over a `Destination`."""
    return tuple([_rule(rule, scope, index) for index, rule in enumerate(spec.rules)])


def _rule(rule: Rule, scope: tuple[str, str], index: int) -> router.Rule:
    legs: tuple[router.Leg, ...] | None = None
    if rule.split is not UNSET:
        legs = tuple(
            [
                router.Leg(
                    service=each.service or "",
                    subset=each.subset or "",
                    weight=1 if each.weight is UNSET else each.weight,
                )
                for each in rule.split
            ]
        )
    elif rule.redirect is not UNSET:
        legs = (router.Leg(service=rule.redirect.service or "", endpoint=rule.redirect.endpoint or ""),)
    mirrors: tuple[router.Mirror, ...] | None = None
    if rule.mirror is not UNSET:
        mirrors = tuple(
            [
                router.Mirror(
                    service=each.service or "",
                    subset=each.subset or "",
                    share=1.0 if each.share is UNSET else each.share,
                )
                for each in rule.mirror
            ]
        )
    return router.Rule(
        scope=scope,
        index=index,
        matches=() if rule.match is UNSET else tuple([_match(each) for each in rule.match]),
        legs=legs,
        mirrors=mirrors,
        fault=None if rule.fault is UNSET else _fault(rule.fault),
        sticky=None if rule.sticky is UNSET else router.Sticky(header=rule.sticky.header or ""),
    )


def _match(match: parts.Match) -> router.Match:
    headers: Mapping[str, parts.HeaderMatch] = {} if match.headers is UNSET else match.headers
    return router.Match(
        callers=() if match.callers is UNSET else tuple(match.callers),
        endpoints=() if match.endpoints is UNSET else tuple(match.endpoints),
        headers=tuple([header_test(name, each) for name, each in headers.items()]),
        share=None if match.share is UNSET or match.share >= 1.0 else match.share,
    )


def header_test(name: str, said: parts.HeaderMatch) -> HeaderTest:
    """A condition on a header, or on whatever else has a name and values."""
    present: bool | None = None
    if said.present is not UNSET:
        present = said.present
    elif said.absent is not UNSET:
        present = not said.absent
    bounds = parts.Range() if said.range is UNSET else said.range
    return HeaderTest(
        name=name,
        exact=None if said.exact is UNSET else said.exact,
        prefix=None if said.prefix is UNSET else said.prefix,
        suffix=None if said.suffix is UNSET else said.suffix,
        regex=None if said.regex is UNSET else said.regex,
        present=present,
        start=None if bounds.start is UNSET else bounds.start,
        end=None if bounds.end is UNSET else bounds.end,
        invert=said.invert is True,
    )


def _fault(fault: parts.Fault) -> router.Fault:
    delay, abort = fault.delay, fault.abort
    return router.Fault(
        delay_s=0.0 if delay is UNSET else delay.duration,
        delay_share=1.0 if delay is UNSET or delay.share is UNSET else delay.share,
        abort=None if abort is UNSET else Status(abort.status),
        abort_share=1.0 if abort is UNSET or abort.share is UNSET else abort.share,
    )


def subsets_of(spec: DestinationSpec) -> dict[str, SubsetRules]:
    """The subsets that a `Destination` names."""
    found: dict[str, SubsetRules] = {}
    for name, said in {} if spec.subsets is UNSET else spec.subsets.items():
        found[name] = SubsetRules(
            name=name,
            version="" if said.version is UNSET else said.version,
            labels=() if said.labels is UNSET else tuple(sorted(said.labels.items())),
        )
    return found
