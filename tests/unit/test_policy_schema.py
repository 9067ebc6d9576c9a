"""The schema, the rules it becomes, its documentation and its JSON Schema are one thing said once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest

from nats_mesh.core import rules as core
from nats_mesh.core.rules import ConcurrencyRules, SubsetRules
from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicySet, explain, json_schema, parse
from nats_mesh.policy.explain import NOT_YET, default_of
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.layering import RULES
from nats_mesh.policy.parts import Part, Subset
from nats_mesh.policy.schema import KINDS, LATER_KINDS, Concurrency, DestinationSpec
from tests.policy_docs import PAGE, brought_up_to_date

EVERY_RULE: dict[type[Part], type[msgspec.Struct]] = {**RULES, Concurrency: ConcurrencyRules}
#: What follows from the target of a policy, and cannot be written.
DERIVED = {"lowers"}
#: Said by name, several in a policy.
BY_NAME: dict[type[Part], type[msgspec.Struct]] = {Subset: SubsetRules}


def parts(part: type[Part], path: str) -> Iterator[tuple[str, type[Part], Field]]:
    """Every field below ``part`` with its path and the part it is in."""
    for field in fields_of(part).values():
        inner = f"{path}.{field.name}"
        yield inner, part, field
        if field.part is not None:
            yield from parts(field.part, inner)


EVERY_FIELD = [entry for kind, document in KINDS.items() for entry in parts(document, kind)]


@pytest.mark.parametrize("part", EVERY_RULE, ids=lambda part: part.__name__)
def test_every_rule_can_be_written_and_nothing_else(part: type[Part]) -> None:
    """A part of the schema has a field for each number of its rules, and none that the rules do not know."""
    numbers = set(EVERY_RULE[part].__struct_fields__) - DERIVED
    assert {field.rule for name, field in fields_of(part).items() if name not in part.later} == numbers


def test_all_rules_of_the_core_are_in_the_schema() -> None:
    """A rule that no policy could set would be out of reach."""
    assert {cls.__name__ for cls in {**EVERY_RULE, **BY_NAME}.values()} == {
        name for name in core.__all__ if name.endswith("Rules")
    }
    assert {field.rule for field in fields_of(Subset).values()} == set(SubsetRules.__struct_fields__) - {
        "name"
    }


def test_where_a_value_comes_from_is_said_of_every_field() -> None:
    """The sources name every field that a Destination can set, and no other."""
    rules = PolicySet.of(parse(EVERYTHING_ON)).outbound("a", "b", "c")
    paths = {
        path.removeprefix("x.")
        for path, part, field in parts(DestinationSpec, "x")
        if field.kind is not None or field.off
    }
    left_out = ("target", "subsets", *DestinationSpec.later)
    paths -= {path for path in paths if path.startswith(left_out)}
    assert set(rules.sources) == paths


EVERYTHING_ON = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: x}
spec: {hedge: {}, breaker: {verdicts: {}}, ejection: {verdicts: {}}}
"""


