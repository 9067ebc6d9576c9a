"""Dispatch by credit in virtual time: how often seats are left, for how long, and what callers notice."""

from __future__ import annotations

import datetime
from itertools import pairwise

import anyio
import pytest

from nats_mesh import CallError, NoInstancesError, Service
from nats_mesh.core.rules import ConcurrencyRules
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving.instance import Instance
from nats_mesh.testing import MemoryMesh, run_virtual

RULES = {True: ConcurrencyRules(limit=1, leave_queue=True), False: ConcurrencyRules(limit=1)}


def work(seconds: float, concurrency: int = 256) -> Service:
    """An instance's service; a call of it takes so long."""
    service = Service("pool", version="1.0.0")

    @service.endpoint(timeout=60.0, concurrency=concurrency)
    async def do() -> None:
        await anyio.sleep(seconds)

    return service


def seats(instance: Instance) -> list[tuple[str, float]]:
    """When it left the queue group and came back, in seconds."""
    return [
        (event.kind, datetime.datetime.fromisoformat(event.at).timestamp())
        for event in instance.events.recent
        if event.kind.startswith("queue.")
    ]


def policies(text: str) -> PolicySet:
    """What the instances of `pool` follow."""
    document = f"apiVersion: mesh/v1\nkind: Limit\nmetadata: {{name: pool}}\nspec: {{{text}}}\n"
    return PolicySet.of(parse(document))


async def under_load(leave_queue: bool) -> tuple[int, int, list[list[tuple[str, float]]]]:
    """A small instance (one slot) beside a large one, for 30 s: calls, how many of them were refused, and when each
    changed its seat under that load: when the mesh ends, who is alone comes back at once."""
    async with MemoryMesh() as mesh:
        small, large = await mesh.serve(work(0.3)), await mesh.serve(work(0.01))
        small.apply_limits(lambda _: RULES[leave_queue])
        large.apply_limits(lambda _: ConcurrencyRules(limit=100, leave_queue=leave_queue))
        calls = 0
        failures: list[CallError] = []

        async def call() -> None:
            try:
                await mesh.call("pool.do", timeout=10.0)
            except CallError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            end = anyio.current_time() + 30.0
            while anyio.current_time() < end:
                calls += 1
                tasks.start_soon(call)
                await anyio.sleep(0.02)
        assert not [each for each in failures if isinstance(each, NoInstancesError)], (
            "somebody always sits there"
        )
        return calls, small.dispatcher.served["do"].concurrency.refused, [seats(small), seats(large)]


def test_seats_change_at_most_once_a_second_and_refusals_vanish() -> None:
    """Away for a second at least, one leave a second at most; without it the small instance refuses most calls."""

    async def main() -> None:
        calls, refused, (small, large) = await under_load(True)
        changes = small
        kinds = [kind for kind, _ in changes]
        assert kinds == (["queue.left", "queue.back"] * len(changes))[: len(changes)]
        assert len(changes) >= 20
        for (kind, at), (_, then) in pairwise(changes):
            if kind == "queue.left":
                assert then - at >= 1.0
        left = [at for kind, at in changes if kind == "queue.left"]
        assert all(b - a >= 1.0 for a, b in pairwise(left))
        assert large == []
        plain_calls, plain_refused, others = await under_load(False)
        assert calls == plain_calls
        assert others == [[], []]
        assert refused < plain_refused / 4, (refused, plain_refused)

    run_virtual(main)


@pytest.mark.parametrize(
    ("spec", "limits", "leaves"),
    [
        ("concurrency: {leaveQueue: true}", (2, 12), True),
        ("target: {service: pool}, concurrency: {leaveQueue: true}", (2, 12), True),
        ("target: {service: pool}, concurrency: {limit: 4, leaveQueue: true}", (2, 4), True),
        ("target: {service: pool}, concurrency: {limit: 400}", (2, 12), False),
        ("concurrency: {limit: 1}", (1, 1), False),
        ("target: {service: pool, endpoints: [do]}, concurrency: {limit: 4}", (4, 4), False),
    ],
)
def test_uneven_instances_stay_uneven(spec: str, limits: tuple[int, int], leaves: bool) -> None:
    """What is said of a whole service or namespace makes no instance larger than it declares itself, and leaving the
    queue needs no number at all; a limit that names the endpoint is the number of all."""

    async def main() -> None:
        async with MemoryMesh() as mesh:
            instances = [await mesh.serve(work(0.01, slots)) for slots in (2, 12)]
            found = policies(spec)
            for instance, limit in zip(instances, limits, strict=True):
                instance.apply_limits(lambda endpoint: found.inbound("pool", endpoint).concurrency)
                served = instance.dispatcher.served["do"]
                assert (served.concurrency.limit, instance.dispatcher.limits.total) == (limit, limit)
                assert served.credit is not None
                assert served.credit.present is leaves
                instance.apply_limits(lambda endpoint: None)
            assert [each.dispatcher.limits.total for each in instances] == [2, 12]

    run_virtual(main)
