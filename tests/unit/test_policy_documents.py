"""From what stands in the store to the set that holds: what is refused, what stays, and what goes with it. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh import PolicyError
from nats_mesh.core.presence import MAX_REJECTIONS
from nats_mesh.core.replica import Record
from nats_mesh.policy.bus.documents import MAX_VALUE, Builder, Built, read_document
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import read
from tests.stored import destination, document, limit

BAD = b'{"apiVersion":"mesh/v1"}'


def entry(sequence: int, key: str, value: bytes | None, change: str = "", batch: str = "") -> Record:
    """A record of the log."""
    size = len(value or b"")
    kept = b"" if size > MAX_VALUE else value
    return Record(sequence, key, kept, f"t{sequence}", batch, False, change, size)


def entries(*records: Record) -> dict[str, Record]:
    """Records by their keys."""
    return {record.key: record for record in records}


def take(builder: Builder, records: Mapping[str, Record]) -> Built:
    """Build, and accept what came of it."""
    built = builder.build(records, 7)
    if built.policies is not None:
        builder.accept(built.policies)
    return built


def timeouts(builder: Builder, *services: str) -> list[float | None]:
    """What is in effect."""
    return [builder.current.outbound(service, "get", "web").timeout_s for service in services]


def test_a_set_of_what_stands_there() -> None:
    """Deletions are no documents."""
    builder = Builder("default")
    built = take(
        builder,
        entries(
            entry(2, "Destination.a", destination("a", "1s")),
            entry(3, "Limit.a", limit("a", 3)),
            entry(4, "Destination.b", None),
        ),
    )
    assert (built.rejections, built.rejected) == ((), 0)
    assert [policy.name for policy in builder.current.policies] == ["Destination/a", "Limit/a"]


def test_what_is_wrong_leaves_the_last_good_one_of_its_key() -> None:
    """And nothing where there was none; the rest takes effect; the rejection names key, revision and reason."""
    builder = Builder("default")
    take(builder, entries(entry(2, "Destination.a", destination("a", "1s"))))
    built = take(
        builder,
        entries(
            entry(3, "Destination.a", BAD),
            entry(4, "Destination.b", BAD),
            entry(5, "Destination.c", destination("c", "3s")),
        ),
    )
    assert timeouts(builder, "a", "b", "c") == [1.0, None, 3.0]
    assert [(each.policy, each.revision) for each in built.rejections] == [
        ("Destination.b", (7, 4)), ("Destination.a", (7, 3)),
    ]  # fmt: skip
    assert "kind: is missing" in built.rejections[0].reason
    built = take(
        builder, entries(entry(6, "Destination.a", None), entry(5, "Destination.c", destination("c", "3s")))
    )
    assert built.rejected == 0
    assert timeouts(builder, "a", "c") == [None, 3.0]


def test_what_was_stored_together_is_refused_together() -> None:
    """By the change's id, or the batch's; deletions of it do not take effect either."""
    for change, batch in (("c1", ""), ("", "b1"), ("c1", "b1")):
        builder = Builder("default")
        take(
            builder,
            entries(
                entry(2, "Destination.a", destination("a", "1s")),
                entry(3, "Destination.b", destination("b", "1s")),
            ),
        )
        built = take(
            builder,
            entries(
                entry(4, "Destination.a", destination("a", "2s"), change, batch),
                entry(5, "Destination.b", None, change, batch),
                entry(6, "Destination.c", BAD, change, batch),
                entry(7, "Destination.d", destination("d", "4s"), "another", ""),
            ),
        )
        assert timeouts(builder, "a", "b", "c", "d") == [1.0, 1.0, None, 4.0]
        assert {each.policy for each in built.rejections} == {
            "Destination.a",
            "Destination.b",
            "Destination.c",
        }
        reasons = {each.policy: each.reason for each in built.rejections}
        assert "one change with Destination.c" in reasons["Destination.b"]


def test_of_two_that_contradict_each_other_the_newer_is_refused() -> None:
    """Whatever order their names have."""
    for old, new in (("a", "z"), ("z", "a")):
        builder = Builder("default")
        take(builder, entries(entry(2, f"Destination.{old}", destination(old, "1s", "shop"))))
        built = take(
            builder,
            entries(
                entry(2, f"Destination.{old}", destination(old, "1s", "shop")),
                entry(3, f"Destination.{new}", destination(new, "2s", "shop")),
            ),
        )
        assert [each.policy for each in built.rejections] == [f"Destination.{new}"]
        assert timeouts(builder, "shop") == [1.0]


def route(name: str, subset: str, service: str = "shop") -> bytes:
    """A Route of all calls to one subset."""
    split = [{"service": service, "subset": subset, "weight": 100}]
    return document("Route", name, {"target": {"service": service}, "rules": [{"split": split}]})


def with_subsets(name: str, *subsets: str, service: str = "shop") -> bytes:
    """A Destination that names subsets."""
    spec = {
        "target": {"service": service},
        "subsets": {each: {"labels": {"track": each}} for each in subsets},
    }
    return document("Destination", name, spec)


def test_what_would_leave_another_policy_wrong_is_not_taken_and_the_rest_goes_on() -> None:
    """A Destination that a Route needs is deleted, or loses the subset: it stays, and other changes take effect."""
    for broken in (None, with_subsets("d", "v2")):
        builder = Builder("default")
        first = entries(
            entry(2, "Destination.d", with_subsets("d", "v1")), entry(3, "Route.r", route("r", "v1"))
        )
        assert take(builder, first).rejected == 0
        later = first | entries(
            entry(4, "Destination.a", destination("a", "1s")), entry(5, "Destination.d", broken)
        )
        built = take(builder, later)
        assert [each.policy for each in built.rejections] == ["Destination.d", "Route.r"]
        assert "would leave another policy wrong" in built.rejections[0].reason
        assert {policy.name for policy in builder.current.policies} == {
            "Destination/a", "Destination/d", "Route/r",
        }  # fmt: skip
        built = take(builder, later | entries(entry(6, "Route.r", None)))
        assert built.rejected == 0


def test_what_is_not_taken_changes_no_object() -> None:
    """A hostile write does not make a new set of the very same policies."""
    builder = Builder("default")
    good = entry(2, "Destination.a", destination("a", "1s"))
    take(builder, entries(good))
    before = builder.current
    built = take(builder, entries(good, entry(3, "Destination.b", BAD)))
    assert built.policies is before
    assert built.rejected == 1


def test_what_is_built_and_not_accepted_counts_for_nothing() -> None:
    """It could not be put into effect."""
    builder = Builder("default")
    take(builder, entries(entry(2, "Destination.a", destination("a", "1s"))))
    builder.build(entries(entry(3, "Destination.a", destination("a", "2s"))), 7)
    built = take(builder, entries(entry(4, "Destination.a", BAD)))
    assert built.rejected == 1
    assert timeouts(builder, "a") == [1.0]


def test_thousands_of_hostile_documents_are_refused_and_counted() -> None:
    """The newest of them are named; what is good takes effect."""
    records = [entry(n, f"Destination.d{n}", BAD) for n in range(1, 10_001)]
    builder = Builder("default")
    built = take(builder, entries(*records, entry(10_001, "Destination.a", destination("a", "1s"))))
    assert built.rejected == 10_000
    assert len(built.rejections) == MAX_REJECTIONS
    assert built.rejections[0].revision == (7, 10_000)
    assert timeouts(builder, "a") == [1.0]


def test_what_is_too_large_is_not_read() -> None:
    """It is refused by its size, and was not kept."""
    builder = Builder("default")
    built = take(builder, entries(entry(2, "Destination.a", b" " * (MAX_VALUE + 1))))
    assert "at most 262144" in built.rejections[0].reason


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("Destination.b", destination("a"), "belongs under another key"),
        ("Limit.a", destination("a"), "belongs under another key"),
        ("Destination", destination("a"), "no key of a policy"),
        ("Destination.a\x1b[31m", destination("a"), "no key of a policy"),
        ("Destination.a", destination("a") + b"\n---\n" + destination("a"), "no document of JSON"),
        ("Destination.a", b"kind: Destination", "no document of JSON"),
        ("Destination.a", b"\xff", "no document of JSON"),
        ("Destination.a", b"null", "no document of JSON"),
        (
            "Destination.a",
            document("Destination", "a", {"timeout": "1s"}, namespace="other"),
            "namespace 'other'",
        ),
    ],
)
def test_values_that_are_no_policy_of_their_key(key: str, value: bytes, said: str) -> None:
    """Each is refused in words, with the place in the store."""
    with pytest.raises(PolicyError, match=said) as caught:
        read_document(key, value, 9, namespace="default")
    assert "@9" in str(caught.value)
    assert str(caught.value).isprintable()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=6), _json, max_size=5))
def test_the_short_way_of_reading_json_comes_to_what_the_careful_one_does(value: dict[str, object]) -> None:
    """One line of JSON, and the same after a line feed, which goes the careful way."""
    text = json.dumps(value, ensure_ascii=False)
    short, careful = Problems(), Problems()
    one = [node.plain() for node in read(text.encode("utf-8", "surrogatepass"), "x", short)]
    other = [node.plain() for node in read(b"\n" + text.encode("utf-8", "surrogatepass"), "x", careful)]
    if not careful.error():
        assert one == other


@given(st.integers(0, 2**32))
def test_whatever_comes_what_is_in_effect_was_good_and_changes_are_whole(seed: int) -> None:
    """Changes of one to three keys, some with a bad document in them. Of a change in which something bad stands
    nothing is in effect, and its keys are as they were; everything else is as it stands in the store."""
    rng = random.Random(seed)
    builder = Builder("default")
    records: dict[str, Record] = {}
    effect: dict[str, float | None] = {}
    sequence = 0
    for turn in range(12):
        keys = rng.sample(["a", "b", "c", "d"], rng.randint(1, 3))
        bad = rng.random() < 0.4
        for key in keys:
            sequence += 1
            seconds = rng.choice([None, 1, 2, 3])
            value = None if seconds is None else destination(key, f"{seconds}s")
            if bad and key == keys[-1]:
                value = BAD
            records[key] = entry(sequence, f"Destination.{key}", value, f"c{turn}")
        take(builder, {record.key: record for record in records.values()})
        broken = {each.change for each in records.values() if each.value == BAD}
        for key, record in records.items():
            if record.change not in broken:
                value = record.value
                effect[key] = None if value is None else float(json.loads(value)["spec"]["timeout"][:-1])
        assert timeouts(builder, *records) == [effect.get(key) for key in records], turn
