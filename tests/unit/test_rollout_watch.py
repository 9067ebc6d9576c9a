"""How the calls of two subsets are counted: by whom, from when on, and what is not believed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec import UNSET

from nats_mesh import Mesh
from nats_mesh.clock import ManualClock
from nats_mesh.core.gates import Pair
from nats_mesh.core.histogram import Histogram
from nats_mesh.core.rules import SubsetRules
from nats_mesh.rollout.watching import (
    CALLERS,
    INSTANCES,
    MAX_OF_CALLER,
    MAX_OF_CALLERS,
    MAX_TRACKS,
    SubsetWatch,
)
from nats_mesh.settings import Settings
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import SeriesSnapshot, StatsMessage, encode_stats
from nats_mesh.telemetry.tracks import SILENT_S
from nats_mesh.wire.memory import MemoryBus

pytestmark = pytest.mark.anyio

OLD, NEW = SubsetRules(name="v1", version="1.0.0"), SubsetRules(name="v2", version="2.0.0")


def series(
    side: str = "out",
    *,
    subset: str = "v2",
    age_s: float = 1.0,
    endpoint: str = "buy",
    service: str = "shop",
    **statuses: int,
) -> SeriesSnapshot:
    """A series whose calls all took 10 ms."""
    took = Histogram()
    for _ in range(sum(statuses.values())):
        took.record(0.01)
    return SeriesSnapshot(
        side="out" if side == "out" else "in",
        service=service,
        endpoint=endpoint,
        peer="web",
        age_s=age_s,
        statuses=statuses,
        histogram=took.snapshot(),
        subset=subset or UNSET,
    )


def message(*parts: SeriesSnapshot, member: str = "web", instance: str = "c1", seq: int = 1) -> StatsMessage:
    """What a member publishes."""
    return StatsMessage(
        instance=instance,
        service=member,
        version="0.0.0",
        namespace="default",
        seq=seq,
        since_s=9.0,
        series=parts,
    )


class Scene:
    """A watch without a server, and its clock."""

    def __init__(self, mesh: Mesh) -> None:
        self.clock = ManualClock()
        self.watch = SubsetWatch(mesh, "shop", OLD, NEW, clock=self.clock)
        self.watch._subset_of = {"i1": "v1", "i2": "v2"}
        self.clock.advance(100.0)

    def hear(self, *messages: StatsMessage) -> None:
        """A second later."""
        self.clock.advance(1.0)
        for each in messages:
            self.watch._heard(each)

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Calls and failures of the new subset and calls of the old one, since this was asked last."""
        return {
            side: self._of(pair) for side, pair in self.watch.take().items() if self._of(pair) != (0, 0, 0)
        }

    @staticmethod
    def _of(pair: Pair) -> tuple[int, int, int]:
        assert pair.new.took.count == pair.new.calls
        return pair.new.calls, pair.new.failures, pair.old.calls


@pytest.fixture
async def scene(anyio_backend: object) -> AsyncIterator[Scene]:
    """A watch in memory."""
    settings = Settings(servers=("nats://memory",), namespace="default", follow=False)
    async with Mesh("ci", settings=settings, connector=MemoryBus().connect) as mesh:
        made = Scene(mesh)
        yield made
        made.watch.close()


async def test_callers_count_by_subset_and_instances_by_where_they_are(scene: Scene) -> None:
    """Calls to no subset, of other services, and of instances that nobody knows are nobody's."""
    scene.hear(
        message(
            series(OK=3, UNAVAILABLE=2),
            series(subset="v1", OK=40),
            series(subset="", OK=99),
            series(service="other", OK=99),
        ),
        message(series("in", subset="", OK=5, INTERNAL=1), member="shop", instance="i2"),
        message(series("in", subset="", OK=30), member="shop", instance="i1"),
        message(series("in", subset="", OK=99), member="shop", instance="i9"),
    )
    assert scene.counts() == {CALLERS: (5, 2, 40), INSTANCES: (6, 1, 30)}
    assert scene.counts() == {}


async def test_what_is_counted_is_the_difference(scene: Scene) -> None:
    """Each call once, whatever is lost or comes twice; application errors below 500 are no failures."""
    scene.hear(message(series(OK=10)))
    assert scene.counts() == {CALLERS: (10, 0, 0)}
    scene.hear(message(series(OK=10, age_s=2.0)), message(series(OK=12, NOT_FOUND=4, INTERNAL=1, age_s=4.0)))
    scene.hear(message(series(OK=11, age_s=3.0)))  # late
    assert scene.counts() == {CALLERS: (7, 1, 0)}
    assert scene.watch.ignored == 1


