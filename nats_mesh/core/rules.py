"""What a destination's resilience is told to do: frozen numbers with the mesh's defaults, checked where they are made.

A rule that cannot work is a :class:`ConfigError` that names the field as policies spell it, so that it is
refused where it is written and never met by a call. Durations are seconds, shares are between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from nats_mesh.errors import ConfigError

__all__ = [
    "BALANCERS",
    "BackoffRules",
    "BalancerName",
    "BalancerRules",
    "BreakerRules",
    "BreakerVerdictRules",
    "BudgetRules",
    "ConcurrencyRules",
    "EjectionRules",
    "HedgeRules",
    "RetryCondition",
    "RetryRules",
    "SubsetRules",
    "VerdictRules",
]

RetryCondition: TypeAlias = Literal[
    "refused", "unavailable", "attempt-timeout", "resource-exhausted", "internal"
]
"""``refused``: the handler surely did not run (no responders, draining, concurrency, rate). The others need an
idempotent endpoint: UNAVAILABLE, an attempt that ran out of time, RESOURCE_EXHAUSTED, INTERNAL or UNKNOWN."""

BalancerName: TypeAlias = Literal[
    "queue", "round_robin", "random", "least_request", "peak_ewma", "consistent_hash"
]
BALANCERS: tuple[BalancerName, ...] = (
    "queue", "round_robin", "random", "least_request", "peak_ewma", "consistent_hash",
)  # fmt: skip


#: More callers than this need never agree about an endpoint: their words have to be kept until they do.
MAX_CALLERS: Final = 1000


def _at_least(path: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{path}: must be at least {least:g}, got {value!r}")


def _above(path: str, value: float, floor: float) -> None:
    if not (math.isfinite(value) and value > floor):
        raise ConfigError(f"{path}: must be above {floor:g}, got {value!r}")


def _share(path: str, value: float, *, zero: bool = False) -> None:
    if not (0.0 <= value <= 1.0) or (value == 0.0 and not zero):
        raise ConfigError(f"{path}: must be {'from' if zero else 'above'} 0% to 100%, got {value!r}")


class BreakerVerdictRules(msgspec.Struct, frozen=True, kw_only=True):
    """``callers`` whose circuits for an endpoint opened within ``window_s`` open it for everybody who listens."""

    callers: int = 3
    window_s: float = 30.0

    def __post_init__(self) -> None:
        if not 2 <= self.callers <= MAX_CALLERS:
            raise ConfigError(
                f"breaker.verdicts.callers: must be from 2 to {MAX_CALLERS:,}, got {self.callers!r}"
            )
        _above("breaker.verdicts.window", self.window_s, 0.0)


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit opens, for how long, and what closes it again.

    It opens where at least ``min_calls`` of the last ``window_s`` seconds ended, and at least ``failure_ratio``
    of them failed (or, with ``slow_call_s``, at least ``slow_ratio`` took longer than that), or after
    ``consecutive`` failures in a row. It stays open for ``open_s``, for as long once more where its first probes
    fail, and twice as long each time after that, up to ``max_open_s``, each ± ``jitter``. Then ``permits`` calls
    may be under way at a time; ``successes`` of them in a row close it, one failure opens it again. With ``verdicts``
    it opens, too, where enough other callers' did.
    """

    failure_ratio: float = 0.5
    window_s: float = 10.0
    min_calls: int = 20
    consecutive: int | None = None
    slow_call_s: float | None = None
    slow_ratio: float = 1.0
    open_s: float = 5.0
    max_open_s: float = 60.0
    jitter: float = 0.2
    permits: int = 3
    successes: int = 3
    verdicts: BreakerVerdictRules | None = None

    def __post_init__(self) -> None:
        _share("breaker.failureRatio", self.failure_ratio)
        _above("breaker.window", self.window_s, 0.0)
        _at_least("breaker.minCalls", self.min_calls, 1)
        if self.consecutive is not None:
            _at_least("breaker.consecutive", self.consecutive, 1)
        if self.slow_call_s is not None:
            _above("breaker.slowCall", self.slow_call_s, 0.0)
        _share("breaker.slowRatio", self.slow_ratio)
        _above("breaker.open", self.open_s, 0.0)
        _at_least("breaker.maxOpen", self.max_open_s, self.open_s)
        _share("breaker.jitter", self.jitter, zero=True)
        _at_least("breaker.permits", self.permits, 1)
        _at_least("breaker.successes", self.successes, 1)


class BudgetRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many retries a destination service may get: ``ratio`` of its calls of the last ``window_s`` seconds,
    and ``floor_per_s`` a second on top."""

    ratio: float = 0.1
    floor_per_s: float = 5.0
    window_s: float = 10.0

    def __post_init__(self) -> None:
        _share("retry.budget.ratio", self.ratio, zero=True)
        _at_least("retry.budget.floor", self.floor_per_s, 0.0)
        _above("retry.budget.window", self.window_s, 0.0)


class BackoffRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before attempt n + 1: ``initial_s`` × ``multiplier`` ⁿ⁻¹ up to ``max_s``, ± ``jitter``."""

    initial_s: float = 0.025
    max_s: float = 0.25
    multiplier: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _at_least("retry.backoff.initial", self.initial_s, 0.0)
        _at_least("retry.backoff.max", self.max_s, self.initial_s)
        _at_least("retry.backoff.multiplier", self.multiplier, 1.0)
        _share("retry.backoff.jitter", self.jitter, zero=True)


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """``attempts`` in all (1: no retry), each bounded by ``per_try_timeout_s`` where that is set."""

    attempts: int = 2
    per_try_timeout_s: float | None = None
    retry_on: frozenset[RetryCondition] = frozenset({"refused", "unavailable", "attempt-timeout"})
    backoff: BackoffRules = BackoffRules()
    budget: BudgetRules = BudgetRules()

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 10:
            raise ConfigError(f"retry.attempts: must be from 1 to 10, got {self.attempts!r}")
        if self.per_try_timeout_s is not None:
            _above("retry.perTryTimeout", self.per_try_timeout_s, 0.0)


