"""FastStream over NATS, as its users write it: a typed subscriber, called by ``broker.request``."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.echo import TIMEOUT_S, Echo, Prepare

__all__ = ["connect", "serve"]


def _broker(address: str) -> Any:
    # Its access log is off: logging a line a message is not what is compared.
    return importlib.import_module("faststream.nats").NatsBroker(address, logger=None)


def _model() -> Any:
    pydantic = importlib.import_module("pydantic")
    return pydantic.create_model("Text", text=(str, ...))


@asynccontextmanager
async def serve(address: str, variant: str) -> AsyncIterator[str]:
    """Answer on ``bench.faststream``; there is one variant."""
    broker, kind = _broker(address), _model()

    async def echo(value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": kind, "return": kind}
    # Without it one message is handled at a time.
    broker.subscriber("bench.faststream", queue="q", max_workers=256)(echo)
    await broker.start()
    try:
        yield address
    finally:
        await broker.stop()


@asynccontextmanager
async def connect(address: str, variant: str) -> AsyncIterator[Prepare]:
    """Call with a model, whose JSON has the size that is asked for."""
    broker, kind = _broker(address), _model()
    await broker.start()

    def prepare(size: int) -> Echo:
        value = kind(text="x" * max(0, size - len('{"text":""}')))
        return Echo(
            lambda: broker.request(value, "bench.faststream", timeout=TIMEOUT_S),
            lambda message: kind.model_validate_json(message.body),
            value,
        )

    try:
        yield prepare
    finally:
        await broker.stop()
