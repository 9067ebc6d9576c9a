"""Why the mesh itself ended a call, in the words that Envoy's access log has for it.

``UH`` no instances, ``UT`` out of time, ``UO`` breaker or concurrency, ``URX`` retries exhausted, ``RL`` rate limited,
``DC`` given up by its caller, ``FI``/``DI`` injected fault/delay, ``NR`` no such endpoint. Several stand with a comma
between, as there. What the application answered has none, whatever its status. Nothing of this is asked of a call
that went well.
"""

from __future__ import annotations

from typing import Final

from nats_mesh.errors import (
    ApplicationError,
    CallError,
    CircuitOpenError,
    Executed,
    NoInstancesError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.telemetry.series import FAILURES, Series

__all__ = ["FLAGS", "NEXT_TRY", "flags_of_ended", "flags_of_error", "flags_of_refusal", "note_end"]

#: Behind it stands how long a circuit refuses calls from now on.
NEXT_TRY: Final = "; next try in "
FLAGS: Final = ("UH", "UT", "UO", "URX", "RL", "DC", "FI", "DI", "NR")

_REFUSED: Final = {
    Refused.CONCURRENCY: "UO",
    Refused.RATE: "RL",
    Refused.QUOTA: "RL",
    Refused.DEADLINE: "UT",
    Refused.UNIMPLEMENTED: "NR",
}
#: By why the instance stopped the handler.
_ENDED: Final = {"deadline": "UT", "cancelled": "DC"}
_INJECTED: Final = {"abort": "FI", "delay": "DI"}


def flags_of_error(error: CallError) -> str:
    """Why a caller's call failed; empty where that was the application's affair, or the bus was away."""
    if error.fault:
        return _INJECTED.get(error.fault, "")
    if error.refused is not None:
        return _REFUSED.get(error.refused, "")
    if isinstance(error, CircuitOpenError):
        return "UO"
    if isinstance(error, NoInstancesError):
        return "UH"
    if error.status is Status.DEADLINE_EXCEEDED:
        return "UT"
    return "NR" if error.status is Status.UNIMPLEMENTED and error.executed is Executed.NO else ""


def flags_of_refusal(refused: Refused | None, injected: str) -> str:
    """Why an instance did not let a call in."""
    if refused is not None:
        return _REFUSED.get(refused, "")
    return _INJECTED.get(injected, "")


def flags_of_ended(why: str, injected: str) -> str:
    """Why an instance stopped a call that it had let in, and that it delayed it on purpose before."""
    return ",".join(found for found in (_ENDED.get(why, ""), _INJECTED.get(injected, "")) if found)


def note_end(
    series: Series,
    took_s: float,
    status: Status,
    problem: BaseException | None,
    tried: int,
    retried: int,
    exhausted: bool,
    *,
    delayed: bool,
) -> str:
    """Count a call of its caller's that was not usual: its status and duration, attempts beyond the first, flags, which
    are returned, and why it failed, where that is no fault of the caller's own.

    ``tried`` is how many attempts were written, ``retried`` how many of these came after one had failed, ``exhausted``
    whether no other was allowed, ``delayed`` whether a route held it back on purpose.
    """
    series.extra += tried - 1
    failed = problem is not None
    if retried > 0:
        series.retried_failed += retried if failed else retried - 1
        series.retried_ok += 0 if failed else 1
    flags = []
    if isinstance(problem, CallError):
        flags.append(flags_of_error(problem))
        if retried > 0 and exhausted:
            flags.append("URX")
    elif status is Status.CANCELLED:
        flags.append("DC")
    if delayed and "DI" not in flags:
        flags.append("DI")
    text = ",".join(filter(None, flags))
    # What was refused unsent took no time that says anything of whoever was called.
    series.end(took_s if tried > 0 else None, status, text)
    # What opened a circuit says more than that it is open, and would be gone with the next call.
    refused = isinstance(problem, CircuitOpenError) and series.last_error_text
    if failed and status in FAILURES and not refused:
        series.last_error = _said(status, problem, text)
    return text


def _said(status: Status, problem: BaseException | None, flags: str) -> str:
    """A failure in words that anybody may read: the mesh's own in full, of others no more than what they are."""
    if isinstance(problem, CallError):
        answered = problem.executed is Executed.YES or type(problem) is RemoteError
        # A call may have flags for another reason than its error, whose text a handler wrote for its caller alone.
        own = not answered or problem.refused is not None or problem.fault
        if flags and own and problem.message:
            # What counts down is wrong as soon as it is remembered.
            return f"{status}: {problem.message.partition(NEXT_TRY)[0]}"
        if answered or isinstance(problem, ApplicationError):
            return f"{status}, as its instance answered"
    return f"{status}: {type(problem).__name__}"
