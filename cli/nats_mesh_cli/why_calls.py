"""The calls of a trace, and what became of each at both of its ends, step by step. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nats_mesh.calling.spans import GIVEN_UP, UNSENT
from nats_mesh.core.sampling import failed
from nats_mesh.layers.base import PLAIN as PLAIN_ROUTE
from nats_mesh.telemetry.series import PLAIN
from nats_mesh.telemetry.span_parts import RecordedSpan
from nats_mesh.telemetry.spans import Placed, Trace, refused_by
from nats_mesh_cli.output import Record, counted, millis

__all__ = ["calls_of", "steps_of"]

_SHORT = 8
_BREAKER: Final = "breaker"
_OVERLOAD: Final = "UO"
_FLAGS: Final = {
    "UH": "nobody serves it",
    "UT": "its time was up",
    "UO": "the breaker was open, or as many calls ran as may",
    "URX": "no other attempt was allowed",
    "RL": "its rate is limited",
    "DC": "its caller gave it up",
    "FI": "a fault was injected: it was aborted on purpose",
    "DI": "a delay was injected",
    "NR": "there is no such endpoint",
}


class _Call:
    """One call: the caller's span, those of its attempts, and what instances did. ``sampled``: its trace is, so that
    instances tell of what went well, too."""

    def __init__(self, placed: Placed, *, sampled: bool) -> None:
        self.first = placed
        self.sampled = sampled
        self.attempts: list[Placed] = []
        self.answered: list[Placed] = []


def _calls(trace: Trace) -> Iterator[_Call]:
    calls: dict[str, _Call] = {}
    sampled = any(span.why == "sampled" for span in trace.spans)
    for placed in trace.placed:
        span = placed.span
        if span.kind == "client":
            calls[span.id] = call = _Call(placed, sampled=sampled)
        elif span.kind == "attempt":
            above = calls.get(span.parent)
            if above is None:
                continue
            above.attempts.append(placed)
            calls[span.id] = above
            continue
        else:
            above = calls.get(span.parent)
            if above is not None:
                above.answered.append(placed)
                continue
            call = _Call(placed, sampled=sampled)  # what its caller told of it is not there
            call.answered.append(placed)
        yield call


def calls_of(trace: Trace) -> list[Record]:
    """The calls in the order in which they were made, each with its steps on both sides."""
    found = []
    for call in list(_calls(trace)):  # what comes later belongs to those before
        span = call.first.span
        found.append(
            {
                "caller": span.caller,
                "service": span.service,
                "endpoint": span.endpoint,
                "status": span.status,
                "failed": failed(span.status),
                "offset_ms": call.first.offset_us / 1e3,
                "duration_ms": span.took_us / 1e3,
                "route": span.route,
                "told_by_caller": span.kind == "client",
                "steps": list(steps_of(call)),
            }
        )
    return found


def steps_of(call: _Call) -> Iterator[Record]:
    """What was decided about a call, in order, and by whom."""
    span = call.first.span
    if span.kind == "client":
        yield from _at_caller(call, span)
    for placed in call.answered:
        yield from _at_instance(call, placed)
    if span.kind == "client" and span.error.startswith(GIVEN_UP):
        yield _step("outbound", "outcome", span.error, ok=False)
    elif span.kind == "client" and (span.flags or span.error):
        reasons = [_flag_text(flag, call) for flag in span.each_flag if flag in _FLAGS]
        text = f"its caller was told: {span.status}" + (f", {span.error}" if span.error else "")
        yield _step("outbound", "outcome", "; ".join([text, *reasons]), ok=False)


def _flag_text(flag: str, call: _Call) -> str:
    """What a flag says; of the one that stands for two things, which of them it was, where anybody tells."""
    if flag == _OVERLOAD:
        if refused_by(call.first.span) == _BREAKER:
            return "the breaker was open"
        if any(placed.span.refused == "concurrency" for placed in call.answered):
            return "as many calls ran as may"
    return _FLAGS[flag]


def _at_caller(call: _Call, span: RecordedSpan) -> Iterator[Record]:
    if span.rules:
        yield _step("outbound", "route", f"sent to {_aim(span)} by {', then '.join(span.rules)}")
    elif span.route not in ("all", ""):
        yield _step("outbound", "route", f"sent to {_aim(span)}")
    if span.fault_us:
        yield _step(
            "outbound", "fault", f"{_by_whom(span)} held it back for {millis(span.fault_us / 1e6)} on purpose"
        )
    if call.attempts:
        sent = span.attempt - len(call.attempts)
        hedged = f", and {sent} more beside them" if sent > 0 else ""
        yield _step("outbound", "retry", f"{counted(len(call.attempts), 'attempt')}{hedged}")
        for placed in call.attempts:
            each = placed.span
            after = millis((placed.offset_us - call.first.offset_us) / 1e6)
            text = f"attempt {each.attempt}, after {after}: {each.status} in {millis(each.took_us / 1e6)}"
            text += f" from {each.instance[:_SHORT]}" if each.instance else ""
            layer = "attempt"
            if refused := refused_by(each):
                text = f"attempt {each.attempt}, after {after}: not sent, {each.error}"
                layer = refused
            elif each.error:  # it was on its way, or answered
                text += f", {each.error}"
            yield _step("outbound", layer, text, ok=not failed(each.status))
    elif refused := refused_by(span):
        yield _step("outbound", refused, f"not sent: {span.error or span.status}", ok=False)
    elif "FI" in span.each_flag and not call.answered and not span.instance:
        yield _step("outbound", "fault", f"not sent: {span.error}", ok=False)
    elif not call.answered and not span.instance and span.status != "OK":
        yield _step("outbound", "attempt", _untold(call, span), ok=False)
    if not call.answered and (span.instance or span.status == "OK"):
        yield _step("outbound", "answer", _answered_untold(call, span))


def _untold(call: _Call, span: RecordedSpan) -> str:
    """What is known of a call that no layer of its caller kept back, and of which no instance told."""
    if span.error.endswith(UNSENT):
        return "not sent: its caller gave it up before"
    if "UH" in span.each_flag:
        return "sent, and nobody listens there"
    text = "sent; no instance told of it: a silent instance, or it was lost"
    # What goes well is not told of by instances where its trace is not sampled.
    return text if call.sampled else f"{text}, or answered too late"


def _answered_untold(call: _Call, span: RecordedSpan) -> str:
    """What is known of a call that was answered, and of which no instance told."""
    if span.service == PLAIN or span.route == PLAIN_ROUTE:
        return "answered from outside the mesh, where nobody tells of calls"
    if not span.instance:
        return (
            "answered, by whom is not known, and nobody told of it: what its instance told was lost, or it is "
            "outside the mesh"
        )
    who = f"answered by {span.service} {span.instance[:_SHORT]}"
    if not call.sampled and not failed(span.status):
        return f"{who}, which tells of what is no failure only where its trace is sampled"
    return f"{who}, which told nothing of it: it hangs, was stopped or has left, or what it told was lost"


def _by_whom(span: RecordedSpan) -> str:
    """The rules that a call met, for what one of them did to it."""
    return " or ".join(span.rules) or "a route"


def _aim(span: RecordedSpan) -> str:
    return f"{span.service}.{span.endpoint}" + (
        f", subset {span.route}" if span.route not in ("all", "direct", "plain", "") else ""
    )


def _at_instance(call: _Call, placed: Placed) -> Iterator[Record]:
    span = placed.span
    who = f"{span.service} {span.member_instance[:_SHORT]} ({span.version})"
    sent = next((each for each in call.attempts if each.span.id == span.parent), call.first)
    way = placed.offset_us - sent.offset_us
    came = f"came to {who}"
    if sent.span.kind != "server":
        came += f" {millis(max(0, way) / 1e6)} after it was sent"
    if span.route not in ("all", ""):
        came += f", by {span.route}"
    yield _step("inbound", "arrival", came)
    if span.refused:
        yield _step("inbound", span.refused, f"not let in: {span.error or span.refused}", ok=False)
        return
    if span.fault_us:
        held = f"an operator's fault held it back for {millis(span.fault_us / 1e6)} (nats-mesh fault --delay)"
        yield _step("inbound", "fault", held)
    if span.injected == "abort":
        text = (
            f"an operator's fault ended it: {span.status}, the handler did not run (nats-mesh fault --abort)"
        )
        yield _step("inbound", "fault", text, ok=False)
        return
    if span.injected and not span.fault_us:  # told by who does not say for how long
        yield _step("inbound", "fault", f"an operator's fault: {span.injected}")
    ran = max(0, span.took_us - span.queue_us - span.fault_us)
    text = f"waited {millis(span.queue_us / 1e6)}, then ran for {millis(ran / 1e6)}: {span.status}"
    if failed(span.status) and span.error:
        text += f", {span.error}"
    yield _step("inbound", "handler", text, ok=not failed(span.status))


def _step(side: str, layer: str, happened: str, *, ok: bool = True) -> Record:
    return {"side": side, "layer": layer, "happened": happened, "ok": ok}
