"""What callers tell each other of instances: several that agree eject one for everybody, or have it step aside.

A caller that ejects an instance by its own judgement says so on ``verdict.<service>.<instance>.<caller>``, where a
policy asks for it (``ejection.verdicts``), and takes it back when the ejection is over. How many must agree is
counted by everyone who listens (:mod:`nats_mesh.core.verdicts`); a verdict from others is never passed on as one's
own, so a rumour cannot feed itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from nats_mesh.core.rules import VerdictRules
from nats_mesh.core.verdicts import Verdicts
from nats_mesh.errors import CallError, ConfigError
from nats_mesh.layers.balance import Group
from nats_mesh.layers.breaker import Tell
from nats_mesh.model import is_name
from nats_mesh.wire.loop import TaskPool, Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, ANONYMOUS, INBOX, Subjects, reply_allowed
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["Opinions", "StepAside", "Verdict"]

log = logging.getLogger("nats_mesh.verdicts")

_MAX_BYTES = 1024


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a verdict. ``reason`` is a word for people; ``wire`` is the version of this format."""

    verdict: Literal["bad", "well"]
    reason: str = ""
    wire: Literal[1] = 1


_decode = msgspec.json.Decoder(Verdict).decode
_encode = msgspec.json.Encoder().encode


class _Post:
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

    def hear(
        self, service: str, instance: str, on_verdict: Callable[[str, str, Verdict], None]
    ) -> Subscription:
        """Have ``on_verdict(instance, caller, verdict)`` called for what is believed."""

        def on_message(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
            if reply.startswith(own):
                return  # it counted when it was said
            about, _, caller = subject[len(prefix) :].partition(".")
            if not is_name(about) or not is_name(caller) or caller in (ALL, ANONYMOUS):
                self.dropped += 1
                return
            if len(payload) > _MAX_BYTES or not reply_allowed(reply, caller, enforced=self._enforced):
                self.dropped += 1
                return
            try:
                verdict = _decode(payload)
            except msgspec.DecodeError:
                self.dropped += 1
                return
            on_verdict(about, caller, verdict)

        own = f"{INBOX}{self._transport.name}.{self._transport.connection}."
        prefix = self._subjects.verdict(service, "", "")[:-1]
        return self._transport.subscribe(self._subjects.verdict(service, instance, "*"), on_message)


class Opinions:
    """One caller's part in fleet-wide ejection, for all the services whose policies ask for it."""

    def __init__(
        self,
        *,
        transport: Transport,
        mux: ReplyMux,
        subjects: Subjects,
        enforced: bool,
        now: Callable[[], float],
    ) -> None:
        self._post = _Post(transport=transport, mux=mux, subjects=subjects, enforced=enforced)
        self._transport = transport
        self._name = transport.name
        self._now = now
        self._heard: dict[Group, tuple[Subscription, Verdicts, set[str]]] = {}

    def attach(self, group: Group, rules: VerdictRules) -> None:
        """Listen for, and tell, verdicts about this group's service."""
        if group in self._heard:
            return
        verdicts = Verdicts(rules)
        said: set[str] = set()

        def on_verdict(instance: str, caller: str, verdict: Verdict) -> None:
            if verdict.verdict == "well":
                verdicts.withdraw(instance, caller)
            elif instance in group and verdicts.hear(instance, caller, self._now()):
                group.eject(instance, self._now(), f"{rules.callers} callers agree")

        def on_own(instance: str, reason: str) -> None:
            said.add(instance)
            self._post.say(group.service, instance, Verdict(verdict="bad", reason=reason))
            if verdicts.hear(instance, self._name, self._now()):
                group.eject(instance, self._now(), f"{rules.callers} callers agree")

        def on_back(instance: str) -> None:
            if instance in said:
                said.discard(instance)
                verdicts.withdraw(instance, self._name)
                self._post.say(group.service, instance, Verdict(verdict="well"))

        subscription = self._post.hear(group.service, "*", on_verdict)
        group.on_own_ejection, group.on_return = on_own, on_back
        self._heard[group] = (subscription, verdicts, said)

    def detach(self, group: Group) -> None:
        """No policy asks for it any more."""
        found = self._heard.pop(group, None)
        if found is not None:
            group.on_own_ejection = group.on_return = None
            self._transport.unsubscribe(found[0])

    @property
    def dropped(self) -> int:
        """Verdicts that were not believed: malformed, or without their publisher's inbox."""
        return self._post.dropped


class StepAside:
    """An instance that callers agree about takes no more calls for a while, where a policy says ``drain``.

    ``aside`` and ``back`` are what it does then: leave its queue group, and return to it.
    """

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        transport: Transport,
        mux: ReplyMux,
        subjects: Subjects,
        enforced: bool,
        now: Callable[[], float],
        tell: Tell,
        aside: Callable[[str], Awaitable[str]],
        back: Callable[[str], Awaitable[str]],
    ) -> None:
        self._post = _Post(transport=transport, mux=mux, subjects=subjects, enforced=enforced)
        self._service = service
        self._instance = instance
        self._transport = transport
        self._now = now
        self._tell = tell
        self._aside = aside
        self._back = back
        self._rules: VerdictRules | None = None
        self._subscription: Subscription | None = None
        self._verdicts: Verdicts | None = None
        self._timer: Timer | None = None
        self._for_s = 0.0
        self._pool = TaskPool(_report)

    def apply(self, rules: VerdictRules | None, for_s: float) -> None:
        """Follow ``rules`` (``None``: nobody's verdict moves it), stepping aside for ``for_s`` seconds at a time."""
        self._for_s = for_s
        if rules == self._rules:
            return
        self._rules = rules
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        if rules is not None and rules.drain:
            self._verdicts = Verdicts(rules)
            self._subscription = self._post.hear(self._service, self._instance, self._on_verdict)

    def _on_verdict(self, instance: str, caller: str, verdict: Verdict) -> None:
        verdicts, rules = self._verdicts, self._rules
        if verdicts is None or rules is None or instance != self._instance:
            return
        if verdict.verdict == "well":
            verdicts.withdraw(instance, caller)
        elif verdicts.hear(instance, caller, self._now()) and self._timer is None:
            why = f"{rules.callers} callers agree that it is bad"
            self._tell("verdict.aside", self._instance, f"{why}: no more calls for {self._for_s:.0f} s")
            self._timer = call_later(self._for_s, self._return)
            self._pool.start(self._do(self._aside, why))

    def _return(self) -> None:
        self._timer = None
        self._pool.start(self._do(self._back, "its time aside is over"))

    async def _do(self, step: Callable[[str], Awaitable[str]], why: str) -> None:
        try:
            await step(why)
        except (CallError, ConfigError) as error:
            log.warning("%s %s: %s", self._service, self._instance, error)

    async def close(self) -> None:
        """Nobody's verdict moves it any more."""
        self._rules = None
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.cancel_all()
        await self._pool.join(1.0)


def _report(error: BaseException) -> None:
    log.error("stepping aside failed", exc_info=error)
