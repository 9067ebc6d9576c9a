"""Tests of policies: what policies make of calls that nobody makes, held against what shall come of them.

Shares are worked out and not sampled, so that a test holds or fails, and never does so by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec
from msgspec import UNSET

from nats_mesh.core.shares import share_text
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.trials.effective import found_at, is_inbound, source_of, written
from nats_mesh.policy.trials.expectation_parts import Case, Decided, Destined, Expect, Mirrored
from nats_mesh.policy.trials.expectations import Trial, line_of
from nats_mesh.policy.trials.judging_text import (
    as_decided,
    decided_text,
    decider,
    destined_text,
    fault_text,
    fits,
    goes,
    is_subset,
    place_text,
    share_of,
    value_text,
    verdict_word,
    verdicts,
    way_text,
)
from nats_mesh.policy.trials.predict import Oracle, TrialCall, Way

__all__ = ["Failure", "Result", "run"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation that does not hold: the field, its line, and which policies and rules (with their places) make it
    so."""

    field: str
    line: int
    expected: str
    found: str
    by: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case; it is good where nothing failed."""

    test: str
    case: str
    file: str
    line: int
    failures: tuple[Failure, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything holds."""
        return not self.failures


def run(trial: Trial, oracle: Oracle) -> list[Result]:
    """Hold every case against the policies; a :class:`PolicyError` where a call has too many ways to work out."""
    return [
        _Judging(trial, index, case, oracle).result() for index, case in enumerate(trial.document.spec.cases)
    ]


