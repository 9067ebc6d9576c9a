"""Who is there: presence, observers, the Services API and statistics, as they stand on the wire of a real server."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import jsonschema
import pytest

from nats_mesh import CallError, Mesh, Service
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Health, Reason
from nats_mesh.core.presence import Announcement, EndpointInfo, Kind, Load, State
from nats_mesh.discovery.messages import decode, encode, rfc3339
from nats_mesh.discovery.observer import Observer
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.stats_messages import StatsMessage, decode_stats
from nats_mesh.testing import LoopClock, MemoryMesh, run_virtual
from nats_mesh.testing.proxy import TcpProxy
from nats_mesh.testing.server import NatsServer
from nats_mesh.wire.outbox import Outbox
from tests.harness import Bus, eventually, open_bus
from tests.rawnats import RawMessage, RawNats, raw_nats
from tests.unit import services_api_schemas as schemas

pytestmark = pytest.mark.anyio

SECRET = r"[0-9a-f]{32}"


@pytest.fixture
async def bus(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A namespace of the shared server; at the end nothing may be left of any call."""
    async with open_bus(request, "nats", mesh_namespace) as bus:
        yield bus
        await bus.at_rest()


def orders(**options: Any) -> Service:
    """A service with two endpoints."""
    service = Service(
        "orders", version="1.2.3", labels={"zone": "eu-1"}, description="takes orders", **options
    )

    @service.endpoint(timeout=2.0, idempotent=True, concurrency=8)
    async def place(sku: str) -> str:
        return sku

    @service.endpoint()
    async def fail() -> None:
        raise RuntimeError("the reason")

    return service


def observe(mesh: Mesh, *, enforced: bool = False) -> tuple[Observer, list[Change]]:
    """An observer of every service, and what it reports."""
    changes: list[Change] = []
    client = mesh.client
    observer = Observer(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        clock=SYSTEM_CLOCK,
        enforced=enforced,
        on_change=changes.append,
    )
    return observer, changes


# -- presence ---------------------------------------------------------------------------------------


async def test_an_instance_joins_changes_and_leaves_on_the_wire(bus: Bus) -> None:
    """Each announcement goes to the instance's own subject, names its publisher's inbox, and counts on."""
    async with raw_nats(bus.url, f"mesh.{bus.namespace}.presence.*.*") as raw:
        async with Instance(orders(), settings=bus.settings) as instance:
            await raw.until(lambda: len(raw.messages) == 1)
            assert instance._parts.announcer is not None
            instance._parts.announcer.change(State.DRAINING)
            await raw.until(lambda: len(raw.messages) == 2)
            connection = instance.transport.connection
        await raw.until(lambda: len(raw.messages) == 3)
    assert {message.subject for message in raw.messages} == {
        f"mesh.{bus.namespace}.presence.orders.{instance.id}"
    }
    inbox = re.compile(rf"_INBOX\.orders\.{connection}\.{SECRET}\.0")
    assert all(inbox.fullmatch(message.reply) for message in raw.messages), raw.messages
    said = [
        decode(message.payload, service="orders", instance=instance.id, namespace=bus.namespace)
        for message in raw.messages
    ]
    assert [each.type for each in said] == [Kind.JOIN, Kind.CHANGE, Kind.LEAVE]
    assert [each.seq for each in said] == [1, 2, 3]
    assert [each.state for each in said] == [State.READY, State.DRAINING, State.DRAINING]
    assert len({each.started for each in said}) == 1
    assert {(each.version, each.labels["zone"], each.wire) for each in said} == {("1.2.3", "eu-1", 1)}
    place = EndpointInfo(
        name="place",
        timeout_ms=2000,
        idempotent=True,
        concurrency=8,
        schema=instance.service.endpoints["place"].schema_hash,
    )
    assert [each.endpoints[:1] for each in said] == [(place,), (place,), ()]


