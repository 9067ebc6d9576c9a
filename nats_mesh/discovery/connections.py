"""What the servers know of their connections: whether somebody who does not answer is still connected.

A process that ended is known to the servers at once, and one that hangs is still there for them: this tells the one
from the other, where presence alone needs some missed beats. Each server answers for its own connections
(``$SYS.REQ.ACCOUNT.PING.CONNZ``, which every account may ask about itself), so "no" takes the word of all of them; and
where leaf nodes are part of the account, whose connections they do not know, there is no "no".

How many servers there are nobody says: a connection hears of addresses, of which one server may have several, or none
that it tells. So the whole time is waited for before a "no", and whoever answers in it are all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import anyio
import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import UNREADABLE, CallError
from nats_mesh.model import is_name
from nats_mesh.wire import headers as h
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.transport import Transport

__all__ = ["MAX_QUESTIONS", "Connections", "client_subject", "instance_subject"]

#: How many subjects are asked about at once; of more nothing is known.
MAX_QUESTIONS: Final = 64
_CONNZ: Final = "$SYS.REQ.ACCOUNT.PING.CONNZ"
_STATZ: Final = "$SYS.REQ.ACCOUNT.PING.STATZ"
#: Without it a server on which the account has no connection does not answer, though it may have a leaf node.
_ALL_OF_THEM: Final = b'{"include_unused": true}'
#: How long all servers have to answer (seconds).
_WAIT_S: Final = 0.5
_MAX_ANSWER: Final = 64 << 10
_MAX_ANSWERS: Final = 256


class _Connz(msgspec.Struct):
    num_connections: int


class _Account(msgspec.Struct):
    leafnodes: int = 0


class _Statz(msgspec.Struct):
    account_statz: list[_Account]


class _Server(msgspec.Struct, frozen=True):
    id: str = ""


class _Counted(msgspec.Struct):
    data: _Connz
    server: _Server = _Server()


class _Stated(msgspec.Struct):
    data: _Statz
    server: _Server = _Server()


_decode_connz = at_first_use(lambda: msgspec.json.Decoder(_Counted).decode)
_decode_statz = at_first_use(lambda: msgspec.json.Decoder(_Stated).decode)


def instance_subject(service: str, instance: str) -> str:
    """What an instance alone listens to, as the Services API has it; empty where these are no names."""
    return f"$SRV.*.{service}.{instance}" if is_name(service) and is_name(instance) else ""


def client_subject(caller: str, connection: str) -> str:
    """The inbox of a pure client's connection; empty where these are no names."""
    return f"_INBOX.{caller}.{connection}.>" if is_name(caller) and is_name(connection) else ""


class Connections:
    """Asks the servers about connections of one's own account."""

    def __init__(self, transport: Transport, mux: ReplyMux) -> None:
        self._transport = transport
        self._mux = mux

    async def held(self, subjects: Iterable[str]) -> dict[str, bool | None]:
        """Whether any connection listens to each subject; ``None`` where that cannot be said: the servers do not
        answer it, one of them did not, or the account has leaf nodes. At once where all are held, else after
        0.5 s."""
        asked = list(dict.fromkeys(each for each in subjects if each))[:MAX_QUESTIONS]
        if not asked:
            return {}
        leaves = _Sink(_STATZ)
        counts = {subject: _Sink(_CONNZ) for subject in asked}
        sinks = [leaves, *counts.values()]
        bodies = [
            _ALL_OF_THEM,
            *(msgspec.json.encode({"filter_subject": each, "limit": 1}) for each in asked),
        ]
        replies = [self._mux.open(sink.subject, sink) for sink in sinks]
        try:
            for sink, body, reply in zip(sinks, bodies, replies, strict=True):
                self._transport.publish(sink.subject, body, reply)
            with anyio.move_on_after(_WAIT_S):
                for sink in counts.values():
                    await sink.held()
        except CallError:
            return dict.fromkeys(asked)  # the connection is away
        finally:
            for reply in replies:
                self._mux.close(reply)
        servers = _without_leaves(leaves)
        return {subject: _held(sink, servers) for subject, sink in counts.items()}


def _without_leaves(sink: _Sink) -> frozenset[str]:
    """The servers that say that no leaf node of theirs is part of the account; none where one says that one is."""
    servers: set[str] = set()
    for payload in sink.answers:
        try:
            said = _decode_statz(payload)
        except UNREADABLE:
            continue
        if any(each.leafnodes for each in said.data.account_statz):
            return frozenset()
        servers.add(said.server.id)
    return frozenset(servers)


def _held(sink: _Sink, servers: Collection[str]) -> bool | None:
    """What the answers come to, where these ``servers`` are all."""
    none: set[str] = set()
    for payload in sink.answers:
        try:
            said = _decode_connz(payload)
        except UNREADABLE:
            continue
        if said.data.num_connections > 0:
            return True
        none.add(said.server.id)
    return False if none and none == servers else None


class _Sink:
    """Takes the answers of several servers."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.answers: list[bytes] = []
        self._over = False
        self._event = anyio.Event()

    async def held(self) -> None:
        """Wait for an answer that says so, or until none can come."""
        while not self._over and not _held(self, ()):
            event = self._event
            await event.wait()

    def on_reply(self, headers: bytes, payload: bytes) -> None:
        if h.server_status(headers) is not None:
            self._over = True
        elif len(payload) <= _MAX_ANSWER and len(self.answers) < _MAX_ANSWERS:
            self.answers.append(payload)
        self._tell()

    def on_failure(self, error: CallError) -> None:
        self._over = True
        self._tell()

    def _tell(self) -> None:
        self._event.set()
        self._event = anyio.Event()
