"""The presence registry: who is there, judged by announcements and silence alone."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from nats_mesh.core.registry import (
    BEAT_FACTOR,
    GONE_AFTER,
    MAX_EXCUSES,
    STALL_S,
    SUSPECT_AFTER,
    TOMBSTONE_S,
    AmbiguousInstanceError,
    Change,
    ChangeKind,
    Health,
    Instance,
    Reason,
    Registry,
    UnknownInstanceError,
)
from nats_mesh.discovery.messages import JITTER, Announcement, EndpointInfo, Kind, Load, State
from nats_mesh.errors import ConfigError

INTERVAL_S = 5.0
BEAT_S = INTERVAL_S * BEAT_FACTOR
STARTED = "2025-01-01T00:00:00.000000Z"
LATER = "2025-01-01T00:00:00.500000Z"


def announce(kind: Kind = Kind.BEAT, seq: int = 1, **changes: Any) -> Announcement:
    """An announcement of ``orders``/``A1`` with a few fields changed."""
    fields: dict[str, Any] = {
        "type": kind,
        "seq": seq,
        "service": "orders",
        "instance": "A1",
        "name": "host-1",
        "version": "1.0.0",
        "namespace": "default",
        "started": STARTED,
        "interval_s": INTERVAL_S,
    }
    return Announcement(**(fields | changes))


def kinds(changes: list[Change]) -> list[ChangeKind]:
    """Just what happened."""
    return [change.kind for change in changes]


def run_until(registry: Registry, now: float, end: float) -> Iterator[Change]:
    """Tick exactly when the registry asks, from ``now`` to ``end``."""
    while (due := registry.next_due(now)) is not None and due <= end:
        now = due
        yield from registry.tick(now)


# -- membership -------------------------------------------------------------------------------------


def test_join_change_leave_are_reported_once_each() -> None:
    """Join, change and leave take effect at once, each with what it changed."""
    registry = Registry()
    (joined,) = registry.apply(announce(Kind.JOIN, 1, state=State.JOINING), 0.0)
    assert (joined.kind, joined.instance.state) == (ChangeKind.JOINED, State.JOINING)
    (changed,) = registry.apply(announce(Kind.CHANGE, 2, labels={"zone": "b"}), 1.0)
    assert (changed.kind, changed.fields) == (ChangeKind.CHANGED, ("labels", "state"))
    assert registry.apply(announce(Kind.BEAT, 3, labels={"zone": "b"}), 2.0) == []
    (gone,) = registry.apply(announce(Kind.LEAVE, 4), 3.0)
    assert (gone.kind, gone.reason) == (ChangeKind.GONE, Reason.LEFT)
    assert len(registry) == 0
    assert registry.next_due(3.0) is None


def test_beats_keep_the_endpoints_of_the_join() -> None:
    """A beat carries no endpoints, and takes none away; its load is taken over without a change."""
    registry = Registry()
    endpoint = EndpointInfo(name="place")
    registry.apply(announce(Kind.JOIN, 1, endpoints=(endpoint,)), 0.0)
    assert registry.apply(announce(Kind.BEAT, 2, load=Load(in_flight=7)), 5.0) == []
    instance = registry.get("A1")
    assert instance.endpoints == (endpoint,)
    assert instance.load.in_flight == 7


def test_an_observer_that_comes_late_learns_by_beats() -> None:
    """A beat of an unknown instance is a join without a description; a later change describes it."""
    registry = Registry()
    (joined,) = registry.apply(announce(Kind.BEAT, 40), 0.0)
    assert joined.kind is ChangeKind.JOINED
    assert not joined.instance.described
    (changed,) = registry.apply(announce(Kind.CHANGE, 41), 1.0)
    assert changed.fields == ("endpoints",)
    assert changed.instance.described


def test_services_cannot_touch_each_others_instances() -> None:
    """An id belongs to its service: the same id under another service is another instance."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    assert registry.apply(announce(Kind.LEAVE, 99, service="evil"), 1.0) == []
    registry.apply(announce(Kind.BEAT, 99, service="evil", instance="A1", state=State.DRAINING), 1.0)
    assert registry.instances("orders")[0].state is State.READY


