"""The audit on a real server: who was there at a past moment, what stood in the store then, and what is believed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from nats_mesh import Service
from nats_mesh.audit.reading import AuditReader, BeforeError, Entry
from nats_mesh.audit.records import ChangeRecord, PresenceRecord
from nats_mesh.config.store import ConfigStore
from nats_mesh.core.past import Presence
from nats_mesh.policy.bus.past import DocumentsThen
from nats_mesh.policy.bus.revisions import Snapshot, UnknownPastError
from nats_mesh.policy.bus.store import Change
from nats_mesh.testing import NatsServer
from nats_mesh.wire.kv import KvAbsentError
from tests.harness import Bus, eventually
from tests.rawnats import raw_nats
from tests.rollouts import until
from tests.stored import Operator, destination, operator
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

WORKER = ROOT / "tests" / "integration" / "audit_worker.py"


@pytest.fixture
async def ops(nats_server: NatsServer, mesh_namespace: str) -> AsyncIterator[Operator]:
    """An operator with an open store, and with it the audit."""
    with anyio.fail_after(60):
        async with operator(nats_server.url, mesh_namespace) as ops:
            yield ops


def reader_of(ops: Operator) -> AuditReader:
    """A reader that has read nothing yet."""
    client = ops.mesh.client
    return AuditReader(client.subjects, transport=client.transport, mux=client.mux)


async def entries(ops: Operator, kind: str = "") -> list[Entry]:
    """Everything there is."""
    return [entry async for entry in reader_of(ops).entries(kind=kind)]


async def recorded(ops: Operator, kind: str, count: int) -> list[Entry]:
    """Everything of a kind, once there is so much of it."""
    found: list[Entry] = await until(lambda: entries(ops, kind), lambda said: len(said) >= count)
    return found


async def then(ops: Operator, time: str) -> Snapshot:
    """What stood in the store at an instant, by the audit."""
    reader = reader_of(ops)
    await reader.covering(time)
    found = DocumentsThen(time)
    now, times = await ops.store.standing()
    async for entry, record in reader.changes("policy"):
        found.take(record, entry.time)
    return found.found(now, times)


async def server_time(ops: Operator) -> str:
    """What time it is at the server."""
    return (await reader_of(ops).info()).now


@asynccontextmanager
async def worker(ops: Operator, url: str, name: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process that serves ``name``, and its instance's id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        url,
        ops.mesh.namespace,
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        instance = (await process.stdout.readline()).decode().strip()
        assert instance
        yield process, instance
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# -- presence ---------------------------------------------------------------------------------------


async def test_a_killed_instance_is_gone_later_and_there_before(
    ops: Operator, nats_server: NatsServer
) -> None:
    """`kill -9` leaves no word: who was killed is there at an earlier moment, and not at one after its next sign was
    due; who lives on is at both."""
    async with (
        worker(ops, nats_server.url, "shop") as (process, killed),
        worker(ops, nats_server.url, "stock") as (_, alive),
    ):
        found = await until(
            lambda: entries(ops, "presence"),
            lambda said: all([each.instance for each in said].count(who) >= 3 for who in (killed, alive)),
        )
        before = await server_time(ops)
        await recorded(ops, "presence", len(found) + 6)
        process.kill()
        await process.wait()

        async def now() -> list[str]:
            picture = await reader_of(ops).presence(await server_time(ops))
            return [each.key[1] for each in picture.found]

        await until(now, lambda there: there == [alive])
        past = await reader_of(ops).presence(before)
        assert {each.key: each.presence for each in past.found} == {
            ("shop", killed): Presence.THERE,
            ("stock", alive): Presence.THERE,
        }
        record = past.found[0].value
        assert (record.version, record.labels, record.state) == ("1.2.0", {"zone": "eu-1"}, "ready")
        assert past.names[record.endpoints_hash] == ("get",)
        assert past.untrusted == 0


async def test_join_change_and_leave_are_kept(bus: Bus, nats_server: NatsServer) -> None:
    """What an instance announces is written down with a number each and its own inbox, and nobody waits for it."""
    async with (
        operator(nats_server.url, bus.namespace) as ops,
        raw_nats(nats_server.url, f"mesh.{bus.namespace}.audit.presence.>") as tap,
    ):
        service = Service("shop", version="1.0.0")

        @service.endpoint(name="still_there")
        async def still_there() -> bool:
            return True

        instance = await bus.serve(service)
        await instance.stand_aside("a test")
        await instance.come_back("a test")
        found = await recorded(ops, "presence", 3)
        records = [each.record for each in found if isinstance(each.record, PresenceRecord)]
        assert [each.event for each in records] == ["join", "change", "change"]
        assert [each.state for each in records] == ["ready", "draining", "ready"]
        assert [each.seq for each in records] == [1, 2, 3]
        assert {each.endpoints for each in records} == {("still_there",)}
        assert await instance.drain() == 0
        last = (await recorded(ops, "presence", 4))[-1]
        assert isinstance(last.record, PresenceRecord)
        assert (last.record.event, last.record.state) == ("leave", "draining")
        assert (last.writer, last.instance) == ("shop", instance.id)
        assert all(message.reply.startswith("_INBOX.shop.") for message in tap.messages)
        bus.instances.remove(instance)


async def test_before_the_stream_is_an_error(ops: Operator) -> None:
    """Of a moment before what is kept, and of one that has not come, nothing is guessed."""
    reader = reader_of(ops)
    with pytest.raises(BeforeError, match="the audit was made at 20"):
        await reader.presence("2020-01-01T00:00:00Z")
    with pytest.raises(BeforeError, match="still to come"):
        await reader.presence("2100-01-01T00:00:00Z")
    assert (await reader.presence(await server_time(ops))).found == []


async def test_without_the_stream_everything_goes_on(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """No audit stream: an instance serves, leaves, and says one line, however many signs nobody keeps."""
    caplog.set_level("DEBUG", "nats_mesh.audit")
    service = Service("shop", version="1.0.0")

    @service.endpoint(name="still_there")
    async def still_there() -> bool:
        return True

    instance = await bus.serve(service)
    assert await bus.mesh.call("shop.still_there", returns=bool)
    assert instance._parts.announcer is not None
    for _ in range(5):
        instance._parts.announcer.again()
    await instance.transport.fence()
    await eventually(lambda: caplog.messages)
    assert len([text for text in caplog.messages if "no audit stream" in text]) == 1
    reader = AuditReader(
        bus.mesh.client.subjects, transport=bus.mesh.client.transport, mux=bus.mesh.client.mux
    )
    with pytest.raises(KvAbsentError, match="no audit stream"):
        await reader.info()


# -- changes ----------------------------------------------------------------------------------------


async def test_every_change_is_kept_with_what_stood_before_and_after(ops: Operator) -> None:
    """Both documents byte for byte, who, why, the change's id and the revisions; deletions too."""
    one, two = destination("orders", "1s"), destination("orders", "2s") + b" "
    first = await ops.put(one, destination("stock"), message="begin")
    second = await ops.put(two, message="slower")
    third = await ops.put(delete=("Destination.orders",), message="away")
    assert {each.unrecorded for each in (first, second, third)} == {""}
    found = [each.record for each in await entries(ops, "policy")]
    assert all(isinstance(each, ChangeRecord) for each in found)
    records = [each for each in found if isinstance(each, ChangeRecord)]
    assert [each.why for each in records] == ["begin", "slower", "away"]
    assert [each.change for each in records] == [first.change, second.change, third.change]
    assert {each.who for each in records} == {"ops"}
    assert [each.seq for each in records] == [1, 2, 3]
    (change,) = records[1].documents
    assert change.before is not None
    assert (change.before.value, change.after.value) == (one, two)
    assert change.before.revision == first.sequences["Destination.orders"]
    assert change.after.revision == second.sequences["Destination.orders"]
    assert change.before.time < change.after.time
    (gone,) = records[2].documents
    assert gone.before is not None
    assert (gone.before.value, gone.after.deleted, gone.after.value) == (two, True, None)