async def test_what_was_counted_before_somebody_watched_does_not_count(scene: Scene) -> None:
    """A series that is older than the watch begins with its first message; a younger one with its first call."""
    scene.hear(message(series(OK=1000, INTERNAL=500, age_s=5000.0)))
    scene.hear(message(series(OK=7, endpoint="new", age_s=0.5)))
    assert scene.counts() == {CALLERS: (7, 0, 0)}
    scene.hear(message(series(OK=1003, INTERNAL=500, age_s=5001.0)))
    assert scene.counts() == {CALLERS: (3, 0, 0)}


async def test_an_instance_that_is_known_late_counts_from_its_first_call(scene: Scene) -> None:
    """Its numbers may come before its presence."""
    scene.hear(message(series("in", subset="", OK=5), member="shop", instance="i3"))
    assert scene.counts() == {}
    scene.watch._subset_of["i3"] = "v2"
    assert scene.counts() == {INSTANCES: (5, 0, 0)}


async def test_what_is_kept_is_bounded(scene: Scene) -> None:
    """In series, and in time: of who fell silent nothing is kept."""
    for number in range(3):
        scene.hear(message(series(OK=1, endpoint=f"e{number}")))
    scene.counts()
    scene.clock.advance(SILENT_S + 1.0)
    scene.counts()
    assert not scene.watch._tracks
    assert (scene.watch._of_caller, scene.watch._of_callers) == ({}, 0)
    many = [series("in", subset="", OK=1, endpoint=f"e{number}") for number in range(MAX_TRACKS + 5)]
    scene.hear(message(*many, member="shop", instance="i1"))
    assert (len(scene.watch._tracks), scene.watch.overflowed) == (MAX_TRACKS, 5)


async def test_who_makes_up_kinds_of_calls_blinds_nobody(scene: Scene) -> None:
    """One caller has its share of the room, all callers theirs: what others count, and what instances do, is seen."""
    many = [series(OK=1, endpoint=f"e{number}") for number in range(MAX_OF_CALLER + 5)]
    scene.hear(message(*many, member="mallory", instance="m1"))
    assert (len(scene.watch._tracks), scene.watch.overflowed) == (MAX_OF_CALLER, 5)
    scene.hear(message(series(OK=3), member="web"))
    for number in range(20):
        scene.hear(message(*many, member=f"mallory{number}", instance="m1"))
    assert len(scene.watch._tracks) == MAX_OF_CALLERS
    scene.hear(message(series("in", subset="", OK=5, INTERNAL=1), member="shop", instance="i2"))
    assert scene.counts()[INSTANCES] == (6, 1, 0)


async def test_what_is_not_believed_is_counted(scene: Scene) -> None:
    """Another's inbox, another subject than the body says, and what is no message at all."""
    watch, body = scene.watch, encode_stats(message(series(OK=1)))[0]
    inbox = f"_INBOX.web.{'C' * 22}.{'0' * 32}.0"
    subject = "mesh.default.telemetry.stats.web.c1"
    for told, reply, payload in (
        (subject, "", body),
        (subject, inbox.replace("web", "mallory"), body),
        (subject.replace("web", "mallory"), inbox.replace("web", "mallory"), body),
        (subject, inbox, b"{"),
        (f"{subject}.more", inbox, body),
    ):
        watch._on_stats(told, reply, b"", payload)
    assert (watch.ignored, scene.counts()) == (5, {})
    watch._on_stats(subject, inbox, b"", body)
    assert scene.counts() == {CALLERS: (1, 0, 0)}


def test_series_by_subset_add_up_for_everybody_else() -> None:
    """Whoever looks at services, endpoints and edges sees the sum of all subsets, before and after a route."""
    stats, fold = Stats(), Fold()
    for subset in ("", "v1", "v2"):
        kind = stats.series("out", "shop", "buy", "web", subset)
        kind.record(0.01, "OK")
        kind.record(0.01, "OK")
        assert stats.series("out", "shop", "buy", "web", subset) is kind
    assert stats.by_endpoint("out")["buy"].requests == 6
    for now in (1.0, 2.0):
        snapshot = stats.snapshot(instance="c1", service="web", version="0.0.0", namespace="default")
        (body,) = encode_stats(snapshot)
        assert body.count(b'"subset"') == 2  # left out where there is none
        fold.apply(msgspec.json.decode(body, type=StatsMessage), now)
    (edge,) = fold.snapshot(2.0).edges
    assert edge.red.total.requests == 6
