"""A start while the stores do not answer, with whatever stands on disk: it begins, and says what it could not use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh import ConfigError, Context, Service
from nats_mesh.config.cache import ConfigCache
from nats_mesh.core.replica import Record
from nats_mesh.policy.bus.cache import Cached, PolicyCache
from tests.harness import Bus
from tests.stored import destination

pytestmark = pytest.mark.anyio


class Limits(msgspec.Struct, frozen=True):
    """Settings with a default."""

    rows: int = 10


class Strict(msgspec.Struct, frozen=True):
    """Settings that must be said."""

    rows: int


def cut(path: Path) -> None:
    """As after a crash of the disk."""
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    """As after a full disk."""
    path.write_bytes(b"")


def another_version(path: Path) -> None:
    """As a later version may write it."""
    path.write_bytes(path.read_bytes().replace(b"policies 1\n", b"policies 9\n", 1) + b"\n")


def random(path: Path) -> None:
    """Anything at all."""
    path.write_bytes(os.urandom(4096))


def foreign(path: Path) -> None:
    """Of another user; where this one is not root, a file that others may write."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.chmod(0o666)


def open_to_all(path: Path) -> None:
    """Written by whoever likes."""
    path.chmod(0o666)


def linked(path: Path) -> None:
    """A link to a file that is in order."""
    other = path.with_name(f"other-{path.name}")
    path.rename(other)
    path.symlink_to(other)


def folder(path: Path) -> None:
    """No file at all."""
    path.unlink()
    path.mkdir()


def keep(bus: Bus, where: Path) -> tuple[Path, Path]:
    """A folder with policies and a configuration of an earlier run; the two files."""
    bus.settings = settings = msgspec.structs.replace(bus.settings, cache_dir=str(where))
    identity = (*sorted(settings.servers), settings.user or "", settings.credentials or "")
    policies = PolicyCache(str(where), settings.namespace, identity)
    value = destination("shop", "7s")
    record = Record(2, "Destination.shop", value, "2026-01-01T00:00:00Z", "", True, "", len(value))
    policies.save(Cached(1, 2, "2026-01-01T00:00:00Z", (record,)))
    ConfigCache(str(where), "shop", (settings.namespace, *identity)).save(b'{"rows": 77}')
    (config,) = where.glob("config-*")
    return Path(policies.path), config


def service(config: Any) -> Service:
    """A service that answers with its configuration."""
    made = Service("shop", version="1.0.0", config=config)

    @made.endpoint()
    async def rows(ctx: Context) -> int:
        found: int = ctx.config.rows
        return found

    return made


async def test_what_was_kept_serves_a_start_without_stores(bus: Bus, tmp_path: Path) -> None:
    """Policies and configuration of the last run are in effect."""
    keep(bus, tmp_path)
    instance = await bus.serve(service(Strict))
    assert await bus.mesh.call("shop.rows", returns=int) == 77
    assert instance._follower.current.outbound("shop", "rows", "web").timeout_s == 7.0


@pytest.mark.parametrize(
    "change", [cut, empty, another_version, random, foreign, open_to_all, linked, folder]
)
async def test_what_cannot_be_used_is_said_and_nothing_more(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """Damaged, of another version, of somebody else, a link: defaults hold, the log names both files and why, and a
    configuration that has to be said is refused in plain words."""
    for path in keep(bus, tmp_path):
        change(path)
    instance = await bus.serve(service(Limits))
    assert await bus.mesh.call("shop.rows", returns=int) == 10
    assert instance._follower.current.outbound("shop", "rows", "web").timeout_s is None
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert any("no policies from the cache" in each and str(tmp_path) in each for each in warned), warned
    assert any("no configuration from the cache" in each and str(tmp_path) in each for each in warned), warned
    with pytest.raises(ConfigError, match="shop has no configuration"):
        await bus.serve(service(Strict))
