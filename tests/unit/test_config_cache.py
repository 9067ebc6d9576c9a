"""The last configuration on disk: what comes back, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nats_mesh.config.cache import ConfigCache
from nats_mesh.policy.bus.disk import CacheError


def cache(folder: Path, *identity: str) -> ConfigCache:
    """That of a service ``shop``."""
    return ConfigCache(str(folder), "shop", identity or ("default", "nats://one"))


def test_what_was_kept_comes_back_and_the_last_value_wins(tmp_path: Path) -> None:
    """One file for each store; another store's value is not this one's."""
    kept = cache(tmp_path / "new")
    assert kept.load() is None
    kept.save(b'{"rows": 1}')
    kept.save(b'{"rows": 2}')
    assert cache(tmp_path / "new").load() == b'{"rows": 2}'
    assert cache(tmp_path / "new", "default", "nats://other").load() is None
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_nothing_is_kept_of_a_deleted_configuration(tmp_path: Path) -> None:
    """A start without the store then begins with the defaults, as one with it would."""
    kept = cache(tmp_path)
    kept.save(b"{}")
    kept.save(None)
    kept.save(None)
    assert kept.load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b" ", lambda data: b"{}"])
def test_what_is_damaged_is_said_and_not_used(tmp_path: Path, change: object) -> None:
    """A value that is not the one that was kept could be anything."""
    assert callable(change)
    kept = cache(tmp_path)
    kept.save(b'{"rows": 1}')
    [file] = tmp_path.iterdir()
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CacheError, match="is damaged"):
        kept.load()


def test_a_pipe_in_its_place_holds_up_nobody(tmp_path: Path) -> None:
    """It is no file of this program's: reading it could wait for ever."""
    kept = cache(tmp_path)
    kept.save(b"{}")
    [file] = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CacheError, match="is not used"):
        kept.load()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """It costs a warning, and no configuration."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        cache(tmp_path / "taken").save(b"{}")


def test_without_a_folder_nothing_is_kept() -> None:
    """As ``MESH_CACHE_DIR=off`` says."""
    kept = ConfigCache("", "shop", ("default",))
    kept.save(b"{}")
    assert kept.load() is None