class _Judging:
    """One case."""

    def __init__(self, trial: Trial, index: int, case: Case, oracle: Oracle) -> None:
        self._trial = trial
        self._path = f"spec.cases[{index}]"
        self._case = case
        service, _, endpoint = case.call.to.partition(".")
        call = TrialCall(
            service=service,
            endpoint=endpoint,
            caller=case.call.from_ or "anonymous",
            headers=cast("dict[str, list[str]]", case.call.headers or {}),
            claims=None if case.call.claims is UNSET else cast("dict[str, Any]", case.call.claims),
        )
        self._ways = oracle.ways(call)
        self._failures: list[Failure] = []

    def result(self) -> Result:
        expect = self._case.expect
        self._access(expect)
        if expect.route is not UNSET:
            self._route(expect.route)
        if expect.mirror is not UNSET:
            self._mirror([] if expect.mirror == "off" else expect.mirror)
        if expect.fault is not UNSET:
            self._fault(expect)
        self._values(expect)
        line = line_of(self._trial, self._path)
        return Result(
            test=self._trial.name,
            case=self._case.name,
            file=self._trial.file,
            line=line,
            failures=tuple(self._failures),
        )

    def _fail(self, field: str, expected: str, found: str, by: Iterable[str]) -> None:
        self._failures.append(
            Failure(
                field=field,
                line=line_of(self._trial, f"{self._path}.expect.{field}"),
                expected=expected,
                found=found,
                by=tuple(dict.fromkeys(each for each in by if each)),
            )
        )

    # -- whether it is let in -----------------------------------------------------------------------

    def _access(self, expect: Expect) -> None:
        wanted: tuple[str, bool, Decided] | None = None
        if expect.access is not UNSET:
            wanted = ("access", expect.access == "allowed", Decided())
        elif expect.allowed is not UNSET:
            wanted = ("allowed", True, expect.allowed)
        elif expect.denied is not UNSET:
            wanted = ("denied", False, expect.denied)
        if wanted is not None:
            field, allowed, decided = wanted
            wrong = [way for way in self._ways if not as_decided(way, allowed, decided)]
            if wrong:
                self._fail(field, decided_text(allowed, decided), verdicts(self._ways), map(decider, wrong))
        if expect.dry_run is not UNSET:
            found = {way.access.dry_run for way in self._ways}
            if found != {expect.dry_run == "allowed"}:
                text = "no dry run is about it" if None in found else verdict_word(True in found)
                self._fail("dryRun", expect.dry_run, text, map(decider, self._ways))

    # -- where it goes ------------------------------------------------------------------------------

    def _route(self, expected: list[Destined]) -> None:
        for index, each in enumerate(expected):
            wanted = share_of(each)
            found = sum(way.share for way in self._ways if goes(way, each))
            if not wanted.holds(found):
                field = f"route[{index}]" if len(expected) > 1 else "route"
                self._fail(
                    field,
                    f"{destined_text(each)}: {wanted}",
                    self._spread(way_text),
                    [rule for way in self._ways for rule in way.rules],
                )

    def _mirror(self, expected: list[Mirrored]) -> None:
        found = {
            (each.service, each.subset): sum(
                way.share * mirror.share
                for way in self._ways
                for mirror in way.mirrors
                if (mirror.service, mirror.subset) == (each.service, each.subset)
            )
            for way in self._ways
            for each in way.mirrors
        }
        text = (
            ", ".join(f"{place_text(*key)}: {share_text(share, 6)}" for key, share in found.items())
            or "nobody"
        )
        rules = [rule for way in self._ways if way.mirrors or expected for rule in way.rules]
        if not expected and any(found.values()):
            self._fail("mirror", "nobody", text, rules)
        for index, each in enumerate(expected):
            wanted = share_of(each)
            share = sum(
                share
                for (service, subset), share in found.items()
                if fits(each.service, service) and is_subset(each.subset, subset)
            )
            if not wanted.holds(share):
                field = f"mirror[{index}]" if len(expected) > 1 else "mirror"
                name = place_text(each.service or "any service", "" if each.subset is UNSET else each.subset)
                self._fail(field, f"{name}: {wanted}", text, rules)

    def _fault(self, expect: Expect) -> None:
        def delayed(way: Way) -> tuple[float, float]:
            fault = way.fault
            return (0.0, 0.0) if fault is None or not fault.delay_s else (fault.delay_s, fault.delay_share)

        def aborted(way: Way) -> tuple[str, float]:
            fault = way.fault
            return (
                ("", 0.0) if fault is None or fault.abort is None else (str(fault.abort), fault.abort_share)
            )

        fault = expect.fault
        rules = [rule for way in self._ways for rule in way.rules]
        if fault == "off" or fault is UNSET:
            if any(delayed(way)[1] or aborted(way)[1] for way in self._ways):
                self._fail("fault", "nothing", self._spread(fault_text), rules)
            return
        if fault.delay is not UNSET:
            share = sum(
                way.share * delayed(way)[1] for way in self._ways if delayed(way)[0] == fault.delay.duration
            )
            wanted = 1.0 if fault.delay.share is UNSET else fault.delay.share
            if abs(share - wanted) > 1e-9:
                text = f"{DURATION.write(fault.delay.duration)} for {share_text(wanted, 6)}"
                self._fail("fault.delay", text, self._spread(fault_text), rules)
        if fault.abort is not UNSET:
            share = sum(
                way.share * aborted(way)[1] for way in self._ways if aborted(way)[0] == fault.abort.status
            )
            wanted = 1.0 if fault.abort.share is UNSET else fault.abort.share
            if abs(share - wanted) > 1e-9:
                text = f"{fault.abort.status} for {share_text(wanted, 6)}"
                self._fail("fault.abort", text, self._spread(fault_text), rules)

    # -- what it gets -------------------------------------------------------------------------------

    def _values(self, expect: Expect) -> None:
        retry = [way.outbound.retry for way in self._ways]
        values: list[tuple[str, object, list[object], str]] = [
            ("timeout", expect.timeout, [way.outbound.timeout_s for way in self._ways], "timeout"),
            ("attempts", expect.attempts, [each.attempts for each in retry], "retry.attempts"),
            (
                "perTryTimeout",
                expect.per_try_timeout,
                [each.per_try_timeout_s for each in retry],
                "retry.perTryTimeout",
            ),
            ("idempotent", expect.idempotent, [way.outbound.idempotent for way in self._ways], "idempotent"),
            (
                "balancer",
                expect.balancer,
                [way.outbound.balancer.name for way in self._ways],
                "balancer.name",
            ),
            ("hedge", expect.hedge, [way.outbound.hedge is not None for way in self._ways], "hedge"),
            ("breaker", expect.breaker, [way.outbound.breaker is not None for way in self._ways], "breaker"),
        ]
        for field, wanted, found, path in values:
            if wanted is not UNSET:
                self._value(field, None if wanted == "off" else wanted, found, path, lambda way: way.sources)
        if expect.retry_on is not UNSET:
            conditions: list[object] = [", ".join(sorted(each.retry_on)) for each in retry]
            self._value(
                "retryOn",
                ", ".join(sorted(expect.retry_on)),
                conditions,
                "retry.retryOn",
                lambda way: way.sources,
            )
        if expect.limit is not UNSET:
            limits = [way.inbound.concurrency for way in self._ways]
            wanted_limit = None if expect.limit == "off" else expect.limit
            self._value(
                "limit",
                wanted_limit,
                [None if each is None else each.limit for each in limits],
                "concurrency.limit",
                lambda way: way.inbound_sources,
            )

        for path, said in cast("dict[str, Any]", expect.values or {}).items():
            self._said(path, said)

    def _said(self, path: str, wanted: Any) -> None:
        """Any value, by its path."""
        found = {id(way): found_at(path, way.outbound, way.inbound) for way in self._ways}
        wrong = [way for way in self._ways if found[id(way)] != wanted]
        if wrong:
            sources = [way.inbound_sources if is_inbound(path) else way.sources for way in wrong]
            self._fail(
                f"values.{path}",
                written(path, wanted),
                self._spread(lambda way: written(path, found[id(way)])),
                [source_of(path, each) for each in sources],
            )

    def _value(
        self,
        field: str,
        wanted: object,
        found: list[object],
        path: str,
        sources: Callable[[Way], Mapping[str, str]],
    ) -> None:
        wrong = [way for way, value in zip(self._ways, found, strict=True) if value != wanted]
        if wrong:
            shown = {id(way): value for way, value in zip(self._ways, found, strict=True)}
            self._fail(
                field,
                value_text(field, wanted),
                self._spread(lambda way: value_text(field, shown[id(way)])),
                [sources(way).get(path, "") for way in wrong],
            )

    def _spread(self, text: Callable[[Way], str]) -> str:
        """What is found, each with its share where there are several."""
        shares: dict[str, float] = {}
        for way in self._ways:
            shares[text(way)] = shares.get(text(way), 0.0) + way.share
        if len(shares) == 1:
            return next(iter(shares))
        return ", ".join(f"{each}: {share_text(share, 6)}" for each, share in shares.items())