@pytest.mark.parametrize(("path", "part", "field"), EVERY_FIELD, ids=[path for path, *_ in EVERY_FIELD])
def test_every_field_is_explained(path: str, part: type[Part], field: Field) -> None:
    """What it says, how it is written and its default; the default can itself be written."""
    text = explain(path)
    assert text.startswith(f"{path}\n  {field.text}\n")
    assert f"default: {default_of(part, field)}" in text
    assert explain(path.replace(".spec.", ".")).splitlines()[1:] == text.splitlines()[1:]
    if (
        part in EVERY_RULE
        and field.kind is not None
        and not field.default
        and not field.required
        and not field.kind.several
    ):
        default = getattr(EVERY_RULE[part](), field.rule)
        words = default_of(part, field)
        assert (
            field.kind.parse(json.loads(words) if re.fullmatch(r"[\d.]+|true|false", words) else words)
            == default
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_explained(kind: str) -> None:
    """A kind's explanation has its purpose and its fields."""
    text = explain(kind)
    assert " ".join((KINDS[kind].__doc__ or "?").split()) in " ".join(text.split())
    assert "metadata" in text
    assert (NOT_YET in text) is (kind in LATER_KINDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Destnation", "'Destnation' is no kind; did you mean Destination?"),
        ("ccess", "'ccess' is no kind; did you mean Access?"),
        (
            "Destination.retry.atempts",
            "Destination.retry.atempts: no field 'atempts'; did you mean attempts?",
        ),
        ("Route.split", "Route.split: no field 'split'; did you mean Route.rules.split?"),
        ("Route.rules.weight", "did you mean Route.rules.split.weight?"),
        ("Destination.open", "did you mean Destination.breaker.open?"),
        ("split", "'split' is no kind; did you mean Route.rules.split?"),
        ("Route.breaker", "there are: target, rules; elsewhere there is Destination.breaker"),
        ("route", "'route' is no kind; did you mean Route?"),
        ("Destination.timeout.x", "there is nothing below timeout"),
        ("Limit.keys", "Limit.keys: no field 'keys'; did you mean Limit.rate.keys, Limit.quota.keys?"),
        ("Limit.xyzzy", "Limit.xyzzy: no field 'xyzzy'; there are: target, concurrency"),
    ],
)
def test_what_cannot_be_explained_is_said(name: str, message: str) -> None:
    """An unknown name gets the nearest known one."""
    with pytest.raises(PolicyError, match=re.escape(message)):
        explain(name)


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("Limit.rate", True), ("Limit.rate.keys", True), ("Limit.concurrency.adaptive.min", True),
        ("Limit.concurrency", False), ("Destination.throttle", True), ("Destination.timeout", False),
        ("Route.rules.sticky.claim", True), ("Route.rules.sticky", False), ("Telemetry.slow", False),
        ("Access.default", True),
    ],
)  # fmt: skip
def test_what_nothing_applies_is_explained_as_such(name: str, later: bool) -> None:
    """A field without a layer, and everything below it, says so in its explanation; no other does."""
    assert (NOT_YET in explain(name)) is later


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Destination.balancer", "mapping or name of a balancer"), ("Destination.subsets", "mappings by name"),
        ("Destination.throttle", "mapping, rate or off"), ("Destination.hedge", "mapping or off"),
        ("Route.rules.match", "list of mappings or one mapping"), ("Route.rules", "list of mappings"),
        ("Route.rules.match.headers", "mappings or text by name"),
        ("Telemetry.labels", "text by name"), ("Rollout.steps.for", "period"), ("Rollout.from", "name"),
    ],
)  # fmt: skip
def test_every_way_to_write_a_field_is_told(name: str, words: str) -> None:
    """A bare value, one mapping in the place of a list, off: whatever the reader takes."""
    assert f"\n  {words}, default: " in explain(name)


def test_the_documentation_is_up_to_date() -> None:
    """docs/policies.md has every field with its default: `python -m tests.policy_docs` writes it anew."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == brought_up_to_date(page)


def test_editors_are_told_what_nothing_applies() -> None:
    """The JSON Schema describes kinds and fields without a layer as such, and those alone."""
    definitions = json_schema()["$defs"]
    assert [kind for kind in KINDS if NOT_YET in definitions[kind]["description"]] == list(LATER_KINDS)
    marked = {
        (part, name)
        for part, definition in definitions.items()
        for name, said in definition["properties"].items()
        if NOT_YET in said.get("description", "")
    }
    assert marked == {
        (part.__name__, name) for _, part, field in EVERY_FIELD for name in [field.name] if name in part.later
    }


VALID = jsonschema.Draft202012Validator(json_schema())
GOOD = {"apiVersion": "mesh/v1", "kind": "Destination", "metadata": {"name": "x"}}


def test_the_json_schema_is_one() -> None:
    """Editors get a valid schema without dangling references, closed to unknown fields."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])
    assert all(definition["additionalProperties"] is False for definition in schema["$defs"].values())


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        ({"timeout": "5s"}, True), ({"timeout": 5}, False), ({"timeout": "5"}, False), ({"timout": "5s"}, False),
        ({"breaker": "off"}, True), ({"breaker": {"consecutive": "off"}}, True), ({"breaker": "on"}, False),
        ({"balancer": "random"}, True), ({"balancer": {"name": "random"}}, True), ({"balancer": "rr"}, False),
        ({"retry": {"retryOn": ["refused"]}}, True), ({"retry": {"retryOn": "refused"}}, False),
        ({"retry": {"budget": {"floor": "5/s", "ratio": "10%"}}}, True), ({"retry": {"budget": {"ratio": 0.1}}}, False),
        ({"target": {"service": "a", "endpoints": ["b"]}, "subsets": {"v": {"labels": {"a": "b"}}}}, True),
        ({"subsets": {"v": {"labels": {"a": 1}}}}, False),
    ],
)  # fmt: skip
def test_the_json_schema_says_what_the_reader_says(spec: dict[str, Any], valid: bool) -> None:
    """What one takes, the other takes; what only holds in company is beyond a schema."""
    assert VALID.is_valid({**GOOD, "spec": spec}) is valid
    text = json.dumps({**GOOD, "spec": spec})
    if not valid:
        with pytest.raises(PolicyError):
            parse(text)
    elif "subsets" not in spec:
        parse(text)
