"""Events: what is kept, what is told, and what they never do to whoever tells them."""

from __future__ import annotations

import ast
import json
from typing import Any

import msgspec
import pytest

from nats_mesh.clock import ManualClock
from nats_mesh.errors import CodecError
from nats_mesh.telemetry.events import (
    BURST,
    MAX_EVENTS,
    RATE_PER_S,
    Event,
    Events,
    decode_event,
    decode_recent,
)
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.wants import LEASE_S, Wants
from nats_mesh.wire.memory import MemoryBus, MemoryTransport
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions
from nats_mesh_cli import event_records, past_events, trouble
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

OWN = "_INBOX.watcher.c.0123456789abcdef0123456789abcdef"


def told(clock: ManualClock | None = None) -> Events:
    """Events of somebody who is not connected."""
    return Events("orders", "default", instance="i1", clock=clock or ManualClock())


def test_the_last_ones_are_kept() -> None:
    """A bounded ring: what is oldest goes; the numbers go on."""
    clock = ManualClock()
    events = told(clock)
    for n in range(MAX_EVENTS + 10):
        clock.advance(1.0)
        events.emit("breaker.open", "stock.count", f"{n}")
    assert len(events.recent) == MAX_EVENTS
    assert [event.seq for event in events.recent] == list(range(11, MAX_EVENTS + 11))


def test_an_event_says_who_what_when() -> None:
    """Wall time for people, the member and its instance, numbers beside the text."""
    events = told()
    events.emit("limit.changed", "orders.place", "at most 8 calls", limit=8)
    (event,) = events.recent
    assert (event.kind, event.target, event.detail, event.numbers) == (
        "limit.changed",
        "orders.place",
        "at most 8 calls",
        {"limit": 8.0},
    )
    assert (event.service, event.instance, event.namespace, event.at) == (
        "orders",
        "i1",
        "default",
        "2023-11-14T22:13:20.000000Z",
    )


def test_a_flood_of_one_kind_hides_no_other() -> None:
    """Each kind has a rate of its own; how many were too many stands in the next one that is kept."""
    clock = ManualClock()
    events = told(clock)
    for _ in range(1000):
        events.emit("retry.denied", "stock", "no budget")
    events.emit("instance.draining", "i1", "by ann")
    kept = [event.kind for event in events.recent]
    assert (kept.count("retry.denied"), kept[-1]) == (BURST, "instance.draining")
    clock.advance(1.0 / RATE_PER_S)
    events.emit("retry.denied", "stock", "no budget")
    assert events.recent[-1].missed == 1000 - BURST
    events.emit("instance.draining", "i1", "by ann")
    assert events.recent[-1].missed == 0


def test_kinds_are_bounded() -> None:
    """However many words there are, the table does not grow for ever."""
    events = told()
    for n in range(1000):
        events.emit(f"kind-{n}", "x", "y")
    assert {event.kind for event in events.recent} >= {"kind-0", "other"}
    assert len(events._buckets) <= 65


@pytest.mark.parametrize(
    ("kind", "target", "detail", "numbers"),
    [
        ("Breaker Open", "x", "y", {}),
        ("", "x", "y", {}),
        (None, "x", "y", {}),
        ("ok", object(), "y", {}),
        ("ok", "x", "y", {"n": "many"}),
        ("ok", "x", "y", {"n": None}),
    ],
)
def test_telling_never_raises(kind: Any, target: Any, detail: Any, numbers: dict[str, Any]) -> None:
    """What cannot be told is counted, and whoever tells it goes on."""
    events = told()
    events.emit(kind, target, detail, **numbers)
    assert (events.failed, len(events.recent)) == (1, 0)


def test_texts_are_made_fit() -> None:
    """Control characters become blanks, long texts are cut, numbers that JSON does not have are left out."""
    events = told()
    events.emit("ok", "a\r\nb\x1b[31m", "x" * 5000, nan=float("nan"), inf=float("inf"), good=1)
    (event,) = events.recent
    assert event.target == "a b [31m"
    assert len(event.detail) <= 400
    assert event.numbers == {"good": 1.0}
    encoded = json.dumps({name: getattr(event, name) for name in event.__struct_fields__}).encode()
    assert decode_event(encoded) == event


