"""Calls with an idempotency key on two instances of a service, in virtual time on a bus with scripted faults."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import ApplicationError, CallError, Context, Executed, Reply, Request, Service, Status
from nats_mesh.core.duplicates import (
    LEASE_S,
    MAX_SHARED_BYTES,
    Kept,
    Record,
    State,
    decode_record,
    encode_record,
)
from nats_mesh.core.remembered import REMEMBERED_S, Memory
from nats_mesh.errors import Refused
from nats_mesh.layers.claiming import _BUCKET_SIZES, BUCKET_TTL_S, bucket_name
from nats_mesh.model import Next
from nats_mesh.serving.instance import Instance
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.memory import MemoryTransport
from tests.keyed import Answer, ask

_BUCKET = bucket_name("default")


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """An error of the service's contract."""

    sku: str


class Rig:
    """Two instances of ``orders``, what their handlers did, and a caller."""

    def __init__(self, mesh: MemoryMesh, first: Instance, second: Instance, ran: list[str]) -> None:
        self.mesh = mesh
        self.first = first
        self.second = second
        #: What the handlers did: ``endpoint`` when one began.
        self.ran = ran

    async def ask(self, instance: Instance, endpoint: str, value: Any = None, **options: Any) -> Answer:
        """One call to one instance."""
        return await ask(self.mesh.mesh.client, instance, endpoint, value, **options)

    def record(self) -> list[tuple[str, str, bytes, bytes]]:
        """Every message from now on: subject, reply, header block, payload."""
        recorded: list[tuple[str, str, bytes, bytes]] = []
        self.mesh.bus.recorded = recorded
        return recorded

    @property
    def records(self) -> list[Any]:
        """What stands in the store, without what was deleted."""
        assert self.mesh.bus.kv is not None
        bucket = self.mesh.bus.kv.buckets.get(_BUCKET)
        values = [] if bucket is None else [message.value for message in bucket.last.values()]
        return [decode_record(value) for value in values if value]


def _transport(instance: Instance) -> MemoryTransport:
    assert isinstance(instance.transport, MemoryTransport)
    return instance.transport


def _orders(ran: list[str], **options: Any) -> Service:
    orders = Service("orders", version="1.0.0", **options)
    numbers = itertools.count(1)

    @orders.endpoint()
    async def place(sku: str, ctx: Context) -> str:
        ran.append("place")
        ctx.reply_headers["x-number"] = f"{next(numbers)}"
        return f"{sku} by {ctx.instance}"

    @orders.endpoint(raises=OutOfStock)
    async def reserve(sku: str) -> str:
        ran.append("reserve")
        raise OutOfStock("nothing left", sku=sku)

    @orders.endpoint()
    async def crash() -> None:
        ran.append("crash")
        raise RuntimeError("secret")

    @orders.endpoint()
    async def slow(seconds: float) -> str:
        ran.append("slow")
        await anyio.sleep(seconds)
        return "done"

    @orders.endpoint(idempotent=True)
    async def again(seconds: float, ctx: Context) -> str:
        ran.append("again")
        await anyio.sleep(seconds)
        return ctx.instance

    @orders.endpoint(idempotent=True)
    async def flaky() -> str:
        ran.append("flaky")
        if len(ran) == 1:
            raise CallError("not now", status=Status.UNAVAILABLE)
        return "done"

    @orders.endpoint(idempotent=True, raises=OutOfStock)
    async def refuse() -> str:
        ran.append("refuse")
        raise OutOfStock("nothing left", sku="x")

    @orders.endpoint()
    async def large(size: int) -> bytes:
        ran.append("large")
        return b"x" * size

    @orders.endpoint(duplicates="local")
    async def local(seconds: float) -> str:
        ran.append("local")
        await anyio.sleep(seconds)
        return "done"

    @orders.endpoint(duplicates="off")
    async def off() -> str:
        ran.append("off")
        return "done"

    @orders.endpoint(concurrency=1)
    async def one(seconds: float) -> str:
        ran.append("one")
        await anyio.sleep(seconds)
        return "done"

    @orders.endpoint()
    async def stubborn(seconds: float) -> str:
        ran.append("stubborn")
        with anyio.CancelScope(shield=True):
            until = anyio.current_time() + seconds
            while (left := until - anyio.current_time()) > 0:
                try:
                    await anyio.sleep(left)
                except BaseException:  # noqa: BLE001 - it does not let itself be stopped
                    pass
        return "done"

    @orders.endpoint(subject="legacy.fail")
    async def plain() -> None:
        ran.append("plain")
        raise OutOfStock("nothing left", sku="x")

    @orders.endpoint()
    def threaded(value: int) -> int:
        ran.append("threaded")
        return value + 1

    return orders


@asynccontextmanager
async def _rig(mode: str = "open", **options: Any) -> AsyncIterator[Rig]:
    ran: list[str] = []
    async with MemoryMesh(mode=mode) as mesh:
        first, second = await mesh.serve(_orders(ran, **options)), await mesh.serve(_orders(ran, **options))
        yield Rig(mesh, first, second, ran)


def _run(main: Callable[[Rig], Awaitable[None]], mode: str = "open", **options: Any) -> None:
    async def start() -> None:
        async with _rig(mode, **options) as rig:
            await main(rig)

    run_virtual(start)


async def _fails(work: Awaitable[Any]) -> CallError:
    with pytest.raises(CallError) as caught:
        await work
    return caught.value


# -- the first reply, again --------------------------------------------------------------------------


