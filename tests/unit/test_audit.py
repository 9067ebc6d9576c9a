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
from nats_mesh.policy.bus.past import DocumentsAt, DocumentsThen
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
        ({"started": "2026-02-30T00:00:00Z"}, "started is no instant: '2026-02-30T00:00:00Z'"),
        ({"started": "0000-00-00T00:00:00Z"}, "started is no instant"),
        ({"started": "2026-99-99T99:99:99.999999999Z"}, "started is no instant"),
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
                ChangeRecord(namespace="default", at=AT, seq=number, who="ann", epoch=7, documents=(change,)),
                instant(number + 0.2),
            )
    policies = {
        key: Revision(key=key, sequence=number, value=value, time=time)
        for key, (number, value, time) in now.items()
        if value is not None
    }
    expected = {key: number for key, (number, _, _) in now.items()}
    snapshot = Snapshot(epoch=7, sequence=len(found), policies=policies, expected=expected)
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


# -- records that were forged ------------------------------------------------------------------------

TRUE_THEN, EVIL = b'{"true": 1}', b'{"evil": 1}'


def changed(
    number: int,
    value: bytes | None,
    before: tuple[int, bytes | None] | None,
    *,
    epoch: int = 7,
    at: float | None = None,
) -> ChangeRecord:
    """A record of ``Route.a``, whose revision ``n`` is of second ``n`` unless said otherwise."""
    change = DocumentChange(
        key="Route.a",
        before=None if before is None else stood_of(*before, instant(before[0])),
        after=stood_of(number, value, instant(number if at is None else at)),
    )
    return ChangeRecord(namespace="default", at=AT, seq=1, who="x", epoch=epoch, documents=(change,))


#: The store is at revision 9. At second 5 revision 4 stood there; 4 → 6 → 9 were made since.
TRUTH = [
    changed(2, b"1", None),
    changed(4, TRUE_THEN, (2, b"1")),
    changed(6, b"2", (4, TRUE_THEN)),
    changed(9, b"3", (6, b"2")),
]


@given(
    found=writes,
    sequence=st.integers(0, 15),
    forged=st.none() | st.tuples(st.integers(0, 15), st.integers(1, 16)),
)
def test_documents_of_any_revision_are_rebuilt_or_named(
    found: list[tuple[str, bytes | None, bool]], sequence: int, forged: tuple[int, int] | None
) -> None:
    """Whatever changes are missing, and where one was added that was never made beside them all: each key is what it
    was at that revision, byte for byte, or it is named; where everything was written down, nothing is."""
    now: dict[str, tuple[int, bytes | None, str]] = {}
    truth: dict[str, bytes] = {}
    then = DocumentsAt(sequence, 7, ["Route.a", "Route.b", "Destination.c"])
    complete: set[str] = {"Route.a", "Route.b", "Destination.c"}
    for number, (key, value, kept) in enumerate(found, 1):
        before = now.get(key)
        now[key] = (number, value, instant(number))
        if number <= sequence:
            truth.pop(key, None)
            if value is not None:
                truth[key] = value
        if not kept and forged is None:
            complete.discard(key)
            continue
        change = DocumentChange(
            key=key,
            before=None if before is None else stood_of(*before),
            after=stood_of(number, value, instant(number)),
        )
        then.take(ChangeRecord(namespace="default", at=AT, seq=1, who="ann", epoch=7, documents=(change,)))
    if forged is not None:
        low, high = forged
        then.take(changed(high, b"evil", (low, EVIL) if low else None))
        complete.discard("Route.a")
    expected = {key: number for key, (number, _, _) in now.items()}
    unknown: list[str] = []
    rebuilt: dict[str, Revision] = {}
    try:
        rebuilt = then.found(expected)
    except UnknownPastError as error:
        unknown = list(error.keys)
    # A key that did not change after the revision is the store's to tell, and is not asked of the audit.
    changed_since = {key for key, number in expected.items() if number > sequence}
    assert not set(unknown) & complete & changed_since
    assert unknown or {key: each.value for key, each in rebuilt.items()} == truth


