"""Traces as ``-o json`` shows them, and the words for what a span is. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.clock import rfc3339
from nats_mesh.core.sampling import failed
from nats_mesh.core.slowness import uncovered
from nats_mesh.telemetry.spans import Placed, Skew, Summary, Trace, summary_of
from nats_mesh_cli.output import Record, counted, millis

__all__ = ["document_of", "notes_of", "reasons_of", "record_of", "sampled", "took_text", "where_of"]

_SHORT = 8
#: What a layer of its caller means that did not send a call, where its name alone does not say it.
_LAYERS: Final = {
    "breaker": "circuit open",
    "fault": "a route's fault",
    "deadline": "no time left",
    "wire": "bus away, or too many calls wait",
    "encode": "value not encodable",
}
#: The flags that say the same as a refusal.
_TOLD: Final = {
    "breaker": {"UO"},
    "concurrency": {"UO"},
    "rate": {"RL"},
    "quota": {"RL"},
    "deadline": {"UT"},
    "unimplemented": {"NR"},
}
_FLAGS: Final = {
    "UH": "no instances",
    "UT": "out of time",
    "UO": "circuit open, or full",
    "URX": "retries exhausted",
    "RL": "rate limited",
    "DC": "given up by its caller",
    "NR": "no such endpoint",
}


def record_of(summary: Summary) -> Record:
    """A trace of a list."""
    return {
        "trace": summary.trace,
        "at": rfc3339(summary.start_us / 1e6),
        "caller": summary.caller,
        "service": summary.service,
        "endpoint": summary.endpoint,
        "duration_ms": summary.root_us / 1e3,
        "total_ms": summary.took_us / 1e3,
        "after_ms": summary.after_us / 1e3,
        "status": summary.status,
        "spans": summary.spans,
        "services": list(summary.services),
        "errors": summary.errors,
        "retries": summary.retries,
        "slow": summary.slow,
        "sampled": summary.sampled,
        "lost": summary.lost,
        "flags": list(summary.flags),
        "flagged": [each._asdict() for each in summary.flagged],
        "refusals": [each._asdict() for each in summary.refusals],
        "injected": list(summary.injected),
        "only_refused": summary.only_refused,
    }


def reasons_of(record: Record) -> list[str]:
    """Why a trace went as it did, in few words each: who refused what, what was done on purpose, why the mesh ended
    calls, and what went on afterwards. Which call it was stands behind it, where that is not the first one."""
    found: list[str] = []
    told: set[tuple[str, str, str]] = set()
    for each in record["refusals"]:
        words = _LAYERS.get(each["layer"], each["layer"]) if each["side"] == "outbound" else each["layer"]
        target = each["service"], each["endpoint"]
        told |= {(flag, *target) for flag in _TOLD.get(each["layer"], set())}
        own = target == (record["service"], record["endpoint"])
        found.append(f"refused: {words}" + ("" if own else f" ({each['service']}.{each['endpoint']})"))
    found += [f"fault: {each}" for each in record["injected"]]
    first = record["caller"], record["service"], record["endpoint"]
    for each in record["flagged"]:
        if each["flag"] in _FLAGS and (each["flag"], each["service"], each["endpoint"]) not in told:
            own = (each["caller"], each["service"], each["endpoint"]) == first
            edge = "" if own else f" ({each['caller']} → {each['service']})"
            found.append(f"{_FLAGS[each['flag']]}{edge}")
    if record["after_ms"]:
        found.append(f"+{millis(record['after_ms'] / 1e3)} after")
    return list(dict.fromkeys(found))


def document_of(trace: Trace) -> Record:
    """One trace, with its spans in the order in which they are read."""
    return {
        **record_of(summary_of(trace)),
        "cut": trace.cut,
        "clocks": [_clock(each) for each in trace.skews],
        "where": where_of(trace),
        "tree": [_span(each) for each in trace.placed],
    }


def took_text(summary: Summary) -> str:
    """How long its first call took, and for how long something of it went on after that or stands before it: together
    as long as the trace."""
    took = millis(summary.root_us / 1e6)
    if millis(summary.took_us / 1e6) == took:
        return took  # what is left over would not be seen in the sum
    rest = [(summary.before_us, "before its begin"), (summary.rest_us, "after its end")]
    return " and ".join([f"{took},", *(f"{millis(us / 1e6)} {when}" for us, when in rest if us)])


def _clock(skew: Skew) -> Record:
    return {
        "member": skew.member,
        "instance": skew.instance,
        "moved_ms": skew.moved_us / 1e3,
        "sure": skew.sure,
    }


def _span(placed: Placed) -> Record:
    span = placed.span
    return {
        "span": span.id,
        "parent": span.parent or None,
        "depth": placed.depth,
        "kind": span.kind,
        "service": span.service,
        "endpoint": span.endpoint,
        "caller": span.caller,
        "member": span.member,
        "member_instance": span.member_instance,
        "version": span.version,
        "instance": span.instance or None,
        "offset_ms": placed.offset_us / 1e3,
        "duration_ms": span.took_us / 1e3,
        "queue_ms": span.queue_us / 1e3,
        "fault_ms": span.fault_us / 1e3,
        "status": span.status,
        "failed": failed(span.status),
        "flags": span.flags,
        "attempt": span.attempt,
        "route": span.route,
        "rules": list(span.rules),
        "refused": span.refused,
        "injected": span.injected,
        "error": span.error,
        "labels": span.labels,
        "why": span.why,
        "lost": placed.lost,
    }


def where_of(trace: Trace) -> list[Record]:
    """Where the time went: of each service, how long its instances worked while they waited for nobody, the longest
    first. Calls whose spans were not kept (:func:`sampled`) are no waiting that anybody knows of."""
    own: dict[str, float] = {}
    above: list[tuple[Placed, list[tuple[float, float]]]] = []

    def close(depth: int) -> None:
        while above and above[-1][0].depth >= depth:
            over, waited = above.pop()
            span, begin = over.span, over.offset_us
            if span.kind == "server":
                alone = uncovered(begin, begin + span.took_us, waited)
                own[span.service] = own.get(span.service, 0) + alone

    for placed in trace.placed:
        close(placed.depth)
        if above and placed.span.kind == "client":
            above[-1][1].append((placed.offset_us, placed.offset_us + placed.span.took_us))
        above.append((placed, []))
    close(0)
    return [
        {"service": service, "own_ms": us / 1e3} for service, us in sorted(own.items(), key=lambda e: -e[1])
    ]


def sampled(trace: Trace) -> bool:
    """Whether calls that went well left their spans, too."""
    return any(span.why == "sampled" for span in trace.spans)


def notes_of(trace: Trace) -> list[str]:
    """What a person must know to read it rightly."""
    notes = []
    for skew in trace.skews:
        who = f"{skew.member} {skew.instance[:_SHORT]}"
        if not skew.sure:
            notes.append(
                f"the clock of {who} contradicts itself within this trace: its spans are moved by "
                f"{_moved(skew.moved_us)}, and may stand wrong"
            )
        else:
            way = "behind" if skew.moved_us > 0 else "ahead"
            notes.append(
                f"the clock of {who} is about {millis(abs(skew.moved_us) / 1e6)} {way} of its caller's: its spans are "
                "moved by that"
            )
    if not sampled(trace) and any(span.kind == "server" and not span.refused for span in trace.spans):
        notes.append(
            "calls that went well leave no spans where their trace is not sampled: what a service waited for them is "
            "in its own time"
        )
    if trace.lost:
        spans = counted(trace.lost, "span (…) was", "spans (…) were")
        notes.append(
            f"{spans} called from one that is not there: it was not kept, has not come yet, or is not of this mesh"
        )
    if trace.cut:
        notes.append(f"{counted(trace.cut, 'more span is', 'more spans are')} not shown")
    return notes


def _moved(us: int) -> str:
    return f"{'-' if us < 0 else ''}{millis(abs(us) / 1e6)}"