def test_a_duplicate_gets_the_first_reply() -> None:
    """Value, headers and codec are those of the first reply, at the same instance and at another; it ran once."""

    async def main(rig: Rig) -> None:
        lines = "content-type: application/msgpack\r\n"
        value = msgspec.msgpack.encode("tea")
        answers = [
            await rig.ask(instance, "place", value, lines=lines)
            for instance in (rig.first, rig.first, rig.second, rig.second)
        ]
        assert rig.ran == ["place"]
        assert {msgspec.msgpack.decode(each.body) for each in answers} == {f"tea by {rig.first.id}"}
        assert all(b"x-number: 1\r\n" in each.headers for each in answers)
        assert all(b"content-type: application/msgpack\r\n" in each.headers for each in answers)

    _run(main)


def test_who_gives_it_again_says_so() -> None:
    """``Mesh-Instance`` of a reply that is given again names who gives it, once, and its load is its own."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea")
        answer = await rig.ask(rig.second, "place", "tea")
        assert answer.instance == rig.second.id
        assert answer.headers.count(b"Mesh-Instance:") == 1

    _run(main)


def test_a_duplicate_gets_the_first_error() -> None:
    """An application error is the reply: it arrives again as itself, with its fields."""

    async def main(rig: Rig) -> None:
        for instance in (rig.first, rig.first, rig.second):
            error = await _fails(rig.ask(instance, "reserve", "tea", raises=(OutOfStock,)))
            assert isinstance(error, OutOfStock)
            assert (error.sku, error.message, error.executed) == ("tea", "nothing left", Executed.YES)
        assert rig.ran == ["reserve"]

    _run(main)


def test_a_crash_is_a_reply_too() -> None:
    """A handler that failed ran: it does not run again, and its duplicates learn no more than the first caller."""

    async def main(rig: Rig) -> None:
        for instance in (rig.first, rig.first, rig.second):
            error = await _fails(rig.ask(instance, "crash"))
            assert (error.status, error.message) == (Status.INTERNAL, "internal error")
        assert rig.ran == ["crash"]

    _run(main)


def test_keys_do_not_meet() -> None:
    """Other keys, other endpoints and other callers are other calls."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="a")
        await rig.ask(rig.first, "place", "tea", key="b")
        async with rig.mesh.client("web") as web:
            await ask(web.client, rig.first, "place", "tea", key="a")
        await rig.ask(rig.first, "one", 0.0, key="a")
        assert rig.ran == ["place", "place", "place", "one"]

    _run(main)


def test_a_plain_function_runs_once() -> None:
    """A handler in a worker thread is as safe to repeat."""

    async def main(rig: Rig) -> None:
        answers = [await rig.ask(each, "threaded", 1) for each in (rig.first, rig.first, rig.second)]
        assert [each.value for each in answers] == [2, 2, 2]
        assert rig.ran == ["threaded"]

    _run(main)


def test_interceptors_stand_below() -> None:
    """A reply is given again whole: interceptors see the first call alone, and what they make of it is the reply."""
    seen: list[str] = []

    async def shout(request: Request, proceed: Next) -> Reply[Any]:
        seen.append(request.idempotency_key or "")
        reply = await proceed(request)
        return Reply(str(reply.value).upper(), headers=reply.headers)

    async def main(rig: Rig) -> None:
        answers = [await rig.ask(each, "slow", 0.0) for each in (rig.first, rig.first, rig.second)]
        assert [each.value for each in answers] == ["DONE"] * 3
        assert seen == ["k"]

    _run(main, interceptors=[shout])


def test_calls_without_a_key_touch_no_store() -> None:
    """A call without a key, or with an empty one, runs as ever; the store hears nothing of it."""

    async def main(rig: Rig) -> None:
        recorded = rig.record()
        for lines in ("", "x-a: 1\r\n", "Mesh-Idempotency-Key: \r\n"):
            for instance in (rig.first, rig.second):
                await rig.ask(instance, "place", "tea", key=None, lines=lines)
        assert rig.ran == ["place"] * 6
        assert [subject for subject, *_ in recorded if subject.startswith("$") and _BUCKET in subject] == []

    _run(main)


def test_a_duplicate_at_the_same_instance_costs_no_round_trip() -> None:
    """What an instance answered itself, or learned, it knows without asking the store again."""

    async def main(rig: Rig) -> None:
        for instance in (rig.first, rig.second):
            await rig.ask(instance, "place", "tea")
        recorded = rig.record()
        for instance in (rig.first, rig.second):
            await rig.ask(instance, "place", "tea")
        assert [subject for subject, *_ in recorded if subject.startswith("$") and _BUCKET in subject] == []

    _run(main)


# -- while the first one runs ------------------------------------------------------------------------


def test_concurrent_duplicates_wait_for_the_first() -> None:
    """Twenty at once at two instances: one runs, all get its reply, however many leases it takes."""

    async def main(rig: Rig) -> None:
        values: list[str] = []

        async def call(instance: Instance) -> None:
            values.append((await rig.ask(instance, "slow", 5 * LEASE_S, timeout=60.0)).value)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(call, (rig.first, rig.second)[number % 2])
        assert values == ["done"] * 20
        assert rig.ran == ["slow"]

    _run(main)


