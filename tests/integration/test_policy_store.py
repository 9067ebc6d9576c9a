"""The policy store on a real server: several keys as one, compare-and-set, history, looking back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from nats_mesh.policy.bus.store import (
    Change,
    ConflictError,
    NoEpochError,
    NotAtomicError,
    PolicyStore,
    UnknownPastError,
)
from nats_mesh.testing import NatsServer
from nats_mesh.wire.kv import KvAbsentError, KvError
from tests.stored import Operator, destination, limit, operator

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ops(nats_server: NatsServer, mesh_namespace: str) -> AsyncIterator[Operator]:
    """An operator with an open store."""
    with anyio.fail_after(60):
        async with operator(nats_server.url, mesh_namespace) as ops:
            yield ops


async def config_of(ops: Operator) -> dict[str, Any]:
    """What the server says of the bucket."""
    body = await ops.log.api(f"STREAM.INFO.{ops.log.stream}", None, timeout_s=5.0)
    found: dict[str, Any] = json.loads(body)["config"]
    return found


async def test_the_bucket_is_made_as_the_contract_says(ops: Operator) -> None:
    """History 64, direct gets, atomic batches, told of on control.policy, bounded, and refusing when full."""
    config = await config_of(ops)
    bucket = ops.store.bucket
    assert bucket is not None
    assert (bucket.made, bucket.atomic, bucket.replicas) == (True, True, 1)
    assert config["max_msgs_per_subject"] == 64
    assert config["allow_direct"] is config["allow_atomic"] is config["deny_delete"] is True
    assert config["republish"]["dest"] == ops.store.subjects.policy_hints
    assert config["discard"] == "new"
    assert config["max_bytes"] > 0
    assert config["max_msg_size"] > 0


async def test_opening_it_again_changes_nothing(ops: Operator) -> None:
    """Neither its epoch nor what stands there."""
    await ops.put(destination("a"))
    before = await ops.store.snapshot()
    assert (await ops.store.open()).made is False
    assert await ops.store.snapshot() == before


async def test_a_bucket_made_by_other_means_gets_what_it_lacks(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """As by `nats kv add`: history 1, no republish; what stood there stays."""
    async with operator(nats_server.url, mesh_namespace, make=False) as ops:
        with pytest.raises(KvAbsentError, match="no bucket"):
            await ops.store.open(make=False)
        config = {
            "name": ops.log.stream,
            "subjects": [f"{ops.log.prefix}>"],
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "num_replicas": 1,
            "storage": "file",
        }
        await ops.log.api(f"STREAM.CREATE.{ops.log.stream}", config, timeout_s=5.0)
        await ops.raw("Destination.a", destination("a"))
        with pytest.raises(NoEpochError, match="no epoch"):
            await ops.store.snapshot()
        bucket = await ops.store.open()
        assert (bucket.made, bucket.atomic) == (False, True)
        assert (await config_of(ops))["republish"]["dest"] == ops.store.subjects.policy_hints
        assert set((await ops.store.snapshot()).policies) == {"Destination.a"}


async def test_several_documents_are_stored_as_one(ops: Operator) -> None:
    """With one change id, and sequences without a gap."""
    applied = await ops.put(destination("a"), destination("b"), limit("a", 3), message="all at once")
    assert applied.atomic
    assert sorted(applied.sequences.values()) == [
        applied.sequence - 2,
        applied.sequence - 1,
        applied.sequence,
    ]
    snapshot = await ops.store.snapshot()
    assert {each.change for each in snapshot.policies.values()} == {applied.change}
    assert {each.message for each in snapshot.policies.values()} == {"all at once"}
    assert {each.operator for each in snapshot.policies.values()} == {"ops"}
    assert snapshot.sequence == applied.sequence


async def test_a_conflict_names_the_key_and_both_revisions_and_stores_nothing(ops: Operator) -> None:
    """One of ten keys was written by somebody else: none of the ten is stored."""
    first = await ops.put(*(destination(f"d{n}") for n in range(10)))
    async with operator(ops.mesh.settings.servers, ops.store.subjects.namespace, operator="bob") as other:
        second = await other.put(destination("d7", "9s"))
    changes = [
        Change(f"Destination.d{n}", destination(f"d{n}", "5s"), first.sequences[f"Destination.d{n}"])
        for n in range(10)
    ]
    before = await ops.store.snapshot()
    with pytest.raises(
        ConflictError, match=rf"d7: revision {first.sequences['Destination.d7']} .* {second.sequence} by bob"
    ) as caught:
        await ops.store.apply(changes)
    assert caught.value.key == "Destination.d7"
    assert caught.value.expected == first.sequences["Destination.d7"]
    assert caught.value.found is not None
    assert caught.value.found.sequence == second.sequence
    assert await ops.store.snapshot() == before


async def test_what_is_new_must_be_new(ops: Operator) -> None:
    """A change that expects nothing under a key where something stands is a conflict."""
    await ops.put(destination("a"))
    with pytest.raises(ConflictError, match="nothing was expected"):
        await ops.store.apply([Change("Destination.a", destination("a", "3s"))])


@pytest.mark.parametrize("count", [1000, 1001])
async def test_a_thousand_documents_are_one_change_and_one_more_is_refused_with_a_word(
    ops: Operator, count: int
) -> None:
    """What cannot be stored as one is not stored, unless that is asked for."""
    changes = [Change(f"Destination.d{n}", destination(f"d{n}")) for n in range(count)]
    if count <= 1000:
        assert (await ops.store.apply(changes)).atomic
    else:
        with pytest.raises(NotAtomicError, match="1001 documents: at most 1000"):
            await ops.store.apply(changes)
        assert not (await ops.store.snapshot()).policies
        seen: list[str] = []
        applied = await ops.store.apply(changes, one_by_one=True, progress=seen.append)
        assert not applied.atomic
        assert len(seen) == count
    assert len((await ops.store.snapshot()).policies) == count


async def test_what_fails_in_the_middle_is_taken_back(ops: Operator) -> None:
    """One by one, the last of three meets a conflict: the two before it are as they were."""
    await ops.put(destination("a", "1s"), destination("c", "1s"))
    ops.store.bucket = await ops.store.open()
    before = await ops.store.snapshot()
    object.__setattr__(
        ops.store, "bucket", type(ops.store.bucket)(**{**_fields(ops.store.bucket), "atomic": False})
    )
    changes = [
        Change("Destination.a", destination("a", "2s"), before.expected["Destination.a"]),
        Change("Destination.b", destination("b", "2s")),
        Change("Destination.c", destination("c", "2s"), 1),
    ]
    with pytest.raises(NotAtomicError, match=r"2\.12"):
        await ops.store.apply(changes)
    with pytest.raises(ConflictError, match=r"Destination\.c"):
        await ops.store.apply(changes, one_by_one=True)
    after = await ops.store.snapshot()
    assert {key: each.value for key, each in after.policies.items()} == {
        key: each.value for key, each in before.policies.items()
    }


def _fields(bucket: Any) -> dict[str, Any]:
    return {name: getattr(bucket, name) for name in bucket.__struct_fields__}


async def test_history_has_every_revision_byte_for_byte(ops: Operator) -> None:
    """Who, when and why from the headers; deletions, too; at most 64."""
    odd = destination("a").replace(b"2s", b"2s") + b"\n \xc3\xa4"
    for n in range(70):
        await ops.raw("Destination.a", b"%d " % n + odd)
    await ops.put(destination("a", "7s"), message="with a reason: ä\r\nForged: x")
    await ops.put(delete=("Destination.a",), message="not needed")
    history = await ops.store.history("Destination.a")
    assert len(history) == 64
    assert history[0].value == b"8 " + odd
    assert history[-2].value == destination("a", "7s")
    assert history[-2].message == "with a reason: ä Forged: x"
    assert history[-1].value is None
    assert history[-1].message == "not needed"
    assert history[-1].said_time[:10] == history[-1].time[:10]
    assert await ops.store.history("Destination.none") == []


async def test_the_state_of_a_past_moment(ops: Operator) -> None:
    """By sequence and by the server's time, with what was deleted since."""
    first = await ops.put(destination("a", "1s"), destination("b", "1s"))
    then = (await ops.store.history("Destination.b"))[-1].time
    second = await ops.put(destination("a", "2s"), delete=("Destination.b",))
    await ops.put(destination("c"))
    by_sequence = await ops.store.at(sequence=first.sequence)
    assert {key: each.value for key, each in by_sequence.policies.items()} == {
        "Destination.a": destination("a", "1s"),
        "Destination.b": destination("b", "1s"),
    }
    assert await ops.store.at(time=then) == by_sequence
    assert set((await ops.store.at(sequence=second.sequence)).policies) == {"Destination.a"}
    with pytest.raises(UnknownPastError, match="made later"):
        await ops.store.at(time="2001-01-01T00:00:00Z")
    for n in range(64):
        await ops.raw("Destination.a", destination("a", f"{n + 1}s"))
    with pytest.raises(UnknownPastError, match=r"Destination\.a") as caught:
        await ops.store.at(sequence=first.sequence)
    assert caught.value.keys == ("Destination.a",)


