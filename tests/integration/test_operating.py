"""Operators' commands on a real server: drain, undrain, faults, log level, and what is not obeyed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from nats_mesh import (
    CallError,
    ConfigError,
    Executed,
    Mesh,
    NoInstancesError,
    OverloadedError,
    Refused,
    RemoteError,
    Service,
    Status,
)
from nats_mesh.core.presence import Kind, State
from nats_mesh.discovery.commands import (
    Answer,
    Command,
    Drain,
    FaultCommand,
    LogLevel,
    Undrain,
    decode_answer,
    encode,
)
from nats_mesh.discovery.messages import decode
from nats_mesh.layers import fault
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from tests.harness import PATIENCE_S, Bus, eventually
from tests.rawnats import RawMessage, RawNats, header_pairs

pytestmark = pytest.mark.anyio

OTHERS_INBOX = "_INBOX.other.AAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef.1"


class Desk:
    """A service of the test: who answered which call, and a handler that holds until told."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.held = 0
        self.release = anyio.Event()

    def service(self, plain: str | None = None, **options: Any) -> Service:
        """One more instance's service."""
        service = Service("desk", version="1.0.0", **options)

        @service.endpoint(idempotent=True, timeout=10.0, subject=plain)
        async def ask(number: int) -> int:
            self.ran.append(f"ask {number}")
            return number

        @service.endpoint(timeout=10.0, concurrency=2)
        async def hold() -> str:
            self.held += 1
            try:
                await self.release.wait()
            finally:
                self.held -= 1
            return "done"

        return service


@pytest.fixture
def desk() -> Desk:
    """Nothing has happened yet."""
    return Desk()


async def command(
    bus: Bus, to: str, what: Command | bytes, *, operator: str = "ann", expect: int = 1
) -> list[Answer]:
    """Tell it as ``operator`` does, and return the answers."""
    payloads: list[bytes] = []

    class Sink:
        subject = ""

        def on_reply(self, headers: bytes, payload: bytes) -> None:
            payloads.append(payload)

        def on_failure(self, error: CallError) -> None:
            raise error

    mesh = await bus.caller(operator)
    client = mesh.client
    reply = client.mux.open("operators", Sink())
    body = what if isinstance(what, bytes) else encode(what)
    client.transport.publish(f"mesh.{bus.namespace}.control.command.desk.{to}.{operator}", body, reply)
    await eventually(lambda: len(payloads) >= expect, lambda: payloads)
    client.mux.close(reply)
    return [decode_answer(payload) for payload in payloads]


async def one(bus: Bus, to: str, what: Command | bytes) -> Answer:
    """The one answer."""
    (answer,) = await command(bus, to, what)
    return answer


def direct(bus: Bus, instance: Instance, endpoint: str = "ask", caller: str = "raw") -> str:
    """Where a caller addresses one instance."""
    return f"mesh.{bus.namespace}.direct.desk.{instance.id}.{endpoint}.{caller}"


def fields(message: RawMessage) -> dict[str, str]:
    """The headers of a raw reply."""
    return dict(header_pairs(message.headers))


# -- draining -----------------------------------------------------------------------------------------


