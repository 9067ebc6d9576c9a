"""Plug-ins of an installed distribution: they run around calls, or the process does not start."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh import ConfigError, Mesh, Next, Reply, Request, Service, plugins
from nats_mesh.serving.instance import Instance
from tests.harness import Bus
from tests.rawnats import RawNats
from tests.tools import ROOT

pytestmark = pytest.mark.anyio

MODULE = """
seen = []

async def stamp(request, proceed):
    seen.append(("in", request.service, request.caller))
    reply = await proceed(request)
    seen.append(("out of in", reply.value))
    return reply

async def sign(request, proceed):
    seen.append(("out", request.service, request.caller))
    request.headers["signed-by"] = request.caller
    return await proceed(request)
"""


def install(folder: Path, entry_points: str) -> None:
    """What pip leaves of a distribution: its module and its metadata."""
    (folder / "shop_plugins.py").write_text(MODULE, encoding="utf-8")
    info = folder / "shop_plugins-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop-plugins\nVersion: 2.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


GOOD = "[nats_mesh.inbound]\nstamp = shop_plugins:stamp\n[nats_mesh.outbound]\nsign = shop_plugins:sign\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """A distribution with a plug-in for each side; what they saw."""
    install(tmp_path, GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.plugins.cache_clear()
    yield importlib.import_module("shop_plugins").seen
    sys.modules.pop("shop_plugins")
    plugins.plugins.cache_clear()


def greeter(seen: list[tuple[str, ...]]) -> Service:
    """A service with an interceptor of its own."""

    async def own(request: Request, proceed: Next) -> Reply[Any]:
        seen.append(("own", str(request.headers.get("signed-by"))))
        return await proceed(request)

    service = Service("greeter", version="1.0.0", interceptors=[own])

    @service.endpoint()
    async def hello(name: str) -> str:
        return f"hello {name}"

    return service


async def test_plugins_run_outside_of_what_the_code_gives(
    bus: Bus, raw: RawNats, installed: list[tuple[str, ...]]
) -> None:
    """The caller's around its call, the instance's around the service's own; $SRV.INFO names them."""
    settings = msgspec.structs.replace(bus.settings, plugins=True)
    instance = Instance(greeter(installed), settings=settings, connector=bus.connector)
    async with instance, Mesh("web", settings=settings, connector=bus.connector) as mesh:
        assert await mesh.call("greeter.hello", "ann") == "hello ann"
        info = json.loads((await raw.request(f"$SRV.INFO.greeter.{instance.id}")).payload)
    assert installed == [
        ("out", "greeter", "web"),
        ("in", "greeter", "web"),
        ("own", "web"),
        ("out of in", "hello ann"),
    ]
    assert info["metadata"]["mesh.plugins.inbound"] == "stamp"
    assert info["metadata"]["mesh.plugins.outbound"] == "sign"


async def test_calls_that_a_service_makes_pass_its_plugins(
    bus: Bus, installed: list[tuple[str, ...]]
) -> None:
    """Whatever signs calls signs those made from a handler, too."""
    settings = msgspec.structs.replace(bus.settings, plugins=True)
    front = Service("front", version="1.0.0")

    @front.endpoint()
    async def relay(name: str) -> Any:
        return await instance.client.call("greeter.hello", name)

    instance = Instance(front, settings=settings, connector=bus.connector)
    async with Instance(greeter(installed), settings=bus.settings, connector=bus.connector), instance:
        assert await bus.mesh.call("front.relay", "bob") == "hello bob"
    assert installed == [
        ("in", "front", "web"),
        ("out", "greeter", "front"),
        ("own", "front"),
        ("out of in", "hello bob"),
    ]


async def test_switched_off_they_do_not_run(bus: Bus, installed: list[tuple[str, ...]]) -> None:
    """Not around calls, and nobody is told of them."""
    await bus.serve(greeter(installed))
    assert await bus.mesh.call("greeter.hello", "ann") == "hello ann"
    assert installed == [("own", "None")]


async def test_a_broken_plugin_is_said_before_anything_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bus: Bus
) -> None:
    """For instances and clients: a ConfigError that names it and its distribution."""
    install(tmp_path, GOOD.replace("shop_plugins:", "shop_plugins:missing_"))
    monkeypatch.syspath_prepend(tmp_path)
    plugins.plugins.cache_clear()
    settings = msgspec.structs.replace(bus.settings, plugins=True)

    async def connect(options: Any) -> Any:
        raise AssertionError("it connects")

    said = r"plug-in 's.*' of nats_mesh\..*bound \(shop_plugins:missing_s.*, from shop-plugins 2\.0\) cannot be loaded"
    try:
        with pytest.raises(ConfigError, match=said):
            await Instance(greeter([]), settings=settings, connector=connect).__aenter__()
        with pytest.raises(ConfigError, match=said):
            await Mesh("web", settings=settings, connector=connect).__aenter__()
    finally:
        sys.modules.pop("shop_plugins", None)
        plugins.plugins.cache_clear()


SERVICE = """
import sys
from nats_mesh import MeshError, Service, serve
from nats_mesh.runner import exit_code, run_to_end

service = Service("plugged", version="1.0.0")

@service.endpoint()
async def say() -> str:
    return "hello"

try:
    run_to_end(serve(service, patience_s=0.0))
except MeshError as error:
    sys.stderr.write(f"error: {error}")
    sys.exit(exit_code(error))
"""


@pytest.mark.parametrize(
    ("switch", "code", "said"), [("on", 2, "error: plug-in 'stamp'"), ("off", 3, "127.0.0.1:1")]
)
async def test_a_process_with_a_broken_plugin_does_not_start(
    tmp_path: Path, switch: str, code: int, said: str
) -> None:
    """It ends as with any bad setting; with MESH_PLUGINS=off it gets as far as the bus, which is not there."""
    install(tmp_path, GOOD.replace(":stamp", ":nothing"))
    environ = {
        **os.environ,
        "NATS_URL": "nats://127.0.0.1:1",
        "MESH_PLUGINS": switch,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVICE], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
