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
from typing import Any, Final, NamedTuple, TypeVar

from nats_mesh import CallError, DisconnectedError, Mesh, PermissionDeniedError
from nats_mesh.discovery.overdue import called_in, overdue_in
from nats_mesh.discovery.services_api import InfoReply, PingReply, Verb, parse_ping, request_subject
from nats_mesh.errors import CodecError
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.model import is_name
from nats_mesh.telemetry.snapshots import Member
from nats_mesh_cli.bus import QUESTION_S, Replies, ask
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.output import counted

__all__ = [
    "AFTER_SILENCE",
    "MAX_ASKED",
    "SILENT",
    "Silent",
    "called_by_clients",
    "client_pings",
    "not_shown",
    "silence_of",
    "silent_among",
    "silent_error",
    "silent_info",
    "silent_or",
    "silent_text",
]

#: Of how many services, and of how many instances, it is asked.
MAX_ASKED: Final = 256
#: What to do about a silent instance.
AFTER_SILENCE: Final = "'nats-mesh why' says what becomes of a call; it has to go on, or to be restarted"
#: The state of an instance that is connected and answers nothing.
SILENT: Final = "silent"
#: No instance has this id: theirs are made by chance, and longer. And no service this name, which is reserved.
_NO_ID: Final = "none"
_NO_SERVICE: Final = "anonymous"
#: How long an answer is waited for where it may still come (seconds): everybody was asked just before.
_ASK_S: Final = 1.0
#: How many are named in a sentence.
_NAMED: Final = 5

_T = TypeVar("_T")


class Silent(NamedTuple):
    """Who is connected and answers nothing: an instance, or (``instance`` is empty) some instance of a service of which
    none answers. ``name`` is its ``host-pid``, ``heard_s`` how long ago its peers heard it, where that is known."""

    service: str
    instance: str = ""
    name: str = ""
    heard_s: float | None = None

    @property
    def told(self) -> str:
        """What is said of it in a list of those who ought to be there."""
        if not self.instance:
            return f"{self.service}: one is connected, and nobody answers"
        heard = "" if self.heard_s is None else f", and its peers heard it {self.heard_s:.0f} s ago"
        return f"{self.service} ({self.name or self.instance}) is connected and does not answer{heard}"

    def called(self, word: str) -> bool:
        """Whether somebody means it by ``word``: the begin of its id or of its ``host-pid``, alone or behind its
        service."""
        service, slash, name = word.rpartition("/")
        if not name or not self.instance or (slash and self.service != service):
            return False
        return self.instance.startswith(name) or self.name.startswith(name)