def test_a_revision_of_another_epoch_is_unknown() -> None:
    """Numbers begin anew in a store that was made anew: its records say nothing of this one."""
    for epoch, known in ((7, {"Route.a": TRUE_THEN}), (6, None)):
        then = DocumentsAt(5, epoch, ["Route.a"])
        for record in TRUTH:
            then.take(record)
        if known is None:
            with pytest.raises(UnknownPastError, match=r"not in the audit, of: Route\.a"):
                then.found({"Route.a": 9})
        else:
            assert {key: each.value for key, each in then.found({"Route.a": 9}).items()} == known


def at_second_five(records: list[ChangeRecord], *, stands: bool = True) -> dict[str, bytes | None]:
    """What stood there, by these records in this order."""
    then = DocumentsThen(instant(5))
    for record in records:
        then.take(record, instant(20))
    policies = {"Route.a": Revision(key="Route.a", sequence=9, value=b"3", time=instant(9))} if stands else {}
    now = Snapshot(epoch=7, sequence=9, policies=policies, expected={"Route.a": 9} if stands else {})
    times = {"Route.a": instant(9)} if stands else {}
    return {key: each.value for key, each in then.found(now, times).policies.items()}


def test_operators_whose_records_came_in_another_order_are_believed() -> None:
    """The store orders changes, the stream only records."""
    for records in itertools.permutations(TRUTH[2:]):
        assert at_second_five([*TRUTH[:2], *records]) == {"Route.a": TRUE_THEN}


