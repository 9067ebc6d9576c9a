"""The audit without a bus: what records are believed, what documents stood at a moment, how often signs are given."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.audit.changes import stood_of
from nats_mesh.audit.policies import DocumentsThen
from nats_mesh.audit.records import (
    MAX_BYTES,
    ChangeRecord,
    DocumentChange,
    PresenceRecord,
    Writer,
    decode_record,
    encode_record,
    writer_of,
)
from nats_mesh.audit.signs import SIGN_S, SignKeeper, sign_interval_s
from nats_mesh.clock import ManualClock
from nats_mesh.core.presence import Announcement, EndpointInfo, Kind, State
from nats_mesh.errors import CodecError, DisconnectedError
from nats_mesh.policy.bus.revisions import Revision, Snapshot, UnknownPastError
from nats_mesh.rollout.telling import Told
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.memory import MemoryBus
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import ConnectOptions, Transport

AT = "2025-01-31T12:00:00.000000Z"
SHOP = Writer("presence", "shop", "i1")


def presence(**changes: Any) -> dict[str, Any]:
    """A sign of an instance, as JSON."""
    said = {
        "namespace": "default", "at": AT, "seq": 1, "event": "sign", "service": "shop", "instance": "i1",
        "name": "host-1", "version": "1.0.0", "started": AT, "within_s": 75.0, "state": "ready",
    }  # fmt: skip
    return said | changes


def read(body: dict[str, Any] | bytes, writer: Writer = SHOP) -> Any:
    """A record of namespace ``default``."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_record(data, writer=writer, namespace="default")


# -- records ----------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written() -> None:
    """Documents byte for byte, be they text or not; deletions and what is too large are told apart."""
    documents = tuple(
        DocumentChange(key=f"Route.r{n}", before=stood_of(n, before), after=stood_of(n + 1, after, AT))
        for n, (before, after) in enumerate(
            [(b'{"a": 1}', b'{"a":\xc3\xa9}'), (b"\xff\x00", None), (None, b'"\\u0000"')]
        )
    )
    record = ChangeRecord(namespace="default", at=AT, seq=3, who="ann", why="why", documents=documents)
    found = read(encode_record(record), Writer("policy", "ann", "c1"))
    assert found == record
    assert found.documents[1].before.value == b"\xff\x00"
    assert (found.documents[1].after.deleted, found.documents[1].after.value) == (True, None)


def test_what_a_rollout_tells_is_a_record() -> None:
    """The body that a runner publishes is read here, and speaks of nobody but the runner."""
    told = Told(
        kind="rollout.step", at=AT, namespace="default", service="shop", rollout="shop", run="r1", runner="ci",
        instance="c1", detail="10% to v2", phase="running", step=1, steps=3, weight=10, route="Route.shop", revision=42,
        numbers={"error_rate": 0.01}, seq=4,
    )  # fmt: skip
    found = read(JSON.encode(told), Writer("rollout", "ci", "c1"))
    assert (found.kind, found.service, found.weight, found.seq) == ("rollout.step", "shop", 10, 4)
    with pytest.raises(CodecError, match="runner 'ci'"):
        read(JSON.encode(told), Writer("rollout", "web", "c1"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"service": "stock"}, "service 'stock', where its subject says 'shop'"),
        ({"instance": "i2"}, "instance 'i2', where its subject says 'i1'"),
        ({"namespace": "other"}, "namespace 'other'"),
        ({"wire": 2}, "wire"),
        ({"seq": -1}, "seq"),
        ({"within_s": 0}, "within_s"),
        ({"within_s": 1e9}, "within_s"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"version": "one"}, "version"),
        ({"event": "explode"}, "event"),
        ({"labels": {str(n): "" for n in range(40)}}, "labels"),
        ({"state": "gone"}, "state"),
    ],
)
def test_a_record_that_claims_too_much_is_not_believed(changes: dict[str, Any], said: str) -> None:
    """Another writer than the subject's, or a value out of its bounds."""
    assert isinstance(read(presence()), PresenceRecord)
    with pytest.raises(CodecError, match=said):
        read(presence(**changes))


@given(body=st.binary(max_size=200), kind=st.sampled_from(["policy", "config", "presence", "rollout", "xyz"]))
def test_any_bytes_are_a_record_or_a_codec_error(body: bytes, kind: str) -> None:
    """Whoever may publish may send anything: it never fails otherwise."""
    with pytest.raises(CodecError):
        read(body, Writer(kind, "shop", "i1"))


