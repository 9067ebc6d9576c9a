"""What ``top`` asks beside what the mesh tells anyway, as it shows it: policies of the store, and live calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.core.envelope import RecordedCall
from nats_mesh.core.presence import incarnation
from nats_mesh.errors import UNREADABLE
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh.telemetry.tap_feed import SeenCall, TapFeed
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import counted, dump
from nats_mesh_cli.policy_history import policy_record
from nats_mesh_cli.tap_line import Wanted, wanted_of
from nats_mesh_cli.top.model import CallLine, PolicyLine
from nats_mesh_cli.top.words import duration_text

__all__ = ["MAX_CALLS", "Tap", "call_line", "policy_lines"]

#: How many calls are kept to be shown.
MAX_CALLS: Final = 500
#: How many calls a second are taken in, from each instance and from all together: more nobody can read.
_RATE_PER_S: Final = 200.0
_MAX_DOCUMENT: Final = 64 * 1024


def policy_lines(revisions: Sequence[Revision]) -> tuple[PolicyLine, ...]:
    """Policies for the view."""
    return tuple([_policy_line(each) for each in revisions])


def _policy_line(revision: Revision) -> PolicyLine:
    record = policy_record(revision)
    return PolicyLine(
        name=str(record["policy"]),
        target=str(record["target"]),
        revision=revision.sequence,
        at=revision.time,
        operator=revision.operator,
        message=revision.message,
        document=_document(revision.value or b""),
    )


def _document(value: bytes) -> str:
    """As YAML, where it is one that YAML can show."""
    if len(value) > _MAX_DOCUMENT:
        return f"{len(value)} bytes: 'nats-mesh policy get -o yaml' shows them"
    try:
        return dump(msgspec.json.decode(value), Format.YAML)
    except UNREADABLE:
        return value.decode("utf-8", "replace")


class Tap:
    """Live calls, while :meth:`run` runs; the newest last."""

    def __init__(self, mesh: Mesh) -> None:
        self.calls: deque[CallLine] = deque(maxlen=MAX_CALLS)
        self._mesh = mesh
        self._count = 0
        self._wanted = Wanted()
        self._only = ""
        self._changed = anyio.Event()
        self._feed: TapFeed | None = None

    def show(self, only: str) -> None:
        """Show no other calls than these from now on (:mod:`nats_mesh_cli.tap_line`); those before are forgotten."""
        if only == self._only:
            return
        self._only, self._wanted = only, wanted_of(only)
        self.calls.clear()
        feed, self._feed = self._feed, None
        self._changed.set()
        if feed is not None:
            feed.rouse()

    @property
    def told(self) -> str:
        """What was seen, and what was left out."""
        feed = self._feed
        if feed is None:
            return "nobody is asked for calls yet"
        counts = feed.counts
        said = f"{counted(counts.ended, 'call')} at {counted(feed.instances, 'instance')}"
        parts = [f"{counts.shown} of {said}" if self._only else said]
        if counts.left_out:
            parts.append(f"{counted(counts.left_out, 'is', 'are')} not shown")
        if counts.lost:
            parts.append(f"{counted(counts.lost, 'message')} lost")
        if self._only and feed.older:
            parts.append(
                f"{counted(len(feed.older), 'older instance sends', 'older instances send')} every call"
            )
        return ", ".join(parts)

    def take(self) -> tuple[CallLine, ...]:
        """The last calls, with those that came since."""
        if self._feed is not None:
            news = self._feed.taken()
            for call in news:
                self._count += 1
                self.calls.append(call_line(call, self._count))
            if news:  # instances tell in batches: what came last need not have ended last
                self.calls = deque(
                    sorted(self.calls, key=lambda each: incarnation(each.at)), maxlen=MAX_CALLS
                )
        return tuple(self.calls)

    async def run(self) -> None:
        """Have instances tell of the calls that are wanted until cancelled."""
        while True:
            self._changed = anyio.Event()
            wanted = self._wanted
            async with TapFeed(
                self._mesh, targets=wanted.targets, only=wanted.only, rate_per_s=_RATE_PER_S
            ) as feed:
                self._feed = feed
                await self._changed.wait()

    async def news(self) -> None:
        """Return when there is a call to take, not more often than a person could follow."""
        if self._feed is not None:
            await self._feed.news()
        await anyio.sleep(0.2)


def call_line(call: RecordedCall | SeenCall, number: int) -> CallLine:
    """A call for the view; ``number`` tells it from all others."""
    facts = {
        "route": call.route,
        "attempt": str(call.attempt) if call.attempt > 1 else "",
        "refused": call.refused,
        "injected": call.injected,
        "mirror": "yes" if call.mirror else "",
        "queued": duration_text(call.queue_s) if call.queue_s >= 0.001 else "",
        "held on purpose": duration_text(call.fault_s) if call.fault_s else "",
        "in": f"{call.bytes_in}B",
        "out": f"{call.bytes_out}B",
        "version": call.version,
        "trace": call.trace,
        "key": call.key,
    }
    return CallLine(
        key=str(number),
        at=call.at,
        caller=call.caller,
        target=f"{call.service}.{call.endpoint}",
        status=call.status,
        duration_s=call.duration_s,
        instance=call.instance,
        facts=tuple([(name, value) for name, value in facts.items() if value]),
    )
