"""The configuration of a running instance, followed beside its calls, on a bus in memory and in virtual time."""

from __future__ import annotations

import anyio
import msgspec

from nats_mesh.config.follower import ConfigFollower
from nats_mesh.config.live import Configuration
from nats_mesh.config.value import describe_config
from nats_mesh.testing.virtual import LoopClock, run_virtual
from nats_mesh.wire.kv import KvBucket
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions, Transport


class Limits(msgspec.Struct, frozen=True):
    """What the service declares."""

    rows: int = 10


def follower() -> ConfigFollower:
    """What follows it for one instance, and keeps nothing on disk."""
    declared = describe_config("shop", Limits)
    assert declared is not None
    return ConfigFollower(
        declared,
        service="shop",
        subjects=Subjects("default"),
        clock=LoopClock(),
        chance=lambda: 0.5,
        tell=lambda kind, target, detail: None,
        cache_dir="",
        identity=(),
    )


async def opened(**stored: int) -> tuple[Transport, ReplyMux]:
    """An instance's way to a bus, and what is stored there."""
    bus = MemoryBus()
    transport = await bus.connect(ConnectOptions(name="shop"))
    mux = ReplyMux(transport, LoopClock().monotonic)
    bucket = KvBucket(
        Subjects("default").config_bucket, transport=transport, mux=mux, now=LoopClock().monotonic
    )
    await bucket.make(
        max_age_s=0.0, sizes=(1 << 20,), max_value_bytes=1 << 16, replicas=1, description="", timeout_s=5.0
    )
    await bucket.put("shop.default", msgspec.json.encode(stored), expected=0, timeout_s=5.0)
    return transport, mux


async def given(configuration: Configuration[Limits]) -> list[int]:
    """Everything that iterating gives until it ends."""
    with anyio.fail_after(60):
        return [each.rows async for each in configuration]


def test_iterating_ends_when_the_instance_leaves() -> None:
    """At once, and whoever begins to iterate afterwards has nothing to wait for either; the value stays."""

    async def main() -> None:
        following = follower()
        await following.start(*await opened(rows=50))
        configuration = Configuration[Limits](following)
        found: list[list[int]] = []

        async def iterate() -> None:
            found.append(await given(configuration))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(iterate)
            await anyio.sleep(1.0)
            await following.close()
        assert found == [[50]]
        assert await given(configuration) == []
        assert configuration.value == Limits(50)

    run_virtual(main)


def test_a_value_that_comes_after_the_instance_left_is_not_taken() -> None:
    """As where it leaves while it still starts: nobody waits then for a change that nobody tells of."""

    async def main() -> None:
        following = follower()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(following.start, *await opened(rows=50))
            await anyio.sleep(0)
            await following.close()
        assert following.revision == 0
        assert following.changed.is_set()
        assert await given(Configuration(following)) == []

    run_virtual(main)
