"""A service under attack, for the tests of bad input."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec

from nats_mesh import Context, Service
from nats_mesh.serving.instance import Instance
from tests.harness import Bus
from tests.rawnats import RawMessage, RawNats

__all__ = ["Order", "Victim", "by_mesh", "rpc", "settled", "victim_on"]


class Order(msgspec.Struct):
    """A value."""

    sku: str
    count: int = 1


class Victim:
    """A service under attack, and what its handlers were given."""

    def __init__(self, instance: Instance, seen: list[Any]) -> None:
        self.instance = instance
        self.seen = seen

    @property
    def dropped(self) -> dict[str, int]:
        """What was not believed, by reason."""
        return dict(self.instance.dispatcher.dropped)


async def victim_on(bus: Bus, **options: Any) -> Victim:
    """Start the service on ``bus``; the options are those of :meth:`Bus.serve`."""
    seen: list[Any] = []
    service = Service("victim", version="1.0.0")

    @service.endpoint(subject=f"{bus.namespace}.plain")
    async def place(order: Order) -> str:
        seen.append(order)
        return order.sku

    @service.endpoint()
    async def anything(value: Any, ctx: Context) -> None:
        seen.append(value)
        ctx.reply_headers["x-seen"] = [f"{name}" for name in ctx.headers if name.startswith("x")]

    @service.endpoint()
    async def wait(ctx: Context) -> None:
        seen.append(ctx.caller)
        await anyio.sleep_forever()

    @service.endpoint()
    async def still_there() -> bool:
        return True

    return Victim(await bus.serve(service, **options), seen)


def rpc(bus: Bus, endpoint: str, caller: str = "anonymous") -> str:
    """The subject of one of its endpoints."""
    return f"mesh.{bus.namespace}.rpc.victim.all.{endpoint}.{caller}"


async def settled(bus: Bus, raw: RawNats) -> None:
    """Return when what ``raw`` sent has been handled by every instance."""
    await raw.flush()
    for instance in bus.instances:
        await instance.transport.fence()


#: Where everybody looks for policies, when it starts and now and then.
POLICIES = "$JS.API.DIRECT.GET.KV_mesh_policy_"


def by_mesh(tap: RawNats, bus: Bus, *, answers: bool = False) -> list[RawMessage]:
    """What passed that neither presence and its record, looks for policies nor $SRV (and its answers, unless they
    count) explain."""
    quiet = ("$SRV.", f"mesh.{bus.namespace}.presence.", f"mesh.{bus.namespace}.audit.presence.", POLICIES)
    return [
        message
        for message in tap.messages
        if not message.subject.startswith(quiet) and (answers or b'"io.nats.micro.v1.' not in message.payload)
    ]
