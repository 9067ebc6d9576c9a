"""What is kept of a rollout, what its policy comes to, and which policies hold together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nats_mesh import PolicyError
from nats_mesh.core.gates import ErrorGate, Gates, LatencyGate
from nats_mesh.core.rollout import Hold, Phase, Progress, RolloutRules, StepRules
from nats_mesh.errors import CodecError
from nats_mesh.policy import PolicySet
from nats_mesh.policy.decode import parse
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.rollout.book import Entry
from nats_mesh.rollout.record import MAX_BYTES, Record, decode_record, encode_record, rules_of, sticky_of
from nats_mesh_cli.output import table
from nats_mesh_cli.rollout_text import COLUMNS, line_of, record_of

SUBSETS = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: shop}
spec:
  target: {service: shop}
  subsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0}}
"""
FULL = """
apiVersion: mesh/v1
kind: Rollout
metadata: {name: shop}
spec:
  target: {service: shop}
  from: v1
  to: v2
  steps:
    - {weight: 5, for: 2m}
    - {weight: 50, pause: true}
    - {weight: 100}
  gates:
    errorRate: {max: 1%, increase: 0.5%, minCalls: 200}
    latency: {quantile: 95%, max: 300ms, ratio: 1.5}
  interval: 5s
  consecutive: 3
  onFailure: pause
  deadline: 1h
  sticky: {header: end-user}
"""
RULES = RolloutRules(old="v1", new="v2", steps=(StepRules(weight=5, for_s=60.0), StepRules(weight=50)))
RULED: dict[str, Any] = {"old": "v1", "new": "v2", "steps": [{"weight": 5}]}
RECORD = Record(service="shop", rollout="shop", run="R1", rules=RULES, route="Route.shop")


def rollout(text: str) -> Rollout:
    """The document in a file."""
    (policy,) = parse(text)
    assert isinstance(policy.document, Rollout)
    return policy.document


def test_a_rollout_becomes_rules() -> None:
    """Every field; and the defaults where nothing is said."""
    spec = rollout(FULL).spec
    assert rules_of(spec) == RolloutRules(
        old="v1",
        new="v2",
        steps=(StepRules(weight=5, for_s=120.0), StepRules(weight=50), StepRules(weight=100)),
        gates=Gates(
            errors=ErrorGate(maximum=0.01, increase=0.005, min_calls=200),
            latency=LatencyGate(quantile=0.95, maximum_s=0.3, ratio=1.5, min_calls=50),
        ),
        interval_s=5.0,
        consecutive=3,
        rollback=False,
        deadline_s=3600.0,
        sudden=True,
    )
    assert sticky_of(spec) == {"header": "end-user"}
    least = rollout(FULL[: FULL.index("  gates:")])
    assert rules_of(least.spec) == RolloutRules(
        old="v1",
        new="v2",
        steps=(StepRules(weight=5, for_s=120.0), StepRules(weight=50), StepRules(weight=100)),
        sudden=True,
    )
    assert sticky_of(least.spec) is None


@pytest.mark.parametrize(
    ("last", "sudden"),
    [("{weight: 100}", True), ("{weight: 100, for: 1m}", False), ("{weight: 100, pause: true}", False)],
)
def test_a_last_step_with_all_calls_is_the_end_unless_it_lasts(last: str, sudden: bool) -> None:
    """Its time, or until somebody resumes it."""
    text = FULL.replace("{weight: 100}", last)
    assert rules_of(rollout(text).spec).sudden is sudden


def test_a_service_has_one_rollout_whose_subsets_exist() -> None:
    """The set says what is wrong with it; a member that follows it does nothing with it."""
    held = PolicySet.of(parse(f"{SUBSETS}---{FULL}"))
    alone = PolicySet.of(parse(SUBSETS))
    assert held.outbound("shop", "buy", "web") == alone.outbound("shop", "buy", "web")
    for text, said in (
        (f"{SUBSETS}---{FULL}---{FULL.replace('{name: shop}', '{name: other}')}", "are both about shop"),
        (f"{SUBSETS}---{FULL.replace('to: v2', 'to: v3')}", "spec.to: shop has no subset v3"),
        (FULL, "no Destination names subsets of shop"),
        (f"{SUBSETS}---{FULL.replace('{header: end-user}', '{claim: sub}')}", "spec.sticky.claim"),
    ):
        with pytest.raises(PolicyError, match=said):
            PolicySet.of(parse(text))


def test_a_record_survives_the_store() -> None:
    """With everything a successor needs."""
    progress = Progress(
        phase=Phase.PAUSED, step=1, weight=50, spent_s=3.5, hold=Hold.STEP, before=Phase.STEP, reason="x"
    )
    record = msgspec.structs.replace(
        RECORD, progress=progress, attempted=(5, 50), sticky={"header": "a"}, wish="abort", wished=2
    )
    assert decode_record(encode_record(record)) == record
    assert record.asked


