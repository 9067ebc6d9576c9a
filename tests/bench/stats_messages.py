"""What a statistics message costs: to make it (snapshot, encode), to take it in (read, fold), and its size. A member
has so many series, of which some or all have had a call since the message before; `rows` are the seven seconds of eight
in which it tells what has changed, `whole` is the one in which it tells everything. What is more than one message tells
travels in several: `take` is the dearest of a second, and the last two columns are all of it together. The aim is
200 µs for a message, at each of both ends.
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
from nats_mesh.telemetry.stats_messages import (
    WHOLE_EVERY,
    Condition,
    EndpointLoad,
    decode_stats,
    encode_stats,
)
from nats_mesh.variant import COMPILED

__all__ = ["main"]

TURNS = 400
#: Endpoints and callers of a member, and of how many of their series something has happened each second.
MEMBERS = ((2, 2, 4), (5, 4, 2), (5, 4, 20), (20, 5, 10), (20, 5, 100))


class Cost:
    """Seconds of CPU at both ends, second by second, and the largest body."""

    def __init__(self) -> None:
        self.made: list[float] = []
        self.taken: list[list[float]] = []
        self.size = 0

    def __str__(self) -> str:
        parts = max(len(each) for each in self.taken)
        made, made_all, taken, taken_all = (
            statistics.median(each) * 1e6
            for each in (
                [each / parts for each in self.made],
                self.made,
                [max(each) for each in self.taken],
                [sum(each) for each in self.taken],
            )
        )
        return f"{parts:5} {made:6.0f} {taken:6.0f} {self.size:6} {made_all:6.0f} {taken_all:6.0f}"


def condition(endpoints: int) -> Condition:
    """What an instance says of itself in each message."""
    loads = {f"endpoint-{number}": EndpointLoad(limit=64, in_flight=1) for number in range(endpoints)}
    return Condition(name="host-17", source="bus", revision=(1, 42), rtt_s=0.00025, endpoints=loads)


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
    costs, said = (Cost(), Cost()), condition(endpoints)
    for turn in range(TURNS):
        calls(series[:active], 1)
        clock.advance(1.0)
        whole = turn % WHOLE_EVERY == 0
        begin = time.process_time()
        snapshot = stats.snapshot(
            instance="i" * 22,
            service="orders",
            version="1.0.0",
            namespace="default",
            whole=whole,
            condition=said,
        )
        bodies = encode_stats(snapshot)
        cost = costs[whole]
        cost.made.append(time.process_time() - begin)
        taken: list[float] = []
        for body in bodies:
            begin = time.process_time()
            fold.apply(decode_stats(body, service="orders", instance="i" * 22), clock.monotonic())
            taken.append(time.process_time() - begin)
        fold.snapshot(clock.monotonic() + 0.5)
        cost.taken.append(taken)
        cost.size = max(cost.size, *map(len, bodies))
    return costs


def main() -> None:
    """Print a line for each member."""
    print(f"{'compiled' if COMPILED else 'pure'}; µs of CPU, median of {TURNS} seconds")
    print(
        f"{'':18} {'rows: of a message':>34} {'of a second':>13} {'whole: of a message':>24} {'of a second':>13}"
    )
    head = f" {'parts':>5} {'make':>6} {'take':>6} {'bytes':>6} {'make':>6} {'take':>6}"
    print(f"{'series':>6} {'with calls':>11}" + 2 * head)
    for endpoints, callers, active in MEMBERS:
        rows, whole = measure(endpoints, callers, active)
        print(f"{endpoints * callers:6} {active:11} {rows} {whole}")


if __name__ == "__main__":
    main()
