"""Which endpoints no call is slow of yet, because nobody knows their p99: said once, so that silence is not taken for
speed. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.core.slowness import MIN_CALLS
from nats_mesh.telemetry.slow import SlowRecent
from nats_mesh_cli.output import counted

__all__ = ["Learning"]

#: Endpoints that are kept, and how many a note names.
_MAX_ENDPOINTS: Final = 1000
_NAMED: Final = 3


class Learning:
    """What instances say of it, as far as it is about ``service`` and ``endpoint`` (empty: any)."""

    def __init__(self, service: str, endpoint: str) -> None:
        self._service = service
        self._endpoint = endpoint
        #: By endpoint, the instances that do not know its p99 yet, and how many calls each knows.
        self._known: dict[str, dict[str, int]] = {}

    def take(self, answer: SlowRecent) -> None:
        """The answer of one instance; those of before do not say who they are."""
        service, instance = answer.service or "", answer.instance or ""
        if not service or not instance or (self._service or service) != service:
            return
        for endpoint, calls in answer.learning.items():
            key = f"{service}.{endpoint}"
            if (self._endpoint or endpoint) == endpoint and (
                key in self._known or len(self._known) < _MAX_ENDPOINTS
            ):
                self._known.setdefault(key, {})[instance] = calls

    def note(self) -> str:
        """What to say of it; empty where every endpoint is judged."""
        named = [
            f"{endpoint} ({counted(max(known.values()), 'call')} at most at {counted(len(known), 'instance')})"
            for endpoint, known in sorted(self._known.items())[:_NAMED]
        ]
        if not named:
            return ""
        more = len(self._known) - len(named)
        return (
            f"note: not judged yet, for want of calls: {', '.join(named)}{f' and {more} more' if more else ''}; "
            f"timesP99 goes by a p99 that an instance knows from about {MIN_CALLS} calls within one to two minutes on"
        )
