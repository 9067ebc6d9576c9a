"""What a caller learns of an error, on every transport: declared errors as themselves, all else nothing but a text."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from nats_mesh import (
    ApplicationError,
    CallError,
    CodecError,
    Context,
    Executed,
    NoInstancesError,
    RemoteError,
    Service,
    Status,
)
from tests.harness import Bus

pytestmark = pytest.mark.anyio

SECRET = "password=hunter2"


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """Declared, with fields of several types."""

    sku: str
    left: int
    wanted: list[int]
    note: str | None = None


class Gone(ApplicationError, status=Status.NOT_FOUND):
    """Declared, without fields."""


class Undeclared(ApplicationError, status="ABORTED"):
    """In no list of raises."""

    why: str


ENDLESS: dict[str, Any] = {}
ENDLESS["itself"] = ENDLESS


class BadText(Exception):
    """An exception that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _shop() -> Service:
    service = Service("shop", version="1.0.0")

    @service.endpoint(raises=(OutOfStock, Gone))
    async def buy(what: str) -> None:
        if what == "gone":
            raise Gone("it is gone")
        if what == "undeclared":
            raise Undeclared(why="because")
        raise OutOfStock("nothing left\r\n☺", sku=what, left=0, wanted=[1, 2])

    return service


async def test_a_declared_error_arrives_as_itself_by_raises(bus: Bus) -> None:
    """A caller that names the class gets it, with every field in its type, its status and its text."""
    await bus.serve(_shop())
    with pytest.raises(OutOfStock) as caught:
        await bus.mesh.call("shop.buy", "b-17", raises=(Gone, OutOfStock))
    error = caught.value
    assert (error.sku, error.left, error.wanted, error.note) == ("b-17", 0, [1, 2], None)
    assert (error.status, error.message) == (Status.FAILED_PRECONDITION, "nothing left\r\n☺")
    assert (error.service, error.endpoint, error.attempts) == ("shop", "buy", 1)
    assert error.executed is Executed.YES


async def test_a_declared_error_arrives_as_itself_by_the_function(bus: Bus) -> None:
    """Who calls by the function need not name the errors: the function declares them."""
    service = _shop()
    await bus.serve(service)
    with pytest.raises(Gone, match="it is gone"):
        await bus.mesh.call(service.endpoints["buy"].handler, "gone")


async def test_without_the_class_the_error_is_remote_with_all_its_data(bus: Bus) -> None:
    """A caller that knows no class gets the same status, text, type name and details."""
    await bus.serve(_shop())
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("shop.buy", "b-17")
    error = caught.value
    assert (error.status, error.type) == (Status.FAILED_PRECONDITION, "OutOfStock")
    assert error.details == {"sku": "b-17", "left": 0, "wanted": [1, 2], "note": None}


async def test_a_class_that_does_not_fit_is_not_forced(bus: Bus) -> None:
    """A class of the same name with other fields is not made up from details that do not fit it."""
    await bus.serve(_shop())
    other = type("OutOfStock", (ApplicationError,), {"__annotations__": {"colour": int}})
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("shop.buy", "b-17", raises=(other,))
    assert type(caught.value) is RemoteError
    assert caught.value.type == "OutOfStock"


async def test_an_application_error_need_not_be_declared_to_travel(bus: Bus) -> None:
    """Status and fields travel in any case; it is the caller who names the class it wants."""
    await bus.serve(_shop())
    with pytest.raises(Undeclared) as caught:
        await bus.mesh.call("shop.buy", "undeclared", raises=Undeclared)
    assert (caught.value.why, caught.value.status) == ("because", Status.ABORTED)


