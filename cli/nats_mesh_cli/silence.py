"""Who is connected and answers nothing (it hangs, or was stopped), by the word of others and of the server.

A server says at once that nobody listens on a subject. It goes on handing messages to a process that hangs or was
stopped: then nothing comes back. So a message to an instance, or to a service, tells the two apart, and it need not be
a call: instances are asked whether they are there, and a command for an instance that cannot be is heard by all of a
service in this namespace, and meant for none of them. Whom to ask is known from those who answer: each tells which of
its peers it has not heard for the longest, and which services it calls (:mod:`nats_mesh.discovery.overdue`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from typing import Any, Final, TypeVar

from nats_mesh import CallError, DisconnectedError, Mesh, PermissionDeniedError
from nats_mesh.discovery.overdue import called_in, overdue_in
from nats_mesh.discovery.services_api import InfoReply, PingReply, Verb, parse_ping, request_subject
from nats_mesh.errors import CodecError
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh_cli.bus import QUESTION_S, Replies, ask
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.silent import Silent, Unheard, services_meant, silent_error

__all__ = [
    "MAX_ASKED",
    "called_by_clients",
    "client_pings",
    "silence_of",
    "silent_among",
    "silent_or",
    "unheard",
]

#: Of how many services, and of how many instances, it is asked.
MAX_ASKED: Final = 256
#: No instance has this id: theirs are made by chance, and longer. And no service this name, which is reserved.
_NO_ID: Final = "none"
_NO_SERVICE: Final = "anonymous"
#: How long an answer is waited for where it may still come (seconds): everybody was asked just before.
_ASK_S: Final = 1.0

_T = TypeVar("_T")


async def silent_among(
    mesh: Mesh, infos: Iterable[InfoReply], called: Iterable[Sequence[str]] = ()
) -> Sequence[Silent]:
    """The silent ones of :func:`unheard`."""
    return (await unheard(mesh, infos, called)).silent


async def unheard(mesh: Mesh, infos: Iterable[InfoReply], called: Iterable[Sequence[str]] = ()) -> Unheard:
    """Who does not answer, as far as those in this namespace who answered (``infos``) know of him, or others who say
    which services they have ``called``.

    Of more than :data:`MAX_ASKED` instances or services some are not looked at: of each who tells, the first ones are.
    """
    own = visible(infos, mesh.namespace)
    names = [*called, *(called_in(info.metadata) for info in own)]
    here = {info.name for info in own}
    services = list(islice((each for each in _in_turn(names) if each not in here), MAX_ASKED))
    answered = {(info.name, info.id) for info in own}
    peers = [
        [Silent(info.name, each.instance, each.name, each.heard_s) for each in overdue_in(info.metadata)]
        for info in own
    ]
    freshest: dict[tuple[str, str], Silent] = {}
    for each in (each for told in peers for each in told):
        known = freshest.get(each.key)
        if each.key not in answered and (known is None or (known.heard_s or 0) > (each.heard_s or 0)):
            freshest[each.key] = each
    order = _in_turn([each.key for each in told] for told in peers)
    asked = list(islice((freshest[key] for key in order if key in freshest), MAX_ASKED))
    means, said = await asyncio.gather(silence_of(mesh, services), _instances_mean(mesh, asked))
    silent, ended = (
        sorted(each for each, what in zip(asked, said, strict=True) if what is wanted)
        for wanted in (Silence.SILENT, Silence.NOBODY)
    )
    silent += [Silent(each) for each in sorted(means) if means[each] is Silence.SILENT]
    return Unheard(silent, ended)


async def silent_or(mesh: Mesh, infos: Iterable[InfoReply], word: str, error: CliError) -> CliError:
    """What to say where nobody who answers is called ``word``: that it is silent, else ``error``."""
    found = await silent_among(mesh, infos, [services_meant(word)])
    return silent_error(found, word) or error


async def called_by_clients(mesh: Mesh) -> list[list[str]]:
    """The services that each pure client of this namespace says it calls; none where nobody may be asked."""
    try:
        return [called_in(each.metadata) for each in await client_pings(mesh)]
    except PermissionDeniedError:
        return []  # whoever may not ask everybody goes by what instances say


async def client_pings(mesh: Mesh) -> list[PingReply]:
    """What the pure clients of this namespace answer to the roll call."""
    replies = await ask(mesh, request_subject(Verb.PING), timeout_s=QUESTION_S)
    found = []
    for payload in replies.payloads:
        try:
            ping: PingReply = parse_ping(payload)
        except CodecError:
            continue  # some other program's idea of an answer
        meta = ping.metadata
        if meta.get("mesh.kind") == "client" and meta.get("mesh.namespace") == mesh.namespace:
            found.append(ping)
    return found


async def silence_of(mesh: Mesh, services: Collection[str]) -> dict[str, Silence]:
    """Of each service of which nobody has answered, what that means; raises :class:`~nats_mesh.DisconnectedError`."""
    if not services:
        return {}
    asks = _listened
    try:
        nobody = await asks(mesh, _NO_SERVICE)
    except PermissionDeniedError:
        # Only operators may command: all others ask where anybody may, though of all namespaces together.
        asks = _asked
        nobody = await asks(mesh, _NO_SERVICE)
    if (
        nobody is Silence.SILENT
    ):  # somebody listens to everything (`nats sub '>'`): that tells nothing of a service
        return dict.fromkeys(services, Silence.UNKNOWN)
    found = await asyncio.gather(*(_means(mesh, each, asks) for each in services))
    return dict(zip(services, found, strict=True))


def _in_turn(lists: Iterable[Sequence[_T]]) -> Iterable[_T]:
    """The first of each list, then the second of each, …; each once."""
    missing = object()
    seen: dict[object, None] = {}
    for row in zip_longest(*lists, fillvalue=missing):
        for each in row:
            if each is not missing and each not in seen:
                seen[each] = None
                yield each  # type: ignore[misc]  # what is not the filling is of a list


async def _means(
    mesh: Mesh, service: str, asks: Callable[[Mesh, str], Coroutine[Any, Any, Silence]]
) -> Silence:
    try:
        found = await asks(mesh, service)
    except PermissionDeniedError:
        found = await _asked(mesh, service)
    return Silence.UNKNOWN if found is Silence.SILENT and await _answers(mesh, service) else found


async def _asked(mesh: Mesh, service: str) -> Silence:
    """As :func:`_listened`, for whoever may not command."""
    # An answer is of another namespace, or late: that tells nothing of those that do not answer.
    return await _pinged(mesh, request_subject(Verb.PING, service))


async def _answers(mesh: Mesh, service: str) -> bool:
    """Whether an instance of this namespace answers when it has time for it: that it had none before is no silence."""
    replies = await _ping(mesh, request_subject(Verb.PING, service))
    for payload in () if replies is None else replies.payloads:
        with suppress(CodecError):
            if parse_ping(payload).metadata.get("mesh.namespace") == mesh.namespace:
                return True
    return False


async def _instances_mean(mesh: Mesh, asked: Sequence[Silent]) -> list[Silence]:
    """Of instances that have not answered: the own subject of each leads to nobody, or to somebody who answers nothing.
    Where somebody listens to everything the server would say that of all, and nothing is known."""
    if not asked:
        return []
    if await _pinged(mesh, request_subject(Verb.PING, _NO_SERVICE, _NO_ID)) is Silence.SILENT:
        return [Silence.UNKNOWN] * len(asked)
    subjects = [request_subject(Verb.PING, each.service, each.instance) for each in asked]
    return list(await asyncio.gather(*(_pinged(mesh, each) for each in subjects)))


async def _pinged(mesh: Mesh, subject: str) -> Silence:
    """What it means that nothing comes back; ``UNKNOWN`` where something does, or it may not be asked."""
    replies = await _ping(mesh, subject)
    if replies is None or replies.payloads:
        return Silence.UNKNOWN
    return Silence.NOBODY if replies.over.is_set() else Silence.SILENT


async def _ping(mesh: Mesh, subject: str) -> Replies | None:
    """What comes back; ``None`` where it may not be asked."""
    try:
        return await ask(mesh, subject, timeout_s=_ASK_S)
    except DisconnectedError:
        raise
    except CallError:
        return None


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