def test_beats_come_every_five_seconds_give_or_take_a_fifth() -> None:
    """Between two beats lie 4 to 6 s, spread over that range, and each carries the load."""

    async def main() -> None:
        async with MemoryMesh(orders()) as mesh:
            beats: list[tuple[float, Announcement]] = []
            mesh.mesh.client.transport.subscribe(
                "mesh.default.presence.>",
                lambda subject, reply, headers, payload: beats.append(
                    (anyio.current_time(), decode(payload))
                ),
            )
            await mesh.call("orders.place", "tea")
            await anyio.sleep(1000.0)
            gaps = [after[0] - before[0] for before, after in itertools.pairwise(beats)]
            assert 160 < len(gaps) < 250
            assert 4.0 <= min(gaps) < 4.2
            assert 5.8 < max(gaps) <= 6.0
            assert {beat.type for _, beat in beats} == {Kind.BEAT}
            assert [beat.seq for _, beat in beats] == list(range(2, len(beats) + 2))
            assert beats[-1][1].load == Load(in_flight=0, limit=8 + 256, requests=1, errors=0)

    run_virtual(main)


async def test_an_observer_keeps_a_registry_of_who_is_there(bus: Bus) -> None:
    """Joins, leaves and states arrive as changes; the registry holds what was announced."""
    observer, changes = observe(bus.mesh)
    await bus.mesh.client.transport.fence()
    async with Instance(orders(), settings=bus.settings) as first:
        async with Instance(orders(), settings=bus.settings) as second:
            await eventually(lambda: len(changes) == 2)
            [summary] = observer.registry.services()
            assert (summary.name, summary.instances, summary.ready, summary.versions) == (
                "orders",
                2,
                2,
                {"1.2.3": 2},
            )
            known = observer.registry.get(first.id)
            assert (known.id, known.name, known.labels, known.health) == (
                first.id,
                first.name,
                {"zone": "eu-1"},
                Health.ALIVE,
            )
            assert [endpoint.name for endpoint in known.endpoints] == ["place", "fail"]
        await eventually(lambda: len(changes) == 3)
        assert (changes[2].kind, changes[2].reason, changes[2].instance.id) == (
            ChangeKind.GONE,
            Reason.LEFT,
            second.id,
        )
        assert [each.id for each in observer.registry.instances()] == [first.id]
    await eventually(lambda: len(observer.registry) == 0)
    assert observer.ignored == 0
    observer.close()


def announcement(namespace: str, seq: int, kind: Kind = Kind.BEAT, **fields: Any) -> bytes:
    """A presence body of an instance ``i1`` of ``orders``."""
    given: dict[str, Any] = {
        "type": kind,
        "service": "orders",
        "instance": "i1",
        "name": "host-1",
        "version": "1.0.0",
        "namespace": namespace,
        "seq": seq,
        "started": rfc3339(1_700_000_000.0),
        "interval_s": 5.0,
    }
    return encode(Announcement(**{**given, **fields}))


FORGERIES = {
    "no inbox": "",
    "an acknowledgement of JetStream": "$JS.ACK.s.c.1.1.1.1.1",
    "another member's inbox": f"_INBOX.web.CONNECTION.{'a' * 32}.0",
    "a subject of the mesh": "mesh.default.presence.orders.i1",
    "the bare prefix": "_INBOX.",
}


