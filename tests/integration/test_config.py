"""Configuration of services on a real server: typed, checked before it is stored, pushed, and never half taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh import ConfigError, Context, Mesh, Service
from nats_mesh.config.store import ConfigStore
from nats_mesh.policy.bus.revisions import ConflictError
from nats_mesh.serving.instance import Instance
from nats_mesh.wire.kv import KvAbsentError
from tests.harness import Bus, eventually
from tests.rawnats import RawNats

pytestmark = pytest.mark.anyio


class Limits(msgspec.Struct, frozen=True):
    """Settings with a default each."""

    rows: int = 10
    mode: str = "plain"

    def __post_init__(self) -> None:
        if self.rows > 1000:
            raise ValueError("rows: more than 1000 do not fit the page")


class Strict(msgspec.Struct, frozen=True):
    """Settings of which one has to be said."""

    dsn: str


def service(config: Any, **options: Any) -> Service:
    """A service that answers with its configuration."""
    made = Service("shop", version="1.0.0", config=config, **options)

    @made.endpoint()
    async def settings(ctx: Context) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(ctx.config)
        return found

    return made


async def store_of(mesh: Mesh) -> ConfigStore:
    """The store, made where it was none."""
    store = ConfigStore(
        mesh.namespace, transport=mesh.client.transport, mux=mesh.client.mux, operator="tests"
    )
    await store.open()
    return store


def follower(instance: Instance) -> Any:
    """What follows the configuration of an instance."""
    assert instance._parts.config is not None
    return instance._parts.config


async def test_a_change_is_pushed_and_a_bad_one_is_not_taken(bus: Bus) -> None:
    """Every instance has the new value at once; what does not fit leaves the last good one, and says so."""
    instances = [await bus.serve(service(Limits)) for _ in range(2)]
    assert await bus.mesh.call("shop.settings") == {"rows": 10, "mode": "plain"}
    store = await store_of(bus.mesh)
    first = await store.write("shop", b'{"rows": 20}', expected=0)
    await eventually(
        lambda: all(follower(each).revision == first for each in instances),
        lambda: [follower(instances[0]).revision],
    )
    for _ in range(10):
        assert await bus.mesh.call("shop.settings") == {"rows": 20, "mode": "plain"}
    bad = await store.write("shop", b'{"rows": "many"}', expected=first)
    await eventually(
        lambda: all(follower(each).rejected for each in instances), lambda: follower(instances[0]).rejected
    )
    assert follower(instances[0]).rejected.startswith("rows: Expected `int`")
    assert await bus.mesh.call("shop.settings") == {"rows": 20, "mode": "plain"}
    last = await store.write("shop", None, expected=bad)
    await eventually(lambda: all(follower(each).revision == last for each in instances), lambda: instances)
    assert await bus.mesh.call("shop.settings") == {"rows": 10, "mode": "plain"}
    history = await store.history("shop")
    assert [each.value for each in history] == [b'{"rows": 20}', b'{"rows": "many"}', None]
    assert {each.operator for each in history} == {"tests"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b'{"row": 1}', "row: is no field here; did you mean rows?"),
        (b'{"rows": 2000}', "rows: more than 1000"),
        (b"[1]", "must be a JSON object"),
        (b"{", "must be a JSON object"),
        (b'{"mode": 1}', "mode: Expected `str`"),
    ],
)
async def test_what_does_not_fit_is_refused_with_the_reason(bus: Bus, value: bytes, says: str) -> None:
    """Unknown names, wrong types, and what the struct itself refuses."""
    instance = await bus.serve(service(Limits))
    with pytest.raises(ConfigError) as caught:
        follower(instance).check(value)
    assert says in str(caught.value)


async def test_a_start_without_what_must_be_said_is_refused(bus: Bus) -> None:
    """Nothing stored, and a field without a default: the instance does not start on a guess."""
    with pytest.raises(ConfigError, match="has no configuration: nothing is stored"):
        await bus.serve(service(Strict))
    store = await store_of(bus.mesh)
    await store.write("shop", b'{"dsn": "db"}', expected=0)
    await bus.serve(service(Strict))
    assert await bus.mesh.call("shop.settings") == {"dsn": "db"}


async def test_a_start_with_the_store_down_uses_what_was_kept(bus: Bus, tmp_path: Path) -> None:
    """The last value that was used is on disk, where a start finds it if the bucket is gone."""
    store = await store_of(bus.mesh)
    await store.write("shop", b'{"dsn": "kept"}', expected=0)
    bus.settings = msgspec.structs.replace(bus.settings, cache_dir=str(tmp_path))
    first = await bus.serve(service(Strict))
    await eventually(lambda: any(tmp_path.glob("config-shop-*")), lambda: list(tmp_path.iterdir()))
    await store._log.api(f"STREAM.DELETE.KV_{store.subjects.config_bucket}", None, timeout_s=5.0)
    with pytest.raises(KvAbsentError):
        await store.history("shop")
    await first.drain()
    await bus.serve(service(Strict))
    assert await bus.mesh.call("shop.settings") == {"dsn": "kept"}


async def test_forged_hints_change_nothing(bus: Bus, raw: RawNats) -> None:
    """What a hint carries is never used, whoever sends it."""
    instance = await bus.serve(service(Limits))
    store = await store_of(bus.mesh)
    first = await store.write("shop", b'{"rows": 30}', expected=0)
    await eventually(lambda: follower(instance).revision == first, lambda: follower(instance).revision)
    for _ in range(200):
        raw.publish(store.subjects.config_hints_of("shop").replace(">", "default"), b'{"rows": 1}')
    await raw.flush()
    assert await bus.mesh.call("shop.settings") == {"rows": 30, "mode": "plain"}


async def test_two_operators_do_not_overwrite_each_other(bus: Bus) -> None:
    """A change says what it replaces."""
    store = await store_of(bus.mesh)
    await store.write("shop", b"{}", expected=0)
    with pytest.raises(ConflictError, match=r"shop\.default: nothing was expected there"):
        await store.write("shop", b'{"rows": 1}', expected=0)


@pytest.mark.parametrize("config", [dict, 3, "Limits"])
def test_what_is_no_struct_is_refused_where_it_is_declared(config: Any) -> None:
    """A mistake in a declaration is an error before the start."""
    with pytest.raises(ConfigError, match=r"config= takes a subclass of msgspec\.Struct"):
        Service("shop", version="1.0.0", config=config)


async def test_what_is_refused_forges_no_line_of_a_log(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """A reason may quote what stands in the store: it is one line all the same, without control characters."""
    instance = await bus.serve(service(Limits))
    store = await store_of(bus.mesh)
    await store.write("shop", b'{"x\\n\\u001b[31mERROR forged": 1}', expected=0)
    await eventually(lambda: follower(instance).rejected)
    said = [record.getMessage() for record in caplog.records if "was not applied" in record.getMessage()]
    assert said
    for text in (*said, follower(instance).rejected):
        assert text.isprintable(), text
        assert "ERROR forged" in text
