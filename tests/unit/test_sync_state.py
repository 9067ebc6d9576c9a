"""How a member stands with the policies: one verdict, whoever asks."""

from __future__ import annotations

import pytest

from nats_mesh.core.presence import Rejection
from nats_mesh.core.sync_state import ORDER, Verdict, policy_label, verdict_of

HEAD = (2, 42)
REFUSED = Rejection(policy="Route.cart.eu", reason="no subset v3.1", revision=HEAD)


@pytest.mark.parametrize(
    ("source", "revision", "verdict"),
    [
        ("bus", HEAD, Verdict("SYNCED")),
        ("bus", (2, 43), Verdict("SYNCED")),  # it has what was not read yet
        ("bus", (2, 41), Verdict("STALE", "it is at 41, the policies are at 42")),
        ("bus", (1, 99), Verdict("STALE", "it follows another store than there is now")),
        ("bus", (0, 0), Verdict("STALE", "it has none yet")),
        ("cache", HEAD, Verdict("STALE", "it reads from its cache: the store has not answered it")),
        ("", HEAD, Verdict("SYNCED")),
        ("", (0, 0), Verdict("ELSEWHERE", "it does not say whom it follows")),
        ("files", (0, 0), Verdict("ELSEWHERE", "its policies come from files")),
        ("given", (0, 0), Verdict("ELSEWHERE", "its policies are given in its code")),
        ("off", (0, 0), Verdict("ELSEWHERE", "it follows no policies")),
    ],
)
def test_where_it_reads_and_what_it_has_applied_count(
    source: str, revision: tuple[int, int], verdict: Verdict
) -> None:
    """A state and the reason why it is no better."""
    assert verdict_of(source, revision, HEAD) == verdict
    assert verdict.follows == (verdict.state != "ELSEWHERE")
    assert verdict.state in ORDER


def test_without_policies_nobody_is_behind() -> None:
    """Whoever follows the bus has all that there is."""
    assert verdict_of("bus", (0, 0), (0, 0)) == Verdict("SYNCED")


def test_what_it_refuses_is_named() -> None:
    """The first with its reason, and how many more; of an older member at least how many."""

    def reason(**fields: object) -> str:
        verdict = verdict_of("bus", HEAD, HEAD, **fields)  # type: ignore[arg-type]  # fields by their names
        assert verdict.state == "REJECTED"
        return verdict.reason

    assert reason(rejected=1, rejections=(REFUSED,)) == "Route/cart.eu: no subset v3.1"
    assert reason(rejected=3, rejections=(REFUSED,)) == "Route/cart.eu: no subset v3.1 (and 2 more)"
    assert reason(rejections=(REFUSED, REFUSED)) == "Route/cart.eu: no subset v3.1 (and 1 more)"
    assert reason(rejected=2, reason="Route.cart: no a.b") == "Route/cart: no a.b (and 1 more)"
    assert reason(rejected=2) == "2 policies"
    assert reason(rejected=1) == "1 policy"


def test_silence_and_another_source_come_first() -> None:
    """Nothing is known of who does not answer; what somebody refuses of his own files is no matter of the store's."""
    assert verdict_of("bus", HEAD, HEAD, rejected=1, silent="does not answer") == Verdict(
        "STALE", "does not answer"
    )
    assert verdict_of("files", (0, 0), HEAD, rejected=1).state == "ELSEWHERE"


def test_a_name_has_one_form_for_people() -> None:
    """The first dot alone parts the kind from the name."""
    assert policy_label("Route.cart.eu") == "Route/cart.eu"
