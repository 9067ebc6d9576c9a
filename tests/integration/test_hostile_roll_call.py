"""Answers to a roll call that no member would give: anybody on the bus may send them."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from nats_mesh.discovery import acks as acks_module
from nats_mesh.discovery.acks import Acks
from nats_mesh.discovery.rolls import MAX_ANSWER
from tests.harness import Bus
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


def answer(identifier: str, **metadata: str) -> bytes:
    """What a member of the namespace would say, with something of its own."""
    return json.dumps(
        {
            "type": "io.nats.micro.v1.ping_response",
            "name": "shop",
            "id": identifier,
            "version": "1.0.0",
            "metadata": {"mesh.kind": "service", "mesh.policies": "bus", **metadata},
        }
    ).encode()


async def test_no_answer_is_kept_beyond_what_it_says_of_a_member(bus: Bus, raw: RawNats) -> None:
    """One that is too large is counted and not read; of a name without end its beginning is kept."""
    client = bus.mesh.client
    acks = Acks(subjects=client.subjects, transport=client.transport, mux=client.mux)
    found: list[Any] = []

    async def ask() -> None:
        found.extend(await acks.roll_call(first_s=5.0, all_s=10.0))

    await raw.subscribe("$SRV.PING")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await raw.until(lambda: raw.messages)
        reply, namespace = raw.messages[-1].reply, {"mesh.namespace": bus.namespace}
        raw.publish(reply, answer("large", **namespace, more="x" * MAX_ANSWER))
        raw.publish(reply, answer("long", **namespace, **{"mesh.instance": "x" * 60_000}))
        raw.publish(reply, b"no answer at all")
    shop = [member for member in found if member.service == "shop"]
    assert [member.instance for member in shop] == ["long"]
    assert len(shop[0].name) == acks_module._MAX_PLACE
    assert acks.ignored == 1
