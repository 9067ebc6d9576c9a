"""The bench at work: its loop, its baseline, its processes, its layers, and a run of a few dozen calls.

No test asserts a speed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.testing import NatsServer
from tests.bench.__main__ import run
from tests.bench.echo import mesh as echo_mesh
from tests.bench.echo.bare import scan
from tests.bench.figures import Plan
from tests.bench.layers import LAYERS
from tests.bench.loop import drive
from tests.bench.processes import BenchError, Worker, cpu_s, peak_mib
from tests.bench.rounds import layer_peers, measure_layers

PLAN = Plan(
    peers=("nats-py", "bare", "mesh"),
    sizes=(128,),
    in_flight=(1, 4),
    rounds=1,
    seconds=0.1,
    calls=40,
    warm_up_s=0.02,
    settle_s=0.02,
    layers=False,
)


@given(
    payloads=st.lists(st.binary(max_size=40), max_size=6),
    cuts=st.lists(st.integers(min_value=1, max_value=30), min_size=1, max_size=40),
)
def test_the_baseline_reads_any_cuts(payloads: list[bytes], cuts: list[int]) -> None:
    """However a server's bytes are cut, every message and every line arrives once and whole."""
    data = b"PING\r\n"
    for number, payload in enumerate(payloads):
        reply = b"_B.1 " if number % 2 else b""
        data += b"MSG a.b 1 %b%d\r\n%b\r\n" % (reply, len(payload), payload)
    data += b"PONG\r\n"
    messages: list[tuple[bytes, bytes, bytes]] = []
    lines: list[bytes] = []
    scanner = scan(lambda *message: messages.append(message), lines.append)
    next(scanner)
    sizes: Iterator[int] = iter(cuts)
    while data:
        size = next(sizes, len(data))
        scanner.send(data[:size])
        data = data[size:]
    assert messages == [(b"a.b", b"_B.1" if n % 2 else b"", p) for n, p in enumerate(payloads)]
    assert lines == [b"PING", b"PONG"]


@pytest.mark.anyio
async def test_the_loop_keeps_so_many_in_flight() -> None:
    """Exactly as many calls as asked for, never more at a time, failed ones counted apart."""
    now = most = made = 0

    async def call() -> None:
        nonlocal now, most, made
        now += 1
        most = max(most, now)
        made += 1
        number = made
        await asyncio.sleep(0)
        now -= 1
        if number % 5 == 0:
            raise ValueError(number)

    found = await drive(call, in_flight=4, seconds=0, calls=50)
    assert (found["calls"], found["errors"], made, most) == (40, 10, 50, 4)
    assert found["first_error"] == "ValueError: 5"
    assert 0 < found["p50_us"] <= found["p99_us"]


def test_a_process_that_fails_is_quoted() -> None:
    """A child that ends, or says nothing, is an error that names it with its last words, at once and not later."""
    with (
        pytest.raises(BenchError, match=r"the caller ended\n(.*\n)*.*no such thing"),
        Worker("the caller", [sys.executable, "-c", "raise SystemExit('no such thing')"]),
    ):
        pass
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with (
        pytest.raises(BenchError, match=r"said nothing for 0\.05 s"),
        Worker("x", silent, start_timeout_s=0.05),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell, and the table says so")
def test_processes_are_weighed() -> None:
    """CPU time and peak memory of another process are read; of none, or one that is gone, they are not known."""
    with Worker("w", [sys.executable, "-c", 'print(\'{"address": "-"}\', flush=True); input()']) as worker:
        assert 0 < (cpu_s([worker.pid]) or 0) < 60
        assert 1 < (peak_mib(worker.pid) or 0) < 1000
    assert cpu_s([]) is None
    assert cpu_s([worker.pid]) is None
    assert peak_mib(worker.pid) is None


@pytest.mark.anyio
async def test_every_layer_echoes_what_it_says() -> None:
    """Each line of the table builds a service and a caller whose echo is true, with 128 B encoded where typed."""
    encoders: dict[str, Callable[[Any], bytes]] = {
        "plain": bytes,
        "typed-json": msgspec.json.encode,
        "typed-msgpack": msgspec.msgpack.encode,
    }
    async with NatsServer(jetstream=False) as server:
        for name in LAYERS:
            async with (
                echo_mesh.serve(server.url, name),
                echo_mesh.connect(server.url, name) as prepare,
            ):
                echo = prepare(128)
                assert echo.data_of(await echo.call()) == echo.sent, name
                if encode := encoders.get(name):
                    assert len(encode(echo.sent)) == 128, name


def test_the_bench_runs() -> None:
    """A few dozen calls through real processes: every cell has its calls, none failed, each process was weighed."""
    found = run(PLAN)
    assert [(c.peer, c.in_flight) for c in found.cells] == [
        (peer, in_flight) for peer in PLAN.peers for in_flight in PLAN.in_flight
    ]
    for each in found.cells:
        assert (each.calls, each.errors, len(each.samples)) == (40, 0, 1)
        assert each.cpu_caller_us.median > 0
        assert 0 < each.p50_us.median <= each.p99_us.median
        if sys.platform == "linux":
            assert each.cpu_service_us is not None
            assert each.cpu_between_us is not None
            assert each.rss_service_mib is not None
    [p50] = [verdict for verdict in found.budgets if verdict.met is not None]
    assert p50.at_most, "what needs 64 in flight was not measured"
    assert found.versions["nats-py"]


def test_layers_are_measured_in_turns() -> None:
    """Every layer has a turn of the plainest call beside each of its own, also the one that others listen to."""
    wanted = {name: peer for name, peer in layer_peers().items() if name in ("plain", "observed")}
    plan = msgspec.structs.replace(PLAN, rounds=2, calls=10)
    turns, failed = measure_layers(wanted, (128, 2), plan, lambda text: None, generations=1)
    assert failed == {}
    assert {name: len(pairs) for name, pairs in turns.items()} == {"plain": 2, "observed": 2}
    assert all(plain.calls == layer.calls == 10 for pairs in turns.values() for plain, layer in pairs)
