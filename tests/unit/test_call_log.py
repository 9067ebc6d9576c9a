"""What is written of calls by policy: lines on both sides, slow calls with their steps; and nothing where none asks."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import ApplicationError, Context, Mesh, RemoteError, Service
from nats_mesh.clock import rfc3339
from nats_mesh.core.slowness import MIN_CALLS
from nats_mesh.errors import CodecError, MeshError
from nats_mesh.layers.base import Arrival
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry.access_log import AccessLine, stamp
from nats_mesh.telemetry.slow import (
    MAX_CALLS,
    MAX_STEPS,
    SlowCall,
    decode_slow,
    decode_slow_answer,
    said,
)
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.codecs import JSON

HEAD = "apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def policies(spec: str, *more: str) -> PolicySet:
    """One `Telemetry` for everything, and other documents."""
    return PolicySet.of(parse("---\n".join([HEAD.format(kind="Telemetry", name="told", spec=spec), *more])))


#: The fields of a line, as the contract has them.
FIELDS = (
    "ts reporter source_service source_instance destination_service destination_instance endpoint status flags error "
    "duration_ms queue_ms attempt bytes_in bytes_out caller policy trace_id span_id"
)


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """An error whose text is nobody's business."""


def shop(rules: PolicySet) -> list[Service]:
    """A shop that asks its stock, several times where it shall."""
    shop, stock = (
        Service("shop", version="1.2.0", policies=rules),
        Service("stock", version="1.0.0", policies=rules),
    )

    @shop.endpoint(raises=OutOfStock, concurrency=1)
    async def buy(what: str, ctx: Context) -> str:
        if what == "none":
            raise OutOfStock("card 4242 is refused")
        if what == "broken":
            raise ValueError("secret")
        await anyio.sleep(0.1)
        await ctx.call("stock.take", 0.3)
        return what

    @shop.endpoint()
    async def both(times: int, ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(ctx.call, "stock.take", 0.5)

    @stock.endpoint()
    async def take(seconds: float) -> None:
        await anyio.sleep(seconds)

    return [shop, stock]


class Heard:
    """The lines of some members, in the place of where they would be written."""

    def __init__(self) -> None:
        self.lines: list[AccessLine] = []

    def listen(self, *members: Instance | Mesh) -> None:
        """Take what these write."""
        for member in members:
            written: Any = member._log if isinstance(member, Mesh) else member._parts.written
            log: Any = written._log if isinstance(member, Mesh) else written.log
            log.write = self.lines.append

    def of(self, **fields: object) -> list[AccessLine]:
        """Those that have these values."""
        return [
            line for line in self.lines if all(getattr(line, key) == value for key, value in fields.items())
        ]


def instance_of(mesh: MemoryMesh, name: str) -> Instance:
    """The instance of a service."""
    (found,) = [each for each in mesh.instances if each.service.name == name]
    return found


def slow_of(mesh: MemoryMesh, name: str = "shop") -> list[SlowCall]:
    """The slow calls that an instance keeps."""
    written = instance_of(mesh, name)._parts.written
    assert written is not None
    return list(written.slow.recent)


def test_both_sides_write_a_line_of_each_call() -> None:
    """With the same trace; the span of the instance's line is the parent of what its handler calls."""

    async def main() -> None:
        rules, heard = policies("accessLog: on, labels: {team: blue}"), Heard()
        async with MemoryMesh(*shop(rules)) as mesh, mesh.client("web", policies=rules) as web:
            heard.listen(web, *mesh.instances)
            assert await web.call("shop.buy", "tea") == "tea"
            await anyio.sleep(0.1)
            assert [
                (line.reporter, line.source_service, line.destination_service) for line in heard.lines
            ] == [
                ("destination", "shop", "stock"),
                ("source", "shop", "stock"),
                ("destination", "web", "shop"),
                ("source", "web", "shop"),
            ]
            own = instance_of(mesh, "shop")
            (there,), (here,) = (
                heard.of(reporter="destination", endpoint="buy"),
                heard.of(reporter="source", endpoint="buy"),
            )
            assert (there.destination_instance, there.source_instance, there.caller) == (own.id, None, "web")
            assert here.source_instance == web.client.transport.connection
            assert there.status == here.status == "OK"
            assert there.error is there.flags is there.policy is here.error is None
            assert (there.bytes_in, here.bytes_out) == (len(b'"tea"'), len(b'"tea"'))
            assert (there.bytes_out, here.bytes_in) == (len(b'"tea"'), len(b'"tea"'))
            assert there.duration_ms == pytest.approx(400.0, abs=5.0)
            assert there.queue_ms == pytest.approx(0.0, abs=5.0)
            assert (there.attempt, here.attempt) == (1, 1)
            assert len({line.trace_id for line in heard.lines}) == 1
            assert len({line.span_id for line in heard.lines}) == 4
            assert there.labels == {"team": "blue"}

    run_virtual(main)


def test_a_line_has_the_fields_of_the_contract_in_their_order() -> None:
    """And no other, unless a policy gives labels; what nobody knows is null."""
    line = AccessLine(
        ts="2026-01-01T00:00:00.000000Z", reporter="source", source_service="a", source_instance=None,
        destination_service="b\n", destination_instance=None, endpoint="c", status="OK", flags=None, error=None,
        duration_ms=1.0, queue_ms=None, attempt=1, bytes_in=0, bytes_out=0, caller="a", policy=None, trace_id=None,
        span_id=None,
    )  # fmt: skip
    body = msgspec.json.encode(line)
    assert " ".join(msgspec.json.decode(body)) == FIELDS
    assert b"\n" not in body


@pytest.mark.parametrize("wall_s", [0.0, 1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.0, 951_782_399.5])
def test_the_time_of_a_line_is_written_as_everywhere(wall_s: float) -> None:
    """Whichever second was written before it."""
    assert stamp(wall_s) == rfc3339(wall_s)


def test_errors_alone_are_written_where_that_is_asked_for() -> None:
    """Whatever failed, in words of the mesh's own: no text of an error goes into a log that others read."""

    async def main() -> None:
        limit = HEAD.format(kind="Limit", name="one", spec="target: {service: shop}, concurrency: {limit: 1}")
        retry = HEAD.format(kind="Destination", name="once", spec="retry: {attempts: 1}")
        rules, heard = policies("accessLog: errors", limit, retry), Heard()
        async with MemoryMesh(*shop(rules)) as mesh, mesh.client("web", policies=rules) as web:
            heard.listen(web, *mesh.instances)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(web.call, "shop.buy", "tea")
                await anyio.sleep(0.01)
                with pytest.raises(MeshError):
                    await web.call("shop.buy", "more")
            for what in ("none", "broken"):
                with pytest.raises((OutOfStock, RemoteError, ApplicationError)):
                    await web.call("shop.buy", what)
            with pytest.raises(MeshError):
                await web.call("shop.nothing")
            await anyio.sleep(0.1)
            assert [
                (line.status, line.error, line.flags, line.policy)
                for line in heard.of(reporter="destination")
            ] == [
                ("RESOURCE_EXHAUSTED", "concurrency", "UO", "Limit/one"),
                ("FAILED_PRECONDITION", "application", None, None),
                ("INTERNAL", "handler", None, None),
                ("UNIMPLEMENTED", "unimplemented", "NR", None),
            ]
            assert [(line.status, line.flags) for line in heard.of(reporter="source")] == [
                ("RESOURCE_EXHAUSTED", "UO"), ("FAILED_PRECONDITION", None), ("INTERNAL", None),
                ("UNIMPLEMENTED", "NR"),
            ]  # fmt: skip
            text = msgspec.json.encode(heard.lines)
            assert b"4242" not in text
            assert b"secret" not in text
            assert heard.lines[-1].endpoint in ("nothing", "_OTHER")

    run_virtual(main)


def test_a_share_keeps_whole_traces() -> None:
    """Both sides write the same calls, by their traces."""

    async def main() -> None:
        rules, heard = policies("accessLog: {share: 30%}"), Heard()
        async with MemoryMesh(*shop(rules)) as mesh, mesh.client("web", policies=rules) as web:
            heard.listen(web, *mesh.instances)
            for _ in range(60):
                await web.call("stock.take", 0.0)
            await anyio.sleep(0.1)
            there = {line.trace_id for line in heard.of(reporter="destination")}
            assert {line.trace_id for line in heard.of(reporter="source")} == there
            assert 4 <= len(there) <= 40

    run_virtual(main)


def test_without_a_policy_no_call_is_asked_anything() -> None:
    """Neither at the instance nor at the caller; a policy that comes and goes leaves nothing."""

    async def main() -> None:
        none, asks = policies("tap: off"), policies("accessLog: on, slow: 1s")
        async with MemoryMesh(*shop(none)) as mesh, mesh.client("web", policies=none) as web:
            own = instance_of(mesh, "shop")
            watching = own.dispatcher.watching
            assert not {"access-log", "slow"} & watching.names
            assert "access-log" not in web.client.watching.names
            own._follow(asks)
            assert {"access-log", "slow"} <= watching.names
            assert "access-log" in own.client.watching.names
            own._follow(none)
            assert not {"access-log", "slow"} & watching.names
            assert "access-log" not in own.client.watching.names

    run_virtual(main)


def test_calls_that_a_handler_makes_are_noted_for_whoever_reads_them() -> None:
    """That is the log of slow calls: an access log needs none of them, and its calls keep none."""

    async def main(spec: str) -> list[list[str] | None]:
        kept: list[list[str] | None] = []
        async with MemoryMesh(*shop(policies(spec))) as mesh:
            dispatcher = instance_of(mesh, "shop").dispatcher

            def see(call: Arrival, took_s: float) -> None:
                calls = call.context.own_calls
                kept.append(None if calls is None else [target for target, *_ in calls])

            dispatcher.watching.set("test", see)
            await mesh.call("shop.buy", "tea")
            assert "access-log" in dispatcher.watching.names
        return kept

    assert run_virtual(main, "accessLog: on") == [None]
    assert run_virtual(main, "accessLog: on, slow: 1s") == [["stock.take"]]


def test_a_slow_call_says_where_its_time_went() -> None:
    """In the queue, in the handler itself, in each call that it made; a call that is fast enough is not kept."""

    async def main() -> None:
        rules = policies("slow: 200ms, labels: {team: blue}")
        async with MemoryMesh(*shop(rules)) as mesh:
            await mesh.call("shop.buy", "tea")
            await mesh.call("stock.take", 0.1)
            (call,) = slow_of(mesh)
            assert (call.service, call.endpoint, call.caller, call.status) == ("shop", "buy", "test", "OK")
            assert call.duration_s == pytest.approx(0.4, abs=0.01)
            assert call.handler_s == pytest.approx(0.4, abs=0.01)
            assert call.own_s == pytest.approx(0.1, abs=0.01)
            (step,) = call.steps
            assert (step.target, step.status) == ("stock.take", "OK")
            assert step.at_s == pytest.approx(0.1, abs=0.01)
            assert step.took_s == pytest.approx(0.3, abs=0.01)
            assert (call.threshold_s, call.p99_s, call.policy) == (0.2, None, "Telemetry/told")
            assert len(call.trace) == 32
            assert call.labels == {"team": "blue"}
            assert [each.endpoint for each in slow_of(mesh, "stock")] == ["take"]
            assert "stock.take 30" in said(call)

    run_virtual(main)


def test_a_process_that_stood_still_blames_nobody_who_was_called() -> None:
    """It was stopped while its handler waited, and saw the answer when it went on: that time is named for what it is.
    What stood still outside of its calls is its own, as far as anybody can say."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 200ms"))) as mesh:
            instance = instance_of(mesh, "shop")
            now = instance._clock.monotonic()
            # The handler itself until 0.1 s, stock until 0.4 s.
            instance.transport.stats.stalls += [
                (now - 5.0, now - 4.0),
                (now + 0.05, now + 0.3),
                (now + 0.35, now + 9),
            ]
            await mesh.call("shop.buy", "tea")
            (call,) = slow_of(mesh)
            (step,) = call.steps
            assert call.own_s == pytest.approx(0.1, abs=0.01)
            assert call.stood_s == pytest.approx(0.25, abs=0.01)
            assert step.took_s == pytest.approx(0.3, abs=0.01)
            assert step.stood_s == pytest.approx(0.25, abs=0.01)
            assert "the process stood still 25" in said(call)
            assert [each.stood_s for each in slow_of(mesh, "stock")] == [0.0], "another process"

    run_virtual(main)


def test_calls_at_the_same_time_count_once() -> None:
    """Of a handler that waits for many calls at once nothing is left for itself; the longest are named."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 200ms"))) as mesh:
            await mesh.call("shop.both", MAX_STEPS + 4, timeout=5.0)
            (call,) = slow_of(mesh)
            assert call.own_s == pytest.approx(0.0, abs=0.01)
            assert (len(call.steps), call.more) == (MAX_STEPS, 4)

    run_virtual(main)


