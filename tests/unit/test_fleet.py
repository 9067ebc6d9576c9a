"""What one caller knows of the instances of a service, with hundreds of simulated ones in virtual time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh.core.presence import Kind, Load, State
from nats_mesh.core.registry import Registry
from nats_mesh.discovery.fleet import Fleet, FleetMember
from nats_mesh.discovery.fleets import FleetDirectory
from nats_mesh.discovery.roll_call import ROLL_S
from nats_mesh.discovery.services_api import ping_response
from nats_mesh.errors import ConfigError
from nats_mesh.testing.virtual import LoopClock, run_virtual
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions
from tests.crowd import Crowd


class Scene:
    """A caller, a crowd of instances of ``pool``, and what the caller's fleet of them reports."""

    def __init__(self, bus: MemoryBus, transport: MemoryTransport, crowd: Crowd) -> None:
        self.bus = bus
        self.transport = transport
        self.crowd = crowd
        self.clock = LoopClock()
        self.mux = ReplyMux(transport, self.clock.monotonic)
        self.subjects = Subjects("default")
        #: How many instances were listed at each notice.
        self.notices: list[int] = []

    def fleet(self, **options: Any) -> Fleet:
        """A fleet that notes its notices."""
        fleet = Fleet(
            "pool",
            transport=self.transport,
            mux=self.mux,
            subjects=self.subjects,
            clock=self.clock,
            **options,
        )
        fleet.on_change = lambda: self.notices.append(len(fleet.known()))
        return fleet

    def directory(self, **options: Any) -> FleetDirectory:
        """A directory of the caller's fleets."""
        return FleetDirectory(self.transport, self.mux, self.subjects, self.clock, **options)


