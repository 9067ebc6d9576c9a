"""The caller's side of a call: from a target and a value to a reply or an error that says why.

A :class:`Client` is one identity on one connection; :class:`~nats_mesh.mesh.Mesh` and the context of
a running service are two faces of it. What never changes for a target is resolved at its first call.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import msgspec

from nats_mesh.clock import Clock
from nats_mesh.context import Context, current_context
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S, check_timeout, deadline_for
from nats_mesh.discovery.directory import Directory
from nats_mesh.endpoint import Contract, contract_of
from nats_mesh.errors import (
    CallError,
    CodecError,
    ConfigError,
    DeadlineExceededError,
    Executed,
    NoInstancesError,
    RemoteError,
    Status,
)
from nats_mesh.exchange import (
    Target,
    UsualReplies,
    decode_value,
    encode_value,
    plain_head,
    plain_value,
    request_block,
)
from nats_mesh.layers.stack import compose
from nats_mesh.model import (
    NO_HEADERS,
    Interceptor,
    Next,
    OwnHeaders,
    Reply,
    Request,
    check_name,
)
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire import headers as h
from nats_mesh.wire.loop import CancelledError, Deadline, TaskPool, future_maker
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.outcome import decode_error, is_error
from nats_mesh.wire.subjects import Subjects, check_plain_subject
from nats_mesh.wire.transport import Transport

__all__ = ["Client"]

log = logging.getLogger("nats_mesh.client")

_MAX_TARGETS = 4096
#: An attribute of an enumeration costs a call each time it is looked up.
_OK, _UNKNOWN = Status.OK, Status.UNKNOWN
_NO_OPTIONS: Mapping[str, Any] = {}
_PLAIN = "nats://"
_LEARN_EVERY_S = 60.0


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
    ) -> None:
        self.name = check_name("caller", name)
        self.subjects = Subjects(namespace)
        self.namespace = namespace
        self.transport = transport
        self.mux = ReplyMux(transport, clock.monotonic)
        self.stats = stats
        self.directory = Directory(transport, self.mux, clock)
        self._clock = clock
        self._now: Callable[[], float] = clock.monotonic
        self._rng = rng
        self._targets: dict[Any, Target] = {}
        self._new_future = future_maker()
        self._replies = UsualReplies()
        self._background = TaskPool(_report)
        self._chain: Next | None = compose(interceptors, self._send_request) if interceptors else None

    # -- resolving ----------------------------------------------------------------------------------

    def _known(self, target: Any) -> Target:
        """What is known of a target; :class:`ConfigError` where it is none."""
        try:
            return self._targets.get(target) or self._resolve(target)
        except TypeError:  # it has no hash, so it is neither a name nor a function
            raise ConfigError(f"target {target!r:.80}: say 'service.endpoint' or 'nats://subject'") from None

    def _resolve(self, target: Any) -> Target:
        if isinstance(target, str):
            resolved = self._resolve_name(target)
        else:
            contract = contract_of(target)
            resolved = self._mesh_target(contract.service, contract.endpoint, contract)
        known = resolved.contract
        resolved.usual = Request(
            resolved.service,
            resolved.endpoint,
            self.name,
            self.namespace,
            None,
            NO_HEADERS,
            0.0,
            Any if known is None else known.returns,
            resolved.codec,
            () if known is None else known.raises,
            None if known is None else known.idempotent,
            subject=resolved.subject,
            plain=True,
        )
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.pop(next(iter(self._targets)))
        self._targets[target] = resolved
        return resolved

    def _resolve_name(self, target: str) -> Target:
        if target.startswith(_PLAIN):
            subject = check_plain_subject(target[len(_PLAIN) :])
            series = self.stats.series("out", "_PLAIN", "_OTHER", self.name)
            return Target("", subject, subject, "", series, None, self.mux.inbox(subject))
        service, dot, endpoint = target.partition(".")
        if not dot:
            raise ConfigError(f"target {target[:80]!r}: say 'service.endpoint' or 'nats://subject'")
        return self._mesh_target(check_name("service", service), check_name("endpoint", endpoint), None)

    def _mesh_target(self, service: str, endpoint: str, contract: Contract | None) -> Target:
        return Target(
            service,
            endpoint,
            self.subjects.rpc(service, endpoint, self.name),
            self.subjects.cancel(service, self.name),
            self.stats.series("out", service, endpoint, self.name),
            contract,
            self.mux.inbox(service),
        )

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
                return (await self._send(known, request, parent))[2]
        # Nothing else that _prepare() would have to look at: the target's own request, with what is new in it.
        try:
            known = self._targets[target]
        except (KeyError, TypeError):
            known = self._known(target)
        request = known.usual.__copy__()  # type: ignore[attr-defined]  # every Struct has one, in C
        request.value = value
        if returns is not msgspec.UNSET:
            request.returns = returns
        now = self._now()
        request.deadline = now + (known.timeout_s if timeout is None else check_timeout(known.where, timeout))
        if parent is None:
            parent = current_context.get()
        if parent is not None:
            request.plain = parent.passes_on_trace_alone
            if parent.deadline < request.deadline and not parent.over:
                request.deadline = parent.deadline
        if now > known.learn_at:
            self._learn_soon(known)
        return (await self._send(known, request, parent))[2]

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
    ) -> tuple[Target, Request, Context | None]:
        """What a call is made of, out of its arguments and what is known of its target."""
        known = self._known(target)
        if parent is None:
            parent = current_context.get()
        if timeout is None:
            timeout_s = known.timeout_s
        else:
            timeout_s = check_timeout(known.where, timeout)
        if isinstance(raises, type):
            raises = (raises,)
        if idempotency_key is not None:
            idempotency_key = plain_value("idempotency_key", idempotency_key)
        contract = known.contract
        if contract is not None:
            if returns is msgspec.UNSET:
                returns = contract.returns
            raises = (*raises, *contract.raises)
            idempotent = contract.idempotent if idempotent is None else idempotent
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
            NO_HEADERS if headers is None and self._chain is None else OwnHeaders(headers),
            deadline_for(now, timeout_s, None if parent is None or parent.over else parent.deadline),
            Any if returns is msgspec.UNSET else returns,
            codec or known.codec,
            raises,
            idempotent,
            idempotency_key,
            priority,
            known.subject,
            self._chain is None
            and headers is None
            and priority is None
            and idempotency_key is None
            and (parent is None or parent.passes_on_trace_alone),
        )
        if self._chain is not None:
            request.resolved = (known, parent)
        return known, request, parent

    async def _send_request(self, request: Request) -> Reply[Any]:
        """The end of the chain: what is left after the interceptors."""
        known, parent = request.resolved
        return await self._whole(known, request, parent)

    async def _whole(self, known: Target, request: Request, parent: Context | None) -> Reply[Any]:
        start = self._now()
        headers, instance, value = await self._send(known, request, parent)
        return Reply(
            value,
            headers=partial(h.user_headers, headers),
            instance=instance,
            attempts=request.attempt,
            duration_s=self._now() - start,
        )

    async def _send(self, known: Target, request: Request, parent: Context | None) -> tuple[bytes, str, Any]:
        """The call as it is counted; the header block of its reply, the instance that answered, and the value.

        Encode, write, wait, decode, in one coroutine: every further one costs each call about a quarter of a
        microsecond, and again at its reply. The loop goes round once more where nobody serves the mesh
        subject and a service of the NATS Services API does on one of its own.
        """
        start = now = self._now()
        mux, transport = self.mux, self.transport
        send = transport.send
        series = known.series
        series.in_flight += 1
        status = _UNKNOWN
        subject = known.subject
        try:
            payload, codec = encode_value(known.label, request.value, request.codec)
            while True:
                if not transport.ready:
                    await self._become_ready(request.deadline)
                    now = self._now()
                remaining = request.deadline - now
                if remaining <= 0:
                    raise DeadlineExceededError("no time was left before it was sent", executed=Executed.NO)
                future = self._new_future()
                alone = not mux.calls
                number = mux.expect(known.inbox, subject, future, request.deadline)
                try:
                    # Who waits alone has nobody to share a write with: another turn of the loop only costs time.
                    if alone:
                        transport.cork()
                    if request.plain and send is not None and subject is known.subject:
                        size = len(payload)
                        head = plain_head(known.line, number, size, codec, parent, remaining, now, self._rng)
                        send(head, payload)
                    else:
                        block = request_block(
                            request, parent, codec, remaining_s=remaining, now=now, rng=self._rng
                        )
                        transport.publish(subject, payload, f"{known.inbox}{number}", block)
                    if alone:
                        transport.uncork()
                    headers, body = await future
                # The mux forgets by itself who got a reply; whatever else ends the wait, it must be told.
                except BaseException as error:  # noqa: BLE001
                    mux.forget(known.inbox, number)
                    if alone:
                        transport.uncork()
                    raise self._broken_off(error, known, request, subject, number, start) from None
                try:
                    answer = self._read(known, request, headers, body)
                except NoInstancesError:
                    if not known.mesh or subject != known.subject:
                        raise
                    subject = await self._elsewhere(known, request)
                    now = self._now()
                else:
                    status = _OK
                    return answer
        except CallError as error:
            status = error.status
            error.service, error.endpoint = known.service, known.endpoint
            raise
        except CancelledError:
            status = Status.CANCELLED
            raise
        except (CodecError, ConfigError):
            status = Status.INVALID_ARGUMENT
            raise
        finally:
            series.in_flight -= 1
            series.record(self._now() - start, status)

    def _broken_off(
        self,
        error: BaseException,
        known: Target,
        request: Request,
        subject: str,
        number: int,
        start: float,
    ) -> BaseException:
        """What an attempt without a reply ends with; the instances are told that nobody waits any more."""
        if isinstance(error, CallError):
            error.attempts = 0 if error.executed is Executed.NO else request.attempt
            return error
        if not isinstance(error, (Deadline, CancelledError)):
            return error  # nothing was sent
        if known.mesh and subject == known.subject:
            self._cancel(known, f"{known.inbox}{number}")
        if isinstance(error, CancelledError):
            return error
        return DeadlineExceededError(
            f"no answer in {self._now() - start:.3f} s", executed=Executed.MAYBE, attempts=request.attempt
        )

    def _cancel(self, known: Target, reply_to: str) -> None:
        """Tell the instances that nobody waits for this attempt any more."""
        if self.transport.connected:
            self.transport.publish(known.cancel, reply_to.encode(), self.mux.one_way(known.service))

    async def _become_ready(self, deadline: float) -> None:
        """Wait for the connection, or for its socket to take bytes again, but not beyond the deadline."""
        transport = self.transport
        remaining = deadline - self._now()
        if remaining <= 0:
            return
        if not transport.connected:
            await transport.wait_connected(min(remaining, transport.reconnect_grace_s))
        elif transport.congested:
            await self._drained(remaining)

    async def _drained(self, remaining_s: float) -> None:
        """Wait for the socket to take bytes again, but not beyond the deadline."""
        with anyio.move_on_after(remaining_s):
            await self.transport.writable()

    # -- answering ----------------------------------------------------------------------------------

    def _read(self, known: Target, request: Request, headers: bytes, body: bytes) -> tuple[bytes, str, Any]:
        """The reply's header block, who answered, and the value; or the error that the reply is."""
        usual = self._replies.known.get(headers)
        if usual is None:
            return self._read_any(known, request, headers, body)
        try:
            return headers, usual.instance, known.usual_value(usual.codec, body, request.returns)
        except CodecError as error:
            raise CodecError(f"{known.label}: {error}") from None

    def _read_any(
        self, known: Target, request: Request, headers: bytes, body: bytes
    ) -> tuple[bytes, str, Any]:
        """Any reply: a refusal of the server, an error, or a value in whatever it says."""
        if headers:
            code = h.server_status(headers)
            if code == 503:
                raise NoInstancesError("nobody listens there")
            if code is not None and code >= 400:  # JetStream's way to say no, without a body
                text = h.one_line(headers.partition(b"\r\n")[0][9:].decode("utf-8", "replace"))
                raise RemoteError(
                    f"answered {text}",
                    status=Status.from_code(code),
                    executed=Executed.MAYBE,
                    attempts=request.attempt,
                )
            if is_error(headers):
                raise decode_error(
                    headers,
                    body,
                    service=known.service,
                    endpoint=known.endpoint,
                    attempts=request.attempt,
                    raises=request.raises,
                )
            self._replies.learn(headers)
        try:
            value = decode_value(headers, body, request.returns)
        except CodecError as error:
            raise CodecError(f"{known.label}: {error}") from None
        instance = h.field(headers, h.INSTANCE)
        return headers, "" if instance is None else instance.decode("ascii", "replace"), value

    async def _elsewhere(self, known: Target, request: Request) -> str:
        """Nobody serves the mesh subject: a service of the NATS Services API may, on a subject of its own."""
        found = await self.directory.find(
            known.service, timeout_s=min(1.0, max(0.001, request.deadline - self._now()))
        )
        foreign = None if found is None else found.foreign_subject(known.endpoint)
        if foreign is not None:
            return foreign
        text = f"nobody serves {known.service!r} in namespace {self.namespace!r}; is it running?"
        if found is not None and found.namespaces and self.namespace not in found.namespaces:
            there = ", ".join(repr(n) for n in sorted(found.namespaces))
            text = f"{known.service!r} runs in namespace {there}, this caller is in {self.namespace!r}"
        elif found is not None and not found.namespaces:
            there = ", ".join(sorted(found.endpoints)) or "none"
            raise RemoteError(
                f"the service has no endpoint {known.endpoint!r}; it has: {there}",
                status=Status.UNIMPLEMENTED,
                executed=Executed.NO,
                attempts=request.attempt,
            )
        raise NoInstancesError(text, attempts=request.attempt)

    def _learn_soon(self, known: Target) -> None:
        """Ask, beside the call, what the endpoint declares: later calls use its timeout as their default."""
        known.learn_at = self._now() + _LEARN_EVERY_S
        self._background.start(self._learn(known))

    async def _learn(self, known: Target) -> None:
        found = await self.directory.find(known.service, timeout_s=2.0)
        if found is not None:  # who does not answer takes nothing back
            declared = found.timeout_s(known.endpoint)
            known.timeout_s = DEFAULT_TIMEOUT_S if declared is None else declared

    async def close(self) -> None:
        """Stop waiting for replies; calls in flight end with an error."""
        self._background.cancel_all()
        self.mux.shut()
        await self._background.join(1.0)

    def __repr__(self) -> str:
        return f"<Client {self.name} of {self.namespace}, {self.mux.pending} in flight>"


def _report(error: BaseException) -> None:
    log.error("asking a service for its declarations failed", exc_info=error)
