"""What balancers choose from, and what every one of them can do.

A :class:`Member` is one instance as one caller sees it. It knows how loaded it is; a strategy knows how to
choose, and asks for :meth:`Member.load` alone. So a better way to measure load reaches every strategy, and a new
strategy measures nothing (the split is that of the Rust crate tower: load metric here, strategy there).

Rejected: to balance by the load that instances announce, alone. What is announced is old when it is read, and
callers that all see the same idle instance all go there at once (Mitzenmacher, "How Useful Is Old Information?",
2000). The calls that a caller has under way itself are never old; what an instance said is added, and fades.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeAlias

from nats_mesh.core.ewma import PeakEwma
from nats_mesh.errors import ConfigError

__all__ = [
    "FULL",
    "FULL_S",
    "REPORT_S",
    "SLOW_START_FLOOR",
    "Balancer",
    "Chance",
    "Member",
    "Tally",
]

Chance: TypeAlias = Callable[[], float]
"""A number from 0 to below 1, each as likely as the other."""

#: After so many seconds nothing is left of what an instance said about its load.
REPORT_S: Final = 5.0
#: The load added to an instance that is known to be full: it is taken only where the others are full, too.
FULL: Final = 1e6
#: How long it is known to be full once it refused a call for that, where it does not say how long (seconds).
FULL_S: Final = 0.1
#: The share of its weight with which a new instance begins.
SLOW_START_FLOOR: Final = 0.1
#: A failure counts as this many times what a call there usually takes, up to so many seconds.
_FAILURE_FACTOR: Final = 2.0
_FAILURE_MOST_S: Final = 10.0


class Tally:
    """The calls under way at the members of one balancer, kept by the members, so that nobody adds them up.

    ``whole`` is false once another balancer counts one of these members.
    """

    __slots__ = ("in_flight", "whole")

    def __init__(self) -> None:
        self.in_flight = 0
        self.whole = True


class Member:
    """One instance as this caller sees it. Instants are seconds of the caller's monotonic clock.

    ``joined`` is when the caller first saw it; ``-inf``, the default, for one that was there before the caller,
    which has nothing to warm up. ``share`` is what locality leaves of its ``weight``. ``in_flight`` counts this
    caller's own calls; ``reported`` of ``limit`` is what the instance said at ``reported_at``, and ``others`` how
    much of that was not ours. Until ``full_until`` it is full, because it refused a call for that. ``cost`` is what a
    call there takes, in seconds, for the balancer that asks for it by :meth:`measure`; a peak decays in ``decay_s``.
    """

    __slots__ = (
        "cost",
        "decay_s",
        "full_until",
        "id",
        "in_flight",
        "joined",
        "limit",
        "others",
        "reported",
        "reported_at",
        "share",
        "tally",
        "weight",
        "zone",
    )

    def __init__(
        self,
        id: str,
        zone: str = "",
        weight: float = 1.0,
        joined: float = -math.inf,
        decay_s: float = 10.0,
    ) -> None:
        if not (math.isfinite(weight) and weight > 0.0):
            raise ConfigError(
                f"instance {id[:80]}: its weight must be a number above 0, got {weight!r}; "
                "leave an instance out that is to get no calls"
            )
        self.id = id
        self.zone = zone
        self.weight = weight
        self.share = 1.0
        self.joined = joined
        self.in_flight = 0
        self.reported = 0
        self.limit = 0
        self.reported_at = -math.inf
        self.others = 0
        self.full_until = -math.inf
        self.decay_s = decay_s
        self.cost: PeakEwma | None = None
        self.tally: Tally | None = None

    def began(self, now: float) -> None:
        """A call to it is on its way."""
        self.in_flight += 1
        if self.tally is not None:
            self.tally.in_flight += 1

    def ended(self, now: float, took_s: float, ok: bool | None) -> None:
        """A call to it is over, however it ended. One that never began is not counted.

        ``ok`` is ``None`` where the call was broken off from this side, which says nothing about the member.
        A failure never makes it look fast: it costs what it took or twice what is usual there, whichever is more.
        A member that fails at once would otherwise draw all the calls.
        """
        if self.in_flight <= 0:
            return
        self.in_flight -= 1
        if self.tally is not None:
            self.tally.in_flight -= 1
        if ok:  # it took the call, so it had room
            self.full_until = -math.inf
        cost = self.cost
        if cost is not None and ok is not None:
            if not ok:
                took_s = max(took_s, min(_FAILURE_FACTOR * cost.value(now), _FAILURE_MOST_S))
            cost.observe(now, took_s)

    def said(self, now: float, in_flight: int, limit: int) -> None:
        """It said, in a reply, how many calls it holds and how many it takes (0: it did not say).

        To be called before :meth:`ended` for that reply: the instance counted the call that it answered.
        """
        self.reported = in_flight
        self.limit = limit
        self.reported_at = now
        self.others = max(0, in_flight - self.in_flight)

    def refused(self, now: float, again_in_s: float | None) -> None:
        """It had no slot for a call: it is full for ``again_in_s`` seconds (``None`` or 0: it did not say how long), or
        until it takes one.

        What it says of its load is about all its endpoints together, of which one may be full alone. The mark is on the
        member all the same, which has no load by endpoint: calls to the other endpoints go elsewhere meanwhile,
        where there is an elsewhere, and the first of them that is answered ends it. It never lasts longer than
        anything else that is believed of a load, because whoever is not called cannot lose it by an answer.
        """
        self.full_until = now + min(again_in_s or FULL_S, REPORT_S)

    def load(self, now: float) -> float:
        """The calls it holds, as far as known here: our own, and what it said of others', which fades."""
        load = float(self.in_flight)
        full = now < self.full_until
        age = now - self.reported_at
        if age < REPORT_S:
            load += self.others * (1.0 - age / REPORT_S)
            full = full or 0 < self.limit <= load
        return load + FULL if full else load

    def worth(self, now: float, slow_start_s: float) -> float:
        """Its weight at this moment: less than the whole while it is new, a straight line from a tenth up."""
        whole = self.weight * self.share
        age = now - self.joined
        if slow_start_s <= 0.0 or age >= slow_start_s:
            return whole
        return whole * (SLOW_START_FLOOR + (1.0 - SLOW_START_FLOOR) * max(0.0, age) / slow_start_s)

    def measure(self) -> None:
        """Keep a moving average of what calls take from here on."""
        if self.cost is None:
            self.cost = PeakEwma(self.decay_s)

    def count_in(self, tally: Tally) -> None:
        """Count its calls in ``tally`` from here on, and no longer in the one before."""
        if self.tally is not None:
            self.tally.whole = False
        self.tally = tally
        tally.in_flight += self.in_flight

    def __repr__(self) -> str:
        return f"<Member {self.id} {self.zone or '-'} weight {self.weight:g} in flight {self.in_flight}>"


class Balancer(Protocol):
    """Chooses one member for a call.

    ``members`` is never empty and holds only those who may be chosen. It stays the same object as long as it holds
    the same members: a strategy prepares what it needs once for each, by itself when :meth:`pick` shows it another
    one, and by :meth:`update` where a list was changed in place or a weight was set. An update that changes
    nothing costs one look at each member. ``key`` is what consistent hashing hashes, and ``avoid`` whom it passes
    over on its ring; to the others, which choose anew each time, both say nothing.
    """

    @property
    def name(self) -> str: ...

    def pick(
        self, members: Sequence[Member], now: float, key: str | None, avoid: Collection[str] = ()
    ) -> Member: ...

    def update(self, members: Sequence[Member]) -> None: ...
