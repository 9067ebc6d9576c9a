"""What a change of policies is called where it is told of."""

from __future__ import annotations

from nats_mesh.policy import Policy, parse
from nats_mesh.policy.changes import MAX_NAMES, changes_text


def policy(name: str, timeout: str = "1s") -> Policy:
    """A `Destination` of everybody's."""
    return parse(
        f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: {name}}}\nspec: {{timeout: {timeout}}}\n"
    )[0]


def test_each_policy_is_named_with_what_became_of_it() -> None:
    """New, changed, deleted; what stayed is not named, also where it was read again from its file."""
    stays, goes = policy("stays"), policy("goes")
    before = (stays, goes, policy("moves"), policy("again"))
    now = (stays, policy("moves", "2s"), policy("again"), policy("comes"))
    assert changes_text(before, now) == (
        "new Destination/comes; changed Destination/moves; deleted Destination/goes"
    )
    assert changes_text(before, before) == "nothing differs"


def test_a_large_change_is_told_in_bounded_words() -> None:
    """So many names, and how many there are beside them, of whatever kind."""
    many = [policy(f"p{number}") for number in range(MAX_NAMES + 3)]
    text = changes_text((policy("old"),), many)
    assert text.startswith("new Destination/p0, ")
    assert text.endswith(f"Destination/p{MAX_NAMES - 1}; and 4 more")