async def test_what_is_too_large_is_refused_before_anything_is_stored(ops: Operator) -> None:
    """And so are keys that are none."""
    with pytest.raises(ValueError, match="262145 bytes"):
        await ops.store.apply([Change("Destination.a", b"x" * 262145)])
    for key in ("meta.epoch", "Destination", "Destination.a.b", "Destination. ", "Destination.>"):
        with pytest.raises(ValueError, match="no key of a policy"):
            await ops.store.apply([Change(key, b"{}")])
    assert not (await ops.store.snapshot()).policies


async def test_more_keys_than_one_answer_takes_are_read_all_the_same(ops: Operator) -> None:
    """Above about a thousand the server gives no snapshot; the log is read instead."""
    for start in range(0, 2500, 500):
        await ops.store.apply([Change(f"Limit.l{n}", limit(f"l{n}", 5)) for n in range(start, start + 500)])
    snapshot = await ops.store.snapshot()
    assert len(snapshot.policies) == 2500
    assert snapshot.policies["Limit.l2499"].value == limit("l2499", 5)


async def test_without_jetstream_it_says_so(mesh_namespace: str) -> None:
    """At once, and by a word that helps."""
    async with NatsServer(jetstream=False) as server, operator(server.url, mesh_namespace, make=False) as ops:
        with pytest.raises(KvError, match="JetStream"):
            await ops.store.open()


async def test_renewing_gives_a_higher_epoch(ops: Operator) -> None:
    """Also where the clock of whoever does it is behind."""
    before = (await ops.store.snapshot()).epoch
    behind = PolicyStore(
        ops.store.subjects.namespace,
        transport=ops.mesh.client.transport,
        mux=ops.mesh.client.mux,
        clock=_Frozen(),
    )
    assert await behind.renew() == before + 1
    assert (await ops.store.snapshot()).epoch == before + 1


class _Frozen:
    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1.0
