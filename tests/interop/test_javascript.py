"""JavaScript's own NATS Services library and the mesh: each discovers the other, and calls it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from nats_mesh import CallError, Executed, NoInstancesError, RemoteError, Status
from tests.harness import Bus, eventually
from tests.interop.conftest import JsPeer
from tests.interop.services import Order, shop
from tests.unit import services_api_schemas as schemas

pytestmark = pytest.mark.anyio


class Seen(msgspec.Struct):
    """What the JavaScript service saw of a request."""

    subject: str
    reply: str
    body: str
    fields: dict[str, list[str]]


def _name(bus: Bus, kind: str) -> str:
    """A service name that no other test's service has: $SRV knows no namespaces."""
    return f"{kind}-{bus.namespace[-12:]}"


# -- JavaScript calls the mesh ------------------------------------------------------------------------


async def test_javascript_discovers_a_mesh_service(bus: Bus, js: JsPeer) -> None:
    """PING, INFO and STATS reach every instance by name and one by id, and their documents are valid."""
    name = _name(bus, "shop")
    instances = [await bus.serve(shop(name)) for _ in range(2)]
    ids = {instance.id for instance in instances}
    await bus.mesh.call(f"{name}.place", Order("b-17"))
    with pytest.raises(RemoteError):
        await bus.mesh.call(f"{name}.broken")
    found = await js.ask("discover", name=name)
    for what, schema in (("pings", schemas.PING), ("infos", schemas.INFO), ("stats", schemas.STATS)):
        assert {document["id"] for document in found[what]} == ids
        for document in found[what]:
            jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)
            assert (document["name"], document["version"]) == (name, "1.2.0")
            assert document["metadata"]["mesh.namespace"] == bus.namespace
            assert document["metadata"]["mesh.wire"] == "1"
            assert document["metadata"]["zone"] == "eu-1"
    totals: dict[str, tuple[int, int]] = {}
    for document in found["stats"]:
        for endpoint in document["endpoints"]:
            requests, errors = totals.get(endpoint["name"], (0, 0))
            totals[endpoint["name"]] = (requests + endpoint["num_requests"], errors + endpoint["num_errors"])
    assert (totals["place"], totals["broken"], totals["raw"]) == ((1, 0), (1, 1), (0, 0))
    assert "hunter2" not in json.dumps(found)
    only = await js.ask("discover", name=name, id=instances[0].id)
    for what in ("pings", "infos", "stats"):
        assert [document["id"] for document in only[what]] == [instances[0].id]


async def test_javascript_learns_what_an_endpoint_takes(bus: Bus, js: JsPeer) -> None:
    """INFO says where to send, which types go in and out, how long it may take and that it may be repeated."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    [info] = (await js.ask("discover", name=name))["infos"]
    assert info["description"] == "a shop ☺"
    [place] = [endpoint for endpoint in info["endpoints"] if endpoint["name"] == "place"]
    assert place["subject"] == f"mesh.{bus.namespace}.rpc.{name}.all.place.anonymous"
    assert place["queue_group"] == "q"
    metadata = place["metadata"]
    assert metadata["mesh.subject"] == f"mesh.{bus.namespace}.rpc.{name}.all.place.{{caller}}"
    assert (metadata["mesh.timeout_ms"], metadata["mesh.idempotent"]) == ("2000", "true")
    request, response = (json.loads(metadata[f"mesh.schema.{which}"]) for which in ("request", "response"))
    jsonschema.validate({"sku": "b-17"}, request)
    jsonschema.validate({"id": "b-17", "total": 1.5}, response)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"count": 1}, request)


async def _call(js: JsPeer, bus: Bus, name: str, endpoint: str, body: str = "", **fields: list[str]) -> Any:
    """A call by what INFO advertises, as a foreign client makes it."""
    [info] = await js.ask("info", name=name)
    [subject] = [each["subject"] for each in info["endpoints"] if each["name"] == endpoint]
    return await js.ask("request", subject=subject, body=body, fields=fields)


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        ("place", '{"sku":"b-17","count":2}', '{"id":"b-17","total":3.0}'),
        ("nothing", "", "null"),
        ("nothing", "{}", "null"),
        ("raw", "abc ", " cba"),
        ("text", "", '"got None"'),
        ("text", '"hej ☺"', "\"got 'hej ☺'\""),
    ],
)
async def test_javascript_calls_a_mesh_service(
    bus: Bus, js: JsPeer, endpoint: str, body: str, expected: str
) -> None:
    """With its own inbox, without a single header of the mesh, a foreign client is answered as anybody."""
    name = _name(bus, "shop")
    instance = await bus.serve(shop(name))
    reply = await _call(js, bus, name, endpoint, body)
    assert (reply["error"], reply["body"]) == (None, expected)
    assert reply["fields"]["Mesh-Instance"] == [instance.id]


async def test_javascript_headers_travel_both_ways(bus: Bus, js: JsPeer) -> None:
    """Headers of a foreign client reach the handler, its reply headers come back; the caller is nobody known."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    reply = await js.ask(
        "request",
        subject=f"mesh.{bus.namespace}.rpc.{name}.all.who.anonymous",
        fields={"x-a": ["1", "2"], "Content-Type": ["application/json"], "Mesh-Timeout-Ms": ["1500"]},
    )
    seen = json.loads(reply["body"])
    assert seen["caller"] == "anonymous"
    assert seen["headers"] == {"x-a": ["1", "2"], "Content-Type": ["application/json"]}
    assert 0 < seen["left"] <= 1.5
    assert reply["fields"]["x-b"] == ["1", "2"]


