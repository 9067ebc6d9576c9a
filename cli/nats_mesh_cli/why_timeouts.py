"""Whose timeout it was that a call of the past ran out of, as far as policies of now say. Pure."""

from __future__ import annotations

from typing import Final

from nats_mesh.errors import Status
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.effective import ENDPOINT
from nats_mesh_cli.output import Record

__all__ = ["timeout_of_call", "timeout_text"]

#: A call that ran out of its time took as long as it had: a timer may be late by some of it, and by so much (seconds).
_LATE: Final = 1.25
_LATE_S: Final = 0.02


def timeout_of_call(call: Record) -> Record | None:
    """Of a call that ended because its time was over: the ``timeout_s`` that such a call has now, its ``source``, and
    whether it ``fits`` how long the call took. ``None`` where it ended otherwise, its caller told nothing, or nobody
    knows."""
    why = call["why"]
    if why is None or call["status"] != Status.DEADLINE_EXCEEDED or not call["told_by_caller"]:
        return None
    took_s = call["duration_ms"] / 1e3
    found: list[Record] = []
    for way in why["ways"]:
        for layer in way["layers"]["outbound"]:
            if layer["layer"] == "deadline":
                said = layer["parameters"]["timeout_s"]
                fits = said["value"] * 0.99 <= took_s <= said["value"] * _LATE + _LATE_S
                found.append({"timeout_s": said["value"], "source": said["source"], "fits": fits})
    # Ways of one call may differ in that; the one that it fits is the one it went.
    return next((each for each in found if each["fits"]), found[0] if found else None)


def timeout_text(timeout: Record) -> str:
    """The same in words."""
    names = {ENDPOINT: "the endpoint itself", DEFAULT: "the default"}
    whose = names.get(timeout["source"], timeout["source"])
    said = f"{duration_text(timeout['timeout_s'])}, said by {whose}"
    if timeout["fits"]:
        return f"its time was over: such a call has {said}"
    return (
        f"its time was another one: such a call has {said}, unless an argument says otherwise, or the call it is made "
        "from has less left"
    )
