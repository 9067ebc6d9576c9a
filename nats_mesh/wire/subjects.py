"""The mesh's subjects: built and taken apart here alone (wire version 1, prefix ``mesh.<namespace>.``).

Identity is a token of the subject, so that the server can enforce it; see ``docs/wire.md``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name, is_name

__all__ = [
    "ALL",
    "ANONYMOUS",
    "FOREIGN_INBOXES",
    "INBOX",
    "QUEUE",
    "WIRE_VERSION",
    "Inbox",
    "RpcSubject",
    "Subjects",
    "check_plain_subject",
    "parse_inbox",
    "parse_rpc",
    "plain_answer",
    "reply_allowed",
]

WIRE_VERSION = 1
#: The route that means every instance of the service.
ALL = "all"
#: The caller token that stands for clients that are not part of the mesh.
ANONYMOUS = "anonymous"
#: The queue group of every service subscription.
QUEUE = "q"
INBOX = "_INBOX."
#: Where clients outside the mesh expect answers: their own inboxes, and the servers' names for those of other accounts.
FOREIGN_INBOXES = (INBOX, "_R_.")

_SECRET = re.compile(r"[0-9a-f]{32}")
_PLAIN = re.compile(r"[^\s.*>\x00-\x20\x7f]+(\.[^\s.*>\x00-\x20\x7f]+)*")
#: ``_INBOX.<caller>.<connection>.<secret>.<n>``
_INBOX_DOTS = 4
#: Of a plain subject, in bytes: with an inbox and two sizes beside it a command stays far below what a server reads.
_MAX_SUBJECT = 1024


class RpcSubject(NamedTuple):
    """A request's subject taken apart; ``route`` is empty and ``instance`` set on a direct one."""

    service: str
    route: str
    instance: str
    endpoint: str
    caller: str


class Inbox(NamedTuple):
    """A mesh inbox: who reads it, on which connection, under which secret, for which request."""

    caller: str
    connection: str
    secret: str
    number: str


class Subjects:
    """Every subject of one namespace. Names are checked by whoever brings them in (:func:`check_name`)."""

    __slots__ = ("namespace", "prefix")

    def __init__(self, namespace: str) -> None:
        self.namespace = check_name("namespace", namespace)
        self.prefix = f"mesh.{namespace}."

    def rpc(self, service: str, endpoint: str, caller: str, route: str = ALL) -> str:
        """Where a caller sends a request that the queue group balances."""
        return f"{self.prefix}rpc.{service}.{route}.{endpoint}.{caller}"

    def rpc_of(self, service: str, route: str = ALL) -> str:
        """What an instance subscribes to, in queue group ``q``, for one route."""
        return f"{self.prefix}rpc.{service}.{route}.*.*"

    def direct(self, service: str, instance: str, endpoint: str, caller: str) -> str:
        """Where a caller sends a request to one chosen instance."""
        return f"{self.prefix}direct.{service}.{instance}.{endpoint}.{caller}"

    def direct_of(self, service: str, instance: str) -> str:
        """What that one instance subscribes to."""
        return f"{self.prefix}direct.{service}.{instance}.*.*"

    def cancel(self, service: str, caller: str) -> str:
        """Where a caller says that it no longer waits; the body is the attempt's reply subject."""
        return f"{self.prefix}cancel.{service}.{caller}"

    def cancel_of(self, service: str) -> str:
        """What every instance of the service subscribes to."""
        return f"{self.prefix}cancel.{service}.*"

    def presence(self, service: str, instance: str) -> str:
        """Where an instance announces itself."""
        return f"{self.prefix}presence.{service}.{instance}"

    def presence_of(self, service: str = "*") -> str:
        """What an observer of one service, or of all, subscribes to."""
        return f"{self.prefix}presence.{service}.*"

    def command(self, service: str, instance: str, operator: str) -> str:
        """Where an operator tells one instance of a service, or :data:`ALL` of them, what to do."""
        return f"{self.prefix}control.command.{service}.{instance}.{operator}"

    def command_of(self, service: str) -> str:
        """What an instance subscribes to for operators' commands."""
        return f"{self.prefix}control.command.{service}.*.*"

    @property
    def policy_hints(self) -> str:
        """What everybody subscribes to, to learn at once that policies changed."""
        return f"{self.prefix}control.policy.>"

    def policy_hint(self, key: str) -> str:
        """Where the server tells that the policy ``key`` (``Kind.name``) was written."""
        return f"{self.prefix}control.policy.{key}"

    @property
    def policy_bucket(self) -> str:
        """The bucket that the namespace's policies are kept in."""
        return f"mesh_policy_{self.namespace}"

    @property
    def config_bucket(self) -> str:
        """The bucket that the configurations of the namespace's services are kept in."""
        return f"mesh_config_{self.namespace}"

    @property
    def config_hints(self) -> str:
        """Where the server tells that a configuration was written: ``…<service>.<name>``."""
        return f"{self.prefix}control.config.>"

    def config_hints_of(self, service: str) -> str:
        """What the instances of one service subscribe to, to learn of it."""
        return f"{self.prefix}control.config.{service}.>"

    @property
    def lease_bucket(self) -> str:
        """The bucket in which members say what they do alone, for as long as they do it."""
        return f"mesh_lease_{self.namespace}"

    def ack(self, service: str, instance: str) -> str:
        """Where a member says which policies it has applied, and which it refused."""
        return f"{self.prefix}control.ack.{service}.{instance}"

    def ack_of(self, service: str = "*") -> str:
        """What operators subscribe to for the acknowledgements of one service, or of everybody."""
        return f"{self.prefix}control.ack.{service}.*"

    def verdict(self, service: str, instance: str, caller: str) -> str:
        """Where a caller says what it thinks of an instance, or, with :data:`ALL` in its place, of an endpoint."""
        return f"{self.prefix}verdict.{service}.{instance}.{caller}"

    def want(self, kind: str, service: str, observer: str) -> str:
        """Where an observer leases a kind of telemetry for five seconds."""
        return f"{self.prefix}telemetry.want.{kind}.{service}.{observer}"

    @property
    def want_of(self) -> str:
        """What instances subscribe to, to learn what is wanted."""
        return f"{self.prefix}telemetry.want.>"

    def audit(self, kind: str, writer: str, instance: str) -> str:
        """Where ``writer`` (a service, an operator) records what it did; ``instance`` is its id or its connection's."""
        return f"{self.prefix}audit.{kind}.{writer}.{instance}"

    @property
    def audit_of(self) -> str:
        """What the stream of all records takes in."""
        return f"{self.prefix}audit.>"

    @property
    def audit_stream(self) -> str:
        """The stream that keeps them."""
        return f"mesh_audit_{self.namespace}"

    def telemetry(self, kind: str, service: str, instance: str) -> str:
        """Where an instance publishes one kind of telemetry, while it is wanted."""
        return f"{self.prefix}telemetry.{kind}.{service}.{instance}"

    def telemetry_of(self, kind: str, service: str = "*") -> str:
        """What an observer subscribes to for one kind of telemetry."""
        return f"{self.prefix}telemetry.{kind}.{service}.*"


