"""The load engine in virtual time: who calls when, and from when latency counts."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from nats_mesh.core.histogram import Histogram
from nats_mesh.testing import run_virtual
from nats_mesh_cli.bench import document_of, render
from nats_mesh_cli.load import Plan, Tally, bars, run_load


def measure(
    plan: Plan, service_s: float, *, failing_every: int = 0, slots: int = 1000
) -> tuple[Tally, list[float]]:
    """Load a service that takes ``service_s`` for each call; the tally and when each call started."""
    tally, starts = Tally(), []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun, served = loop.time(), anyio.CapacityLimiter(slots)

        async def call() -> tuple[str, str, str]:
            starts.append(loop.time() - begun)
            async with served:
                await anyio.sleep(service_s)
            failed = failing_every and len(starts) % failing_every == 0
            return ("INTERNAL", "broken", "") if failed else ("OK", "", "one")

        await run_load(call, plan, tally, loop.time)

    run_virtual(main)
    return tally, starts


def test_closed_loop_keeps_so_many_calls_going() -> None:
    """Ten workers, 100 ms a call, one second: a hundred calls, each 100 ms."""
    tally, _ = measure(Plan(concurrency=10, duration_s=1.0), 0.1)
    assert tally.calls == pytest.approx(100, abs=10)
    assert tally.shortest_s == pytest.approx(0.1)
    assert tally.longest_s == pytest.approx(0.1)


@pytest.mark.parametrize("concurrency", [1, 7, 200])
def test_count_is_exact(concurrency: int) -> None:
    """Exactly so many calls, whatever the concurrency."""
    tally, starts = measure(Plan(concurrency=concurrency, count=100), 0.01)
    assert (tally.calls, len(starts), tally.missed) == (100, 100, 0)


def test_open_loop_starts_on_time() -> None:
    """Where workers are free, call n starts at n / rate, and latency is the call's own."""
    tally, starts = measure(Plan(concurrency=10, rate=50.0, duration_s=1.0), 0.02)
    assert starts == pytest.approx([n / 50 for n in range(50)], abs=0.002)
    assert tally.longest_s == pytest.approx(0.02, abs=0.003)
    assert tally.missed == 0


def test_open_loop_counts_from_the_intended_start() -> None:
    """One worker, a second a call, ten due each second: call n waits for the n before it, and that counts."""
    tally, starts = measure(Plan(concurrency=1, rate=10.0, count=5), 1.0)
    assert starts == pytest.approx([0, 1, 2, 3, 4])
    assert tally.longest_s == pytest.approx(5.0 - 0.4)
    assert tally.shortest_s == pytest.approx(1.0)


def test_a_stall_of_our_own_counts_too() -> None:
    """A worker that wakes late because this process stood still counts from when its call was due."""
    tally = Tally()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stalled_s = 0.0

        async def call() -> tuple[str, str, str]:
            nonlocal stalled_s
            await anyio.sleep(0)  # the other worker waits for its turn before the stall begins
            stalled_s = 1.0
            return "OK", "", ""

        plan = Plan(concurrency=2, rate=10.0, count=2)
        await run_load(call, plan, tally, lambda: loop.time() + stalled_s)

    run_virtual(main)
    # The second call was due at 0.1 s. Its worker woke on time by the loop and a second late by the clock.
    assert (tally.shortest_s, tally.longest_s) == pytest.approx((1.0, 1.0), abs=0.01)
    assert tally.calls == 2


def test_closed_loop_hides_what_open_loop_shows() -> None:
    """The same service stalls the same; only latency from the intended start says what callers waited."""
    closed, _ = measure(Plan(concurrency=1, count=10), 1.0)
    opened, _ = measure(Plan(concurrency=1, count=10, rate=10.0), 1.0)
    assert closed.quantile_s(0.5) == pytest.approx(1.0, rel=0.1)
    half = opened.quantile_s(0.5)
    assert half is not None
    assert half > 4.0


def test_what_was_due_and_never_started_is_counted() -> None:
    """Calls that a full house kept from starting before the end are missed, not forgotten."""
    tally, starts = measure(Plan(concurrency=2, rate=100.0, duration_s=1.0), 0.5)
    assert len(starts) == 4
    assert tally.missed == 96
    assert tally.calls + tally.missed == 100


def test_failures_are_counted_apart_from_latency() -> None:
    """A quick refusal must not make the latency look good."""
    tally, _ = measure(Plan(concurrency=1, count=10), 0.1, failing_every=5)
    assert tally.by_status == {"OK": 8, "INTERNAL": 2}
    assert (tally.latency.count, tally.messages) == (8, {"INTERNAL": "broken"})


def test_memory_is_bounded() -> None:
    """However many instances answer, the table of them has an end; no call is lost from the sums."""
    tally = Tally()
    for number in range(3000):
        tally.add(0.001, "OK", "", f"i{number}")
    assert (len(tally.instances), tally.calls) == (1000, 3000)


def test_the_histogram_shows_every_call() -> None:
    """Rows are octaves with bounds at 0.25 ms times powers of two; what is longer than all stands last."""
    histogram = Histogram()
    for seconds in (0.00001, 0.0002, 0.0003, 0.004, 500.0):
        histogram.record(seconds)
    rows = bars(histogram)
    assert sum(count for _, count in rows) == 5
    assert (0.00025, 1) in rows
    assert (0.0005, 1) in rows
    assert rows[-1] == (float("inf"), 1)
    assert bars(Histogram()) == []


def test_the_report_is_valid_without_a_success() -> None:
    """Nothing succeeded: percentiles are null, the text says how often and why."""
    tally = Tally()
    tally.add(0.1, "INTERNAL", "broken", "")
    document = document_of("a.b", Plan(concurrency=1, count=1), tally)
    assert document["latency_ms"]["p99"] is None
    assert (document["ok"], document["errors"], document["success"]) == (0, 1, 0.0)
    assert "INTERNAL 1  broken" in render(document)


def test_the_report_says_which_loop() -> None:
    """Open loop says that latency counts from the intended start; closed loop says what it hides."""
    tally, _ = measure(Plan(concurrency=2, rate=100.0, duration_s=1.0), 0.5)
    opened = render(document_of("a.b", Plan(concurrency=2, rate=100.0, duration_s=1.0), tally))
    assert "no coordinated omission" in opened
    assert "missed   96" in opened
    assert "--rate" in render(document_of("a.b", Plan(concurrency=2, duration_s=1.0), tally))
