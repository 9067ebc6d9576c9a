"""What policies are made of: the mappings that stand inside their specs, field by field.

Values are kept as the mesh counts (seconds, shares from 0 to 1), what nobody wrote is UNSET, so that policies can be
laid over each other field by field. Ranges and defaults stand in :mod:`nats_mesh.core.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.rules import BalancerName, RetryCondition
from nats_mesh.policy import kinds
from nats_mesh.policy.kinds import about

__all__ = [
    "Backoff",
    "Balancer",
    "Breaker",
    "BreakerVerdicts",
    "Budget",
    "Ejection",
    "Hedge",
    "Metadata",
    "Off",
    "Part",
    "Retry",
    "Subset",
    "Target",
    "Verdicts",
]

Off: TypeAlias = Literal["off"]


class Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A mapping in a policy. ``later`` names the fields of the contract that nothing applies yet, and what they do;
    such a field may stand in the schema all the same, to be checked and translated. ``short`` is the field that a bare
    value in the mapping's place stands for; ``alone``: a list of these may be written as the one that is in it."""

    later: ClassVar[Mapping[str, str]] = {}
    short: ClassVar[str] = ""
    alone: ClassVar[bool] = False


class Metadata(Part, frozen=True, kw_only=True):
    """What a policy is called."""

    name: Annotated[str, about("The policy's name, once per kind.", kinds.NAME, required=True)]
    namespace: Annotated[
        str | UnsetType,
        about("The namespace it holds in.", kinds.NAME, default="the one of whoever reads it"),
    ] = UNSET
    labels: Annotated[
        dict[str, str] | UnsetType, about("Free words to select policies by.", kinds.TEXT, default="none")
    ] = UNSET


class Target(Part, frozen=True, kw_only=True):
    """What a policy is about. Without a target it is the whole namespace."""

    service: Annotated[
        str | UnsetType, about("The service that is called.", kinds.NAME, default="every service")
    ] = UNSET
    endpoints: Annotated[
        list[str] | UnsetType,
        about("These endpoints of the service alone.", kinds.NAMES, default="every endpoint"),
    ] = UNSET
    subset: Annotated[
        str | UnsetType,
        about(
            "Calls that a `Route` sends to this subset of the service alone; in a `Destination`.",
            kinds.NAME,
            default="whatever the subset",
        ),
    ] = UNSET


class Backoff(Part, frozen=True, kw_only=True):
    """How long to wait before another attempt; `Mesh-Retry-After-Ms` of an answer wins."""

    initial: Annotated[float | UnsetType, about("Before the second attempt.", kinds.DURATION)] = UNSET
    max: Annotated[float | UnsetType, about("At most this long; `initial` or more.", kinds.DURATION)] = UNSET
    multiplier: Annotated[
        float | UnsetType, about("So many times longer each time; 1 or more.", kinds.NUMBER)
    ] = UNSET
    jitter: Annotated[float | UnsetType, about("Each wait is up to so much off.", kinds.SHARE)] = UNSET


class Budget(Part, frozen=True, kw_only=True):
    """How many retries the calls of a service may cause altogether, so that retries never make an outage worse."""

    ratio: Annotated[float | UnsetType, about("Of the calls of the window.", kinds.SHARE)] = UNSET
    floor: Annotated[float | UnsetType, about("Allowed on top, also with few calls.", kinds.RATE)] = UNSET
    window: Annotated[float | UnsetType, about("How long calls count.", kinds.DURATION)] = UNSET