def parse_rpc(subject: str) -> RpcSubject | None:
    """Take a ``rpc`` or ``direct`` subject apart; ``None`` where it is neither or a name is not one."""
    parts = subject.split(".")
    if len(parts) != 7 or parts[0] != "mesh":
        return None
    if not is_name(parts[1]) or not all(is_name(part) for part in parts[3:]) or parts[6] == ALL:
        return None
    if parts[2] == "rpc":
        return RpcSubject(parts[3], parts[4], "", parts[5], parts[6])
    if parts[2] == "direct":
        return RpcSubject(parts[3], "", parts[4], parts[5], parts[6])
    return None


def parse_inbox(subject: str) -> Inbox | None:
    """Take ``_INBOX.<caller>.<connection>.<secret>.<n>`` apart; ``None`` for any other inbox."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "_INBOX" or _SECRET.fullmatch(parts[3]) is None:
        return None
    return Inbox(parts[1], parts[2], parts[3], parts[4])


def reply_allowed(reply: str, publisher: str, *, enforced: bool) -> bool:
    """Whether a message of ``publisher`` may be believed, by the inbox it names for its answer.

    The server never checks where JetStream sends its answers, so a message without its publisher's
    own inbox may be JetStream's, talked into it by somebody else. In open mode a foreign inbox
    (``_INBOX.<nuid>``) passes, because identity is only claimed there; an inbox of another mesh
    member never does.
    """
    if reply.startswith(f"{INBOX}{publisher}."):
        return len(reply) > len(INBOX) + len(publisher) + 1
    if enforced or not reply.startswith(INBOX) or len(reply) == len(INBOX):
        return False
    return reply.count(".") != _INBOX_DOTS  # judged by the shape of a member's inbox, not by its secret


def plain_answer(reply: str) -> str | None:
    """Where to answer a message on a plain subject; empty: nowhere, ``None``: it is not believed at all.

    JetStream asks for an acknowledgement, and an answer there would be one. Answering to any subject
    but an inbox would be publishing on somebody else's behalf.
    """
    if reply.startswith("$JS.ACK."):
        return ""
    return reply if not reply or reply.startswith(FOREIGN_INBOXES) else None


def check_plain_subject(subject: str) -> str:
    """Return a concrete NATS subject, or raise :class:`ConfigError` (wildcards, spaces, empty tokens, length)."""
    if _PLAIN.fullmatch(subject) is None or not 0 < _size(subject) <= _MAX_SUBJECT:
        raise ConfigError(
            f"subject {subject[:80]!r}: need tokens joined by '.', without spaces and wildcards, "
            f"at most {_MAX_SUBJECT} bytes of UTF-8"
        )
    return subject


def _size(subject: str) -> int:
    """How many bytes it takes on the wire; 0 where it is no text."""
    try:
        return len(subject.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return 0