async def test_presence_without_its_publishers_inbox_is_not_believed(bus: Bus) -> None:
    """Forged, foreign, contradictory and unreadable announcements change nothing and are counted."""
    observer, changes = observe(bus.mesh)
    strict = await bus.caller("strict")
    enforcing, enforced = observe(strict, enforced=True)
    subject = f"mesh.{bus.namespace}.presence.orders.i1"
    own = f"_INBOX.orders.CONNECTION.{'a' * 32}.0"
    await bus.mesh.client.transport.fence()
    await strict.client.transport.fence()
    body = announcement(bus.namespace, 1, Kind.JOIN)
    async with raw_nats(bus.url) as raw:
        for reply in FORGERIES.values():
            if reply.startswith("$JS.ACK"):
                continue  # a server lets JetStream alone say this; the wire vectors hold the rule
            raw.publish(subject, body, reply)
        raw.publish(subject, announcement("elsewhere", 1, Kind.JOIN), own)
        raw.publish(f"mesh.{bus.namespace}.presence.carts.i1", body, own.replace("orders", "carts"))
        raw.publish(f"mesh.{bus.namespace}.presence.orders.i2", body, own)
        raw.publish(subject, b"\x00 not json", own)
        raw.publish(subject, body[:-1] + b',"wire":2}', own)
        raw.publish(subject, b"NATS/1.0 503", own, b"")
        await raw.flush()
        for mesh in (bus.mesh, strict):
            await mesh.client.transport.fence()
        assert changes == enforced == []
        assert observer.ignored == enforcing.ignored == 10
        raw.publish(subject, body, "_INBOX.somebody")  # open mode: identity is only claimed
        raw.publish(subject, body, own)
        await eventually(lambda: len(changes) == 1 and len(enforced) == 1)
        assert (observer.ignored, enforcing.ignored) == (10, 11)
    observer.close()
    enforcing.close()


async def test_an_instance_that_falls_silent_becomes_suspect_and_then_gone(bus: Bus) -> None:
    """Two missed beats make it suspect, three gone; a beat in between brings it back."""
    observer, changes = observe(bus.mesh)
    subject = f"mesh.{bus.namespace}.presence.orders.i1"
    own = f"_INBOX.orders.CONNECTION.{'a' * 32}.0"
    await bus.mesh.client.transport.fence()
    async with raw_nats(bus.url) as raw:
        raw.publish(subject, announcement(bus.namespace, 1, Kind.JOIN, interval_s=0.2), own)
        await eventually(lambda: len(changes) == 2)
        raw.publish(subject, announcement(bus.namespace, 2, interval_s=0.2), own)
        await eventually(lambda: len(changes) == 5)
    assert [change.kind for change in changes] == [
        ChangeKind.JOINED,
        ChangeKind.SUSPECT,
        ChangeKind.ALIVE,
        ChangeKind.SUSPECT,
        ChangeKind.GONE,
    ]
    assert changes[-1].reason is Reason.MISSED
    assert len(observer.registry) == 0
    observer.close()


def test_a_killed_instance_is_suspect_after_two_beats_and_gone_after_three() -> None:
    """At the real interval of 5 s: suspect after 13 s of silence, gone after 19.5 s, exactly."""

    async def main() -> None:
        async with MemoryMesh(orders()) as mesh:
            _, changes = observe_memory(mesh)
            await anyio.sleep(20.0)
            assert [change.kind for _, change in changes] == [ChangeKind.JOINED]
            for client in mesh.bus.clients:
                if client.name == "orders":  # as kill -9: not a word more
                    client.cut()
            await anyio.sleep(60.0)
            seen = changes[1][1].instance.seen
            assert [change.kind for _, change in changes[1:]] == [ChangeKind.SUSPECT, ChangeKind.GONE]
            assert [at - seen for at, _ in changes[1:]] == pytest.approx([13.0, 19.5], abs=0.01)

    run_virtual(main)


def observe_memory(mesh: MemoryMesh) -> tuple[Observer, list[tuple[float, Change]]]:
    """An observer in virtual time, with the instant of each change."""
    changes: list[tuple[float, Change]] = []
    client = mesh.mesh.client
    observer = Observer(
        subjects=client.subjects,
        transport=client.transport,
        mux=client.mux,
        clock=LoopClock(),
        on_change=lambda change: changes.append((anyio.current_time(), change)),
    )
    return observer, changes