def test_a_multiple_of_the_p99_is_learned_by_the_instance() -> None:
    """Nothing is slow until it is known what is normal; a change of other policies forgets nothing of that."""

    async def main() -> None:
        rules = policies("slow: {timesP99: 5}")
        async with MemoryMesh(*shop(rules)) as mesh:
            await mesh.call("stock.take", 1.0)
            for _ in range(200):
                await mesh.call("stock.take", 0.01)
            instance_of(mesh, "stock")._follow(policies("slow: {timesP99: 5}, tracing: 2%"))
            for _ in range(64):
                await mesh.call("stock.take", 0.01)
            await mesh.call("stock.take", 0.5)
            (call,) = slow_of(mesh, "stock")
            assert call.p99_s is not None
            assert call.duration_s == pytest.approx(0.5, abs=0.01)
            assert call.threshold_s == pytest.approx(5 * call.p99_s, abs=1e-5)

    run_virtual(main)


def test_too_many_slow_calls_are_counted() -> None:
    """A time in which everything is slow is no time to keep more; the next one that is kept says how many were not."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 1us"))) as mesh:
            for _ in range(200):
                await mesh.call("stock.take", 0.001)
            await anyio.sleep(10.0)
            await mesh.call("stock.take", 0.001)
            written = instance_of(mesh, "stock")._parts.written
            assert written is not None
            kept = slow_of(mesh, "stock")
            assert 64 <= len(kept) <= MAX_CALLS
            assert written.slow.missed > 50
            assert sum(each.missed for each in kept) == written.slow.missed
            assert len(kept) + written.slow.missed == 201

    run_virtual(main)


def test_an_instance_says_of_which_endpoints_nothing_is_slow_yet() -> None:
    """By the endpoint's own p99, and with how many calls it knows; no more once it knows enough."""

    async def main() -> None:
        async with (
            MemoryMesh(*shop(policies("slow: {timesP99: 3}"))) as mesh,
            mesh.client("looker") as looker,
        ):
            client = looker.client

            async def learning() -> tuple[object, object, dict[str, int]]:
                answers = Answers()
                inbox = client.mux.open("telemetry", answers)
                client.transport.publish(client.subjects.want("slow", "stock", "looker"), b"", inbox)
                await anyio.sleep(0.01)
                client.mux.close(inbox)
                (heard,) = answers.heard
                answer = decode_slow_answer(heard)
                return answer.service, answer.instance, answer.learning

            own = "stock", instance_of(mesh, "stock").id
            assert await learning() == (*own, {"take": 0})
            for _ in range(12):
                await mesh.call("stock.take", 0.001)
            assert await learning() == (*own, {"take": 12})
            for _ in range(2 * MIN_CALLS):
                await mesh.call("stock.take", 0.001)
            assert await learning() == (*own, {})

    run_virtual(main)


