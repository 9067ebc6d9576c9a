"""Answers of peers that mean no good, or say what nobody expects: each has one clear outcome, and leaves nothing."""

from __future__ import annotations

import datetime
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import (
    ApplicationError,
    CallError,
    Executed,
    Next,
    NoInstancesError,
    PolicyError,
    Reply,
    Request,
    Service,
)
from nats_mesh.core.presence import Announcement, Kind, State
from nats_mesh.core.registry import GONE_AFTER, HEARSAY_INTERVAL_S, Registry
from nats_mesh.policy import parse
from nats_mesh.policy.problems import place
from nats_mesh.testing import MemoryMesh, run_virtual
from nats_mesh.wire.outcome import decode_error, encode_error


class Late(ApplicationError):
    """An error with a field that not every value fits."""

    at: datetime.datetime


BODIES = [
    b'{"status":"UNAVAILABLE","message":"\xff"}',
    b'{"status":"UNAVAILABLE","message":"\\ud800"}',
    b'{"status":"UNAVAILABLE","details":{"\xc3":1}}',
    b'{"status":1e999}',
    b"[" * 100_000,
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("body", BODIES)
def test_an_error_reply_is_read_whatever_its_body_is(body: bytes) -> None:
    """The status of its header counts; nothing but a call's error comes of it."""
    block = b"NATS/1.0\r\nMesh-Status: UNAVAILABLE\r\nMesh-Refused: draining\r\n\r\n"
    error = decode_error(block, body, service="a", endpoint="b", attempts=1)
    assert (error.status.name, error.executed) == ("UNAVAILABLE", Executed.NO)


@pytest.mark.parametrize("at", [253402300800, -(10**30), "no date", None, [], "\ud800"])
def test_details_that_fit_no_date_are_no_error_of_their_own(at: Any) -> None:
    """What the class cannot hold is told as an error that holds anything."""
    block, _ = encode_error(CallError().status, "x", instance="i", kind="Late")
    body = msgspec.json.encode({"status": "UNKNOWN", "message": "x", "type": "Late"})
    if at != "\ud800":
        body = msgspec.json.encode({"status": "UNKNOWN", "type": "Late", "details": {"at": at}})
    error = decode_error(block, body, service="a", endpoint="b", attempts=1, raises=[Late])
    assert type(error).__name__ in ("Late", "RemoteError")


def service(name: str = "bank") -> Service:
    """One endpoint."""
    made = Service(name, version="1.0.0")

    @made.endpoint()
    async def pay(amount: int) -> str:
        return "own"

    return made


def info(name: str, **metadata: str) -> bytes:
    """An INFO answer of a foreign service."""
    endpoint = {"name": "pay", "subject": "evil.pay", "queue_group": "q", "metadata": {}}
    return msgspec.json.encode(
        {
            "type": "io.nats.micro.v1.info_response", "name": name, "id": "EVIL0000000000000000AB",
            "version": "1.0.0", "description": "", "metadata": metadata, "endpoints": [endpoint],
        }
    )  # fmt: skip


def test_nobody_takes_the_calls_of_a_service_whose_own_instances_answer() -> None:
    """A neighbour that says it serves the same name gets nothing while the real ones drain."""
    got: list[bytes] = []

    async def work() -> None:
        async with MemoryMesh(service()) as mesh, mesh.client("web") as caller, mesh.client("evil") as evil:
            transport = evil.client.transport

            def answer(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
                transport.publish(reply, info("bank"), "")

            def take(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
                got.append(payload)
                transport.publish(reply, b'"paid"', "")

            transport.subscribe("$SRV.INFO.bank", answer)
            transport.subscribe("evil.pay", take)
            (instance,) = mesh.instances
            await instance.stand_aside("on purpose")
            with pytest.raises(NoInstancesError):
                await caller.call("bank.pay", 1)

    run_virtual(work)
    assert got == []


def said(seq: int, state: State, started: str, interval_s: float = 5.0) -> Announcement:
    """A beat of the one instance."""
    return msgspec.convert(
        {
            "type": Kind.BEAT, "service": "pool", "instance": "i1", "name": "host-1", "version": "1.0.0",
            "namespace": "default", "seq": seq, "started": started, "interval_s": interval_s, "state": state,
        },
        Announcement,
    )  # fmt: skip


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def test_hearsay_changes_nothing_that_an_instance_said_itself() -> None:
    """A forged answer with the highest number and a state is as nothing; the instance's next word counts."""
    registry = Registry()
    registry.apply(said(3, State.READY, OLD), 0.0)
    assert registry.hearsay(said(2**53 - 1, State.DRAINING, NEW), 1.0) == []
    (known,) = registry.instances()
    assert known.state is State.READY
    registry.apply(said(4, State.DRAINING, OLD), 2.0)
    (known,) = registry.instances()
    assert known.state is State.DRAINING


def test_an_instance_s_own_word_replaces_hearsay_whatever_its_number() -> None:
    """Also where the answer claimed a later start; and it is neither gone nor new for that."""
    registry = Registry()
    (joined,) = registry.hearsay(said(2**53 - 1, State.DRAINING, NEW), 0.0)
    changes = registry.apply(said(1, State.READY, OLD), 1.0)
    assert [change.kind.name for change in (joined, *changes)] == ["JOINED", "CHANGED"]
    (known,) = registry.instances()
    assert known.state is State.READY
    assert registry.apply(said(1, State.DRAINING, OLD), 2.0) == [], "from now on its numbers count"


def test_hearsay_is_believed_for_a_bounded_time() -> None:
    """Whatever interval it promises."""
    registry = Registry(tick_s=3600.0)
    registry.hearsay(said(1, State.READY, OLD, interval_s=600.0), 0.0)
    registry.tick(1.3 * GONE_AFTER * HEARSAY_INTERVAL_S - 1.0)
    assert len(registry) == 1
    registry.tick(1.3 * GONE_AFTER * HEARSAY_INTERVAL_S + 1.0)
    assert len(registry) == 0


def test_each_time_that_an_interceptor_proceeds_is_a_call_of_its_own() -> None:
    """The second one has as many attempts as the first."""
    seen: list[int] = []
    made = Service("shop", version="1.0.0")

    @made.endpoint(idempotent=True)
    async def get() -> int:
        raise ApplicationError("no", status="UNAVAILABLE")

    async def twice(request: Request, proceed: Next) -> Reply[Any]:
        for last in (False, True):
            try:
                return await proceed(request)
            except CallError as error:
                seen.append(error.attempts)
                if last:
                    raise
        raise AssertionError

    async def work() -> None:
        async with MemoryMesh(made) as mesh, mesh.client("web", interceptors=(twice,)) as caller:
            with pytest.raises(CallError):
                await caller.call("shop.get", idempotent=True)
            await anyio.sleep(0.1)

    run_virtual(work)
    assert seen == [2, 2]


def test_empty_documents_are_documents() -> None:
    """Half a million of them are refused before they are all read."""
    with pytest.raises(PolicyError, match="more than 10000 documents"):
        parse(b"---\n" * 500_000)


def test_a_place_can_be_printed() -> None:
    """Whatever a file is called, its name neither breaks a terminal nor an encoding."""
    text = place("a\x1b[31m\udcff\n.yaml", 3)
    assert text == "a\\x1b[31m\\udcff\\n.yaml:3"
    assert NoInstancesError(text).message.encode()
