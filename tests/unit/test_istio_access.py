"""AuthorizationPolicies never let in what Istio would refuse, and say where they let in less; whose tokens count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.access import decide
from nats_mesh.errors import PolicyError
from nats_mesh.policy.access import access_rules
from nats_mesh.policy.istio import translate
from tests.istio import documents, lost, notes, of, round_trip, text_of

_WEB = "cluster.local/ns/default/sa/web"
_ALLOW_WEB = {"action": "ALLOW", "callers": ["web"]}

# The spec, what the Access says beside its target, the paths that are lost.
POLICIES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("nobody at all", "{}", {"default": "deny"}, []),
    ("nobody, said with a word", "action: ALLOW", {"default": "deny"}, []),
    ("everybody", "rules: [{}]", {"rules": [{"action": "ALLOW"}]}, []),
    (
        "one caller",
        f"rules: [{{from: [{{source: {{principals: ['{_WEB}']}}}}]}}]",
        {"rules": [_ALLOW_WEB]},
        [],
    ),
    (
        "callers by the beginning and the end of their names",
        f"rules: [{{from: [{{source: {{principals: ['{_WEB}-*', '*cart', '*/sa/till']}}}}]}}]",
        {"rules": [{"action": "ALLOW", "callers": ["web-*", "*cart", "till"]}]},
        [],
    ),
    (
        "whoever has an identity",
        "rules: [{from: [{source: {principals: ['*']}}]}]",
        {"rules": [{"action": "ALLOW", "notCallers": ["anonymous"]}]},
        [],
    ),
    (
        "whoever has none",
        "action: DENY\nrules: [{from: [{source: {notPrincipals: ['*']}}]}]",
        {"rules": [{"action": "DENY", "callers": ["anonymous"]}]},
        [],
    ),
    (
        "the own namespace, but one",
        f"rules: [{{from: [{{source: {{namespaces: [default], notPrincipals: ['{_WEB}']}}}}]}}]",
        {"rules": [{"action": "ALLOW", "notCallers": ["anonymous", "web"]}]},
        [],
    ),
    (
        "another namespace: nobody of it comes here",
        "rules: [{from: [{source: {namespaces: [prod]}}]}]",
        {"default": "deny"},
        ["spec.rules[0]", "spec.rules[0].from[0].source.namespaces"],
    ),
    (
        "another trust domain is not let in",
        f"rules: [{{from: [{{source: {{principals: ['td2/ns/default/sa/x', '{_WEB}']}}}}]}}]",
        {"rules": [_ALLOW_WEB]},
        ["spec.rules[0].from[0].source.principals"],
    ),
    (
        "and is kept out",
        "action: DENY\nrules: [{from: [{source: {principals: [td2/ns/default/sa/x]}}]}]",
        {"rules": [{"action": "DENY", "callers": ["x"]}]},
        ["spec.rules[0].from[0].source.principals"],
    ),
    (
        "service accounts",
        "rules: [{from: [{source: {serviceAccounts: [web, default/cart, prod/till]}}]}]",
        {"rules": [{"action": "ALLOW", "callers": ["web", "cart"]}]},
        ["spec.rules[0].from[0].source.serviceAccounts"],
    ),
    (
        "a method that no call has allows nothing",
        f"rules: [{{from: [{{source: {{principals: ['{_WEB}']}}}}], to: [{{operation: {{methods: [GET]}}}}]}}]",
        {"default": "deny"},
        ["spec.rules[0]", "spec.rules[0].to[0].operation.methods"],
    ),
    (
        "every method is no condition",
        f"rules: [{{from: [{{source: {{principals: ['{_WEB}']}}}}], to: [{{operation: {{methods: ['*'], "
        f"paths: ['*']}}}}]}}]",
        {"rules": [_ALLOW_WEB]},
        [],
    ),
    (
        "one operation of two that can be asked for",
        "rules: [{to: [{operation: {paths: [/a]}}, {operation: {hosts: ['*']}}]}]",
        {"rules": [{"action": "ALLOW"}]},
        ["spec.rules[0].to[0].operation.paths"],
    ),
    (
        "a path that no call has denies everything",
        "action: DENY\nrules: [{to: [{operation: {paths: [/admin*], methods: [POST]}}]}]",
        {"rules": [{"action": "DENY"}]},
        ["spec.rules[0].to[0].operation.methods", "spec.rules[0].to[0].operation.paths"],
    ),
    (
        "no token, no call",
        "action: DENY\nrules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]",
        {"rules": [{"action": "DENY", "claims": {"iss": {"absent": True}}}]},
        [],
    ),
    (
        "any token",
        "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
        {"rules": [{"action": "ALLOW", "claims": {"iss": {"present": True}}}]},
        [],
    ),
    (
        "one token",
        "rules: [{from: [{source: {requestPrincipals: [testing@secure.istio.io/testing@secure.istio.io]}}]}]",
        {
            "rules": [
                {
                    "action": "ALLOW",
                    "claims": {"iss": "testing@secure.istio.io", "sub": "testing@secure.istio.io"},
                }
            ]
        },
        [],
    ),
    (
        "anybody but one token",
        "rules: [{from: [{source: {notRequestPrincipals: [a/b]}}]}]",
        {
            "rules": [
                {"action": "ALLOW", "claims": {"iss": {"exact": "a", "invert": True}}},
                {"action": "ALLOW", "claims": {"sub": {"exact": "b", "invert": True}}},
            ]
        },
        [],
    ),
    (
        "claims, nested and by their beginning",
        "rules: [{when: [{key: 'request.auth.claims[groups]', values: [group1]}, "
        "{key: 'request.auth.claims[realm][roles]', values: ['adm*']}, {key: request.auth.audiences, values: [app]}]}]",
        {
            "rules": [
                {
                    "action": "ALLOW",
                    "claims": {"groups": "group1", "realm.roles": {"prefix": "adm"}, "aud": "app"},
                }
            ]
        },
        [],
    ),
    (
        "several values, and values that it must not be",
        "rules: [{when: [{key: 'request.headers[X-Tier]', values: [gold, 'silver*', '*.plus']}, "
        "{key: 'request.headers[x-old]', notValues: ['1']}, {key: 'request.headers[x-any]', values: ['*']}]}]",
        {
            "rules": [
                {
                    "action": "ALLOW",
                    "headers": {
                        "x-tier": {"regex": "gold|silver.*|.*\\.plus"},
                        "x-old": {"exact": "1", "invert": True},
                        "x-any": {"present": True},
                    },
                }
            ]
        },
        [],
    ),
    (
        "addresses allow nothing",
        "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}, {when: [{key: remote.ip, values: [10.0.0.1]}]}]",
        {"default": "deny"},
        [
            "spec.rules[0]",
            "spec.rules[0].from[0].source.ipBlocks",
            "spec.rules[1]",
            "spec.rules[1].when[0].values",
        ],
    ),
    (
        "addresses deny everything",
        "action: DENY\nrules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}]",
        {"rules": [{"action": "DENY"}]},
        ["spec.rules[0].from[0].source.notIpBlocks"],
    ),
    (
        "writing down",
        f"action: AUDIT\nrules: [{{from: [{{source: {{principals: ['{_WEB}']}}}}]}}]",
        {"rules": [{"action": "AUDIT", "callers": ["web"]}]},
        [],
    ),
    (
        "two sources and a condition",
        f"rules: [{{from: [{{source: {{principals: ['{_WEB}']}}}}, {{source: {{requestPrincipals: ['*']}}}}], "
        "when: [{key: source.principal, values: ['*']}]}]",
        {
            "rules": [
                {**_ALLOW_WEB, "notCallers": ["anonymous"]},
                {"action": "ALLOW", "claims": {"iss": {"present": True}}, "notCallers": ["anonymous"]},
            ]
        },
        [],
    ),
]


@pytest.mark.parametrize(
    ("spec", "expected", "gone"), [row[1:] for row in POLICIES], ids=[row[0] for row in POLICIES]
)
def test_policies(spec: str, expected: dict[str, Any], gone: list[str]) -> None:
    """Each comes to what its row says, and what is lost is named by its path."""
    selector = "" if spec == "{}" else "selector: {matchLabels: {app: reviews}}\n"
    found = of("AuthorizationPolicy", f"{selector}{spec}")
    target = {"target": {"service": "reviews"}} if selector else {}
    assert documents(found) == [{"kind": "Access", "spec": {**target, **expected}}]
    assert lost(found) == gone
    round_trip(found)


def test_a_denial_of_nothing_is_no_policy() -> None:
    """A DENY without a rule meets no call, and needs no Access."""
    found = of("AuthorizationPolicy", "action: DENY")
    assert (documents(found), lost(found)) == ([], [])


def test_dry_runs() -> None:
    """Istio's annotation for a dry run is the mode of the Access."""
    found = of("AuthorizationPolicy", "rules: [{}]", extra="annotations: {istio.io/dry-run: 'true'}")
    assert documents(found)[0]["spec"]["mode"] == "dry-run"
    assert (lost(found), notes(found)) == ([], [])


