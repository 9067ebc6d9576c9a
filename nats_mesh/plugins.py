"""Interceptors that installed packages bring along: entry points of the groups ``nats_mesh.inbound`` and
``nats_mesh.outbound``.

They are loaded once per process, before anything connects, in the order of their names, and run outside of those
that are given in code. ``MESH_PLUGINS=off`` leaves them out. A plug-in that cannot be loaded keeps the service from
starting: one that was to check or to sign every call must not be missing unnoticed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Final, NamedTuple

from nats_mesh.errors import ConfigError
from nats_mesh.model import Interceptor

__all__ = ["INBOUND", "OUTBOUND", "Plugin", "interceptors", "load", "names", "plugins"]

INBOUND: Final = "nats_mesh.inbound"
OUTBOUND: Final = "nats_mesh.outbound"
_REMEDY: Final = "repair or uninstall it, or set MESH_PLUGINS=off"


class Plugin(NamedTuple):
    """An interceptor and who brought it: the entry point's name, and the distribution's where it is known."""

    name: str
    distribution: str
    interceptor: Interceptor


def load(group: str, found: Iterable[EntryPoint]) -> tuple[Plugin, ...]:
    """The plug-ins of a group, ordered by name; :class:`ConfigError` for the first that cannot be one."""
    # One distribution may be found twice, by two entries of the path that hold it.
    points = {(point.name, point.value): point for point in found}
    loaded: list[Plugin] = []
    for name, value in sorted(points):
        distribution = _distribution(points[name, value])
        whose = f"plug-in {name!r} of {group} ({value}{f', from {distribution}' if distribution else ''})"
        if loaded and loaded[-1].name == name:
            raise ConfigError(f"{whose}: another plug-in has this name already; uninstall one of the two")
        loaded.append(Plugin(name, distribution, _interceptor(whose, points[name, value])))
    return tuple(loaded)


def _interceptor(whose: str, point: EntryPoint) -> Interceptor:
    try:
        interceptor: Interceptor = point.load()
    # Whatever the import of somebody's code raises becomes one clear error before the start.
    except Exception as error:
        raise ConfigError(f"{whose} cannot be loaded: {type(error).__name__}: {error}; {_REMEDY}") from error
    if isinstance(interceptor, type):
        raise ConfigError(f"{whose} is a class; name a function 'async def f(request, proceed)' or an object")
    if not callable(interceptor):
        raise ConfigError(
            f"{whose} is a {type(interceptor).__name__} and cannot be called; name a function "
            "'async def f(request, proceed)'"
        )
    return interceptor


def _distribution(point: EntryPoint) -> str:
    distribution = point.dist
    return "" if distribution is None else f"{distribution.name} {distribution.version}"


@functools.cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """What is installed of a group; looked for once per process."""
    return load(group, entry_points(group=group))


def interceptors(group: str, own: Sequence[Interceptor], *, on: bool) -> tuple[Interceptor, ...]:
    """The chain of a group: its plug-ins where they are ``on``, then what the code gives."""
    return (*(each.interceptor for each in plugins(group)), *own) if on else tuple(own)


def names(group: str, *, on: bool) -> tuple[str, ...]:
    """Whose interceptors run, in their order."""
    return tuple(each.name for each in plugins(group)) if on else ()