def test_what_is_too_large_is_not_read() -> None:
    """Size is checked before anything is decoded."""
    with pytest.raises(CodecError, match="at most"):
        read(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "key", ["presence", "presence.shop", "presence.shop.i1.more", "presence.sh op.i1", "..", ""]
)
def test_a_subject_that_names_no_writer_is_no_place(key: str) -> None:
    """Three names, nothing else."""
    assert writer_of(key) is None
    assert writer_of("presence.shop.i1") == SHOP


# -- documents of a moment --------------------------------------------------------------------------


#: Of each write: its key, the new value (``None``: deleted), and whether it was written down.
writes = st.lists(
    st.tuples(
        st.sampled_from(["Route.a", "Route.b", "Destination.c"]),
        st.one_of(st.none(), st.sampled_from([b"1", b"2", b"3"])),
        st.booleans(),
    ),
    max_size=14,
)


def instant(step: float) -> str:
    """The server's instant after ``step`` seconds."""
    moment = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC) + datetime.timedelta(seconds=step)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def history(found: list[tuple[str, bytes | None, bool]], moment: float, *, all_kept: bool) -> tuple[
    dict[str, bytes], Callable[[], Snapshot]
]:  # fmt: skip
    """What stood at ``moment``, and how it is rebuilt: write ``n`` is made at second ``n``, kept 0.2 s later."""
    now: dict[str, tuple[int, bytes | None, str]] = {}
    truth: dict[str, bytes] = {}
    then = DocumentsThen(instant(moment))
    for number, (key, value, kept) in enumerate(found, 1):
        before = now.get(key)
        now[key] = (number, value, instant(number))
        if number <= moment:
            truth.pop(key, None)
            if value is not None:
                truth[key] = value
        if kept or all_kept:
            change = DocumentChange(
                key=key,
                before=None if before is None else stood_of(*before),
                after=stood_of(number, value, instant(number)),
            )
            then.take(
                ChangeRecord(namespace="default", at=AT, seq=number, who="ann", documents=(change,)),
                instant(number + 0.2),
            )
    policies = {
        key: Revision(key=key, sequence=number, value=value, time=time)
        for key, (number, value, time) in now.items()
        if value is not None
    }
    snapshot = Snapshot(epoch=1, sequence=len(found), policies=policies, expected={})
    times = {key: time for key, (_, _, time) in now.items()}
    return truth, lambda: then.found(snapshot, times)


@given(found=writes, moment=st.integers(0, 30))
def test_documents_of_any_moment_are_rebuilt(
    found: list[tuple[str, bytes | None, bool]], moment: int
) -> None:
    """With every change written down, each moment is as it was, byte for byte, between changes too."""
    truth, rebuild = history(found, moment / 2, all_kept=True)
    assert {key: each.value for key, each in rebuild().policies.items()} == truth


@given(found=writes, moment=st.integers(0, 30))
def test_what_was_not_written_down_is_never_guessed(
    found: list[tuple[str, bytes | None, bool]], moment: int
) -> None:
    """Whatever changes are missing: what is rebuilt is what stood there, or the key is named as unknown."""
    truth, rebuild = history(found, moment / 2, all_kept=False)
    try:
        rebuilt = {key: each.value for key, each in rebuild().policies.items()}
    except UnknownPastError as error:
        unknown = set(error.keys)
    else:
        assert rebuilt == truth
        return
    assert unknown <= {
        key for number, (key, _, kept) in enumerate(found, 1) if number > moment / 2 and not kept
    }


# -- signs of life ----------------------------------------------------------------------------------


class Desk:
    """A keeper of signs whose clock is moved by hand; what it publishes is heard."""

    def __init__(self, transport: Transport, heard: list[PresenceRecord]) -> None:
        self.clock = ManualClock()
        self.heard = heard
        self.mux = ReplyMux(transport, self.clock.monotonic)
        self.peers = 1
        self.keeper = SignKeeper(
            subjects=Subjects("default"),
            service="shop",
            instance="i1",
            transport=transport,
            mux=self.mux,
            clock=self.clock,
            peers=lambda: self.peers,
        )

    def say(self, kind: Kind, **changes: Any) -> None:
        """Announce something."""
        names = () if kind in (Kind.BEAT, Kind.LEAVE) else (EndpointInfo(name="get"),)
        self.keeper.say(
            Announcement(
                type=kind,
                service="shop",
                instance="i1",
                name="host-1",
                version="1.0.0",
                namespace="default",
                seq=1,
                started=AT,
                interval_s=5.0,
                endpoints=names,
                **changes,
            )
        )