def play(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    """Run ``scenario`` in virtual time; at its end the caller must have left nothing in its tables."""

    async def main() -> None:
        bus = MemoryBus()
        transport = await bus.connect(ConnectOptions(name="web"))
        scene = Scene(bus, transport, await Crowd.on(bus))
        await scenario(scene)
        assert scene.transport.stats.dropped_handler_errors == 0

    run_virtual(main)


def ids(members: Any) -> list[str]:
    """The ids of some members."""
    return [member.id for member in members]


MANY = [f"i{number:03}" for number in range(200)]


def test_the_first_answers_make_it_ready() -> None:
    """Nobody is listed until those who are there have answered; then all of them are, by id."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*reversed(MANY), labels={"zone": "eu-1", "tier": "gold"}, version="2.1.0")
        fleet = scene.fleet()
        fleet.open()
        await scene.transport.fence()
        assert (fleet.ready, fleet.instances(), len(fleet.known())) == (False, (), 200)
        await fleet.start()
        assert fleet.ready
        assert ids(fleet.instances()) == MANY
        assert fleet.instances()[0] == FleetMember(
            id="i000",
            version="2.1.0",
            labels={"zone": "eu-1", "tier": "gold"},
            zone="eu-1",
            state=State.READY,
            suspect=False,
            in_flight=0,
            limit=0,
            first_seen=-math.inf,
        )
        assert scene.crowd.pinged == 1

    play(scenario)


def test_where_nobody_listens_it_is_ready_at_once() -> None:
    """The server's word that nobody answers is an answer."""

    async def scenario(scene: Scene) -> None:
        fleet = Fleet(
            "nobody",
            transport=scene.transport,
            mux=scene.mux,
            subjects=scene.subjects,
            clock=scene.clock,
        )
        before = anyio.current_time()
        await fleet.start()
        assert (fleet.ready, fleet.instances()) == (True, ())
        assert anyio.current_time() == before
        assert scene.mux.pending == 0

    play(scenario)


def test_where_somebody_listens_and_nobody_answers_it_waits_for_a_second() -> None:
    """Who looks at everything keeps the server from saying that nobody is there: then time says it."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.crowd.silent.add("a")
        fleet = scene.fleet()
        before = anyio.current_time()
        await fleet.start()
        assert (fleet.ready, fleet.instances()) == (True, ())
        assert anyio.current_time() - before == pytest.approx(ROLL_S)
        assert scene.mux.pending == 0

    play(scenario)


def test_who_answers_late_is_listed_all_the_same() -> None:
    """The first answers make it ready; an instance far away is added when its answer comes, within a second."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("near")
        far = await Crowd.on(scene.bus)
        far.there("far")
        inbox = "_INBOX.web."
        late = {far.transport: 0.4}
        scene.bus.fault = lambda subject, publisher: (
            late.get(sending[0]) if subject.startswith(inbox) else None
        )
        sending: list[Any] = [None]
        for crowd in (scene.crowd, far):
            publish = crowd.transport.publish

            def noting(*args: Any, crowd: Crowd = crowd, publish: Any = publish) -> None:
                sending[0] = crowd.transport
                publish(*args)

            crowd.transport.publish = noting  # type: ignore[method-assign, assignment]  # a stand-in for this test
        fleet = scene.fleet()
        await fleet.start()
        assert ids(fleet.instances()) == ["near"]
        assert scene.mux.pending == 1, "it still listens"
        await anyio.sleep(0.5)
        assert ids(fleet.instances()) == ["far", "near"]
        await anyio.sleep(ROLL_S)
        assert scene.mux.pending == 0

    play(scenario)


def test_many_joins_in_one_turn_are_one_notice() -> None:
    """Each change counts in the version; whoever is told is told once, when all of them are in."""

    async def scenario(scene: Scene) -> None:
        fleet = scene.fleet()
        await fleet.start()
        await anyio.sleep(1.0)
        scene.notices.clear()
        before = fleet.version
        scene.crowd.join(*MANY)
        await anyio.sleep(0.1)
        assert fleet.version == before + 200
        assert scene.notices == [200]
        scene.crowd.leave(*MANY[:50])
        await anyio.sleep(0.1)
        assert scene.notices == [200, 150]
        assert ids(fleet.instances()) == MANY[50:]

    play(scenario)


def test_who_drains_is_not_called_and_who_comes_back_is() -> None:
    """A draining instance is not listed; what it said and its version are changes."""

    async def scenario(scene: Scene) -> None:
        fleet = scene.fleet()
        await fleet.start()
        scene.crowd.join("a", "b")
        await scene.transport.fence()
        scene.crowd.say("a", Kind.CHANGE, state=State.DRAINING)
        await scene.transport.fence()
        assert ids(fleet.instances()) == ["b"]
        version = fleet.version
        scene.crowd.say("a", Kind.CHANGE, state=State.READY, version="1.0.1", labels={"canary": "yes"})
        await scene.transport.fence()
        assert fleet.version > version
        [first, _] = fleet.instances()
        assert (first.id, first.version, first.labels, first.zone) == ("a", "1.0.1", {"canary": "yes"}, "")

    play(scenario)


def test_a_beat_brings_the_load_and_is_no_change() -> None:
    """Beats are taken in without a new version and without a notice; an unchanged list is the same object."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        fleet = scene.fleet()
        await fleet.start()
        await anyio.sleep(0.0)
        scene.notices.clear()
        version, before = fleet.version, fleet.instances()
        scene.crowd.beat()
        await scene.transport.fence()
        assert fleet.instances() is before
        scene.crowd.beat("i007", load=Load(in_flight=3, limit=8))
        await anyio.sleep(0.1)
        member = fleet.instances()[7]
        assert (member.id, member.in_flight, member.limit) == ("i007", 3, 8)
        assert (fleet.version, scene.notices) == (version, [])

    play(scenario)


def test_who_falls_silent_is_a_suspect_first_and_stays_listed() -> None:
    """Suspect 13 s after its last beat, and still called; gone after 19.5 s."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        fleet = scene.fleet()
        await fleet.start()
        scene.crowd.beat()
        await scene.transport.fence()
        for _ in range(5):
            await anyio.sleep(3.0)
            scene.crowd.beat("b")
        assert [(each.id, each.suspect) for each in fleet.instances()] == [("a", True), ("b", False)]
        scene.crowd.beat("a")
        await scene.transport.fence()
        assert [each.suspect for each in fleet.instances()] == [False, False]
        for _ in range(7):
            await anyio.sleep(3.0)
            scene.crowd.beat("b")
        assert ids(fleet.instances()) == ["b"]

    play(scenario)


def test_nothing_happens_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No work every second: the registry is looked at when somebody is due, and not before."""
    ticks: list[float] = []
    tick = Registry.tick

    def counting(self: Registry, now: float, **options: Any) -> Any:
        ticks.append(now)
        return tick(self, now, **options)

    monkeypatch.setattr(Registry, "tick", counting)

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY, interval_s=60.0)
        fleet = scene.fleet()
        await fleet.start()
        await anyio.sleep(150.0)
        assert ticks == []
        assert len(fleet.instances()) == 200
        await anyio.sleep(10.0)
        assert all(each.suspect for each in fleet.instances())
        assert len(ticks) == 1

    play(scenario)


def test_whoever_promises_to_be_heard_sooner_is_judged_sooner() -> None:
    """The one timer is moved forward for an instance with a shorter interval than those before it."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("slow", interval_s=600.0)
        fleet = scene.fleet()
        await fleet.start()
        scene.crowd.join("quick", interval_s=1.0)
        await anyio.sleep(2.7)
        assert {each.id: each.suspect for each in fleet.instances()} == {"quick": True, "slow": False}
        await anyio.sleep(1.3)
        assert ids(fleet.instances()) == ["slow"]

    play(scenario)


def test_who_was_away_itself_judges_nobody() -> None:
    """After a stall of this process everyone gets one more interval: the beats of the time are still to be read."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        fleet = scene.fleet()
        await fleet.start()
        scene.crowd.beat()
        await anyio.sleep(1.0)
        loop: Any = asyncio.get_running_loop()
        loop._jumping.now += 60.0  # the loop stands still for a minute, and everybody's time is over
        for _ in range(3):
            await anyio.sleep(0.0)
        assert [each.suspect for each in fleet.instances()] == [False] * 200
        await anyio.sleep(5.0)
        scene.crowd.beat()
        await scene.transport.fence()
        await anyio.sleep(10.0)
        assert len(fleet.instances()) == 200
        assert not any(each.suspect for each in fleet.instances())

    play(scenario)


def test_when_an_instance_was_first_seen() -> None:
    """Who joins while we watch is new since then, and stays so; who was there before is not new; a new start is."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("old")
        fleet = scene.fleet()
        await fleet.start()
        await anyio.sleep(5.0)
        scene.crowd.join("new")
        joined = anyio.current_time()
        await anyio.sleep(3.0)
        scene.crowd.beat("old", "new", load=Load(in_flight=1, limit=2))
        scene.crowd.say("new", Kind.CHANGE, version="1.0.1")
        await scene.transport.fence()
        assert {each.id: each.first_seen for each in fleet.instances()} == {"old": -math.inf, "new": joined}
        scene.crowd.say("old", Kind.JOIN, started="2025-01-01T00:00:00.000000Z")
        restarted = anyio.current_time()
        await scene.transport.fence()
        assert {each.id: each.first_seen for each in fleet.instances()}["old"] == restarted

    play(scenario)


def test_it_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Instances beyond the bound are counted and not listed, and the log says so once."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there(*MANY)
        fleet = scene.fleet(max_instances=150)
        await fleet.start()
        assert len(fleet.instances()) == 150
        assert fleet.overflowed == 50
        scene.crowd.beat()
        await scene.transport.fence()
        assert fleet.overflowed == 100
        scene.crowd.leave(fleet.instances()[0].id)
        scene.crowd.beat()
        await scene.transport.fence()
        assert len(fleet.instances()) == 150, "there is room for one more"

    play(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "pool has more than 150 instances; those beyond get no calls that choose an instance"
    ]


def test_a_flood_of_answers_is_not_read() -> None:
    """Whoever may answer cannot keep the caller busy: a bounded number of answers is read, and then no more."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        fleet = scene.fleet(max_instances=10)
        fleet.open()
        read: list[object] = []
        answered = fleet.answered

        def counting(announcement: Any) -> None:
            read.append(announcement)
            answered(announcement)

        fleet.answered = counting  # type: ignore[method-assign]  # a stand-in for this test
        assert fleet._roll is not None
        document = ping_response(scene.crowd.document(scene.crowd.members["a"]))
        for _ in range(100):
            scene.crowd.transport.publish(fleet._roll._reply, document)
        await scene.transport.fence()
        assert len(read) == 36
        assert fleet.ready
        assert ids(fleet.instances()) == ["a"]
        assert scene.mux.pending == 0

    play(scenario)


STRANGE: dict[str, dict[str, Any]] = {
    "another service": {"name": "other"},
    "another namespace": {"mesh.namespace": "elsewhere"},
    "outside the mesh": {"mesh.namespace": None},
    "a client": {"mesh.kind": "client"},
    "not joined yet": {"mesh.seq": "0"},
    "no number": {"mesh.seq": "one"},
    "an endless interval": {"mesh.interval_s": "inf"},
    "an unknown state": {"mesh.state": "dancing"},
    "a reserved id": {"id": "all"},
    "an id that is no name": {"id": "a/b"},
    "a version that is none": {"version": "new"},
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_instance_of_the_service_is_not_listed(strange: dict[str, Any]) -> None:
    """An answer that could not have been announced changes nothing."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("good")
        document = msgspec.json.decode(ping_response(scene.crowd.document(scene.crowd.members["good"])))
        document["id"] = "strange"
        for key, value in strange.items():
            where = document if key in document else document["metadata"]
            if value is None:
                del where[key]
            else:
                where[key] = value
        answer = msgspec.json.encode(document)
        scene.crowd.transport.subscribe(
            "$SRV.PING.pool",
            lambda subject, reply, headers, payload: scene.crowd.transport.publish(reply, answer),
        )
        fleet = scene.fleet()
        await fleet.start()
        await anyio.sleep(ROLL_S)
        assert ids(fleet.known()) == ["good"]

    play(scenario)


def test_an_answer_does_not_bring_back_who_has_left() -> None:
    """A leave that was heard before an answer of the same start arrives is the later word."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        scene.bus.fault = lambda subject, publisher: 0.5 if subject.startswith("_INBOX.web.") else None
        fleet = scene.fleet()
        fleet.open()
        await scene.transport.fence()
        scene.crowd.leave("a")
        await fleet.start()
        assert ids(fleet.instances()) == ["b"]

    play(scenario)


def test_after_a_reconnect_everybody_is_asked_again() -> None:
    """Who joined meanwhile is learned at once; what was known stays in use while the connection is away."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        fleet = scene.fleet()
        await fleet.start()
        scene.transport.cut()
        assert (fleet.ready, ids(fleet.instances())) == (True, ["a", "b"])
        scene.crowd.join("c")
        await anyio.sleep(60.0)
        assert ids(fleet.instances()) == ["a", "b"], "silence says nothing while the bus is away"
        scene.crowd.vanish("a")
        scene.transport.mend()
        await anyio.sleep(0.1)
        assert scene.crowd.pinged == 2
        assert ids(fleet.instances()) == ["a", "b", "c"]
        for _ in range(10):
            await anyio.sleep(3.0)
            scene.crowd.beat()
        assert ids(fleet.instances()) == ["b", "c"]

    play(scenario)


def test_a_fleet_opened_while_the_connection_is_away_is_ready_when_it_is_back() -> None:
    """Nothing is lost and nothing raises: it asks when it can."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.transport.cut()
        fleet = scene.fleet()
        await fleet.start()
        assert not fleet.ready
        scene.transport.mend()
        assert await fleet.wait(1.0)
        assert ids(fleet.instances()) == ["a"]

    play(scenario)


def test_a_connection_that_is_lost_while_it_asks() -> None:
    """Whoever waits for the first answers is told at once, and the question is put again later."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.bus.fault = lambda subject, publisher: 0.5 if subject.startswith("_INBOX.web.") else None
        fleet = scene.fleet()
        fleet.open()
        asyncio.get_running_loop().call_later(0.1, scene.transport.cut)
        before = anyio.current_time()
        assert not await fleet.wait(10.0)
        assert anyio.current_time() - before == pytest.approx(0.1)
        scene.transport.mend()
        assert await fleet.wait(10.0)

    play(scenario)


def test_without_the_right_to_hear_presence_it_never_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, once; nobody is listed for balancing, and a gather can still ask who is there now."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a", "b")
        fleet = scene.fleet()
        fleet.open()
        fleet.on_denied("subscription", "mesh.default.presence.other.*")
        fleet.on_denied("publish", "mesh.default.presence.pool.*")
        assert fleet.problem == ""
        fleet.on_denied("subscription", "mesh.default.presence.pool.*")
        await fleet.wait(1.0)
        assert (fleet.ready, fleet.instances()) == (False, ())
        assert "'web' subscribe to mesh.default.presence.pool.*" in fleet.problem
        assert ids(fleet.known()) == ["a", "b"]
        await anyio.sleep(2.0)
        scene.crowd.vanish("a")
        await fleet.wait(1.0)
        assert ids(fleet.known()) == ["b"], "each question is answered anew"
        fleet.on_denied("subscription", "mesh.default.presence.pool.*")

    play(scenario)
    [record] = caplog.records
    assert "its queue group takes the calls: the server's permissions" in record.getMessage()


