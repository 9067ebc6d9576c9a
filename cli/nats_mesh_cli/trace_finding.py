"""Traces of lately: from the members themselves, and from the stream that keeps their spans for minutes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec

from nats_mesh import Mesh
from nats_mesh.clock import rfc3339
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.span_messages import UNSAID, Dropped, SpanWish
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.span_store import MAX_AGE_S, SpanStore
from nats_mesh.telemetry.spans import Summary, traces_of
from nats_mesh.telemetry.tracing import KEPT, RATE_PER_S
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.kv import KvAbsentError, KvError
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.output import counted
from nats_mesh_cli.trace_document import reasons_of, record_of

__all__ = ["ID", "SHOWN", "Found", "Query", "digits_of", "let_go_notes", "listening", "look", "one_of"]

#: How many traces are listed where nothing is said, and how many digits of an id tell them apart for a person.
SHOWN = 50
ID = 12
#: How long members get to tell what they have kept (seconds).
_TELL_S = 0.4
#: Spans that come while the stream is read; beyond, the latest are left out, and it is said.
_MAX_HEARD = 200_000
#: Why members let spans go.
_LET_GO = {
    Dropped.RATE: "{spans} came faster than members tell of them ({rate:g}/s each)",
    Dropped.UNTAKEN: "nobody took {spans}, and members remember their latest {kept} alone",
    Dropped.DEFECT: "{spans} could not be told for a defect: the logs of their members say which",
    UNSAID: "{spans} found no room at their members",
}
_DIGITS = frozenset("0123456789abcdef")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which traces: those in which ``service`` has a part, that took ``slow_s`` or longer, in which something failed,
    whose first call ended with one of ``statuses``, of which a reason (:func:`reasons_of`) has ``why`` in it, in
    capitals or not, that are no mere refusals where it is ``unrefused``, that began after ``since``; the latest
    ``limit`` rows, ``each`` trace in its own. ``sampling``: so many are sampled while they are watched."""

    service: str | None = None
    slow_s: float = 0.0
    error: bool = False
    statuses: tuple[str, ...] = ()
    why: str = ""
    unrefused: bool = False
    since: str = "-15m"
    limit: int = SHOWN
    each: bool = False
    watch: bool = False
    sampling: float = 0.0
    keep: bool = True

    def takes(self, summary: Summary) -> bool:
        """Whether it is about such a trace."""
        return (
            (self.service is None or self.service in summary.services or self.service == summary.caller)
            and summary.took_us >= self.slow_s * 1e6
            and (not self.error or summary.errors > 0)
            and (not self.statuses or summary.status in self.statuses)
            and (not self.why or self._says_why(summary))
            and not (self.unrefused and summary.only_refused)
        )

    def _says_why(self, summary: Summary) -> bool:
        wanted = self.why.casefold()
        return any(wanted in reason.casefold() for reason in reasons_of(record_of(summary)))


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: spans by their traces, and what to say of it."""

    traces: Mapping[str, Mapping[str, RecordedSpan]]
    notes: tuple[str, ...] = ()


class Heard:
    """Takes in what members tell."""

    def __init__(self, mesh: Mesh, store: SpanStore) -> None:
        self.spans: list[RecordedSpan] = []
        self.lost = 0
        self.ignored = 0
        self._mesh = mesh
        self._store = store

    def on_message(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on a member's span subject."""
        whose = member_of(subject, reply, enforced=self._mesh.settings.enforced)
        if whose is None:
            self.ignored += 1
            return
        spans = self._store.spans(whose[0], whose[1], payload)
        if len(self.spans) + len(spans) > _MAX_HEARD:
            self.lost += len(spans)
            return
        self.spans += spans

    def taken(self) -> list[RecordedSpan]:
        """What came since the last time."""
        spans, self.spans = self.spans, []
        return spans


