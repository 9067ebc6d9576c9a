"""Spans on their way out: what is noted, chosen, told, kept and given up; and what calls through a mesh leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import ApplicationError, CallError, Context, NoInstancesError, RemoteError, Service
from nats_mesh.calling.spans import refusing_layer
from nats_mesh.clock import ManualClock
from nats_mesh.errors import (
    CircuitOpenError,
    CodecError,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    OverloadedError,
)
from nats_mesh.layers.stack import OUTBOUND
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry import tracing
from nats_mesh.telemetry.notes import MAX_NOTES, Notes
from nats_mesh.telemetry.span_columns import read_columns
from nats_mesh.telemetry.span_messages import Chunk, Dropped, SpanMessage, SpanWish, decode_spans, spans_of
from nats_mesh.telemetry.span_parts import RecordedSpan, Span
from nats_mesh.telemetry.spans import Trace, assemble, summary_of, traces_of
from nats_mesh.telemetry.tracing import BURST, KEPT, RATE_PER_S, Tracing
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OWN = "_INBOX.watcher.c.0123456789abcdef0123456789abcdef"


class Rig:
    """What tells of spans, on a memory bus, and everything that passes there."""

    def __init__(self, bus: MemoryBus, transport: MemoryTransport, watcher: MemoryTransport) -> None:
        self.clock = ManualClock()
        self.boosts: list[float] = []
        self.exported: list[Span] = []
        self.bus, self.transport, self.watcher = bus, transport, watcher
        subjects = Subjects("default")
        self.wants = Wants(
            member="orders", subjects=subjects, transport=transport, clock=self.clock, enforced=True
        )
        self.tracing = Tracing(
            member="orders",
            instance="i1",
            version="1.0.0",
            subjects=subjects,
            transport=transport,
            mux=ReplyMux(transport, self.clock.monotonic),
            wants=self.wants,
            clock=self.clock,
            boost=self.boosts.append,
            export=self.export,
        )
        self.side: Notes = self.tracing.side(
            self.read,
            lambda key: b'{"kind":"server","service":"%b","endpoint":"place","caller":"web"}' % key.encode(),
            server=True,
        )
        self.count = 0

    def read(self, note: tuple[bool, str, int], wall: float) -> list[Span]:
        """A span of a note; one without a number is a defect."""
        if note[2] < 0:
            raise ValueError("a defect")
        return [
            Span(
                trace=TRACE, id=f"{note[2]:016x}", kind="server", service="orders", endpoint="place", caller="web",
                start_us=round(wall * 1e6), took_us=5,
            )
        ]  # fmt: skip

    def export(self, chunks: Sequence[Chunk], clock_s: float) -> None:
        """Whatever is told is told here, too."""
        for chunk in chunks:
            if chunk.rows:
                self.exported += read_columns(chunk.body, clock_s)
            else:
                self.exported += msgspec.json.decode(b"[%b]" % chunk.body, type=list[Span])

    def brief(self, count: int = 1) -> None:
        """So many calls end of which there is nothing else to say."""
        now = self.clock.monotonic()
        for _ in range(count):
            self.count += 1
            ids = f"{self.count:08x}{1:024x}-{1:016x}"
            self.side.add_row("orders", (ids, f"{self.count:016x}", "all", "", now, now, now))

    def call(self, count: int = 1, *, calm: bool = True) -> None:
        """So many calls end."""
        for _ in range(count):
            self.count += 1
            self.side.add((calm, f"{self.count:08x}", self.count))

    async def settle(self) -> None:
        """A batch, and whatever comes back of it."""
        self.tracing._batch()
        await self.transport.fence()
        await self.transport.fence()

    async def want(self, body: bytes = b"") -> None:
        """Hold a lease."""
        self.watcher.publish("mesh.default.telemetry.want.span.all.watcher", body, f"{OWN}.0")
        await self.watcher.fence()
        await self.transport.fence()

    def told(self) -> list[SpanMessage]:
        """What was published."""
        assert self.bus.recorded is not None
        return [
            decode_spans(payload, service="orders", instance="i1", namespace="default")
            for subject, _, _, payload in self.bus.recorded
            if ".telemetry.span." in subject
        ]

    def numbers(self) -> list[int]:
        """Which calls were told of, in order."""
        return [int(span.id, 16) for message in self.told() for span in message.spans]

    def stream(self) -> None:
        """From now on a stream takes spans, and says so."""

        def take(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
            self.watcher.publish(reply, b'{"stream":"mesh_spans_default","seq":1}')

        self.watcher.subscribe("mesh.default.telemetry.span.*.*", take)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A member that is connected, and somebody who watches. Batches are made by the tests alone, however slow the
    machine is."""

    def never(delay_s: float, act: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(3600.0, act)

    monkeypatch.setattr(tracing, "call_later", never)
    bus = MemoryBus()
    bus.recorded = []
    member = await bus.connect(ConnectOptions(name="orders"))
    return Rig(bus, member, await bus.connect(ConnectOptions(name="watcher")))


@pytest.mark.anyio
async def test_where_nobody_listens_spans_are_kept_and_tried_now_and_then(rig: Rig) -> None:
    """The server says at once that nobody is there; the spans come back, and the next try is seconds later."""
    rig.call(3)
    await rig.settle()
    assert rig.numbers() == [1, 2, 3]
    for _ in range(8):
        rig.clock.advance(1.0)
        rig.call()
        await rig.settle()
    assert len(rig.told()) == 1
    rig.clock.advance(3.0)
    rig.call()
    await rig.settle()
    assert rig.numbers()[3:] == list(range(1, 13))


@pytest.mark.anyio
async def test_whoever_comes_gets_what_is_kept_and_then_what_comes(rig: Rig) -> None:
    """An observer's lease brings the latest spans at once, each once, and holds for as long as it says."""
    rig.call(3)
    await rig.settle()
    rig.watcher.subscribe("mesh.default.telemetry.span.*.*", lambda *_: None)
    before = len(rig.told())
    await rig.want()
    assert rig.numbers()[3:] == [1, 2, 3]
    assert len(rig.told()) == before + 1
    rig.call(2)
    await rig.settle()
    assert rig.numbers()[6:] == [4, 5]
    rig.clock.advance(LEASE_S)
    rig.call()
    await rig.settle()
    assert rig.numbers()[8:] == []


@pytest.mark.anyio
async def test_a_stream_that_takes_spans_gets_all_of_them(rig: Rig) -> None:
    """Its acknowledgement says that it is there; without a lease, and as long as it goes on to acknowledge."""
    rig.stream()
    rig.call(2)
    await rig.settle()
    for _ in range(5):
        rig.clock.advance(1.0)
        rig.call()
        await rig.settle()
    assert rig.numbers() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.anyio
async def test_the_latest_are_kept_and_the_rest_is_counted(rig: Rig) -> None:
    """Bounded, whatever happens, and the next message says how many are missing."""
    await rig.settle()
    rig.clock.advance(1.0)
    rig.tracing._try_at = rig.clock.monotonic() + 5.0
    rig.call(KEPT + 50)
    await rig.settle()
    assert rig.tracing.waiting == KEPT
    rig.watcher.subscribe("mesh.default.telemetry.span.*.*", lambda *_: None)
    await rig.want()
    assert rig.numbers() == list(range(51, KEPT + 51))
    assert [message.dropped for message in rig.told()] == [50]


@pytest.mark.anyio
async def test_the_path_of_a_call_is_bounded(rig: Rig) -> None:
    """Between two batches only so many are noted; and of these only so many a second are told of."""
    rig.stream()
    rig.call(MAX_NOTES + 100)
    assert len(rig.side.notes) == MAX_NOTES
    await rig.settle()
    assert len(rig.exported) == BURST
    rig.clock.advance(0.1)
    rig.call(200)
    await rig.settle()
    assert len(rig.exported) == BURST + RATE_PER_S / 10
    rig.clock.advance(100.0)
    rig.call(1)
    await rig.settle()
    told = rig.told()
    kept_beyond = sum(len(message.spans) for message in told)
    assert sum(message.dropped for message in told) + kept_beyond == MAX_NOTES + 100 + 200 + 1


@pytest.mark.anyio
async def test_failures_push_out_what_went_well(rig: Rig) -> None:
    """Where there is no room for all, those are told that somebody will look for."""
    rig.stream()
    rig.call(1200)
    rig.call(600, calm=False)
    await rig.settle()
    assert {int(span.id, 16) for span in rig.exported} == set(range(1201, 1801)) | set(range(1, 401))


@pytest.mark.anyio
async def test_rows_are_told_and_bounded_like_the_rest(rig: Rig) -> None:
    """In one order with them by their traces, behind what failed; nothing is noted beyond the bounds."""
    rig.stream()
    rig.brief(2)
    rig.call(2)
    await rig.settle()
    assert sorted(rig.numbers()) == [1, 2, 3, 4]
    rig.clock.advance(100.0)
    rig.brief(600)
    rig.call(600)
    rig.call(100, calm=False)
    rig.brief(600)
    await rig.settle()
    told = {int(span.id, 16) for span in rig.exported[4:]}
    assert told == set(range(1205, 1305)) | set(range(5, 905))
    rig.brief(MAX_NOTES + 10)
    assert (rig.side.count, rig.side.dropped) == (MAX_NOTES, 10)


@pytest.mark.anyio
async def test_no_more_traces_begin_than_there_is_room_for(rig: Rig) -> None:
    """What is sampled and finds no room has cost all the same: under load fewer are, and when it is over all again."""
    shares: list[float] = []
    rig.tracing.on_share = shares.append
    rig.stream()
    for _ in range(3):
        rig.call(1000)
        await rig.settle()
        rig.clock.advance(0.25)
    assert shares == [pytest.approx(0.125), pytest.approx(0.125**2), 0.125**3]
    assert rig.side.below == "1fffffff" or rig.side.below == "20000000"
    for _ in range(12):
        rig.call()
        await rig.settle()
        rig.clock.advance(0.25)
    assert rig.tracing.share == 1.0
    assert rig.side.below == ""


@pytest.mark.anyio
async def test_a_defect_in_telling_costs_one_span(rig: Rig) -> None:
    """It is counted, and nobody else notices."""
    rig.stream()
    rig.call()
    rig.side.add((True, "x", -1))
    rig.call()
    await rig.settle()
    assert rig.numbers() == [1, 2]
    assert (rig.tracing.failed, rig.told()[0].dropped) == (1, 1)


@pytest.mark.anyio
async def test_what_was_let_go_is_told_by_its_reason(rig: Rig) -> None:
    """Too many at a time, taken by nobody, or a defect: each is something else to do, and told once to who takes it."""
    rig.side.add((False, "a", -1))
    rig.call(MAX_NOTES - 1)
    await rig.settle()  # nobody is there, which is learned by telling it
    lost = dict(rig.tracing.lost)
    assert lost[Dropped.DEFECT] == 1
    assert lost[Dropped.RATE] == MAX_NOTES - BURST
    assert lost[Dropped.UNTAKEN] == BURST - 1 - KEPT
    assert rig.tracing.dropped == sum(lost.values())
    tried = len(rig.told())
    rig.stream()
    rig.clock.advance(60.0)
    rig.call()
    await rig.settle()
    first, *others = rig.told()[tried:]
    assert first.dropped == sum(lost.values())
    assert first.dropped_for == lost
    assert all((each.dropped, each.dropped_for) == (0, {}) for each in others)
    assert (rig.tracing.dropped, dict(rig.tracing.lost)) == (0, lost)


@pytest.mark.anyio
async def test_observers_may_have_more_sampled_while_they_watch(rig: Rig) -> None:
    """The largest share that anybody asks for; what cannot be read is no lease; bounded in number."""
    await rig.want(b'{"sampling":0.5}')
    await rig.want(b'{"sampling":7}')
    await rig.want(b"nonsense")
    assert rig.boosts == [0.5]
    rig.clock.advance(LEASE_S)
    rig.tracing._look()
    assert rig.boosts == [0.5, 0.0]


@pytest.mark.anyio
async def test_a_bus_that_is_away_takes_nothing(rig: Rig) -> None:
    """Spans are kept meanwhile, and told afterwards."""
    rig.stream()
    rig.call()
    await rig.settle()
    rig.transport.cut()
    rig.call()
    rig.tracing._batch()
    rig.transport.mend()
    await rig.transport.fence()
    rig.call()
    await rig.settle()
    assert rig.numbers() == [1, 2, 3]


@pytest.mark.anyio
async def test_who_leaves_tells_the_rest(rig: Rig) -> None:
    """And nothing after that."""
    rig.stream()
    rig.call()
    await rig.settle()
    rig.call()
    rig.tracing.close()
    assert rig.numbers() == [1, 2]
    rig.call()
    assert rig.tracing._timer is None


# -- calls through a mesh -------------------------------------------------------------------------------


SAMPLED = """
apiVersion: mesh/v1
kind: Telemetry
metadata: {name: traces}
spec: {tracing: 100%}
"""
UNSAMPLED = SAMPLED.replace("100%", "0%")
SLOW = UNSAMPLED.replace("0%}", "0%, slow: 1s}")


def chain(document: str) -> tuple[list[Service], dict[str, Any]]:
    """front calls mid calls deep, all of which follow a policy; deep fails as often as ``fail`` says, and takes
    ``sleep`` seconds."""
    how: dict[str, Any] = {"fail": 0, "sleep": 0.0}
    policies = PolicySet.of(parse(document))
    front, mid, deep = (
        Service(name, version="1.0.0", policies=policies) for name in ("front", "mid", "deep")
    )

    @deep.endpoint(idempotent=True)
    async def get(ctx: Context) -> int:
        if how["fail"] > 0:
            how["fail"] -= 1
            raise Away("away")
        await anyio.sleep(how["sleep"])
        return 5

    @mid.endpoint(idempotent=True)
    async def ask(ctx: Context) -> int:
        value: int = await ctx.call("deep.get", returns=int, idempotent=True)
        return value

    @front.endpoint()
    async def page(ctx: Context) -> int:
        value: int = await ctx.call("mid.ask", returns=int)
        return value

    return [deep, mid, front], how


class Away(ApplicationError, status="UNAVAILABLE"):
    """Come again."""


class Observed:
    """A mesh of three services, a client that follows the same policy, and somebody who hears their spans."""

    def __init__(self, document: str) -> None:
        services, self.how = chain(document)
        self.spans: list[RecordedSpan] = []
        self.mesh = MemoryMesh(*services)
        self.web = self.mesh.client("web", policies=PolicySet.of(parse(document)))

    async def __aenter__(self) -> Observed:
        await self.mesh.__aenter__()
        await self.web.__aenter__()
        observer = await self.mesh.bus.connect(ConnectOptions(name="observer"))
        observer.subscribe("mesh.default.telemetry.span.*.*", self.hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.web.__aexit__(None, None, None)
        await self.mesh.__aexit__(None, None, None)

    def hear(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message of spans."""
        parts = subject.split(".")
        self.spans += spans_of(decode_spans(payload, service=parts[4], instance=parts[5], namespace=parts[1]))

    async def traces(self) -> list[Trace]:
        """What they come to once all is told, by time."""
        await anyio.sleep(12.0)
        found = [assemble(spans.values()) for spans in traces_of(self.spans).values()]
        return sorted(found, key=lambda each: each.start_us)

    async def shapes(self) -> list[list[str]]:
        """Their spans in words."""
        return [
            [
                f"{'.' * each.depth}{each.span.kind} {each.span.name} {each.span.status}"
                for each in trace.placed
            ]
            for trace in await self.traces()
        ]


def test_a_sampled_trace_has_every_hop() -> None:
    """The decision is made once, where the trace begins, and goes along; handlers do nothing for it."""

    async def main() -> None:
        async with Observed(SAMPLED) as seen:
            assert await seen.web.call("front.page", returns=int) == 5
            assert await seen.shapes() == [
                [
                    "client front/page OK",
                    ".server front/page OK",
                    "..client mid/ask OK",
                    "...server mid/ask OK",
                    "....client deep/get OK",
                    ".....server deep/get OK",
                ]
            ]
            (trace,) = await seen.traces()
            assert [each.member for each in trace.spans] == ["web", "front", "front", "mid", "mid", "deep"]
            assert all(each.why == "sampled" and not each.error for each in trace.spans)

    run_virtual(main)


def test_retries_are_seen_where_they_are_made() -> None:
    """One span over all attempts, one for each, and what each instance did below its own."""

    async def main() -> None:
        async with Observed(SAMPLED) as seen:
            seen.how["fail"] = 1
            assert await seen.web.call("front.page", returns=int) == 5
            (shape,) = await seen.shapes()
            assert shape[4:] == [
                "....client deep/get OK",
                ".....attempt deep/get UNAVAILABLE",
                "......server deep/get UNAVAILABLE",
                ".....attempt deep/get OK",
                "......server deep/get OK",
            ]
            (trace,) = await seen.traces()
            assert [each.attempt for each in trace.spans][4:] == [2, 1, 1, 2, 2]
            assert summary_of(trace).retries == 1

    run_virtual(main)


def test_without_a_sample_failures_leave_spans_all_the_same() -> None:
    """Whoever saw the failure tells of it, the caller and the instance; what went well in between does not."""

    async def main() -> None:
        async with Observed(UNSAMPLED) as seen:
            assert await seen.web.call("front.page", returns=int) == 5
            seen.how["fail"] = 1
            assert await seen.web.call("front.page", returns=int) == 5
            assert await seen.shapes() == [["server deep/get UNAVAILABLE"]]
            seen.how["fail"] = 9
            with pytest.raises(RemoteError):
                await seen.web.call("front.page", returns=int)
            shape = (await seen.shapes())[-1]
            assert shape[0] == "client front/page INTERNAL"
            assert shape[1] == ".server front/page INTERNAL"
            assert ".....attempt deep/get UNAVAILABLE" in shape
            told = {each.error for each in (await seen.traces())[-1].spans if each.name == "front/page"}
            assert "internal error" in told, "no more at the caller"
            assert any(
                each.startswith("internal error; at the instance RemoteError from mid.") for each in told
            ), "the instance says from whom the error came"

    run_virtual(main)


def test_slow_calls_leave_spans_by_policy() -> None:
    """From the threshold on, at both ends; a faster one leaves nothing."""

    async def main() -> None:
        async with Observed(SLOW) as seen:
            assert await seen.web.call("front.page", returns=int) == 5
            seen.how["sleep"] = 1.5
            assert await seen.web.call("front.page", returns=int) == 5
            (trace,) = await seen.traces()
            assert {each.why for each in trace.spans} == {"slow"}
            assert len(trace.placed) == 6
            assert summary_of(trace).slow

    run_virtual(main)


def test_calls_that_are_slow_for_their_endpoint_leave_the_span_of_their_instance() -> None:
    """By the endpoint's own p99 nobody but the instance knows which these are; what is sampled has one span alone."""

    async def main() -> None:
        async with Observed(UNSAMPLED.replace("0%}", "0%, slow: {timesP99: 3}}")) as seen:
            seen.how["sleep"] = 0.01
            for _ in range(150):
                await seen.web.call("deep.get", returns=int)
            assert await seen.traces() == []
            seen.how["sleep"] = 1.5
            header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            async with anyio.create_task_group() as calls:
                calls.start_soon(partial(seen.web.call, "deep.get", returns=int))
                calls.start_soon(partial(seen.web.call, "deep.get", returns=int, headers=header))
            slow, sampled = sorted(await seen.traces(), key=lambda each: len(each.placed))
            assert [(each.kind, each.name, each.why) for each in slow.spans] == [
                ("server", "deep/get", "slow")
            ]
            assert [(each.kind, each.why) for each in sampled.spans] == [
                ("client", "sampled"),
                ("server", "sampled"),
            ]

    run_virtual(main)


def test_a_trace_that_comes_in_stays_as_it_was_decided() -> None:
    """A caller's own header is continued: its trace, its span as the parent, its decision."""

    async def main() -> None:
        async with Observed(UNSAMPLED) as seen:
            header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert await seen.web.call("front.page", returns=int, headers=header) == 5
            (trace,) = await seen.traces()
            assert trace.trace == TRACE
            first = next(iter(trace.spans))
            assert (first.kind, first.parent) == ("client", "00f067aa0ba902b7")
            assert len(trace.placed) == 6
            assert trace.lost == 1

    run_virtual(main)


def test_a_call_that_never_left_leaves_a_span() -> None:
    """Nobody serves it: the caller alone can tell, and says why."""

    async def main() -> None:
        async with Observed(UNSAMPLED) as seen:
            with pytest.raises(NoInstancesError):
                await seen.web.call("nobody.there", returns=int)
            (trace,) = await seen.traces()
            client = next(iter(trace.spans))
            assert (client.status, client.why) == ("UNAVAILABLE", "error")
            assert client.flags.startswith("UH")
            assert "nobody serves 'nobody'" in client.error

    run_virtual(main)


@pytest.mark.anyio
async def test_made_up_observers_shut_nobody_out(rig: Rig) -> None:
    """Beyond the table the largest wish is kept for all of them: whoever comes last gets its samples, as long as it
    asks for them."""

    async def ask(number: int, share: float) -> None:
        inbox = f"_INBOX.watcher.c.{number:032x}.0"
        rig.watcher.publish(
            "mesh.default.telemetry.want.span.all.watcher", JSON.encode(SpanWish(sampling=share)), inbox
        )
        await rig.watcher.fence()
        await rig.transport.fence()

    for number in range(200):
        await ask(number, 0.001)
    assert rig.boosts == [0.001]
    await ask(1000, 0.5)
    await ask(1001, 0.25)
    assert rig.boosts == [0.001, 0.5]
    rig.clock.advance(LEASE_S + 1.0)
    await ask(1, 0.125)
    assert rig.boosts == [0.001, 0.5, 0.125]


REFUSING = (
    UNSAMPLED
    + """---
apiVersion: mesh/v1
kind: Destination
metadata: {name: deep}
spec: {target: {service: deep}, breaker: {minCalls: 1, consecutive: 1}, retry: {attempts: 2}}
---
apiVersion: mesh/v1
kind: Route
metadata: {name: deep}
spec:
  target: {service: deep}
  rules:
    - match: {headers: {who: nobody}}
      fault: {abort: {status: UNAVAILABLE}}
    - match: {headers: {who: late}}
      fault: {delay: {duration: 1s}}
"""
)


def test_a_span_says_which_layer_of_its_caller_did_not_send_a_call() -> None:
    """The circuit that refuses an attempt after one that was sent, or the call; a route that fails it on purpose."""

    async def main() -> None:
        async with Observed(REFUSING) as seen:
            seen.how["fail"] = 1
            late: tuple[dict[str, str], float | None] = ({"who": "late"}, 0.2)  # in the batch of all others
            for headers, timeout in (late, ({}, None), ({}, None), ({"who": "nobody"}, None)):
                with pytest.raises(CallError):
                    await seen.web.call(
                        "deep.get", returns=int, idempotent=True, headers=headers, timeout=timeout
                    )
            await seen.traces()
            told = [(each.kind, each.status, each.refused) for each in seen.spans if each.member == "web"]
            assert told == [
                ("client", "DEADLINE_EXCEEDED", "fault"),
                ("client", "UNAVAILABLE", "breaker"),
                ("attempt", "UNAVAILABLE", ""),
                ("attempt", "UNAVAILABLE", "breaker"),
                ("client", "UNAVAILABLE", "breaker"),
                ("client", "UNAVAILABLE", "fault"),
            ]

    run_virtual(main)


def test_a_call_that_was_given_up_says_so_in_words_of_its_own() -> None:
    """Not in those of whatever cancelled it: these are of a library's inside, and name addresses in memory."""

    async def main() -> None:
        async with Observed(SAMPLED) as seen:
            seen.how["sleep"] = 9.0
            with anyio.move_on_after(0.5):
                await seen.web.call("deep.get", returns=int)
            await seen.traces()
            (told,) = [each for each in seen.spans if each.kind == "client"]
            assert (told.status, told.flags) == ("CANCELLED", "DC")
            assert told.error == "given up by its caller after 500 ms"

    run_virtual(main)


@pytest.mark.parametrize(
    ("error", "sent", "layer"),
    [
        (CircuitOpenError("open"), 0, "breaker"),
        (CircuitOpenError("open"), 1, "breaker"),
        (DeadlineExceededError("over", executed=Executed.NO), 0, "deadline"),
        (DeadlineExceededError("over", executed=Executed.NO), 1, ""),
        (DeadlineExceededError("no answer"), 1, ""),
        (DisconnectedError("away", executed=Executed.NO), 0, "wire"),
        (DisconnectedError("away"), 1, ""),
        (OverloadedError("this client is full"), 0, "wire"),
        (OverloadedError("the instance is full"), 1, ""),
        (CodecError("no JSON"), 0, "encode"),
        (CodecError("no such reply", executed=Executed.YES), 1, ""),
        (NoInstancesError("nobody"), 0, ""),
        (Away("away"), 1, ""),
        (asyncio.CancelledError(), 0, ""),
    ],
)
def test_only_what_was_not_sent_was_refused_by_its_caller(
    error: BaseException, sent: int, layer: str
) -> None:
    """Whatever an instance or the server answered is theirs."""
    assert refusing_layer(error, sent) == layer
    assert not layer or layer in {each.name for each in OUTBOUND}


def test_an_observer_can_have_everything_sampled_while_it_watches() -> None:
    """Beside what policies say; once its lease is over, they alone hold again."""

    async def main() -> None:
        async with Observed(UNSAMPLED) as seen:
            watcher = await seen.mesh.bus.connect(ConnectOptions(name="watcher"))
            body = JSON.encode(SpanWish(sampling=1.0))
            watcher.publish("mesh.default.telemetry.want.span.all.watcher", body, f"{OWN}.0")
            await watcher.fence()
            assert await seen.web.call("front.page", returns=int) == 5
            (trace,) = await seen.traces()
            assert len(trace.placed) == 6
            await anyio.sleep(LEASE_S * 2)
            assert await seen.web.call("front.page", returns=int) == 5
            assert len(await seen.traces()) == 1

    run_virtual(main)
