"""What callers tell each other of endpoints: several whose circuits opened open it for everybody who listens.

A caller whose breaker opens an endpoint's circuit by its own calls says so on ``verdict.<service>.all.<caller>``, where
a policy asks for it (``breaker.verdicts``), says so again when its own probes fail, and takes it back when they close
the circuit. A circuit that the others' words opened says nothing: a rumour would feed itself, and a few failed probes
are no judgement. Only a circuit that began by this caller's own counting speaks.

Whoever listens counts callers (:mod:`nats_mesh.core.verdicts`), and where enough agree its own closed circuit opens,
also where it has no traffic at that moment: to spare it the failures that others have met already is what this is for.
What a crowd that is wrong, or forged, can do to it is bounded by the circuit and not by asking whether it calls:

- There is a circuit only where this caller has called the endpoint, so nobody opens what it never used.
- It opens for its own ``open``, not longer; while it is not closed no word counts. A caller without traffic whose
  first call comes later than that sends it as a probe, so the word has cost it nothing.
- What its own probes showed counts more than any word for a whole ``window`` (:meth:`Breaker.agreed`).

Rejected: to open only with failures of its own at hand, or only with traffic. Then a caller with few calls, which is
the one that takes longest to find out, is the one that gains nothing; and a crowd that is wrong still stops those that
call most.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from nats_mesh.calling.saying import Post, Verdict, agree
from nats_mesh.core.breaker import BreakerState, Transition
from nats_mesh.core.rules import BreakerVerdictRules
from nats_mesh.core.verdicts import Verdicts
from nats_mesh.layers.breaker import Circuit
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.transport import Subscription, Transport

__all__ = ["MAX_ENDPOINTS", "BreakerOpinions"]

log = logging.getLogger("nats_mesh.verdicts")

#: Endpoints that one caller listens for; beyond that it no longer does for the one it has listened for longest.
MAX_ENDPOINTS: Final = 4096


class _Endpoint:
    """One circuit, what others said of its endpoint, and whether this caller has said that it is broken."""

    __slots__ = ("circuit", "said", "verdicts")

    def __init__(self, circuit: Circuit, rules: BreakerVerdictRules) -> None:
        self.circuit = circuit
        self.verdicts = Verdicts(rules, limit=1)
        self.said = False


class BreakerOpinions:
    """One caller's part in it, for all the endpoints whose policies ask for it.

    ``unknown`` counts verdicts about endpoints that this caller does not call, and ``unheeded`` agreements that opened
    nothing: the circuit was not closed, or its own probes had closed it lately.
    """

    def __init__(self, *, post: Post, transport: Transport, now: Callable[[], float]) -> None:
        self.unknown = 0
        self.unheeded = 0
        self._post = post
        self._transport = transport
        self._now = now
        self._own = transport.name, transport.connection
        #: The one listened for longest first.
        self._endpoints: OrderedDict[tuple[str, str], _Endpoint] = OrderedDict()
        #: By service: what is subscribed to, and for how many endpoints.
        self._heard: dict[str, tuple[Subscription, int]] = {}

    def follow(
        self, service: str, endpoint: str, circuit: Circuit | None, rules: BreakerVerdictRules | None
    ) -> None:
        """``circuit`` is the one of this endpoint from now on; without it or ``rules`` no word moves anything.

        The circuit before it is forgotten, and what this caller said because of it taken back.
        """
        key = service, endpoint
        self._forget(key)
        if circuit is None or rules is None:
            return
        if len(self._endpoints) >= MAX_ENDPOINTS:
            self._forget(next(iter(self._endpoints)))
        self._endpoints[key] = _Endpoint(circuit, rules)
        circuit.on_change = lambda transition: self._changed(key, transition)
        known = self._heard.get(service)
        if known is None:
            self._heard[service] = self._listen(service), 1
        else:
            self._heard[service] = known[0], known[1] + 1

    def _forget(self, key: tuple[str, str]) -> None:
        known = self._endpoints.pop(key, None)
        if known is None:
            return
        known.circuit.on_change = None
        self._take_back(key, known)
        service = key[0]
        subscription, count = self._heard.pop(service)
        if count > 1:
            self._heard[service] = subscription, count - 1
        else:
            self._transport.unsubscribe(subscription)

    def _listen(self, service: str) -> Subscription:
        def on_verdict(endpoint: str, caller: str, connection: str, bad: bool) -> None:
            known = self._endpoints.get((service, endpoint))
            if known is None:
                self.unknown += 1
            elif bad:
                self._hear(endpoint, known, caller, connection)
            else:
                known.verdicts.withdraw(endpoint, caller, connection)

        return self._post.hear(service, ALL, on_verdict)

    def _hear(self, endpoint: str, known: _Endpoint, caller: str, connection: str) -> None:
        now = self._now()
        agreed = known.verdicts.hear(endpoint, caller, connection, now)
        if agreed and not known.circuit.agreed(now, f"{agree(agreed)} that it is broken"):
            self.unheeded += 1

    def _changed(self, key: tuple[str, str], transition: Transition) -> None:
        """This caller's own calls changed the state of a circuit."""
        known = self._endpoints[key]
        if transition.new is BreakerState.CLOSED:
            self._take_back(key, known)
        elif transition.new is BreakerState.OPEN and (known.said or transition.old is BreakerState.CLOSED):
            known.said = True
            service, endpoint = key
            self._post.say(service, ALL, Verdict(verdict="bad", endpoint=endpoint, reason=transition.reason))
            self._hear(endpoint, known, *self._own)

    def _take_back(self, key: tuple[str, str], known: _Endpoint) -> None:
        if known.said:
            known.said = False
            service, endpoint = key
            known.verdicts.withdraw(endpoint, *self._own)
            self._post.say(service, ALL, Verdict(verdict="well", endpoint=endpoint))

    def __len__(self) -> int:
        return len(self._endpoints)
