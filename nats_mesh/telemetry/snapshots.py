"""What a view shows: everything an observer knows of a mesh at one moment, in plain frozen data.

Made by :class:`nats_mesh.telemetry.folding.Fold` out of what members say; no view asks anything else. Rates are per
second over the last window, durations are seconds, shares lie between 0 and 1; what is not known is ``None``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nats_mesh.core.breaker import BreakerState
from nats_mesh.core.presence import Rejection
from nats_mesh.core.sync_state import Verdict, verdict_of
from nats_mesh.errors import Status
from nats_mesh.telemetry.events import Event

__all__ = [
    "NOTHING",
    "Breaker",
    "Capacity",
    "Edge",
    "Ejection",
    "Endpoint",
    "Figures",
    "Member",
    "PolicySync",
    "Red",
    "Service",
    "Snapshot",
    "Trend",
    "VersionRow",
]


class Figures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Calls counted over some time. ``errors`` are the service's faults. ``success`` is the share without one of those
    calls that were not given up (CANCELLED), and ``None`` where there were none; quantiles (seconds) are ``None`` where
    there was no call. ``buckets`` are the durations: an upper bound in seconds, and how many fell
    under it and above the one before; those without any are left out, and refused calls have no duration."""

    requests: int
    errors: int
    statuses: dict[str, int]
    success: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    p95_s: float | None = None
    buckets: tuple[tuple[float, int], ...] = ()
    sum_s: float = 0.0

    @property
    def given_up(self) -> int:
        """How many their callers gave up (CANCELLED): no failures of whoever is called, but nobody has got an
        answer."""
        return self.statuses.get(Status.CANCELLED, 0)

    @property
    def given_up_share(self) -> float:
        """The share of those; 0 where there were no calls."""
        return self.given_up / self.requests if self.requests else 0.0


