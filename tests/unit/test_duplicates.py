"""What tells a duplicate, what a claim in the store means, and what one instance remembers: the pure part."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nats_mesh.core.duplicates import (
    LEASE_S,
    Kept,
    Move,
    Record,
    State,
    Watch,
    decode_record,
    encode_record,
    fingerprint,
    judge,
    key_token,
)
from nats_mesh.core.remembered import Entry, Memory
from nats_mesh.errors import Status

_NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=63)
_KEPT = Kept(Status.OK, "", b"1")


def _record(**changes: object) -> Record:
    record = Record(state=State.RUNNING, claim="other", instance="i", request="r")
    return msgspec.structs.replace(record, **changes)


# -- keys and requests -------------------------------------------------------------------------------


@given(_NAMES, _NAMES, st.binary(min_size=1, max_size=300))
def test_a_key_is_a_subject_token(caller: str, endpoint: str, key: bytes) -> None:
    """Whatever a caller takes as its key, it stands in a subject as one token of 160 bits."""
    token = key_token(caller, endpoint, key)
    assert len(token) * 5 == 160
    assert set(token) <= set(string.ascii_lowercase + "234567")


@pytest.mark.parametrize(
    "other",
    [("bob", "place", b"k"), ("web", "take", b"k"), ("web", "place", b"K"), ("webplace", "x", b"k")],
)
def test_keys_belong_to_caller_and_endpoint(other: tuple[str, str, bytes]) -> None:
    """The same key of another caller, or of another endpoint, is another key."""
    assert key_token(*other) != key_token("web", "place", b"k")


def test_no_two_triples_share_a_text() -> None:
    """Caller, endpoint and key cannot be shifted into each other."""
    assert key_token("a", "bc", b"d") != key_token("ab", "c", b"d")
    assert key_token("a", "b", b"cd") != key_token("a", "bc", b"d")


def test_a_request_is_its_codec_and_its_body() -> None:
    """Another body or another codec is another request; how the codec is spelt is not."""
    assert fingerprint(b"application/json", b"1") == fingerprint(b"Application/JSON", b"1")
    others = {fingerprint(b"", b"1"), fingerprint(b"application/json", b"2"), fingerprint(b"a", b"b\0c")}
    assert fingerprint(b"application/json", b"1") not in others
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert len(fingerprint(b"", b"")) * 4 == 128


# -- records -----------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.text(max_size=50))
def test_a_record_survives_the_store(body: bytes, headers: str) -> None:
    """What is written is what is read, whatever bytes a reply has."""
    clean = headers.encode("utf-8", "replace").decode()
    record = _record(state=State.DONE, reply=Kept(Status.NOT_FOUND, clean, body), size=len(body))
    assert decode_record(encode_record(record)) == record


def test_fields_of_later_versions_are_ignored() -> None:
    """A record of a version that knows more can still be read."""
    text = b'{"state":"running","claim":"c","instance":"i","request":"r","lease_ms":500,"more":[1]}'
    assert decode_record(text) == _record(claim="c", lease_ms=500)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"state":"odd","claim":"c","instance":"i","request":"r"}']
)
def test_what_is_no_record_is_said(text: bytes) -> None:
    """Something else under a key is an error and no record."""
    with pytest.raises(msgspec.DecodeError):
        decode_record(text)


# -- what to do about one ----------------------------------------------------------------------------

_DEAD_S = LEASE_S + 0.001


@pytest.mark.parametrize(
    ("record", "silent_s", "move", "idempotent_move"),
    [
        (_record(), 0.0, Move.WAIT, Move.WAIT),
        (_record(), LEASE_S - 0.001, Move.WAIT, Move.WAIT),
        (_record(), _DEAD_S, Move.MARK, Move.TAKE_OVER),
        (_record(lease_ms=500), 0.6, Move.MARK, Move.TAKE_OVER),
        (_record(lease_ms=10**12), 59.0, Move.WAIT, Move.WAIT),
        (_record(lease_ms=10**12), 61.0, Move.MARK, Move.TAKE_OVER),
        (_record(lease_ms=-5), 0.0, Move.MARK, Move.TAKE_OVER),
        (_record(claim="mine"), 0.0, Move.RUN, Move.RUN),
        (_record(claim="mine"), _DEAD_S, Move.RUN, Move.RUN),
        (_record(state=State.UNKNOWN), 0.0, Move.ABORT, Move.TAKE_OVER),
        (_record(state=State.UNKNOWN, claim="mine"), 0.0, Move.ABORT, Move.TAKE_OVER),
        (_record(state=State.DONE, reply=_KEPT), 0.0, Move.REPLAY, Move.REPLAY),
        (_record(state=State.DONE, reply=_KEPT), _DEAD_S, Move.REPLAY, Move.REPLAY),
        (_record(state=State.DONE, size=10**6), 0.0, Move.GONE, Move.TAKE_OVER),
        (_record(request="another"), _DEAD_S, Move.MISMATCH, Move.MISMATCH),
        (_record(request="another", state=State.DONE, reply=_KEPT), 0.0, Move.MISMATCH, Move.MISMATCH),
        (_record(request="another", state=State.UNKNOWN), 0.0, Move.MISMATCH, Move.MISMATCH),
    ],
)
def test_what_a_record_means(record: Record, silent_s: float, move: Move, idempotent_move: Move) -> None:
    """Each state of a record, and how long it has not moved, says what to do: running again only where harmless."""
    for idempotent, expected in ((False, move), (True, idempotent_move)):
        found = judge(record, claim="mine", request="r", idempotent=idempotent, silent_s=silent_s)
        assert found is expected


@given(
    st.sampled_from(State),
    st.booleans(),
    st.sampled_from(["r", "x"]),
    st.sampled_from(["mine", "other"]),
    st.integers(-(10**6), 10**9),
    st.floats(0, 10**6),
)
def test_nothing_but_ones_own_claim_lets_a_handler_run_twice(
    state: State, replied: bool, request: str, claim: str, lease_ms: int, silent_s: float
) -> None:
    """Of an endpoint that is not idempotent no other's record is ever taken over, however dead it looks."""
    record = _record(
        state=state, reply=_KEPT if replied else None, request=request, claim=claim, lease_ms=lease_ms
    )
    move = judge(record, claim="mine", request="r", idempotent=False, silent_s=silent_s)
    assert move is not Move.TAKE_OVER
    assert move is not Move.RUN or (claim == "mine" and state is State.RUNNING)