@pytest.mark.parametrize(
    ("spec", "service", "gone"),
    [
        ("selector: {matchLabels: {app: reviews}}", "reviews", []),
        ("selector: {matchLabels: {app.kubernetes.io/name: reviews, app: reviews}}", "reviews", []),
        ("targetRefs: [{kind: Service, group: '', name: reviews}]", "reviews", []),
        ("selector: {matchLabels: {istio: ingressgateway}}", None, ["spec.selector.matchLabels"]),
        (
            "targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: w}",
            None,
            ["spec.targetRef.kind"],
        ),
    ],
)
def test_whom_it_protects(spec: str, service: str | None, gone: list[str]) -> None:
    """Workloads are known by the name of their service; what is about a gateway of Istio's is named and left out."""
    found = of("AuthorizationPolicy", f"{spec}\nrules: [{{}}]")
    targets = [each["spec"].get("target", {}).get("service") for each in documents(found)]
    assert targets == ([service] if service else [])
    assert lost(found) == gone


def test_labels_that_name_no_service_are_an_error() -> None:
    """Whom a policy protects is never guessed: neither left open nor locked up."""
    with pytest.raises(PolicyError, match="names no service") as caught:
        of("AuthorizationPolicy", "selector:\n  matchLabels: {tier: backend}\nrules: [{}]")
    assert caught.value.line == 6


