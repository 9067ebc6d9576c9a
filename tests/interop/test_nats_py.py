"""nats-py without the mesh: its own micro services are called, and its plain requests are answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import msgspec
import nats
import nats.micro
import pytest
from nats.aio.client import Client
from nats.micro.request import Request, ServiceError

from nats_mesh import CallError, RemoteError, Status
from tests.harness import PATIENCE_S, Bus, flushed
from tests.interop.services import Order, Receipt, shop
from tests.unit import services_api_schemas as schemas

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    """A connection of nats-py's own, with its default inbox."""
    client = await nats.connect(bus.url)
    yield client
    await client.close()


def _name(bus: Bus, kind: str) -> str:
    return f"{kind}-{bus.namespace[-12:]}"


async def _micro(client: Client, bus: Bus) -> Any:
    service = await nats.micro.add_service(client, name=_name(bus, "micro"), version="3.0.0")
    group = service.add_group(name=bus.namespace)

    async def echo(request: Request) -> None:
        await request.respond(request.data, headers={"x-from": "micro"})

    async def fail(request: Request) -> None:
        asked = json.loads(request.data)
        await request.respond_error(str(asked["code"]), asked["text"], data=b"{}")

    async def broken(request: Request) -> None:
        raise ServiceError("409", "raised in nats.micro")

    for handler in (echo, fail, broken):
        await group.add_endpoint(name=handler.__name__, handler=handler)
    await flushed(client)
    return service


async def test_the_mesh_calls_a_micro_service(bus: Bus, client: Client) -> None:
    """A nats.micro service is called by its name and by its subject, typed."""
    service = await _micro(client, bus)
    for target in (f"{_name(bus, 'micro')}.echo", f"nats://{bus.namespace}.echo"):
        reply = await bus.mesh.request(target, Order("b-17", 2), returns=Order)
        assert (reply.value, reply.headers["x-from"]) == (Order("b-17", 2), "micro")
        assert await bus.mesh.call(target, b"\xff", returns=bytes) == b"\xff"
    await service.stop()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (400, Status.INVALID_ARGUMENT),
        (404, Status.NOT_FOUND),
        (500, Status.INTERNAL),
        (503, Status.UNAVAILABLE),
    ],
)
async def test_errors_of_a_micro_service(bus: Bus, client: Client, code: int, status: Status) -> None:
    """Its numbers become statuses, its description the message."""
    service = await _micro(client, bus)
    with pytest.raises(CallError, match="not today") as caught:
        await bus.mesh.call(f"{_name(bus, 'micro')}.fail", {"code": code, "text": "not today"})
    assert caught.value.status is status
    await service.stop()


async def test_an_exception_of_a_micro_service(bus: Bus, client: Client) -> None:
    """A ServiceError raised in its handler arrives with its number."""
    service = await _micro(client, bus)
    with pytest.raises(RemoteError, match=r"raised in nats\.micro") as caught:
        await bus.mesh.call(f"{_name(bus, 'micro')}.broken")
    assert caught.value.status is Status.ABORTED
    await service.stop()


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        ("nothing", b"", b"null"),
        ("text", b"", b'"got None"'),
        ("text", b'"hej"', b"\"got 'hej'\""),
        ("raw", b"raw text \xff", b"\xff txet war"),
        ("raw", b"", b""),
        ("place", b'{"sku":"b-17","count":2}', b'{"id":"b-17","total":3.0}'),
    ],
)
@pytest.mark.parametrize("old_style", [False, True])
async def test_plain_requests_are_answered(
    bus: Bus, client: Client, endpoint: str, body: bytes, expected: bytes, old_style: bool
) -> None:
    """Empty bodies, raw text and JSON from a client with an ordinary inbox, in both of its ways to make one."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    subject = f"mesh.{bus.namespace}.rpc.{name}.all.{endpoint}.anonymous"
    reply = await client.request(subject, body, timeout=PATIENCE_S, old_style=old_style)
    assert reply.data == expected
    assert "Nats-Service-Error" not in (reply.headers or {})


async def test_a_plain_request_in_messagepack(bus: Bus, client: Client) -> None:
    """A content type in either spelling is understood, and mirrored in the reply."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    subject = f"mesh.{bus.namespace}.rpc.{name}.all.place.anonymous"
    for field in ("content-type", "Content-Type"):
        reply = await client.request(
            subject,
            msgspec.msgpack.encode(Order("b-17")),
            timeout=PATIENCE_S,
            headers={field: "application/msgpack"},
        )
        assert msgspec.msgpack.decode(reply.data, type=Receipt) == Receipt("b-17", 1.5)
        assert reply.headers is not None
        assert reply.headers["content-type"] == "application/msgpack"


async def test_errors_for_a_plain_client(bus: Bus, client: Client) -> None:
    """The two headers of the Services API are there, on one line each, and the body has the rest."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    subject = f"mesh.{bus.namespace}.rpc.{name}.all.place.anonymous"
    reply = await client.request(subject, b'{"sku":"b-17","count":11}', timeout=PATIENCE_S)
    assert reply.headers is not None
    assert reply.headers["Nats-Service-Error"] == "only ten left X-Forged: 1"
    assert reply.headers["Nats-Service-Error-Code"] == "412"
    assert json.loads(reply.data) == {
        "status": "FAILED_PRECONDITION",
        "message": "only ten left\r\nX-Forged: 1",
        "type": "OutOfStock",
        "details": {"sku": "b-17"},
    }


@pytest.mark.parametrize(
    ("verb", "schema"), [("PING", schemas.PING), ("INFO", schemas.INFO), ("STATS", schemas.STATS)]
)
async def test_the_services_api_of_a_live_instance_is_valid(
    bus: Bus, client: Client, verb: str, schema: dict[str, Any]
) -> None:
    """Asked of all, by name and by id, each document is valid by the published schema, before and after calls."""
    name = _name(bus, "shop")
    instance = await bus.serve(shop(name))
    validator = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
    for _ in range(2):
        for subject in (f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{instance.id}"):
            document = json.loads((await client.request(subject, timeout=PATIENCE_S)).data)
            validator.validate(document)
            assert (document["name"], document["id"]) == (name, instance.id)
        inbox = client.new_inbox()
        everyone = await client.subscribe(inbox)
        await client.publish(f"$SRV.{verb}", reply=inbox)
        async for message in everyone.messages:
            document = json.loads(message.data)
            if document["id"] == instance.id:
                validator.validate(document)
                break
        await everyone.unsubscribe()
        await bus.mesh.call(f"{name}.place", Order("b-17"))
        with pytest.raises(RemoteError):
            await bus.mesh.call(f"{name}.broken")