async def test_an_instance_announces_itself_anew_after_a_reconnect(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """Whoever missed something in between hears everything again, endpoints included, under the next number."""
    async with (
        TcpProxy("127.0.0.1", nats_server.port) as proxy,
        raw_nats(nats_server.url, f"mesh.{mesh_namespace}.presence.>") as raw,
        Instance(orders(), settings=Settings(servers=(proxy.url,), namespace=mesh_namespace)) as instance,
    ):
        await proxy.cut()
        await eventually(lambda: instance.transport.stats.reconnects == 1)
        await raw.until(lambda: any(decode(m.payload).type is Kind.CHANGE for m in raw.messages))
        said = [decode(message.payload) for message in raw.messages]
        assert (said[-1].type, said[-1].state, said[-1].seq) == (Kind.CHANGE, State.READY, len(said))
        assert said[-1].endpoints == said[0].endpoints != ()


# -- the Services API -------------------------------------------------------------------------------


async def ask_all(raw: RawNats, subject: str, count: int) -> list[dict[str, Any]]:
    """Ask on ``subject`` and return ``count`` answers; fails where more come."""
    after = len(raw.messages)
    inbox = f"_INBOX.asker.{after}"
    await raw.subscribe(inbox)
    raw.publish(subject, b"", inbox)
    await raw.until(lambda: len(raw.messages) >= after + count)
    await raw.flush()
    answers = [message for message in raw.messages[after:] if message.subject == inbox]
    assert len(answers) == count
    assert all(message.headers == b"" for message in answers)
    return [json.loads(message.payload) for message in answers]


async def test_every_verb_is_answered_on_every_level(nats_server_factory: Any) -> None:
    """PING, INFO and STATS of everybody, of a service, of an instance: schema-valid documents, one per instance."""
    settings = Settings(servers=(nats_server_factory(jetstream=False).url,))
    carts = Service("carts", version="0.1.0")

    @carts.endpoint()
    async def add() -> None:
        pass

    async with (
        Instance(orders(), settings=settings) as first,
        Instance(orders(), settings=settings) as second,
        Instance(carts, settings=settings) as third,
        Mesh("web", settings=settings) as mesh,
        raw_nats(settings.servers[0]) as raw,
    ):
        for number in range(3):
            await mesh.call("orders.place", f"sku-{number}")
        with pytest.raises(CallError):
            await mesh.call("orders.fail")
        instances = {first.id, second.id, third.id}
        client = mesh.client.transport.connection  # a pure client answers the roll call, and nothing else
        for verb, schema in (("PING", schemas.PING), ("INFO", schemas.INFO), ("STATS", schemas.STATS)):
            everyone = {*instances, client} if verb == "PING" else instances
            for subject, ids in (
                (f"$SRV.{verb}", everyone),
                (f"$SRV.{verb}.orders", {first.id, second.id}),
                (f"$SRV.{verb}.orders.{second.id}", {second.id}),
            ):
                documents = await ask_all(raw, subject, len(ids))
                assert {document["id"] for document in documents} == ids
                for document in documents:
                    jsonschema.validate(document, schema)
                    assert document["metadata"]["mesh.wire"] == "1"
                    assert document["metadata"]["mesh.namespace"] == "default"
        [info] = await ask_all(raw, f"$SRV.INFO.orders.{first.id}", 1)
        place = next(each for each in info["endpoints"] if each["name"] == "place")
        assert (info["version"], info["description"], info["metadata"]["zone"]) == (
            "1.2.3",
            "takes orders",
            "eu-1",
        )
        assert (place["subject"], place["queue_group"]) == (
            "mesh.default.rpc.orders.all.place.anonymous",
            "q",
        )
        assert place["metadata"]["mesh.subject"] == "mesh.default.rpc.orders.all.place.{caller}"
        assert place["metadata"]["mesh.timeout_ms"] == "2000"
        assert place["metadata"]["mesh.idempotent"] == "true"
        assert json.loads(place["metadata"]["mesh.schema.request"])["type"] == "string"
        counted: dict[str, list[int]] = {"place": [0, 0], "fail": [0, 0]}
        for document in await ask_all(raw, "$SRV.STATS.orders", 2):
            for each in document["endpoints"]:
                counted[each["name"]][0] += each["num_requests"]
                counted[each["name"]][1] += each["num_errors"]
                assert ("RuntimeError" in each["last_error"]) == bool(each["num_errors"])
        assert counted == {"place": [3, 0], "fail": [1, 1]}
        # What INFO advertises is what works, as it stands, for a client that knows nothing of the mesh.
        assert (await raw.request(place["subject"], b'"tea"')).payload == b'"tea"'


@pytest.mark.parametrize(
    "subject", ["$SRV.ping", "$SRV.PING.other", "$SRV.PING.orders.other", "$SRV.WHAT", "$SRV.PING.orders.x.y"]
)
async def test_questions_to_others_are_not_answered(bus: Bus, subject: str) -> None:
    """Case matters, names are whole: what is not asked of this instance gets no answer from it."""
    await bus.serve(orders())
    async with raw_nats(bus.url) as raw:
        await raw.subscribe("_INBOX.asker")
        raw.publish(subject, b"", "_INBOX.asker")
        await raw.flush()
        await bus.instances[0].transport.fence()
        await raw.flush()
        assert all(message.headers.startswith(b"NATS/1.0 503") for message in raw.messages)


async def test_the_services_api_answers_to_inboxes_alone(bus: Bus) -> None:
    """A question that names another subject for its answer would have the instance publish there."""
    instance = await bus.serve(orders())
    target = f"mesh.{bus.namespace}.presence.orders.{instance.id}"
    async with raw_nats(bus.url, target) as raw:
        for reply in (target, ""):
            raw.publish(f"$SRV.PING.orders.{instance.id}", b"", reply)
        await raw.flush()
        await instance.transport.fence()
        await raw.flush()
        assert raw.messages == []
        assert instance._parts.responder is not None
        assert instance._parts.responder.unanswered == 2


# -- statistics -------------------------------------------------------------------------------------


def stats_of(bus: Bus, message: RawMessage) -> StatsMessage:
    """A statistics message, checked against its subject."""
    _, namespace, telemetry, kind, service, instance = message.subject.split(".")
    assert (namespace, telemetry, kind) == (bus.namespace, "telemetry", "stats")
    return decode_stats(message.payload, service=service, instance=instance, namespace=namespace)


async def test_statistics_are_published_while_wanted_and_add_up(bus: Bus) -> None:
    """Nothing without an observer; with one, callers' and instances' totals are exactly the calls that were made."""
    instance = await bus.serve(orders())
    wants = f"mesh.{bus.namespace}.telemetry.want.stats.all.top"
    async with raw_nats(bus.url, f"mesh.{bus.namespace}.telemetry.stats.>") as raw:
        for number in range(50):
            await bus.mesh.call("orders.place", str(number))
        with pytest.raises(CallError):
            await bus.mesh.call("orders.fail")
        for reply in ("", "_INBOX.", f"_INBOX.web.C.{'a' * 32}.0", wants):
            raw.publish(wants, b"", reply)  # not the observer's own inbox: not believed
        await raw.flush()
        for transport in (instance.transport, bus.mesh.client.transport):
            await transport.fence()
        await raw.flush()
        assert raw.messages == []
        raw.publish(wants, b"", f"_INBOX.top.C.{'a' * 32}.0")
        await raw.until(lambda: len({message.subject for message in raw.messages}) == 2)
        fold = Fold(namespace=bus.namespace)
        for message in raw.messages:
            publisher = message.subject.split(".")[4]
            assert re.fullmatch(rf"_INBOX\.{publisher}\.\w+\.{SECRET}\.0", message.reply)
            fold.apply(stats_of(bus, message), 1.0)
        (service,), (edge,) = fold.snapshot(1.0).services, fold.snapshot(1.0).edges
        assert (service.name, edge.reporter) == ("orders", "out")
        for total in (service.red.total, edge.red.total):
            assert (total.requests, total.errors) == (51, 1)
            assert total.statuses == {"OK": 50, "INTERNAL": 1}


def test_statistics_come_once_a_second_for_five_seconds_whoever_asks() -> None:
    """One lease is five seconds; any number of observers costs one message a second; then it is quiet again."""

    async def main() -> None:
        async with (
            MemoryMesh(orders()) as mesh,
            mesh.client("top") as top,
            mesh.client("dashboard") as dashboard,
        ):
            got: list[float] = []
            start = anyio.current_time()
            top.client.transport.subscribe(
                "mesh.default.telemetry.stats.orders.*",
                lambda *message: got.append(anyio.current_time() - start),
            )

            def want(observer: Mesh, service: str) -> None:
                client = observer.client
                client.transport.publish(
                    client.subjects.want("stats", service, observer.name),
                    b"",
                    client.mux.one_way("telemetry"),
                )

            await anyio.sleep(10.0)
            assert got == []
            want(top, "carts")
            await anyio.sleep(1.0)
            assert got == []
            start = anyio.current_time()
            want(top, "orders")
            await anyio.sleep(20.0)
            assert got == [pytest.approx(float(second), abs=0.01) for second in range(5)]
            got.clear()
            start = anyio.current_time()
            for _ in range(40):  # two observers, four times a second each
                want(top, "all")
                want(dashboard, "orders")
                await anyio.sleep(0.25)
            await anyio.sleep(20.0)
            assert len(got) == 15
            assert all(after - before > 0.99 for before, after in itertools.pairwise(got))

    run_virtual(main)


# -- leaving ----------------------------------------------------------------------------------------


async def test_an_instance_leaves_in_order(bus: Bus) -> None:
    """Presence ends first, then the queue group is left, then a fence, then held calls are answered, the rest last."""
    release, entered = anyio.Event(), anyio.Event()
    service = orders()

    @service.endpoint()
    async def hold() -> str:
        entered.set()
        await release.wait()
        return "held"

    results: list[str] = []
    commands: list[str] = []
    async with Instance(service, settings=bus.settings) as instance, anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await bus.mesh.call("orders.hold"))

        tasks.start_soon(call)
        await entered.wait()
        client = instance.transport._client  # type: ignore[attr-defined]  # the one over nats-py has it
        transport: Any = instance.transport
        outbox, ping = client.outbox, client._send_ping
        rpc = {sid: sub._subject for sid, sub in client._subs.items() if ".rpc." in sub._subject}

        class Recording(Outbox):
            """The connection's own outbox, which notes what is put into it."""

            def put(self, command: bytes) -> None:
                commands.append(command.split(b"\r\n")[0].decode())
                outbox.put(command)

            def put_message(self, head: bytes, payload: bytes) -> None:
                commands.append(head.split(b"\r\n")[0].decode())
                outbox.put_message(head, payload)

            def cork(self) -> None:
                outbox.cork()

            def flush(self) -> None:
                outbox.flush()

        async def record_ping(future: Any = None) -> None:
            commands.append("PING")
            await ping(future)

        client._send_ping = record_ping
        client.outbox = transport._outbox = recording = Recording(client._write_out)
        recording.pending = outbox.pending
        tasks.start_soon(instance.drain)
        await eventually(lambda: instance.dispatcher.draining.shut)
        release.set()
    words = [command.split() for command in commands]
    left = words.index(["UNSUB", str(next(iter(rpc)))])
    leave = next(at for at, word in enumerate(words) if "presence" in " ".join(word))
    fence = words.index(["PING"])
    answer = next(
        at for at, word in enumerate(words) if word[0] == "HPUB" and word[1].startswith("_INBOX.web.")
    )
    assert leave < left < fence < answer, commands
    assert results == ["held"]
    inbox = next(str(sid) for sid, sub in client._subs.items()) if client._subs else None
    assert inbox is None
    assert [word for word in words[answer:] if word[0] == "UNSUB"], "the reply mux goes after the last answer"