@pytest.mark.parametrize(
    ("endpoint", "body", "code", "message"),
    [
        ("place", '{"sku":"b-17","count":11}', 412, "only ten left X-Forged: 1"),
        ("place", '{"sku":7}', 400, "place: it does not fit: Expected `str`, got `int` - at `$.sku`"),
        ("place", "", 400, "place: the body is empty"),
        ("nothing", "7", 400, "nothing takes no value, but the request has a body of 1 bytes"),
        ("broken", "", 500, "internal error"),
    ],
)
async def test_javascript_sees_errors_as_its_own(
    bus: Bus, js: JsPeer, endpoint: str, body: str, code: int, message: str
) -> None:
    """An error of the mesh is a ServiceError in JavaScript: a number it knows and one clean line."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    reply = await _call(js, bus, name, endpoint, body)
    assert reply["error"] == {"code": code, "message": message}
    assert "X-Forged" not in reply["fields"]
    assert json.loads(reply["body"])["status"] == reply["fields"]["Mesh-Status"][0]


async def test_javascript_hears_of_an_unknown_endpoint(bus: Bus, js: JsPeer) -> None:
    """An endpoint that does not exist is 501 at once."""
    name = _name(bus, "shop")
    await bus.serve(shop(name))
    reply = await js.ask("request", subject=f"mesh.{bus.namespace}.rpc.{name}.all.missing.anonymous")
    assert reply["error"]["code"] == 501


# -- the mesh calls JavaScript ------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "subject"])
async def test_the_mesh_calls_javascript(bus: Bus, js: JsPeer, by: str) -> None:
    """By the service's name, found through $SRV, or by its plain subject: typed values and headers both ways."""
    name, prefix = _name(bus, "jsservice"), bus.namespace
    await js.ask("serve", name=name, prefix=prefix)
    where = f"{name}." if by == "name" else f"nats://{prefix}."
    assert await bus.mesh.call(f"{where}echo", Order("b-17", 2), returns=Order) == Order("b-17", 2)
    assert await bus.mesh.call(f"{where}echo", {"a": [1, None, "☺"]}) == {"a": [1, None, "☺"]}
    assert await bus.mesh.call(f"{where}echo", b"\x00\xff", returns=bytes) == b"\x00\xff"
    assert await bus.mesh.call(f"{where}echo") is None
    reply = await bus.mesh.request(f"{where}seen", "hej", headers={"x-a": ["1", "2"]}, returns=Seen)
    assert reply.value.subject == f"{prefix}.seen"
    assert reply.value.body == '"hej"'
    assert reply.value.fields["x-a"] == ["1", "2"]
    assert reply.value.reply.startswith("_INBOX.web.")
    assert reply.headers.get_all("x-from") == ["js", "twice"]
    assert reply.instance == ""