# -- silence ----------------------------------------------------------------------------------------


def test_suspect_after_two_missed_beats_and_gone_after_three() -> None:
    """Silence of two intervals (with jitter and slack) makes a suspect, of three ends the membership."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    changes = list(run_until(registry, 0.0, SUSPECT_AFTER * BEAT_S))
    assert kinds(changes) == [ChangeKind.SUSPECT]
    assert registry.get("A1").health is Health.SUSPECT
    (gone,) = list(run_until(registry, SUSPECT_AFTER * BEAT_S, GONE_AFTER * BEAT_S))
    assert (gone.kind, gone.reason) == (ChangeKind.GONE, Reason.MISSED)
    assert registry.instances() == []


def test_nothing_happens_before_its_time() -> None:
    """Up to the last moment before the second missed beat, the instance is alive."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    assert list(run_until(registry, 0.0, SUSPECT_AFTER * BEAT_S - 0.01)) == []


@given(st.lists(st.floats(1 - JITTER, 1 + JITTER), min_size=1, max_size=40), st.data())
def test_jitter_with_single_lost_beats_never_makes_a_suspect(waits: list[float], data: st.DataObject) -> None:
    """With every beat up to 20 % late and any beat but not two in a row lost, nobody is suspected."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    now, lost = 0.0, False
    for seq, wait in enumerate(waits, start=2):
        sent = now + wait * INTERVAL_S
        assert list(run_until(registry, now, sent)) == []
        now = sent
        lost = not lost and data.draw(st.booleans())
        if not lost:
            registry.apply(announce(Kind.BEAT, seq), now)


def test_the_announced_interval_is_what_counts() -> None:
    """An instance that promised to beat every 50 s is not suspected when others would be gone."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1, interval_s=50.0), 0.0)
    assert list(run_until(registry, 0.0, GONE_AFTER * BEAT_S * 2)) == []
    registry.apply(announce(Kind.BEAT, 2, interval_s=1.0), 50.0)
    assert kinds(list(run_until(registry, 50.0, 54.0))) == [ChangeKind.SUSPECT, ChangeKind.GONE]


def test_a_suspect_that_speaks_is_alive_again() -> None:
    """One beat clears the suspicion and starts the wait anew."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    now = SUSPECT_AFTER * BEAT_S + 1
    list(run_until(registry, 0.0, now))
    (alive,) = registry.apply(announce(Kind.BEAT, 2), now)
    assert (alive.kind, alive.instance.health) == (ChangeKind.ALIVE, Health.ALIVE)
    assert list(run_until(registry, now, now + SUSPECT_AFTER * BEAT_S - 0.01)) == []


# -- our own stalls ---------------------------------------------------------------------------------


def test_the_observers_own_stall_declares_nobody_dead() -> None:
    """After this process was away for a minute everyone has one more interval; who stays silent then goes."""
    registry = Registry()
    for number in range(3):
        registry.apply(announce(Kind.JOIN, 1, instance=f"A{number}"), 0.0)
    assert registry.tick(1.0) == []
    assert registry.tick(61.0) == []
    assert registry.stalls == 1
    assert [i.health for i in registry.instances()] == [Health.ALIVE] * 3
    registry.apply(announce(Kind.BEAT, 2, instance="A0"), 61.1)
    changes = list(run_until(registry, 61.1, 61.0 + BEAT_S))
    assert [(c.kind, c.instance.id) for c in changes] == [
        (ChangeKind.SUSPECT, "A1"),
        (ChangeKind.SUSPECT, "A2"),
    ]


def test_a_stall_is_recognised_though_messages_are_read_before_the_tick() -> None:
    """What the loop reads after a stall, before its timers run, does not hide the stall from the tick."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1, instance="A0"), 0.0)
    registry.apply(announce(Kind.JOIN, 1, instance="A1"), 0.0)
    registry.tick(1.0)
    registry.apply(announce(Kind.BEAT, 2, instance="A0"), 61.0)
    assert registry.tick(61.0) == []
    assert registry.get("A1").health is Health.ALIVE