@pytest.mark.parametrize(
    "changes",
    [
        {"service": "no name"},
        {"wire": 2},
        {"wish": "destroy"},
        {"progress": {"step": 2}},
        {"progress": {"step": -2}},
        {"progress": {"weight": 101}},
        {"progress": {"phase": "flying"}},
        {"attempted": [0] * 200},
        {"rules": {"old": "v1"}},
        {"route": "x" * 500},
        {"route": "Access.shop"},
        {"route": "Route.a b\r\nPUB x 0"},
        {"routed": 101},
        {"attempted": [-1]},
        {"attempted": [500]},
        {"term": 2**53 - 1},
        {"wished": 2**53 - 1},
        {"sticky": {"header": "Mesh-Status"}},
        {"sticky": {"header": "a\r\nb"}},
        {"sticky": {"header": "a", "identity": True}},
        {"sticky": {}},
        {"progress": {"phase": "step", "step": -1}},
        {"progress": {"phase": "paused", "before": "step", "step": -1}},
        {"progress": {"phase": "paused", "before": "paused"}},
        {"progress": {"phase": "paused", "before": "promoted"}},
        {"progress": {"spent_s": -1.0}},
        {"progress": {"ran_s": 1e300}},
        {"progress": {"failed": -1}},
        {"rules": {"old": "v1", "new": "v2", "steps": []}},
        {"rules": {"old": "v1", "new": "v1", "steps": [{"weight": 5}]}},
        {"rules": {"old": "v1", "new": "", "steps": [{"weight": 5}]}},
        {"rules": {"old": "v1", "new": "v\u001b[2J", "steps": [{"weight": 5}]}},
        {"rules": {"old": "v1", "new": "v2", "steps": [{"weight": 101}]}},
        {"rules": {"old": "v1", "new": "v2", "steps": [{"weight": 5, "for_s": -1.0}]}},
        {"rules": {"old": "v1", "new": "v2", "steps": [{"weight": 5}] * 200}},
        {"rules": {"old": "v1", "new": "v2", "steps": [{"weight": 5}], "interval_s": -1.0}},
        {"rules": {"old": "v1", "new": "v2", "steps": [{"weight": 5}], "consecutive": 0}},
        {"rules": RULED | {"gates": {"errors": {"maximum": 0.1, "min_calls": 0}}}},
        {"rules": RULED | {"gates": {"errors": {"maximum": -0.1}}}},
        {"rules": RULED | {"gates": {"latency": {"quantile": 7.0}}}},
        {"rules": RULED | {"gates": {"latency": {"ratio": 0.0}}}},
        {"holder": "x" * MAX_BYTES},
    ],
)
def test_what_is_no_record_is_refused(changes: dict[str, Any]) -> None:
    """Whatever stands there."""
    body = msgspec.json.decode(encode_record(RECORD))
    with pytest.raises(CodecError):
        decode_record(msgspec.json.encode({**body, **changes}))


@pytest.mark.parametrize("last", [Phase.WAITING, Phase.STEP, Phase.PROMOTING, Phase.RETURNING])
def test_a_pause_at_any_phase_is_a_record(last: Phase) -> None:
    """What a course writes is what it reads."""
    progress = Progress(
        phase=Phase.PAUSED, before=last, step=0 if last is Phase.STEP else -1, hold=Hold.ROUTE
    )
    record = msgspec.structs.replace(RECORD, progress=progress, sticky={"identity": True})
    assert decode_record(encode_record(record)) == record


def test_what_somebody_wrote_into_a_record_forges_no_line() -> None:
    """Neither a line end nor an escape, nor a character that turns the direction, reaches a terminal."""
    progress = Progress(reason="a\nb\x1b[2J\u202ec\x9b31m")
    line = line_of(record_of(Entry(msgspec.structs.replace(RECORD, progress=progress), 1)))
    assert line.isprintable()


def test_how_far_it_is_in_words() -> None:
    """For people: why it stands, who carries it out, and that its runner is silent."""
    progress = Progress(
        phase=Phase.PAUSED, step=1, weight=50, hold=Hold.ROUTE, before=Phase.STEP, reason="by alice"
    )
    record = msgspec.structs.replace(
        RECORD, progress=progress, holder="ci/C1", changed="2025-01-31T12:00:00.000000Z"
    )
    shown = record_of(Entry(record, 7), now_s=1738324860.0)
    assert shown["age_s"] == 60.0
    assert line_of(shown) == "shop paused: the route was changed, step 2/2, 50% to v2: by alice"
    text = table([shown], COLUMNS)
    assert "ci, silent 1m" in text
    assert "2/2" in text
    assert "nobody" in table([{**shown, "runner": None}], COLUMNS)
