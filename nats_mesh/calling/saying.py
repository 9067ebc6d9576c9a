"""Verdicts on the wire: what callers say of an instance or of an endpoint, and which of it is believed.

``verdict.<service>.<instance>.<caller>`` is about an instance; ``verdict.<service>.all.<caller>`` about the endpoint
that the body names. ``all`` is nobody's id: who judges instances never takes an endpoint's verdict for one of theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import UNREADABLE, CallError
from nats_mesh.model import is_name
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, ANONYMOUS, INBOX, Subjects, parse_inbox, reply_allowed
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["Heard", "Post", "Verdict", "agree", "read_verdict"]

log = logging.getLogger("nats_mesh.verdicts")

_MAX_BYTES: Final = 1024
#: Names of callers that an event shows.
_SHOWN: Final = 5


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a verdict. ``endpoint`` is set in those about an endpoint, and in no others. ``reason`` is a word for
    people; ``wire`` is the version of this format."""

    verdict: Literal["bad", "well"]
    endpoint: str | UnsetType = UNSET
    reason: str = ""
    wire: Literal[1] = 1


class Heard(NamedTuple):
    """A verdict that is one: of ``instance``, or, where that is empty, of ``endpoint``."""

    instance: str
    endpoint: str
    caller: str
    bad: bool


OnVerdict: TypeAlias = Callable[[str, str, str, bool], None]
"""``(of whom, caller, connection, bad)``."""

_decode = at_first_use(lambda: msgspec.json.Decoder(Verdict).decode)
_encode = msgspec.json.Encoder().encode


def read_verdict(instance: str, caller: str, payload: bytes) -> Heard | None:
    """What the two last tokens of a subject and the body say; ``None`` where they are no verdict."""
    if (
        not is_name(instance)
        or not is_name(caller)
        or caller in (ALL, ANONYMOUS)
        or len(payload) > _MAX_BYTES
    ):
        return None
    try:
        verdict = _decode(payload)
    except UNREADABLE:
        return None
    bad, endpoint = verdict.verdict == "bad", verdict.endpoint
    if instance != ALL:
        return Heard(instance, "", caller, bad) if endpoint is UNSET else None
    return Heard("", endpoint, caller, bad) if endpoint is not UNSET and is_name(endpoint) else None


class Post:
    """Sends and hears verdicts about a service or one instance of it. ``dropped`` counts what is not believed."""

    def __init__(self, *, transport: Transport, mux: ReplyMux, subjects: Subjects, enforced: bool) -> None:
        self.dropped = 0
        self._transport = transport
        self._mux = mux
        self._subjects = subjects
        self._enforced = enforced

    def say(self, service: str, instance: str, verdict: Verdict) -> None:
        """Publish it; where the connection is away, or may not, there is nobody to tell."""
        subject = self._subjects.verdict(service, instance, self._transport.name)
        try:
            self._transport.publish(subject, _encode(verdict), self._mux.one_way(f"verdict.{service}"))
        except CallError as error:
            log.debug("a verdict on %s could not be published: %s", instance, error.message)

    def hear(self, service: str, instance: str, on_verdict: OnVerdict) -> Subscription:
        """Have ``on_verdict`` called for what is believed: of instances, or, with ``all``, of endpoints.

        The connection is empty where no mesh inbox names it (open mode): all those words are one.
        """

        def on_message(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
            if reply.startswith(own):
                return  # it counted when it was said
            about, _, caller = subject[len(prefix) :].partition(".")
            heard = None
            if reply_allowed(reply, caller, enforced=self._enforced):
                heard = read_verdict(about, caller, payload)
            if heard is None:
                self.dropped += 1
                return
            whom = heard.endpoint if of_endpoints else heard.instance
            if whom:
                inbox = parse_inbox(reply)
                connection = inbox.connection if inbox is not None and is_name(inbox.connection) else ""
                on_verdict(whom, heard.caller, connection, heard.bad)

        of_endpoints = instance == ALL
        own = f"{INBOX}{self._transport.name}.{self._transport.connection}."
        prefix = self._subjects.verdict(service, "", "")[:-1]
        return self._transport.subscribe(self._subjects.verdict(service, instance, "*"), on_message)


def agree(callers: Sequence[str]) -> str:
    """So many callers agree, and who."""
    more = ", …" if len(callers) > _SHOWN else ""
    return f"{len(callers)} callers ({', '.join(callers[:_SHOWN])}{more}) agree"
