"""Mistakes that people make with interceptors, options, handlers and policies: each is named, and says what to do."""

from __future__ import annotations

import logging
import time
from typing import Any

import anyio
import pytest

from nats_mesh import ConfigError, Mesh, Next, Reply, Request, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.serving import dispatch as dispatch_module
from nats_mesh.testing import MemoryMesh, run_virtual


def shop(**options: Any) -> Service:
    """One endpoint that answers, one that blocks."""
    made = Service("shop", version="1.0.0", **options)

    @made.endpoint()
    async def get() -> int:
        return 1

    @made.endpoint()
    async def block() -> int:
        time.sleep(0.02)  # noqa: ASYNC251 - that is the mistake
        return 2

    @made.endpoint()
    async def wait() -> int:
        await anyio.sleep(5.0)
        return 3

    return made


async def forgetful(request: Request, proceed: Next) -> Reply[Any]:
    """Forgets to return."""
    await proceed(request)
    return None  # type: ignore[return-value]  # that is the mistake


@pytest.mark.parametrize("wrong", [lambda request: None, lambda: None, lambda a, b, c: None])
def test_an_interceptor_that_cannot_take_its_arguments_is_refused_where_it_is_given(wrong: Any) -> None:
    """With its name and what it takes, for callers and services alike."""
    said = r"interceptor .*lambda.* cannot take \(request, proceed\)"
    with pytest.raises(ConfigError, match=said):
        Mesh("web", interceptors=(wrong,))
    with pytest.raises(ConfigError, match=said):
        shop(interceptors=(wrong,))


@pytest.mark.parametrize("right", [lambda *args: None, print, forgetful])
def test_an_interceptor_that_takes_two_arguments_somehow_is_taken(right: Any) -> None:
    """Whatever it is."""
    Mesh("web", interceptors=(right,))


def test_an_interceptor_that_returns_no_reply_is_named() -> None:
    """At the caller as an error of its own; at the instance in its log, while the caller hears of an internal error."""

    async def work() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("web", interceptors=(forgetful,)) as caller:
            with pytest.raises(ConfigError, match=r"interceptor forgetful must return a Reply.*got NoneType"):
                await caller.call("shop.get")

    run_virtual(work)


def test_an_unknown_option_is_named_with_those_that_there_are() -> None:
    """And with no private name."""
    misspelt: Any = {"timout": 1}

    async def work() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("web") as caller:
            with pytest.raises(ConfigError, match="no option 'timout'; there are: returns, timeout, headers"):
                await caller.call("shop.get", **misspelt)
            with pytest.raises(ConfigError, match="no option 'timout'"):
                await caller.request("shop.get", **misspelt)

    run_virtual(work)


def test_a_handler_that_holds_up_everybody_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that waits for long holds up nobody, and is not."""
    monkeypatch.setattr(dispatch_module, "_BLOCKED_S", 0.01)

    async def work() -> None:
        async with MemoryMesh(shop()) as mesh, mesh.client("web") as caller:
            await caller.call("shop.get")
            assert "held up" not in caplog.text
            await caller.call("shop.block")

    with caplog.at_level(logging.WARNING, "nats_mesh.instance"):
        anyio.run(work)
    assert "shop.block held up the event loop for" in caplog.text


def test_policies_that_name_no_endpoint_of_the_service_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """By the service itself, which alone knows all of its endpoints."""
    text = (
        "apiVersion: mesh/v1\nkind: Limit\nmetadata: {name: a}\n"
        "spec: {target: {service: shop, endpoints: [get, gte]}, concurrency: {limit: 2}}\n"
    )

    async def work() -> None:
        async with MemoryMesh(shop(policies=PolicySet.of(parse(text)))):
            pass

    with caplog.at_level(logging.WARNING, "nats_mesh.instance"):
        run_virtual(work)
    assert "shop: policies name an endpoint 'gte', which it has not" in caplog.text
    assert "'get'" not in caplog.text
