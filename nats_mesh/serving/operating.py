"""What operators do to a running instance: drain it, take that back, inject faults, log more.

Commands come on ``control.command.<service>.<instance or all>.<operator>`` and are answered on their reply subject.
A message that does not name an inbox of its operator is dropped undecoded, as everywhere; so is what is no command
at all. Both are counted. Whatever was done is an event, too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine

import anyio
import msgspec

from nats_mesh.clock import Clock
from nats_mesh.config.follower import ConfigFollower
from nats_mesh.core.fault import EVERY, Fault
from nats_mesh.core.presence import State
from nats_mesh.core.seldom import worth_saying
from nats_mesh.discovery.announcer import Announcer
from nats_mesh.discovery.commands import (
    MAX_OPERATOR,
    MAX_REASON,
    Answer,
    CheckConfig,
    Command,
    Drain,
    FaultCommand,
    LogLevel,
    Undrain,
    decode_command,
    encode,
)
from nats_mesh.errors import CallError, CodecError, ConfigError, Status
from nats_mesh.model import is_name
from nats_mesh.serving.dispatch import Dispatcher
from nats_mesh.serving.log_levels import LogLevels
from nats_mesh.serving.seats import Seats
from nats_mesh.telemetry.events import Events
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.loop import TaskPool, Timer, call_later
from nats_mesh.wire.subjects import ALL, Subjects, reply_allowed
from nats_mesh.wire.transport import Transport

__all__ = ["Operating"]

log = logging.getLogger("nats_mesh.operating")

#: ``mesh.<ns>.control.command.<service>.<instance or all>.<operator>``
_TOKENS = 7
#: Commands that may wait for the one before them.
_MAX_PENDING = 16
#: Who drains where a command says so.
_OPERATOR = "an operator"


class Operating:
    """Obeys the operators of one instance. ``dropped`` counts what was not believed, by reason."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        display_name: str,
        subjects: Subjects,
        transport: Transport,
        clock: Clock,
        enforced: bool,
        dispatcher: Dispatcher,
        seats: Seats,
        announcer: Announcer,
        events: Events,
        config: ConfigFollower | None = None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._service = service
        self._instance = instance
        self._name = display_name
        self._transport = transport
        self._now: Callable[[], float] = clock.monotonic
        self._enforced = enforced
        self._dispatcher = dispatcher
        self._seats = seats
        self._announcer = announcer
        self._events = events
        self._config = config
        self._turn = anyio.Lock()
        self._drained_by: set[str] = set()
        self._pool = TaskPool(_report)
        self._timer: Timer | None = None
        self._levels = LogLevels(self._level_ended)
        self._subscription = transport.subscribe(subjects.command_of(service), self._on_command)

    # -- hearing ------------------------------------------------------------------------------------

    def _on_command(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        parts = subject.split(".")
        if len(parts) != _TOKENS or not is_name(parts[6]) or parts[6] == ALL:
            self._drop("malformed", subject)
            return
        if parts[5] not in (self._instance, ALL):
            return
        operator = parts[6]
        if not reply_allowed(reply, operator, enforced=self._enforced):
            self._drop("forged", subject)
            return
        try:
            command = decode_command(payload)
            if isinstance(command, Drain):
                self._later(self.drain(_by(operator, command), _OPERATOR), reply)
            elif isinstance(command, Undrain):
                self._later(self.undrain(_by(operator, command), _OPERATOR), reply)
            elif isinstance(command, FaultCommand):
                self._answer(reply, True, self._fault(command, _by(operator, command)))
            elif isinstance(command, LogLevel):
                self._answer(reply, True, self._log_level(command, _by(operator, command)))
            elif isinstance(command, CheckConfig):
                self._answer(reply, True, self._check_config(command))
        except CodecError:
            self._drop("malformed", subject)
        except ConfigError as error:
            self._answer(reply, False, str(error))

    def _check_config(self, command: CheckConfig) -> str:
        if self._config is None:
            raise ConfigError(f"{self._service} declares no configuration (Service(…, config=))")
        self._config.check(bytes(command.value))
        return "it fits"

    def _later(self, work: Coroutine[None, None, str], reply: str) -> None:
        if len(self._pool) >= _MAX_PENDING:
            work.close()
            raise ConfigError(f"{_MAX_PENDING} commands wait for their turn already; try again")
        self._pool.start(self._do(work, reply))

    async def _do(self, work: Coroutine[None, None, str], reply: str) -> None:
        try:
            self._answer(reply, True, await work)
        except ConfigError as error:
            self._answer(reply, False, str(error))

    def _answer(self, reply: str, done: bool, message: str) -> None:
        answer = Answer(
            instance=self._instance,
            service=self._service,
            name=self._name,
            done=done,
            message=one_line(message, 1024),
            state=self._announcer.state,
            in_flight=self._dispatcher.in_flight,
        )
        try:
            self._transport.publish(reply, encode(answer))
        except CallError as error:  # away: the operator hears nothing, and the event says what was done
            log.warning("%s could not answer an operator: %s", self._service, error.message)

    def _drop(self, reason: str, subject: str) -> None:
        self.dropped[reason] += 1
        count = self.dropped[reason]
        if worth_saying(count):
            log.warning("dropped a command on %a: %s (%d so far)", subject[:256], reason, count)

    # -- draining -----------------------------------------------------------------------------------

    async def drain(self, why: str, who: str) -> str:
        """Take no more calls and finish what is held, but go on living; says what was done.

        In the order in which an instance leaves: presence first, because callers that choose instances learn by it;
        then the queue groups; a fence; and only then what still comes, from who has not heard, is refused. It lasts
        until ``who`` (a word for what asked for it) takes it back, or an operator does. :class:`ConfigError` where it
        cannot be.
        """
        async with self._turn:
            self._check_running()
            self._drained_by.add(who)
            if self._seats.aside:
                return f"it is draining already and holds {self._dispatcher.in_flight} calls"
            self._announcer.change(State.DRAINING)
            self._seats.stand_aside(True)
            self._dispatcher.resume_all()

            await self._settled()
            self._dispatcher.shut()
            text = f"draining, {self._dispatcher.in_flight} calls are held"
            self._events.emit(EventKind.INSTANCE_DRAINING, self._instance, f"{why}: {text}")
            log.warning("%s drains, %s; it takes calls again when it is told to", self._service, why)
            return text

    async def undrain(self, why: str, who: str) -> str:
        """Take calls again, unless somebody else drained it too; an operator's word counts against everybody's.

        :class:`ConfigError` where it cannot be.
        """
        async with self._turn:
            self._check_running()
            if not self._seats.aside:
                return "it takes calls already"
            self._drained_by.discard(who)
            if who == _OPERATOR:
                self._drained_by.clear()
            if self._drained_by:
                return f"it goes on draining, for {', '.join(sorted(self._drained_by))}"
            self._dispatcher.shut(closed=False)
            self._seats.stand_aside(False)
            await self._settled()
            self._announcer.change(State.READY)
            self._events.emit(EventKind.INSTANCE_UNDRAINED, self._instance, f"{why}: it takes calls again")
            log.warning("%s takes calls again, %s", self._service, why)
            return "it takes calls again"

    def _check_running(self) -> None:
        if self._seats.left:
            raise ConfigError("the instance is leaving for good")
        if self._announcer.state is State.JOINING:
            raise ConfigError("the instance is still starting; try again")

    async def _settled(self) -> None:
        """Wait until the server knows the subscriptions; where the bus is away, it will know them when it is back."""
        try:
            await self._transport.fence()
        except CallError as error:
            log.warning("%s: the bus does not confirm it: %s", self._service, error.message)
        self._check_running()

    # -- faults -------------------------------------------------------------------------------------

    def _fault(self, command: FaultCommand, by: str) -> str:
        endpoint, dispatcher = command.endpoint, self._dispatcher
        if endpoint != EVERY and endpoint not in dispatcher.served:
            known = ", ".join(sorted(dispatcher.served))
            raise ConfigError(f"{self._service} has no endpoint {endpoint!r}; it has: {known[:512]}")
        if command.clear:
            ended = dispatcher.faults.clear(endpoint)
            self._compose()
            dispatcher.resume_all()
            if not ended:
                return "there was no fault to clear"
            text = f"cleared {', '.join(name or 'that of all endpoints' for name in ended)}"
            self._events.emit(EventKind.FAULT_CLEARED, self._target(endpoint), f"{by}: {text[:300]}")
            return text
        fault = Fault(
            until=self._now() + command.for_ms / 1000.0,
            delay_s=command.delay_ms / 1000.0,
            abort=_status(command.abort) if command.abort else None,
            share=command.share,
        )
        dispatcher.faults.set(endpoint, fault)
        self._compose()
        text = f"{fault} of {endpoint or 'every endpoint'}, for {command.for_ms / 1000.0:g} s"
        self._events.emit(
            EventKind.FAULT_SET,
            self._target(endpoint),
            f"{by}: {text}",
            share=command.share,
            for_ms=command.for_ms,
        )
        log.warning("%s: a fault is injected, %s: %s", self._service, by, text)
        return text

    def _target(self, endpoint: str) -> str:
        return f"{self._service}.{endpoint}" if endpoint else self._service

    def _compose(self) -> None:
        """The faults are others now: so are the chains, until the next of them ends."""
        self._dispatcher.compose()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._dispatcher.faults.next_end()
        if end is not None:
            self._timer = call_later(max(0.0, end - self._now()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for endpoint in self._dispatcher.faults.expire(self._now()):
            self._events.emit(EventKind.FAULT_ENDED, self._target(endpoint), "its time is over")
        self._compose()

    def metadata(self) -> dict[str, str]:
        """The faults that are set, for whoever asks (``mesh.faults`` of ``$SRV.INFO``)."""
        now = self._now()
        listed = [
            {
                "endpoint": endpoint,
                "delay_ms": round(fault.delay_s * 1000.0, 3),
                "abort": fault.abort,
                "share": fault.share,
                "left_ms": round((fault.until - now) * 1000.0),
            }
            for endpoint, fault in self._dispatcher.faults.active(now)
        ]
        return {"mesh.faults": msgspec.json.encode(listed).decode()} if listed else {}

    # -- logging ------------------------------------------------------------------------------------

    def _log_level(self, command: LogLevel, by: str) -> str:
        if command.level == "RESET":
            text = self._levels.reset(command.logger)
        else:
            for_s = None if command.for_ms is None else command.for_ms / 1000.0
            text = self._levels.set(command.logger, command.level, for_s)
        self._events.emit(EventKind.LOG_LEVEL, self._instance, f"{by}: {text}")
        return text

    def _level_ended(self, name: str, level: str) -> None:
        text = f"the time is over: {name} logs {level} and above again"
        self._events.emit(EventKind.LOG_LEVEL, self._instance, text)

    def close(self) -> None:
        """Obey no more."""
        self._pool.cancel_all()
        self._levels.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.unsubscribe(self._subscription)


def _by(name: str, command: Command) -> str:
    """Who says so, and why: first the ``name`` that the bus vouches for, then what he calls himself."""
    said = one_line(command.operator, MAX_OPERATOR) if command.operator.strip() else ""
    reason = one_line(command.reason, MAX_REASON) if command.reason.strip() else ""
    more = ": ".join(each for each in (said if said != name else "", reason) if each)
    return f"by {name} ({more})" if more else f"by {name}"


def _status(name: str) -> Status:
    try:
        return Status(name.upper())
    except ValueError:
        raise ConfigError(
            f"{name[:40]!a} is no status; use one of {', '.join(s for s in Status if s is not Status.OK)}"
        ) from None


def _report(error: BaseException) -> None:
    log.error("a command failed", exc_info=error)