def test_a_duplicate_waits_within_its_own_deadline() -> None:
    """Whose time is up before the first one has ended learns that it may have run; the first goes on."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 4.0, timeout=60.0))
            await anyio.sleep(0.1)
            for instance in (rig.first, rig.second):
                start = anyio.current_time()
                error = await _fails(rig.ask(instance, "slow", 4.0, timeout=1.0))
                assert (error.status, error.executed) == (Status.DEADLINE_EXCEEDED, Executed.MAYBE)
                assert "idempotency key" in error.message
                assert anyio.current_time() - start == pytest.approx(1.0, abs=0.01)
        assert (await rig.ask(rig.second, "slow", 4.0)).value == "done"
        assert rig.ran == ["slow"]

    _run(main)


def test_the_same_key_for_another_request_is_refused() -> None:
    """Another body under a key is a mistake, and said: while the first runs, afterwards, here and elsewhere."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 1.0))
            await anyio.sleep(0.1)
            for _ in range(2):
                for instance in (rig.first, rig.second):
                    error = await _fails(rig.ask(instance, "slow", 2.0))
                    assert (error.status, error.refused) == (Status.INVALID_ARGUMENT, Refused.INVALID)
                    assert error.executed is Executed.NO
                    assert "another request" in error.message
                await anyio.sleep(1.0)
        assert rig.ran == ["slow"]

    _run(main)


def test_a_waiting_duplicate_may_be_cancelled() -> None:
    """Who gives up waiting leaves the first call, and the others who wait, alone."""

    async def main(rig: Rig) -> None:
        await rig.second.drain()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.mesh.call("orders.slow", 2.0, idempotency_key="k"))
            await anyio.sleep(0.1)
            with anyio.move_on_after(0.5):
                await rig.mesh.call("orders.slow", 2.0, idempotency_key="k")
            assert await rig.mesh.call("orders.slow", 2.0, idempotency_key="k") == "done"
        assert rig.ran == ["slow"]

    _run(main)


# -- nobody knows ------------------------------------------------------------------------------------


def test_a_dead_claimant_leaves_maybe() -> None:
    """The instance that ran it is gone: after a lease duplicates learn that nobody knows, and nothing runs again."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 1000.0, timeout=3000.0))
            await anyio.sleep(0.1)
            _transport(rig.first).cut()
            start = anyio.current_time()
            error = await _fails(rig.ask(rig.second, "slow", 1000.0))
            assert (error.status, error.executed, error.refused) == (Status.ABORTED, Executed.MAYBE, None)
            assert rig.first.id in error.message
            assert LEASE_S <= anyio.current_time() - start < LEASE_S + 0.5
            start = anyio.current_time()
            error = await _fails(rig.ask(rig.second, "slow", 1000.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            assert anyio.current_time() - start < 0.1  # it was written down
            tasks.cancel_scope.cancel()
        assert rig.ran == ["slow"]

    _run(main)


def test_an_idempotent_handler_runs_again() -> None:
    """Where running twice does no harm, one of those who wait takes a dead claim over; the rest get its reply."""

    async def main(rig: Rig) -> None:
        values: list[str] = []

        async def call() -> None:
            values.append((await rig.ask(rig.second, "again", 1.0)).value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "again", 1.0, timeout=3000.0))
            await anyio.sleep(0.1)
            _transport(rig.first).cut()
            async with anyio.create_task_group() as duplicates:
                for _ in range(5):
                    duplicates.start_soon(call)
            tasks.cancel_scope.cancel()
        assert values == [rig.second.id] * 5
        assert rig.ran == ["again", "again"]

    _run(main)


def test_a_claimant_that_was_only_away_has_the_last_word() -> None:
    """Called dead while it was cut off, a handler that ends all the same puts its reply where "nobody knows" stood."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 6.0, timeout=3000.0))
            await anyio.sleep(0.1)
            _transport(rig.first).cut()
            assert (await _fails(rig.ask(rig.second, "slow", 6.0))).status is Status.ABORTED
            assert [record.state for record in rig.records] == [State.UNKNOWN]
            _transport(rig.first).mend()
            await anyio.sleep(10.0)
            assert [record.state for record in rig.records] == [State.DONE]
            assert (await rig.ask(rig.second, "slow", 6.0)).value == "done"
            tasks.cancel_scope.cancel()
        assert rig.ran == ["slow"]

    _run(main)


