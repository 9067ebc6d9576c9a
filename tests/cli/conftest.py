"""A small shop that runs as `nats-mesh run` runs it, for everything that looks at it and calls it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nats_mesh.testing import NatsServer
from tests.cli.program import Background, Done, run_cli, run_many

SHOP = """
import asyncio

import msgspec

from nats_mesh import ApplicationError, Context, Service


class Order(msgspec.Struct):
    sku: str
    count: int = 1


class Receipt(msgspec.Struct):
    id: str
    total: float


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    sku: str


orders = Service("orders", version="1.2.0", labels={"zone": "eu-1"}, description="Takes orders")
stock = Service("stock", version="0.3.0")
both = [orders, stock]


@orders.endpoint(timeout=2.0, idempotent=True, concurrency=64, raises=OutOfStock)
async def place(order: Order, ctx: Context) -> Receipt:
    if order.sku == "none":
        raise OutOfStock("nothing left", sku=order.sku)
    return Receipt(ctx.headers.get("tenant", "-"), order.count * 2.5)


@orders.endpoint(timeout=0.2)
async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@orders.endpoint()
async def boom() -> str:
    raise RuntimeError("secret")


@orders.endpoint()
async def echo(value: bytes) -> bytes:
    return value


@stock.endpoint()
async def count(number: int) -> int:
    return -number
"""


class Shop:
    """The shop's server and namespace; runs commands there."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.url = url
        self.namespace = namespace
        self.folder = folder

    @property
    def env(self) -> dict[str, str]:
        """What points a command at it."""
        return {"NATS_URL": self.url, "MESH_NAMESPACE": self.namespace}

    def __call__(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end."""
        return run_cli(*arguments, env={**self.env, **(env or {})}, stdin=stdin)

    def at_once(self, *lines: Sequence[str]) -> list[Done]:
        """Run commands that wait for the mesh beside one another, a process each: their waiting adds up to no more
        than the longest."""
        with ThreadPoolExecutor(len(lines)) as pool:
            return list(pool.map(lambda line: self(*line), lines))

    def many(self, *lines: Sequence[str]) -> list[Done]:
        """Run several commands in one process."""
        return run_many(lines, self.env)

    def background(self, *arguments: str) -> Background:
        """Start a command, in the folder of the shop's module."""
        return Background(arguments, env=self.env, cwd=self.folder)


@pytest.fixture
def place(nats_server: NatsServer, tmp_path: Path) -> Shop:
    """A namespace of its own and a folder with the shop's module; nothing runs yet."""
    (tmp_path / "shopapp.py").write_text(SHOP, encoding="utf-8")
    return Shop(nats_server.url, f"cli-{secrets.token_hex(6)}", tmp_path)


@pytest.fixture(scope="module")
def shop(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Both services running in one process, in a namespace of their own; shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shopapp.py").write_text(SHOP, encoding="utf-8")
    shop = Shop(nats_server.url, f"cli-{secrets.token_hex(6)}", folder)
    with shop.background("run", "shopapp:both") as running:
        running.wait_for("stock 0.3.0 is ready")
        yield shop
