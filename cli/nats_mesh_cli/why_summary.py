"""The one line in which ``why`` says what would become of a call. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nats_mesh.core.shares import share_text
from nats_mesh.errors import Status
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.output import Record
from nats_mesh_cli.why_circuits import only_trials, open_texts
from nats_mesh_cli.why_delays import delay_texts
from nats_mesh_cli.why_words import ROUNDING

__all__ = ["summary_of", "surely"]


def summary_of(document: Record, elsewhere: Sequence[str] = ()) -> str:
    """What would become of it, in short; ``elsewhere`` is what becomes of it at those who call, where nobody said who
    does."""
    if document["fails_wholly"]:
        how = "surely" if document["fails_surely"] else "most likely"
        text = f"would {how} fail: {'; '.join(_failures(document['ways']))}"
        return f"{text}{_unknown_timeout(document['ways'])}"
    aims: dict[str, float] = {}
    for way in document["ways"]:
        reached = way["share"] * (1.0 - way["fails"])
        if reached > 0.0:
            aims[way["text"]] = aims.get(way["text"], 0.0) + reached
    ordered = sorted(aims.items(), key=lambda aim: -aim[1])
    where = ", ".join(
        name if share >= 1.0 - ROUNDING else f"{name} with {share_text(share)}" for name, share in ordered
    )
    live = [way for way in document["ways"] if way["fails"] < 1.0]
    text = f"would reach {where}"
    if only_trials(document, live):
        text = f"would fail, or reach {where} as a trial"
    if failures := _failures(document["ways"]):
        sure = all(each["sure"] for way in document["ways"] for each in way["endings"])
        how = "would" if sure else "would most likely"
        text += f"; {how} fail with {share_text(document['fails'])} ({'; '.join(failures)})"
    times = sorted({way["timeout_s"] for way in live})
    attempts = sorted({way["attempts"] for way in live})
    text += f"; within {' or '.join(map(duration_text, times))}"
    most = " or ".join(map(str, attempts))
    text += "".join(f"; {each}" for each in [*delay_texts(live), *open_texts(document, live), *elsewhere])
    return f"{text}; {'one attempt' if most == '1' else f'up to {most} attempts'}"


def _failures(ways: Sequence[Record]) -> list[str]:
    found = [
        f"{each['status']}{f' or {other}' if (other := each['otherwise']) else ''}, {each['reason']}"
        for way in ways
        for each in way["endings"]
    ]
    return list(dict.fromkeys(found))


def surely(way: Record) -> float:
    """How many of the calls of a way fail for sure."""
    return sum([float(each["share"]) for each in way["endings"] if each["sure"]])


def _unknown_timeout(ways: Sequence[Record]) -> str:
    """That nobody is there to say how long its calls may take, where that is so."""
    late = str(Status.DEADLINE_EXCEEDED)
    unknown = [
        way
        for way in ways
        if not way["timeout_known"]
        and any(late in (each["status"], each["otherwise"]) for each in way["endings"])
    ]
    if not unknown:
        return ""
    return f"; the endpoint's own timeout is not known now ({duration_text(unknown[0]['timeout_s'])} where it has none)"
