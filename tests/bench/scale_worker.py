"""The processes that ``tests.bench.scale`` measures: ``python -m tests.bench.scale_worker ROLE URL [NUMBER …]``.

Each prints a line of JSON when it is ready, and one for each line it is sent; it ends when its input does.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec

from nats_mesh import Mesh, Service
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Health
from nats_mesh.core.presence import Kind
from nats_mesh.discovery.observer import Observer
from nats_mesh.runner import loop_factory
from nats_mesh.serving.instance import Instance
from tests.bench.scale_presence import Crowd

__all__ = ["EndpointsReady", "Ready", "Seen", "endpoints_service", "idle_service"]


class Ready(msgspec.Struct):
    """A process says that it is: what its loop is, and how long it took it to start serving."""

    loop: str
    start_s: float = 0.0


class EndpointsReady(msgspec.Struct):
    """The service of many endpoints: CPU seconds to declare them, seconds to start serving."""

    declare_s: float
    start_s: float


class Seen(msgspec.Struct):
    """What an observer knows; ``all_s`` is how long after it opened (or heard the first) it knew everybody."""

    known: int
    alive: int
    ignored: int
    all_s: float | None
    joined: int
    gone: int


class Order(msgspec.Struct):
    """A value as services have them."""

    sku: str
    count: int = 1
    note: str | None = None


class Receipt(msgspec.Struct):
    """What comes back."""

    id: str
    total: float


def idle_service(url: str) -> Service:
    """One service with five endpoints, as people write them."""
    service = Service("idle", version="1.0.0", servers=url)

    def add(name: str) -> None:
        @service.endpoint(name=name)
        async def handle(order: Order) -> Receipt:
            return Receipt(order.sku, 1.0)

    for name in ("place", "cancel", "get", "list", "price"):
        add(name)
    return service


def endpoints_service(count: int, name: str = "many", url: str | None = None) -> Service:
    """One service with ``count`` typed endpoints, ``e0`` and up; each answers with its own number."""
    service = Service(name, version="1.0.0", servers=url)

    def add(number: int) -> None:
        @service.endpoint(name=f"e{number}")
        async def handle(order: Order) -> Receipt:
            return Receipt(order.sku, float(number))

    for number in range(count):
        add(number)
    return service


async def _serve(answer: Callable[[str], Awaitable[object]], ready: object) -> None:
    """Say ``ready``, then answer each line of input, until there is no more."""
    _print(ready)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        _print(await answer(line.decode().strip()))


def _print(what: object) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


async def _nothing(question: str) -> object:
    return None


def _loop_name() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


async def _idle(url: str) -> None:
    start = time.perf_counter()
    async with Instance(idle_service(url)):
        await _serve(_nothing, Ready(_loop_name(), time.perf_counter() - start))


async def _endpoints(url: str, count: int) -> None:
    used = time.process_time()
    service = endpoints_service(count, url=url)
    declare_s = time.process_time() - used
    start = time.perf_counter()
    async with Instance(service):
        await _serve(_nothing, EndpointsReady(declare_s, time.perf_counter() - start))


async def _observer(url: str, expected: int) -> None:
    async with Mesh("watcher", servers=url) as mesh:
        seen = Seen(0, 0, 0, None, 0, 0)
        start = time.perf_counter()

        def on_change(change: Change) -> None:
            if change.kind is ChangeKind.JOINED:
                seen.joined += 1
                if seen.joined == expected:
                    seen.all_s = time.perf_counter() - start
            elif change.kind is ChangeKind.GONE:
                seen.gone += 1

        client = mesh.client
        observer = Observer(
            subjects=client.subjects, transport=client.transport, mux=client.mux, clock=SYSTEM_CLOCK,
            on_change=on_change,
        )  # fmt: skip

        async def answer(question: str) -> object:
            nonlocal start
            if question == "start":
                start = time.perf_counter()
            instances = observer.registry.instances()
            seen.known = len(instances)
            seen.alive = sum(each.health is Health.ALIVE for each in instances)
            seen.ignored = observer.ignored
            return seen

        await client.transport.fence()
        await _serve(answer, Ready(_loop_name()))
        observer.close()


async def _crowd(url: str, services: int, each: int) -> None:
    async with Mesh("crowd", servers=url) as mesh:
        client = mesh.client
        crowd = Crowd(client.transport, client.subjects, random.Random(1), services=services, each=each)
        beating: list[asyncio.Task[None]] = []

        async def answer(question: str) -> object:
            if question == "join":
                await crowd.say(Kind.JOIN)
                beating.append(asyncio.get_running_loop().create_task(crowd.beat()))
            elif question == "leave":
                for task in beating:
                    task.cancel()
                await crowd.say(Kind.LEAVE)
            return crowd.sent

        await _serve(answer, Ready(_loop_name()))


def main(role: str, url: str, *numbers: str) -> None:
    """Play one role until the input ends."""
    roles: dict[str, Callable[..., Awaitable[None]]] = {
        "idle": _idle, "endpoints": _endpoints, "observer": _observer, "crowd": _crowd,
    }  # fmt: skip

    async def play() -> None:
        await roles[role](url, *map(int, numbers))

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(play())


if __name__ == "__main__":
    main(*sys.argv[1:])