def test_a_broken_off_handler_leaves_maybe_at_once() -> None:
    """Stopped at its deadline, a handler may have done anything: duplicates learn so without waiting for a lease."""

    async def main(rig: Rig) -> None:
        error = await _fails(rig.ask(rig.first, "slow", 5.0, timeout=1.0))
        assert error.status is Status.DEADLINE_EXCEEDED
        for instance in (rig.first, rig.second):
            start = anyio.current_time()
            error = await _fails(rig.ask(instance, "slow", 5.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            assert anyio.current_time() - start < 0.1
        assert rig.ran == ["slow"]

    _run(main)


def test_a_broken_off_idempotent_handler_runs_again() -> None:
    """The same, where running twice does no harm: the next call runs it."""

    async def main(rig: Rig) -> None:
        for instance in (rig.first, rig.second):
            assert (await _fails(rig.ask(instance, "again", 2.0, timeout=1.0))).executed is Executed.YES
        assert (await rig.ask(rig.first, "again", 2.0)).value == rig.first.id
        assert rig.ran == ["again"] * 3

    _run(main)


def test_who_waits_for_a_broken_off_handler_learns_it() -> None:
    """When the first one is cancelled by its caller, who waits for it is told at once that nobody knows."""

    async def main(rig: Rig) -> None:
        await rig.second.drain()
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                with anyio.move_on_after(1.0):
                    await rig.mesh.call("orders.slow", 3.0, idempotency_key="k")

            tasks.start_soon(first)
            await anyio.sleep(0.5)
            start = anyio.current_time()
            error = await _fails(rig.mesh.call("orders.slow", 3.0, idempotency_key="k"))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            assert anyio.current_time() - start == pytest.approx(0.5, abs=0.1)

    _run(main)


def test_passing_errors_of_an_idempotent_endpoint_are_not_kept() -> None:
    """UNAVAILABLE from a handler that may run twice is no last word; an application error of its contract is."""

    async def main(rig: Rig) -> None:
        recorded = rig.record()
        assert (await _fails(rig.ask(rig.first, "flaky"))).status is Status.UNAVAILABLE
        await anyio.sleep(0.5)
        assert len([block for _, _, block, _ in recorded if b"KV-Operation: DEL" in block]) == 1
        assert (await rig.ask(rig.second, "flaky")).value == "done"
        assert (await rig.ask(rig.first, "flaky")).value == "done"
        for instance in (rig.first, rig.second):
            error = await _fails(rig.ask(instance, "refuse", raises=(OutOfStock,)))
            assert isinstance(error, OutOfStock)
        assert rig.ran == ["flaky", "flaky", "refuse"]

    _run(main)


# -- what leaves nothing behind ----------------------------------------------------------------------


def test_a_body_that_cannot_be_read_claims_nothing() -> None:
    """A call that is refused before its handler may be sent again, mended, under the same key."""

    async def main(rig: Rig) -> None:
        error = await _fails(rig.ask(rig.first, "place", 7))
        assert error.refused is Refused.INVALID
        assert rig.records == []
        assert (await rig.ask(rig.second, "place", "tea")).value
        assert rig.ran == ["place"]

    _run(main)


def test_a_full_instance_claims_nothing() -> None:
    """Refused for want of a slot, the call runs elsewhere under its key."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "one", 1.0, key="other"))
            await anyio.sleep(0.1)
            assert (await _fails(rig.ask(rig.first, "one", 0.5))).refused is Refused.CONCURRENCY
            assert (await rig.ask(rig.second, "one", 0.5)).value == "done"

    _run(main)


def test_time_that_is_up_at_the_claim_starts_nothing() -> None:
    """The claim's answer came too late: no handler is started for a call whose time is up, and the claim goes."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.fault = lambda subject, publisher: 0.5 if publisher == "$JS" else None
        error = await _fails(rig.ask(rig.first, "place", "tea", timeout=0.2))
        assert error.status is Status.DEADLINE_EXCEEDED
        rig.mesh.bus.fault = None
        assert (await rig.ask(rig.second, "place", "tea")).value
        assert rig.ran == ["place"]

    _run(main)


def test_an_instance_that_slept_over_its_claim_starts_nothing() -> None:
    """The claim is there, but by the instance's clock the time is up: refused as expired, and the claim goes."""

    async def main(rig: Rig) -> None:
        duplicates = rig.first.dispatcher.duplicates
        awake, duplicates.now = duplicates.now, lambda: awake() + 6.0
        error = await _fails(rig.ask(rig.first, "place", "tea"))
        assert (error.status, error.refused) == (Status.DEADLINE_EXCEEDED, Refused.DEADLINE)
        assert error.executed is Executed.NO
        await anyio.sleep(0.1)
        assert (rig.records, rig.ran) == ([], [])

    _run(main)


# -- the store ---------------------------------------------------------------------------------------


def test_without_a_store_keyed_calls_are_refused() -> None:
    """JetStream is off: a call with a key is refused with what to do about it, and nothing runs; others go on."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.kv = None
        for _ in range(2):
            error = await _fails(rig.ask(rig.first, "place", "tea"))
            assert (error.status, error.refused) == (Status.UNAVAILABLE, Refused.IDEMPOTENCY)
            assert error.executed is Executed.NO
            assert "JetStream is not available" in error.message
            assert f"nats kv add {_BUCKET}" in error.message
            assert "duplicates='local'" in error.message
        assert rig.ran == []
        await rig.ask(rig.first, "place", "tea", key=None)
        assert (await rig.ask(rig.first, "local", 0.0)).value == "done"
        assert rig.ran == ["place", "local"]

    _run(main)


def test_a_bucket_that_cannot_be_made_is_tried_once_for_a_while() -> None:
    """Where there is no JetStream every keyed call fails at once; none but the first asks for a bucket."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.kv = None
        recorded = rig.record()
        start = anyio.current_time()
        for number in range(5):
            await _fails(rig.ask(rig.first, "place", "tea", key=f"{number}"))
        assert anyio.current_time() - start < 0.1
        assert len([subject for subject, *_ in recorded if ".STREAM.CREATE." in subject]) == 1

    _run(main)


def test_nobody_makes_a_bucket_in_a_secured_mesh() -> None:
    """In enforced mode workloads have no right to: the call is refused, and the remedy is said."""

    async def main(rig: Rig) -> None:
        recorded = rig.record()
        error = await _fails(rig.ask(rig.first, "place", "tea"))
        assert error.refused is Refused.IDEMPOTENCY
        assert f"nats kv add {_BUCKET}" in error.message
        assert [subject for subject, *_ in recorded if ".STREAM." in subject] == []

    _run(main, mode="enforced")


def test_a_silent_store_refuses_and_is_asked_to_forget() -> None:
    """No answer to a claim: refused, not run. When the store is back the claim is taken back, and the key is free."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if publisher == "$JS" else None
        error = await _fails(rig.ask(rig.first, "place", "tea"))
        assert (error.refused, error.executed) == (Refused.IDEMPOTENCY, Executed.NO)
        assert [record.state for record in rig.records] == [State.DONE, State.RUNNING]
        rig.mesh.bus.fault = None
        await anyio.sleep(5.0)
        assert [record.state for record in rig.records] == [State.DONE]
        assert (await rig.ask(rig.second, "place", "tea")).value
        assert rig.ran == ["place", "place"]

    _run(main)


def test_a_claim_that_arrives_late_is_taken_back() -> None:
    """A claim that was held up and arrives after its call was refused does not stay: its key is free again."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        recorded = rig.record()
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
        assert (await _fails(rig.ask(rig.first, "place", "tea"))).refused is Refused.IDEMPOTENCY
        rig.mesh.bus.fault = None
        await anyio.sleep(2.0)
        [late, *_] = [message for message in recorded if message[0].startswith("$KV.")]
        rig.mesh.bus.route(_transport(rig.first), *late)
        assert [record.state for record in rig.records] == [State.DONE, State.RUNNING]
        await anyio.sleep(5.0)
        assert (await rig.ask(rig.second, "place", "tea")).value
        assert rig.ran == ["place", "place"]

    _run(main)


def test_who_listens_to_everything_does_not_hide_that_there_is_no_bucket() -> None:
    """With a subscription on ">" the server has a responder for a bucket that is not there: it is made all the same."""

    async def main(rig: Rig) -> None:
        rig.mesh.mesh.client.transport.subscribe(">", lambda *message: None)
        assert (await rig.ask(rig.first, "place", "tea")).value
        assert rig.ran == ["place"]

    _run(main)


def test_all_who_wait_are_refused_together() -> None:
    """Where the store is silent nobody waits in turn for what the first one has found out already."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
        start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(lambda: _fails(rig.ask(rig.first, "place", "tea", timeout=60.0)))
        assert anyio.current_time() - start < 2.5

    _run(main)


def test_a_renewal_whose_answer_is_lost_ends_no_lease() -> None:
    """The next renewal meets the one before it, knows it as its own, and goes on: nobody calls the claimant dead."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        answers = itertools.count()
        inbox = f"_INBOX.orders.{rig.first.transport.connection}."

        def fault(subject: str, publisher: str) -> str | None:
            if publisher == "$JS" and subject.startswith(inbox):
                return "drop" if next(answers) == 1 else None
            return None

        rig.mesh.bus.fault = fault
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 5 * LEASE_S, timeout=60.0))
            await anyio.sleep(0.1)
            assert (await rig.ask(rig.second, "slow", 5 * LEASE_S, timeout=60.0)).value == "done"
        assert rig.ran == ["place", "slow"]

    _run(main)


