"""When a member tells all of its statistics, and when only what has changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nats_mesh.errors import DisconnectedError, Executed
from nats_mesh.telemetry import publisher as module
from nats_mesh.telemetry.publisher import StatsPublisher
from nats_mesh.telemetry.stats_messages import MAX_BYTES, WHOLE_EVERY
from nats_mesh.wire.subjects import Subjects


class Bus:
    """A connection, and the leases that come over it; what is told is noted as whole or not."""

    def __init__(self) -> None:
        self.away = False
        self.wanted_now = True
        self.max_payload = MAX_BYTES
        self.told: list[bool] = []
        self.limits: list[int] = []
        self.publisher = StatsPublisher(
            member="orders",
            instance="i1",
            subjects=Subjects("default"),
            transport=cast(Any, self),
            mux=cast(Any, SimpleNamespace(one_way=lambda destination: "_INBOX.orders.i1.s.0")),
            wants=cast(Any, SimpleNamespace(on=self.on, wanted=lambda kind: self.wanted_now)),
            snapshot=self.snapshot,
        )

    def on(self, kind: str, listener: Any) -> None:
        self.lease = listener

    def snapshot(self, whole: bool, max_bytes: int) -> list[bytes]:
        self.limits.append(max_bytes)
        return [b"whole" if whole else b"changes"]

    def publish(self, subject: str, body: bytes, reply: str) -> None:
        if self.away:
            raise DisconnectedError("the bus is away", executed=Executed.NO)
        self.told.append(body == b"whole")

    def next(self, messages: int = 1) -> list[bool]:
        """What the next messages are."""
        self.told = []
        for _ in range(messages):
            self.publisher._publish()
        return self.told


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    """Time passes where a test says so."""
    monkeypatch.setattr(module, "call_later", lambda delay_s, callback: SimpleNamespace(cancel=lambda: None))
    return Bus()


def test_all_is_told_at_first_to_the_new_and_every_eighth_time(bus: Bus) -> None:
    """Whoever renews a lease is not new."""
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    assert bus.told == [True]
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    assert bus.next(WHOLE_EVERY) == [False] * (WHOLE_EVERY - 1) + [True]
    bus.lease("dash.c2.s", "_INBOX.dash.c2.s.0")
    assert bus.next(2) == [True, False]


def test_who_comes_back_is_told_all(bus: Bus) -> None:
    """While another one looked, members told changes since messages that he never heard."""
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    bus.lease("dash.c2.s", "_INBOX.dash.c2.s.0")
    assert bus.next(7)[1:] == [False] * 6
    bus.publisher._whole_in = WHOLE_EVERY
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    assert bus.next(2) == [True, False]


def test_what_could_not_be_told_is_nothing_to_go_on_from(bus: Bus) -> None:
    """Rows say what has changed since a message that told everything: where that never left, the next one does."""
    bus.away = True
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    bus.away = False
    assert bus.next(3) == [True, False, False]


def test_no_body_is_larger_than_the_server_takes(bus: Bus) -> None:
    """Nor larger than what is read."""
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    bus.max_payload = 100_000
    bus.next()
    bus.max_payload = 2 * MAX_BYTES
    bus.next()
    assert bus.limits == [MAX_BYTES, 100_000, MAX_BYTES]


def test_who_leaves_tells_the_last_figures_to_whoever_has_been_told_some(bus: Bus) -> None:
    """Once, and all of it where the word before was lost; nobody is told who does not listen, or was told nothing."""
    bus.publisher.leave()
    assert bus.told == []
    bus.lease("top.c1.s", "_INBOX.top.c1.s.0")
    bus.told = []
    bus.publisher.leave()
    bus.publisher.leave()
    assert bus.told == [False]
    bus.next()
    bus.publisher._whole_in = 0
    bus.told = []
    bus.publisher.leave()
    assert bus.told == [True]
    bus.next()
    bus.told, bus.wanted_now = [], False
    bus.publisher.leave()
    assert bus.told == []
