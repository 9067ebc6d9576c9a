"""Calls with an idempotency key on a real server: instances killed, frozen and cut off, the store away and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import nats
import pytest

from nats_mesh import CallError, Context, Executed, Mesh, Service, Status
from nats_mesh.core.duplicates import LEASE_S, State, decode_record, encode_record, fingerprint
from nats_mesh.core.duplicates import key_token as token
from nats_mesh.errors import Refused
from nats_mesh.layers.claiming import bucket_name
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsCluster, NatsServer, TcpProxy
from nats_mesh.testing.plugin import NatsServerFactory
from nats_mesh.wire.kv import KvAbsentError, KvBucket, KvConflictError, KvError, KvFullError, KvTooLargeError
from tests.harness import Bus, eventually, open_bus
from tests.integration.keyed_worker import KeyedWorker
from tests.keyed import Answer, ask
from tests.rawnats import RawNats, header_pairs

pytestmark = pytest.mark.anyio


class Orders:
    """A service whose instances note what they run in one list, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        #: What a call of ``held`` waits for.
        self.release = anyio.Event()
        self._numbers = itertools.count(1)

    def service(self, name: str = "orders") -> Service:
        """The service of one more instance."""
        orders = Service(name, version="1.0.0")

        @orders.endpoint(timeout=30.0)
        async def place(seconds: float, ctx: Context) -> int:
            self.ran.append(ctx.idempotency_key or "")
            await anyio.sleep(seconds)
            return next(self._numbers)

        @orders.endpoint(timeout=60.0)
        async def held(ctx: Context) -> int:
            self.ran.append(ctx.idempotency_key or "")
            await self.release.wait()
            return next(self._numbers)

        @orders.endpoint(timeout=30.0, duplicates="local")
        async def local(ctx: Context) -> int:
            self.ran.append(ctx.idempotency_key or "")
            return next(self._numbers)

        @orders.endpoint(timeout=30.0)
        async def large(size: int) -> bytes:
            self.ran.append("large")
            return b"x" * size

        @orders.endpoint(timeout=30.0)
        async def read(sku: str) -> str:
            self.ran.append(sku)
            return sku

        return orders


@pytest.fixture
def orders() -> Orders:
    """The ledger of a test, and the service that writes it."""
    return Orders()


@pytest.fixture(params=["nats", "public"])
async def either(
    request: pytest.FixtureRequest, mesh_namespace: str, anyio_backend: object
) -> AsyncIterator[Bus]:
    """A bus on a real server, by each way to it; nothing may be left of any call."""
    async with open_bus(request, request.param, mesh_namespace) as bus:
        yield bus
        await bus.at_rest()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """What the workers ran."""
    path = tmp_path / "ledger"
    path.touch()
    return path


@pytest.fixture
def workers(nats_server: NatsServer, mesh_namespace: str, ledger: Path) -> Iterator[list[KeyedWorker]]:
    """Two instances in processes of their own."""
    started = [KeyedWorker(nats_server.url, mesh_namespace, ledger) for _ in range(2)]
    yield started
    for worker in started:
        worker.stop()