def test_a_claim_that_moves_at_the_last_moment_lives() -> None:
    """Who is about to call a claimant dead, and is too late, waits for another lease."""

    async def main(rig: Rig) -> None:
        renewed: list[str] = []
        recorded = rig.record()

        def fault(subject: str, publisher: str) -> None:
            if subject.startswith("$KV.") and b'"unknown"' in recorded[-1][3] and not renewed:
                assert rig.mesh.bus.kv is not None
                renewed.append(subject)
                bucket = rig.mesh.bus.kv.buckets[_BUCKET]
                bucket.sequence += 1
                bucket.last[subject] = bucket.last[subject]._replace(sequence=bucket.sequence)

        rig.mesh.bus.fault = fault
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 1000.0, timeout=3000.0))
            await anyio.sleep(0.1)
            _transport(rig.first).cut()
            start = anyio.current_time()
            assert (await _fails(rig.ask(rig.second, "slow", 1000.0))).status is Status.ABORTED
            assert anyio.current_time() - start >= 2 * LEASE_S
            tasks.cancel_scope.cancel()

    _run(main)


def test_a_message_without_reply_subject_runs_once_too() -> None:
    """On a plain subject nobody may wait for the outcome; it is remembered all the same."""

    async def main(rig: Rig) -> None:
        await rig.second.drain()
        transport = rig.mesh.mesh.client.transport
        for _ in range(2):
            transport.publish("legacy.fail", b"", "", b"NATS/1.0\r\nMesh-Idempotency-Key: k\r\n\r\n")
            await anyio.sleep(0.1)
        assert rig.ran == ["plain"]
        assert [(record.state, record.reply.status) for record in rig.records] == [
            (State.DONE, Status.FAILED_PRECONDITION)
        ]

    _run(main)


def test_an_acknowledgement_that_was_lost_is_found_again() -> None:
    """The claim stands, its acknowledgement did not come: it is recognised as one's own, and the handler runs once."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        lost: list[str] = []

        def fault(subject: str, publisher: str) -> str | None:
            if publisher == "$JS" and not lost:
                lost.append(subject)
                return "drop"
            return None

        rig.mesh.bus.fault = fault
        assert (await rig.ask(rig.first, "slow", 0.0)).value == "done"
        assert (await rig.ask(rig.second, "slow", 0.0)).value == "done"
        assert rig.ran == ["place", "slow"]

    _run(main)


@pytest.mark.parametrize("lost", range(12))
def test_whatever_answer_of_the_store_is_lost_it_runs_once(lost: int) -> None:
    """Whichever answer of the store is lost, and all that follow for a while: never does a handler run twice."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        count = itertools.count()
        down_until = anyio.current_time() + 4.0

        def fault(subject: str, publisher: str) -> str | None:
            if publisher != "$JS":
                return None
            number = next(count)
            return "drop" if number == lost or (number > lost and anyio.current_time() < down_until) else None

        rig.mesh.bus.fault = fault
        outcomes: list[str] = []

        async def call(instance: Instance) -> None:
            try:
                outcomes.append((await rig.ask(instance, "slow", 1.0, timeout=20.0)).value)
            except CallError as error:
                outcomes.append(f"{error.status} {error.executed}")

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for instance in (rig.first, rig.second, rig.first, rig.second):
                    tasks.start_soon(call, instance)
            await anyio.sleep(3.0)
        assert rig.ran.count("slow") <= 1
        assert set(outcomes) <= {"done", "ABORTED maybe", "UNAVAILABLE no"}
        if "done" in outcomes:
            assert rig.ran.count("slow") == 1
            assert set(outcomes[-4:]) == {"done"}

    _run(main)


