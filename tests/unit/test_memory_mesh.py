"""What a user relies on when testing a service without a broker."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from nats_mesh import ConfigError, Context, DeadlineExceededError, DisconnectedError, Executed, Service
from nats_mesh.testing import MemoryMesh, run_virtual

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    """A value to send."""

    sku: str
    count: int = 1


def _orders() -> Service:
    orders = Service("orders", version="1.0.0")

    @orders.endpoint(timeout=2.0)
    async def place(order: Order) -> str:
        return f"{order.count} × {order.sku}"

    @orders.endpoint()
    async def nap(seconds: float, ctx: Context) -> float:
        await anyio.sleep(seconds)
        return ctx.remaining()

    @orders.endpoint()
    def plain(count: int) -> int:
        return count + 1

    return orders


async def test_the_fixture_serves_and_calls(mesh: MemoryMesh) -> None:
    """A service is tested in a handful of lines: serve it, call it."""
    await mesh.serve(_orders())
    assert await mesh.call("orders.place", Order("tea", 2), returns=str) == "2 × tea"


async def test_instances_share_the_calls(mesh: MemoryMesh) -> None:
    """Several instances of a service form one queue group."""
    first, second = await mesh.serve(_orders()), await mesh.serve(_orders())
    answered = {(await mesh.request("orders.place", Order("tea"))).instance for _ in range(50)}
    assert answered == {first.id, second.id}


async def test_a_service_sees_its_caller(mesh: MemoryMesh) -> None:
    """Another caller on the same bus speaks under its own name."""
    seen: list[str] = []
    service = Service("who", version="1.0.0")

    @service.endpoint()
    async def am_i(ctx: Context) -> None:
        seen.append(ctx.caller)

    await mesh.serve(service)
    async with mesh.client("web") as web:
        await web.call("who.am_i")
    await mesh.call("who.am_i")
    assert seen == ["web", "test"]


def test_hours_pass_at_once_in_virtual_time() -> None:
    """Under run_virtual a deadline an hour away is reached without waiting for it, and exactly."""

    async def main() -> None:
        async with MemoryMesh(_orders()) as mesh:
            start = anyio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                await mesh.call("orders.nap", 7200.0, timeout=3600.0)
            assert anyio.current_time() - start == pytest.approx(3600.0)
            assert caught.value.executed is Executed.MAYBE

    run_virtual(main)


def test_a_call_with_no_time_for_another_attempt_waits_with_all_of_it() -> None:
    """Its only attempt does not end at half of the time, and the error says the time in its own unit."""
    slow = Service("slow", version="1.0.0")

    @slow.endpoint(idempotent=True)
    async def nap(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "well"

    async def scenario() -> str:
        async with MemoryMesh(slow) as mesh:
            assert await mesh.call("slow.nap", 0.008, timeout=0.011, idempotent=True) == "well"
            mesh.bus.fault = lambda subject, publisher: "drop" if ".rpc." in subject else None
            with pytest.raises(DeadlineExceededError) as caught:
                await mesh.call("slow.nap", 0.0, timeout=0.0125, idempotent=True)
            assert caught.value.attempts == 1
            return caught.value.message

    assert run_virtual(scenario) == "no answer in 12.5 ms"


def test_virtual_time_waits_for_worker_threads() -> None:
    """A plain-function handler runs in a real thread; virtual time does not jump over it."""

    async def main() -> None:
        async with MemoryMesh(_orders()) as mesh:
            start = anyio.current_time()
            assert await mesh.call("orders.plain", 1) == 2
            assert anyio.current_time() == start

    run_virtual(main)


def test_scripted_faults_delay_and_lose_messages() -> None:
    """bus.fault decides over every message: a delay is waited for, a loss ends in the caller's deadline."""

    async def main() -> None:
        async with MemoryMesh(_orders()) as mesh:
            mesh.bus.fault = lambda subject, publisher: 0.5 if ".rpc." in subject else None
            start = anyio.current_time()
            await mesh.call("orders.place", Order("tea"))
            assert anyio.current_time() - start == pytest.approx(0.5)
            mesh.bus.fault = lambda subject, publisher: "drop" if ".rpc." in subject else None
            with pytest.raises(DeadlineExceededError):
                await mesh.call("orders.place", Order("tea"), timeout=1.0)

    run_virtual(main)


async def test_a_cut_connection_fails_calls_and_mends(mesh: MemoryMesh) -> None:
    """While a caller is cut off nothing is sent, and the error says so; afterwards calls work again."""
    await mesh.serve(_orders())
    mesh.cut("test")
    with pytest.raises(DisconnectedError) as caught:
        await mesh.call("orders.place", Order("tea"))
    assert caught.value.executed is Executed.NO
    mesh.mend("test")
    assert await mesh.call("orders.place", Order("tea")) == "1 × tea"


async def test_a_service_without_endpoints_is_refused(mesh: MemoryMesh) -> None:
    """Starting a service that serves nothing is a mistake that is said at once."""
    with pytest.raises(ConfigError, match="no endpoints"):
        await mesh.serve(Service("empty", version="1.0.0"))


def test_two_virtual_runs_are_the_same() -> None:
    """Chance is seeded: which instance answers is the same in every run."""

    async def main() -> list[int]:
        async with MemoryMesh(seed=7) as mesh:
            ids = [(await mesh.serve(_orders())).id for _ in range(3)]
            return [ids.index((await mesh.request("orders.place", Order("tea"))).instance) for _ in range(40)]

    first = run_virtual(main)
    assert first == run_virtual(main)
    assert set(first) == {0, 1, 2}


def test_waiting_in_vain_ends_with_an_explanation() -> None:
    """Presence beats for ever, so a test that awaits what never happens is stopped instead of spinning."""

    async def main() -> None:
        async with MemoryMesh(_orders()):
            await anyio.Event().wait()

    with pytest.raises(RuntimeError, match="never happens"):
        run_virtual(main)
