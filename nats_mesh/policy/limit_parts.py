"""What limits are made of beside concurrency: rates, quotas, queues, priorities, and the limit on the caller's side."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, UnsetType

from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Part

__all__ = ["Adaptive", "Priority", "Queue", "Quota", "Rate", "Throttle"]

_KEYS = "A limit of its own for each value of these: `caller`, `endpoint`, `header:NAME`, `claim:NAME`; at most 4."


class Adaptive(Part, frozen=True, kw_only=True):
    """A limit that finds itself: it shrinks while answers take longer than they do without load, and grows back."""

    min: Annotated[
        int | UnsetType, about("Never fewer calls at a time; 1 or more.", kinds.COUNT, default="1")
    ] = UNSET
    max: Annotated[
        int | UnsetType,
        about("Never more; `min` or more.", kinds.COUNT, default="`limit`, else the endpoint's own"),
    ] = UNSET
    tolerance: Annotated[
        float | UnsetType,
        about("Answers may take so many times as long as without load; above 1.", kinds.NUMBER, default="2"),
    ] = UNSET
    window: Annotated[
        float | UnsetType, about("How often the limit is adjusted.", kinds.DURATION, default="1s")
    ] = UNSET


class Rate(Part, frozen=True, kw_only=True):
    """How many calls there may be in a time; those beyond it are refused with the time to wait. The rate alone may be
    written in its place: `rate: 100/s`."""

    short: ClassVar[str] = "limit"

    limit: Annotated[float, about("So many calls; above 0.", kinds.RATE, required=True)]
    burst: Annotated[
        int | UnsetType,
        about(
            "So many at once after a pause; 1 or more.",
            kinds.COUNT,
            default="what comes in a second, at least 1",
        ),
    ] = UNSET
    scope: Annotated[
        Literal["local", "global"] | UnsetType,
        about(
            "`local`: each instance for itself; `global`: all instances of the service together.",
            formats.word("local or global", "local", "global"),
            default="local",
        ),
    ] = UNSET
    keys: Annotated[
        list[str] | UnsetType, about(_KEYS, formats.KEYS, default="one limit for all calls of the target")
    ] = UNSET


class Quota(Part, frozen=True, kw_only=True):
    """How many calls there may be in a long time, counted for all instances together."""

    amount: Annotated[int, about("So many calls.", formats.AMOUNT, required=True)]
    window: Annotated[float, about("In this time, over and over; 1s or more.", formats.PERIOD, required=True)]
    keys: Annotated[
        list[str] | UnsetType, about(_KEYS, formats.KEYS, default="one quota for all calls of the target")
    ] = UNSET


class Queue(Part, frozen=True, kw_only=True):
    """Calls that find the concurrency limit reached wait here before they are refused. The size alone may be written
    in its place."""

    short: ClassVar[str] = "size"

    size: Annotated[
        int, about("So many calls wait, per endpoint and instance; 1 or more.", kinds.COUNT, required=True)
    ]
    timeout: Annotated[
        float | UnsetType,
        about("A call waits at most this long.", kinds.DURATION, default="half of the time it has left"),
    ] = UNSET
    order: Annotated[
        Literal["fifo", "lifo"] | UnsetType,
        about(
            "`fifo`: the oldest first. `lifo`: the newest first, so that under overload some are answered in time.",
            formats.word("fifo or lifo", "fifo", "lifo"),
            default="fifo",
        ),
    ] = UNSET


class Priority(Part, frozen=True, kw_only=True):
    """Who comes first where not all can be taken. Calls are `critical`, `default` or `sheddable`, as their caller says
    (`priority=`), or as is said here of the caller. Say something of it."""

    critical: Annotated[
        list[str] | UnsetType,
        about("Calls of these callers are critical.", kinds.PATTERNS, default="those that say so"),
    ] = UNSET
    sheddable: Annotated[
        list[str] | UnsetType,
        about("Calls of these callers are sheddable.", kinds.PATTERNS, default="those that say so"),
    ] = UNSET
    trust: Annotated[
        list[str] | UnsetType,
        about("What these callers say of their calls counts.", kinds.PATTERNS, default="every caller"),
    ] = UNSET
    reserve: Annotated[
        float | UnsetType,
        about("Of the concurrency limit, for critical calls alone; below 100%.", kinds.SHARE, default="10%"),
    ] = UNSET
    shed_at: Annotated[
        float | UnsetType,
        about(
            "Sheddable calls are refused from so much of the limit on; above 0%.", kinds.SHARE, default="80%"
        ),
    ] = UNSET


class Throttle(Part, frozen=True, kw_only=True):
    """How much one caller sends to a destination: what is beyond it waits or fails at the caller, and is never sent.
    The rate alone may be written in its place: `throttle: 100/s`. Say a rate, a concurrency, or both."""

    short: ClassVar[str] = "rate"

    rate: Annotated[float | UnsetType, about("So many calls; above 0.", kinds.RATE, default="no limit")] = (
        UNSET
    )
    burst: Annotated[
        int | UnsetType,
        about(
            "So many at once after a pause; 1 or more.",
            kinds.COUNT,
            default="what comes in a second, at least 1",
        ),
    ] = UNSET
    concurrency: Annotated[
        int | UnsetType, about("So many calls at a time; 1 or more.", kinds.COUNT, default="no limit")
    ] = UNSET
    pending: Annotated[
        int | UnsetType, about("So many calls wait for their turn.", kinds.COUNT, default="0")
    ] = UNSET
    timeout: Annotated[
        float | UnsetType,
        about("A call waits at most this long.", kinds.DURATION, default="half of the time it has left"),
    ] = UNSET