def test_a_right_that_is_granted_later_counts_from_the_next_connection_on() -> None:
    """After a reconnect it listens and asks as if it had never been refused."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        fleet = scene.fleet()
        fleet.open()
        fleet.on_denied("subscription", "mesh.default.presence.pool.*")
        await fleet.wait(1.0)
        scene.transport.cut()
        scene.transport.mend()
        assert await fleet.wait(1.0)
        scene.crowd.join("b")
        await scene.transport.fence()
        assert (fleet.problem, ids(fleet.instances())) == ("", ["a", "b"])

    play(scenario)


def test_without_the_right_to_ask_it_never_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    """What presence brings is known, but nobody can say whether it is everybody; the log says why."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        scene.crowd.silent.add("a")
        fleet = scene.fleet()
        fleet.open()
        loop = asyncio.get_running_loop()
        for delay_s in (0.1, 0.2):  # the server refuses each question a moment after it was put
            loop.call_later(delay_s, scene.mux.on_denied, "publish", "$SRV.PING.pool")
            before = anyio.current_time()
            assert not await fleet.wait(1.0)
            assert anyio.current_time() - before == pytest.approx(delay_s)
        scene.crowd.beat("a")
        await scene.transport.fence()
        assert (fleet.ready, fleet.instances(), ids(fleet.known())) == (False, (), ["a"])

    play(scenario)
    [record] = caplog.records
    assert "publish on $SRV.PING.pool" in record.getMessage()


