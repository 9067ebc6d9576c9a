"""Observers of live calls on a real server: they come, go and die, and no service and no caller notices."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import pytest

from nats_mesh import Mesh, Service
from nats_mesh.core.envelope import Envelope
from nats_mesh.core.tap_filter import Filter
from nats_mesh.errors import PermissionDeniedError
from nats_mesh.serving.instance import Instance
from nats_mesh.telemetry.tap_feed import TapFeed
from nats_mesh.telemetry.tap_messages import TapCall, TapMessage, encode_tap, recorded_call
from nats_mesh.telemetry.tap_sink import TapSink
from nats_mesh.testing import NatsServer
from tests.cli.program import PROGRAM, environment, run_cli
from tests.harness import Bus, eventually
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


def shop() -> Service:
    """Something to call; every tenth call fails."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def buy(number: int) -> int:
        if number % 10 == 9:
            raise ValueError("nothing left")
        return number

    return service


class Load:
    """Calls that never end while it runs; ``wrong`` are those that ended as no call should."""

    def __init__(self, mesh: Mesh) -> None:
        self.calls = 0
        self.wrong: list[BaseException] = []
        self._mesh = mesh
        self._over = False

    async def _call(self, first: int) -> None:
        number = first
        while not self._over:
            try:
                reply = await self._mesh.request("shop.buy", number, returns=int)
                assert reply.value == number
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at below
                if number % 10 != 9 or "INTERNAL" not in str(error):
                    self.wrong.append(error)
            self.calls += 1
            number += 8
            await asyncio.sleep(0.002)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Eight at a time."""
        async with anyio.create_task_group() as tasks:
            for first in range(8):
                tasks.start_soon(self._call, first)
            try:
                yield
            finally:
                self._over = True

    async def more(self, count: int) -> None:
        """Return after so many more calls."""
        until = self.calls + count
        await eventually(lambda: self.calls >= until)


def heard(feed: TapFeed) -> bool:
    """Whether it was told of any call."""
    return feed.counts.shown > 0


def listened(instance: Instance) -> bool:
    """Whether calls are told to anybody's tap."""
    return "tap" in instance.dispatcher.watching.names


async def test_observers_come_and_go_without_a_service_noticing(bus: Bus) -> None:
    """Twenty of them, each with its own wish, several times, under load: no call fails, and nothing is left."""
    instance = await bus.serve(shop())
    load = Load(bus.mesh)
    async with load.running():
        await load.more(50)
        for _ in range(3):
            async with AsyncExitStack() as stack:
                feeds = []
                for n in range(20):
                    mesh = await bus.caller("observer")
                    only = Filter(failed=True) if n % 2 else Filter(slow_s=n / 1e6)
                    feeds.append(await stack.enter_async_context(TapFeed(mesh, only=only, rate_per_s=2000.0)))
                await load.more(100)
                for feed in feeds:
                    await eventually(partial(heard, feed), partial(repr, feed.counts))
                for feed in feeds[1::2]:
                    assert {call.status for call in feed.taken()} == {"INTERNAL"}
                assert {(feed.counts.ignored, feed.counts.lost) for feed in feeds} == {(0, 0)}
            taps = instance._parts.taps
            assert taps is not None
            taps._wishes.clear()  # as their leases end by themselves, five seconds later
        await load.more(50)
    assert load.wrong == []
    await eventually(lambda: not listened(instance))
    await bus.at_rest()


