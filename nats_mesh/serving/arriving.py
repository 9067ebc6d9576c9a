"""What a request's subject says of it: looked up once for each subject, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from nats_mesh.layers.base import DIRECT, PLAIN
from nats_mesh.serving.handling import Served
from nats_mesh.telemetry.series import OTHER, Series
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire.subjects import ANONYMOUS, INBOX, parse_rpc

__all__ = ["KnownSubject", "KnownSubjects"]

_MAX_SUBJECTS: Final = 4096


class KnownSubject(NamedTuple):
    """What one subject says; ``served`` is ``None`` where the endpoint does not exist."""

    served: Served | None
    endpoint: str
    caller: str
    #: What a reply subject of this caller begins with.
    inbox: str
    addressed: bool
    #: Whether its calls are noted: they chose this instance, or somebody records; and the route they came by.
    noted: bool
    route: str
    series: Series


class KnownSubjects:
    """The subjects on which calls came to the endpoints of ``service``. Bounded: the oldest goes."""

    __slots__ = ("_served", "_service", "_stats", "known", "noted")

    def __init__(self, service: str, served: Mapping[str, Served], stats: Stats) -> None:
        self._service = service
        self._served = served
        self._stats = stats
        #: Always the same object: who takes calls looks into it himself.
        self.known: dict[str, KnownSubject] = {}
        #: Whether somebody wants to hear of every call.
        self.noted = False

    def note(self, every: bool) -> None:
        """Have ``every`` call noted that arrives from now on, or those alone that chose this instance."""
        self.noted = every
        self.known.clear()

    def find(self, subject: str) -> KnownSubject | None:
        """Look up a subject of the mesh; ``None`` where it is none of this service."""
        parsed = parse_rpc(subject)
        if parsed is None or parsed.service != self._service:
            return None
        served = self._served.get(parsed.endpoint)
        return self._keep(
            subject, served, parsed.endpoint, parsed.caller, parsed.route, addressed=bool(parsed.instance)
        )

    def find_plain(self, subject: str, served: Served) -> KnownSubject:
        """Look up a subject of the endpoint's own, where nobody's identity is known."""
        return self._keep(subject, served, served.endpoint.name, ANONYMOUS, PLAIN, addressed=False)

    def _keep(
        self, subject: str, served: Served | None, endpoint: str, caller: str, route: str, *, addressed: bool
    ) -> KnownSubject:
        series = self._stats.series("in", self._service, endpoint if served is not None else OTHER, caller)
        found = KnownSubject(
            served,
            endpoint,
            caller,
            f"{INBOX}{caller}.",
            addressed,
            addressed or self.noted,
            DIRECT if addressed else route,
            series,
        )
        if len(self.known) >= _MAX_SUBJECTS:
            self.known.pop(next(iter(self.known)))
        self.known[subject] = found
        return found
