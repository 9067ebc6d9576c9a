"""Two sets of documents side by side: by what they say, and not by how it is written."""

from __future__ import annotations

import pytest

from nats_mesh.policy import parse
from nats_mesh.policy.whatif.difference import difference, plain_of, text_of
from tests.policy_samples import GOOD, written


@pytest.mark.parametrize("sample", GOOD, ids=[name for name, *_ in GOOD])
def test_what_is_written_back_says_the_same(sample: tuple[str, str, str]) -> None:
    """Whatever a policy can say."""
    _, kind, spec = sample
    (policy,) = parse(written(kind, spec))
    (again,) = parse(text_of(policy))
    assert again.document == policy.document
    assert list(plain_of(policy))[:3] == ["apiVersion", "kind", "metadata"]


def document(spec: str, name: str = "orders", more: str = "") -> str:
    """A destination."""
    return f"apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: {name}{more}}}\nspec: {spec}\n"


def test_how_it_is_written_is_no_difference() -> None:
    """Order, comments, short forms, units, files."""
    old = parse(document("{target: {service: orders}, timeout: 2s, balancer: random}"), file="a.yaml")
    new = parse(
        "# hello\n" + document("{balancer: {name: random}, timeout: 2000ms, target: {service: orders}}"),
        file="b.yaml",
    )
    assert difference(old, new) == ()


def test_what_differs_is_told_with_its_place() -> None:
    """Added, removed and changed, by name, each as a unified difference."""
    old = parse(document("{timeout: 2s}") + "---\n" + document("{timeout: 1s}", "gone"), file="old.yaml")
    new = parse(document("{timeout: 3s}") + "---\n" + document("{timeout: 1s}", "new"), file="new.yaml")
    gone, added, changed = difference(old, new)
    assert [(each.policy, each.kind, each.before, each.after) for each in (gone, added, changed)] == [
        ("Destination/gone", "removed", "old.yaml:6", ""),
        ("Destination/new", "added", "", "new.yaml:6"),
        ("Destination/orders", "changed", "old.yaml:1", "new.yaml:1"),
    ]
    lines = changed.diff.splitlines()
    assert lines[:2] == ["--- Destination/orders (old.yaml:1)", "+++ Destination/orders (new.yaml:1)"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-  timeout: 2s", "+  timeout: 3s"]
    assert added.diff.startswith("--- /dev/null\n+++ Destination/new")
    assert gone.diff.splitlines()[1] == "+++ /dev/null"


def test_namespaces_are_apart() -> None:
    """A document that names none is of the one that is asked about."""
    old, new = parse(document("{timeout: 2s}")), parse(document("{timeout: 2s}", more=", namespace: shop"))
    assert [each.policy for each in difference(old, new, namespace="default")] == [
        "Destination/orders", "Destination/orders in shop",
    ]  # fmt: skip
    (only,) = difference(old, new, namespace="shop")
    assert only.kind == "changed"
