"""The reply mux: one wildcard subscription, a secret per destination, one table of who waits."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

import pytest

from nats_mesh.errors import CallError, DisconnectedError, Executed, OverloadedError, PermissionDeniedError
from nats_mesh.testing.virtual import run_virtual
from nats_mesh.wire import mux as module
from nats_mesh.wire.loop import Deadline
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import parse_inbox
from nats_mesh.wire.transport import ConnectOptions
from tests.tools import ROOT

pytestmark = pytest.mark.anyio


class Waiting:
    """A sink that keeps what it gets; with ``mux``, it leaves the table as soon as it hears anything."""

    def __init__(
        self, subject: str = "mesh.default.rpc.orders.all.place.web", mux: ReplyMux | None = None
    ) -> None:
        self.subject = subject
        self.replies: list[bytes] = []
        self.failures: list[CallError] = []
        self.inbox = ""
        self._mux = mux

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        self.replies.append(payload)
        self._leave()

    def on_failure(self, error: CallError) -> None:
        self.failures.append(error)
        self._leave()

    def _leave(self) -> None:
        if self._mux is not None:
            self._mux.close(self.inbox)


class Table:
    """A caller's mux on a bus, and a server's transport that answers."""

    def __init__(self, caller: MemoryTransport, server: MemoryTransport) -> None:
        self.caller = caller
        self.server = server
        self.mux = ReplyMux(caller, time.monotonic)

    async def answer(self, inbox: str, *payloads: bytes) -> None:
        """Publish to ``inbox`` and wait until that has arrived."""
        for payload in payloads:
            self.server.publish(inbox, payload)
        await self.caller.fence()


@pytest.fixture
async def table() -> Table:
    """A mux whose caller is ``web``."""
    bus = MemoryBus()
    return Table(
        await bus.connect(ConnectOptions(name="web")), await bus.connect(ConnectOptions(name="orders"))
    )


async def test_a_reply_reaches_whoever_asked(table: Table) -> None:
    """The number at the end of the inbox tells requests apart, whatever the order of the answers."""
    sinks = [Waiting() for _ in range(10)]
    inboxes = [table.mux.open("orders", sink) for sink in sinks]
    for number in reversed(range(10)):
        await table.answer(inboxes[number], b"%d" % number)
    assert [sink.replies for sink in sinks] == [[b"%d" % number] for number in range(10)]


async def test_several_replies_come_until_the_sink_is_closed(table: Table) -> None:
    """A request may have many answers; after closing they are counted as late, and the table is empty."""
    sink = Waiting()
    inbox = table.mux.open("orders", sink)
    await table.answer(inbox, b"1", b"2", b"3")
    table.mux.close(inbox)
    table.mux.close(inbox)
    await table.answer(inbox, b"4", b"5")
    assert (sink.replies, table.mux.late, table.mux.pending) == ([b"1", b"2", b"3"], 2, 0)


async def test_an_inbox_names_caller_connection_and_a_secret_of_its_destination(table: Table) -> None:
    """The secret is the same for one destination, another for each other one and for each other connection."""
    second = Table(await table.caller._bus.connect(ConnectOptions(name="web")), table.server)
    orders, again, carts, elsewhere = (
        parse_inbox(mux.open(destination, Waiting()))
        for mux, destination in (
            (table.mux, "orders"),
            (table.mux, "orders"),
            (table.mux, "carts"),
            (second.mux, "orders"),
        )
    )
    assert orders
    assert again
    assert carts
    assert elsewhere
    assert (orders.caller, orders.connection) == ("web", table.caller.connection)
    assert orders.secret == again.secret
    assert len({orders.secret, carts.secret, elsewhere.secret}) == 3
    assert orders.number != again.number
    assert elsewhere.connection == second.caller.connection != orders.connection


async def test_nobody_can_forge_a_reply_from_what_he_knows(table: Table) -> None:
    """Another destination's secret, a guessed one, another number: dropped and counted, whoever waits waits on."""
    sink, other = Waiting(), Waiting()
    inbox = parse_inbox(table.mux.open("orders", sink))
    known = parse_inbox(table.mux.open("carts", other))
    assert inbox
    assert known
    prefix = f"_INBOX.web.{inbox.connection}"
    for forged in (
        f"{prefix}.{known.secret}.{inbox.number}",
        f"{prefix}.{'0' * 32}.{inbox.number}",
        f"{prefix}.{inbox.secret}.999",
        f"{prefix}.{inbox.secret}.0{inbox.number}",
    ):
        await table.answer(forged, b"forged")
    assert (sink.replies, other.replies, table.mux.late, table.mux.pending) == ([], [], 4, 2)