class Retry(Part, frozen=True, kw_only=True):
    """When a call is tried again."""

    attempts: Annotated[int | UnsetType, about("Attempts in all, from 1 (no retry) to 10.", kinds.COUNT)] = (
        UNSET
    )
    per_try_timeout: Annotated[
        float | Off | UnsetType,
        about(
            "How long one attempt may take.",
            kinds.DURATION,
            off=True,
            default="half of the time left, where another attempt may follow",
        ),
    ] = UNSET
    retry_on: Annotated[
        list[RetryCondition] | UnsetType,
        about(
            "What is worth another attempt. `refused`: the handler did not run. The others are for idempotent "
            "endpoints: `unavailable`, `attempt-timeout`, `resource-exhausted`, `internal` (UNKNOWN, too).",
            kinds.CONDITION,
        ),
    ] = UNSET
    backoff: Annotated[Backoff | UnsetType, about("How long to wait between attempts.")] = UNSET
    budget: Annotated[Budget | UnsetType, about("How many retries there may be altogether.")] = UNSET


class Hedge(Part, frozen=True, kw_only=True):
    """Asking a second instance where the first takes long; the loser is cancelled. For idempotent endpoints. Where a
    balancer chooses, nobody is asked twice; the queue group deals each request out anew, to whomever."""

    delay: Annotated[
        float | Off | UnsetType,
        about("Ask again after this.", kinds.DURATION, off=True, default="the quantile of what answers take"),
    ] = UNSET
    quantile: Annotated[
        float | UnsetType,
        about(
            "Without `delay`: ask again where an answer takes longer than so many do; 50% or more.",
            kinds.SHARE,
        ),
    ] = UNSET
    min_delay: Annotated[float | UnsetType, about("Never ask again sooner.", kinds.DURATION)] = UNSET
    max_extra: Annotated[int | UnsetType, about("Further instances per call, from 1 to 5.", kinds.COUNT)] = (
        UNSET
    )
    max_ratio: Annotated[float | UnsetType, about("Hedged calls, of all calls.", kinds.SHARE)] = UNSET


class BreakerVerdicts(Part, frozen=True, kw_only=True):
    """Callers tell each other which endpoints' circuits they had to open."""

    callers: Annotated[
        int | UnsetType, about("So many callers open it for all, from 2 to 1,000.", kinds.COUNT)
    ] = UNSET
    window: Annotated[
        float | UnsetType,
        about(
            "How long a verdict counts, and how long whoever found the endpoint well again heeds none.",
            kinds.DURATION,
        ),
    ] = UNSET


class Breaker(Part, frozen=True, kw_only=True):
    """When calls to an endpoint are refused at once, because it fails. Errors below 500 are no failures."""

    failure_ratio: Annotated[
        float | UnsetType, about("It opens where so many of the window's calls failed.", kinds.SHARE)
    ] = UNSET
    window: Annotated[float | UnsetType, about("How long calls count.", kinds.DURATION)] = UNSET
    min_calls: Annotated[int | UnsetType, about("Not with fewer calls in the window.", kinds.COUNT)] = UNSET
    consecutive: Annotated[
        int | Off | UnsetType,
        about("It opens after so many failures in a row, too.", kinds.COUNT, off=True, default="off"),
    ] = UNSET
    slow_call: Annotated[
        float | Off | UnsetType,
        about("A call that takes longer is slow.", kinds.DURATION, off=True, default="off"),
    ] = UNSET
    slow_ratio: Annotated[
        float | UnsetType, about("It opens where so many of the window's calls were slow, too.", kinds.SHARE)
    ] = UNSET
    open: Annotated[float | UnsetType, about("How long it stays open the first time.", kinds.DURATION)] = (
        UNSET
    )
    max_open: Annotated[
        float | UnsetType,
        about(
            "Twice as long from the third time on, up to this; `open` or more (see `jitter`).",
            kinds.DURATION,
        ),
    ] = UNSET
    jitter: Annotated[float | UnsetType, about("Each of these is up to so much off.", kinds.SHARE)] = UNSET
    permits: Annotated[int | UnsetType, about("Calls at a time that try it out afterwards.", kinds.COUNT)] = (
        UNSET
    )
    successes: Annotated[int | UnsetType, about("It closes after so many of them in a row.", kinds.COUNT)] = (
        UNSET
    )
    verdicts: Annotated[
        BreakerVerdicts | Off | UnsetType,
        about("Opening it for every caller that listens.", off=True, default="off"),
    ] = UNSET


