"""Configuration of services on a real server: typed, checked before it is stored, pushed, and never half taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from nats_mesh import ConfigError, Configuration, Context, Mesh, Service
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
        (b'{"rows": 1e999}', "rows: Number out of range"),
        (b'{"mode": "\xff"}', "UnicodeDecodeError"),
        (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "must be a JSON object"),
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


class Checked(msgspec.Struct, frozen=True):
    """Settings whose defaults do not hold."""

    dsn: str = ""

    def __post_init__(self) -> None:
        if not self.dsn:
            raise ValueError("dsn: must be said")


async def test_defaults_that_do_not_hold_are_a_reason_and_no_end(bus: Bus) -> None:
    """A start is refused with what the struct says; a deletion leaves the last value, and the next one is taken."""
    with pytest.raises(
        ConfigError, match=r"the defaults of Checked do not hold \(ValueError: dsn: must be said\)"
    ):
        await bus.serve(service(Checked))
    store = await store_of(bus.mesh)
    first = await store.write("shop", b'{"dsn": "one"}', expected=0)
    instance = await bus.serve(service(Checked))
    gone = await store.write("shop", None, expected=first)
    await eventually(lambda: "it was deleted" in follower(instance).rejected)
    assert await bus.mesh.call("shop.settings") == {"dsn": "one"}
    second = await store.write("shop", b'{"dsn": "two"}', expected=gone)
    await eventually(lambda: follower(instance).revision == second)
    assert await bus.mesh.call("shop.settings") == {"dsn": "two"}


async def test_instances_of_two_versions_take_what_they_know(bus: Bus) -> None:
    """A value that only the new version's struct has room for is refused by the old one, which keeps what it had."""
    store = await store_of(bus.mesh)

    class Newer(msgspec.Struct, frozen=True):
        dsn: str
        pool: int = 1

    first = await store.write("shop", b'{"dsn": "db"}', expected=0)
    old, new = await bus.serve(service(Strict)), await bus.serve(service(Newer))
    second = await store.write("shop", b'{"dsn": "db2", "pool": 3}', expected=first)
    await eventually(lambda: follower(new).revision == second and follower(old).rejected)
    assert "pool: is no field here" in follower(old).rejected
    assert (follower(old).value, follower(new).value) == (Strict("db"), Newer("db2", 3))


async def test_a_lifespan_has_the_configuration_and_hears_of_changes(bus: Bus) -> None:
    """It is there before the lifespan begins; then comes each value that holds, of several at once the last, and
    nothing that does not fit; with the instance it ends."""
    heard: list[Any] = []
    began: list[Any] = []
    ended = anyio.Event()
    held = anyio.Event()

    @asynccontextmanager
    async def lifespan(service: Service, config: Configuration[Limits]) -> AsyncIterator[dict[str, int]]:
        began.append((config.value, config.revision))

        async def follow() -> None:
            async for value in config:
                heard.append(value.rows)
                if value.rows == 30:
                    await held.wait()
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            yield {"rows": config.value.rows}

    store = await store_of(bus.mesh)
    first = await store.write("shop", b'{"rows": 20}', expected=0)
    made = service(Limits, lifespan=lifespan)
    async with Instance(made, settings=bus.settings, connector=bus.connector) as instance:
        assert began == [(Limits(rows=20), first)]
        assert instance.dispatcher.state == {"rows": 20}
        last = await store.write("shop", b'{"rows": 30}', expected=first)
        await eventually(lambda: heard == [20, 30], lambda: heard)
        last = await store.write("shop", b'{"rows": "many"}', expected=last)
        await eventually(lambda: follower(instance).rejected != "", lambda: follower(instance).rejected)
        for rows in (40, 50):
            last = await store.write("shop", b'{"rows": %d}' % rows, expected=last)
            came = partial(lambda at: follower(instance).revision == at, last)
            await eventually(came, lambda: follower(instance).revision)
        assert heard == [20, 30]
        held.set()
        await eventually(lambda: heard == [20, 30, 50], lambda: heard)
    assert ended.is_set()


async def test_a_lifespan_does_not_begin_without_what_must_be_said(bus: Bus) -> None:
    """A start without its required configuration is refused before the lifespan opens anything."""
    began: list[str] = []

    @asynccontextmanager
    async def lifespan(service: Service, config: Configuration[Strict]) -> AsyncIterator[None]:
        began.append(config.value.dsn)
        yield

    with pytest.raises(ConfigError, match="shop has no configuration: nothing is stored"):
        await bus.serve(service(Strict, lifespan=lifespan))
    assert began == []


def test_a_lifespan_that_cannot_be_called_is_refused_where_it_is_declared() -> None:
    """One that takes a configuration where the service declares none, one that takes more than there is, and one that
    takes it in a way in which it never comes."""

    @asynccontextmanager
    async def two(service: Service, config: Configuration[Any]) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def three(service: Service, config: Configuration[Any], more: int) -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigError, match=r"takes a configuration \(config\), and the service declares none"):
        Service("shop", version="1.0.0", lifespan=two)

    @asynccontextmanager
    async def named(service: Service, *, config: Configuration[Any]) -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigError, match="this one takes service, config, more"):
        Service("shop", version="1.0.0", lifespan=three, config=Limits)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ConfigError, match="takes config by keyword alone"):
        Service("shop", version="1.0.0", lifespan=named, config=Limits)  # type: ignore[arg-type] # the mistake


async def test_a_lifespan_of_defaults_has_them(bus: Bus) -> None:
    """Where nothing is stored it is the struct's own defaults, of revision 0. A second argument with a default has
    them as well, unless nothing is declared; whatever is not given by its place never."""
    began: list[Any] = []

    @asynccontextmanager
    async def lifespan(service: Service, config: Configuration[Limits]) -> AsyncIterator[None]:
        began.append((config.value, config.revision))
        yield

    @asynccontextmanager
    async def either(service: Service, config: Configuration[Limits] | None = None) -> AsyncIterator[None]:
        began.append(None if config is None else (config.value, config.revision))
        yield

    @asynccontextmanager
    async def named(service: Service, *more: Any, config: str = "its own") -> AsyncIterator[None]:
        began.append((more, config))
        yield

    await bus.serve(service(Limits, lifespan=lifespan))
    await bus.serve(service(Limits, lifespan=either))
    await bus.serve(service(Limits, lifespan=named))
    await bus.serve(service(None, lifespan=either))
    assert began == [(Limits(), 0), (Limits(), 0), ((), "its own"), None]