def test_slow_calls_are_told_to_who_listens_and_to_who_asks() -> None:
    """One that comes later asks, and gets what is kept; nothing is published while nobody listens."""

    async def main() -> None:
        async with MemoryMesh(*shop(policies("slow: 200ms"))) as mesh, mesh.client("looker") as looker:
            client, told = looker.client, []

            def on_slow(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
                told.append(decode_slow(payload, service="shop", namespace="default"))

            client.transport.subscribe(client.subjects.telemetry_of("slow", "shop"), on_slow)
            await mesh.call("shop.buy", "one")
            assert told == []
            answers = Answers()
            inbox = client.mux.open("telemetry", answers)
            client.transport.publish(client.subjects.want("slow", "shop", "looker"), b"", inbox)
            await anyio.sleep(0.01)
            (kept,) = answers.heard
            assert [call.endpoint for call in decode_slow_answer(kept).calls] == ["buy"]
            await mesh.call("shop.buy", "two")
            assert [call.seq for call in told] == [2]
            client.mux.close(inbox)

    run_virtual(main)


class Answers:
    """Takes what members answer."""

    def __init__(self) -> None:
        self.subject = ""
        self.heard: list[bytes] = []

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        """One of them."""
        if payload:
            self.heard.append(payload)

    def on_failure(self, error: MeshError) -> None:
        """The bus is away."""
        raise AssertionError(error)


@pytest.mark.parametrize(
    "change",
    [
        {"service": "other"}, {"namespace": "other"}, {"instance": "x y"}, {"endpoint": "a.b"},
        {"status": "ok"}, {"duration_s": -1.0}, {"seq": 0}, {"trace": "zz"}, {"policy": "a\nb"},
        {"at": "yesterday"}, {"steps": [{"target": "x\x1b[31m", "at_s": 0, "took_s": 0, "status": "OK"}]},
        {"steps": [{"target": "x", "at_s": 0, "took_s": 0, "status": "OK"}] * (MAX_STEPS + 1)},
    ],
)  # fmt: skip
def test_what_is_no_slow_call_is_refused(change: dict[str, Any]) -> None:
    """Nothing that could not be shown on a terminal, or that claims another name than its subject, is believed."""
    good = {
        "at": "2026-01-01T00:00:00.000000Z", "service": "shop", "instance": "A1", "version": "1.0.0",
        "namespace": "default", "seq": 1, "endpoint": "buy", "caller": "web", "status": "OK", "duration_s": 1.0,
    }  # fmt: skip
    assert decode_slow(JSON.encode(good), service="shop", instance="A1", namespace="default").seq == 1
    with pytest.raises(CodecError):
        decode_slow(JSON.encode({**good, **change}), service="shop", instance="A1", namespace="default")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"service": "stock"}, {}),
        ({"instance": "A2"}, {}),
        ({"namespace": "other"}, {}),
        ({}, {"service": "stock"}),
        ({}, {"namespace": "other"}),
    ],
)
def test_nobody_keeps_slow_calls_of_another(change: dict[str, Any], said: dict[str, str]) -> None:
    """An answer that tells of two instances, or of one that was not asked, is refused whole."""
    good = {
        "at": "2026-01-01T00:00:00.000000Z", "service": "shop", "instance": "A1", "version": "1.0.0",
        "namespace": "default", "seq": 1, "endpoint": "buy", "caller": "web", "status": "OK", "duration_s": 1.0,
    }  # fmt: skip
    own = JSON.encode({"calls": [good, good]})
    assert len(decode_slow_answer(own, service="shop", namespace="default").calls) == 2
    assert decode_slow_answer(JSON.encode({"calls": []}), service="shop", namespace="default").calls == ()
    with pytest.raises(CodecError, match="nobody asked"):
        decode_slow_answer(JSON.encode({"calls": [], "service": "stock"}), service="shop")
    with pytest.raises(CodecError, match="in an answer of"):
        decode_slow_answer(JSON.encode({"calls": [good], "service": "stock"}))
    with pytest.raises(CodecError, match="in an answer of"):
        decode_slow_answer(JSON.encode({"calls": [good, {**good, **change}]}), **said)