def test_a_stall_of_half_a_second_is_no_stall_and_no_death() -> None:
    """Ticks that come a little late change nothing: there is slack for them."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    now = 0.0
    for seq in range(2, 12):
        for _ in range(4):
            now += 1.0 + STALL_S - 0.01
            assert registry.tick(now) == []
        registry.apply(announce(Kind.BEAT, seq), now)
    assert registry.stalls == 0


def test_stalls_do_not_keep_the_dead_forever() -> None:
    """An observer that is late at every tick excuses a silent instance a few times, then lets it go."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    now, changes = 0.0, list[Change]()
    while len(registry) and now < 1000:
        now += 10.0
        changes += registry.tick(now)
    assert kinds(changes)[-1] is ChangeKind.GONE
    assert now <= GONE_AFTER * BEAT_S + (MAX_EXCUSES + 2) * max(BEAT_S, 10.0)


def test_silence_while_the_bus_is_away_is_nobodys_fault() -> None:
    """Suspended, the registry judges nobody and asks for no tick; resumed, everyone has one more interval."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    registry.suspend()
    assert registry.next_due(1.0) is None
    assert registry.tick(100.0) == []
    registry.resume(200.0)
    assert list(run_until(registry, 200.0, 200.0 + BEAT_S - 0.01)) == []
    assert kinds(list(run_until(registry, 200.0 + BEAT_S - 0.01, 200.0 + 2 * BEAT_S))) == [
        ChangeKind.SUSPECT,
        ChangeKind.GONE,
    ]


# -- old news ---------------------------------------------------------------------------------------


def test_replayed_and_overtaken_announcements_have_no_effect() -> None:
    """A number that is not above the last one changes nothing, not even the time of the last beat."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 5), 0.0)
    before = registry.get("A1")
    for kind, seq in ((Kind.BEAT, 5), (Kind.CHANGE, 4), (Kind.LEAVE, 5), (Kind.JOIN, 1)):
        assert registry.apply(announce(kind, seq, state=State.DRAINING), 9.0) == []
    assert registry.get("A1") == before
    assert registry.stale == 4


