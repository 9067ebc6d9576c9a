"""What a statistics message costs who tells and who looks: `python -m tests.bench.stats_messages`. Asserts nothing.

Microseconds of CPU, medians: to make it (count, encode), to take it in (read, fold), and its size. A member has so
many series, of which some or all have had a call since the message before; `rows` are the seven messages of eight that
tell what has changed, `whole` is the one that tells everything. The aim is 200 µs for each of both ends.
"""

from __future__ import annotations

import random
import statistics
import time

from nats_mesh.clock import ManualClock
from nats_mesh.errors import Status
from nats_mesh.telemetry.folding import Fold
from nats_mesh.telemetry.series import Series
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import WHOLE_EVERY, decode_stats, encode_stats
from nats_mesh.variant import COMPILED

__all__ = ["main"]

TURNS = 400
#: Endpoints and callers of a member, and of how many of their series something has happened each second.
MEMBERS = ((2, 2, 4), (5, 4, 2), (5, 4, 20), (20, 5, 10), (20, 5, 100))


class Cost:
    """Seconds of CPU at both ends, message by message, and bytes."""

    def __init__(self) -> None:
        self.made: list[float] = []
        self.taken: list[float] = []
        self.size = 0

    def __str__(self) -> str:
        made, taken = (statistics.median(each) * 1e6 for each in (self.made, self.taken))
        return f"{made:8.0f} {taken:8.0f} {self.size:8}"


def measure(endpoints: int, callers: int, active: int) -> tuple[Cost, Cost]:
    """A member and an observer for some minutes: the messages of rows, and those that tell everything."""
    clock, chance = ManualClock(), random.Random(1)
    stats, fold = Stats(clock=clock), Fold()
    series = [
        stats.series("in", "orders", f"endpoint-{endpoint}", f"caller-{caller}")
        for endpoint in range(endpoints)
        for caller in range(callers)
    ]

    def calls(of: list[Series], each: int) -> None:
        for one in of:
            for _ in range(each):
                one.record(0.002 * chance.lognormvariate(0.0, 0.5), Status.OK)

    calls(series, 400)
    costs = Cost(), Cost()
    for turn in range(TURNS):
        calls(series[:active], 1)
        clock.advance(1.0)
        whole = turn % WHOLE_EVERY == 0
        begin = time.process_time()
        snapshot = stats.snapshot(
            instance="i" * 22, service="orders", version="1.0.0", namespace="default", whole=whole
        )
        (body,) = encode_stats(snapshot)
        made = time.process_time()
        fold.apply(decode_stats(body, service="orders", instance="i" * 22), clock.monotonic())
        taken = time.process_time()
        fold.snapshot(clock.monotonic() + 0.5)
        cost = costs[whole]
        cost.made.append(made - begin)
        cost.taken.append(taken - made)
        cost.size = len(body)
    return costs


def main() -> None:
    """Print a line for each member."""
    print(f"{'compiled' if COMPILED else 'pure'}; µs of CPU, median of {TURNS} messages")
    print(f"{'':32} {'rows':^26} {'whole':^26}")
    print(f"{'series':>8} {'with calls':>12} {'':10}" + f" {'make':>8} {'take':>8} {'bytes':>8}" * 2)
    for endpoints, callers, active in MEMBERS:
        rows, whole = measure(endpoints, callers, active)
        print(f"{endpoints * callers:8} {active:12} {'':10} {rows} {whole}")


if __name__ == "__main__":
    main()
