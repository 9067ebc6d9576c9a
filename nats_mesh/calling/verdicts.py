"""What callers tell each other of instances: several that agree eject one for everybody, or have it step aside.
What they tell each other of endpoints is next door, in ``breaking.py``.

A caller that ejects an instance by its own judgement says so on ``verdict.<service>.<instance>.<caller>``, where a
policy asks for it (``ejection.verdicts``), and takes it back when the ejection is over. How many must agree is
counted by everyone who listens (:mod:`nats_mesh.core.verdicts`); a verdict from others is never passed on as one's
own, so a rumour cannot feed itself. What ``layers/balance.py`` does not tell is not said here, either: a caller that
knows one instance alone, or finds most of them bad, has nothing to say about any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from nats_mesh.calling.breaking import BreakerOpinions
from nats_mesh.calling.saying import Post, Verdict, agree
from nats_mesh.core.rules import EjectionRules, VerdictRules
from nats_mesh.core.seldom import worth_saying
from nats_mesh.core.verdicts import Verdicts, must_return, why_stay
from nats_mesh.discovery.fleet import MAX_INSTANCES
from nats_mesh.discovery.peers import Peers
from nats_mesh.errors import CallError, ConfigError
from nats_mesh.layers.balance import Group
from nats_mesh.layers.breaker import Tell
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.loop import TaskPool, Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["Opinions", "StepAside", "Verdict"]

log = logging.getLogger("nats_mesh.verdicts")

#: An instance that may go lets each other one that serves, and whose id comes before its own, go first: each has so
#: long, all together so long at most (seconds). Callers that find two instances bad at the same moment would otherwise
#: send both away before either has heard of the other.
_TURN_S: Final = 0.05
_TURNS_S: Final = 1.0
#: How often an instance that stands aside looks whether the others still serve (seconds).
_LOOK_S: Final = 0.05


class Opinions:
    """One caller's part in fleet-wide ejection, for all the services whose policies ask for it.

    ``breakers`` is its part in what callers tell each other of endpoints.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        mux: ReplyMux,
        subjects: Subjects,
        enforced: bool,
        now: Callable[[], float],
    ) -> None:
        self._post = Post(transport=transport, mux=mux, subjects=subjects, enforced=enforced)
        self._transport = transport
        self._now = now
        self.breakers = BreakerOpinions(post=self._post, transport=transport, now=now)
        self._heard: dict[Group, tuple[Subscription, Verdicts, set[str]]] = {}

    def attach(self, group: Group, rules: VerdictRules) -> None:
        """Listen for, and tell, verdicts about this group's service."""
        if group in self._heard:
            return
        verdicts = Verdicts(rules, limit=MAX_INSTANCES)
        said: set[str] = set()
        own = self._transport.name, self._transport.connection

        def on_verdict(instance: str, caller: str, connection: str, bad: bool) -> None:
            if not bad:
                verdicts.withdraw(instance, caller, connection)
            elif instance in group:
                heard(instance, caller, connection)

        def heard(instance: str, caller: str, connection: str) -> None:
            now = self._now()
            agreed = verdicts.hear(instance, caller, connection, now)
            if agreed:
                group.eject(instance, now, agree(agreed))

        def on_own(instance: str, reason: str) -> None:
            said.add(instance)
            self._post.say(group.service, instance, Verdict(verdict="bad", reason=reason))
            heard(instance, *own)

        def on_back(instance: str) -> None:
            if instance not in group:  # gone for good: nothing that was said of it matters any more
                verdicts.forget(instance)
            if instance in said:
                said.discard(instance)
                verdicts.withdraw(instance, *own)
                if not self._says(group.service, instance):
                    self._post.say(group.service, instance, Verdict(verdict="well"))

        subscription = self._post.hear(group.service, "*", on_verdict)
        group.on_own_ejection, group.on_return = on_own, on_back
        self._heard[group] = (subscription, verdicts, said)

    def _says(self, service: str, instance: str) -> bool:
        """Whether it is bad by another set of rules, under which this caller calls other endpoints of ``service``."""
        return any(
            instance in said for group, (_, _, said) in self._heard.items() if group.service == service
        )

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

    ``aside`` and ``back`` are what it does then: leave its queue group, and return to it. It goes only while ``peers``
    show others that serve, and comes back as soon as they do not; how many may be aside at a time is ``maxRatio``.
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
        peers: Peers,
        tell: Tell,
        aside: Callable[[str], Awaitable[str]],
        back: Callable[[str], Awaitable[str]],
    ) -> None:
        self._post = Post(transport=transport, mux=mux, subjects=subjects, enforced=enforced)
        self._service = service
        self._instance = instance
        self._transport = transport
        self._now = now
        self._peers = peers
        self._tell = tell
        self._aside = aside
        self._back = back
        self._ejection = EjectionRules()
        self._subscription: Subscription | None = None
        self._verdicts: Verdicts | None = None
        #: When it goes, or looks again while it is aside; nothing is heard meanwhile.
        self._timer: Timer | None = None
        self._until = 0.0
        self._stayed = 0
        self._pool = TaskPool(_report)

    def apply(self, ejection: EjectionRules) -> None:
        """Follow the ``verdicts`` of these rules (``None``: nobody's word moves it), stepping aside for their
        ``base`` at a time; whoever is aside comes back in its time."""
        before, self._ejection = self._ejection.verdicts, ejection
        rules = ejection.verdicts
        if rules == before:
            return
        self._deafen()
        if rules is not None and rules.drain:
            self._verdicts = Verdicts(rules)
            self._subscription = self._post.hear(self._service, self._instance, self._on_verdict)
            self._peers.watch(True, "verdicts")

    def _deafen(self) -> None:
        if self._subscription is not None:
            self._transport.unsubscribe(self._subscription)
            self._subscription = None
        self._verdicts = None
        if self._timer is None:  # else its last look does it
            self._peers.watch(False, "verdicts")

    def _on_verdict(self, instance: str, caller: str, connection: str, bad: bool) -> None:
        verdicts = self._verdicts
        if verdicts is None or instance != self._instance:
            return
        if not bad:
            verdicts.withdraw(instance, caller, connection)
            return
        agreed = verdicts.hear(instance, caller, connection, self._now())
        if agreed and self._timer is None:
            why = f"{agree(agreed)} that it is bad"
            if self._may_go(why):
                serving, _ = self._peers.others()
                first = sum(each < self._instance for each in serving)
                self._timer = call_later(min(_TURNS_S, first * _TURN_S), self._go, why)

    def _may_go(self, why: str) -> bool:
        serving, aside = self._peers.others()
        reason = why_stay(len(serving), len(aside), self._ejection.max_ratio)
        if reason:
            self._tell(EventKind.VERDICT_STAYS, self._instance, f"stays: {reason}, though {why}")
            self._stayed += 1
            if worth_saying(self._stayed):
                log.warning(
                    "%s stays: %s, though %s (%d times so far)", self._service, reason, why, self._stayed
                )
        return not reason

    def _go(self, why: str) -> None:
        self._timer = None
        if self._verdicts is None:  # the policy has changed meanwhile
            self._peers.watch(False, "verdicts")
            return
        if not self._may_go(why):
            return
        for_s = self._ejection.base_s
        self._tell(EventKind.VERDICT_ASIDE, self._instance, f"{why}: no more calls for {for_s:.3g} s")
        self._until = self._now() + for_s
        self._pool.start(self._do(self._aside, why))
        self._wait()

    def _wait(self) -> None:
        left_s = max(0.0, self._until - self._now())
        self._timer = call_later(min(_LOOK_S, left_s), self._look)

    def _look(self) -> None:
        self._timer = None
        why = "its time aside is over"
        if self._now() < self._until:
            serving, aside = self._peers.others()
            why = must_return(self._instance, len(serving), aside, self._ejection.max_ratio)
            if not why:
                self._wait()
                return
        self._tell(EventKind.VERDICT_BACK, self._instance, f"no longer aside: {why}")
        if self._verdicts is None:
            self._peers.watch(False, "verdicts")
        self._pool.start(self._do(self._back, why))

    async def _do(self, step: Callable[[str], Awaitable[str]], why: str) -> None:
        try:
            await step(why)
        except (CallError, ConfigError) as error:
            log.warning("%s %s: %s", self._service, self._instance, error)

    async def close(self) -> None:
        """Nobody's verdict moves it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deafen()
        self._pool.cancel_all()
        await self._pool.join(1.0)


def _report(error: BaseException) -> None:
    log.error("stepping aside failed", exc_info=error)