def test_some_versions_alone() -> None:
    """An Access is about every instance. An ALLOW for some versions keeps the others out of all else; beside another
    ALLOW
    it would let the others' calls in, too, and so it is an error. A DENY refuses everywhere."""
    one = text_of(
        "AuthorizationPolicy", "selector: {matchLabels: {app: a, version: v1}}\nrules: [{}]", name="one"
    )
    found = translate(one, "x.yaml")
    assert documents(found)[0]["spec"] == {"target": {"service": "a"}, "rules": [{"action": "ALLOW"}]}
    assert [(each.path, each.severity) for each in found.untranslated] == [
        ("spec.selector.matchLabels", "serious")
    ]
    for selector in (
        "selector: {matchLabels: {app: a, version: v2}}\n",
        "selector: {matchLabels: {app: a}}\n",
        "",
    ):
        other = text_of("AuthorizationPolicy", f"{selector}action: ALLOW", name="two")
        with pytest.raises(PolicyError, match="would allow both everywhere"):
            translate(f"{one}---\n{other}", "x.yaml")
    denial = text_of(
        "AuthorizationPolicy", "selector: {matchLabels: {app: a, version: v2}}\naction: DENY\nrules: [{}]"
    )
    assert len(documents(translate(f"{one}---\n{denial}", "x.yaml"))) == 2


def test_a_server_outside_that_decides() -> None:
    """Nobody asks it: that is said as what lets calls in, and nothing is made up in its place."""
    found = of("AuthorizationPolicy", "action: CUSTOM\nprovider: {name: opa}\nrules: [{}]")
    assert documents(found) == []
    assert [each.path for each in found.serious] == ["spec.action"]


def test_the_namespace_of_istio_itself_means_everywhere() -> None:
    """A policy in istio-system holds in the namespace that it is applied to, and says that it must be in each."""
    found = of("AuthorizationPolicy", "{}", extra="namespace: istio-system")
    assert found.converted[0].value["metadata"] == {"name": "x"}
    assert "metadata.namespace" in notes(found)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rules: [{from: []}]", "names none"),
        ("rules: [{from: [{source: {}}]}]", "says nothing: leave `from` out"),
        ("rules: [{to: [{operation: {}}]}]", "says nothing: leave `to` out"),
        ("rules: [{from: [{}]}]", "source: is missing"),
        ("rules: [{from: [{source: {principals: []}}]}]", "names none"),
        ("rules: [{when: [{key: source.principel, values: [a]}]}]", "did you mean source.principal?"),
        ("rules: [{when: [{key: source.ip}]}]", "asks for nothing"),
        ("action: DENNY", "did you mean DENY?"),
        ("rules: [{from: [{source: {principal: [a]}}]}]", "did you mean principals?"),
    ],
)
def test_mistakes(spec: str, said: str) -> None:
    """What Istio would refuse is refused, because a condition that is forgotten would let everybody in."""
    with pytest.raises(PolicyError) as caught:
        of("AuthorizationPolicy", spec)
    assert said in str(caught.value)
    assert caught.value.line == 5