async def test_a_drained_instance_gets_no_calls_and_finishes_what_it_holds(
    bus: Bus, desk: Desk, tap: RawNats
) -> None:
    """It says so, leaves the queue group, serves what it has, refuses what is addressed to it, and comes back."""
    first, other = await bus.serve(desk.service()), await bus.serve(desk.service())
    caller = await bus.caller("raw")
    async with anyio.create_task_group() as tasks:
        held: list[str] = []

        async def hold() -> None:
            held.append(await bus.mesh.call("desk.hold"))

        for _ in range(2):
            tasks.start_soon(hold)
        await eventually(lambda: desk.held == 2)
        answer = await one(bus, first.id, Drain())
        assert (answer.done, answer.instance, answer.service, answer.name) == (
            True,
            first.id,
            "desk",
            first.name,
        )
        assert (answer.state, answer.in_flight) == (State.DRAINING, first.dispatcher.in_flight)
        assert (first.state, first.ready, other.ready) == (State.DRAINING, False, True)
        answered = {(await caller.request("desk.ask", n)).instance for n in range(40)}
        assert answered == {other.id}
        reply = await tap.request(direct(bus, first), b"1")
        assert fields(reply)["Mesh-Refused"] == "draining"
        assert held == []
        desk.release.set()
    assert held == ["done"] * 2
    said = [
        decode(m.payload)
        for m in tap.messages
        if m.subject == f"mesh.{bus.namespace}.presence.desk.{first.id}"
    ]
    assert (said[-1].type, said[-1].state) == (Kind.CHANGE, State.DRAINING)

    assert (await one(bus, first.id, Undrain())).state is State.READY
    assert first.ready
    answered = {(await caller.request("desk.ask", n)).instance for n in range(60)}
    assert answered == {first.id, other.id}
    assert fields(await tap.request(direct(bus, first), b"1")).get("Mesh-Refused") is None