async def test_policies_of_a_moment_beyond_64_revisions(ops: Operator) -> None:
    """The bucket keeps 64 revisions of a key; the audit gives what stood there before those, byte for byte."""
    await ops.put(destination("stock", "9s"), destination("gone", "8s"))
    await ops.put(destination("orders", "1s"))
    moments = [await server_time(ops)]
    values = [destination("orders", "1s")]
    await ops.put(delete=("Destination.gone",))
    for number in range(2, 82):
        value = destination("orders", f"{number}s")
        await ops.put(value)
        values.append(value)
        moments.append(await server_time(ops))
    with pytest.raises(UnknownPastError):
        await ops.store.at(time=moments[0])
    for index in (0, 1, 5, 40, 80):
        found = (await then(ops, moments[index])).policies
        assert found["Destination.orders"].value == values[index]
        assert found["Destination.stock"].value == destination("stock", "9s")
        assert ("Destination.gone" in found) is (index == 0)
        if index == 80:
            assert found == (await ops.store.at(time=moments[index])).policies


async def test_a_change_that_was_not_written_down_is_named(ops: Operator) -> None:
    """Who writes past the audit leaves a gap: the key is named, never guessed."""
    await ops.put(destination("orders", "1s"), destination("stock"))
    moment = await server_time(ops)
    await ops.raw("Destination.orders", destination("orders", "2s"))
    with pytest.raises(UnknownPastError, match=r"not in the audit, of: Destination\.orders$"):
        await then(ops, moment)
    await ops.put(destination("orders", "3s"))
    with pytest.raises(UnknownPastError, match=r"not in the audit, of: Destination\.orders$"):
        await then(ops, moment)


async def test_large_changes_are_kept_in_parts(ops: Operator) -> None:
    """A change of many documents is several records of one change, none larger than a server takes."""
    filler = "x" * 2000
    changes = [
        Change(f"Destination.s{n}", destination(f"s{n}")[:-1] + f',"x":"{filler}"}}'.encode())
        for n in range(300)
    ]
    applied = await ops.store.apply(changes, message="many")
    assert applied.unrecorded == ""
    found = await entries(ops, "policy")
    records = [each.record for each in found if isinstance(each.record, ChangeRecord)]
    assert len(records) > 3
    assert {(each.change, each.parts) for each in records} == {(applied.change, len(records))}
    assert [each.part for each in records] == list(range(1, len(records) + 1))
    assert sum(len(each.documents) for each in records) == 300