_NAMES = ("web", "web-2", "cart")
_PRINCIPALS = st.sampled_from(
    [
        "*",
        _WEB,
        f"{_WEB}*",
        "*cart",
        "*/sa/cart",
        "cluster.local/ns/default/*",
        "cluster.local/ns/prod/sa/web",
        "td/ns/default/sa/web",
    ]
)
_TOKENS = st.sampled_from(["*", "a/b", "a/c", "*/b"])


def _values(of_: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(of_, min_size=1, max_size=2, unique=True)


def _either(word: str, of_: st.SearchStrategy[str]) -> dict[str, st.SearchStrategy[list[str]]]:
    return {word: _values(of_), f"not{word[0].upper()}{word[1:]}": _values(of_)}


_SOURCE = st.fixed_dictionaries(
    {},
    optional={
        **_either("principals", _PRINCIPALS),
        **_either("requestPrincipals", _TOKENS),
        **_either("namespaces", st.sampled_from(["default", "prod", "def*"])),
    },
).filter(bool)
_OPERATION = st.fixed_dictionaries(
    {},
    optional={
        **_either("methods", st.sampled_from(["GET", "*"])),
        **_either("paths", st.sampled_from(["/a", "/b*", "*"])),
    },
).filter(bool)
_WHEN = st.fixed_dictionaries(
    {"key": st.sampled_from(["request.headers[x]", "request.auth.claims[role]"])},
    optional={name: _values(st.sampled_from(["1", "1*", "*2", "*"])) for name in ("values", "notValues")},
).filter(lambda condition: len(condition) > 1)
_RULE = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.builds(lambda s: {"source": s}, _SOURCE), min_size=1, max_size=2),
        "to": st.lists(st.builds(lambda o: {"operation": o}, _OPERATION), min_size=1, max_size=2),
        "when": st.lists(_WHEN, min_size=1, max_size=2),
    },
)


class _Request:
    """A request as Istio sees it: a call of the mesh, and the method and the path that it might have had."""

    def __init__(
        self, caller: str, header: str | None, claims: Mapping[str, str], method: str, path: str
    ) -> None:
        self.caller = caller
        self.header = header
        self.claims = claims
        self.of = {
            "principals": f"cluster.local/ns/default/sa/{caller}" if caller != "anonymous" else None,
            "namespaces": "default" if caller != "anonymous" else None,
            "requestPrincipals": f"{claims['iss']}/{claims['sub']}" if claims else None,
            "methods": method,
            "paths": path,
            "request.headers[x]": header,
            "request.auth.claims[role]": claims.get("role"),
        }


def _fits(pattern: str, value: str | None) -> bool:
    if value is None:
        return False
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


def _fields(said: Mapping[str, Any], request: _Request) -> bool:
    """Istio's own reading of a source or an operation."""
    for name, values in said.items():
        negate = name.startswith("not")
        word = f"{name[3].lower()}{name[4:]}" if negate else name
        if any(_fits(each, request.of[word]) for each in values) is negate:
            return False
    return True


def _met(rule: Mapping[str, Any], request: _Request) -> bool:
    """Istio's own reading of a rule."""
    sources, operations = rule.get("from"), rule.get("to")
    if sources is not None and not any(_fields(each["source"], request) for each in sources):
        return False
    if operations is not None and not any(_fields(each["operation"], request) for each in operations):
        return False
    for each in rule.get("when", ()):
        value = request.of[each["key"]]
        if "values" in each and not any(_fits(one, value) for one in each["values"]):
            return False
        if "notValues" in each and any(_fits(one, value) for one in each["notValues"]):
            return False
    return True