class Red(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Rate, errors and duration of some calls over the last window, and all of them ever counted.

    ``rate_per_s`` counts calls as their callers made them (effective), ``attempts_per_s`` the attempts that these took
    (actual); they differ by retries and hedges. All figures are of one side: the callers' for a mesh, its services,
    endpoints and edges (of a caller that tells nothing, what the instances tell of its calls), the instances' for what
    is ``served``, for versions and for instances. ``flags`` counts the window's
    calls by the flag of how they ended (``UO``, ``UT`` …), those without one left out.
    """

    rate_per_s: float = 0.0
    attempts_per_s: float = 0.0
    errors_per_s: float = 0.0
    success: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    in_flight: int = 0
    #: Of the window's attempts, the share that was not the first of its call.
    retry_share: float = 0.0
    flags: dict[str, int] = {}
    #: What went wrong last, and when (an instant of :attr:`Snapshot.at`'s clock; ``None`` where nobody says).
    last_error: str = ""
    last_error_at: float | None = None
    #: The window's calls, and all calls that were ever counted (statuses alone: no quantiles, no buckets).
    recent: Figures
    total: Figures
    #: The attempts of all calls ever counted, and their retries by what came of them.
    attempts: int = 0
    retries: dict[str, int] = {}

    @property
    def gave_up(self) -> float:
        """Of the window's calls, the share that their callers gave up (:attr:`Figures.given_up`)."""
        return self.recent.given_up_share


_NO_CALLS: Final = Figures(
    requests=0, errors=0, statuses={}, success=None, p50_s=None, p90_s=None, p99_s=None
)
#: No calls.
NOTHING: Final = Red(recent=_NO_CALLS, total=_NO_CALLS)


class Trend(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last up to 60 seconds, oldest first, one value a second: calls per second, success, 99th percentile."""

    rates: tuple[float, ...] = ()
    success: tuple[float | None, ...] = ()
    p99_s: tuple[float | None, ...] = ()


class Capacity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much more some instances can take, by Little's law (L = λ·W; J. D. C. Little, 1961).

    ``limit`` is how many calls they run at a time, ``in_flight`` how many they run now, ``queue`` how many wait to
    begin. ``busy`` is how many they ran at a time on average over the window (rate × mean duration), ``utilisation``
    its share of the limit, ``headroom_per_s`` how many more calls a second fit at the same mean duration (which
    grows where the machine is what is scarce: an upper bound). ``None`` where nothing was called.
    """

    limit: int = 0
    in_flight: int = 0
    queue: int = 0
    busy: float | None = None
    utilisation: float | None = None
    headroom_per_s: float | None = None


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit of a destination at one caller's ``instance``; only those that are not CLOSED are listed.
    ``retry_after_s`` is in how many seconds one that is OPEN lets a probe pass, where its caller says so."""

    caller: str
    instance: str
    service: str
    endpoint: str
    subset: str = ""
    state: BreakerState
    retry_after_s: float | None = None


class Ejection(msgspec.Struct, frozen=True, kw_only=True):
    """``ejected`` (an instance of ``service``) gets no calls from one caller's ``instance`` for a while."""

    caller: str
    instance: str
    service: str
    ejected: str


class Service(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A service that has instances, or was called. ``versions`` counts its instances; ``breakers`` counts the circuits
    to it that are OPEN or HALF_OPEN, by state; ``ejected`` those of its instances that some caller ejected.

    ``red`` and ``trend`` are what callers met, ``served`` the attempts that reached the instances, as these saw them.
    """

    name: str
    instances: int = 0
    ready: int = 0
    suspect: int = 0
    draining: int = 0
    versions: dict[str, int] = {}
    red: Red
    served: Red = NOTHING
    trend: Trend = Trend()
    capacity: Capacity = Capacity()
    breakers: dict[str, int] = {}
    ejected: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One operation of a service; ``red`` and ``served`` as those of a service."""

    service: str
    name: str
    instances: int = 0
    red: Red
    served: Red = NOTHING
    trend: Trend = Trend()
    capacity: Capacity = Capacity()
    breakers: dict[str, int] = {}


class VersionRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The instances of one version of a service together."""

    service: str
    version: str
    instances: int = 0
    red: Red


class Edge(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``source`` calls ``service``. ``reporter``: ``out`` the caller tells, ``in`` the instances do, as it does not."""

    source: str
    service: str
    reporter: str
    red: Red
    trend: Trend = Trend()
    #: The same calls by endpoint.
    endpoints: dict[str, Red] = {}
    breakers: dict[str, int] = {}


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An instance of a service, or a client (``kind``), as last heard.

    ``state``: joining, ready, draining, or suspect where it was not heard as it promised. ``policy_source`` is where
    its policies come from (``bus``, ``files``, ``given``, ``off``, ``cache``; empty where it does not say),
    ``revision`` what it has applied, ``rejected`` how many policies it did not take. ``rtt_s`` is its own way to the
    server and back.
    """

    service: str
    id: str
    name: str
    kind: str = "instance"
    version: str = ""
    state: str = "ready"
    labels: dict[str, str] = {}
    started: str = ""
    #: Seconds since it was heard last.
    heard_s: float = 0.0
    #: Whether its statistics come; without them it is known by its presence alone.
    reports: bool = False
    red: Red
    capacity: Capacity = Capacity()
    #: By endpoint.
    endpoints: dict[str, Capacity] = {}
    revision: tuple[int, int] = (0, 0)
    policy_source: str = ""
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()
    rtt_s: float | None = None
    reconnects: int | None = None
    breakers: tuple[Breaker, ...] = ()
    ejections: tuple[Ejection, ...] = ()

    def verdict(self, head: tuple[int, int]) -> Verdict:
        """Where it stands with the policies, of which ``head`` is the revision that holds."""
        return verdict_of(
            self.policy_source,
            self.revision,
            head,
            rejected=self.rejected,
            rejections=self.rejections,
        )


class PolicySync(msgspec.Struct, frozen=True, kw_only=True):
    """Where the members stand with the policies on the bus, each counted once: :mod:`nats_mesh.core.sync_state`.
    ``head`` is the highest revision that any has applied."""

    head: tuple[int, int] = (0, 0)
    synced: int = 0
    stale: int = 0
    rejecting: int = 0
    #: Members that follow no policies of the bus, or do not say.
    others: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to show. Tuples are sorted by name; events are oldest first.

    ``at`` is an instant of the observer's monotonic clock (seconds), ``wall_s`` the wall time for people. ``red`` and
    ``trend`` are those of all calls together, as their callers see them where these report. Not all is told where
    ``ignored`` (messages that were not believed) or ``overflowed`` (what found no room) are above 0.
    """

    at: float = 0.0
    wall_s: float = 0.0
    namespace: str = "default"
    window_s: float = 10.0
    server: str = ""
    connected: bool = True
    #: Seconds that the bus has been away.
    away_s: float = 0.0
    rtt_s: float | None = None
    red: Red
    trend: Trend = Trend()
    services: tuple[Service, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    versions: tuple[VersionRow, ...] = ()
    edges: tuple[Edge, ...] = ()
    members: tuple[Member, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    ejections: tuple[Ejection, ...] = ()
    policies: PolicySync = PolicySync()
    events: tuple[Event, ...] = ()
    ignored: int = 0
    overflowed: int = 0
