"""What it means that no instance of a service answers: whether anybody listens there, by the server's own word.

A server says at once that nobody listens on a subject. It goes on handing messages to a process that hangs or was
stopped: then nothing comes back. So a message to the service tells the two apart, and it need not be a call: a command
for an instance that cannot be is heard by all instances of the service in this namespace, and meant for none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from nats_mesh import CallError, DisconnectedError, Mesh, PermissionDeniedError
from nats_mesh.discovery.services_api import Verb, request_subject
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh_cli.bus import Replies, ask

__all__ = ["AFTER_SILENCE", "MAX_ASKED", "silence_of", "silent_note"]

#: Of how many services it is asked.
MAX_ASKED: Final = 8
#: What to do about a silent instance.
AFTER_SILENCE: Final = "'nats-mesh why' says what becomes of a call; it has to go on, or to be restarted"
#: No instance has this id: theirs are made by chance, and longer.
_NO_ID: Final = "none"
#: How long an answer is waited for where commands may not be sent (seconds): everybody was asked just before.
_ASK_S: Final = 1.0


async def silence_of(mesh: Mesh, services: Collection[str]) -> dict[str, Silence]:
    """Of each service of which nobody has answered, what that means; raises :class:`~nats_mesh.DisconnectedError`."""
    found = await asyncio.gather(*(_means(mesh, each) for each in services))
    return dict(zip(services, found, strict=True))


async def silent_note(mesh: Mesh, services: Collection[str]) -> str:
    """A note of those of some services, of which nobody has answered, that have a silent instance all the same; empty
    where there are none. Of more than :data:`MAX_ASKED` the first ones are asked about."""
    means = await silence_of(mesh, sorted(services)[:MAX_ASKED])
    silent = [service for service, what in means.items() if what is Silence.SILENT]
    if not silent:
        return ""
    return (
        f"no instance of {', '.join(silent)} answers, but one is connected: it is silent (hung, or stopped), and calls "
        "to it wait until their time is over"
    )


async def _means(mesh: Mesh, service: str) -> Silence:
    try:
        return await _listened(mesh, service)
    except PermissionDeniedError:
        pass  # only operators may: all others ask where anybody may, though of all namespaces together
    try:
        replies = await ask(mesh, request_subject(Verb.PING, service), timeout_s=_ASK_S)
    except DisconnectedError:
        raise
    except CallError:
        return Silence.UNKNOWN
    if replies.payloads:  # of another namespace, or late: that tells nothing of those that do not answer
        return Silence.UNKNOWN
    return Silence.NOBODY if replies.over.is_set() else Silence.SILENT


async def _listened(mesh: Mesh, service: str) -> Silence:
    """Whether an instance hears commands: the server says that none does before it answers what comes after it."""
    client = mesh.client
    replies = Replies(client.subjects.command(service, _NO_ID, mesh.name))
    inbox = client.mux.open("$SRV", replies)
    try:
        client.transport.publish(replies.subject, b"", inbox)
        await client.transport.fence()
    finally:
        client.mux.close(inbox)
    if replies.error is not None:
        raise replies.error
    return Silence.NOBODY if replies.over.is_set() else Silence.SILENT