def test_a_claim_is_silent_while_it_does_not_move() -> None:
    """Silence counts from the first look at what stands there now, and again when it changes."""
    watch = Watch()
    assert watch.silent_s("n", "a 1", 10.0) == 0.0
    assert watch.silent_s("n", "a 1", 11.5) == 1.5
    assert watch.silent_s("n", "a 2", 12.0) == 0.0
    assert watch.silent_s("n", "a 2", 11.0) == 0.0  # never negative
    assert watch.silent_s("n", "b 2", 20.0) == 0.0  # the same revision in a new bucket is another claim
    watch.forget("n")
    assert watch.silent_s("n", "b 2", 30.0) == 0.0


def test_the_watch_is_bounded() -> None:
    """However many keys are waited for, only so many are watched; the one that was seen first is forgotten."""
    watch = Watch(limit=3)
    for number in range(10):
        watch.silent_s(f"n{number}", "a 1", float(number))
    assert len(watch) == 3
    assert watch.silent_s("n9", "a 1", 10.0) == 1.0
    assert watch.silent_s("n0", "a 1", 10.0) == 0.0


# -- memory ------------------------------------------------------------------------------------------


def _memory(limit: int = 3, limit_bytes: int = 100, ttl_s: float = 60.0) -> Memory[Entry]:
    return Memory(limit=limit, limit_bytes=limit_bytes, ttl_s=ttl_s)


def _kept(size: int) -> Kept:
    return Kept(Status.OK, "", b"x" * size)


def test_what_is_over_is_remembered_for_so_long() -> None:
    """A reply is found until its time is up, and then no more."""
    memory = _memory()
    entry = Entry("n", "r", spare=False)
    assert memory.add(entry, 0.0) is None
    memory.settle(entry, State.DONE, _kept(5), 10.0)
    assert memory.find("n", 69.9) is entry
    assert entry.kept == _kept(5)
    assert memory.find("n", 70.0) is None
    assert (len(memory), memory.bytes) == (0, 0)


def test_what_runs_is_never_forgotten() -> None:
    """However long it takes: a handler that still runs keeps its key."""
    memory = _memory()
    entry = Entry("n", "r", spare=True)
    memory.add(entry, 0.0)
    assert memory.find("n", 1e9) is entry


def test_a_new_key_is_refused_where_forgetting_would_break_the_promise() -> None:
    """Full of keys that nobody else knows, the memory says when there is room again instead of dropping one."""
    memory = _memory(limit=2)
    for name in ("a", "b"):
        entry = Entry(name, "r", spare=False)
        memory.add(entry, 0.0)
        memory.settle(entry, State.DONE, _kept(1), 0.0)
    assert memory.add(Entry("c", "r", spare=False), 20.0) == 40.0
    assert memory.add(Entry("c", "r", spare=False), 60.0) is None
    assert memory.find("a", 60.0) is None


def test_full_of_what_runs_it_asks_to_come_back() -> None:
    """Where nothing is over, nobody knows when there will be room: soon."""
    memory = _memory(limit=1)
    memory.add(Entry("a", "r", spare=True), 0.0)
    assert memory.add(Entry("b", "r", spare=True), 0.0) == 1.0