def test_a_reply_is_written_when_the_store_is_back() -> None:
    """The store went away while the handler ran: the caller has its answer, and the store gets it when it can."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            answers: list[Answer] = []

            async def first() -> None:
                answers.append(await rig.ask(rig.first, "slow", 1.0))

            tasks.start_soon(first)
            await anyio.sleep(0.5)
            rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
            await anyio.sleep(5.0)
            assert [each.value for each in answers] == ["done"]
            assert (await rig.ask(rig.first, "slow", 1.0)).value == "done"
            rig.mesh.bus.fault = None
            await anyio.sleep(5.0)
        assert [record.state for record in rig.records] == [State.DONE]
        assert (await rig.ask(rig.second, "slow", 1.0)).value == "done"
        assert rig.ran == ["slow"]

    _run(main)


def test_a_record_that_vanished_is_written_anew() -> None:
    """The bucket lost the claim (it was purged, or made anew): the reply stands there all the same at the end."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 1.0))
            await anyio.sleep(0.5)
            assert rig.mesh.bus.kv is not None
            rig.mesh.bus.kv.buckets[_BUCKET].last.clear()
        await anyio.sleep(0.5)
        assert (await rig.ask(rig.second, "slow", 1.0)).value == "done"
        assert rig.ran == ["slow"]

    _run(main)


def test_an_outcome_that_cannot_be_written_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """After half a minute the write is given up, logged and counted."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 1.0))
            await anyio.sleep(0.5)
            rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
            await anyio.sleep(60.0)
        assert rig.first.dispatcher.duplicates.unsettled == 1
        assert "is not in the store" in caplog.text

    _run(main)


def test_a_full_store_refuses_new_keys_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """No room: a new key is refused, not run, with what to do; the log names the bucket, ever more rarely. Calls whose
    reply is known, and those without a key, go on."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="known")
        assert rig.mesh.bus.kv is not None
        rig.mesh.bus.kv.full = "anything"
        for number in range(9):
            error = await _fails(rig.ask(rig.first, "place", "tea", key=f"{number}"))
            assert (error.status, error.refused) == (Status.UNAVAILABLE, Refused.IDEMPOTENCY)
            assert f"nats stream edit KV_{_BUCKET}" in error.message
        said = [each.getMessage() for each in caplog.records if "no room in the bucket" in each.getMessage()]
        assert [text.partition(":")[0] for text in said] == [
            f"no room in the bucket {_BUCKET} ({times} times so far)" for times in (1, 2, 4, 8)
        ]
        assert (await rig.ask(rig.second, "place", "tea", key="known")).value
        await rig.ask(rig.first, "place", "tea", key=None)
        assert rig.ran == ["place", "place"]

    _run(main)