def test_a_delayed_beat_does_not_resurrect_who_left() -> None:
    """After a leave, announcements of the same start are dead, whatever their number; also a delayed join."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1), 0.0)
    registry.apply(announce(Kind.LEAVE, 3), 1.0)
    assert registry.apply(announce(Kind.BEAT, 2), 1.1) == []
    assert registry.apply(announce(Kind.BEAT, 4), 1.2) == []
    assert registry.apply(announce(Kind.JOIN, 5), 1.0 + TOMBSTONE_S - 0.1) == []
    assert len(registry) == 0


def test_a_leave_that_overtakes_its_join_wins() -> None:
    """A leave of an instance never heard of is remembered, so that its late join does not stick."""
    registry = Registry()
    assert registry.apply(announce(Kind.LEAVE, 2), 0.0) == []
    assert registry.apply(announce(Kind.JOIN, 1), 0.1) == []
    assert len(registry) == 0


def test_who_fell_silent_comes_back_with_its_next_word() -> None:
    """Gone by silence is no leave: a newer beat joins it again, a replayed one does not."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 7), 0.0)
    list(run_until(registry, 0.0, 60.0))
    assert registry.apply(announce(Kind.BEAT, 7), 60.0) == []
    counted = "1 stale, 0 without room, 0 stalls"
    assert repr(registry) == f"<Registry 0 instances of 0 services, 1 tombstones (0 evicted), {counted}>"
    assert kinds(registry.apply(announce(Kind.BEAT, 8), 60.0)) == [ChangeKind.JOINED]
    assert repr(registry) == f"<Registry 1 instances of 1 services, 0 tombstones (0 evicted), {counted}>"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (STARTED, LATER),
        ("2025-01-01T00:00:00Z", "2025-01-01T00:00:00.000001Z"),
        ("2025-01-01T00:00:00.9Z", "2025-01-01T00:00:01Z"),
    ],
)
def test_a_newer_start_replaces_an_older_one_and_never_the_reverse(older: str, newer: str) -> None:
    """One id started anew: the old life is gone at once, and its delayed words are stale."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 50, started=older), 0.0)
    changes = registry.apply(announce(Kind.JOIN, 1, started=newer), 1.0)
    assert [(c.kind, c.reason) for c in changes] == [
        (ChangeKind.GONE, Reason.REPLACED),
        (ChangeKind.JOINED, None),
    ]
    assert registry.apply(announce(Kind.BEAT, 51, started=older), 1.1) == []
    assert registry.apply(announce(Kind.LEAVE, 52, started=older), 1.2) == []
    assert registry.get("A1").started == newer


def test_a_new_start_under_an_id_that_left_joins() -> None:
    """A tombstone holds back one life only."""
    registry = Registry()
    registry.apply(announce(Kind.LEAVE, 9), 0.0)
    assert kinds(registry.apply(announce(Kind.JOIN, 1, started=LATER), 1.0)) == [ChangeKind.JOINED]


# -- bounds -----------------------------------------------------------------------------------------


def test_instances_beyond_the_bound_are_counted_and_get_in_when_there_is_room() -> None:
    """A full registry takes no newcomer, says so, and takes its next beat once another left."""
    registry = Registry(max_instances=2)
    for number in range(3):
        registry.apply(announce(Kind.JOIN, 1, instance=f"A{number}"), 0.0)
    assert (len(registry), registry.overflowed) == (2, 1)
    assert kinds(registry.apply(announce(Kind.BEAT, 2, instance="A0"), 1.0)) == []
    registry.apply(announce(Kind.LEAVE, 3, instance="A0"), 2.0)
    assert kinds(registry.apply(announce(Kind.BEAT, 2, instance="A2"), 3.0)) == [ChangeKind.JOINED]


def test_one_service_cannot_fill_the_table() -> None:
    """A service has a bound of its own, so that a broken one leaves room for the others."""
    registry = Registry(max_instances=10, max_per_service=3)
    for number in range(8):
        registry.apply(announce(Kind.JOIN, 1, instance=f"A{number}"), 0.0)
    assert kinds(registry.apply(announce(Kind.JOIN, 1, service="cart"), 0.0)) == [ChangeKind.JOINED]
    assert (len(registry), registry.overflowed) == (4, 5)
    registry.apply(announce(Kind.LEAVE, 2, instance="A0"), 1.0)
    assert kinds(registry.apply(announce(Kind.BEAT, 2, instance="A7"), 2.0)) == [ChangeKind.JOINED]
    assert registry.apply(announce(Kind.BEAT, 2, instance="A6"), 2.0) == []


def test_tombstones_are_bounded_and_expire() -> None:
    """The departed are remembered up to a number (evictions are counted) and for a time."""
    registry = Registry(max_tombstones=2)
    for number in range(3):
        registry.apply(announce(Kind.LEAVE, 1, instance=f"A{number}"), 0.0)
    assert registry.tombstones_evicted == 1
    assert kinds(registry.apply(announce(Kind.BEAT, 2, instance="A1"), 1.0)) == []
    assert kinds(registry.apply(announce(Kind.BEAT, 2, instance="A1"), TOMBSTONE_S)) == [ChangeKind.JOINED]


@pytest.mark.parametrize("bounds", [{"max_instances": 0}, {"max_tombstones": -1}, {"tick_s": math.nan}])
def test_bounds_that_cannot_work_are_refused(bounds: dict[str, Any]) -> None:
    """A registry that could hold or notice nothing is a mistake in the settings."""
    with pytest.raises(ConfigError):
        Registry(**bounds)


# -- queries ----------------------------------------------------------------------------------------


@pytest.fixture
def three() -> Registry:
    """Two instances of orders (one draining) and one of cart, two of them in one process."""
    registry = Registry()
    registry.apply(announce(Kind.JOIN, 1, instance="ABC1", name="east-17"), 0.0)
    registry.apply(
        announce(Kind.JOIN, 1, instance="ABD2", name="west-17", version="2.0.0", state=State.DRAINING),
        0.0,
    )
    registry.apply(announce(Kind.JOIN, 1, instance="XYZ3", name="east-17", service="cart"), 0.0)
    return registry


def test_services_are_summed_up(three: Registry) -> None:
    """A service's line counts its instances by state, health and version."""
    cart, orders = three.services()
    assert (cart.name, cart.instances, cart.ready) == ("cart", 1, 1)
    assert (orders.instances, orders.ready, orders.draining, orders.suspect) == (2, 1, 1, 0)
    assert orders.versions == {"1.0.0": 1, "2.0.0": 1}
    assert [i.id for i in three.instances()] == ["XYZ3", "ABC1", "ABD2"]