def test_a_closed_fleet_leaves_nothing_behind() -> None:
    """No subscription, no listener, no wait, no timer, no notice; closing twice is fine."""

    async def scenario(scene: Scene) -> None:
        subscriptions, listeners = len(scene.transport.subscriptions), len(scene.transport._listeners)
        scene.crowd.there("a")
        fleet = scene.fleet()
        fleet.open()
        await scene.transport.fence()
        waiting = asyncio.ensure_future(fleet.wait(1000.0))
        await anyio.sleep(0.01)
        scene.notices.clear()
        await fleet.close()
        await fleet.close()
        assert await waiting is False
        assert (len(scene.transport.subscriptions), len(scene.transport._listeners)) == (
            subscriptions,
            listeners,
        )
        assert scene.mux.pending == 0
        scene.crowd.join("b")
        scene.transport.cut()
        scene.transport.mend()
        await anyio.sleep(100.0)
        assert (fleet.ready, fleet.known(), scene.notices) == (False, (), [])

    play(scenario)


def test_a_service_that_is_none_is_refused() -> None:
    """A name that cannot stand in a subject is said where it is given."""

    async def scenario(scene: Scene) -> None:
        with pytest.raises(ConfigError, match="service name 'a b'"):
            scene.directory().fleet("a b")
        for options in ({"max_fleets": 0}, {"max_instances": 0}, {"idle_s": 0.0}):
            with pytest.raises(ConfigError, match="must be at least 1"):
                scene.directory(**options)

    play(scenario)