@asynccontextmanager
async def listening(mesh: Mesh, store: SpanStore, query: Query) -> AsyncIterator[Heard]:
    """Hear what members tell while it is wanted: what they have kept at once, and then what comes."""
    client, heard = mesh.client, Heard(mesh, store)
    subscription = client.transport.subscribe(client.subjects.telemetry_of("span"), heard.on_message)
    await client.transport.fence()
    want = client.subjects.want("span", ALL, mesh.name)
    body = JSON.encode(SpanWish(sampling=query.sampling))
    try:
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                await hold_lease(want, body, transport=client.transport, mux=client.mux)

            tasks.start_soon(hold)
            yield heard
            tasks.cancel_scope.cancel()
    finally:
        client.transport.unsubscribe(subscription)


async def look(mesh: Mesh, query: Query, *, timeout_s: float = 5.0) -> Found:
    """What members have kept and what the stream has. Where there is no stream it is made, unless ``query`` says no."""
    client = mesh.client
    store = SpanStore(
        client.subjects, transport=client.transport, mux=client.mux, timeout_s=min(timeout_s, 5.0)
    )
    since = instant(query.since)
    notes: list[str] = []
    if query.keep:
        try:
            if await store.make():
                minutes = MAX_AGE_S // 60
                notes.append(
                    f"made the stream {store.log.name}: from now on spans are kept for {minutes} minutes"
                )
        except KvError as error:
            notes.append(f"spans are not kept, here is what members remember: {error}")
    async with listening(mesh, store, query) as heard:
        await anyio.sleep(_TELL_S)
    spans = heard.taken()
    try:
        spans += await store.read(since=since)
    except KvAbsentError:
        if not notes:
            notes.append("spans are not kept, here is what members remember; 'nats-mesh trace' has them kept")
    except KvError as error:
        notes.append(f"the stream of spans cannot be read: {error}")
    notes += _warnings(store, heard)
    return Found(traces=_since(traces_of(spans), since), notes=tuple(dict.fromkeys(notes)))


def _since(traces: dict[str, dict[str, RecordedSpan]], since: str) -> dict[str, dict[str, RecordedSpan]]:
    """Those of which anything ended after an instant."""
    return {
        name: spans
        for name, spans in traces.items()
        if rfc3339(max(span.end_us for span in spans.values()) / 1e6) >= since
    }


def let_go_notes(dropped: Mapping[str, int], last: Mapping[str, str]) -> list[str]:
    """What to say of the spans that members let go, by the reason, and when each said so ``last``. Pure."""
    notes = []
    for reason, count in sorted(dropped.items()):
        text = _LET_GO[reason].format(spans=counted(count, "span"), rate=RATE_PER_S, kept=KEPT)
        when = f", last at {shown_time(last[reason])}" if reason in last else ""
        notes.append(f"note: traces may have gaps: {text}{when}")
    return notes


def _warnings(store: SpanStore, heard: Heard) -> list[str]:
    notes = let_go_notes(store.dropped, store.dropped_at)
    if store.untrusted or heard.ignored:
        count = store.untrusted.total() + heard.ignored
        notes.append(
            f"note: {counted(count, 'message')} told of no span, or came from nobody who may: left out"
        )
    if store.cut or heard.lost:
        notes.append("note: there is more than is read at once, and some of it is left out")
    return notes


def digits_of(which: str) -> str:
    """The digits that the id of a trace begins with; :class:`CliError` where these are none."""
    digits = which.strip().lower().replace("-", "")
    if not digits or not _DIGITS.issuperset(digits) or len(digits) > 32:
        raise CliError(
            f"{which!r} is no id of a trace", hint="it has 32 hexadecimal digits; the first of them will do"
        )
    return digits


def one_of(found: Found, which: str) -> Mapping[str, RecordedSpan]:
    """The trace whose id begins with ``which``; :class:`CliError` where there is none, or more than one."""
    digits = digits_of(which)
    names = [name for name in found.traces if name.startswith(digits)]
    if len(names) == 1:
        return found.traces[names[0]]
    if not names:
        raise CliError(
            f"no trace {which!r} is known",
            hint="traces are kept for minutes; 'nats-mesh trace' lists those that are",
            code=FAILED,
        )
    shown = ", ".join(sorted(names)[:3])
    raise CliError(f"{len(names)} traces begin with {which!r}: {shown}", hint="say more digits", code=FAILED)
