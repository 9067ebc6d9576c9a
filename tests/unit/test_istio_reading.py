"""Which documents are taken, what is said of the others, and where mistakes are."""

from __future__ import annotations

import json
import re

import pytest

from nats_mesh.core.router import draw
from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicySet, parse
from nats_mesh.policy.istio import is_istio, translate, translate_files, yaml_of
from nats_mesh.policy.istio.hosts import name_of
from nats_mesh.policy.istio.shapes import ListOf, MapOf, Message, Shape
from nats_mesh.policy.istio.translate import ISTIO_KINDS
from tests.istio import documents, lost, notes, of, round_trip, text_of
from tests.tools import ROOT

BOOKINFO = ROOT / "examples" / "bookinfo" / "istio"
ROUTE = "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v1}}]}]"
OWN = "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: own}\nspec: {target: {service: a}, timeout: 1s}\n"


@pytest.mark.parametrize(
    ("kind", "version"),
    [(kind, version) for kind, (_, versions, _) in ISTIO_KINDS.items() for version in versions],
)
def test_every_version_of_every_kind(kind: str, version: str) -> None:
    """All versions of an API mean the same."""
    least = {"DestinationRule": "host: a", "ServiceEntry": "hosts: [a.test]", "VirtualService": ROUTE}
    newest = of(kind, least.get(kind, "{}"))
    assert documents(of(kind, least.get(kind, "{}"), version=version)) == documents(newest)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("apiVersion: networking.istio.io/v2\nkind: VirtualService", "did you mean networking.istio.io/v1"),
        ("apiVersion: networking.istio.io/v1\nkind: VirtualServices", "did you mean VirtualService?"),
        ("apiVersion: security.istio.io/v1\nkind: VirtualService", "has no VirtualService"),
        ("apiVersion: newtorking/v1\nkind: VirtualService", "has no VirtualService"),
        ("apiVersion: v1\nkind: Gateway", "has no Gateway"),
        ("kind: VirtualService", "apiVersion: is missing"),
        ("apiVersion: networking.istio.io/v1", "is no kind of Istio's"),
        ("apiVersion: mesh/v2\nkind: Route", "this version reads mesh/v1"),
    ],
)
def test_heads(head: str, said: str) -> None:
    """A head that is nearly right is a mistake, and never a document that is passed over."""
    with pytest.raises(PolicyError) as caught:
        translate(f"{head}\nmetadata: {{name: a}}\nspec: {{}}\n", "x.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "path", "said"),
    [
        (text_of("VirtualService", "hosts: [a]\nhtpp: []"), 6, "spec.htpp", "did you mean http?"),
        (text_of("VirtualService", "hosts: a"), 5, "spec.hosts", "must be a list"),
        (text_of("VirtualService", "hosts: [a]\nhttp:\n- timeout: 5"), 7, "spec.http[0].timeout",
         "a duration with its unit"),
        (text_of("VirtualService", "hosts: [a]\nhttp:\n- fault:\n    delay:\n      fixed_delay: 1s"), 9,
         "spec.http[0].fault.delay.fixed_delay", "did you mean fixedDelay?"),
        (text_of("VirtualService", "hosts: [a]\nhttp:\n- match:\n  - headers:\n      a: x"), 9,
         "spec.http[0].match[0].headers.a", "must be a mapping"),
        (text_of("VirtualService", "hosts: [a]\nhttp:\n- match:\n  - uri: {exact: /a, prefix: /b}"), 8,
         "spec.http[0].match[0].uri", "only one of them can hold"),
        (text_of("VirtualService", "{}", extra="nmae: b"), 3, "metadata.nmae", "did you mean name?"),
        (text_of("VirtualService", "{}") + "specs: {}\n", 6, "specs", "did you mean spec?"),
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\n", 1, "metadata", "is missing"),
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {}\n", 1, "metadata.name", "is missing"),
        (text_of("Telemetry", "tracing: [{randomSamplingPercentage: 101}]"), 5,
         "spec.tracing[0].randomSamplingPercentage", "must be from 0 to 100"),
        (text_of("Gateway", "servers: [{hosts: [a], port: {number: 99999}}]"), 5,
         "spec.servers[0].port.number", "to 65535"),
        (f"{text_of('VirtualService', ROUTE)}---\n{text_of('VirtualService', ROUTE)}", 10, "metadata.name",
         "stands at x.yaml:1, too"),
    ],
)  # fmt: skip
def test_mistakes_have_their_place(text: str, line: int, path: str, said: str) -> None:
    """Every mistake names file, line and path, and the nearest field where one is near."""
    with pytest.raises(PolicyError) as caught:
        translate(text, "x.yaml")
    error = caught.value
    assert (error.file, error.line, error.path) == ("x.yaml", line, path)
    assert said in str(error)