async def test_presence_goes_before_the_queue(bus: Bus, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chooses instances learns first that this one drains; only then it leaves its queue group, and it says
    that it is back when it sits there again. As when an instance leaves for good."""
    instance = await Instance(desk.service(), settings=bus.settings, connector=bus.connector).__aenter__()
    announcer, seats = instance._parts.announcer, instance._parts.seats
    assert announcer is not None
    assert seats is not None
    steps: list[str] = []

    def noted(owner: object, name: str) -> None:
        do = getattr(owner, name)

        def step(*args: Any) -> Any:
            steps.append(" ".join([f"{type(owner).__name__}.{name}", *map(str, args)]))
            return do(*args)

        monkeypatch.setattr(owner, name, step)

    for owner, name in (
        (announcer, "change"),
        (announcer, "leave"),
        (seats, "stand_aside"),
        (seats, "leave"),
    ):
        noted(owner, name)
    await instance.stand_aside("test")
    await instance.come_back("test")
    assert steps == [
        "Announcer.change draining",
        "Seats.stand_aside True",
        "Seats.stand_aside False",
        "Announcer.change ready",
    ]
    steps.clear()
    await instance.__aexit__(None, None, None)
    assert steps[:2] == ["Announcer.leave", "Seats.leave"]
    assert not seats.taken


async def test_draining_everybody_leaves_nobody(bus: Bus, desk: Desk) -> None:
    """Sent to all it reaches each; then nobody is there, until they are told to come back."""
    instances = [await bus.serve(desk.service()) for _ in range(3)]
    answers = await command(bus, "all", Drain(), expect=3)
    assert {answer.instance for answer in answers if answer.done} == {i.id for i in instances}
    with pytest.raises(NoInstancesError):
        await bus.mesh.call("desk.ask", 1, timeout=2.0)
    await command(bus, "all", Undrain(), expect=3)
    assert await bus.mesh.call("desk.ask", 1) == 1


async def test_plain_subjects_are_left_too(bus: Bus, desk: Desk, raw: RawNats) -> None:
    """Whatever the instance serves: drained it serves nothing new."""
    plain = f"{bus.namespace}.legacy"
    instance = await bus.serve(desk.service(plain))
    await one(bus, instance.id, Drain())
    with pytest.raises(NoInstancesError):
        await bus.mesh.call(f"nats://{plain}", 1, timeout=2.0)
    await one(bus, instance.id, Undrain())
    assert await bus.mesh.call(f"nats://{plain}", 1) == 1


async def test_said_twice_it_is_done_once(bus: Bus, desk: Desk) -> None:
    """A command that changes nothing says so, and is no mistake."""
    instance = await bus.serve(desk.service())
    assert (await one(bus, instance.id, Undrain())).message == "it takes calls already"
    await one(bus, instance.id, Drain())
    again = await one(bus, instance.id, Drain())
    assert (again.done, "draining already" in again.message) == (True, True)
    await one(bus, instance.id, Undrain())
    assert [event.kind for event in instance.events.recent] == ["instance.draining", "instance.undrained"]


async def test_commands_are_carried_out_one_after_the_other(bus: Bus, desk: Desk) -> None:
    """However close together they come: the last one counts."""
    instance = await bus.serve(desk.service())
    mesh = await bus.caller("ann")
    reply = mesh.client.mux.one_way("operators")
    subject = f"mesh.{bus.namespace}.control.command.desk.{instance.id}.ann"
    for what in (Drain(), Undrain()) * 5:
        mesh.client.transport.publish(subject, encode(what), reply)
    await eventually(lambda: len(instance.events.recent) == 10)
    assert instance.ready
    assert await bus.mesh.call("desk.ask", 1) == 1


async def test_a_drained_instance_leaves_as_any_other(bus: Bus, desk: Desk, tap: RawNats) -> None:
    """Told to drain and then stopped: it says goodbye; from then on it obeys nobody."""
    async with Instance(desk.service(), settings=bus.settings, connector=bus.connector) as instance:
        await one(bus, instance.id, Drain())
        await instance.drain()
        with pytest.raises(ConfigError, match="leaving for good"):
            await instance.come_back("by the test")
    await tap.flush()
    subject = f"mesh.{bus.namespace}.presence.desk.{instance.id}"
    said = [decode(m.payload).type for m in tap.messages if m.subject == subject]
    assert said == [Kind.JOIN, Kind.CHANGE, Kind.LEAVE]


async def test_draining_back_and_forth_under_load_loses_no_call(bus: Bus, desk: Desk) -> None:
    """Two instances take turns at standing aside while callers go on: every call is answered, each ran once."""
    instances = [await bus.serve(desk.service()) for _ in range(2)]
    done: list[int] = []
    over = False

    async def caller(name: int) -> None:
        n = 0
        while not over or n < 50:
            n += 1
            number = name * 1_000_000 + n
            assert await bus.mesh.call("desk.ask", number) == number
            done.append(number)

    async with anyio.create_task_group() as tasks:
        for name in range(8):
            tasks.start_soon(caller, name)
        for turn in range(10):
            before = len(done)
            instance = instances[turn % 2]
            await instance.stand_aside("by the test")
            await eventually(lambda: len(done) > before + 40)  # noqa: B023 - awaited before it changes
            await instance.come_back("by the test")
        over = True
    assert sorted(desk.ran) == sorted(f"ask {number}" for number in done)


async def test_an_operators_drain_outlasts_what_the_instance_does_by_itself(bus: Bus, desk: Desk) -> None:
    """Whoever stood aside for reasons of its own comes back for its own; an operator's word ends both."""
    instance = await bus.serve(desk.service())
    await instance.stand_aside("callers agree")
    await one(bus, instance.id, Drain())
    assert "goes on draining, for an operator" in await instance.come_back("its time is over")
    assert instance.state is State.DRAINING
    await instance.stand_aside("callers agree again")
    assert (await one(bus, instance.id, Undrain())).state is State.READY
    assert await bus.mesh.call("desk.ask", 1) == 1


# -- what is not obeyed -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["open", "enforced"])
@pytest.mark.parametrize(
    "reply", ["", OTHERS_INBOX, "mesh.default.rpc.bank.all.transfer.desk", "reply.anywhere", "_INBOX."]
)
async def test_forged_commands_are_dropped_undecoded(
    bus: Bus, desk: Desk, raw: RawNats, tap: RawNats, reply: str, mode: str
) -> None:
    """Without an inbox of the operator: not obeyed, not answered, counted."""
    instance = await bus.serve(desk.service(), mode=mode)
    await tap.flush()
    before = len(tap.messages)
    for target in (instance.id, "all"):
        raw.publish(f"mesh.{bus.namespace}.control.command.desk.{target}.ann", encode(Drain()), reply)
    await raw.flush()
    await instance.transport.fence()
    operating = instance._parts.operating
    assert operating is not None
    assert operating.dropped == {"forged": 2}
    assert instance.ready
    await tap.flush()
    assert [m for m in tap.messages[before:] if not m.subject.startswith(f"mesh.{bus.namespace}.")] == []


async def test_a_foreign_inbox_counts_in_open_mode_alone(bus: Bus, desk: Desk, raw: RawNats) -> None:
    """`nats request` may operate a mesh for development; where identity is enforced it may not."""
    instance = await bus.serve(desk.service())
    subject = f"mesh.{bus.namespace}.control.command.desk.{instance.id}.ann"
    assert decode_answer((await raw.request(subject, encode(Drain()))).payload).done
    enforced = await bus.serve(desk.service(), mode="enforced")
    subject = f"mesh.{bus.namespace}.control.command.desk.{enforced.id}.ann"
    raw.publish(subject, encode(Drain()), "_INBOX.6LqfNuDvU2QXZzQmYYYYYY")
    await raw.flush()
    await enforced.transport.fence()
    assert enforced.ready
    await one(bus, instance.id, Undrain())


@pytest.mark.parametrize("body", [b"", b"drain", b"[]", b"\xff\xfe", b'{"command":"drain"}', b"[" * 60_000])
async def test_what_is_no_command_is_dropped(bus: Bus, desk: Desk, body: bytes) -> None:
    """Counted, without an answer, and without harm."""
    instance = await bus.serve(desk.service())
    mesh = await bus.caller("ann")
    subject = f"mesh.{bus.namespace}.control.command.desk.{instance.id}.ann"
    mesh.client.transport.publish(subject, body, mesh.client.mux.one_way("operators"))
    operating = instance._parts.operating
    assert operating is not None
    await eventually(lambda: operating.dropped == {"malformed": 1}, lambda: operating.dropped)
    assert instance.ready


async def test_a_command_for_another_instance_is_nobody_elses(bus: Bus, desk: Desk) -> None:
    """Both hear it, one obeys."""
    first, other = await bus.serve(desk.service()), await bus.serve(desk.service())
    await one(bus, other.id, Drain())
    assert (first.ready, other.ready) == (True, False)
    await one(bus, other.id, Undrain())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b'{"version":1,"command":"eject"}', "not supported"),
        (b'{"version":9,"command":"drain"}', "version 9"),
        (FaultCommand(endpoint="plac", delay_ms=1.0), "no endpoint 'plac'; it has: ask, hold"),
        (FaultCommand(abort="BROKEN"), "'BROKEN' is no status; use one of CANCELLED"),
        (FaultCommand(), "does nothing"),
        (FaultCommand(abort="OK"), "OK is no error"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_the_reason(
    bus: Bus, desk: Desk, what: Command | bytes, said: str
) -> None:
    """And nothing is done."""
    instance = await bus.serve(desk.service())
    answer = await one(bus, instance.id, what)
    assert (answer.done, said in answer.message) == (False, True), answer
    assert await bus.mesh.call("desk.ask", 1) == 1
    assert list(instance.events.recent) == []


# -- faults -------------------------------------------------------------------------------------------


async def test_an_injected_abort_is_that_status_and_is_not_retried(
    bus: Bus, desk: Desk, raw: RawNats
) -> None:
    """All calls of the endpoint, none of another; the handler does not run; no refusal, and no second attempt."""
    instance = await bus.serve(desk.service())
    answer = await one(bus, instance.id, FaultCommand(endpoint="ask", abort="unavailable"))
    assert (answer.done, "abort UNAVAILABLE for 100% of calls of ask, for 60 s" in answer.message) == (
        True,
        True,
    )
    caller = await bus.caller("strict")
    with pytest.raises(RemoteError) as caught:
        await caller.call("desk.ask", 1, idempotent=True)
    error = caught.value
    assert (error.status, error.executed, error.refused, error.fault) == (
        Status.UNAVAILABLE,
        Executed.NO,
        None,
        "abort",
    )
    assert (error.attempts, desk.ran) == (1, [])
    counted = [series for series in instance.stats if series.endpoint == "ask"]
    assert [series.by_status for series in counted] == [{"UNAVAILABLE": 1}], (
        "one attempt reached the instance"
    )
    desk.release.set()
    assert await caller.call("desk.hold") == "done"
    reply = fields(await raw.request(f"mesh.{bus.namespace}.rpc.desk.all.ask.raw", b"1"))
    assert (reply["Mesh-Fault"], reply["Mesh-Status"]) == ("abort", "UNAVAILABLE")
    assert "Mesh-Refused" not in reply
    assert (await one(bus, instance.id, FaultCommand(clear=True))).message == "cleared ask"
    assert await caller.call("desk.ask", 2) == 2


async def test_a_share_of_the_calls_is_hit(bus: Bus, desk: Desk) -> None:
    """By chance, as many as asked for."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(abort="DATA_LOSS", share=0.3))
    # Half of twenty calls in a row are hit now and then, and would open the circuit.
    off = "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: d}\nspec: {target: {service: desk}, breaker: off}\n"
    web = await bus.caller("web", policies=PolicySet.of(parse(off)))
    outcomes = []
    for n in range(300):
        try:
            await web.call("desk.ask", n)
        except RemoteError as error:
            outcomes.append(error.status)
    hit = outcomes.count(Status.DATA_LOSS)
    assert hit == len(outcomes)
    assert 55 <= hit <= 125
    assert len(desk.ran) == 300 - hit
    await one(bus, instance.id, FaultCommand(clear=True))


async def test_a_delayed_call_waits_without_a_slot_and_without_holding_up_others(
    bus: Bus, desk: Desk, raw: RawNats
) -> None:
    """It starts later; meanwhile the loop serves others, and every slot of its endpoint is free."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(endpoint="hold", delay_ms=3_600_000.0))
    desk.release.set()
    async with anyio.create_task_group() as tasks:
        got: list[str] = []

        async def call() -> None:
            got.append(await bus.mesh.call("desk.hold", timeout=60.0))

        for _ in range(5):
            tasks.start_soon(call)
        await eventually(lambda: instance.dispatcher.in_flight == 5)
        assert instance.dispatcher.served["hold"].concurrency.in_flight == 0
        assert await bus.mesh.call("desk.ask", 1) == 1
        assert got == []
        await one(bus, instance.id, FaultCommand(endpoint="hold", clear=True))
    assert got == ["done"] * 5
    await one(bus, instance.id, FaultCommand(endpoint="ask", delay_ms=1.0))
    reply = fields(await raw.request(f"mesh.{bus.namespace}.rpc.desk.all.ask.raw", b"1"))
    assert (reply["Mesh-Fault"], "Mesh-Status" in reply) == ("delay", False)


async def test_delayed_calls_are_bounded(bus: Bus, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a call is refused at once and told to come back: nothing grows because of a fault."""
    monkeypatch.setattr(fault, "_MAX_POSTPONED", 2)
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(delay_ms=3_600_000.0))
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: bus.mesh.call("desk.ask", 1, timeout=60.0))
        await eventually(lambda: instance.dispatcher.in_flight == 2)
        with pytest.raises(OverloadedError, match="injected delay") as caught:
            await bus.mesh.call("desk.ask", 3, timeout=1.0)
        assert caught.value.refused is Refused.CONCURRENCY
        await one(bus, instance.id, FaultCommand(clear=True))


async def test_a_delayed_call_ends_with_its_time(bus: Bus, desk: Desk) -> None:
    """The delay counts against the call's deadline; nothing runs and nothing is left of it."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(delay_ms=3_600_000.0))
    with pytest.raises(CallError) as caught:
        await bus.mesh.call("desk.ask", 1, timeout=0.1, idempotent=False)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    await eventually(lambda: instance.dispatcher.in_flight == 0)
    assert desk.ran == []
    await one(bus, instance.id, FaultCommand(clear=True))


async def test_a_delayed_call_can_be_cancelled(bus: Bus, desk: Desk) -> None:
    """Whoever no longer waits is not waited for."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(delay_ms=3_600_000.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: bus.mesh.call("desk.ask", 1, timeout=60.0))
        await eventually(lambda: instance.dispatcher.in_flight == 1)
        tasks.cancel_scope.cancel()
    await eventually(lambda: instance.dispatcher.in_flight == 0)
    assert desk.ran == []
    await one(bus, instance.id, FaultCommand(clear=True))


async def test_a_drain_does_not_wait_for_injected_delays(bus: Bus, desk: Desk) -> None:
    """What a fault holds back goes on at once when the instance leaves, and is answered."""
    got: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with Instance(desk.service(), settings=bus.settings, connector=bus.connector) as instance:
            await one(bus, instance.id, FaultCommand(delay_ms=3_600_000.0))

            async def call() -> None:
                got.append(await bus.mesh.call("desk.ask", 7, timeout=60.0))

            tasks.start_soon(call)
            await eventually(lambda: instance.dispatcher.in_flight == 1)
        await eventually(lambda: got == [7])


async def test_faults_end_by_themselves(bus: Bus, desk: Desk) -> None:
    """After their time the chain is the same object as before, and an event says that they are over."""
    instance = await bus.serve(desk.service())
    served = instance.dispatcher.served["ask"]
    before = (served.present, served.enter)
    await one(bus, instance.id, FaultCommand(abort="INTERNAL", for_ms=50.0))
    assert served.present != before[0]
    await eventually(lambda: served.present == before[0])
    assert await bus.mesh.call("desk.ask", 1) == 1
    kinds = [event.kind for event in instance.events.recent]
    assert kinds == ["fault.set", "fault.ended"]


async def test_a_chain_that_a_fault_does_not_concern_stays_the_object_it_is(bus: Bus, desk: Desk) -> None:
    """Only what changed is made anew."""
    instance = await bus.serve(desk.service())
    ask, hold = (instance.dispatcher.served[name] for name in ("ask", "hold"))
    before = (ask.enter, hold.enter)
    await one(bus, instance.id, FaultCommand(endpoint="ask", abort="INTERNAL"))
    assert hold.enter is before[1]
    assert ask.enter is not before[0]
    await one(bus, instance.id, FaultCommand(clear=True))
    assert len(ask.enter) == len(before[0])


async def test_faults_are_seen_by_whoever_looks(bus: Bus, desk: Desk, raw: RawNats) -> None:
    """They stand in the metadata of the Services API, with the time that is left."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(endpoint="ask", abort="ABORTED", share=0.5, for_ms=30_000.0))
    info = json.loads((await raw.request(f"$SRV.INFO.desk.{instance.id}")).payload)
    (fault,) = json.loads(info["metadata"]["mesh.faults"])
    assert 0 < fault.pop("left_ms") <= 30_000
    assert fault == {"endpoint": "ask", "delay_ms": 0.0, "abort": "ABORTED", "share": 0.5}
    await one(bus, instance.id, FaultCommand(clear=True))
    info = json.loads((await raw.request(f"$SRV.INFO.desk.{instance.id}")).payload)
    assert "mesh.faults" not in info["metadata"]


# -- the rest -----------------------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[logging.Logger]:
    """The mesh's logger, as it was before the test."""
    logger = logging.getLogger("nats_mesh")
    before = logger.level
    yield logger
    logger.setLevel(before)


async def test_the_log_level_is_changed_in_the_process(bus: Bus, desk: Desk, quiet: logging.Logger) -> None:
    """At once, and it says what it was."""
    instance = await bus.serve(desk.service())
    quiet.setLevel("WARNING")
    answer = await one(bus, instance.id, LogLevel(level="ERROR"))
    assert quiet.level == logging.ERROR
    assert "before it was WARNING" in answer.message


async def test_replies_to_a_chosen_instance_say_how_busy_it_is(bus: Bus, desk: Desk, raw: RawNats) -> None:
    """Calls it holds besides this one, and how many it takes; in values, errors and refusals, on `direct` alone."""
    instance = await bus.serve(desk.service())
    limit = 256 + 2
    assert fields(await raw.request(direct(bus, instance), b"1"))["Mesh-Load"] == f"0/{limit}"
    usual = await raw.request(f"mesh.{bus.namespace}.rpc.desk.all.ask.raw", b"1")
    assert usual.headers == f"NATS/1.0\r\nMesh-Instance: {instance.id}\r\n\r\n".encode()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: bus.mesh.call("desk.hold", timeout=30.0))
        await eventually(lambda: desk.held == 2)
        assert fields(await raw.request(direct(bus, instance), b"1"))["Mesh-Load"] == f"2/{limit}"
        refused = fields(await raw.request(direct(bus, instance, "hold")))
        assert (refused["Mesh-Refused"], refused["Mesh-Load"]) == ("concurrency", f"2/{limit}")
        unknown = fields(await raw.request(direct(bus, instance, "nothing")))
        assert (unknown["Mesh-Refused"], unknown["Mesh-Load"]) == ("unimplemented", f"2/{limit}")
        bad = fields(await raw.request(direct(bus, instance), b"{"))
        assert (bad["Mesh-Refused"], bad["Mesh-Load"]) == ("invalid", f"2/{limit}")
        late = fields(await raw.request(direct(bus, instance), b"1", b"Mesh-Timeout-Ms: 0\r\n"))
        assert (late["Mesh-Refused"], late["Mesh-Load"]) == ("deadline", f"2/{limit}")
        desk.release.set()
    packed = fields(
        await raw.request(direct(bus, instance), b"\x01", b"content-type: application/msgpack\r\n")
    )
    assert (packed["content-type"], packed["Mesh-Load"]) == ("application/msgpack", f"0/{limit}")


async def test_the_load_counts_a_call_that_waited_as_one_that_did_not(
    bus: Bus, desk: Desk, raw: RawNats
) -> None:
    """The call that is answered is never counted in its own reply."""
    instance = await bus.serve(desk.service())
    desk.release.set()
    for _ in range(3):
        reply = await raw.request(direct(bus, instance, "hold"))
        assert fields(reply)["Mesh-Load"].partition("/")[0] == "0"
    slow = anyio.Event()
    desk.release = slow
    async with anyio.create_task_group() as tasks:
        got: list[str] = []

        async def ask() -> None:
            got.append(fields(await raw.request(direct(bus, instance, "hold")))["Mesh-Load"])

        tasks.start_soon(ask)
        await eventually(lambda: desk.held == 1)
        slow.set()
    assert got[0].partition("/")[0] == "0"


async def test_a_refused_caller_of_a_full_instance_is_told_so(bus: Bus, desk: Desk) -> None:
    """As before: the queue group's own refusals are untouched by all this."""
    await bus.serve(desk.service())
    caller: Mesh = await bus.caller("other")
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: bus.mesh.call("desk.hold", timeout=30.0))
        await eventually(lambda: desk.held == 2)
        with anyio.fail_after(PATIENCE_S), pytest.raises(OverloadedError) as caught:
            await caller.call("desk.hold", timeout=1.0)
        assert caught.value.refused is Refused.CONCURRENCY
        desk.release.set()


async def test_an_event_says_who_gave_a_command_and_why(bus: Bus, desk: Desk) -> None:
    """First the name that the bus vouches for, then what he calls himself, and the reason; control characters of
    either are no part of it. Without them the name alone stands there."""
    instance = await bus.serve(desk.service())
    await one(bus, instance.id, FaultCommand(abort="INTERNAL", operator="ada@laptop", reason="game\nday"))
    await one(bus, instance.id, FaultCommand(clear=True, reason="lunch"))
    await one(bus, instance.id, Drain(operator="ada@laptop"))
    await one(bus, instance.id, Undrain())
    name = "ann"
    told = {event.kind: event.detail for event in instance.events.recent}
    assert told["fault.set"].startswith(f"by {name} (ada@laptop: game day): abort INTERNAL")
    assert told["fault.cleared"].startswith(f"by {name} (lunch): cleared")
    assert told["instance.draining"].startswith(f"by {name} (ada@laptop): draining")
    assert told["instance.undrained"].startswith(f"by {name}: ")
