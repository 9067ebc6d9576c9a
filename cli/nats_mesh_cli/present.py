"""Whether what was named is there: one rule, one text and one exit code for every command that only reads."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh import Mesh
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import namespace_text, no_endpoint, no_service
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.silence import client_pings, silent_or

__all__ = ["absent", "client_ids", "clients_of", "must_be_there", "nobody_answered", "say_absent"]


async def must_be_there(
    mesh: Mesh,
    options: Options,
    out: Out,
    service: str,
    endpoint: str = "",
    *,
    later: bool = False,
    callers: bool = False,
) -> None:
    """:class:`CliError` with the nearest names where nobody serves ``service``, or it has no such endpoint; nothing
    where neither is named. ``later``: it may still come, so that it is said on stderr and no more.
    ``callers``: a client without endpoints may be meant, too."""
    if not service:
        return
    everything = await fetch(mesh, options, out)
    error = absent(everything, mesh.namespace, service, endpoint)
    if error is None or (callers and service in await clients_of(mesh)):
        return
    here = visible(everything, mesh.namespace)
    if all(info.name != service for info in here):
        error = await silent_or(mesh, here, service, error)
    if not later:
        raise error
    say_absent(out, error)


def absent(
    everything: Sequence[InfoReply], namespace: str, service: str, endpoint: str = ""
) -> CliError | None:
    """What to say where nobody serves ``service`` in ``namespace``, or it has no such endpoint; ``None``: both are
    there."""
    infos = visible(everything, namespace)
    if all(info.name != service for info in infos):
        return no_service(service, everything, namespace)
    return no_endpoint(service, endpoint, infos) if endpoint else None


def say_absent(out: Out, error: CliError) -> None:
    """It is not there now, and may still come."""
    out.note(f"note: {error.message} now; {error.hint}", "warn")


def nobody_answered(service: str, namespace: str, error: CliError) -> CliError:
    """What ends a command that listened to a service which, as ``error`` says, was not there, and heard nobody."""
    text = f"nobody answered to the name {service} in {namespace_text(namespace)}: no call was seen"
    return CliError(text, hint=error.hint, code=FAILED)


async def clients_of(mesh: Mesh) -> frozenset[str]:
    """The pure clients of this namespace that answer the roll call."""
    return frozenset(await client_ids(mesh))


async def client_ids(mesh: Mesh) -> dict[str, set[str]]:
    """The same by their names, with the connections that each has."""
    found: dict[str, set[str]] = {}
    for ping in await client_pings(mesh):
        found.setdefault(ping.name, set()).add(ping.id)
    return found
