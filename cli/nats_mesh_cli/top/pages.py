"""The pages that lie over the tables: help, and all that is known of a policy, a call or an event. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh_cli.tap_line import EXAMPLE
from nats_mesh_cli.together import Alike
from nats_mesh_cli.top.following import facts_of
from nats_mesh_cli.top.model import CallLine, Data, PolicyLine
from nats_mesh_cli.top.state import MAX_PAGE, Page
from nats_mesh_cli.top.words import clean, duration_text

__all__ = ["call_page", "event_page", "help_page", "policy_page"]

_KEYS: Final = {
    "1 … 6, Tab, ← →": "the views: Services, Edges, Instances, Policies, Tap, Events",
    "↑ ↓ j k, PgUp PgDn": "choose a row; Home takes the first one again, whichever it is, End the last",
    "Enter": "look into it: latency, errors, endpoints, callers; a policy's text; a call's or event's facts",
    "d": "all that 'nats-mesh describe' says of it",
    "Esc": "back; without anything to go back from: no filter",
    "/": "filter rows; all words must be there; Enter keeps it, Esc drops it",
    "s": "sort by the next column (▼ marks it); at first the worst is first, or the newest",
    "S": "turn the order around",
    "g": "in Edges: the same calls as a graph",
    "f": f"in Tap: which calls to show, asked of the instances: {EXAMPLE}",
    "p, Space": "pause: what is shown stands still, though everything goes on",
    "?": "this page",
    "q, Ctrl-C": "quit; Ctrl-Z stops as in any shell, 'fg' comes back; Ctrl-L paints the whole screen again",
}
_MEANINGS: Final = {
    "SUCCESS": "the share without a fault of the service, over the last seconds, rounded down",
    "RPS, TRIES/S": "calls a second as callers make them; attempts a second that these take",
    "RETRY%": "of the attempts, how many were repetitions",
    "GAVE UP": "calls that their callers gave up: no failures, but nobody got an answer",
    "P50 P95 P99": "half, 95 %, 99 % of the calls took at most so long",
    "TREND": "calls a second over the last seconds; a steady rate stands at two thirds",
    "BREAKER": "the worst circuit of any caller: OPEN lets nothing through, HALF tries",
    "ALERT": "the worst alert of what is promised of the service; stands there while any fires and is watched",
    "EJECTED": "instances that some caller leaves out for a while",
    "SYNCED": "follows the policies of the store; STALE does not yet, REJECTED refuses some, ELSEWHERE has others",
}


def _pairs(facts: Mapping[str, str]) -> list[str]:
    size = max(map(len, facts), default=0)
    return [f"{name.ljust(size)}  {value}" for name, value in facts.items() if value]


def help_page() -> Page:
    """What keys do and columns mean."""
    return Page("help", ("KEYS", *_pairs(_KEYS), "", "WORDS", *_pairs(_MEANINGS), "", "All times are UTC."))


def policy_page(policy: PolicyLine, data: Data) -> Page:
    """Its text, and where every member stands with it."""
    facts = facts_of(data)
    lines = _pairs(
        {
            "target": clean(policy.target) or "everything",
            "revision": str(policy.revision),
            "changed": clean(policy.at),
            "by": clean(policy.operator),
            "why": clean(policy.message),
        }
    )
    lines += ["", "MEMBERS"]
    refused = {member.id: reason for member, reason in facts.refused(policy)}
    for each in facts.followers:
        state, reason = each.state, each.reason
        if each.id in refused:
            state, reason = "REJECTED", refused[each.id]
        elif (
            state == "REJECTED" or (each.revision or 0) >= policy.revision
        ):  # it is another one that it refuses
            state, reason = "SYNCED", ""
        lines.append(clean(f"{state:<9}  {each.service}/{each.name or each.id}  {reason}".rstrip()))
    if not facts.followers:
        lines.append("nobody is there")
    lines += ["", "DOCUMENT", *[clean(line) for line in policy.document.split("\n")]]
    return Page(clean(policy.name), tuple(lines[:MAX_PAGE]))


def call_page(call: CallLine) -> Page:
    """Everything that was told of a call."""
    facts = {
        "at": call.at,
        "caller": call.caller,
        "target": call.target,
        "status": call.status,
        "took": duration_text(call.duration_s),
        "instance": call.instance,
        **dict(call.facts),
    }
    return replace(_page(f"{call.caller} → {call.target}", facts), about=(call.target, call.caller))


def event_page(event: Event) -> Page:
    """Everything that was told of an event."""
    facts = {
        "at": event.at,
        "kind": event.kind,
        "service": event.service,
        "instance": event.instance,
        **({"told by": f"{len(event.members)} members, this one first"} if isinstance(event, Alike) else {}),
        "target": event.target,
        "detail": event.detail,
        **{name: f"{value:g}" for name, value in event.numbers.items()},
        "left out": f"{event.missed} of this kind before it" if event.missed else "",
    }
    # Of a revision, or of a server, there is nothing to describe.
    nothing = (EventKind.POLICY_APPLIED, EventKind.BUS_LOST, EventKind.BUS_BACK)
    target = "" if event.kind in nothing else event.target
    about = (target or event.service, "") if event.service else None
    return replace(_page(event.kind, facts), about=about)


def _page(title: str, facts: Mapping[str, str]) -> Page:
    lines = _pairs({clean(name): clean(value) for name, value in facts.items()})
    return Page(clean(title), tuple(lines[:MAX_PAGE]))