def test_what_others_know_too_makes_room() -> None:
    """The oldest key that the store knows as well goes first, and is counted."""
    memory = _memory(limit=2)
    for name, spare in (("a", False), ("b", True)):
        entry = Entry(name, "r", spare=spare)
        memory.add(entry, 0.0)
        memory.settle(entry, State.DONE, _kept(1), 0.0)
    assert memory.add(Entry("c", "r", spare=False), 1.0) is None
    assert (memory.find("a", 1.0) is not None, memory.find("b", 1.0)) == (True, None)
    assert memory.forgotten == 1


def test_too_many_bytes_cost_the_oldest_replies() -> None:
    """Beyond the limit the oldest reply goes; the fact that it ran stays, unless the store has it."""
    memory = _memory(limit=10, limit_bytes=100)
    first, second = Entry("a", "r", spare=False), Entry("b", "r", spare=True)
    for entry in (first, second):
        memory.add(entry, 0.0)
        memory.settle(entry, State.DONE, _kept(50), 0.0)
    third = Entry("c", "r", spare=False)
    memory.add(third, 0.0)
    memory.settle(third, State.DONE, _kept(60), 0.0)
    assert memory.find("a", 0.0) is first
    assert (first.state, first.kept) == (State.DONE, None)
    assert memory.find("b", 0.0) is None
    assert third.kept == _kept(60)
    assert (memory.bytes, memory.stripped, memory.forgotten) == (60, 1, 1)


def test_who_finds_no_room_never_waits_for_longer_than_is_remembered() -> None:
    """Though 6.1 + 10 - 6.1 is rounded to a little more than 10."""
    memory: Memory[Entry] = Memory(limit=1, ttl_s=10.0)
    entry = Entry("a", "r", spare=False)
    memory.add(entry, 6.1)
    memory.settle(entry, State.DONE, _kept(1), 6.1)
    assert 6.1 + 10.0 - 6.1 > 10.0
    assert memory.add(Entry("b", "r", spare=False), 6.1) == 10.0


def test_the_first_end_counts() -> None:
    """What is over is not over again, and what was dropped comes back for nobody."""
    memory = _memory()
    entry = Entry("n", "r", spare=False)
    memory.add(entry, 0.0)
    memory.settle(entry, State.UNKNOWN, None, 0.0)
    memory.settle(entry, State.DONE, _kept(1), 1.0)
    assert entry.state is State.UNKNOWN
    memory.drop(entry)
    memory.drop(entry)
    memory.settle(entry, State.DONE, _kept(1), 1.0)
    assert (len(memory), memory.bytes) == (0, 0)


class MemoryMachine(RuleBasedStateMachine):
    """Any order of calls: the bounds hold, what runs stays, and what was promised stays for its time."""

    TTL_S = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.memory: Memory[Entry] = Memory(limit=5, limit_bytes=60, ttl_s=self.TTL_S)
        self.now = 0.0
        self.running: dict[str, Entry] = {}
        self.over: dict[str, tuple[Entry, float]] = {}

    @rule(name=st.sampled_from("abcdefgh"), spare=st.booleans())
    def call(self, name: str, spare: bool) -> None:
        """A call with a key comes."""
        before = self.memory.find(name, self.now)
        if before is not None:
            assert before is self.running.get(name) or before is self.over[name][0]
            return
        assert name not in self.running
        entry = Entry(name, "r", spare=spare)
        wait_s = self.memory.add(entry, self.now)
        if wait_s is None:
            self.running[name] = entry
            self.over.pop(name, None)
        else:
            assert len(self.memory) == 5
            assert 0.0 <= wait_s <= self.TTL_S

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from([State.DONE, State.UNKNOWN]), size=st.integers(0, 80))
    def end(self, data: st.DataObject, state: State, size: int) -> None:
        """A handler ends."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        entry = self.running.pop(name)
        self.memory.settle(entry, state, _kept(size) if state is State.DONE else None, self.now)
        self.over[name] = (entry, self.now + self.TTL_S)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """A call is refused before its handler ran."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.memory.drop(self.running.pop(name))

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def holds(self) -> None:
        """The bounds, and the promises."""
        for name, entry in self.running.items():
            assert self.memory.find(name, self.now) is entry
        for name, (entry, until) in self.over.items():
            found = self.memory.find(name, self.now)
            if self.now >= until:
                assert found is not entry
            elif not entry.spare:
                assert found is entry
        assert len(self.memory) <= 5
        kept = [entry.kept for entry in self.memory if entry.kept is not None]
        assert self.memory.bytes == sum(each.size for each in kept) <= 60


TestMemory = MemoryMachine.TestCase