FORGED = [
    changed(6, b"2", (4, EVIL)),  # another story of the same change
    changed(7, b"2", (3, EVIL)),  # of more than that
    changed(5, b"2", (3, EVIL), at=6.0),  # a change before that, said to be after the moment
    changed(9000, b"2", (4, EVIL)),  # a revision that is to come
    changed(6, b"2", (6, EVIL)),  # one that changes nothing
    changed(5, b"2", None, at=6.0),  # nothing ever stood there
    changed(6, b"2", (4, EVIL), epoch=6),  # of a store that was there before
    changed(4, EVIL, (2, b"1")),  # what was stored then was something else
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("place", range(5))
def test_a_change_that_was_never_made_is_not_believed(forged: ChangeRecord, place: int) -> None:
    """Wherever in the stream it stands: what is said is true, or the key is named as one that nobody can tell of."""
    records = [*TRUTH[:place], forged, *TRUTH[place:]]
    said: object
    try:
        said = at_second_five(records)
    except UnknownPastError as error:
        said = str(error)
    assert said in ({"Route.a": TRUE_THEN}, "what the audit says cannot all be true, of: Route.a")


def test_the_stores_own_word_is_above_any_record() -> None:
    """What it says has not changed since has not, whatever is written down."""
    then = DocumentsThen(instant(5))
    then.take(changed(6, b"2", (3, EVIL)), instant(20))
    now = Snapshot(
        epoch=7,
        sequence=9,
        policies={"Route.a": Revision(key="Route.a", sequence=4, value=TRUE_THEN, time=instant(4))},
        expected={"Route.a": 4},
    )
    assert then.found(now, {"Route.a": instant(4)}).policies["Route.a"].value == TRUE_THEN


def test_a_policy_that_the_store_has_never_had_is_not_made_up() -> None:
    """Of a store that was made anew since, records are all there is."""
    ghost = changed(3, EVIL, None)
    with pytest.raises(UnknownPastError, match=r"cannot all be true, of: Route\.a"):
        at_second_five([ghost], stands=False)
    assert at_second_five([changed(3, b"old", None, epoch=6)], stands=False) == {"Route.a": b"old"}


# -- stores that were restored from a backup -----------------------------------------------------------


class Restored:
    """A store that is written to, is put back to an earlier revision at second 20, and is written to again, with every
    change written down: revision 1 is its epoch, and where it was ``renewed`` the first one after the restore."""

    def __init__(self, moment: float, *, renewed: bool) -> None:
        self.moment = moment
        self.renewed = renewed
        self.then = DocumentsThen(instant(moment))
        self.epoch, self.began = 7, (1, instant(0))
        self.log: list[tuple[int, str, bytes | None, float]] = []
        self.sequence = 1

    def write(self, key: str, value: bytes | None, second: float) -> None:
        """One change."""
        before = next((each for each in reversed(self.log) if each[1] == key), None)
        self.sequence += 1
        self.log.append((self.sequence, key, value, second))
        change = DocumentChange(
            key=key,
            before=None if before is None else stood_of(before[0], before[2], instant(before[3])),
            after=stood_of(self.sequence, value, instant(second)),
        )
        record = ChangeRecord(
            namespace="default", at=AT, seq=1, who="ann", epoch=self.epoch, documents=(change,)
        )
        self.then.take(record, instant(second + 0.2))

    def restore(self, sequence: int) -> None:
        """What came after ``sequence`` is lost."""
        self.log = [each for each in self.log if each[0] <= sequence]
        self.sequence = sequence
        if self.renewed:
            self.sequence += 1
            self.epoch, self.began = 8, (self.sequence, instant(20))

    def state(self, moment: float) -> dict[str, bytes]:
        """What stood there by what the store is now."""
        found = {key: value for _, key, value, second in self.log if second <= moment}
        return {key: value for key, value in found.items() if value is not None}

    def rebuilt(self) -> dict[str, bytes | None]:
        """What stood there by the records."""
        newest = {key: (number, value, instant(second)) for number, key, value, second in self.log}
        now = Snapshot(
            epoch=self.epoch,
            sequence=self.sequence,
            policies={
                key: Revision(key=key, sequence=number, value=value, time=time)
                for key, (number, value, time) in newest.items()
                if value is not None
            },
            expected={key: number for key, (number, _, _) in newest.items()},
            began=self.began[0],
            began_time=self.began[1],
        )
        times = {key: time for key, (_, _, time) in newest.items()}
        return {key: each.value for key, each in self.then.found(now, times).policies.items()}


some = st.lists(
    st.tuples(st.sampled_from(["Route.a", "Route.b"]), st.sampled_from([None, b"1", b"2", b"3"])), max_size=8
)


@given(kept=some, gone=some, since=some, moment=st.integers(0, 60), renewed=st.booleans())
def test_the_past_of_a_restored_store_is_that_of_its_backup(
    kept: list[tuple[str, bytes | None]],
    gone: list[tuple[str, bytes | None]],
    since: list[tuple[str, bytes | None]],
    moment: int,
    renewed: bool,
) -> None:
    """At no moment is anything told that never stood there. Of what was in the backup every moment is told where the
    store has a new epoch since; where it has not, every moment but those whose changes were lost."""
    store = Restored(moment / 2, renewed=renewed)
    for second, change in enumerate(kept, 1):
        store.write(*change, second)
    backup = store.sequence
    saved = {key for key, _ in kept}
    for second, change in enumerate(gone, 10):
        store.write(*change, second)
    then = store.state(store.moment)
    store.restore(backup)
    for second, change in enumerate(since, 21):
        store.write(*change, second)
    line, unknown = store.state(store.moment), set[str]()
    try:
        found = store.rebuilt()
    except UnknownPastError as error:
        unknown = set(error.keys)
    else:
        others = {key: value for key, value in then.items() if key not in saved}
        assert {key: found.get(key) for key in saved} == {key: line.get(key) for key in saved}
        assert found.items() <= {**others, **line}.items()
    if renewed or store.moment < 10:
        assert not unknown & saved


@pytest.mark.parametrize("renewed", [True, False])
def test_two_lines_that_part_after_the_moment_agree_on_it(renewed: bool) -> None:
    """The first change after the moment was made twice: once before the restore, and was lost, and once after it."""
    store = Restored(5, renewed=renewed)
    store.write("Route.a", b"then", 3)
    backup = store.sequence
    for second in (10, 11, 12):
        store.write("Route.a", b"lost %d" % second, second)
    store.restore(backup)
    for second in (21, 22):
        store.write("Route.a", b"new %d" % second, second)
    assert store.rebuilt() == {"Route.a": b"then"}


def test_a_restore_that_the_store_does_not_tell_of_leaves_its_own_doubt() -> None:
    """What stood at a moment between the backup and the restore: two lines say different things, and nothing says
    which of them the store is of."""
    store = Restored(10.5, renewed=False)
    store.write("Route.a", b"then", 3)
    backup = store.sequence
    store.write("Route.a", b"lost", 10)
    store.write("Route.a", b"lost too", 11)
    store.restore(backup)
    for second in (21, 22):
        store.write("Route.a", b"new", second)
    with pytest.raises(UnknownPastError, match=r"cannot all be true, of: Route\.a"):
        store.rebuilt()


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