def test_all_mistakes_at_once() -> None:
    """One look at a file is enough: the mistakes of all documents, ours and Istio's."""
    bad = text_of("VirtualService", "hosts: a\nhttp: {}") + "---\n" + OWN.replace("1s", "1")
    with pytest.raises(PolicyError) as caught:
        translate(bad, "x.yaml")
    assert [problem.line for problem in caught.value.problems] == [5, 6, 11]


def test_own_documents_beside_istios() -> None:
    """A file may hold both; those of the mesh are what they are without the translation, in their order."""
    found = translate(f"{OWN}---\n{text_of('VirtualService', ROUTE)}---\n---\n", "x.yaml")
    assert [policy.name for policy in found.policies] == ["Destination/own", "Route/x"]
    assert [each.origin for each in found.converted] == ["", "VirtualService/x"]
    (own,) = parse(OWN, file="x.yaml")
    assert found.policies[0].document == own.document
    assert [policy.line for policy in found.policies] == [1, 6]
    assert found.policies[1].lines["spec.rules[0]"] == 11
    round_trip(found)


def test_lists_as_kubernetes_writes_them() -> None:
    """`kubectl get -o yaml` writes a List, with what the server keeps for itself, of which nothing is a loss."""
    item = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {
            "name": "reviews",
            "namespace": "default",
            "uid": "1",
            "resourceVersion": "2",
            "generation": 1,
            "creationTimestamp": "2024-01-01T00:00:00Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            "labels": {"team": "a"},
        },
        "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
        "status": {"conditions": []},
    }
    for head in (
        {"apiVersion": "v1", "kind": "List"},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualServiceList"},
    ):
        found = translate(
            json.dumps({**head, "metadata": {"resourceVersion": ""}, "items": [item]}), "x.json"
        )
        assert found.converted[0].value["metadata"] == {
            "name": "reviews",
            "namespace": "default",
            "labels": {"team": "a"},
        }
        assert lost(found) == []
        assert "status" in notes(found)
    with pytest.raises(PolicyError, match="must be a list"):
        translate(json.dumps({"apiVersion": "v1", "kind": "List", "items": 1}), "x.json")


def test_documents_of_others_are_named() -> None:
    """Files of Kubernetes hold services and deployments, too: they are no policies, and said to be none; so are Istio's
    kinds that have no meaning here."""
    other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 1}\n"
    head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}"
    peer = f"{head}\nspec: {{mtls: {{mode: STRICT}}}}\n"
    found = translate(f"{other}---\n{peer}---\n{OWN}", "x.yaml")
    assert [(each.document, each.path) for each in found.untranslated] == [
        ("Deployment/a", "kind"),
        ("PeerAuthentication/default", "kind"),
    ]
    assert len(found.policies) == 1


def test_files_that_belong_together() -> None:
    """What one file names may stand in another; a name that stands in two of them is a mistake of both."""
    route = text_of("VirtualService", ROUTE)
    rule = text_of("DestinationRule", "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]")
    PolicySet.of(translate_files([(route, "a.yaml"), (rule, "b.yaml")]).policies)
    with pytest.raises(PolicyError, match=r"stands at a\.yaml:1, too"):
        translate_files([(route, "a.yaml"), (route, "b.yaml")])


def test_the_namespace_that_documents_without_one_are_for() -> None:
    """It decides what is another namespace; a policy names none all the same."""
    text = text_of("VirtualService", ROUTE.replace("host: reviews,", "host: reviews.prod.svc.cluster.local,"))
    assert lost(translate(text, "x.yaml", namespace="prod")) == []
    assert "namespace" not in translate(text, "x.yaml", namespace="prod").converted[0].value["metadata"]
    assert lost(translate(text, "x.yaml")) != []