@pytest.mark.parametrize(
    "raised",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        SystemExit(SECRET),
        AssertionError(SECRET),
        TimeoutError(SECRET),
        ExceptionGroup(SECRET, [OSError(SECRET)]),
        CodecError(SECRET),
        StopAsyncIteration(SECRET),
        BadText(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_undeclared_exception_is_internal_and_nothing_more(
    bus: Bus, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller and the statistics learn a fixed text, the log has everything; the instance goes on."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def work(fail: bool) -> str:
        if fail:
            raise raised
        return "fine"

    instance = await bus.serve(service)
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("shop.work", True)
    error = caught.value
    assert (error.status, error.message, error.type, error.details) == (
        Status.INTERNAL, "internal error", "", {},
    )  # fmt: skip
    assert error.executed is Executed.YES
    [record] = [each for each in caplog.records if each.name == "nats_mesh.instance"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "shop.work, called by web, failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is raised
    answers = await bus.mesh.client.directory.ask(f"$SRV.STATS.shop.{instance.id}", timeout_s=5.0)
    [statistics] = [body for _, body in answers]
    assert SECRET.encode() not in statistics
    assert type(raised).__name__ in json.loads(statistics)["endpoints"][0]["last_error"]
    assert await bus.mesh.call("shop.work", False) == "fine"
    await bus.at_rest()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("details no codec takes", ApplicationError("x", status="ABORTED", details={"a": object()})),
        ("details that are no text", ApplicationError("x", status="ABORTED", details={"a": "\ud800"})),
        ("details that never end", ApplicationError("x", status="ABORTED", details=ENDLESS)),
        ("a message that is no text", CallError(12)),  # type: ignore[arg-type]  # that is the mistake
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_error_that_cannot_be_written_is_answered_all_the_same(
    bus: Bus, what: str, error: CallError, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for a timeout because an error's details do not encode: it is INTERNAL, and logged."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def work() -> None:
        raise error

    await bus.serve(service)
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("shop.work", timeout=10.0)
    assert (caught.value.status, caught.value.message) == (Status.INTERNAL, "internal error")
    assert "shop.work, called by web, failed" in caplog.text


async def test_a_message_with_broken_unicode_arrives(bus: Bus) -> None:
    """Half a surrogate pair cannot travel; it is replaced, and the rest of the text and the status stay."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def work() -> None:
        raise ApplicationError("broken \ud83d text", status=Status.ABORTED)

    await bus.serve(service)
    with pytest.raises(RemoteError, match=r"broken \? text") as caught:
        await bus.mesh.call("shop.work")
    assert caught.value.status is Status.ABORTED


async def test_a_value_that_cannot_be_encoded_is_the_handlers_error(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that returns what no codec takes fails as INTERNAL, with the reason in the log."""
    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def work() -> Any:
        return object()

    await bus.serve(service)
    with pytest.raises(RemoteError) as caught:
        await bus.mesh.call("shop.work")
    assert caught.value.status is Status.INTERNAL
    assert "cannot encode object" in caplog.text


async def test_a_nested_failure_is_the_inner_affair_of_the_handler(bus: Bus) -> None:
    """What a handler's own call met is not passed off as its answer: INTERNAL; a declared error it lets through is."""
    back, front = _shop(), Service("front", version="1.0.0")

    @front.endpoint(raises=(OutOfStock,))
    async def declared(ctx: Context) -> None:
        await ctx.call("shop.buy", "b-17", raises=(OutOfStock,))

    @front.endpoint()
    async def undeclared(ctx: Context) -> None:
        await ctx.call("shop.buy", "b-17", raises=(OutOfStock,))

    @front.endpoint()
    async def missing(ctx: Context) -> None:
        await ctx.call("nobody.there")

    await bus.serve(back)
    served = await bus.serve(front)
    with pytest.raises(OutOfStock) as stock:
        await bus.mesh.call("front.declared", raises=(OutOfStock,))
    assert (stock.value.service, stock.value.sku) == ("front", "b-17")
    for endpoint in ("undeclared", "missing"):
        with pytest.raises(RemoteError) as caught:
            await bus.mesh.call(f"front.{endpoint}", raises=(OutOfStock, NoInstancesError))
        assert (caught.value.status, caught.value.message) == (Status.INTERNAL, "internal error")
    told = {each.endpoint: each.last_error for each in served.stats if each.last_error}
    whose = f"(its text is in the log of {served.name})"
    assert told["undeclared"] == f"OutOfStock from shop.buy: FAILED_PRECONDITION {whose}"
    assert told["missing"] == f"NoInstancesError from nobody.there: UNAVAILABLE {whose}"


async def test_time_that_runs_out_in_a_nested_call_is_said_so(bus: Bus) -> None:
    """The caller's own time having run out deeper down is DEADLINE_EXCEEDED, not INTERNAL."""
    back, front = Service("back", version="1.0.0"), Service("front", version="1.0.0")

    @back.endpoint()
    async def sleep() -> None:
        await asyncio.sleep(60)

    @front.endpoint()
    async def go(ctx: Context) -> None:
        await ctx.call("back.sleep")

    instance = await bus.serve(front)
    await bus.serve(back)
    with pytest.raises(CallError) as caught:
        await bus.mesh.call("front.go", timeout=0.2)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    await bus.at_rest()
    [series] = [series for series in instance.stats if series.side == "in"]
    assert set(series.by_status) <= {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_a_reply_that_does_not_fit_names_the_call_and_the_field(bus: Bus) -> None:
    """A caller that expects another type learns which call, which field and what was wrong."""

    class Receipt(msgspec.Struct):
        id: str

    service = Service("shop", version="1.0.0")

    @service.endpoint()
    async def work() -> dict[str, int]:
        return {"id": 7}

    await bus.serve(service)
    with pytest.raises(CodecError, match=r"(?s)shop\.work.*Receipt.*\$\.id") as caught:
        await bus.mesh.call("shop.work", returns=Receipt)
    assert "expected" in str(caught.value).lower()
