"""The bus inside one process behaves, towards the seam, as a nats-server does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.errors import CallError, DisconnectedError, Executed, Status
from nats_mesh.testing import VIRTUAL_TIME
from nats_mesh.wire.memory import MemoryBus, MemoryTransport, matches
from nats_mesh.wire.transport import ConnectOptions

pytestmark = pytest.mark.anyio

Message = tuple[str, str, bytes, bytes]


@pytest.fixture
def anyio_backend() -> object:
    """Delays take no time here."""
    return VIRTUAL_TIME


class Box:
    """A handler that keeps whole messages."""

    def __init__(self) -> None:
        self.got: list[Message] = []

    def __call__(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        self.got.append((subject, reply, headers, payload))

    @property
    def payloads(self) -> list[bytes]:
        return [message[3] for message in self.got]


async def client(bus: MemoryBus, name: str = "web") -> MemoryTransport:
    """One connection."""
    return await bus.connect(ConnectOptions(name=name))


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a", "a", True),
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("a", "a.b", False),
        ("a.b", "a.c", False),
        ("A", "a", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.*.c", "a.b.c", True),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c.d", True),
        ("a*", "ab", False),
    ],
)
def test_subjects_match_as_in_nats(pattern: str, subject: str, fits: bool) -> None:
    """A star is one whole token, > is one or more at the end, case matters."""
    assert matches(pattern, subject) is fits


@given(
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=5),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
)
def test_stars_match_token_by_token(pattern: list[str], subject: list[str]) -> None:
    """The obvious definition, by another way."""
    expected = len(pattern) == len(subject) and all(
        p in ("*", s) for p, s in zip(pattern, subject, strict=False)
    )
    assert matches(".".join(pattern), ".".join(subject)) is expected


async def test_messages_of_one_publisher_arrive_whole_and_in_order() -> None:
    """Subject, reply, headers and payload as published, each subscription its own copy, in order."""
    bus = MemoryBus()
    reader, writer = await client(bus), await client(bus)
    first, second = Box(), Box()
    reader.subscribe("a.*", first)
    reader.subscribe("a.>", second)
    for number in range(100):
        writer.publish("a.b", b"%d" % number, "r", b"NATS/1.0\r\n\r\n")
    assert first.got == []  # never within the publisher's own turn
    await writer.fence()
    assert first.got == second.got == [("a.b", "r", b"NATS/1.0\r\n\r\n", b"%d" % n) for n in range(100)]
    assert (writer.stats.out_messages, reader.stats.in_messages) == (100, 200)


async def test_a_queue_group_delivers_to_one_member_and_shares_evenly() -> None:
    """Each group gets one copy, whoever is in it on whatever pattern; plain subscriptions get theirs besides."""
    bus = MemoryBus(rng=random.Random(7))
    writer = await client(bus)
    members, other, plain = [Box() for _ in range(4)], Box(), Box()
    for number, box in enumerate(members):
        (await client(bus, f"m{number}")).subscribe("a.b" if number % 2 else "a.*", box, "q")
    (await client(bus)).subscribe("a.b", other, "another")
    (await client(bus)).subscribe("a.b", plain)
    for number in range(2000):
        writer.publish("a.b", b"%d" % number)
    await writer.fence()
    shares = [len(box.got) for box in members]
    assert sum(shares) == 2000
    assert min(shares) > 400
    assert len(other.got) == len(plain.got) == 2000
    assert Counter(payload for box in members for payload in box.payloads).most_common(1)[0][1] == 1


async def test_chance_is_seeded() -> None:
    """Two buses with the same seed choose the same members."""

    async def run() -> list[int]:
        bus = MemoryBus(rng=random.Random(3))
        writer, chosen = await client(bus), list[int]()
        for number in range(3):
            (await client(bus)).subscribe("a", lambda *_, n=number: chosen.append(n), "q")
        for _ in range(50):
            writer.publish("a")
        await writer.fence()
        return chosen

    assert await run() == await run()


async def test_nobody_listening_is_answered_at_once() -> None:
    """A 503 to the publisher's own subscription on the reply subject, and only where one was named."""
    bus = MemoryBus()
    writer, inbox = await client(bus), Box()
    writer.subscribe("_INBOX.web.*", inbox)
    writer.publish("nobody", b"x", "_INBOX.web.1")
    writer.publish("nobody", b"x")
    await writer.fence()
    assert inbox.got == [("_INBOX.web.1", "", b"NATS/1.0 503\r\n\r\n", b"")]
    (await client(bus)).subscribe("nobody", Box())
    writer.publish("nobody", b"x", "_INBOX.web.2")
    await writer.fence()
    assert len(inbox.got) == 1


async def test_whoever_left_gets_what_was_on_its_way_and_nothing_more() -> None:
    """As after an UNSUB that crosses a message on the wire."""
    bus = MemoryBus()
    reader, writer, box = await client(bus), await client(bus), Box()
    subscription = reader.subscribe("a", box)
    writer.publish("a", b"1")
    reader.unsubscribe(subscription)
    writer.publish("a", b"2")
    await writer.fence()
    assert box.payloads == [b"1"]
    reader.unsubscribe(subscription)