# -- the directory ----------------------------------------------------------------------------------


def test_a_service_has_one_fleet() -> None:
    """Whoever asks for the same service gets the same fleet, opened once."""

    async def scenario(scene: Scene) -> None:
        scene.crowd.there("a")
        fleets = scene.directory()
        fleet = fleets.fleet("pool")
        assert fleets.fleet("pool") is fleets.visit("pool") is fleet
        await fleet.start()
        assert scene.crowd.pinged == 1
        assert len(fleets) == 1
        await fleets.close()

    play(scenario)


def test_a_fleet_that_nobody_uses_is_closed_after_five_minutes() -> None:
    """Visits keep it, and so does whoever holds it; released, it goes five minutes later."""

    async def scenario(scene: Scene) -> None:
        fleets = scene.directory()
        visited, held = fleets.visit("visited"), fleets.fleet("held")
        fleets.fleet("held")
        assert visited is not None
        await anyio.sleep(200.0)
        assert fleets.visit("visited") is visited
        await anyio.sleep(200.0)
        assert len(fleets) == 2
        await anyio.sleep(101.0)
        assert len(fleets) == 1
        assert (visited.ready, held.ready) == (False, True)
        fleets.release(held)
        await anyio.sleep(1000.0)
        assert held.ready
        fleets.release(held)
        fleets.release(held)  # once too often
        await anyio.sleep(299.0)
        assert held.ready
        await anyio.sleep(2.0)
        assert (held.ready, len(fleets)) == (False, 0)
        await fleets.close()

    play(scenario)


def test_the_directory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """What was not used for the longest time makes room; where all are held, further ones are never ready."""
    caplog.set_level(logging.WARNING, "nats_mesh.fleet")

    async def scenario(scene: Scene) -> None:
        fleets = scene.directory(max_fleets=3)
        first = fleets.visit("s1")
        assert first is not None
        await anyio.sleep(1.0)
        fleets.visit("s2")
        await anyio.sleep(1.0)
        fleets.fleet("s3")
        fleets.fleet("s4")
        assert (first.ready, len(fleets)) == (False, 3)
        fleets.fleet("s2")
        assert fleets.visit("s5") is None
        assert fleets.visit("s6") is None
        outside = fleets.fleet("s5")
        await anyio.sleep(10.0)
        assert (outside.ready, outside.instances(), len(fleets)) == (False, (), 3)
        assert not await outside.wait(1.0)
        await fleets.close()
        assert fleets.visit("s2") is None
        assert len(fleets) == 0

    play(scenario)
    assert ["of 3 services are watched already" in record.getMessage() for record in caplog.records] == [True]