@pytest.mark.parametrize(
    ("prefix", "service", "found"),
    [("ABC1", None, "ABC1"), ("ABC", None, "ABC1"), ("X", None, "XYZ3"), ("west", None, "ABD2"),
     ("east-17", "cart", "XYZ3")],
)  # fmt: skip
def test_an_instance_is_named_by_id_name_or_a_beginning(
    three: Registry, prefix: str, service: str | None, found: str
) -> None:
    """Whatever singles one instance out names it."""
    assert three.get(prefix, service).id == found


def test_a_whole_id_wins_over_longer_ones(three: Registry) -> None:
    """An exact id is not ambiguous, though others begin with it."""
    three.apply(announce(Kind.JOIN, 1, instance="ABC12"), 0.0)
    assert three.get("ABC1").id == "ABC1"


def test_ambiguous_and_unknown_names_are_typed_errors(three: Registry) -> None:
    """Several matches are listed with their ids; none, and nothing asked for, say so."""
    with pytest.raises(
        AmbiguousInstanceError, match=r"fits 2 instances: ABC1 \(orders east-17\), ABD2"
    ) as error:
        three.get("AB")
    assert {i.id for i in error.value.matches} == {"ABC1", "ABD2"}
    with pytest.raises(AmbiguousInstanceError):
        three.get("east-17")
    with pytest.raises(UnknownInstanceError, match="'Q'"):
        three.get("Q")
    with pytest.raises(ConfigError, match="got nothing"):
        three.get("")


# -- all of it at once ------------------------------------------------------------------------------


