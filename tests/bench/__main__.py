"""``python -m tests.bench``: interleaved rounds over a real server, medians, ratios."""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from nats_mesh.runner import loop_factory
from nats_mesh.testing import NatsServer
from tests.bench.peers import PEERS, Call


class Figures(msgspec.Struct):
    """One peer over all rounds: calls a second and p50 in µs, the median of the rounds and their spread."""

    name: str
    rate_per_s: float
    rate_spread: tuple[float, float]
    p50_us: float
    p50_spread: tuple[float, float]
    rate_ratio: float = 1.0
    p50_ratio: float = 1.0


async def _rate(call: Call, in_flight: int, total: int) -> float:
    async def worker() -> None:
        for _ in range(total // in_flight):
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return total // in_flight * in_flight / (time.perf_counter() - start)


async def _p50_us(call: Call, total: int) -> float:
    took = []
    for _ in range(total):
        start = time.perf_counter()
        await call()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6


async def _measure(url: str, options: argparse.Namespace) -> list[Figures]:
    rates: dict[str, list[float]] = {name: [] for name in PEERS}
    latencies: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(options.rounds + 1):
        for name, peer in PEERS.items():
            async with peer.caller(url, options.size) as call:
                await _rate(call, options.in_flight, options.calls // 10)
                rate = await _rate(call, options.in_flight, options.calls)
                latency = await _p50_us(call, max(200, options.calls // 10))
            if number:  # the first round warms up
                rates[name].append(rate)
                latencies[name].append(latency)
    found = [
        Figures(
            name,
            statistics.median(rates[name]),
            (min(rates[name]), max(rates[name])),
            statistics.median(latencies[name]),
            (min(latencies[name]), max(latencies[name])),
        )
        for name in PEERS
    ]
    for each in found:
        each.rate_ratio = each.rate_per_s / found[0].rate_per_s
        each.p50_ratio = each.p50_us / found[0].p50_us
    return found


async def _serve(name: str, url: str) -> None:
    async with PEERS[name].serve(url):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _table(found: Sequence[Figures], options: argparse.Namespace) -> str:
    lines = [
        f"{options.size} B, {options.in_flight} in flight, {options.rounds} rounds of {options.calls} calls; "
        f"Python {platform.python_version()}, {platform.machine()}",
        f"{'':24}{'calls/s':>10}{'ratio':>8}{'p50 µs (1 in flight)':>24}{'ratio':>8}",
    ]
    lines += [
        f"{f.name:24}{f.rate_per_s:>10.0f}{f.rate_ratio:>8.2f}{f.p50_us:>24.0f}{f.p50_ratio:>8.2f}"
        for f in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the bench, or (with ``--serve``) one peer's service process."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="bytes of a request (default 128)")
    parser.add_argument("--in-flight", type=int, default=64, help="calls at a time for the rate (default 64)")
    parser.add_argument("--calls", type=int, default=10_000, help="calls a round (default 10,000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--serve", nargs=2, metavar=("PEER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if options.serve:
            runner.run(_serve(*options.serve))
            return
        with NatsServer(jetstream=False) as server:
            services = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.bench", "--serve", name, server.url], stdout=subprocess.PIPE
                )
                for name in PEERS
            ]
            try:
                for service in services:
                    assert service.stdout is not None, "it was opened as a pipe"
                    if service.stdout.readline() != b"ready\n":
                        raise SystemExit("a service process did not start")
                found = runner.run(_measure(server.url, options))
            finally:
                for service in services:
                    service.kill()
                    service.wait()
    sys.stdout.write((msgspec.json.encode(found).decode() if options.json else _table(found, options)) + "\n")


if __name__ == "__main__":
    main()
