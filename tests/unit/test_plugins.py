"""Interceptors of installed packages: found in order, or refused before anything starts."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from nats_mesh import ConfigError, Next, Reply, Request
from nats_mesh.plugins import INBOUND, load
from nats_mesh.settings import Settings


async def first(request: Request, proceed: Next) -> Reply[Any]:
    """An interceptor."""
    return await proceed(request)


class Checker:
    """One with state."""

    async def __call__(self, request: Request, proceed: Next) -> Reply[Any]:
        """Intercept."""
        return await proceed(request)


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    """A module that an installed package could have."""
    found = types.ModuleType("plugged_in")
    found.first, found.second, found.Checker, found.number = first, Checker(), Checker, 7  # type: ignore[attr-defined]  # it is a module made here
    sys.modules[found.__name__] = found
    yield
    del sys.modules[found.__name__]


def point(name: str, value: str) -> EntryPoint:
    """An entry point as an installed distribution declares it."""
    return EntryPoint(name=name, value=value, group=INBOUND)


def test_plugins_come_in_the_order_of_their_names() -> None:
    """However the packages were found; functions and objects that can be called."""
    points = [point("b", "plugged_in:first"), point("a", "plugged_in:second"), point("c", "plugged_in:first")]
    for order in (points, points[::-1]):
        loaded = load(INBOUND, order)
        assert [each.name for each in loaded] == ["a", "b", "c"]
        assert loaded[1].interceptor is first


def test_one_that_is_found_twice_runs_once() -> None:
    """An editable install and a path that lists it again declare the same thing."""
    assert len(load(INBOUND, [point("a", "plugged_in:first")] * 2)) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("plugged_in:missing", "cannot be loaded: AttributeError.*MESH_PLUGINS=off"),
        ("nowhere_to_be_found:x", "cannot be loaded: ModuleNotFoundError"),
        ("plugged_in:number", "is a int and cannot be called"),
        ("plugged_in:Checker", "is a class"),
    ],
)
def test_one_that_cannot_run_is_named_before_the_start(value: str, said: str) -> None:
    """Which plug-in, of which group, what is wrong, and how to go on without it."""
    with pytest.raises(ConfigError, match=rf"plug-in 'broken' of nats_mesh\.inbound \({value}\).*{said}"):
        load(INBOUND, [point("a", "plugged_in:first"), point("broken", value)])


def test_two_of_one_name_have_no_order() -> None:
    """Which of them runs first would be chance."""
    with pytest.raises(ConfigError, match="another plug-in has this name already"):
        load(INBOUND, [point("a", "plugged_in:first"), point("a", "plugged_in:second")])


@pytest.mark.parametrize(("value", "on"), [(None, True), ("on", True), ("off", False), ("OFF", False)])
def test_they_run_unless_they_are_switched_off(value: str | None, on: bool) -> None:
    """From the environment alone: settings that a test makes have none."""
    env = {} if value is None else {"MESH_PLUGINS": value}
    assert Settings.resolve(env=env).plugins is on
    assert Settings().plugins is False


def test_a_switch_has_two_positions() -> None:
    """A typing mistake does not switch a check off, or on."""
    with pytest.raises(ConfigError, match="MESH_PLUGINS is 'no'; use on or off"):
        Settings.resolve(env={"MESH_PLUGINS": "no"})
