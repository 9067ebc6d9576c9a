"""Who is told of calls once they have ended: on both sides, of every one or of the notable ones, at no one's cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from nats_mesh import ApplicationError, Context, RemoteError, Service
from nats_mesh.calling.watching import CallEnd
from nats_mesh.errors import Status
from nats_mesh.layers.base import Arrival
from nats_mesh.wire import headers as h
from tests.harness import Bus

pytestmark = pytest.mark.anyio

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Busy(ApplicationError, status="UNAVAILABLE"):
    """Not now."""


def _shop(times: Iterator[bool]) -> Service:
    shop = Service("shop", version="1.0.0")

    @shop.endpoint(idempotent=True, raises=(Busy,))
    async def buy() -> str:
        if next(times, True):
            return "done"
        raise Busy()

    @shop.endpoint()
    async def visit(ctx: Context) -> str:
        bought: str = await ctx.call("shop.buy", idempotent=True)
        return bought

    return shop


async def test_a_caller_hears_of_its_calls(bus: Bus) -> None:
    """With all attempts, which are of one trace though each is a span of its own."""
    instance = await bus.serve(_shop(iter([True, False, True])))
    seen: list[CallEnd] = []
    bus.mesh.client.watching.set("test", seen.append)
    assert await bus.mesh.call("shop.buy", idempotent=True) == "done"
    assert await bus.mesh.call("shop.buy", idempotent=True) == "done"
    one, two = seen
    assert [(each.status, each.instance) for each in one.attempts] == [(Status.OK, instance.id)]
    assert [each.status for each in two.attempts] == [Status.UNAVAILABLE, Status.OK]
    assert len({each.ids[:32] for each in two.attempts}) == 1
    assert len({each.ids for each in two.attempts}) == two.sent == 2
    assert one.attempts[0].ids[:32] != two.attempts[0].ids[:32]
    assert (one.status, one.error, one.sampled, one.bytes_in) == (Status.OK, None, False, len(b'"done"'))
    assert one.start <= one.attempts[0].start <= one.attempts[0].end <= one.end
    bus.mesh.client.watching.set("test", None)
    await bus.mesh.call("shop.buy", idempotent=True)
    assert len(seen) == 2


async def test_notable_calls_alone(bus: Bus) -> None:
    """Those whose trace is sampled, that fail, or that take long; and what they say is the same."""
    instance = await bus.serve(_shop(iter([True, False, False, True])))
    seen: list[CallEnd] = []
    served: list[tuple[str, Status | None]] = []
    bus.mesh.client.watching.set("test", seen.append, every=False)
    instance.dispatcher.watching.set(
        "test", lambda call, took_s: served.append((call.caller, call.status)), every=False
    )
    await bus.mesh.call("shop.buy", idempotent=True)
    assert (seen, served) == ([], [])
    with pytest.raises(RemoteError):
        await bus.mesh.call("shop.buy", idempotent=True)
    assert [each.status for each in seen.pop().attempts] == [Status.UNAVAILABLE] * 2
    assert [status for _, status in served] == [Status.UNAVAILABLE] * 2
    served.clear()
    header = {"traceparent": f"00-{_TRACE}-00f067aa0ba902b7-01"}
    await bus.mesh.call("shop.buy", headers=header)
    assert seen.pop().attempts[0].ids.startswith(_TRACE)
    assert served.pop() == ("web", Status.OK)
    bus.mesh.client.watching.set("test", seen.append, every=False, slow_s=0.0)
    await bus.mesh.call("shop.buy")
    assert len(seen) == 1


async def test_a_sampled_trace_that_begins_here(bus: Bus) -> None:
    """Is told to the instance as sampled, and everything further in the trace is, too."""
    instance = await bus.serve(_shop(iter([])))
    flags: list[bool] = []
    instance.dispatcher.watching.set("test", lambda call, took_s: flags.append(h.is_sampled(call.headers)))
    await bus.mesh.call("shop.visit")
    assert flags == [False, False]
    bus.mesh.client.sample(lambda service, endpoint: 1.0)
    await bus.mesh.call("shop.visit")
    assert flags == [False, False, True, True]


async def test_an_instance_hears_of_its_calls_and_of_what_they_called(bus: Bus) -> None:
    """What a handler called is told with the time that it took, where somebody reads it."""
    instance = await bus.serve(_shop(iter([])))
    seen: list[Arrival] = []
    instance.dispatcher.watching.set("test", lambda call, took_s: seen.append(call), own_calls=True)
    await bus.mesh.call("shop.visit")
    inner, outer = seen
    assert (inner.caller, outer.caller) == ("shop", "web")
    assert [(target, status) for target, _, _, status in outer.context.own_calls] == [("shop.buy", "OK")]
    assert len(outer.context.span_id) == 16
    assert inner.context.own_calls == []


async def test_a_watcher_that_fails_harms_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the call nor other watchers; the log says which one it was."""
    instance = await bus.serve(_shop(iter([])))
    seen: list[CallEnd] = []

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of the watcher")

    bus.mesh.client.watching.set("broken", broken)
    bus.mesh.client.watching.set("sound", seen.append)
    instance.dispatcher.watching.set("broken", broken)
    with caplog.at_level(logging.ERROR, "nats_mesh"):
        assert await bus.mesh.call("shop.buy") == "done"
    assert len(seen) == 1
    assert sum("could not be told to broken" in each.message for each in caplog.records) == 2


@pytest.mark.parametrize(
    ("flags", "sampled"),
    [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True), ("0a", False)],
)
def test_the_flags_of_a_trace(flags: str, sampled: bool) -> None:
    """The lowest bit counts, in a block that ends with its trace and in any other."""
    trace = f"\r\ntraceparent: 00-{_TRACE}-00f067aa0ba902b7-{flags}\r\n".encode()
    assert h.is_sampled(b"NATS/1.0" + trace + b"\r\n", alone=True) is sampled
    assert h.is_sampled(b"NATS/1.0" + trace + b"\r\n") is sampled
    assert (
        h.is_sampled(b"NATS/1.0" + trace + b"content-type: application/msgpack\r\n\r\n", alone=True)
        is sampled
    )
    assert h.is_sampled(b"NATS/1.0\r\nx: y" + trace + b"a: b\r\n\r\n") is sampled
    assert not h.is_sampled(b"NATS/1.0\r\nx: y\r\n\r\n")
    assert not h.is_sampled(b"")