def test_names() -> None:
    """Names of Kubernetes have dots and 253 characters; policies' have neither, and stay apart."""
    assert name_of("reviews.default") == "reviews-default"
    long = name_of("a" * 100)
    assert (len(long), long != name_of("a" * 101)) == (63, True)
    assert name_of("all") != "all"
    assert name_of("...") == "policy"


def test_comments_say_where_it_comes_from() -> None:
    """The YAML names document, file and line of each policy, and of each rule."""
    text = yaml_of(translate(text_of("VirtualService", ROUTE), "shop/reviews.yaml").converted)
    assert text.splitlines()[0] == "# from VirtualService/x, shop/reviews.yaml:1"
    assert "# from spec.http[0], line 6" in text


@pytest.mark.parametrize(
    ("version", "expected"), [("networking.istio.io/v1", True), ("mesh/v1", False), (None, False)]
)
def test_is_istio(version: object, expected: bool) -> None:
    """Documents are told apart by their apiVersion."""
    assert is_istio(version) is expected


def _reasons(shape: Shape) -> list[str]:
    if isinstance(shape, ListOf | MapOf):
        return _reasons(shape.item)
    if not isinstance(shape, Message):
        return []
    return [
        reason
        for field in shape.fields.values()
        for reason in (field.reason, *_reasons(field.shape))
        if reason
    ]


def test_reasons_are_a_few_words() -> None:
    """Every reason why a field has no meaning is short enough for one line."""
    reasons = [reason for kind in ISTIO_KINDS.values() for reason in _reasons(kind.spec)]
    assert len(reasons) > 40
    assert all(0 < len(reason) < 100 and "\n" not in reason for reason in reasons)


# What each file of Bookinfo comes to: the rules of its routes by service, or the subsets.
BOOKINFO_RULES: dict[str, dict[str, object]] = {
    "virtual-service-all-v1.yaml": {
        name: [{"split": [{"service": name, "subset": "v1"}]}]
        for name in ("productpage", "reviews", "ratings", "details")
    },
    "virtual-service-details-v2.yaml": {"details": [{"split": [{"service": "details", "subset": "v2"}]}]},
    "virtual-service-ratings-db.yaml": {
        "reviews": [{"split": [{"service": "reviews", "subset": "v3"}]}],
        "ratings": [{"split": [{"service": "ratings", "subset": "v2"}]}],
    },
    "virtual-service-ratings-mysql.yaml": {
        "reviews": [{"split": [{"service": "reviews", "subset": "v3"}]}],
        "ratings": [{"split": [{"service": "ratings", "subset": "v2-mysql"}]}],
    },
    "virtual-service-ratings-test-delay.yaml": {
        "ratings": [
            {
                "match": {"headers": {"end-user": "jason"}},
                "split": [{"service": "ratings", "subset": "v1"}],
                "fault": {"delay": {"duration": "7s"}},
            },
            {"split": [{"service": "ratings", "subset": "v1"}]},
        ]
    },
    "virtual-service-reviews-80-20.yaml": {
        "reviews": [
            {
                "split": [
                    {"service": "reviews", "subset": "v1", "weight": 80},
                    {"service": "reviews", "subset": "v2", "weight": 20},
                ]
            }
        ]
    },
    "virtual-service-reviews-90-10.yaml": {
        "reviews": [
            {
                "split": [
                    {"service": "reviews", "subset": "v1", "weight": 90},
                    {"service": "reviews", "subset": "v2", "weight": 10},
                ]
            }
        ]
    },
    "virtual-service-reviews-test-v2.yaml": {
        "reviews": [
            {"match": {"headers": {"end-user": "jason"}}, "split": [{"service": "reviews", "subset": "v2"}]},
            {"split": [{"service": "reviews", "subset": "v1"}]},
        ]
    },
    "virtual-service-reviews-v2-v3.yaml": {
        "reviews": [
            {
                "split": [
                    {"service": "reviews", "subset": "v2", "weight": 50},
                    {"service": "reviews", "subset": "v3", "weight": 50},
                ]
            }
        ]
    },
    "virtual-service-reviews-v3.yaml": {"reviews": [{"split": [{"service": "reviews", "subset": "v3"}]}]},
}


