"""The caller's side of a call: from a target and a value to a reply or an error that says why.

A :class:`Client` is one identity on one connection; :class:`~nats_mesh.mesh.Mesh` and the context of
a running service are two faces of it. What never changes for a target is resolved at its first call.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from nats_mesh.calling.exchange import Declared, Target
from nats_mesh.calling.gather import gather
from nats_mesh.calling.gathering import Gathered
from nats_mesh.calling.heads import plain_value
from nats_mesh.calling.holding import RouteHold
from nats_mesh.calling.outbound import Outbound
from nats_mesh.calling.sending import Sender
from nats_mesh.calling.targets import TargetMaker, no_target
from nats_mesh.calling.verdicts import Opinions
from nats_mesh.calling.watching import Watching
from nats_mesh.clock import Clock
from nats_mesh.context import Context, current_context
from nats_mesh.core.deadline import check_timeout, deadline_for
from nats_mesh.discovery.directory import Directory
from nats_mesh.discovery.fleets import FleetDirectory
from nats_mesh.errors import ConfigError
from nats_mesh.layers.breaker import Tell
from nats_mesh.layers.stack import compose
from nats_mesh.model import (
    NO_HEADERS,
    CallOptions,
    Interceptor,
    Next,
    OwnHeaders,
    Reply,
    Request,
    check_name,
)
from nats_mesh.policy import PolicySet
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire import headers as h
from nats_mesh.wire.loop import TaskPool
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Client"]

log = logging.getLogger("nats_mesh.client")

_MAX_TARGETS = 4096
#: Looked up once: it is asked in every call.
_get_context: Final = current_context.get
_NO_OPTIONS: Mapping[str, Any] = {}
_OPTIONS = ", ".join(("returns", *CallOptions.__annotations__))
_LEARN_EVERY_S = 60.0


def _say_nothing(kind: str, target: str, detail: str) -> None:
    """Who makes no events hears of none."""


class _Resolved(NamedTuple):
    """What is known of a call while its interceptors have it: its target, the call it is made from, when it began and
    when it shall end, and whether its own arguments said how long it may take, and that it may be repeated."""

    known: Target
    parent: Context | None
    start: float
    deadline: float
    own_timeout: bool
    own_idempotent: bool


class Client:
    """Calls as one identity. ``interceptors`` run around every call, the first outermost."""

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        stats: Stats,
        interceptors: Sequence[Interceptor] = (),
        enforced: bool = False,
        policies: PolicySet | None = None,
        zone: str = "",
        tell: Tell = _say_nothing,
    ) -> None:
        self.name = check_name("caller", name)
        self.subjects = Subjects(namespace)
        self.namespace = namespace
        self.transport = transport
        self.mux = ReplyMux(transport, clock.monotonic)
        self.stats = stats
        self.directory = Directory(transport, self.mux, clock, namespace)
        self._now: Callable[[], float] = clock.monotonic
        self._targets: dict[Any, Target] = {}
        #: Who is told of calls that have ended.
        self.watching = Watching()
        self._maker = TargetMaker(name, self.subjects, self.mux, stats, self.watching)
        self._background = TaskPool(_report)
        self.interceptors = tuple(interceptors)
        self._chain: Next | None = compose(interceptors, self._send_request) if interceptors else None
        self.fleets = FleetDirectory(transport, self.mux, self.subjects, clock, enforced=enforced)
        self.opinions = Opinions(
            transport=transport, mux=self.mux, subjects=self.subjects, enforced=enforced, now=clock.monotonic
        )
        self.outbound = Outbound(
            caller=name,
            subjects=self.subjects,
            fleets=self.fleets,
            opinions=self.opinions,
            chance=rng.random,
            tell=tell,
            zone=zone,
            policies=policies,
            make=self._maker.make,
        )
        self._hold = RouteHold(self.outbound.policies, self._apply, clock.monotonic)
        self._sender = Sender(
            namespace=namespace,
            transport=transport,
            mux=self.mux,
            directory=self.directory,
            now=clock.monotonic,
            rng=rng,
            rule_names=lambda: self.outbound.policies.rule_names(),
        )

    # -- resolving ----------------------------------------------------------------------------------

    def _known(self, target: Any) -> Target:
        """What is known of a target; :class:`ConfigError` where it is none."""
        try:
            known = self._targets.get(target)
        except TypeError:  # it has no hash, so it is neither a name nor a function
            raise no_target(target) from None
        return known or self._resolve(target)

    def _resolve(self, target: Any) -> Target:
        resolved = self._maker.of(target)
        self.outbound.compose(resolved)
        if len(self._targets) >= _MAX_TARGETS:
            self.outbound.forget(self._targets.pop(next(iter(self._targets))))
        self._targets[target] = resolved
        return resolved

    def sample(self, share: Callable[[str, str], float]) -> None:
        """Have so many of the traces sampled that begin with a call, by what ``share`` says of its service and
        endpoint. It is asked now, and again whenever policies change."""
        self.outbound.sampling = share
        self.outbound.sample(list(self._targets.values()))

    def now(self) -> float:
        """The instant by which its calls are judged (monotonic seconds)."""
        return self._now()

    # -- calling ------------------------------------------------------------------------------------

    async def call(
        self,
        target: Any,
        value: Any = None,
        returns: Any = msgspec.UNSET,
        options: Mapping[str, Any] = _NO_OPTIONS,
        parent: Context | None = None,
    ) -> Any:
        """One call, see :meth:`nats_mesh.mesh.Mesh.call`: as :meth:`request`, for the value alone."""
        timeout = None
        if options or self._chain is not None:
            timeout = options.get("timeout")
            if self._chain is not None or timeout is None or len(options) > 1:
                known, request, parent = self._prepare(target, value, returns, parent, **options)
                if self._chain is not None:
                    return (await self._chain(request)).value
                return (await self._sender.send(known, request, parent))[2]
        # Nothing else that _prepare() would have to look at: the target's own request, with what is new in it.
        try:
            known = self._targets[target]
        except (KeyError, TypeError):
            known = self._known(target)
        if known.routing is not None:
            known = known.routing.choose(NO_HEADERS)
        request = known.usual.__copy__()  # type: ignore[attr-defined]  # every Struct has one, in C
        request.value = value
        if returns is not msgspec.UNSET:
            request.returns = returns
        now = self._now()
        request.deadline = now + (known.timeout_s if timeout is None else check_timeout(known.where, timeout))
        if parent is None:
            parent = _get_context()
        if parent is not None:
            request.plain = parent.passes_on_trace_alone
            if parent.deadline < request.deadline and not parent.over:
                request.deadline = parent.deadline
        if now > known.learn_at:
            self._learn_soon(known)
        return (await self._sender.send(known, request, parent))[2]

    async def request(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = msgspec.UNSET,
        parent: Context | None = None,
        **options: Any,
    ) -> Reply[Any]:
        """One call, see :meth:`nats_mesh.mesh.Mesh.request`; ``parent`` is the call it is made from."""
        known, request, parent = self._prepare(target, value, returns, parent, **options)
        if self._chain is not None:
            return await self._chain(request)
        return await self._whole(known, request, parent)

    async def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = msgspec.UNSET,
        want: Any = "all",
        timeout: Any = None,
        headers: Any = None,
        codec: Any = None,
        parent: Context | None = None,
    ) -> Gathered[Any]:
        """See :meth:`nats_mesh.mesh.Mesh.gather`; ``parent`` is the call it is made from."""
        return await gather(
            self,
            target,
            value,
            returns=returns,
            want=want,
            timeout=timeout,
            headers=headers,
            codec=codec,
            parent=parent,
        )

    def _prepare(
        self,
        target: Any,
        value: Any,
        returns: Any,
        parent: Context | None,
        *,
        # Whatever the user gave: what it should have been is for the checks below to say.
        timeout: Any = None,
        headers: Any = None,
        raises: Any = (),
        idempotent: Any = None,
        idempotency_key: Any = None,
        priority: Any = None,
        codec: Any = None,
        **unknown: Any,
    ) -> tuple[Target, Request, Context | None]:
        """What a call is made of, out of its arguments and what is known of its target."""
        if unknown:
            raise ConfigError(f"a call has no option {next(iter(unknown))!r}; there are: {_OPTIONS}")
        known = self._known(target)
        if parent is None:
            parent = current_context.get()
        own = NO_HEADERS if headers is None and self._chain is None else OwnHeaders(headers)
        if known.routing is not None and self._chain is None:  # else where the interceptors are done with it
            known = known.routing.choose(own)
        if timeout is None:
            timeout_s = known.timeout_s
        else:
            timeout_s = check_timeout(known.where, timeout)
        if isinstance(raises, type):
            raises = (raises,)
        if idempotent is not None and not isinstance(idempotent, bool):
            raise ConfigError(f"{known.where}: idempotent must be True, False or None, got {idempotent!r}")
        if idempotency_key is not None:
            idempotency_key = plain_value("idempotency_key", idempotency_key)
        contract = known.contract
        if contract is not None:
            if returns is msgspec.UNSET:
                returns = contract.returns
            raises = (*raises, *contract.raises)
        now = self._now()
        if now > known.learn_at:
            self._learn_soon(known)
        # In the order of its fields: by keyword it costs twice as much, on the path of every call.
        request = Request(
            known.service,
            known.endpoint,
            self.name,
            self.namespace,
            value,
            own,
            deadline_for(now, timeout_s, None if parent is None or parent.over else parent.deadline),
            Any if returns is msgspec.UNSET else returns,
            codec or known.codec,
            raises,
            known.usual.idempotent if idempotent is None else idempotent,
            idempotency_key,
            priority,
            known.subject,
            self._chain is None
            and headers is None
            and priority is None
            and idempotency_key is None
            and (parent is None or parent.passes_on_trace_alone),
            known.subset or ALL,
        )
        if self._chain is not None:
            request.resolved = _Resolved(
                known, parent, now, request.deadline, timeout is not None, idempotent is not None
            )
        return known, request, parent

    async def _send_request(self, request: Request) -> Reply[Any]:
        """The end of the chain: what is left after the interceptors."""
        found: _Resolved = request.resolved
        known, parent = found.known, found.parent
        request.attempt = 1  # an interceptor may proceed more than once
        if known.routing is not None:
            known = known.routing.choose(request.headers)
            request.subject, request.route = known.subject, known.subset or ALL
            if self._now() > known.learn_at:
                self._learn_soon(known)
            # An interceptor may have shortened it: then that holds.
            if not found.own_timeout and request.deadline == found.deadline:
                bound = None if parent is None or parent.over else parent.deadline
                request.deadline = deadline_for(found.start, known.timeout_s, bound)
                request.resolved = found._replace(deadline=request.deadline)
            if not found.own_idempotent and request.idempotent is found.known.usual.idempotent:
                request.idempotent = known.usual.idempotent
        return await self._whole(known, request, parent)

    async def _whole(self, known: Target, request: Request, parent: Context | None) -> Reply[Any]:
        start = self._now()
        headers, instance, value = await self._sender.send(known, request, parent)
        return Reply(
            value,
            headers=partial(h.user_headers, headers),
            instance=instance,
            attempts=request.sent,
            duration_s=self._now() - start,
        )

    def _learn_soon(self, known: Target) -> None:
        """Ask, beside the call, what the endpoint declares: later calls use its timeout as their default."""
        known.learn_at = self._now() + _LEARN_EVERY_S
        self._background.start(self._learn(known))

    async def _learn(self, known: Target) -> None:
        found = await self.directory.find(known.service, timeout_s=2.0)
        if found is not None:  # who does not answer takes nothing back
            known.declared = Declared(
                found.timeout_s(known.endpoint),
                found.idempotent(known.endpoint),
                found.keyed(known.endpoint),
            )
            self.outbound.settle(known)

    def apply(self, policies: PolicySet) -> None:
        """Follow ``policies`` from the next call on; routes to a subset that has only just come wait for a moment."""
        self._hold.take(policies)

    def begin(self, policies: PolicySet) -> None:
        """Follow ``policies`` that were in effect before this client was there: their routes wait for nothing."""
        self._hold.begin(policies)

    @property
    def hold(self) -> RouteHold:
        """What makes those routes wait."""
        return self._hold

    def _apply(self, policies: PolicySet) -> None:
        self.outbound.apply(policies, self._targets.values())

    async def close(self) -> None:
        """Stop waiting for replies; calls in flight end with an error."""
        self._hold.close()
        await self.fleets.close()
        self._background.cancel_all()
        self.mux.shut()
        await self._background.join(1.0)

    def __repr__(self) -> str:
        return f"<Client {self.name} of {self.namespace}, {self.mux.pending} in flight>"


def _report(error: BaseException) -> None:
    log.error("asking a service for its declarations failed", exc_info=error)