async def silent_among(
    mesh: Mesh, infos: Iterable[InfoReply], called: Iterable[Sequence[str]] = ()
) -> list[Silent]:
    """Who is silent, as far as those in this namespace who answered (``infos``) know of him, or others who say which
    services they have ``called``.

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
        key = each.service, each.instance
        if key not in answered and (
            key not in freshest or (freshest[key].heard_s or 0) > (each.heard_s or 0)
        ):
            freshest[key] = each
    order = _in_turn([(each.service, each.instance) for each in told] for told in peers)
    asked = list(islice((freshest[key] for key in order if key in freshest), MAX_ASKED))
    means, found = await asyncio.gather(silence_of(mesh, services), _hanging(mesh, asked))
    return sorted(found) + [Silent(each) for each in sorted(means) if means[each] is Silence.SILENT]


def silent_text(found: Sequence[Silent]) -> str:
    """What is to be said of them; empty where there are none."""
    instances = [each for each in found if each.instance]
    services = [each.service for each in found if not each.instance]
    parts = []
    if instances:
        told = [_called(each) for each in instances[:_NAMED]]
        told += [f"{len(instances) - _NAMED} more"] if len(instances) > _NAMED else []
        parts.append(
            f"{counted(len(instances), 'instance is', 'instances are')} connected and silent (hung, or stopped): "
            f"{', '.join(told)}; calls that reach {'it' if len(instances) == 1 else 'them'} wait until their time "
            "is over"
        )
    if services:
        more = f" and {len(services) - _NAMED} more" if len(services) > _NAMED else ""
        parts.append(
            f"no instance of {', '.join(services[:_NAMED])}{more} answers, but one is connected: it is silent "
            "(hung, or stopped), and calls to it wait until their time is over"
        )
    return "; ".join(parts)


def _called(each: Silent) -> str:
    heard = "" if each.heard_s is None else f", heard {each.heard_s:.0f} s ago"
    return f"{each.service} {each.instance[:8]} ({each.name or 'no name'}{heard})"


def not_shown(found: Iterable[Silent], members: Iterable[Member]) -> tuple[Silent, ...]:
    """Those of them who have no row among the ``members`` of a view: it has one as long as presence knows of it."""
    shown = {(each.service, each.id) for each in members if each.kind == "instance"}
    services = {service for service, _ in shown}
    return tuple(
        [
            each
            for each in found
            if (each.service, each.instance) not in shown and (each.instance or each.service not in services)
        ]
    )


def silent_info(silent: Silent, namespace: str) -> InfoReply:
    """A silent instance as if it had answered: what it would say of itself is not known."""
    metadata = {"mesh.namespace": namespace, "mesh.instance": silent.name, "mesh.state": SILENT}
    return InfoReply(
        name=silent.service, id=silent.instance, version="", description="", metadata=metadata,
        endpoints=(), omitted=0,
    )  # fmt: skip


def silent_error(found: Iterable[Silent], word: str) -> CliError | None:
    """What ends a command that needs an answer of what is called ``word`` (a service, an endpoint, an instance), which
    is silent; ``None`` where it is none of those who were ``found`` so."""
    silent = list(found)
    service = word.partition(".")[0]
    meant = [each for each in silent if each.called(word)] or [s for s in silent if s.service == service]
    return CliError(silent_text(meant), hint=AFTER_SILENCE, code=FAILED) if meant else None


async def silent_or(mesh: Mesh, infos: Iterable[InfoReply], word: str, error: CliError) -> CliError:
    """What to say where nobody who answers is called ``word``: that it is silent, else ``error``."""
    service = word.partition(".")[0]
    found = await silent_among(mesh, infos, [[service]] if is_name(service) else [])
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
    replies = await _ping(mesh, request_subject(Verb.PING, service))
    # An answer is of another namespace, or late: that tells nothing of those that do not answer.
    if replies is None or replies.payloads:
        return Silence.UNKNOWN
    return Silence.NOBODY if replies.over.is_set() else Silence.SILENT


async def _answers(mesh: Mesh, service: str) -> bool:
    """Whether an instance of this namespace answers when it has time for it: that it had none before is no silence."""
    replies = await _ping(mesh, request_subject(Verb.PING, service))
    for payload in () if replies is None else replies.payloads:
        with suppress(CodecError):
            if parse_ping(payload).metadata.get("mesh.namespace") == mesh.namespace:
                return True
    return False


async def _hanging(mesh: Mesh, asked: Sequence[Silent]) -> list[Silent]:
    """Those of them who hang; nobody where somebody listens to everything, and the server would say it of all."""
    if not asked or await _hangs(mesh, Silent(_NO_SERVICE, _NO_ID)):
        return []
    hung = await asyncio.gather(*(_hangs(mesh, each) for each in asked))
    return [each for each, hangs in zip(asked, hung, strict=True) if hangs]


async def _hangs(mesh: Mesh, instance: Silent) -> bool:
    """Whether the server knows somebody to whom the instance's own subjects lead, and nobody answers there."""
    replies = await _ping(mesh, request_subject(Verb.PING, instance.service, instance.instance))
    return replies is not None and not replies.payloads and not replies.over.is_set()


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
