"""JSON schemas as one-line types."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh_cli.schemas import definitions, type_name


class Item(msgspec.Struct):
    """A line of an order."""

    sku: str
    count: int = 1
    note: str | None = None


class Order(msgspec.Struct):
    """A struct that uses another."""

    items: list[Item]
    tags: dict[str, int] = {}


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (int, "integer"),
        (str | None, "string | null"),
        (list[int], "integer[]"),
        (list[int | None], "(integer | null)[]"),
        (dict[str, float], "{string: number}"),
        (tuple[int, str], "[integer, string]"),
        (Literal["a", 1], '1 | "a"'),
        (Order, "Order"),
        (list[Order], "Order[]"),
        (Any, "any"),
        (None, "null"),
        (bytes, "string (base64)"),
    ],
)
def test_types_read_like_types(kind: Any, shown: str) -> None:
    """What msgspec makes of a Python type reads on one line."""
    assert type_name(msgspec.json.schema(kind)) == shown


def test_structs_are_spelled_out_once() -> None:
    """Every named struct that a schema uses, with fields, types and defaults."""
    found = dict(definitions(msgspec.json.schema(Order), None))
    assert found == {
        "Order": "{items: Item[], tags: {string: integer} = {}}",
        "Item": "{sku: string, count: integer = 1, note: string | null = null}",
    }


def test_pydantic_style_schemas_work() -> None:
    """A top-level object with a title is a struct of that name."""
    schema = {"title": "Model", "type": "object", "properties": {"x": {"type": "integer"}}}
    assert type_name(schema) == "Model"
    assert definitions(schema) == [("Model", "{x?: integer}")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["type", "anyOf", "enum", "const", "$ref", "$defs", "properties", "items", "prefixItems", "required",
             "additionalProperties", "title", "format", "allOf", "default"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_whatever_comes_from_the_bus_is_shown(schema: Any) -> None:
    """No schema, however wrong, raises: it came from somebody else."""
    assert isinstance(type_name(schema), str)
    assert isinstance(definitions(schema), list)
