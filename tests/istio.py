"""Making Istio's documents up: from a few lines of a spec, and by chance from the tables of their fields."""

from __future__ import annotations

import textwrap
from typing import Any

import msgspec
from hypothesis import strategies as st

from nats_mesh.policy import parse
from nats_mesh.policy.istio import Translation, translate, yaml_of
from nats_mesh.policy.istio.shapes import DURATION, FLAG, FREE, NUMBER, TEXT, ListOf, MapOf, Message, Shape
from nats_mesh.policy.istio.translate import ISTIO_KINDS

__all__ = ["documents", "lost", "notes", "of", "round_trip", "specs", "text_of", "values"]


def text_of(kind: str, spec: str, *, name: str = "x", version: str = "", extra: str = "") -> str:
    """A document of Istio's whose spec (from line 5 on) is ``spec``; ``extra`` stands in its metadata."""
    group, versions, _ = ISTIO_KINDS[kind]
    more = f", {extra}" if extra else ""
    body = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    head = f"apiVersion: {group}/{version or versions[-1]}\nkind: {kind}\nmetadata: {{name: {name}{more}}}"
    return f"{head}\nspec:\n{body}\n"


def of(kind: str, spec: str, **more: str) -> Translation:
    """The translation of one such document."""
    return translate(text_of(kind, spec, **more), "x.yaml")


def lost(found: Translation) -> list[str]:
    """The paths that have no meaning, without the reasons."""
    return [each.path for each in found.untranslated]


def notes(found: Translation) -> list[str]:
    """The paths of which there is something to say."""
    return [each.path for each in found.notes]


def documents(found: Translation) -> list[dict[str, Any]]:
    """The documents as plain values, without what is always the same."""
    return [
        {key: value for key, value in each.value.items() if key not in ("apiVersion", "metadata")}
        for each in found.converted
    ]


def round_trip(found: Translation) -> None:
    """What is written as YAML, and as JSON, is read as the very same documents."""
    read = parse(yaml_of(found.converted), file="again.yaml")
    assert [msgspec.to_builtins(policy.document) for policy in read] == [
        msgspec.to_builtins(policy.document) for policy in found.policies
    ]
    for each in found.converted:
        (again,) = parse(msgspec.json.encode(each.value), file="one.json")
        assert msgspec.to_builtins(again.document) == msgspec.to_builtins(each.policy.document)


_WORDS = (
    "reviews", "ratings.default.svc.cluster.local", "*", "v1", "/api", "GET", "mesh", "gw", "x-user", "jason",
    "a*", "*a",
    "*.default.svc.cluster.local", "cluster.local/ns/default/sa/web", "cluster.local/ns/other/sa/web",
    "default", "iss/sub",
    "request.headers[x-a]", "request.auth.claims[a][b]", "source.ip", "503,5xx", "UNAVAILABLE", "https://idp.example/keys",
    "10.0.0.0/8", "api.example.com", "HTTP", "HTTPS", "/etc/tls.pem", "response.code >= 400", "", "mesh-x", "Service",
)  # fmt: skip
_LABELS = (
    "app",
    "version",
    "istio",
    "x-a",
    "X-A",
    "Mesh-X",
    "data-bin",
    "topology.kubernetes.io/zone",
    ":path",
)
_DURATIONS = ("1s", "250ms", "1h30m", "0s", "30h", "0.5s", "3m")


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of a shape, most of them such as people write."""
    if isinstance(shape, Message):
        return _messages(shape)
    if isinstance(shape, ListOf):
        return st.lists(values(shape.item), min_size=1, max_size=3)
    if isinstance(shape, MapOf):
        return st.dictionaries(st.sampled_from(_LABELS), values(shape.item), min_size=1, max_size=3)
    if shape is TEXT:
        return st.sampled_from(_WORDS)
    if shape is FLAG:
        return st.booleans()
    if shape is DURATION:
        return st.sampled_from(_DURATIONS)
    if shape is NUMBER:
        return st.sampled_from([0, 1, 12.5, 100])
    if shape is FREE:
        return st.just("anything")
    return st.sampled_from([0, 1, 3, 10, 80, 200, 404, 503, *_enums()]).filter(
        lambda value: not shape.wrong(value)
    )


def _enums() -> list[str]:
    return [
        "UNSPECIFIED", "ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH", "DISABLE", "SIMPLE", "MUTUAL",
        "ISTIO_MUTUAL",
        "ALLOW", "DENY", "AUDIT", "CUSTOM", "CLIENT", "SERVER", "CLIENT_AND_SERVER", "MESH_EXTERNAL",
        "MESH_INTERNAL", "DNS",
        "NONE", "DEFAULT", "UPGRADE", "V1", "FORWARD", "FROM_REQUEST_PORT", "ALL_METRICS", "UPSERT",
        "TLSV1_2", "TLS_AUTO",
    ]  # fmt: skip


@st.composite
def _messages(draw: st.DrawFn, shape: Message) -> dict[str, Any]:
    names = (
        set(draw(st.lists(st.sampled_from(sorted(shape.fields)), max_size=5, unique=True)))
        if shape.fields
        else set()
    )
    names |= set(shape.required)
    for group in shape.one_of:
        said = [name for name in group if name in names]
        names -= set(said[1:])
    return {name: draw(values(shape.fields[name].shape)) for name in sorted(names)}


def specs(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Specs of a kind whose fields are all such as Istio takes them."""
    return _messages(ISTIO_KINDS[kind].spec)
