"""What the servers know of their connections: whether somebody who does not answer is still connected.

A process that ended is known to the servers at once, and one that hangs is still there for them: this tells the one
from the other, where presence alone needs some missed beats. Each server answers for its own connections
(``$SYS.REQ.ACCOUNT.PING.CONNZ``, which every account may ask about itself), so "no" takes the word of all of them; and
where leaf nodes are part of the account, whose connections they do not know, there is no "no".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import anyio
import msgspec

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


class _Counted(msgspec.Struct):
    data: _Connz


class _Stated(msgspec.Struct):
    data: _Statz


_decode_connz = msgspec.json.Decoder(_Counted).decode
_decode_statz = msgspec.json.Decoder(_Stated).decode


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
        answer it, not all of them did, or the account has leaf nodes."""
        asked = list(dict.fromkeys(each for each in subjects if each))[:MAX_QUESTIONS]
        if not asked:
            return {}
        leaves = _Sink(_STATZ)
        counts = {subject: _Sink(_CONNZ) for subject in asked}
        sinks = [leaves, *counts.values()]
        bodies = [b"", *(msgspec.json.encode({"filter_subject": each, "limit": 1}) for each in asked)]
        replies = [self._mux.open(sink.subject, sink) for sink in sinks]
        servers = max(1, self._transport.known_servers)
        try:
            for sink, body, reply in zip(sinks, bodies, replies, strict=True):
                self._transport.publish(sink.subject, body, reply)
            with anyio.move_on_after(_WAIT_S):
                for sink in sinks:
                    await sink.until(servers)
        except CallError:
            return dict.fromkeys(asked)  # the connection is away
        finally:
            for reply in replies:
                self._mux.close(reply)
        whole = _no_leaves(leaves, servers)
        return {subject: _held(sink, servers, whole) for subject, sink in counts.items()}


def _no_leaves(sink: _Sink, servers: int) -> bool:
    """Whether all servers say that no leaf node is part of the account."""
    said = 0
    for payload in sink.answers:
        try:
            accounts = _decode_statz(payload).data.account_statz
        except UNREADABLE:
            continue
        if any(each.leafnodes for each in accounts):
            return False
        said += 1
    return said >= servers


def _held(sink: _Sink, servers: int, whole: bool) -> bool | None:
    said = 0
    for payload in sink.answers:
        try:
            found = _decode_connz(payload).data.num_connections
        except UNREADABLE:
            continue
        if found > 0:
            return True
        said += 1
    return False if whole and said >= servers else None


class _Sink:
    """Takes the answers of several servers."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.answers: list[bytes] = []
        self._over = False
        self._event = anyio.Event()

    async def until(self, count: int) -> None:
        """Wait for so many answers, or until none can come."""
        while not self._over and len(self.answers) < count:
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