async def test_a_one_way_message_names_its_publisher_and_waits_for_nothing(table: Table) -> None:
    """Number 0 belongs to no request; the server's no-responders to it is not a late reply."""
    inbox = parse_inbox(table.mux.one_way("presence"))
    assert inbox is not None
    assert (inbox.caller, inbox.number) == ("web", "0")
    assert table.mux.one_way("presence") == table.mux.one_way("presence")
    await table.answer(table.mux.one_way("presence"), b"")
    assert (table.mux.late, table.mux.pending) == (0, 0)


async def test_who_wants_to_know_hears_what_answers_a_one_way_message(table: Table) -> None:
    """Whatever comes back goes to the one who asked for it; nothing waits, and nothing is late."""
    heard: list[tuple[bytes, bytes]] = []
    inbox = table.mux.one_way("audit", lambda headers, payload: heard.append((headers, payload)))
    assert inbox == table.mux.one_way("audit")
    await table.answer(table.mux.one_way("presence"), b"nobody asked")
    await table.answer(inbox, b"1", b"2")
    assert [payload for _, payload in heard] == [b"1", b"2"]
    assert (table.mux.late, table.mux.pending) == (0, 0)


async def test_messages_are_numbered_by_subject(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each subject has numbers of its own from 1 on; of many subjects, those of long ago begin anew."""
    assert [table.mux.number(subject) for subject in ("a", "a", "b", "a")] == [1, 2, 1, 3]
    monkeypatch.setattr(module, "_MAX_DESTINATIONS", 10)
    for number in range(20):
        table.mux.number(f"s{number}")
    assert (len(table.mux._numbers), table.mux.number("a")) == (10, 1)


async def test_everyone_fails_when_the_connection_is_lost(table: Table) -> None:
    """Outcome unknown, at once, each exactly once, even where failing takes a sink out of the table."""
    sinks = [Waiting(mux=table.mux) for _ in range(20)]
    for sink in sinks:
        sink.inbox = table.mux.open("orders", sink)
    table.caller.cut("the server died")
    for sink in sinks:
        [error] = sink.failures
        assert isinstance(error, DisconnectedError)
        assert error.executed is Executed.MAYBE
        assert "the server died" in error.message
    assert len({id(sink.failures[0]) for sink in sinks}) == 20  # an error belongs to one call
    assert table.mux.pending == 0
    table.caller.mend()
    await table.answer(sinks[0].inbox, b"late")
    assert (sinks[0].replies, table.mux.late) == ([], 1)


async def test_a_denied_publish_fails_the_calls_on_that_subject_alone(table: Table) -> None:
    """By its exact subject: not another endpoint's, not one that differs in case, and no denied subscription."""
    mine, same, other, upper = (
        Waiting("mesh.default.rpc.orders.all.place.web"),
        Waiting("mesh.default.rpc.orders.all.place.web"),
        Waiting("mesh.default.rpc.orders.all.list.web"),
        Waiting("mesh.default.rpc.Orders.all.place.web"),
    )
    for sink in (mine, same, other, upper):
        table.mux.open("orders", sink)
    table.mux.on_denied("subscription", mine.subject)
    assert mine.failures == []
    table.mux.on_denied("publish", mine.subject)
    for sink in (mine, same):
        [error] = sink.failures
        assert isinstance(error, PermissionDeniedError)
        assert error.executed is Executed.NO
        assert sink.subject in error.message
    assert other.failures == upper.failures == []


async def test_the_table_is_bounded(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a request is refused at once, unsent; a slot that is free again can be taken."""
    monkeypatch.setattr(module, "_MAX_PENDING", 3)
    inboxes = [table.mux.open("orders", Waiting()) for _ in range(3)]
    with pytest.raises(OverloadedError) as caught:
        table.mux.open("orders", Waiting())
    assert caught.value.executed is Executed.NO
    table.mux.close(inboxes[0])
    table.mux.open("orders", Waiting())
    assert table.mux.pending == 3


async def test_the_secrets_are_bounded_and_calls_in_flight_outlive_them(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many destinations there are; a forgotten secret is made anew, a reply to the old one still counts."""
    monkeypatch.setattr(module, "_MAX_DESTINATIONS", 10)
    sink = Waiting()
    inbox = table.mux.open("first", sink)
    for number in range(100):
        table.mux.one_way(f"service-{number}")
    assert len(table.mux._inboxes) == 10
    await table.answer(inbox, b"in time")
    assert sink.replies == [b"in time"]
    assert table.mux.open("first", Waiting()).split(".")[3] != inbox.split(".")[3]


async def test_shutting_down_tells_everyone_and_leaves_nothing(table: Table) -> None:
    """Whoever waits learns it, the subscription and the listener are gone."""
    sink = Waiting()
    table.mux.open("orders", sink)
    table.mux.shut()
    [error] = sink.failures
    assert error.executed is Executed.MAYBE
    assert table.caller.subscriptions == {}
    assert table.caller._listeners == []
    assert table.mux.pending == 0


def test_a_forked_process_makes_ids_of_its_own() -> None:
    """Workers forked from one parent share no connection id and no instance id."""
    script = (
        "import os; from nats_mesh.wire.ids import new_id\n"
        "new_id(); child = os.fork()\n"
        "ids = ' '.join(new_id() for _ in range(100))\n"
        "if child: os.waitpid(child, 0)\n"
        "os.write(1, ids.encode() + b'\\n')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    ids = run.stdout.split()
    assert len(ids) == len(set(ids)) == 200


# -- waits that end -----------------------------------------------------------------------------------


async def ended(future: asyncio.Future[tuple[bytes, bytes]]) -> str:
    """What a wait came to."""
    try:
        await future
    except Deadline:
        return "deadline"
    return "reply"


def waiting_for(mux: ReplyMux, seconds: float) -> tuple[asyncio.Future[tuple[bytes, bytes]], int]:
    """A wait of so many seconds, and its number."""
    future: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
    now = asyncio.get_running_loop().time()
    return future, mux.expect("_INBOX.web.c.s.", "a.b", future, now + seconds)


def timers() -> int:
    """Timers of the loop that have not been taken back."""
    loop = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]  # asyncio's loop has it


async def virtual_mux() -> ReplyMux:
    """A mux on the clock of the loop that runs."""
    transport = await MemoryBus().connect(ConnectOptions(name="web"))
    return ReplyMux(transport, asyncio.get_running_loop().time)


def test_each_wait_ends_at_its_own_time() -> None:
    """Random lengths, begun at random times: each ends within a millisecond of its own deadline."""

    async def main() -> None:
        mux, rng, late = await virtual_mux(), random.Random(3), []
        loop = asyncio.get_running_loop()

        async def one(begin: float, length: float) -> None:
            await asyncio.sleep(begin)
            future, number = waiting_for(mux, length)
            deadline = loop.time() + length
            assert await ended(future) == "deadline"
            late.append(loop.time() - deadline)
            mux.forget("_INBOX.web.c.s.", number)

        await asyncio.gather(
            *(one(rng.uniform(0, 5), rng.choice([0.001, 0.05, 1, 5, 60])) for _ in range(500))
        )
        assert len(late) == 500
        assert -0.0006 <= min(late) <= max(late) <= 0.001
        assert mux.pending == 0
        mux.shut()

    run_virtual(main)


def test_one_timer_serves_all_waits_and_goes_when_they_are_over() -> None:
    """A thousand waits hold one timer; when nobody waits any more it is not set again."""

    async def main() -> None:
        mux = await virtual_mux()
        before = timers()
        held = [waiting_for(mux, 5.0 + n / 1000) for n in range(1000)]
        assert timers() == before + 1
        for _, number in held:
            mux.forget("_INBOX.web.c.s.", number)
        await asyncio.sleep(10)
        assert timers() == before
        waiting_for(mux, 3600.0)
        assert timers() == before + 1
        mux.shut()
        assert timers() == before

    run_virtual(main)


def test_an_answered_call_is_not_ended_later() -> None:
    """The first reply ends the wait and the entry; the timer that was set for it hits nobody."""

    async def main() -> None:
        mux = await virtual_mux()
        first, _ = waiting_for(mux, 1.0)
        second, _ = waiting_for(mux, 2.0)
        mux._on_message("_INBOX.web.c.s.1", "", b"", b"answer")
        assert await first == (b"", b"answer")
        assert mux.pending == 1
        assert await ended(second) == "deadline"
        mux._on_message("_INBOX.web.c.s.1", "", b"", b"again")
        assert mux.late == 1
        mux.shut()

    run_virtual(main)


def test_a_shorter_wait_that_comes_later_ends_first() -> None:
    """The timer moves forward for whoever cannot wait as long as the others."""

    async def main() -> None:
        mux, loop = await virtual_mux(), asyncio.get_running_loop()
        long, _ = waiting_for(mux, 10.0)
        start = loop.time()
        short, _ = waiting_for(mux, 0.5)
        assert await ended(short) == "deadline"
        assert loop.time() - start < 0.51
        assert not long.done()
        mux.shut()
        assert isinstance(long.exception(), DisconnectedError)

    run_virtual(main)
