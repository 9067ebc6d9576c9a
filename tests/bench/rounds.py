"""The run itself: round after round, one peer at a time, each in processes of its own on a server of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from nats_mesh.testing import NatsServer
from tests.bench.envoy import chain
from tests.bench.figures import Cell, Plan, Sample, summarise
from tests.bench.layers import LAYERS
from tests.bench.peers import Peer, command, envoy_binary
from tests.bench.processes import BenchError, Worker, cpu_s, peak_mib

__all__ = ["Pair", "cells_of", "layer_peers", "measure", "measure_layers", "open_pair"]

#: The largest cells have 128 MiB under way: with the usual bounds the server would drop the slower end.
_SERVER = 'max_pending: 1GB\nwrite_deadline: "30s"\n'
#: How much longer than asked a cell may take before its peer is given up (seconds).
_PATIENCE_S = 60.0

#: A new pair warms up under load, whatever its first cell is: what compiles while it runs counts calls, not seconds.
_WARM_UP_IN_FLIGHT = 64
#: The layers are all one runtime, and none needs longer to get warm (seconds).
_LAYER_WARM_UP_S = 0.3

Samples = dict[tuple[str, int, int], list[Sample]]
Turns = dict[str, list[tuple[Sample, Sample]]]


class Pair:
    """A caller and a service that are up, and what stands between them."""

    def __init__(
        self, caller: Worker, service: Worker, between: Sequence[int], least_warm_up_s: float = 0.0
    ) -> None:
        self._least_warm_up_s = least_warm_up_s
        self._caller = caller
        self._service = service
        self._between = tuple(between)
        self._warm = False

    def cell(self, size: int, in_flight: int, plan: Plan) -> Sample:
        """Warm up (longer in a process that is new), then measure one cell."""
        warm_up_s = plan.settle_s if self._warm else max(plan.warm_up_s, self._least_warm_up_s)
        self._caller.say(
            size=size,
            in_flight=in_flight,
            seconds=plan.seconds,
            calls=plan.calls,
            warm_up_s=warm_up_s,
            warm_up_in_flight=in_flight if self._warm else max(in_flight, _WARM_UP_IN_FLIGHT),
        )
        self._caller.hear(warm_up_s + _PATIENCE_S)
        self._warm = True
        before = cpu_s([self._service.pid]), cpu_s(self._between)
        self._caller.say(go=True)
        found = self._caller.hear(plan.seconds + _PATIENCE_S)
        after = cpu_s([self._service.pid]), cpu_s(self._between)
        calls = found["calls"]
        service_us, between_us = (
            None if then is None or now is None else (now - then) / max(1, calls) * 1e6
            for then, now in zip(before, after, strict=True)
        )
        return Sample(
            calls=calls,
            errors=found["errors"],
            first_error=found["first_error"],
            elapsed_s=found["elapsed_s"],
            p50_us=found["p50_us"],
            p99_us=found["p99_us"],
            cpu_caller_us=found["cpu_s"] / max(1, calls) * 1e6,
            cpu_service_us=service_us,
            cpu_between_us=between_us,
            rss_caller_mib=peak_mib(self._caller.pid),
            rss_service_mib=peak_mib(self._service.pid),
        )


@contextmanager
def open_pair(peer: Peer) -> Iterator[Pair]:
    """Start what a peer needs: a server or Envoys where it has them, its service, its caller."""
    with contextlib.ExitStack() as held:
        between: list[int] = []
        address = "-"
        if peer.bus:
            server = held.enter_context(NatsServer(jetstream=False, config=_SERVER))
            between, address = [server.pid], server.url

        def start(role: str, variant: str, where: str) -> Worker:
            name = f"{peer.title} ({role} {variant})"
            return held.enter_context(Worker(name, command(peer, role, variant, where)))

        service = start("serve", peer.variant, address)
        for variant in peer.companions:
            start("serve", variant, address)
        target = service.address
        if peer.proxies:
            binary = envoy_binary()
            if binary is None:
                raise BenchError("there is no Envoy in .venv-bench")
            target, between = held.enter_context(chain(binary, target, grpc=peer.proxies == "grpc"))
        yield Pair(start("call", peer.variant, target), service, between, peer.warm_up_s)


def layer_peers() -> dict[str, Peer]:
    """A peer for every layer."""
    return {
        name: Peer(
            name=name,
            title=layer.title,
            module="mesh",
            variant=name,
            companions=("observer",) if layer.observed else (),
        )
        for name, layer in LAYERS.items()
    }


def measure(
    peers: Mapping[str, Peer],
    cells: Sequence[tuple[int, int]],
    plan: Plan,
    tell: Callable[[str], None],
) -> tuple[Samples, dict[str, str]]:
    """All rounds: within each, every peer once. Also why peers failed, which then are left out of later rounds.

    ``cells`` are sizes and calls in flight; smaller ones first, or the peak memory says nothing of them.
    """
    samples: Samples = {}
    failed: dict[str, str] = {}
    for number in range(1, plan.rounds + 1):
        for peer in _turn(peers.values(), number):
            if peer.name in failed:
                continue
            tell(f"round {number} of {plan.rounds}: {peer.title}")
            try:
                with open_pair(peer) as pair:
                    for size, in_flight in cells:
                        found = pair.cell(size, in_flight, plan)
                        samples.setdefault((peer.name, size, in_flight), []).append(found)
            except BenchError as error:
                failed[peer.name] = f"failed in round {number}: {error}"
                tell(failed[peer.name])
    return samples, failed


def _turn(peers: Iterable[Peer], number: int) -> list[Peer]:
    """Every other round in reverse, so that nobody always runs after the same neighbour."""
    found = list(peers)
    return found if number % 2 else found[::-1]


def cells_of(samples: Samples) -> tuple[Cell, ...]:
    """The cells of a run, in the order in which they were first measured."""
    return tuple(summarise(*where, found) for where, found in samples.items())


def measure_layers(
    peers: Mapping[str, Peer],
    cell: tuple[int, int],
    plan: Plan,
    tell: Callable[[str], None],
    *,
    generations: int = 2,
) -> tuple[Turns, dict[str, str]]:
    """Every layer against the first, turn by turn while both are up; in several generations of processes,
    since two processes of the same program differ by a per cent or two. Also why layers failed."""
    plan = msgspec.structs.replace(
        plan,
        seconds=plan.seconds / 2,
        settle_s=plan.settle_s / 4,
        warm_up_s=min(_LAYER_WARM_UP_S, plan.warm_up_s),
    )
    plainest, *layers = peers.values()
    turns: Turns = {}
    failed: dict[str, str] = {}
    for number in range(1, generations + 1):
        try:
            with open_pair(plainest) as base:
                # The plainest against itself, too: that says what the others' figures are worth.
                for peer in [plainest, *_turn(layers, number)]:
                    if peer.name not in failed:
                        tell(f"layers, {number} of {generations}: {peer.title}")
                        _take_turns(base, peer, cell, plan, turns, failed)
        except BenchError as error:
            failed[plainest.name] = f"failed: {error}"
            break
    for name, reason in failed.items():
        tell(f"layer {name} {reason}")
    return turns, failed


def _take_turns(
    base: Pair, peer: Peer, cell: tuple[int, int], plan: Plan, turns: Turns, failed: dict[str, str]
) -> None:
    try:
        with open_pair(peer) as pair:
            for _ in range(plan.rounds):
                plain = base.cell(*cell, plan)
                turns.setdefault(peer.name, []).append((plain, pair.cell(*cell, plan)))
    except BenchError as error:
        failed[peer.name] = f"failed: {error}"