async def test_a_closed_or_cut_connection_neither_sends_nor_hears() -> None:
    """Publishing is refused unsent, with the reason; messages on their way are lost."""
    bus = MemoryBus()
    reader, writer, box = await client(bus), await client(bus), Box()
    reader.subscribe("a", box)
    writer.publish("a", b"lost on the way")
    reader.cut()
    await writer.fence()
    writer.publish("a", b"to nobody")
    with pytest.raises(DisconnectedError, match="cut off") as caught:
        reader.publish("b")
    assert caught.value.executed is Executed.NO
    with pytest.raises(DisconnectedError):
        await reader.fence()
    reader.mend()
    writer.publish("a", b"heard")
    await writer.fence()
    assert box.payloads == [b"heard"]
    await reader.close()
    with pytest.raises(DisconnectedError, match="closed"):
        reader.publish("b")
    assert bus.clients == [writer]
    await reader.close()


async def test_listeners_hear_of_losses_and_returns_once_each() -> None:
    """Cutting twice is one loss, mending twice one return; a closed connection never comes back."""
    told: list[str] = []

    class Listener:
        def on_disconnect(self, reason: str) -> None:
            told.append(reason)

        def on_reconnect(self) -> None:
            told.append("back")

        def on_denied(self, operation: str, subject: str) -> None:
            told.append("denied")

    transport, listener = await client(MemoryBus()), Listener()
    transport.add_listener(listener)
    transport.cut("first")
    transport.cut("second")
    transport.mend()
    transport.mend()
    assert told == ["first", "back"]
    assert transport.stats.reconnects == 1
    transport.remove_listener(listener)
    transport.remove_listener(listener)
    transport.cut()
    await transport.close()
    transport.mend()
    assert not transport.connected
    assert told == ["first", "back"]


async def test_waiting_for_a_connection_ends_when_it_is_back_or_the_time_is_up() -> None:
    """True at once while connected, true when mended, false after the timeout and for a closed one."""
    transport = await client(MemoryBus())
    assert await transport.wait_connected(0.0)
    transport.cut()
    start = anyio.current_time()
    assert not await transport.wait_connected(2.0)
    assert anyio.current_time() - start == pytest.approx(2.0)
    asyncio.get_running_loop().call_later(1.0, transport.mend)
    assert await transport.wait_connected(5.0)
    assert anyio.current_time() - start == pytest.approx(3.0)
    await transport.close()
    assert not await transport.wait_connected(5.0)


async def test_scripted_faults_delay_and_lose_messages() -> None:
    """``bus.fault`` sees subject and publisher of every message and decides over it."""
    bus = MemoryBus()
    writer, box = await client(bus, "slow"), Box()
    times: list[float] = []
    reader = await client(bus)
    reader.subscribe("a.*", box)
    reader.subscribe("a.*", lambda *message: times.append(anyio.current_time()))
    seen: list[tuple[str, str]] = []

    def fault(subject: str, publisher: str) -> float | str | None:
        seen.append((subject, publisher))
        script: dict[str, float | str] = {"a.slow": 3.0, "a.lost": "drop"}
        return script.get(subject)

    bus.fault = fault
    start = anyio.current_time()
    for subject in ("a.slow", "a.lost", "a.quick"):
        writer.publish(subject, subject.encode())
    await anyio.sleep(10.0)
    assert box.payloads == [b"a.quick", b"a.slow"]
    assert [at - start for at in times] == pytest.approx([0.0, 3.0])
    assert seen == [("a.slow", "slow"), ("a.lost", "slow"), ("a.quick", "slow")]


async def test_too_much_is_refused_as_by_the_real_transport() -> None:
    """Header block and payload together against max_payload."""
    bus = MemoryBus(max_payload=100)
    transport = await client(bus)
    transport.publish("a", bytes(60), headers=bytes(40))
    with pytest.raises(CallError) as caught:
        transport.publish("a", bytes(60), headers=bytes(41))
    assert (caught.value.status, caught.value.executed) == (Status.RESOURCE_EXHAUSTED, Executed.NO)


async def test_a_handler_that_raises_is_counted_and_heard_of() -> None:
    """The exception reaches the loop's handler, so that a test fails on it; other messages are handled."""
    bus = MemoryBus()
    transport, box = await client(bus), Box()
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: heard.append(str(context["exception"]))
    )

    def broken(*message: object) -> None:
        raise RuntimeError("a handler that breaks the rule")

    transport.subscribe("a", broken)
    transport.subscribe("a", box)
    transport.publish("a", b"x")
    await transport.fence()
    assert (box.payloads, heard) == ([b"x"], ["a handler that breaks the rule"])
    assert transport.stats.dropped_handler_errors == 1


async def test_a_recording_holds_every_message() -> None:
    """Also those that a fault loses or nobody hears."""
    bus = MemoryBus()
    transport = await client(bus)
    transport.publish("before", b"")
    bus.recorded = []
    bus.fault = lambda subject, publisher: "drop"
    transport.publish("a", b"x", "r", b"h")
    assert bus.recorded == [("a", "r", b"h", b"x")]