pytestmark = pytest.mark.anyio


async def desk_on(bus: MemoryBus) -> Desk:
    """A keeper whose records are read as they pass."""
    heard: list[PresenceRecord] = []
    observer = await bus.connect(ConnectOptions(name="observer"))

    def on_record(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        record = read(payload)
        assert reply.startswith("_INBOX.shop.")
        heard.append(record)

    observer.subscribe("mesh.default.audit.presence.*.*", on_record)
    await observer.fence()
    return Desk(await bus.connect(ConnectOptions(name="shop")), heard)


async def fenced(desk: Desk) -> list[PresenceRecord]:
    """What was heard so far."""
    await desk.keeper._transport.fence()
    for _ in range(3):
        await desk.keeper._transport.fence()
    return desk.heard


async def test_beats_leave_a_sign_now_and_then() -> None:
    """An hour of beats every 5 s is about 60 signs, none later than the one before promised; every
    30th names the endpoints."""
    desk = await desk_on(MemoryBus())
    desk.say(Kind.JOIN)
    said = [desk.clock.monotonic()]
    for _ in range(720):
        desk.clock.advance(5.0)
        before = desk.keeper._signs
        desk.say(Kind.BEAT)
        if desk.keeper._signs > before:
            said.append(desk.clock.monotonic())
    heard = await fenced(desk)
    assert [each.event for each in heard] == ["join"] + ["sign"] * (len(heard) - 1)
    assert 50 <= len(heard) <= 72
    assert [each.seq for each in heard] == list(range(1, len(heard) + 1))
    gaps = [later - earlier for earlier, later in itertools.pairwise(said)]
    assert all(gap <= record.within_s for gap, record in zip(gaps, heard, strict=False))
    assert min(gaps) >= 0.8 * SIGN_S
    named = [number for number, each in enumerate(heard) if each.endpoints is not None]
    assert named == [0, 30, 60][: len(named)]
    assert len({each.endpoints_hash for each in heard}) == 1


async def test_changes_are_told_at_once_but_not_without_end() -> None:
    """A change is a record; of one that flaps, ten, and then the next sign says how it is."""
    desk = await desk_on(MemoryBus())
    desk.say(Kind.JOIN)
    for number in range(100):
        desk.say(Kind.CHANGE, state=State.DRAINING if number % 2 else State.READY)
    desk.clock.advance(2 * SIGN_S)
    desk.say(Kind.BEAT, state=State.DRAINING)
    desk.say(Kind.LEAVE, state=State.DRAINING)
    heard = await fenced(desk)
    assert [each.event for each in heard] == ["join"] + ["change"] * 10 + ["sign", "leave"]
    assert heard[-2].state is State.DRAINING


def test_a_large_service_gives_fewer_signs() -> None:
    """All instances of a service together leave at most two signs a second, up to ten minutes for each."""
    assert sign_interval_s(1) == SIGN_S
    assert sign_interval_s(1000) == 500.0
    assert sign_interval_s(100_000) == 600.0


async def test_signs_never_fail_and_are_made_up_for() -> None:
    """While the bus is away nothing is raised; the first beat afterwards leaves a sign."""
    desk = await desk_on(MemoryBus())
    desk.say(Kind.JOIN)
    transport: Any = desk.keeper._transport
    publish = transport.publish

    def away(*_: Any) -> None:
        raise DisconnectedError("away")

    transport.publish = away
    desk.say(Kind.CHANGE)
    desk.say(Kind.BEAT)
    assert desk.keeper.failed == 2
    transport.publish = publish
    desk.say(Kind.BEAT)
    assert [each.event for each in await fenced(desk)] == ["join", "sign"]


async def test_a_refused_sign_is_the_last_until_the_next_connection() -> None:
    """Where the server does not allow it, it is asked once, not every minute."""
    desk = await desk_on(MemoryBus())
    desk.say(Kind.JOIN)
    desk.keeper.on_denied("publish", "mesh.default.audit.presence.shop.I1".lower())
    desk.clock.advance(1000.0)
    desk.say(Kind.BEAT)
    assert len(await fenced(desk)) == 1
    desk.keeper.on_reconnect()
    desk.say(Kind.BEAT)
    assert len(await fenced(desk)) == 2