@pytest.mark.parametrize("file", sorted(path.name for path in BOOKINFO.glob("*.yaml")))
def test_bookinfo(file: str) -> None:
    """Every file of Istio's Bookinfo is translated without a loss (but for the port at the gateway), holds together
    with
    the sample's destination rules, and says what Istio's says."""
    content = (BOOKINFO / file).read_bytes()
    found = translate(content, file)
    gone = ["spec.http[0].route[0].destination.port"] if file == "bookinfo-gateway.yaml" else []
    assert lost(found) == gone
    round_trip(found)
    if file in BOOKINFO_RULES:
        rules = {each["spec"]["target"]["service"]: each["spec"]["rules"] for each in documents(found)}
        assert rules == BOOKINFO_RULES[file]
        subsets = translate((BOOKINFO / "destination-rule-all.yaml").read_bytes(), "d.yaml")
        PolicySet.of((*subsets.policies, *found.policies))
    elif file.startswith("destination-rule"):
        PolicySet.of(found.policies)
        named = {each["spec"]["target"]["service"]: each["spec"]["subsets"] for each in documents(found)}
        assert named["reviews"] == {name: {"labels": {"version": name}} for name in ("v1", "v2", "v3")}
        assert len(named) == (1 if file == "destination-rule-reviews.yaml" else 4)


def test_the_gateway_of_bookinfo() -> None:
    """Its paths become calls of the product page; nothing is lost but the port of a destination."""
    (gateway,) = documents(translate((BOOKINFO / "bookinfo-gateway.yaml").read_bytes(), "g.yaml"))
    ingress = gateway["spec"]["ingress"]
    assert ingress["port"] == 8080
    assert {route["service"] for route in ingress["routes"]} == {"productpage"}
    assert [route["path"] for route in ingress["routes"]] == [
        "/productpage", "/static", "/static/*", "/login", "/logout", "/api/v1/products", "/api/v1/products/*",
    ]  # fmt: skip


def test_the_page_names_every_field() -> None:
    """docs/istio.md says of every field what becomes of it; what stands only inside of a field without a meaning need
    not be there."""
    page = (ROOT / "docs" / "istio.md").read_text()
    named = {name for _, _, spec in ISTIO_KINDS.values() for name in _said(spec)}
    assert sorted(name for name in named if not re.search(rf"\b{re.escape(name)}\b", page)) == []
    assert len(named) > 150


def _said(shape: Shape) -> set[str]:
    """The fields in a shape, but not those inside of fields without a meaning."""
    if isinstance(shape, ListOf | MapOf):
        return _said(shape.item)
    if not isinstance(shape, Message):
        return set()
    found = set(shape.fields)
    for field in shape.fields.values():
        found |= set() if field.reason else _said(field.shape)
    return found


@pytest.mark.parametrize(("user", "subset"), [("jason", "v2"), ("anna", "v1"), (None, "v1")])
def test_the_data_path_goes_where_istio_says(user: str | None, subset: str) -> None:
    """The rules of the sample's request routing, drawn by the very router of calls."""
    files = ("destination-rule-all.yaml", "virtual-service-reviews-test-v2.yaml")
    found = translate_files([((BOOKINFO / name).read_bytes(), name) for name in files])
    (rules,) = PolicySet.of(found.policies).outbound("reviews", "get", "productpage").routing
    headers = {} if user is None else {"end-user": [user]}
    rule = draw(rules, lambda name: headers.get(name, []), "productpage", "reviews", lambda: 0.5)
    assert rule is not None
    assert [leg.subset for leg in rule.legs or ()] == [subset]


@pytest.mark.parametrize("kind", ["VirtualService", "List"])
def test_a_name_that_cannot_be_printed_is_shown_escaped(kind: str) -> None:
    """It could turn the line of a log, or end it."""
    version = "v1" if kind == "List" else "networking.istio.io/v1"
    more = "items: []" if kind == "List" else "metadata: {name: a}\nspec: {hosts: [a]}"
    with pytest.raises(PolicyError, match=r"'spe\\u202ec\\n': is no field") as caught:
        translate(f'apiVersion: {version}\nkind: {kind}\n"spe\\u202ec\\n": 1\n{more}\n', "x.yaml")
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