class RegistryMachine(RuleBasedStateMachine):
    """Any mixture of announcements, replays, silence and stalls, against a model of words and times."""

    sent: Bundle[Announcement] = Bundle("sent")
    LIMIT = 4

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(max_instances=self.LIMIT)
        self.now = 0.0
        self.said: dict[str, tuple[int, int]] = {}  # the life and number each last used
        self.ended: set[tuple[str, int]] = set()  # lives that left
        self.view: dict[str, Instance] = {}  # what the changes tell
        self.word: dict[str, tuple[int, int]] = {}  # the life and number last taken in
        self.graves: dict[str, tuple[tuple[int, int], bool, float]] = {}
        self.heard: dict[str, float] = {}
        self.excused: dict[str, float] = {}

    @initialize()
    def start(self) -> None:
        """The first tick."""
        self._follow(self.registry.tick(0.0))

    def _follow(self, changes: list[Change]) -> None:
        for change in changes:
            who = change.instance.id
            if change.kind is ChangeKind.GONE:
                del self.view[who]
                if change.reason is Reason.MISSED:
                    self.graves[who] = (self.word[who], False, self.now + TOMBSTONE_S)
            else:
                assert (change.kind is ChangeKind.JOINED) == (who not in self.view)
                self.view[who] = change.instance

    def _is_old(self, said: Announcement) -> bool:
        word = (int(said.started[20:26]), said.seq)
        if said.instance in self.view:
            return word <= self.word[said.instance]
        buried, left, expires = self.graves.get(said.instance, ((-1, -1), True, self.now))
        return self.now < expires and (word[0] <= buried[0] if left else word <= buried)

    def _hear(self, said: Announcement) -> None:
        old, before = self._is_old(said), self.registry.instances()
        changes = self.registry.apply(said, self.now)
        if old:
            assert changes == []
            assert self.registry.instances() == before
            return
        self._follow(changes)
        word = (int(said.started[20:26]), said.seq)
        if said.type is Kind.LEAVE:
            assert said.instance not in self.view
            self.graves[said.instance] = (word, True, self.now + TOMBSTONE_S)
        elif said.instance in self.view:
            self.word[said.instance] = word
            self.heard[said.instance] = self.excused[said.instance] = self.now
        else:
            assert len(self.view) == self.LIMIT

    @rule(
        target=sent,
        who=st.sampled_from(["A", "B", "C", "D", "E"]),
        kind=st.sampled_from(list(Kind)),
        state=st.sampled_from(list(State)),
        restart=st.booleans(),
    )
    def speak(self, who: str, kind: Kind, state: State, restart: bool) -> Announcement:
        """An instance announces something new; after a leave it starts anew, as it also may without one."""
        life, seq = self.said.get(who, (0, 0))
        life, seq = (life + 1, 1) if restart or (who, life) in self.ended else (life, seq + 1)
        self.said[who] = (life, seq)
        started = f"2025-01-01T00:00:00.{life:06d}Z"
        said = announce(kind, seq, instance=who, state=state, started=started)
        if kind is Kind.LEAVE:
            self.ended.add((who, life))
        self._hear(said)
        return said

    @rule(said=sent)
    def replay(self, said: Announcement) -> None:
        """Somebody says again what was said before."""
        self._hear(said)

    @rule(seconds=st.floats(0.0, 25.0))
    def listen(self, seconds: float) -> None:
        """Time passes while the observer ticks as it was asked to."""
        end = self.now + seconds
        while (due := self.registry.next_due(self.now)) is not None and due <= end:
            self.now = due
            self._follow(self.registry.tick(due))
        self.now = end

    @rule(seconds=st.floats(STALL_S + 1.1, 200.0))
    def stall(self, seconds: float) -> None:
        """The observer is away, and excuses everybody who is left afterwards."""
        stalls, watching = self.registry.stalls, bool(self.view)
        self.now += seconds
        self._follow(self.registry.tick(self.now))
        assert self.registry.stalls == stalls + watching
        self.excused.update(dict.fromkeys(self.view, self.now))

    @invariant()
    def the_changes_tell_everything(self) -> None:
        """Whoever follows the changes knows who is there, in which state and health."""
        told = {who: (i.state, i.health, i.started) for who, i in self.view.items()}
        known = {i.id: (i.state, i.health, i.started) for i in self.registry.instances()}
        assert told == known

    @invariant()
    def the_bounds_hold(self) -> None:
        """Never more instances than the limit."""
        assert len(self.registry) <= self.LIMIT

    @invariant()
    def nobody_is_suspected_early_or_kept_long(self) -> None:
        """A suspect was silent for two intervals since it was heard; nobody outlives three and the excuses."""
        for instance in self.registry.instances():
            silent = self.now - self.heard[instance.id]
            if instance.health is Health.SUSPECT:
                assert silent >= SUSPECT_AFTER * BEAT_S - 1e-6
            since_excuse = self.now - self.excused[instance.id]
            assert since_excuse <= GONE_AFTER * BEAT_S + 1.0 + STALL_S + 1e-6

    @invariant()
    def the_next_tick_is_near(self) -> None:
        """While somebody is there, the next tick lies neither in the past nor beyond a second."""
        due = self.registry.next_due(self.now)
        assert (due is None) == (len(self.registry) == 0)
        assert due is None or self.now <= due <= self.now + 1.0


TestRegistryMachine = RegistryMachine.TestCase
