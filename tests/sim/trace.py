"""Everything that happened on a bus, in one number: two runs are the same where their numbers are."""

from __future__ import annotations

import hashlib
import re

from nats_mesh.serving.instance import display_name

__all__ = ["Trace"]

#: Ids of connections and secrets of inboxes, which are drawn from the system and differ in every run.
_INBOX = re.compile(rb"(_INBOX\.[A-Za-z0-9_-]+\.)([A-Za-z0-9]+)\.([0-9a-f]+)")

#: How many characters such an id of a connection has; an id that was given is shorter, and the same in every run.
_CONNECTION = 22


class Trace:
    """A hash over messages and notes in their order, each with its moment. ``count`` says how many there were.

    Ids that are random by design count by the order in which they first appear.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()
        self._ids: dict[bytes, bytes] = {}
        self._connections: dict[bytes, bytes] = {}
        self._name = display_name().encode()

    def messages(self, now: float, publisher: str, recorded: list[tuple[str, str, bytes, bytes]]) -> None:
        """Take in the messages that were ``recorded`` since the last time, and empty the list."""
        for subject, reply, headers, payload in recorded:
            parts = (publisher.encode(), subject.encode(), reply.encode(), headers, payload)
            self._add(now, b"\0".join(parts))
        recorded.clear()

    def note(self, now: float, text: str) -> None:
        """Take in something that is no message."""
        self._add(now, text.encode())

    def _add(self, now: float, what: bytes) -> None:
        self.count += 1
        what = _INBOX.sub(self._ordinal, what).replace(self._name, b"host-pid")
        for (
            connection,
            ordinal,
        ) in self._connections.items():  # what tells of a member names its connection, too
            what = what.replace(connection, ordinal)
        self._hash.update(b"%r %d " % (now, len(what)) + what)

    def _ordinal(self, found: re.Match[bytes]) -> bytes:
        connection, secret = (self._ids.setdefault(found[each], b"%d" % len(self._ids)) for each in (2, 3))
        if len(found[2]) >= _CONNECTION:
            self._connections[found[2]] = connection
        return found[1] + connection + b"." + secret

    @property
    def digest(self) -> str:
        """The number, in hexadecimal digits."""
        return self._hash.hexdigest()