_CLAIMS: tuple[dict[str, str], ...] = (
    {},
    {"iss": "a", "sub": "b"},
    {"iss": "a", "sub": "c", "role": "1"},
    {"iss": "z", "sub": "b", "role": "12"},
)


@given(st.lists(_RULE, max_size=3), st.sampled_from(["ALLOW", "DENY"]))
def test_never_wider_than_istio(rules: list[dict[str, Any]], action: str) -> None:
    """Whatever a rule asks for: a call that comes in is one that Istio lets in whatever method and path it might have
    had, and where nothing is lost it is the other way round, too."""
    text = json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "x"},
            "spec": {"action": action, "rules": rules},
        }
    )
    found = translate(text, "x.json")
    held = access_rules(found.policies, "reviews", "get")
    for caller in (*_NAMES, "anonymous"):
        for header in (None, "1", "12", "3"):
            for claims in _CLAIMS:
                decision = decide(
                    held,
                    caller=caller,
                    endpoint="get",
                    values=lambda name, h=header: [h] if h is not None and name == "x" else [],  # type: ignore[misc]  # a default holds what the loop's variable is now
                    claims=claims,
                )
                every = [
                    any(_met(rule, _Request(caller, header, claims, method, path)) for rule in rules)
                    for method in ("GET", "POST")
                    for path in ("/a", "/bb", "/c")
                ]
                allowed = every if action == "ALLOW" else [not each for each in every]
                if decision.allowed:
                    assert all(allowed)
                elif not found.untranslated:
                    assert not any(allowed)


ISSUERS: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    (
        "[{issuer: testing@secure.istio.io, jwksUri: 'https://example.com/jwks.json', audiences: [a, b]}]",
        [
            {
                "issuer": "testing@secure.istio.io",
                "audiences": ["a", "b"],
                "jwks": {"url": "https://example.com/jwks.json"},
            }
        ],
        [],
    ),
    ("[{issuer: 'https://accounts.google.com'}]", [{"issuer": "https://accounts.google.com"}], []),
    (
        "[{issuer: 'https://a.example', fromHeaders: [{name: X-Jwt, prefix: 'Token '}], forwardOriginalToken: true}]",
        [{"issuer": "https://a.example", "header": "x-jwt", "prefix": "Token "}],
        ["spec.jwtRules[0].forwardOriginalToken"],
    ),
    (
        "[{issuer: 'https://a.example', fromParams: [t], outputClaimToHeaders: [{header: x, claim: y}]}]",
        [{"issuer": "https://a.example"}],
        ["spec.jwtRules[0].fromParams", "spec.jwtRules[0].outputClaimToHeaders"],
    ),
    (
        "[{issuer: 'https://a.example'}, {issuer: nobody@knows}, {issuer: 'https://a.example', audiences: [x]}]",
        [{"issuer": "https://a.example"}],
        ["spec.jwtRules[1]", "spec.jwtRules[2]"],
    ),
]


@pytest.mark.parametrize(("rules", "issuers", "gone"), ISSUERS, ids=[row[0][:60] for row in ISSUERS])
def test_issuers(rules: str, issuers: list[dict[str, Any]], gone: list[str]) -> None:
    """A RequestAuthentication names those whose tokens count; one whose keys nobody can find does not."""
    found = of("RequestAuthentication", f"selector: {{matchLabels: {{app: a}}}}\njwtRules: {rules}")
    assert documents(found) == [
        {"kind": "Authentication", "spec": {"target": {"service": "a"}, "issuers": issuers}}
    ]
    assert lost(found) == gone
    round_trip(found)


def test_keys_that_stand_in_the_file() -> None:
    """Public keys are taken over as they are; a private one is an error, because a policy is read by everybody."""
    keys = '{"keys": [{"kty": "RSA", "n": "aa", "e": "AQAB"}]}'
    found = of("RequestAuthentication", f"jwtRules: [{{issuer: i, jwks: '{keys}'}}]")
    assert documents(found)[0]["spec"]["issuers"] == [{"issuer": "i", "jwks": {"inline": keys}}]
    secret = keys.replace('"AQAB"', '"AQAB", "d": "x"')
    with pytest.raises(PolicyError, match="has a private or secret key"):
        of("RequestAuthentication", f"jwtRules: [{{issuer: i, jwks: '{secret}'}}]")
