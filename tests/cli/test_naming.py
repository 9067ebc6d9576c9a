"""Names of policies, revisions and changes: every form that is printed is taken, and near misses get a name that is."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.audit_records import is_about
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.naming import (
    changes_called,
    gone_of,
    is_instance,
    revision_called,
    selected,
    without_revision,
)

KEYS = ["Destination.orders", "Route.orders", "Route.orders-canary"]
LOG = [
    Revision(key=key, sequence=number, value=b"{}", time="2026-01-31T12:00:00Z", change=change)
    for number, (key, change) in enumerate(
        [(KEYS[0], "abcd1234"), (KEYS[1], "abcd1234"), (KEYS[1], "abce9999"), (KEYS[2], "")], 1
    )
]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Route/orders", ["Route.orders"]),
        ("Route.orders", ["Route.orders"]),
        ("route/orders", ["Route.orders"]),
        ("routes", ["Route.orders", "Route.orders-canary"]),
        ("Route", ["Route.orders", "Route.orders-canary"]),
    ],
)
def test_policies_are_named_as_they_are_printed(name: str, keys: list[str]) -> None:
    """By kind and name, or all of a kind."""
    assert selected(name, KEYS) == keys


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("Route/nope", "there is no Route/nope in the store", "there are: Route/orders, Route/orders-canary"),
        ("Route/order", "there is no Route/order in the store", "did you mean 'Route/orders'?"),
        ("Limit/orders", "there is no Limit/orders", "did you mean Destination/orders, Route/orders?"),
        ("Rout/nope", "there is no Rout/nope", "there are: Destination/orders, Route/orders"),
        ("Rout", "there are no policies of kind 'Rout'", "did you mean 'Route'?"),
        ("Limit", "there are no policies of kind 'Limit'", "there are: Destination, Route"),
    ],
)
def test_a_name_that_is_not_there_gets_one_that_is(name: str, said: str, hint: str) -> None:
    """The nearest, the same name of another kind, or which there are."""
    with pytest.raises(CliError, match=said) as caught:
        selected(name, KEYS)
    assert hint in caught.value.hint
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Route/nope", "there are: Route/orders; deleted: Route/orders-canary"),
        ("Route/orders-canari", "did you mean 'Route/orders-canary' (deleted)?"),
        ("Limit/orders-canary", "did you mean Route/orders-canary (deleted)?"),
        ("Destination/nope", "deleted: Destination/orders"),
    ],
)
def test_what_was_deleted_is_not_said_to_be_there(name: str, hint: str) -> None:
    """It can be named where it can come back, and it is told what it is."""
    gone = {"Route.orders-canary", "Destination.orders"}
    with pytest.raises(CliError) as caught:
        selected(name, KEYS, gone=gone)
    assert caught.value.hint == hint


def test_what_stands_there_is_known_by_the_last_revision() -> None:
    """A policy that came back is not gone."""

    def step(sequence: int, key: str, value: bytes | None) -> Revision:
        return Revision(
            key=key, sequence=sequence, value=value, time="", operator="", message="", change="", back_to=None
        )

    log = [
        step(1, "Route.a", b"1"),
        step(2, "Route.a", None),
        step(3, "Route.b", None),
        step(4, "Route.b", b"2"),
    ]
    assert gone_of(log) == {"Route.a"}


@pytest.mark.parametrize(
    ("word", "revision"),
    [("2", 2), ("77.2", 2), ("Route/orders@3", 3), ("Route.orders@3:7", 3), ("abcd1234", 2), ("abce", 3)],
)
def test_a_revision_is_named_as_it_is_printed(word: str, revision: int) -> None:
    """A number, with the store's epoch, behind a policy's name; or a change, by its last revision."""
    assert revision_called(word, LOG, epoch=77, last=4) == revision


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("5", "there is no revision 5: the last one is 4"),
        ("0", "there is no revision 0"),
        ("78.2", "a store that was there before"),
        ("abc", "no revision and no change"),
        ("zzzz", "no revision and no change"),
    ],
)
def test_what_is_no_revision_is_refused(word: str, said: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(CliError, match=said):
        revision_called(word, LOG, epoch=77, last=4)


def test_a_change_is_named_by_as_much_of_its_id_as_tells_it_apart() -> None:
    """What fits two is refused; revisions without a change belong to none."""
    assert [each.sequence for each in changes_called("abcd", LOG)] == [1, 2]
    assert changes_called("zzzz", LOG) == changes_called("", LOG) == []
    two = [*LOG, Revision(key=KEYS[0], sequence=5, value=b"", time="", change="abcd5678")]
    with pytest.raises(CliError, match="2 changes have an id that begins with 'abcd'"):
        changes_called("abcd", two)


def test_the_revision_behind_a_name() -> None:
    """As places of documents have it."""
    assert without_revision("Route/orders@41") == ("Route/orders", 41)
    assert without_revision("Route.orders@41:3") == ("Route.orders", 41)
    assert without_revision("Route/orders") == ("Route/orders", None)


@pytest.mark.parametrize(
    ("word", "whole", "called"),
    [
        ("0nfaZ7x2Blsc", True, True),
        ("web-1-4711", True, True),
        ("orders/web-1-4711", True, True),
        ("0nfa", False, True),
        ("0nfa", True, False),
        ("orders/0nfa", False, True),
        ("stock/0nfa", False, False),
        ("orders/", False, False),
        ("", False, False),
    ],
)
def test_an_instance_is_named_as_it_is_printed(word: str, whole: bool, called: bool) -> None:
    """By its id, as much of it as tables show, its host-pid, and either behind its service."""
    record = {"service": "orders", "instance": "0nfaZ7x2Blsc", "host_pid": "web-1-4711"}
    assert is_instance(record, word, whole=whole) is called


CHANGE = {
    "sequence": 7,
    "kind": "policy",
    "what": "Route/orders",
    "who": "ann",
    "instance": "X9aBcD",
    "change": "abcd1234",
}
PRESENCE = {
    "sequence": 8,
    "kind": "presence",
    "what": "orders 0nfaZ7x2",
    "who": "web-1-4711",
    "instance": "0nfaZ7x2Blsc",
}
ROLLOUT = {
    "sequence": 9,
    "kind": "rollout",
    "what": "orders",
    "who": "x",
    "instance": "Y",
    "rollout": "orders-v2",
}


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("Route/orders", [7]),
        ("abcd1234", [7]),
        ("abcd", [7]),
        ("orders", [8, 9]),
        ("0nfaZ7x2", [8]),
        ("web-1-4711", [8]),
        ("orders-v2", [9]),
        ("8", [8]),
        ("ann", []),
        ("abc", []),
    ],
)
def test_records_of_the_audit_are_named_by_what_they_are_about(word: str, found: list[int]) -> None:
    """A policy, a service, an instance, a change, a rollout, or the record itself."""
    records: list[dict[str, Any]] = [CHANGE, PRESENCE, ROLLOUT]
    assert [each["sequence"] for each in records if is_about(each, word)] == found