class Rig:
    """Events on a memory bus, and everything that passes there."""

    def __init__(self, bus: MemoryBus, transport: MemoryTransport, clock: ManualClock) -> None:
        self.bus, self.transport, self.clock = bus, transport, clock
        subjects, mux = Subjects("default"), ReplyMux(transport, clock.monotonic)
        self.wants = Wants(
            member="orders", subjects=subjects, transport=transport, clock=clock, enforced=True
        )
        self.events = told(clock)
        self.events.connect(instance="i1", subjects=subjects, transport=transport, mux=mux, wants=self.wants)

    async def want(self, name: str = "all", reply: str = f"{OWN}.0", kind: str = "event") -> None:
        """Hold a lease."""
        self.transport.publish(f"mesh.default.telemetry.want.{kind}.{name}.watcher", b"", reply)
        await self.transport.fence()

    def published(self) -> list[tuple[str, str, bytes]]:
        """What the member published."""
        assert self.bus.recorded is not None
        return [
            (subject, reply, payload)
            for subject, reply, _, payload in self.bus.recorded
            if ".telemetry.event." in subject
        ]

    def answered(self, number: int) -> list[Event]:
        """What came to an inbox."""
        assert self.bus.recorded is not None
        return [
            event
            for subject, _, _, payload in self.bus.recorded
            if subject == f"{OWN}.{number}"
            for event in decode_recent(payload)
        ]


@pytest.fixture
async def rig() -> Rig:
    """A member that is connected."""
    bus = MemoryBus()
    bus.recorded = []
    return Rig(bus, await bus.connect(ConnectOptions(name="orders")), ManualClock())


@pytest.mark.parametrize("name", ["all", "orders"])
async def test_events_are_told_while_somebody_listens(rig: Rig, name: str) -> None:
    """Nothing before and nothing after a lease, on the member's own subject, with its own inbox as reply."""
    rig.events.emit("one", "x", "y")
    assert rig.published() == []
    await rig.want(name)
    rig.events.emit("two", "x", "y")
    ((subject, reply, payload),) = rig.published()
    assert subject == "mesh.default.telemetry.event.orders.i1"
    assert reply.startswith("_INBOX.orders.")
    assert reply.endswith(".0")
    assert decode_event(payload, service="orders", instance="i1", namespace="default").kind == "two"
    rig.clock.advance(LEASE_S)
    rig.events.emit("three", "x", "y")
    assert len(rig.published()) == 1


@pytest.mark.parametrize(
    ("name", "reply", "kind"),
    [
        ("stock", f"{OWN}.0", "event"),
        ("all", f"{OWN}.0", "stats"),
        ("all", "", "event"),
        ("all", "_INBOX.other.c.0123456789abcdef0123456789abcdef.1", "event"),
        ("all", "mesh.default.rpc.bank.all.transfer.orders", "event"),
    ],
)
async def test_other_leases_do_not_count(rig: Rig, name: str, reply: str, kind: str) -> None:
    """On another member, on another kind, or not believed: nothing is told and nothing is answered."""
    rig.events.emit("one", "x", "y")
    before = len(rig.bus.recorded or ())
    await rig.want(name, reply, kind)
    rig.events.emit("two", "x", "y")
    assert len(rig.bus.recorded or ()) == before + 1, "the lease itself"


async def test_whoever_comes_later_gets_what_was_recent(rig: Rig) -> None:
    """A lease with an inbox that waits is answered there, oldest first; one-way leases are not."""
    for n in range(3):
        rig.events.emit("happened", "x", str(n))
    await rig.want(reply=f"{OWN}.1")
    assert [event.detail for event in rig.answered(1)] == ["0", "1", "2"]
    await rig.want(reply=f"{OWN}.0")
    assert rig.answered(0) == []


async def test_what_is_too_large_for_one_message_comes_in_several(rig: Rig) -> None:
    """Nothing is left out because a server takes small messages."""
    rig.bus.max_payload = 2000
    for n in range(20):
        rig.events.emit("happened", "x" * 100, f"{n} {'y' * 300}")
    await rig.want(reply=f"{OWN}.1")
    assert [event.seq for event in rig.answered(1)] == list(range(1, 21))


async def test_questions_are_answered_at_a_bounded_rate(rig: Rig) -> None:
    """Whoever asks all the time does not make the member talk all the time."""
    rig.events.emit("happened", "x", "y")
    for _ in range(500):
        await rig.want(reply=f"{OWN}.1")
    assert len(rig.answered(1)) == 20


async def test_a_connection_that_is_away_is_no_trouble(rig: Rig) -> None:
    """What cannot be told is kept, and so is that it is away, with the reason, without what is nobody's business."""
    await rig.want()
    rig.transport.cut("nats://ann:secret@bus:4222: unexpected EOF")
    rig.events.emit("happened", "x", "y")
    assert rig.events.failed == 0
    lost, happened = rig.events.recent
    assert (lost.kind, lost.target) == ("bus.lost", rig.transport.server)
    assert lost.detail == "nats://bus:4222: unexpected EOF"
    assert happened.kind == "happened"


async def test_what_happened_while_the_connection_was_away_is_told_when_it_is_back(rig: Rig) -> None:
    """With the next lease, in its order, once: that it was lost, what else there was, and for how long it was away."""
    await rig.want()
    rig.transport.cut()
    rig.events.emit("happened", "x", "y")
    rig.clock.advance(LEASE_S + 36.2)
    rig.transport.mend()
    assert rig.published() == [], "nobody's lease runs"
    await rig.want()
    told_then = [decode_event(payload) for _, _, payload in rig.published()]
    assert [event.kind for event in told_then] == ["bus.lost", "happened", "bus.back"]
    assert (told_then[2].detail, told_then[2].numbers) == ("it was away for 41.2 s", {"away_s": 41.2})
    await rig.want()
    assert len(rig.published()) == 3