async def test_observers_that_are_killed_leave_nothing(bus: Bus) -> None:
    """Programs that end without a word: calls go on, and once their leases are over nobody is told anything."""
    instance = await bus.serve(shop())
    load = Load(bus.mesh)
    env = environment({"NATS_URL": bus.url, "MESH_NAMESPACE": bus.namespace})
    async with load.running():
        processes = [
            subprocess.Popen(
                [PROGRAM, "tap", "shop", "--rate", "2000/s", "-o", "jsonl"],
                env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
            for _ in range(3)
        ]  # fmt: skip
        try:
            for process in processes:
                assert process.stdout is not None
                line = await anyio.to_thread.run_sync(process.stdout.readline)
                assert b'"service":"shop"' in line
            assert listened(instance)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
        await load.more(200)
        await eventually(lambda: not listened(instance))
        await load.more(50)
    assert load.wrong == []


async def test_an_instance_that_knows_no_filters_is_filtered_by_the_observer(bus: Bus, raw: RawNats) -> None:
    """It tells of everything and says nothing of filters: what was not asked for is left out here, and it is known."""
    mesh = await bus.caller("observer")
    inbox = f"_INBOX.shop.c.{'0' * 32}.0"
    async with TapFeed(mesh, only=Filter(callers=("web",), headers=(("tenant", "acme"),))) as feed:
        for seq, (caller, tenant) in enumerate([("web", "acme"), ("web", "other"), ("batch", "acme")], 1):
            call = Envelope(
                at="2026-01-01T00:00:00Z", endpoint="buy", caller=caller, route="all", status="OK", duration_s=0.1,
                headers=(("tenant", tenant),),
            )  # fmt: skip
            (body,) = encode_tap(
                TapMessage(
                    instance="old", service="shop", version="0.9.0", namespace=bus.namespace, seq=seq, seen=1,
                    calls=(call,),  # type: ignore[arg-type]  # what an older one sends
                ),
                100_000,
            )  # fmt: skip
            assert b"filtered" in body
            body = body.replace(b',"filtered":false', b"").replace(b',"withheld":0', b"")
            raw.publish(f"mesh.{bus.namespace}.telemetry.tap.shop.old", body, inbox)
        await eventually(lambda: feed.counts.ended == 3)
        assert [(call.caller, call.instance) for call in feed.taken()] == [("web", "old")]
        assert feed.older == {"old"}


def test_no_recording_holds_what_was_said() -> None:
    """Though another observer has asked for it, and it stands in the same messages."""
    call = TapCall(
        at="2026-01-01T00:00:00Z", endpoint="buy", caller="web", route="all", status="OK", duration_s=0.1,
        silent=True,
    )  # fmt: skip
    message = TapMessage(
        instance="i", service="shop", version="1.0.0", namespace="default", seq=1, calls=(call,)
    )
    recorded = recorded_call(call, message)
    assert not {"sent", "answered", "silent"} & set(recorded.__struct_fields__)


async def test_a_message_that_is_forged_is_not_shown(bus: Bus, raw: RawNats) -> None:
    """Neither another's inbox, nor another's subject, nor bytes that are no message; each is counted."""
    sink = TapSink(recorded_call, namespace=bus.namespace, enforced=True, now=anyio.current_time)
    transport = bus.mesh.client.transport
    transport.subscribe(bus.mesh.client.subjects.telemetry_of("tap"), sink.on_message)
    await transport.fence()
    subject = f"mesh.{bus.namespace}.telemetry.tap.shop.i1"
    message = TapMessage(instance="i1", service="shop", version="1.0.0", namespace=bus.namespace, seq=1)
    (body,) = encode_tap(message, 100_000)
    for to, data, reply in (
        (subject, body, "_INBOX.thief.c.1.0"),
        (subject, body, ""),
        (subject.replace("i1", "i2"), body, "_INBOX.shop.c.1.0"),
        (subject, b"{", "_INBOX.shop.c.1.0"),
    ):
        raw.publish(to, data, reply)
    await eventually(lambda: sink.counts.ignored == 4)
    assert (sink.instances, sink.taken()) == (0, [])


CREDENTIALS = """
authorization {
  users: [
    {user: shop, password: p, permissions: {
      publish: ["_INBOX.>", "mesh.*.presence.shop.*", "mesh.*.telemetry.*.shop.*", "mesh.*.audit.*.shop.*",
                "mesh.*.control.ack.shop.*", "mesh.*.rpc.*.*.*.shop", "$SRV.>", "$JS.API.>"],
      subscribe: ["_INBOX.shop.>", "mesh.*.rpc.shop.>", "mesh.*.direct.shop.>", "mesh.*.cancel.shop.*",
                  "mesh.*.presence.*.*", "mesh.*.verdict.>", "mesh.*.control.>", "mesh.*.telemetry.want.>", "$SRV.>"]}}
    {user: looker, password: p, permissions: {
      publish: ["_INBOX.>", "$SRV.>"], subscribe: ["_INBOX.looker.>", "mesh.*.telemetry.>", "mesh.*.presence.>"]}}
    {user: operator, password: p, permissions: {
      publish: [">"], subscribe: ["_INBOX.operator.>", "mesh.*.telemetry.>", "mesh.*.presence.>"]}}
  ]
}
"""


async def test_who_may_not_ask_hears_nothing() -> None:
    """Where permissions are enforced, a workload can neither ask for taps nor listen to those of others; who may only
    listen is told that it may not ask."""
    with NatsServer(config=CREDENTIALS, jetstream=False) as server:
        address = server.url.removeprefix("nats://")
        async with Mesh("shop", servers=f"nats://shop:p@{address}") as workload:
            with pytest.raises(PermissionDeniedError):
                async with TapFeed(workload):
                    pass
        async with (
            Mesh("operator", servers=f"nats://operator:p@{address}") as operator,
            TapFeed(operator) as feed,
        ):
            assert feed.counts.ignored == 0
        env = {"NATS_URL": f"nats://looker:p@{address}"}
        line = partial(run_cli, "tap", "--as", "looker", "--duration", "10s", env=env)
        done = await anyio.to_thread.run_sync(line)
        assert done.code == 4
        assert "do not let looker ask for calls" in done.err