async def _fails(work: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await work
    return caught.value


def _bucket(mesh: Mesh) -> KvBucket:
    client = mesh.client
    name = bucket_name(client.namespace)
    return KvBucket(name, transport=client.transport, mux=client.mux, now=anyio.current_time)


async def _state(bucket: KvBucket, name: str) -> State | None:
    found = await bucket.get(name, timeout_s=5.0)
    return None if found is None or found.deleted else decode_record(found.value).state


async def _info(url: str, namespace: str) -> Any:
    connection = await nats.connect(url)
    try:
        answer = await connection.request(f"$JS.API.STREAM.INFO.KV_{bucket_name(namespace)}", timeout=5)
        return json.loads(answer.data)
    finally:
        await connection.close()


# -- several instances -------------------------------------------------------------------------------


async def test_a_key_runs_once_at_two_instances(either: Bus, orders: Orders) -> None:
    """Whoever is asked, one after the other: the first reply; the caller's own call says nothing but the key."""
    first, second = await either.serve(orders.service()), await either.serve(orders.service())
    assert await either.mesh.call("orders.place", 0.0, returns=int, idempotency_key="a") == 1
    for instance in (first, second, first, second):
        answer = await ask(either.mesh.client, instance, "place", 0.0, key="a")
        assert (answer.value, answer.instance) == (1, instance.id)
    assert orders.ran == ["a"]


async def test_many_keys_at_once_each_run_once(either: Bus, orders: Orders) -> None:
    """A hundred keys, each asked for by three at a time at two instances: one run each, one reply for all three."""
    instances = [await either.serve(orders.service()) for _ in range(2)]
    replies: dict[str, list[Any]] = {}

    async def call(number: int) -> None:
        key = f"k{number % 100}"
        answer = await ask(
            either.mesh.client, instances[number % 7 % 2], "place", 0.01, key=key, timeout=30.0
        )
        replies.setdefault(key, []).append(answer.value)

    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(call, number)
    assert sorted(orders.ran) == sorted(replies)
    assert len(orders.ran) == 100
    assert all(len(set(values)) == 1 for values in replies.values())


async def test_a_duplicate_waits_at_another_instance(bus: Bus, orders: Orders) -> None:
    """The first one takes longer than a lease: who waits elsewhere gets its reply, because the claim is renewed."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    answers: list[Answer] = []

    async def call(instance: Instance) -> None:
        answers.append(await ask(bus.mesh.client, instance, "place", 1.5 * LEASE_S, timeout=30.0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, first)
        await eventually(lambda: orders.ran)
        tasks.start_soon(call, second)
        tasks.start_soon(call, second)
    assert [answer.value for answer in answers] == [1, 1, 1]
    assert orders.ran == ["k"]


async def test_the_same_key_for_another_request(bus: Bus, orders: Orders) -> None:
    """Found in the store by another instance: refused, with what is wrong."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    await ask(bus.mesh.client, first, "read", "a")
    error = await _fails(ask(bus.mesh.client, second, "read", "b"))
    assert (error.status, error.refused) == (Status.INVALID_ARGUMENT, Refused.INVALID)
    assert orders.ran == ["a"]


# -- instances that die ------------------------------------------------------------------------------


async def test_a_killed_claimant(bus: Bus, workers: list[KeyedWorker], ledger: Path) -> None:
    """SIGKILL in mid-handler: the other instance says that nobody knows, soon, and runs it never again."""
    first, second = workers
    client = bus.mesh.client
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(client, first.where, "charge", 3600.0, timeout=60.0))
        await eventually(ledger.read_text)
        first.kill()
        for _ in range(2):
            error = await _fails(ask(client, second.where, "charge", 3600.0, timeout=20.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            assert first.id in error.message
        tasks.cancel_scope.cancel()
    assert ledger.read_text().splitlines() == ["charge k"]


async def test_a_killed_claimant_of_an_idempotent_endpoint(
    bus: Bus, workers: list[KeyedWorker], ledger: Path
) -> None:
    """The same where running twice does no harm: the other instance runs it, once for all who wait."""
    first, second = workers
    client = bus.mesh.client
    values: list[Any] = []

    async def call() -> None:
        values.append((await ask(client, second.where, "refresh", 0.5, timeout=20.0)).value)

    async with anyio.create_task_group() as tasks:
        first.freeze()  # so that it dies before its handler can end
        tasks.start_soon(lambda: ask(client, first.where, "refresh", 0.5, timeout=60.0))
        await client.transport.fence()
        first.thaw()
        await eventually(ledger.read_text)
        first.kill()
        async with anyio.create_task_group() as duplicates:
            for _ in range(3):
                duplicates.start_soon(call)
        tasks.cancel_scope.cancel()
    assert values == [second.id] * 3
    assert ledger.read_text().splitlines() == ["refresh k"] * 2


async def test_a_frozen_claimant(bus: Bus, workers: list[KeyedWorker], ledger: Path) -> None:
    """SIGSTOP in mid-handler: called dead meanwhile, it ends when it wakes, and from then on its reply is the reply."""
    first, second = workers
    client = bus.mesh.client
    async with anyio.create_task_group() as tasks:
        answers: list[Answer] = []

        async def call() -> None:
            answers.append(await ask(client, first.where, "charge", 0.5, timeout=60.0))

        tasks.start_soon(call)
        await eventually(ledger.read_text)
        first.freeze()
        error = await _fails(ask(client, second.where, "charge", 0.5, timeout=20.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
        first.thaw()
    bucket = _bucket(bus.mesh)
    name = f"bank.{token('web', 'charge', b'k')}"
    with anyio.fail_after(20):
        while await _state(bucket, name) is not State.DONE:
            await anyio.sleep(0.01)
    third = KeyedWorker(bus.url, bus.namespace, ledger)
    try:
        answer = await ask(client, third.where, "charge", 0.5)
    finally:
        third.stop()
    assert answer.value == answers[0].value == first.id
    assert ledger.read_text().splitlines() == ["charge k"]


async def test_instances_that_lose_their_connections(
    nats_server: NatsServer, mesh_namespace: str, orders: Orders
) -> None:
    """Connections cut again and again under concurrent duplicates: no key runs twice, and no two replies differ."""
    replies: dict[str, set[Any]] = {}
    others: set[str] = set()
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(TcpProxy("127.0.0.1", nats_server.port)) for _ in range(2)]
        mesh = await stack.enter_async_context(
            Mesh("web", settings=Settings(servers=(nats_server.url,), namespace=mesh_namespace))
        )
        instances = [
            await stack.enter_async_context(
                Instance(orders.service(), settings=Settings(servers=(proxy.url,), namespace=mesh_namespace))
            )
            for proxy in proxies
        ]

        async def call(number: int) -> None:
            key = f"k{number % 40}"
            for attempt in range(6):
                instance = instances[(number + attempt) % 2]
                try:
                    with anyio.fail_after(1.0):
                        answer = await ask(mesh.client, instance, "place", 0.05, key=key, timeout=8.0)
                except TimeoutError:
                    continue
                except CallError as error:
                    others.add(f"{error.status} {error.executed}")
                    await anyio.sleep(0.05)
                else:
                    replies.setdefault(key, set()).add(answer.value)
                    return

        async with anyio.create_task_group() as tasks:
            for number in range(120):
                tasks.start_soon(call, number)
            for number in range(6):
                await anyio.sleep(0.15)
                await proxies[number % 2].cut()
        keys = [key for key in orders.ran if key]
        assert len(set(keys)) == len(keys), "a key ran twice"
        assert all(len(values) == 1 for values in replies.values())
        assert len(replies) >= 1
        assert others <= {"ABORTED maybe", "UNAVAILABLE no", "CANCELLED yes"}, others


# -- the store ---------------------------------------------------------------------------------------


async def test_the_bucket_is_made_on_demand(bus: Bus, orders: Orders) -> None:
    """With the first key, and not before: one revision of each key, direct gets, an hour. Two at once make it once."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    await ask(bus.mesh.client, first, "place", 0.0, key=None)
    assert (await _info(bus.url, bus.namespace))["error"]["err_code"] == 10059
    async with anyio.create_task_group() as tasks:
        for instance in (first, second):
            tasks.start_soon(ask, bus.mesh.client, instance, "place", 0.0)
    config = (await _info(bus.url, bus.namespace))["config"]
    wanted = {
        "subjects": [f"$KV.{bucket_name(bus.namespace)}.>"],
        "max_msgs_per_subject": 1,
        "max_age": 3600 * 10**9,
        "num_replicas": 1,
        "allow_direct": True,
        "storage": "file",
        "discard": "new",
    }
    assert {name: config[name] for name in wanted} == wanted
    assert 0 < config["max_bytes"] <= 1 << 30
    assert orders.ran == ["", "k"]


async def test_what_stands_on_the_wire(bus: Bus, tap: RawNats, orders: Orders) -> None:
    """A claim is a write that expects nothing there, the reply one that expects the claim; each names our own inbox."""
    instance = await bus.serve(orders.service())
    await ask(bus.mesh.client, instance, "place", 0.0, key="warm")
    await eventually(lambda: not len(instance.dispatcher.duplicates.shared.settler))
    await tap.flush()
    after = len(tap.messages)
    await ask(bus.mesh.client, instance, "place", 0.0, key="a")
    await bus.at_rest()
    await eventually(lambda: not len(instance.dispatcher.duplicates.shared.settler))
    await tap.flush()
    subject = f"$KV.{bucket_name(bus.namespace)}.orders.{token('web', 'place', b'a')}"
    claim, done = [m for m in tap.messages[after:] if m.subject.startswith("$")]
    assert (claim.subject, done.subject) == (subject, subject)
    expected = [
        int(dict(header_pairs(m.headers))["Nats-Expected-Last-Subject-Sequence"]) for m in (claim, done)
    ]
    assert expected[0] == 0 < expected[1]
    assert all(m.reply.startswith(f"_INBOX.orders.{instance.transport.connection}.") for m in (claim, done))
    record = decode_record(claim.payload)
    assert (record.state, record.instance) == (State.RUNNING, instance.id)
    assert record.request == fingerprint(b"", b"0.0")
    ended = decode_record(done.payload)
    assert (ended.state, ended.claim) == (State.DONE, record.claim)
    assert ended.reply is not None
    assert (ended.reply.status, ended.reply.body) == (Status.OK, b"2")


async def test_a_server_that_restarts(
    nats_server_factory: NatsServerFactory, mesh_namespace: str, orders: Orders
) -> None:
    """The store comes back with what it knew: what had run is answered, and what ran meanwhile; nothing runs twice."""
    server = nats_server_factory()
    settings = Settings(servers=(server.url,), namespace=mesh_namespace)
    async with (
        Instance(orders.service(), settings=settings) as first,
        Mesh("web", settings=settings) as mesh,
    ):
        assert (await ask(mesh.client, first, "place", 0.0, key="before")).value == 1
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                error = await _fails(ask(mesh.client, first, "place", 2.0, key="meanwhile"))
                assert (error.status, error.executed) == (Status.UNAVAILABLE, Executed.MAYBE)

            tasks.start_soon(call)
            await eventually(lambda: "meanwhile" in orders.ran)
            await server.kill()
            await server.restart()
        await mesh.client.transport.wait_connected(20.0)
        await first.transport.wait_connected(20.0)
        bucket = _bucket(mesh)
        name = f"orders.{token('web', 'place', b'meanwhile')}"
        with anyio.fail_after(20):
            while await _state(bucket, name) is not State.DONE:
                await anyio.sleep(0.01)
        async with Instance(orders.service(), settings=settings) as second:
            for instance in (first, second):
                assert (await ask(mesh.client, instance, "place", 0.0, key="before")).value == 1
                assert (await ask(mesh.client, instance, "place", 2.0, key="meanwhile")).value == 2
    assert orders.ran == ["before", "meanwhile"]


async def test_without_jetstream(
    nats_server_factory: NatsServerFactory, mesh_namespace: str, orders: Orders
) -> None:
    """A server without JetStream: refused at once with the remedy, except where the endpoint is content with less."""
    server = nats_server_factory(jetstream=False)
    settings = Settings(servers=(server.url,), namespace=mesh_namespace)
    async with (
        Instance(orders.service(), settings=settings) as instance,
        Mesh("web", settings=settings) as mesh,
    ):
        for _ in range(2):
            error = await _fails(ask(mesh.client, instance, "place", 0.0))
            assert (error.status, error.refused, error.executed) == (
                Status.UNAVAILABLE,
                Refused.IDEMPOTENCY,
                Executed.NO,
            )
            assert "nats kv add" in error.message
        assert orders.ran == []
        for _ in range(2):
            assert (await ask(mesh.client, instance, "local")).value == 1
        assert orders.ran == ["k"]


async def test_the_store_goes_away_and_comes_back(bus: Bus, orders: Orders) -> None:
    """The bucket is deleted: the next key makes it again. (What it knew is gone, except where it ran.)"""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    await ask(bus.mesh.client, first, "place", 0.0, key="a")
    connection = await nats.connect(bus.url)
    await connection.jetstream().delete_stream(f"KV_{bucket_name(bus.namespace)}")
    await connection.close()
    assert (await ask(bus.mesh.client, second, "place", 0.0, key="b")).value == 2
    assert (await ask(bus.mesh.client, first, "place", 0.0, key="b")).value == 2
    assert (await ask(bus.mesh.client, first, "place", 0.0, key="a")).value == 1
    assert orders.ran == ["a", "b"]


async def test_records_go_after_their_time(bus: Bus, orders: Orders) -> None:
    """The bucket's own age is the bound in time; an instance that has not seen the key runs it anew after that."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    bucket = _bucket(bus.mesh)
    await bucket.make(
        max_age_s=0.5, sizes=(1 << 20,), max_value_bytes=1 << 16, replicas=1, description="", timeout_s=5.0
    )
    await ask(bus.mesh.client, first, "place", 0.0)
    name = f"orders.{token('web', 'place', b'k')}"
    assert await _state(bucket, name) is not None
    with anyio.fail_after(20):
        while await _state(bucket, name) is not None:
            await anyio.sleep(0.02)
    assert (await ask(bus.mesh.client, first, "place", 0.0)).value == 1
    assert (await ask(bus.mesh.client, second, "place", 0.0)).value == 2


async def test_a_bucket_of_small_values(bus: Bus, orders: Orders) -> None:
    """A reply that the bucket does not take is not kept there, the fact is; nothing is tried for ever."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    await _bucket(bus.mesh).make(
        max_age_s=60.0, sizes=(1 << 20,), max_value_bytes=1024, replicas=1, description="", timeout_s=5.0
    )
    assert len((await ask(bus.mesh.client, first, "large", 2000)).body) == 2000
    await eventually(lambda: not len(first.dispatcher.duplicates.shared.settler))
    error = await _fails(ask(bus.mesh.client, second, "large", 2000))
    assert (error.status, error.executed) == (Status.ABORTED, Executed.YES)
    assert orders.ran == ["large"]


async def _fill(bucket: KvBucket) -> None:
    """Take what room there is, to the last bytes."""
    names = itertools.count()
    with anyio.fail_after(60):
        for size in (2000, 200, 20, 2, 0):
            while True:
                try:
                    await bucket.put(f"filler.{next(names)}", b"x" * size, expected=0, timeout_s=5.0)
                except KvFullError:
                    break
                except KvError as error:
                    if not error.maybe:  # else it was too slow to answer: stored or not, there is a next one
                        raise


async def test_a_full_bucket(bus: Bus, orders: Orders, caplog: pytest.LogCaptureFixture) -> None:
    """New keys are refused with the remedy. A claim of before is still renewed, and ends as the fact that it ran, since
    it takes no more room than the claim; its caller has the reply. What is known is still answered everywhere."""
    first, second = await bus.serve(orders.service()), await bus.serve(orders.service())
    bucket = _bucket(bus.mesh)
    await bucket.make(
        max_age_s=60.0, sizes=(20_000,), max_value_bytes=1 << 16, replicas=1, description="", timeout_s=5.0
    )
    await ask(bus.mesh.client, first, "place", 0.0, key="known")
    answers: list[Answer] = []

    async def call() -> None:
        answers.append(await ask(bus.mesh.client, first, "place", 1.5 * LEASE_S, key="runs", timeout=30.0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await eventually(lambda: "runs" in orders.ran)
        await _fill(bucket)
        error = await _fails(ask(bus.mesh.client, second, "place", 0.0, key="new"))
        assert (error.refused, error.executed) == (Refused.IDEMPOTENCY, Executed.NO)
        assert f"nats stream edit KV_{bucket.name}" in error.message
        assert (await ask(bus.mesh.client, second, "place", 0.0, key="known")).value == 1
        error = await _fails(ask(bus.mesh.client, second, "place", 1.5 * LEASE_S, key="runs", timeout=30.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.YES)
    assert [answer.value for answer in answers] == [2]
    assert f"no room in the bucket {bucket.name}" in caplog.text
    assert orders.ran == ["known", "runs"]


async def test_a_full_bucket_of_a_cluster(
    nats_cluster: NatsCluster, mesh_namespace: str, orders: Orders
) -> None:
    """A cluster takes nothing in place of anything then: the caller has its reply all the same, and nobody waits for
    the claim longer than for a lease."""
    settings = Settings(servers=tuple(nats_cluster.urls), namespace=mesh_namespace)
    async with (
        Instance(orders.service(), settings=settings) as first,
        Instance(orders.service(), settings=settings) as second,
        Mesh("web", settings=settings) as mesh,
    ):
        bucket = _bucket(mesh)
        with anyio.fail_after(60):
            while True:  # a cluster that has just come up has no leader for its streams yet
                try:
                    await bucket.make(
                        max_age_s=60.0,
                        sizes=(20_000,),
                        max_value_bytes=1 << 16,
                        replicas=3,
                        description="",
                        timeout_s=5.0,
                    )
                    await bucket.put("filler.first", b"", expected=0, timeout_s=5.0)
                    break
                except KvConflictError:
                    break  # stored by the try before, whose answer was late
                except KvError:
                    await anyio.sleep(0.1)
        async with anyio.create_task_group() as tasks:
            answers: list[Answer] = []

            async def call() -> None:
                answers.append(await ask(mesh.client, first, "held", timeout=60.0))

            tasks.start_soon(call)
            await eventually(lambda: orders.ran)
            await _fill(bucket)  # as long as it takes: only then may the reply be there to be stored
            orders.release.set()
            error = await _fails(ask(mesh.client, second, "held", timeout=30.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
        assert [answer.value for answer in answers] == [1]
        assert (await ask(mesh.client, first, "held")).value == 1
    assert orders.ran == ["k"]


async def test_a_cluster_keeps_three_copies(
    nats_cluster: NatsCluster, mesh_namespace: str, orders: Orders
) -> None:
    """In a cluster the bucket has three replicas; with one server gone duplicates are still answered."""
    settings = Settings(servers=tuple(nats_cluster.urls), namespace=mesh_namespace)
    async with (
        Instance(orders.service(), settings=settings) as first,
        Mesh("web", settings=settings) as mesh,
    ):
        with anyio.fail_after(60):
            while not orders.ran:  # a cluster that has just come up has no leader for its streams yet
                try:
                    await ask(mesh.client, first, "place", 0.0, timeout=20.0)
                except CallError as error:
                    if error.executed is not Executed.NO:
                        raise
                    await anyio.sleep(0.05)
        url = first.transport.server
        info = await _info(url, mesh_namespace)
        assert info["config"]["num_replicas"] == 3
        leader = info["cluster"]["leader"]
        victim = next(server for server in nats_cluster.servers if server.name == leader)
        await victim.kill()
        async with Instance(orders.service(), settings=settings) as second:
            value, ran = None, set()
            with anyio.fail_after(60):
                while value is None:
                    await anyio.sleep(0.01)
                    try:
                        value = (await ask(mesh.client, second, "place", 0.0, timeout=10.0)).value
                    except (
                        CallError
                    ) as error:  # while the survivors choose a leader, and clients another server
                        ran.add(error.executed)
            assert value == 1
            assert Executed.YES not in ran
    assert orders.ran == ["k"]


# -- permissions -------------------------------------------------------------------------------------

_PERMISSIONS = """
authorization {{ users: [
  {{user: admin, password: p}}
  {{user: orders, password: p, permissions: {{
    publish: ["_INBOX.>", "$SRV.>", "mesh.*.*.orders.>", "mesh.*.telemetry.*.orders.>", {more}] }}}}
]}}
"""
_PUT = '"$KV.mesh_idem_default.orders.>"'
_READ = '"$JS.API.DIRECT.GET.KV_mesh_idem_default.$KV.mesh_idem_default.orders.>"'
_READ_ALL = '"$JS.API.DIRECT.GET.KV_mesh_idem_default"'


@pytest.mark.parametrize("read", [_READ, _READ_ALL], ids=["its own keys", "the whole bucket"])
async def test_two_rights_are_enough(
    nats_server_factory: NatsServerFactory, orders: Orders, read: str
) -> None:
    """In a secured mesh a service needs to write its own keys and to read: those alone, or the bucket as a whole."""
    server = nats_server_factory(config=_PERMISSIONS.format(more=f"{_PUT}, {read}"))
    admin = Settings(servers=(server.url,), user="admin", password="p")
    mine = Settings(servers=(server.url,), user="orders", password="p", mode="enforced")
    async with (
        Mesh("web", settings=admin) as mesh,
        Instance(orders.service(), settings=mine) as first,
        Instance(orders.service(), settings=mine) as second,
    ):
        await _bucket(mesh).make(
            max_age_s=60.0,
            sizes=(1 << 20,),
            max_value_bytes=1 << 16,
            replicas=1,
            description="",
            timeout_s=5.0,
        )
        for instance in (first, second, first):
            assert (await ask(mesh.client, instance, "place", 0.0)).value == 1
    assert orders.ran == ["k"]


async def test_without_the_right_it_says_so(nats_server_factory: NatsServerFactory, orders: Orders) -> None:
    """A service that may not write its keys refuses at once, and says which right is missing."""
    server = nats_server_factory(config=_PERMISSIONS.format(more=_READ))
    admin = Settings(servers=(server.url,), user="admin", password="p")
    mine = Settings(servers=(server.url,), user="orders", password="p", mode="enforced")
    async with Mesh("web", settings=admin) as mesh, Instance(orders.service(), settings=mine) as instance:
        error = await _fails(ask(mesh.client, instance, "place", 0.0))
        assert error.refused is Refused.IDEMPOTENCY
        assert "allow publishing on $KV.mesh_idem_default." in error.message
    assert orders.ran == []


# -- the bucket itself -------------------------------------------------------------------------------


async def test_a_bucket_compares_and_sets(either: Bus) -> None:
    """What stands there must be what was expected; a deletion counts as nothing that still has a revision."""
    bucket = _bucket(either.mesh)
    with pytest.raises(KvAbsentError):
        await bucket.put("s.k", b"1", expected=0, timeout_s=5.0)
    with pytest.raises(KvAbsentError):
        await bucket.get("s.k", timeout_s=5.0)
    for replicas in (3, 1):  # a server that is no cluster makes one copy; a bucket that is there stays
        await bucket.make(
            max_age_s=60.0,
            sizes=(1 << 20,),
            max_value_bytes=1024,
            replicas=replicas,
            description="",
            timeout_s=5.0,
        )
    assert await bucket.get("s.k", timeout_s=5.0) is None
    first = await bucket.put("s.k", b"1", expected=0, timeout_s=5.0)
    assert await bucket.get("s.k", timeout_s=5.0) == (first, b"1", False)
    for expected in (0, first + 1):
        with pytest.raises(KvConflictError):
            await bucket.put("s.k", b"2", expected=expected, timeout_s=5.0)
    second = await bucket.put("s.k", b"2", expected=first, timeout_s=5.0)
    assert second > first
    with pytest.raises(KvConflictError):
        await bucket.delete("s.k", expected=first, timeout_s=5.0)
    third = await bucket.delete("s.k", expected=second, timeout_s=5.0)
    assert await bucket.get("s.k", timeout_s=5.0) == (third, b"", True)
    with pytest.raises(KvConflictError):
        await bucket.put("s.k", b"3", expected=0, timeout_s=5.0)
    assert await bucket.put("s.k", b"3", expected=third, timeout_s=5.0) > third
    with pytest.raises(KvTooLargeError):
        await bucket.put("s.large", b"x" * 2000, expected=0, timeout_s=5.0)


async def test_a_forged_revision_is_not_believed(bus: Bus, raw: RawNats) -> None:
    """Whoever writes a value may put a header of the server's into it; the server's own is what counts."""
    bucket = _bucket(bus.mesh)
    await bucket.make(
        max_age_s=60.0, sizes=(1 << 20,), max_value_bytes=1024, replicas=1, description="", timeout_s=5.0
    )
    record = encode_record(decode_record(b'{"state":"unknown","claim":"c","instance":"i","request":"r"}'))
    await raw.request(f"$KV.{bucket.name}.s.k", record, b"Nats-Sequence: 99\r\nKV-Operation: PUT\r\n")
    found = await bucket.get("s.k", timeout_s=5.0)
    assert found is not None
    assert (found.revision, found.deleted) == (1, False)
