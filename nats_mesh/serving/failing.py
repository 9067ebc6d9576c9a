"""What a caller is told where the handler does not end with a value: what was meant for it, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from nats_mesh.calling.condition import display_name
from nats_mesh.errors import ApplicationError, CallError, DeadlineExceededError, Refused, Status
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.duplicates import DuplicateError
from nats_mesh.serving.handling import UndecodableError
from nats_mesh.serving.replier import Replier
from nats_mesh.telemetry.series import FAILURES
from nats_mesh.wire.loop import CancelledError, being_cancelled

__all__ = ["Failing"]

log = logging.getLogger("nats_mesh.instance")

#: What a caller learns of an error that the endpoint does not declare; the details go to the log.
INTERNAL_TEXT: Final = "internal error"


class Failing:
    """Answers the calls of one service that have failed after they were let in."""

    __slots__ = ("_now", "_replier", "_service")

    def __init__(self, service: str, replier: Replier, now: Callable[[], float]) -> None:
        self._service = service
        self._replier = replier
        self._now = now

    def failed(self, call: Arrival, error: BaseException) -> None:
        """Its handler has raised ``error``, its body could not be read, or it was stopped."""
        if isinstance(error, CancelledError):
            if call.ended or being_cancelled():
                call.ended = call.ended or "shutdown"  # whoever ends the call says so
            else:  # the handler awaited something that was cancelled
                self._internal(call, error)
        elif isinstance(error, UndecodableError):
            self._replier.fail(call, Status.INVALID_ARGUMENT, str(error), refused=Refused.INVALID)
        elif isinstance(error, DuplicateError):
            self._replier.fail(
                call,
                error.status,
                str(error),
                refused=error.refused,
                retry_after_s=error.retry_after_s,
                maybe=error.maybe,
            )
        elif isinstance(error, CallError):
            try:
                self._handler_error(call, error)
            # Its text and details are whatever the handler put there; where they cannot be written, that is it.
            except Exception as failure:  # noqa: BLE001
                self._internal(call, failure)
        else:
            self._internal(call, error)

    def _handler_error(self, call: Arrival, error: CallError) -> None:
        """An error of the mesh's own kind left the handler: what was meant for the caller travels."""
        if error.service and type(error) not in call.kind.endpoint.raises:
            # It came from a call the handler made. That is this endpoint's inner affair, except for the time.
            if isinstance(error, DeadlineExceededError) and self._now() >= call.deadline - 0.001:
                text = f"the time ran out in a call to {error.service}.{error.endpoint}"
                call.series.last_error = f"{Status.DEADLINE_EXCEEDED}: {text}"
                self._replier.fail(call, Status.DEADLINE_EXCEEDED, text)
            else:
                self._internal(call, error)
            return
        kind = "" if type(error) in (ApplicationError, CallError) else type(error).__name__
        if error.status in FAILURES:  # its text is for the caller alone
            call.series.last_error = f"{error.status}: the handler raised {type(error).__name__}"
        self._replier.fail(
            call,
            error.status,
            error.message,
            kind=kind if isinstance(error, ApplicationError) else "",
            details=dict(error.details),
            retry_after_s=error.retry_after_s,
        )

    def _internal(self, call: Arrival, error: BaseException) -> None:
        name = call.kind.endpoint.name
        log.error(
            "%s.%s, called by %s, failed", self._service, name, call.caller, exc_info=error,
            extra={"service": self._service, "endpoint": name, "caller": call.caller},
        )  # fmt: skip
        # Anybody may ask for statistics, and the text is not meant for anybody.
        cause = f"{_kind_of(error)} (its text is in the log of {display_name()})"
        call.series.last_error = cause
        self._replier.fail(call, Status.INTERNAL, INTERNAL_TEXT)
        call.problem = (
            f"{INTERNAL_TEXT}; at the instance {cause}"  # for operators; what the caller got is on its way
        )


def _kind_of(error: BaseException) -> str:
    """What kind of error it was, and from whom it came where it was the answer to another call: no word of its text."""
    kind = type(error).__name__
    if isinstance(error, CallError) and error.endpoint:
        whose = f"{error.service}.{error.endpoint}" if error.service else error.endpoint
        return f"{kind} from {whose}: {error.status}"
    return kind