class Verdicts(Part, frozen=True, kw_only=True):
    """Callers tell each other which instances look bad to them."""

    callers: Annotated[
        int | UnsetType, about("So many callers eject an instance for all; 2 or more.", kinds.COUNT)
    ] = UNSET
    window: Annotated[float | UnsetType, about("How long a verdict counts.", kinds.DURATION)] = UNSET
    drain: Annotated[bool | UnsetType, about("The instance drains itself, too.", kinds.FLAG)] = UNSET


class Ejection(Part, frozen=True, kw_only=True):
    """When an instance is taken out of balancing for a while. Not with the balancer `queue`."""

    consecutive: Annotated[int | UnsetType, about("After so many failures in a row.", kinds.COUNT)] = UNSET
    success_ratio: Annotated[
        float | UnsetType, about("Where fewer of the window's calls succeed.", kinds.SHARE)
    ] = UNSET
    window: Annotated[float | UnsetType, about("How long calls count.", kinds.DURATION)] = UNSET
    min_calls: Annotated[int | UnsetType, about("Not with fewer calls in the window.", kinds.COUNT)] = UNSET
    silent: Annotated[
        int | UnsetType, about("After so many attempts without an answer while others answer.", kinds.COUNT)
    ] = UNSET
    base: Annotated[float | UnsetType, about("How long, times how often it was ejected.", kinds.DURATION)] = (
        UNSET
    )
    max: Annotated[float | UnsetType, about("At most this long; `base` or more.", kinds.DURATION)] = UNSET
    max_ratio: Annotated[
        float | UnsetType, about("Of the instances, out at a time; one always may be.", kinds.SHARE)
    ] = UNSET
    panic_ratio: Annotated[
        float | UnsetType, about("Where fewer are healthy, ejections are ignored.", kinds.SHARE)
    ] = UNSET
    verdicts: Annotated[
        Verdicts | Off | UnsetType, about("Ejecting an instance for every caller.", off=True, default="off")
    ] = UNSET


class Balancer(Part, frozen=True, kw_only=True):
    """Who chooses the instance. The name alone may be written in its place: `balancer: least_request`."""

    short: ClassVar[str] = "name"

    name: Annotated[
        BalancerName | UnsetType,
        about("`queue` leaves it to the server; the others address an instance.", kinds.BALANCER),
    ] = UNSET
    header: Annotated[
        str | UnsetType,
        about("What `consistent_hash` hashes.", kinds.HEADER, default="the caller's name"),
    ] = UNSET
    bound: Annotated[
        float | UnsetType,
        about(
            "`consistent_hash`: how many times the mean an instance may be loaded; 1 or more.", kinds.NUMBER
        ),
    ] = UNSET
    slow_start: Annotated[
        float | UnsetType, about("A new instance gets its whole share after this.", kinds.DURATION)
    ] = UNSET
    locality: Annotated[
        bool | UnsetType, about("Prefer instances whose label `zone` is the caller's.", kinds.FLAG)
    ] = UNSET
    locality_healthy: Annotated[
        float | UnsetType, about("While so many of them are healthy.", kinds.SHARE)
    ] = UNSET
    ewma_decay: Annotated[
        float | UnsetType, about("`peak_ewma`: how long a slow answer is remembered.", kinds.DURATION)
    ] = UNSET


class Subset(Part, frozen=True, kw_only=True):
    """Some of a service's instances; both conditions must hold where both are given."""

    version: Annotated[
        str | UnsetType, about("Instances of exactly this version.", kinds.VERSION, default="any")
    ] = UNSET
    labels: Annotated[
        dict[str, str] | UnsetType, about("Instances with all of these labels.", kinds.TEXT, default="any")
    ] = UNSET
