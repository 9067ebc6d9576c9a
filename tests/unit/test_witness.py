"""Who ought to answer a roll call: presence as a second witness, on a bus in memory and in virtual time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
import pytest

from nats_mesh.discovery.acks import Acks
from nats_mesh.discovery.expected import Expected
from nats_mesh.discovery.reports import Member
from nats_mesh.discovery.services_api import ServiceDoc, ping_response, service_metadata
from nats_mesh.discovery.witness import Witness
from nats_mesh.testing.virtual import LoopClock, run_virtual
from nats_mesh.wire.kv_log import KvLog, Message, Page
from nats_mesh.wire.loop import call_later
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions
from tests.crowd import Crowd

CHANGE = {"Limit.a": 7}
#: When observers drop an instance that beats every five seconds: three beats, each with its jitter and the way.
GONE_S = 3 * 1.3 * 5.0


class Scene:
    """An operator who waits, and instances that say that they are there and answer no roll call."""

    def __init__(self, bus: MemoryBus, acks: Acks, crowd: Crowd) -> None:
        self.bus = bus
        self.acks = acks
        self.crowd = crowd

    async def wait(self, timeout_s: float) -> tuple[list[str], float]:
        """Who is silent after waiting for a change, and how long that took."""
        start = anyio.current_time()
        report = await self.acks.wait(1, CHANGE, timeout_s=timeout_s)
        return [each.instance for each in report.silent], anyio.current_time() - start


def run(main: Callable[[Scene], Awaitable[None]], *without: str) -> None:
    """Run ``main`` in virtual time."""

    async def whole() -> None:
        bus = MemoryBus()
        transport = await bus.connect(ConnectOptions(name="ops"))
        clock = LoopClock()
        mux, subjects = ReplyMux(transport, clock.monotonic), Subjects("default")
        witness = Witness(subjects=subjects, transport=transport, mux=mux, clock=clock)
        acks = Acks(subjects=subjects, transport=transport, mux=mux, witness=witness, without=without)
        await acks.open()
        await main(Scene(bus, acks, await Crowd.on(bus)))
        acks.close()

    run_virtual(whole)


async def answers_everybody(scene: Scene, instance: str, *, kind: str = "service") -> Callable[[], None]:
    """Somebody who answers every roll call under a name, and says nothing else; what makes him stop."""
    transport = await scene.bus.connect(ConnectOptions(name="forger"))
    document = ServiceDoc(
        name="pool",
        id=instance,
        version="1.0.0",
        started="2026-01-01T00:00:00.000000Z",
        metadata={**service_metadata("default", {}, kind=kind), "mesh.policies": "bus"},
    )
    said = ping_response(document)
    subscription = transport.subscribe(
        "$SRV.PING", lambda subject, reply, headers, payload: transport.publish(reply, said)
    )
    return lambda: transport.unsubscribe(subscription)


async def servers_know(
    scene: Scene,
    *,
    connections: int | None,
    leaf_nodes: int | None = 0,
    server: str = "one",
    after_s: float = 0.0,
) -> None:
    """A ``server`` that has so many connections of whatever name, and leaf nodes (``None``: it does not say), and takes
    its time to answer."""
    transport = await scene.bus.connect(ConnectOptions(name="server"))

    def answer(subject: str, data: object) -> None:
        said = json.dumps({"server": {"id": server}, "data": data}).encode()

        def on_question(_: str, reply: str, headers: bytes, payload: bytes) -> None:
            call_later(after_s, transport.publish, reply, said)

        transport.subscribe(f"$SYS.REQ.ACCOUNT.PING.{subject}", on_question)

    if connections is not None:
        answer("CONNZ", {"num_connections": connections})
    if leaf_nodes is not None:
        answer("STATZ", {"account_statz": [{"acc": "$G", "leafnodes": leaf_nodes}]})


def test_an_instance_that_presence_shows_and_that_does_not_answer_is_waited_for_and_named() -> None:
    """With how long ago it gave a sign of life."""

    async def main(scene: Scene) -> None:
        scene.crowd.join("i1")
        await anyio.sleep(1.0)
        assert await scene.acks.attend() == []
        silent, took_s = await scene.wait(3.0)
        assert silent == ["i1"]
        assert took_s == pytest.approx(3.0, abs=0.6)
        (member,) = scene.acks.report(1, CHANGE).silent
        assert (member.answers, member.place) == (False, "pool/host-i1")
        assert member.why.startswith("does not answer, and gave its last sign of life")

    run(main)


def test_who_says_goodbye_is_not_waited_for() -> None:
    """It is noticed while somebody waits."""

    async def main(scene: Scene) -> None:
        scene.crowd.join("i1")
        await anyio.sleep(0.1)

        async def leave() -> None:
            await anyio.sleep(2.0)
            scene.crowd.leave("i1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            silent, took_s = await scene.wait(60.0)
            assert silent == []
            assert took_s == pytest.approx(2.0, abs=0.6)

    run(main)


def test_who_is_silent_for_as_long_as_presence_keeps_anybody_is_not_waited_for() -> None:
    """Three beats that did not come."""

    async def main(scene: Scene) -> None:
        scene.crowd.join("i1")
        await anyio.sleep(0.1)
        silent, took_s = await scene.wait(60.0)
        assert silent == []
        assert took_s == pytest.approx(GONE_S, abs=1.6)

    run(main)


@pytest.mark.parametrize("name", ["i1", "host-i1", "pool/i1", "pool/host-i1"])
def test_the_operator_may_go_on_without_somebody(name: str) -> None:
    """By whatever the message called it; the others are waited for."""

    async def main(scene: Scene) -> None:
        scene.crowd.join("i1", "i2")
        await anyio.sleep(0.1)
        assert (await scene.wait(1.0))[0] == ["i2"]
        assert [each.instance for each in scene.acks.report(1, CHANGE).without] == ["i1"]

    run(main, name)


def test_an_answer_that_presence_does_not_know_is_told_apart() -> None:
    """Anybody may answer a roll call: whom nothing else speaks for is said to be such a one, and stays silent."""

    async def main(scene: Scene) -> None:
        await answers_everybody(scene, "forged")
        assert [each.instance for each in await scene.acks.attend()] == ["forged"]
        assert (await scene.wait(1.0))[0] == ["forged"]
        silent = scene.acks.report(1, CHANGE).silent
        assert await scene.acks.look_again(silent) == []
        (member,) = scene.acks.report(1, CHANGE).silent
        assert "presence does not know it" in member.why

    run(main)


@pytest.mark.parametrize("kind", ["service", "client"])
def test_an_answer_that_no_connection_belongs_to_stops_nobody(kind: str) -> None:
    """The servers know who is connected: it is forgotten, and that is said."""

    async def main(scene: Scene) -> None:
        await servers_know(scene, connections=0)
        await answers_everybody(scene, "forged", kind=kind)
        await scene.acks.attend()
        silent = scene.acks.report(1, CHANGE).silent
        (note,) = await scene.acks.look_again(silent)
        assert "pool/forged" in note
        assert scene.acks.report(1, CHANGE).silent == ()

    run(main)


@pytest.mark.parametrize(
    ("connections", "leaf_nodes", "waited_for"), [(0, 0, False), (1, 0, True), (0, 1, True)]
)
def test_whether_a_silent_instance_has_ended_is_asked_of_the_servers(
    connections: int, leaf_nodes: int, waited_for: bool
) -> None:
    """One that is connected hangs; where there are leaf nodes it may be connected beyond them."""

    async def main(scene: Scene) -> None:
        await servers_know(scene, connections=connections, leaf_nodes=leaf_nodes)
        scene.crowd.join("i1")
        await anyio.sleep(0.1)
        await scene.acks.attend()
        assert [each.instance for each in scene.acks.absent()] == (["i1"] if waited_for else [])
        await anyio.sleep(0.1)
        scene.crowd.beat("i1")  # and who is heard again is there again
        await anyio.sleep(0.1)
        assert [each.instance for each in scene.acks.absent()] == ["i1"]

    run(main)


@pytest.mark.parametrize(
    ("connections", "leaf_nodes", "waited_for"),
    [(0, 0, False), (1, 0, True), (0, 1, True), (None, 0, True), (0, None, True)],
)
def test_every_server_has_a_word_in_it(
    connections: int | None, leaf_nodes: int | None, waited_for: bool
) -> None:
    """Also one of which the connection never heard, as where servers do not advertise themselves, and which answers
    later than the others: it alone may have the connection."""

    async def main(scene: Scene) -> None:
        await servers_know(scene, connections=0)
        await servers_know(scene, connections=connections, leaf_nodes=leaf_nodes, server="two", after_s=0.2)
        scene.crowd.join("i1")
        await anyio.sleep(0.1)
        await scene.acks.attend()
        assert [each.instance for each in scene.acks.absent()] == (["i1"] if waited_for else [])

    run(main)


@pytest.mark.parametrize(("connections", "waited_for"), [(0, False), (1, True), (None, False)])
def test_a_client_that_answers_no_more_counts_while_the_servers_say_that_it_is_connected(
    connections: int | None, waited_for: bool
) -> None:
    """It has no presence: where the servers do not say, one that ended in the middle of a change stops nobody."""

    async def main(scene: Scene) -> None:
        if connections is not None:
            await servers_know(scene, connections=connections)
        stop = await answers_everybody(scene, "c1", kind="client")
        await scene.acks.attend()
        stop()
        await scene.acks.look_again(scene.acks.report(1, CHANGE).silent)
        silent = scene.acks.report(1, CHANGE).silent
        assert [each.why for each in silent] == (["does not answer any more"] if waited_for else [])

    run(main)


def test_instances_that_find_no_room_are_a_problem_that_is_said() -> None:
    """Whoever is not known cannot be waited for: that is no silent success."""

    async def main(scene: Scene) -> None:
        transport = await scene.bus.connect(ConnectOptions(name="other"))
        clock = LoopClock()
        mux = ReplyMux(transport, clock.monotonic)
        expected = Expected(subjects=Subjects("default"), transport=transport, mux=mux, clock=clock, most=2)
        await expected.open()
        scene.crowd.join("i1", "i2")
        await anyio.sleep(0.1)
        assert (len(expected.everybody()), expected.problem) == (2, "")
        scene.crowd.join("i3")
        await anyio.sleep(0.1)
        assert "more than 2 instances" in expected.problem
        expected.close()

    run(main)


NOW = "2026-01-31T12:00:00Z"
SIGN = json.dumps(
    {
        "namespace": "default", "at": NOW, "seq": 1, "event": "sign", "service": "pool", "instance": "i1",
        "name": "host-1", "version": "1.0.0", "started": NOW, "within_s": 75.0, "state": "ready",
    }
).encode()  # fmt: skip


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z"])
@pytest.mark.parametrize("of", ["the record", "the stream", "neither"])
def test_instants_that_are_none_in_the_audit_raise_nothing(
    monkeypatch: pytest.MonkeyPatch, of: str, time: str
) -> None:
    """A record without one is left out, and a stream without one is a problem that is said."""
    now = time if of == "the stream" else NOW
    state = {"messages": 1, "first_seq": 1, "last_seq": 1, "first_ts": NOW, "last_ts": NOW}

    async def api(self: KvLog, subject: str, question: object, *, timeout_s: float) -> bytes:
        return json.dumps({"ts": now, "created": NOW, "state": state}).encode()

    async def after(self: KvLog, sequence: int, **options: object) -> Page:
        at = time if of == "the record" else NOW
        head = b"NATS/1.0\r\nNats-Stream: mesh_audit_default\r\n\r\n"
        return Page([Message(1, "presence.pool.i1", SIGN, at, head)], False, 1)

    monkeypatch.setattr(KvLog, "api", api)
    monkeypatch.setattr(KvLog, "after", after)

    async def main(scene: Scene) -> None:
        transport = await scene.bus.connect(ConnectOptions(name="other"))
        clock = LoopClock()
        mux = ReplyMux(transport, clock.monotonic)
        expected = Expected(subjects=Subjects("default"), transport=transport, mux=mux, clock=clock)
        await expected.open()
        await expected.recall()
        assert [each.instance for each in expected.everybody()] == (["i1"] if of == "neither" else [])
        assert ("names no instant" in expected.problem) is (of == "the stream")
        expected.close()

    run(main)


def test_names_that_are_none_ask_the_servers_nothing() -> None:
    """What an answer to a roll call says may be any text, and a subject is made of it."""

    async def main(scene: Scene) -> None:
        witness = scene.acks._witness
        assert witness is not None
        asked: list[str] = []
        scene.bus.fault = lambda subject, publisher: asked.append(subject)
        for service, instance in (("po.ol", "i"), ("pool", "> "), ("pool", "*"), ("", "")):
            member = Member(service=service, instance=instance)
            assert await witness.ended([member]) == {member.key: None}
        assert asked == []

    run(main)
