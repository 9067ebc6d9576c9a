"""Whatever Istio's documents say: policies, or an error with its place, and not a field that nobody has looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nats_mesh.errors import PolicyError
from nats_mesh.policy.istio import Translation, translate
from nats_mesh.policy.istio.translate import ISTIO_KINDS
from tests.istio import round_trip, specs
from tests.tools import scaled

KINDS = sorted(ISTIO_KINDS)


def _text(kind: str, spec: object, name: str = "x") -> str:
    group, versions, _ = ISTIO_KINDS[kind]
    return json.dumps(
        {"apiVersion": f"{group}/{versions[0]}", "kind": kind, "metadata": {"name": name}, "spec": spec}
    )


def _attempt(*texts: str) -> Translation | None:
    try:
        return translate("\n---\n".join(texts), "x.yaml")
    except PolicyError as error:
        for problem in error.problems or (error,):
            assert problem.file == "x.yaml"
            assert problem.line is None or problem.line > 0
        return None


@settings(max_examples=scaled(30, 1000))
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_translated_or_named(kind: str, data: st.DataObject) -> None:
    """A document whose fields Istio takes gives policies that are read back as they are, and every field that is not in
    them is reported with a reason of its own; the only errors are about what Istio would refuse, too, or names."""
    found = _attempt(_text(kind, data.draw(specs(kind))))
    if found is not None:
        round_trip(found)
        reasons = {each.reason for each in (*found.untranslated, *found.notes)}
        assert "has no meaning here" not in reasons


@settings(max_examples=scaled(15, 500))
@given(st.data())
def test_documents_that_belong_together(data: st.DataObject) -> None:
    """So do several documents that name each other: virtual services with their gateways, entries and delegates."""
    texts = [
        _text(kind, data.draw(specs(kind)), name)
        for kind, name in (
            ("Gateway", "gw"), ("VirtualService", "a"), ("VirtualService", "v1"), ("ServiceEntry", "api"),
            ("DestinationRule", "d"), ("AuthorizationPolicy", "p"), ("RequestAuthentication", "r"),
        )
    ]  # fmt: skip
    found = _attempt(*texts)
    if found is not None:
        round_trip(found)


_JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=12), inside, max_size=3),
    max_leaves=8,
)


@settings(max_examples=scaled(30, 1000))
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_junk_in_any_place_is_an_error_with_its_line(kind: str, data: st.DataObject) -> None:
    """Whatever stands anywhere in a document, a PolicyError is all that can come of it."""
    spec = data.draw(specs(kind))
    places = list(_places(spec))
    if places:
        holder, key = data.draw(st.sampled_from(places))
        holder[key] = data.draw(_JUNK)
    else:
        spec = data.draw(_JUNK)
    _attempt(_text(kind, spec))


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(items):
        yield value, key
        yield from _places(each)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_at_all(content: str | bytes) -> None:
    """No content of a file breaks the translation otherwise."""
    for head in ("", "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"):
        try:
            translate(
                head.encode()
                + (content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
            )
        except PolicyError:
            pass


@given(_JUNK)
def test_any_document_at_all(value: object) -> None:
    """Nor does any document, with whatever in the place of its head."""
    for document in (
        value,
        {"kind": "List", "apiVersion": "v1", "items": value},
        {"apiVersion": value, "kind": "Gateway"},
    ):
        try:
            translate(json.dumps(document), "x.yaml")
        except PolicyError:
            pass