def test_a_full_server_still_takes_how_a_claim_ends() -> None:
    """Claims are as long as what ends them without a reply: they are renewed, and the fact that it ran takes their
    place, in a bucket that has no room for the reply. Its caller has it, and so has who asks where it ran."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            answers: list[Answer] = []

            async def first() -> None:
                answers.append(await rig.ask(rig.first, "slow", 5 * LEASE_S, timeout=60.0))

            tasks.start_soon(first)
            await anyio.sleep(0.1)
            assert rig.mesh.bus.kv is not None
            rig.mesh.bus.kv.full = "more"
            error = await _fails(rig.ask(rig.second, "slow", 5 * LEASE_S, timeout=60.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.YES)
            assert "no room for it" in error.message
        assert [each.value for each in answers] == ["done"]
        assert [(record.state, record.reply, record.size) for record in rig.records] == [
            (State.DONE, None, 0)
        ]
        assert (await rig.ask(rig.first, "slow", 5 * LEASE_S)).value == "done"
        assert rig.first.dispatcher.duplicates.unsettled == 0
        assert rig.ran == ["slow"]

    _run(main)


def test_a_handler_broken_off_at_a_full_server_leaves_maybe_at_once() -> None:
    """That nobody knows fits in the place of a claim, too: no duplicate waits for a lease."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: _fails(rig.ask(rig.first, "slow", 5.0, timeout=1.0)))
            await anyio.sleep(0.1)
            assert rig.mesh.bus.kv is not None
            rig.mesh.bus.kv.full = "more"
        start = anyio.current_time()
        error = await _fails(rig.ask(rig.second, "slow", 5.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
        assert anyio.current_time() - start < 0.1

    _run(main)


def test_in_a_full_cluster_a_claim_blocks_no_longer_than_a_lease() -> None:
    """A cluster takes nothing at all then: the caller has its answer, others learn after a lease that nobody knows, and
    once there is room the end of the claim stands there after all."""

    async def main(rig: Rig) -> None:
        kv = rig.mesh.bus.kv
        assert kv is not None
        async with anyio.create_task_group() as tasks:
            answers: list[Answer] = []

            async def first() -> None:
                answers.append(await rig.ask(rig.first, "slow", 1.0))

            tasks.start_soon(first)
            await anyio.sleep(0.1)
            kv.full = "anything"
        assert [each.value for each in answers] == ["done"]
        start = anyio.current_time()
        error = await _fails(rig.ask(rig.second, "slow", 1.0, timeout=60.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
        assert anyio.current_time() - start < LEASE_S + 0.5
        assert (await rig.ask(rig.first, "slow", 1.0)).value == "done"
        kv.full = ""
        await anyio.sleep(5.0)
        assert [record.state for record in rig.records] == [State.DONE]
        error = await _fails(rig.ask(rig.second, "slow", 1.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.YES)
        assert rig.ran == ["slow"]

    _run(main)


def test_what_is_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many outcomes wait for the store at a time; what goes beyond is counted, and known here all the same."""
    monkeypatch.setattr("nats_mesh.layers.settling._MAX_BEHIND", 3)

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea", key="warm")
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(lambda key: rig.ask(rig.first, "slow", 0.5, key=key), f"{number}")
            await anyio.sleep(0.2)
            rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
        duplicates = rig.first.dispatcher.duplicates
        assert len(duplicates.shared.settler) == 3
        assert duplicates.unsettled == 2
        for number in range(5):
            assert (await rig.ask(rig.first, "slow", 0.5, key=f"{number}")).value == "done"
        rig.mesh.bus.fault = None
        await anyio.sleep(5.0)
        assert len(duplicates.shared.settler) == 0
        assert sorted(record.state for record in rig.records) == [State.DONE] * 4 + [State.RUNNING] * 2

    _run(main)


@pytest.mark.parametrize("away", [False, True])
def test_a_handler_that_outlives_its_instance(away: bool) -> None:
    """Nothing is written for it any more, which is counted, and no task tries for ever: its claim is dead by itself."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "stubborn", 6.0, timeout=60.0))
            await anyio.sleep(0.1)
            if away:
                rig.mesh.bus.fault = lambda subject, publisher: "drop" if subject.startswith("$") else None
            await rig.first.close()
            rig.mesh.bus.fault = None
            error = await _fails(rig.ask(rig.second, "stubborn", 6.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            await anyio.sleep(10.0)
            tasks.cancel_scope.cancel()
        duplicates = rig.first.dispatcher.duplicates
        assert (duplicates.unsettled, len(duplicates.shared.settler)) == (1, 0)
        assert rig.ran == ["stubborn"]

    _run(main)


def test_something_else_under_a_key_refuses() -> None:
    """What is no record is not guessed about: the call is refused."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "place", "tea")
        assert rig.mesh.bus.kv is not None
        [(subject, message)] = rig.mesh.bus.kv.buckets[_BUCKET].last.items()
        rig.mesh.bus.kv.buckets[_BUCKET].last[subject] = message._replace(value=b"garbage")
        error = await _fails(rig.ask(rig.second, "place", "tea"))
        assert error.refused is Refused.IDEMPOTENCY
        assert "cannot be read" in error.message
        assert rig.ran == ["place"]

    _run(main)


def test_a_leaving_instance_writes_what_is_behind() -> None:
    """Draining ends when the outcomes are in the store, which it gives a second."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "place", "tea"))
            await anyio.sleep(0.0)
            while not rig.ran:
                await anyio.sleep(0.0)
            kv, rig.mesh.bus.kv = rig.mesh.bus.kv, None
            tasks.start_soon(rig.first.drain)
            await anyio.sleep(0.5)
            rig.mesh.bus.kv = kv
        assert [record.state for record in rig.records] == [State.DONE]
        assert (await rig.ask(rig.second, "place", "tea")).value == f"tea by {rig.first.id}"

    _run(main)


def test_a_stopped_instance_says_that_nobody_knows() -> None:
    """An instance that stops its handlers says so in the store before it goes: duplicates need not wait for a lease."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: _fails(rig.ask(rig.first, "slow", 50.0, timeout=60.0)))
            await anyio.sleep(0.1)
            await rig.first.close()
            start = anyio.current_time()
            error = await _fails(rig.ask(rig.second, "slow", 50.0))
            assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
            assert anyio.current_time() - start < 0.1

    _run(main)


def test_who_waits_where_an_instance_leaves_is_sent_elsewhere() -> None:
    """A duplicate whose instance stops before the first call has ended: UNAVAILABLE, executed maybe, as whoever is
    stopped there, so that it may be tried at another; the first one goes on."""

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask(rig.first, "slow", 5.0, timeout=60.0))
            await anyio.sleep(0.1)
            errors: list[CallError] = []

            async def duplicate() -> None:
                errors.append(await _fails(rig.ask(rig.second, "slow", 5.0, timeout=60.0)))

            tasks.start_soon(duplicate)
            await anyio.sleep(0.5)
            await rig.second.close()
        [error] = errors
        assert (error.status, error.executed) == (Status.UNAVAILABLE, Executed.MAYBE)
        assert "shutting down" in error.message
        assert rig.ran == ["slow"]

    _run(main)


# -- bounds ------------------------------------------------------------------------------------------


def test_a_large_reply_stays_where_it_ran() -> None:
    """Too large for the store: the instance that ran it gives it again, others say that it ran and where."""

    async def main(rig: Rig) -> None:
        fits, exceeds = MAX_SHARED_BYTES - 1000, MAX_SHARED_BYTES + 1
        for size in (fits, exceeds):
            for _ in range(2):
                assert len((await rig.ask(rig.first, "large", size, key=f"{size}")).body) == size
        assert len((await rig.ask(rig.second, "large", fits, key=f"{fits}")).body) == fits
        error = await _fails(rig.ask(rig.second, "large", exceeds, key=f"{exceeds}"))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.YES)
        assert "too large" in error.message
        assert rig.first.id in error.message
        assert rig.ran == ["large"] * 2

    _run(main)


def test_one_service_does_not_fill_the_store_of_all() -> None:
    """A call a second with the largest reply that is kept takes less than a quarter of the bucket before the first of
    them is over its time."""
    reply = Kept(Status.OK, "", b"x" * MAX_SHARED_BYTES)
    record = encode_record(
        Record(
            state=State.DONE,
            claim="c" * 22,
            instance="i" * 22,
            request="r" * 32,
            reply=reply,
            size=reply.size,
        )
    )
    beside = 512  # subject and headers, and what the server notes of a message
    assert BUCKET_TTL_S * (len(record) + beside) < _BUCKET_SIZES[0] / 4


def test_a_reply_that_fits_no_message_is_not_shared() -> None:
    """Whatever the server takes at most, a record fits: where its reply does not, the fact alone is written."""

    async def main(rig: Rig) -> None:
        rig.mesh.bus.max_payload = 20_000
        assert len((await rig.ask(rig.first, "large", 16_000)).body) == 16_000
        await anyio.sleep(0.1)
        assert [(record.state, record.reply) for record in rig.records] == [(State.DONE, None)]
        assert rig.records[0].size >= 16_000
        assert (await _fails(rig.ask(rig.second, "large", 16_000))).status is Status.ABORTED

    _run(main)


def test_local_duplicates_are_this_instances_alone() -> None:
    """``duplicates="local"``: one instance runs it once and another does not know; the store is never asked."""

    async def main(rig: Rig) -> None:
        recorded = rig.record()
        async with anyio.create_task_group() as tasks:
            for instance in (rig.first, rig.first, rig.second):
                tasks.start_soon(rig.ask, instance, "local", 1.0)
        assert rig.ran == ["local", "local"]
        assert (await rig.ask(rig.first, "local", 1.0)).value == "done"
        assert rig.ran == ["local", "local"]
        assert [subject for subject, *_ in recorded if subject.startswith("$") and _BUCKET in subject] == []

    _run(main)


def test_local_duplicates_are_remembered_for_so_long() -> None:
    """After the time that is documented a key may be used anew."""

    async def main(rig: Rig) -> None:
        await rig.ask(rig.first, "local", 0.0)
        await anyio.sleep(REMEMBERED_S - 1.0)
        await rig.ask(rig.first, "local", 0.0)
        assert rig.ran == ["local"]
        await anyio.sleep(2.0)
        await rig.ask(rig.first, "local", 0.0)
        assert rig.ran == ["local", "local"]

    _run(main)


def test_a_broken_off_local_handler_leaves_maybe() -> None:
    """What is said of the store holds for one instance, too."""

    async def main(rig: Rig) -> None:
        await _fails(rig.ask(rig.first, "local", 5.0, timeout=1.0))
        error = await _fails(rig.ask(rig.first, "local", 5.0))
        assert (error.status, error.executed) == (Status.ABORTED, Executed.MAYBE)
        assert rig.ran == ["local"]

    _run(main)


def test_a_full_memory_refuses_new_keys() -> None:
    """An instance that remembers as many keys as it can says when to come back; what it knows it still answers."""

    async def main(rig: Rig) -> None:
        rig.first.dispatcher.duplicates.memory = Memory(limit=3)
        for number in range(3):
            await rig.ask(rig.first, "local", 0.0, key=f"{number}")
        error = await _fails(rig.ask(rig.first, "local", 0.0, key="more"))
        assert (error.status, error.refused) == (Status.UNAVAILABLE, Refused.IDEMPOTENCY)
        assert error.retry_after_s == pytest.approx(REMEMBERED_S, abs=1.0)
        await rig.ask(rig.first, "local", 0.0, key="0")
        assert rig.ran == ["local"] * 3

    _run(main)


def test_shared_keys_make_room() -> None:
    """What the store knows is forgotten first, and then asked for again: it still runs once."""

    async def main(rig: Rig) -> None:
        rig.first.dispatcher.duplicates.memory = Memory(limit=3)
        for _ in range(2):
            for number in range(6):
                await rig.ask(rig.first, "place", "tea", key=f"{number}")
        assert rig.ran == ["place"] * 6
        assert len(rig.first.dispatcher.duplicates.memory) == 3

    _run(main)


def test_off_means_off() -> None:
    """``duplicates="off"``: the key is the handler's own affair."""

    async def main(rig: Rig) -> None:
        for _ in range(2):
            await rig.ask(rig.first, "off")
        assert rig.ran == ["off", "off"]

    _run(main)


def test_nothing_is_left_of_many_keyed_calls() -> None:
    """After they are over no call, timer, task or wait is left of them; a while later no key is."""

    async def main(rig: Rig) -> None:
        for number in range(50):
            await rig.ask((rig.first, rig.second)[number % 2], "place", "tea", key=f"{number % 20}")
        await anyio.sleep(1.0)
        for instance in (rig.first, rig.second):
            assert instance.dispatcher.in_flight == 0
            assert len(instance.dispatcher.duplicates.shared.settler) == 0
            assert instance.client.mux.pending == 0
        await anyio.sleep(REMEMBERED_S)
        for instance in (rig.first, rig.second):
            instance.dispatcher.duplicates.memory.find("", instance.dispatcher.duplicates.now())
            assert len(instance.dispatcher.duplicates.memory) == 0

    _run(main)
