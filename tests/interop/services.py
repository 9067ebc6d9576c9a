"""The mesh service that foreign clients find and call in these tests."""

from __future__ import annotations

from typing import Any

import msgspec

from nats_mesh import ApplicationError, Context, Service

__all__ = ["Order", "OutOfStock", "Receipt", "shop"]


class Order(msgspec.Struct):
    """A value."""

    sku: str
    count: int = 1


class Receipt(msgspec.Struct):
    """An answer."""

    id: str
    total: float


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """A declared error."""

    sku: str


def shop(name: str) -> Service:
    """A service with an endpoint for everything a foreign client may meet."""
    service = Service(name, version="1.2.0", labels={"zone": "eu-1"}, description="a shop ☺")

    @service.endpoint(timeout=2.0, idempotent=True, concurrency=64, raises=OutOfStock)
    async def place(order: Order) -> Receipt:
        """Place an order."""
        if order.count > 10:
            raise OutOfStock("only ten left\r\nX-Forged: 1", sku=order.sku)
        return Receipt(order.sku, order.count * 1.5)

    @service.endpoint()
    async def nothing() -> None:
        return None

    @service.endpoint()
    async def raw(body: bytes) -> bytes:
        return body[::-1]

    @service.endpoint()
    async def text(value: str | None = None) -> str:
        return f"got {value!r}"

    @service.endpoint()
    async def who(ctx: Context) -> dict[str, Any]:
        ctx.reply_headers["x-b"] = ["1", "2"]
        headers = {name: ctx.headers.get_all(name) for name in ctx.headers}
        return {"caller": ctx.caller, "headers": headers, "left": ctx.remaining()}

    @service.endpoint()
    async def broken() -> None:
        raise ValueError("password=hunter2")

    return service