class HedgeRules(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a second instance where the first has not answered after ``delay_s``, or, without one, after the
    ``quantile`` of what answers take; at most ``max_ratio`` of the calls are hedged, ``max_extra`` times each."""

    delay_s: float | None = None
    quantile: float = 0.95
    min_delay_s: float = 0.001
    max_extra: int = 1
    max_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.delay_s is not None:
            _above("hedge.delay", self.delay_s, 0.0)
        if not 0.5 <= self.quantile < 1.0:
            raise ConfigError(f"hedge.quantile: must be from 50% to below 100%, got {self.quantile!r}")
        _at_least("hedge.minDelay", self.min_delay_s, 0.0)
        if not 1 <= self.max_extra <= 5:
            raise ConfigError(f"hedge.maxExtra: must be from 1 to 5, got {self.max_extra!r}")
        _share("hedge.maxRatio", self.max_ratio)


class VerdictRules(msgspec.Struct, frozen=True, kw_only=True):
    """Fleet-wide ejection: ``callers`` that call an instance bad within ``window_s`` eject it for everybody;
    with ``drain`` it leaves by itself, too."""

    callers: int = 3
    window_s: float = 30.0
    drain: bool = False

    def __post_init__(self) -> None:
        _at_least("ejection.verdicts.callers", self.callers, 2)
        _above("ejection.verdicts.window", self.window_s, 0.0)


class EjectionRules(msgspec.Struct, frozen=True, kw_only=True):
    """When an instance is taken out of balancing: ``consecutive`` failures, a success rate below
    ``success_ratio`` over ``window_s`` with at least ``min_calls``, or ``silent`` attempts without an answer while
    others answer. For ``base_s`` × times ejected, up to ``max_s``. At most ``max_ratio`` of the instances (one
    always may be); where less than ``panic_ratio`` are healthy, ejections are ignored."""

    consecutive: int = 5
    success_ratio: float = 0.8
    window_s: float = 10.0
    min_calls: int = 5
    silent: int = 3
    base_s: float = 10.0
    max_s: float = 300.0
    max_ratio: float = 0.5
    panic_ratio: float = 0.5
    verdicts: VerdictRules | None = None

    def __post_init__(self) -> None:
        _at_least("ejection.consecutive", self.consecutive, 1)
        _share("ejection.successRatio", self.success_ratio, zero=True)
        _above("ejection.window", self.window_s, 0.0)
        _at_least("ejection.minCalls", self.min_calls, 1)
        _at_least("ejection.silent", self.silent, 1)
        _above("ejection.base", self.base_s, 0.0)
        _at_least("ejection.max", self.max_s, self.base_s)
        _share("ejection.maxRatio", self.max_ratio, zero=True)
        _share("ejection.panicRatio", self.panic_ratio, zero=True)


class BalancerRules(msgspec.Struct, frozen=True, kw_only=True):
    """Who chooses the instance. ``queue`` leaves it to the server's queue group; every other one is
    instance-addressed. ``header`` is what ``consistent_hash`` hashes (empty: the caller), ``bound`` how much
    above the mean an instance may be loaded before the next on the ring is taken. ``slow_start_s`` is how long
    a new instance takes to get its whole share. With ``locality`` the own zone is preferred while at least
    ``locality_healthy`` of it is healthy."""

    name: BalancerName = "queue"
    header: str = ""
    bound: float = 1.25
    slow_start_s: float = 0.0
    locality: bool = False
    locality_healthy: float = 0.7
    ewma_decay_s: float = 10.0

    def __post_init__(self) -> None:
        if self.name not in BALANCERS:
            raise ConfigError(f"balancer.name: {self.name!r} is none; use one of {', '.join(BALANCERS)}")
        _at_least("balancer.bound", self.bound, 1.0)
        _at_least("balancer.slowStart", self.slow_start_s, 0.0)
        _share("balancer.localityHealthy", self.locality_healthy)
        _above("balancer.ewmaDecay", self.ewma_decay_s, 0.0)
        if self.header and self.name != "consistent_hash":
            raise ConfigError(f"balancer.header: only consistent_hash hashes one, not {self.name}")


class ConcurrencyRules(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``limit`` calls at a time in one instance; ``None``: as many as the endpoint declares.

    ``lowers``: it was said of more than this endpoint, so that it never allows more than the endpoint declares.
    ``leave_queue``: a full instance leaves its queue group while another has room, and comes back when it has
    (credit-based dispatch).
    """

    limit: int | None = None
    leave_queue: bool = False
    lowers: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None:
            _at_least("concurrency.limit", self.limit, 1)

    def of(self, declared: int) -> int:
        """The limit of an endpoint that declares ``declared`` itself."""
        if self.limit is None or (self.lowers and declared < self.limit):
            return declared
        return self.limit


class SubsetRules(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a service's instances: those of exactly this ``version``, where it is not empty, with all ``labels``."""

    name: str
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.version and not self.labels:
            raise ConfigError("selects nothing in particular: give it a version or labels")

    def selects(self, version: str, labels: Mapping[str, str]) -> bool:
        """Whether an instance is one of them."""
        if self.version and version != self.version:
            return False
        return all(labels.get(name) == value for name, value in self.labels)