async def test_a_short_absence_is_told_while_a_lease_runs(rig: Rig) -> None:
    """No new one is waited for."""
    await rig.want()
    rig.transport.cut()
    rig.clock.advance(0.2)
    rig.transport.mend()
    assert [decode_event(payload).kind for _, _, payload in rig.published()] == ["bus.lost", "bus.back"]


async def test_a_connection_that_flaps_is_told_at_a_bounded_rate(rig: Rig) -> None:
    """As of every kind; how many were left out is said."""
    for _ in range(1000):
        rig.transport.cut()
        rig.transport.mend()
    assert len(rig.events.recent) == 2 * BURST
    assert len(rig.events._untold) <= MAX_EVENTS
    rig.clock.advance(1.0)
    rig.transport.cut()
    assert rig.events.recent[-1].missed == 1000 - BURST


async def test_who_is_closed_remembers_nothing_of_the_connection(rig: Rig) -> None:
    """It listens no more."""
    rig.events.close()
    rig.transport.cut()
    assert not rig.events.recent


async def test_closed_it_remembers_and_is_silent(rig: Rig) -> None:
    """Nothing is published after the end."""
    await rig.want()
    rig.events.close()
    rig.events.emit("happened", "x", "y")
    assert rig.published() == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Not A Kind"},
        {"seq": 0},
        {"at": "yesterday"},
        {"target": "a\nb"},
        {"detail": "x" * 401},
        {"numbers": {str(n): 1 for n in range(9)}},
        {"service": "stock"},
        {"instance": "i2"},
        {"wire": 2},
    ],
)
def test_events_that_break_a_bound_are_not_read(change: dict[str, Any]) -> None:
    """Whoever may publish may send anything."""
    good = {
        "kind": "ok", "at": "2025-01-31T12:00:00.000000Z", "service": "orders", "instance": "i1",
        "namespace": "default", "seq": 1,
    }  # fmt: skip
    said = {"service": "orders", "instance": "i1", "namespace": "default"}
    assert decode_event(json.dumps({**good, "mood": "fine"}).encode(), **said).seq == 1
    with pytest.raises(CodecError):
        decode_event(json.dumps({**good, **change}).encode(), **said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"service": "stock"}, {}),
        ({"instance": "i2"}, {}),
        ({"namespace": "other"}, {}),
        ({}, {"service": "stock"}),
        ({}, {"namespace": "other"}),
    ],
)
def test_nobody_remembers_what_happened_to_another(change: dict[str, Any], said: dict[str, str]) -> None:
    """An answer that tells of two members, or of one that was not asked, is refused whole."""
    good = {
        "kind": "ok", "at": "2025-01-31T12:00:00.000000Z", "service": "orders", "instance": "i1",
        "namespace": "default", "seq": 1,
    }  # fmt: skip
    own = json.dumps({"events": [good, good]}).encode()
    assert len(decode_recent(own, service="orders", namespace="default")) == 2
    assert decode_recent(b'{"events":[]}', service="orders", namespace="default") == ()
    with pytest.raises(CodecError, match="in an answer of"):
        decode_recent(json.dumps({"events": [good, {**good, **change}]}).encode(), **said)


# -- kinds -------------------------------------------------------------------------------------------


def test_who_tells_and_who_listens_mean_the_same_kinds() -> None:
    """The mesh tells of nothing by a word of its own, everything in the list is told by somebody or seen by presence,
    and what the command line marks as bad is in the list."""
    written: list[str] = []
    told_of: set[str] = set()
    for path in sorted((ROOT / "nats_mesh").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                told_of |= {node.attr} if node.value.id == "EventKind" else set()
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                kind = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                if node.func.attr.strip("_") in ("emit", "tell") and "." in str(kind or ""):
                    written.append(f"{path.name}:{node.lineno}: {kind!r}")
    assert written == []
    seen = {*event_records.KINDS.values(), *past_events.KINDS}
    assert {EventKind[name] for name in told_of} | seen == set(EventKind)
    assert EventKind.EJECTION_BEGAN in trouble._BAD <= set(EventKind)


@pytest.mark.parametrize("kind", EventKind)
def test_a_kind_of_the_mesh_is_one_that_can_be_told(kind: EventKind) -> None:
    """Each is a word that travels, as plain text."""
    events = told()
    events.emit(kind, "orders", "it happened")
    (event,) = events.recent
    assert decode_event(json.dumps(_fields(event)).encode()).kind == kind.value


def _fields(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(event)
    return found
