"""JetStream in another domain than the server's own: a member at a leaf node follows what is kept at the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from nats_mesh import Context, Mesh, Service
from nats_mesh.config.store import ConfigStore
from nats_mesh.errors import ConfigError
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from nats_mesh.testing._loopback import PortReservation
from nats_mesh.wire.kv_log import KvLog
from tests.harness import eventually
from tests.stored import destination, operator

pytestmark = pytest.mark.anyio


class Limits(msgspec.Struct, frozen=True):
    """Settings of a service."""

    rows: int = 10


@pytest.fixture(params=["", "leaf"], ids=["without JetStream", "with its own"])
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[NatsServer, NatsServer]]:
    """A hub with the domain ``hub``, and a leaf node of it, without JetStream or with a domain of its own."""
    reserved = PortReservation("127.0.0.1")
    port = reserved.port
    hub_config = f"jetstream {{ domain: hub }}\nleafnodes {{ listen: 127.0.0.1:{port} }}\n"
    leaf_config = f'leafnodes {{ remotes: [{{ url: "nats://127.0.0.1:{port}" }}] }}\n'
    if request.param:
        leaf_config += "jetstream { domain: leaf }\n"
    with (
        closing(reserved),
        NatsServer(config=hub_config) as hub,
        NatsServer(config=leaf_config, jetstream=bool(request.param)) as leaf,
    ):
        yield hub, leaf


async def test_a_leaf_follows_the_hubs_stores(servers: tuple[NatsServer, NatsServer]) -> None:
    """Policies and a configuration that an operator at the leaf stores are kept at the hub, and instances at the leaf
    follow them; whoever is connected to the hub finds them there without a domain."""
    hub, leaf = servers
    made = Service("shop", version="1.0.0", config=Limits)

    @made.endpoint()
    async def rows(ctx: Context) -> int:
        found: int = ctx.config.rows
        return found

    settings = Settings(servers=(leaf.url,), namespace="default", js_domain="hub")
    async with Mesh("ops", settings=settings, policies=False) as ops:
        client = ops.client
        await eventually_there(ops)
        config = ConfigStore("default", transport=client.transport, mux=client.mux, operator="ops")
        await config.open()
        revision = await config.write("shop", b'{"rows": 20}', expected=0)
        async with operator(hub.url, "default") as at_hub:
            await at_hub.put(destination("shop", "7s"))
            async with Instance(made, settings=settings) as instance:
                follower: Any = instance._follower
                assert await ops.call("shop.rows", returns=int) == 20
                assert follower.standing.source == "bus"
                assert follower.current.outbound("shop", "rows", "web").timeout_s == 7.0
                await at_hub.put(destination("shop", "8s"))
                await eventually(
                    lambda: follower.current.outbound("shop", "rows", "web").timeout_s == 8.0,
                    lambda: follower.standing,
                )
                await config.write("shop", b'{"rows": 30}', expected=revision)
                await eventually(
                    lambda: instance._parts.config.value.rows == 30,  # type: ignore[union-attr] # it declares one
                    lambda: instance._parts.config,
                )
            history = await ConfigStore(
                "default", transport=at_hub.mesh.client.transport, mux=at_hub.mesh.client.mux, operator="x"
            ).history("shop")
            assert [each.value for each in history] == [b'{"rows": 20}', b'{"rows": 30}']
        async with Mesh("other", settings=Settings(servers=(leaf.url,), js_domain="nowhere")) as lost:
            assert lost._follower is not None
            assert lost._follower.standing.revision == (0, 0)


async def eventually_there(mesh: Mesh) -> None:
    """The leaf has found its hub, and the hub's JetStream answers."""
    client = mesh.client
    log = KvLog("none", transport=client.transport, mux=client.mux)
    for attempt in range(50):
        try:
            await log.api("INFO", None, timeout_s=0.2)
        except Exception:
            if attempt == 49:
                raise
        else:
            return


def test_a_domain_is_one_token() -> None:
    """It becomes part of subjects: what could widen or split one is refused, with the name of the setting."""
    assert Settings.resolve(servers="a:1", env={"MESH_JS_DOMAIN": "hub"}).js_domain == "hub"
    assert Settings.resolve(servers="a:1", env={}).options("x").jetstream_domain == ""
    for name in ("a.b", "*", ">", "a b"):
        with pytest.raises(ConfigError, match="MESH_JS_DOMAIN"):
            Settings.resolve(servers="a:1", env={"MESH_JS_DOMAIN": name})