async def test_configurations_are_kept(ops: Operator) -> None:
    """A change of a service's configuration is a record of kind `config`."""
    client = ops.mesh.client
    store = ConfigStore(ops.mesh.namespace, transport=client.transport, mux=client.mux, operator="ann@desk")
    await store.open()
    first = await store.write("shop", b'{"a":1}', expected=0, message="begin")
    await store.write("shop", b'{"a":2}', expected=first, message="more")
    assert store.unrecorded == ""
    records = [each.record for each in await entries(ops, "config")]
    last = records[-1]
    assert isinstance(last, ChangeRecord)
    assert (last.who, last.why) == ("ann@desk", "more")
    assert last.documents[0].before is not None
    assert (last.documents[0].before.value, last.documents[0].after.value) == (b'{"a":1}', b'{"a":2}')


async def test_a_change_that_cannot_be_kept_is_made_and_said(ops: Operator) -> None:
    """Without the stream the change is made all the same, and whoever made it is told."""
    await ops.log.api(f"STREAM.DELETE.{ops.store.subjects.audit_stream}", None, timeout_s=5.0)
    applied = await ops.put(destination("orders"))
    assert "there is no stream" in applied.unrecorded
    assert "Destination.orders" in (await ops.store.snapshot()).policies


# -- what is believed -------------------------------------------------------------------------------


async def test_forged_records_are_not_believed(ops: Operator, nats_server: NatsServer) -> None:
    """Not what JetStream was talked into sending, not a body that speaks of another writer, not what is no record;
    each is counted, and what they say changes no picture of the past."""
    await ops.put(destination("orders"))
    namespace = ops.mesh.namespace
    good = json.loads(await record_bytes(ops))
    subject = f"mesh.{namespace}.audit.presence.shop.i1"
    claim: dict[str, Any] = {
        "namespace": namespace, "at": good["at"], "seq": 1, "event": "join", "service": "shop", "instance": "i1",
        "name": "host-1", "version": "1.0.0", "started": good["at"], "within_s": 75.0, "state": "ready",
    }  # fmt: skip
    async with raw_nats(nats_server.url) as raw:

        def publish(subject: str, body: bytes, reply: str = "") -> None:
            raw.send(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

        # Somebody writes into a stream that he may write to, and has the server send it as if it were shop's.
        await ops.raw("Destination.evil", json.dumps(claim).encode())
        bucket = f"mesh_policy_{namespace}"
        question = json.dumps({"last_by_subj": f"$KV.{bucket}.Destination.evil"}).encode()
        publish(f"$JS.API.DIRECT.GET.KV_{bucket}", question, subject)
        publish(f"$JS.API.STREAM.MSG.GET.KV_{bucket}", question, subject)
        publish(f"mesh.{namespace}.audit.presence.other.i1", json.dumps(claim).encode())
        publish(f"mesh.{namespace}.audit.presence.shop.i2", json.dumps(claim).encode())
        publish(f"mesh.{namespace}.audit.presence.shop", json.dumps(claim).encode())
        publish(f"mesh.{namespace}.audit.presence.shop.i1", b'{"service": "shop"}')
        await raw.flush()
        reader = reader_of(ops)
        await until(reader.info, lambda stream: stream.messages >= 7)
        found = [entry async for entry in reader.entries(kind="presence")]
        assert [each.record for each in found] == [None] * 6
        assert dict(reader.untrusted) == {"forged": 1, "malformed": 5}
        assert any("another stream" in each.problem for each in found)
        assert {"its subject says 'other'" in each.problem for each in found} == {True, False}
        picture = await reader_of(ops).presence(await server_time(ops))
        assert (picture.found, picture.untrusted) == ([], 6)
        # The same claim, published by whoever may publish there, is believed.
        publish(subject, json.dumps(claim).encode())
        await raw.flush()
        await until(reader.info, lambda stream: stream.messages >= 8)
        assert len((await reader_of(ops).presence(await server_time(ops))).found) == 1


async def record_bytes(ops: Operator) -> bytes:
    """One record as it stands in the stream."""
    page = await reader_of(ops).log.after(1, timeout_s=5.0)
    value = page.messages[0].value
    assert value is not None
    return value


async def test_missing_records_are_seen(ops: Operator) -> None:
    """A writer's numbers show what is not there."""
    client = ops.mesh.client
    await ops.put(destination("orders", "1s"))
    subject = client.subjects.audit("policy", "ops", client.transport.connection)
    for _ in range(3):
        client.mux.number(subject)  # three records that never arrived
    await ops.put(destination("orders", "2s"))
    reader = reader_of(ops)
    assert [entry.missing async for entry in reader.entries()] == [0, 3]
    assert reader.missing == 3
