"""Who is silent, for commands that do not ask everybody by themselves: once, or now and then while they go on."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio

from nats_mesh import DisconnectedError, Mesh, PermissionDeniedError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.silence import called_by_clients, silent_among
from nats_mesh_cli.silent import Silent, silent_text

__all__ = ["EVERY_S", "SilentWatch", "look_for_silent"]

#: How often everybody is asked (seconds).
EVERY_S: Final = 10.0


async def look_for_silent(
    mesh: Mesh, options: Options, out: Out, called: Sequence[str] = (), *, services: Sequence[str] = ()
) -> list[Silent]:
    """Ask everybody, and find out who is silent; of ``services`` alone, where some are named. ``called`` are services
    that are known to be called. Nobody is found where this credential may not ask."""
    with suppress(PermissionDeniedError):
        return await _found(mesh, options, out, called, services)
    return []


async def _found(
    mesh: Mesh, options: Options, out: Out, called: Sequence[str], services: Sequence[str]
) -> list[Silent]:
    infos, clients = await asyncio.gather(fetch(mesh, options, out), called_by_clients(mesh))
    found = await silent_among(mesh, infos, [called, services, *clients])
    return [each for each in found if not services or each.service in services]


class SilentWatch:
    """Finds out who is silent (``found``) every :data:`EVERY_S`; ``text`` says it, and is empty where nobody is.

    ``services``: only these count, where there are any. ``told``: whoever is new is said on stderr; else nothing is,
    for those who draw on the whole terminal. A credential that may not ask is not tried again: servers
    log each refusal.
    """

    def __init__(
        self, mesh: Mesh, options: Options, out: Out, services: Sequence[str] = (), *, told: bool = True
    ) -> None:
        self.found: tuple[Silent, ...] = ()
        self._mesh = mesh
        self._options = options
        self._out = out
        self._services = services
        self._told = told
        self._denied = False

    @property
    def text(self) -> str:
        """What is to be said of them."""
        return silent_text(self.found)

    async def look(self, called: Sequence[str] = ()) -> None:
        """Find out who is silent now; as it was while the bus is away."""
        if self._denied:
            return
        out = self._out if self._told else Out(io.StringIO(), io.StringIO())
        try:
            found = await _found(self._mesh, self._options, out, called, self._services)
        except DisconnectedError:
            return
        except PermissionDeniedError as error:
            self._denied = True
            if self._told:
                self._out.note(f"note: who is silent is not known: {error.message}", "warn")
            return
        before, self.found = self.found, tuple(found)
        if not self._told:
            return
        if {each.key for each in found} - {each.key for each in before}:
            self._out.note(f"note: {self.text}", "bad")
        if before and not found:
            self._out.note("note: nobody is silent any more", "ok")

    async def follow(self, called: Callable[[], Sequence[str]] = tuple) -> None:
        """Look again and again, until cancelled; ``called`` says which services are called by then."""
        while True:
            await self.look(called())
            await anyio.sleep(EVERY_S)
