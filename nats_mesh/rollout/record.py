"""What is kept of one rollout on the bus: how far it is, who carries it out, and what operators want of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET

from nats_mesh.core.gates import ErrorGate, Gates, LatencyGate
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Name
from nats_mesh.core.rollout import Phase, Progress, RolloutRules, StepRules
from nats_mesh.errors import CodecError
from nats_mesh.model import is_header_name, is_name, is_reserved_header
from nats_mesh.policy.rollout_parts import RolloutSpec
from nats_mesh.wire.codecs import JSON

__all__ = ["MAX_BYTES", "Record", "Wish", "decode_record", "encode_record", "rules_of", "sticky_of"]

#: The largest record: the rollout, and what is said of it.
MAX_BYTES: Final = 256 << 10
_INTERVAL_S: Final = 10.0
_ALL: Final = 100
#: What a pause can go back to.
_BEFORE: Final = (Phase.WAITING, Phase.STEP, Phase.PROMOTING, Phase.RETURNING)
#: Numbers that are counted on must have a next one.
_LAST: Final = 2**53 - 2

_Weight = Annotated[int, msgspec.Meta(ge=0, le=_ALL)]
_Line = Annotated[str, msgspec.Meta(max_length=1024)]
Wish = Literal["", "pause", "resume", "abort"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the key ``rollout.<service>``. Whoever writes it does so by compare-and-set.

    ``rollout`` is its policy's name and ``rules`` what that said when it began; ``run`` is an id of this very run.
    ``route`` is the key of the `Route` that is changed, ``revision`` the one that was written last (or stood there
    when it began; 0: nothing), ``routed`` the weight that it is known to say (-1: not known), ``attempted`` those that
    may have been written since, with nobody to confirm it. ``sticky`` is what goes into the route. ``holder`` carries
    it out: its name and its connection, empty where nobody does; ``term`` grows with each holder. ``wish`` number
    ``wished`` is what an operator wants, ``answer`` what became of wish ``answered``. ``calls`` is how many calls of
    the new subset were seen in the step. Instants are wall times, for people.
    """

    service: Name
    rollout: Name
    run: Name
    rules: RolloutRules
    route: Annotated[str, msgspec.Meta(pattern=r"\ARoute\.[A-Za-z0-9_-]{1,63}\Z")]
    revision: Count = 0
    routed: Annotated[int, msgspec.Meta(ge=-1, le=_ALL)] = -1
    attempted: Annotated[tuple[_Weight, ...], msgspec.Meta(max_length=128)] = ()
    sticky: dict[str, str | bool] | None = None
    progress: Progress = Progress()
    holder: Annotated[str, msgspec.Meta(max_length=160)] = ""
    term: Count = 0
    wish: Wish = ""
    wished: Count = 0
    wished_by: _Line = ""
    wish_text: _Line = ""
    answered: Count = 0
    answer: _Line = ""
    calls: Count = 0
    started: _Line = ""
    started_by: _Line = ""
    changed: _Line = ""
    wire: Literal[1] = 1

    @property
    def asked(self) -> bool:
        """Whether an operator's wish waits for an answer."""
        return self.wished > self.answered


_decode = at_first_use(lambda: JSON.decoder(Record))


def decode_record(data: bytes) -> Record:
    """Read a record, or raise :class:`CodecError` saying what is wrong with it."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"rollout: {len(data)} bytes, at most {MAX_BYTES} are read")
    record: Record = _decode(data)
    if problem := _problem(record):
        raise CodecError(f"rollout: {problem}")
    return record


def _problem(record: Record) -> str:
    """What cannot be carried out in it, though each value is one; empty where all can."""
    rules, at = record.rules, record.progress
    in_step = Phase.STEP in (at.phase, at.before if at.phase is Phase.PAUSED else at.phase)
    if not (0 if in_step else -1) <= at.step < len(rules.steps):
        return "its progress has no place in its steps"
    if at.phase is Phase.PAUSED and at.before not in _BEFORE:
        return f"nothing can go on from {at.before}"
    if not is_name(rules.old) or not is_name(rules.new) or rules.old == rules.new:
        return "its rules name no two subsets"
    if record.sticky is not None and not _is_sticky(record.sticky):
        return "nothing can be sticky by what it says"
    if max(record.term, record.wished) > _LAST:
        return "its numbers have come to their end"
    return ""


def _is_sticky(said: dict[str, str | bool]) -> bool:
    if said == {"identity": True}:
        return True
    header = said.get("header")
    return (
        len(said) == 1
        and isinstance(header, str)
        and is_header_name(header)
        and not is_reserved_header(header)
    )


def encode_record(record: Record) -> bytes:
    """As it is stored."""
    return JSON.encode(record)


def rules_of(spec: RolloutSpec) -> RolloutRules:
    """What a `Rollout` says, with the defaults for what it does not say."""
    steps = tuple(
        [
            StepRules(weight=step.weight, for_s=None if step.for_ is UNSET else step.for_)
            for step in spec.steps
        ]
    )
    last = spec.steps[-1]
    return RolloutRules(
        old=spec.from_,
        new=spec.to,
        steps=steps,
        gates=_gates(spec),
        interval_s=_INTERVAL_S if spec.interval is UNSET else spec.interval,
        consecutive=1 if spec.consecutive is UNSET else spec.consecutive,
        rollback=spec.on_failure is UNSET or spec.on_failure == "rollback",
        deadline_s=None if spec.deadline is UNSET else spec.deadline,
        sudden=last.weight == _ALL and last.for_ is UNSET and last.pause is not True,
    )


def _gates(spec: RolloutSpec) -> Gates:
    gates = spec.gates
    if gates is UNSET:
        return Gates()
    errors: ErrorGate | None = None
    latency: LatencyGate | None = None
    if (said := gates.error_rate) is not UNSET:
        errors = ErrorGate(
            maximum=None if said.max is UNSET else said.max,
            increase=None if said.increase is UNSET else said.increase,
            min_calls=50 if said.min_calls is UNSET else said.min_calls,
        )
    if (slow := gates.latency) is not UNSET:
        latency = LatencyGate(
            quantile=0.99 if slow.quantile is UNSET else slow.quantile,
            maximum_s=None if slow.max is UNSET else slow.max,
            ratio=None if slow.ratio is UNSET else slow.ratio,
            min_calls=50 if slow.min_calls is UNSET else slow.min_calls,
        )
    return Gates(errors=errors, latency=latency)


def sticky_of(spec: RolloutSpec) -> dict[str, str | bool] | None:
    """What the route's rule is told of stickiness, as a document says it; ``None``: what it says already stays."""
    sticky = spec.sticky
    if sticky is UNSET:
        return None
    if sticky.header is not UNSET:
        return {"header": sticky.header}
    return {"identity": True}