@pytest.mark.parametrize("by", ["name", "subject"])
@pytest.mark.parametrize(
    ("code", "status", "executed"),
    [
        (400, Status.INVALID_ARGUMENT, Executed.YES),
        (401, Status.UNAUTHENTICATED, Executed.YES),
        (404, Status.NOT_FOUND, Executed.YES),
        (409, Status.ABORTED, Executed.YES),
        (429, Status.RESOURCE_EXHAUSTED, Executed.YES),
        (500, Status.INTERNAL, Executed.YES),
        (503, Status.UNAVAILABLE, Executed.MAYBE),
        (504, Status.DEADLINE_EXCEEDED, Executed.YES),
        (418, Status.UNKNOWN, Executed.YES),
    ],
)
async def test_errors_of_javascript_have_statuses(
    bus: Bus, js: JsPeer, by: str, code: int, status: Status, executed: Executed
) -> None:
    """respondError's number becomes a status by the table, its text the message."""
    name, prefix = _name(bus, "jsservice"), bus.namespace
    await js.ask("serve", name=name, prefix=prefix)
    target = f"{name}.fail" if by == "name" else f"nats://{prefix}.fail"
    with pytest.raises(CallError) as caught:
        await bus.mesh.call(target, {"code": code, "text": "no such thing ☺"})
    error = caught.value
    assert (error.status, error.executed) == (status, executed)
    assert error.message == "no such thing ☺"
    assert (error.refused, error.attempts) == (None, 1)


async def test_what_javascript_throws_is_internal(bus: Bus, js: JsPeer) -> None:
    """An exception in a JavaScript handler is its 500; both sides count it."""
    name = _name(bus, "jsservice")
    await js.ask("serve", name=name, prefix=bus.namespace)
    with pytest.raises(RemoteError, match="thrown in JavaScript") as caught:
        await bus.mesh.call(f"{name}.throw")
    assert caught.value.status is Status.INTERNAL
    stats = await js.ask("stats")
    [endpoint] = [each for each in stats["endpoints"] if each["name"] == "throw"]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (1, 1)


async def test_an_endpoint_that_javascript_does_not_have(bus: Bus, js: JsPeer) -> None:
    """The service is there, the endpoint is not: UNIMPLEMENTED with what there is; a pattern is nowhere to send to."""
    name = _name(bus, "jsservice")
    await js.ask("serve", name=name, prefix=bus.namespace)
    for endpoint in ("missing", "pattern"):
        with pytest.raises(RemoteError) as caught:
            await bus.mesh.call(f"{name}.{endpoint}")
        assert (caught.value.status, caught.value.executed) == (Status.UNIMPLEMENTED, Executed.NO)
        assert "echo, fail, seen, throw" in caught.value.message
    assert await bus.mesh.call(f"nats://{bus.namespace}.pattern.x") == f"{bus.namespace}.pattern.x".encode()


async def test_a_javascript_service_that_is_gone(bus: Bus, js: JsPeer) -> None:
    """Nobody there is known at once, before it starts as well."""
    name = _name(bus, "jsservice")
    with pytest.raises(NoInstancesError):
        await bus.mesh.call(f"{name}.echo", timeout=1000.0)
    await js.ask("serve", name=name, prefix=bus.namespace)
    assert await bus.mesh.call(f"{name}.echo", 7) == 7


async def test_a_mesh_handler_calls_javascript_and_is_called_by_it(bus: Bus, js: JsPeer) -> None:
    """JavaScript → mesh → JavaScript: the trace goes through, and the time left too."""
    name = _name(bus, "jsservice")
    await js.ask("serve", name=name, prefix=bus.namespace)
    relay = _name(bus, "relay")
    from nats_mesh import Context, Service

    service = Service(relay, version="1.0.0")

    @service.endpoint()
    async def go(ctx: Context) -> dict[str, Any]:
        seen: Seen = await ctx.call(f"{name}.seen", returns=Seen)
        return {"fields": seen.fields}

    await bus.serve(service)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = await js.ask(
        "request",
        subject=f"mesh.{bus.namespace}.rpc.{relay}.all.go.anonymous",
        fields={"traceparent": [f"00-{trace}-00f067aa0ba902b7-01"], "Mesh-Timeout-Ms": ["3000"]},
    )
    fields = json.loads(reply["body"])["fields"]
    assert trace in fields["traceparent"][0]
    assert int(fields["Mesh-Timeout-Ms"][0]) < 3000
    await eventually(lambda: not bus.leftovers())
