"""VirtualServices as people have them: what becomes of their rules, and what is said to be lost."""

from __future__ import annotations

from typing import Any

import pytest

from nats_mesh.errors import PolicyError
from nats_mesh.policy.istio import translate
from tests.istio import documents, lost, notes, of, round_trip, text_of

_V1 = "route: [{destination: {host: reviews, subset: v1}}]"
_TO_V1 = {"split": [{"service": "reviews", "subset": "v1"}]}
_REFUSED = {"fault": {"abort": {"status": "NOT_FOUND"}}}

# What stands below `http: [`, the rules that come of it, the paths below `spec.http[0]` that are lost.
RULES: list[tuple[str, str, list[dict[str, Any]], list[str]]] = [
    ("all to one subset", f"{{{_V1}}}", [_TO_V1], []),
    (
        "a weighted split",
        "{route: [{destination: {host: reviews, subset: v1}, weight: 75}, "
        "{destination: {host: reviews.default.svc.cluster.local, subset: v3}, weight: 25}]}",
        [
            {
                "split": [
                    {"service": "reviews", "subset": "v1", "weight": 75},
                    {"service": "reviews", "subset": "v3", "weight": 25},
                ]
            }
        ],
        [],
    ),
    (
        "a destination without a weight beside others gets nothing",
        "{route: [{destination: {host: reviews}}, {destination: {host: other}, weight: 100}]}",
        [{"split": [{"service": "reviews", "weight": 0}, {"service": "other", "weight": 100}]}],
        [],
    ),
    (
        "two ports of one subset are one destination",
        "{route: [{destination: {host: reviews, port: {number: 80}}, weight: 60}, "
        "{destination: {host: reviews, port: {number: 81}}, weight: 40}]}",
        [{"split": [{"service": "reviews"}]}],
        ["route[0].destination.port", "route[1].destination.port"],
    ),
    (
        "a header exactly, by prefix, by expression, and there at all",
        "{match: [{headers: {End-User: {exact: jason}, a: {prefix: x}, b: {regex: 'a+'}, c: {}, d: {exact: ''}}}], "
        + _V1
        + "}",
        [
            {
                "match": {
                    "headers": {
                        "end-user": "jason",
                        "a": {"prefix": "x"},
                        "b": {"regex": "a+"},
                        "c": {"present": True},
                        "d": {"present": True},
                    }
                },
                **_TO_V1,
            },
            _REFUSED,
        ],
        [],
    ),
    (
        "without a header, and without a value of it",
        "{match: [{withoutHeaders: {a: {exact: x}, b: {}}}], " + _V1 + "}",
        [
            {"match": {"headers": {"a": {"exact": "x", "invert": True}, "b": {"absent": True}}}, **_TO_V1},
            _REFUSED,
        ],
        [],
    ),
    (
        "two alternatives",
        "{match: [{headers: {a: {exact: x}}}, {headers: {b: {exact: y}}}], " + _V1 + "}",
        [{"match": [{"headers": {"a": "x"}}, {"headers": {"b": "y"}}], **_TO_V1}, _REFUSED],
        [],
    ),
    (
        "a cookie",
        '{match: [{headers: {cookie: {regex: "^(.*?;)?(user=jason)(;.*)?$"}}}], ' + _V1 + "}",
        [{"match": {"headers": {"cookie": {"regex": "^(.*?;)?(user=jason)(;.*)?$"}}}, **_TO_V1}, _REFUSED],
        [],
    ),
    (
        "callers by their labels",
        "{match: [{sourceLabels: {app: web}}, {sourceLabels: {app.kubernetes.io/name: cart}}], " + _V1 + "}",
        [{"match": [{"callers": ["web"]}, {"callers": ["cart"]}], **_TO_V1}, _REFUSED],
        [],
    ),
    ("the path of everything asks nothing", "{match: [{uri: {prefix: /}}], " + _V1 + "}", [_TO_V1], []),
    (
        "so do expressions for everything",
        "{match: [{uri: {regex: '.*'}, method: {regex: '.*'}}], " + _V1 + "}",
        [_TO_V1],
        [],
    ),
    ("so does an empty condition", "{match: [{}], " + _V1 + "}", [_TO_V1], []),
    ("so does the own namespace", "{match: [{sourceNamespace: default}], " + _V1 + "}", [_TO_V1], []),
    (
        "an alternative that cannot be asked for goes, the other stays",
        "{match: [{uri: {exact: /a}}, {headers: {a: {exact: x}}}], " + _V1 + "}",
        [{"match": {"headers": {"a": "x"}}, **_TO_V1}],
        ["", "match[0].uri"],
    ),
    (
        "a header with a path goes as a whole",
        "{match: [{uri: {prefix: /v2}, headers: {a: {exact: x}}}], " + _V1 + "}, {" + _V1 + "}",
        [_TO_V1],
        ["match[0].uri"],
    ),
    (
        "method, scheme, authority, port and query cannot be asked for",
        "{match: [{method: {exact: GET}}, {scheme: {exact: https}}, {authority: {exact: a}}, {port: 80}, "
        "{queryParams: {q: {exact: x}}}], " + _V1 + "}, {" + _V1 + "}",
        [_TO_V1],
        ["match[0].method", "match[1].scheme", "match[2].authority", "match[3].port", "match[4].queryParams"],
    ),
    (
        "callers of another version cannot be told apart",
        "{match: [{sourceLabels: {app: web, version: v2}}], " + _V1 + "}, {" + _V1 + "}",
        [_TO_V1],
        ["match[0].sourceLabels"],
    ),
    (
        "headers that no call has",
        "{match: [{headers: {':path': {exact: /}}}, {headers: {Mesh-Attempt: {exact: '2'}}}], "
        + _V1
        + "}, {"
        + _V1
        + "}",
        [_TO_V1],
        ["match[0].headers.':path'", "match[1].headers.Mesh-Attempt"],
    ),
    (
        "one header under two conditions",
        "{match: [{headers: {a: {prefix: x}}, withoutHeaders: {A: {exact: xy}}}], "
        + _V1
        + "}, {"
        + _V1
        + "}",
        [_TO_V1],
        ["match[0].withoutHeaders.A"],
    ),
    (
        "a timeout and retries",
        "{timeout: 1m30s, retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error, "
        "connect-failure,refused-stream'}, " + _V1 + "}",
        [
            {
                **_TO_V1,
                "timeout": "90s",
                "retry": {
                    "attempts": 4,
                    "perTryTimeout": "2s",
                    "retryOn": ["refused", "unavailable", "attempt-timeout"],
                },
            }
        ],
        [],
    ),
    (
        "retries turned off",
        "{retries: {attempts: 0}, " + _V1 + "}",
        [{**_TO_V1, "retry": {"attempts": 1}}],
        [],
    ),
    (
        "more retries than there can be",
        "{retries: {attempts: 30, backoff: 10ms}, " + _V1 + "}",
        [{**_TO_V1, "retry": {"attempts": 10, "backoff": {"initial": "10ms", "max": "0.1s"}}}],
        ["retries.attempts"],
    ),
    (
        "conditions of gRPC and codes",
        "{retries: {attempts: 1, retryOn: 'cancelled,unavailable,deadline-exceeded,429,418'}, " + _V1 + "}",
        [
            {
                **_TO_V1,
                "retry": {
                    "attempts": 2,
                    "retryOn": ["refused", "unavailable", "attempt-timeout", "resource-exhausted"],
                },
            }
        ],
        ["retries.retryOn", "retries.retryOn"],
    ),
    ("no timeout at all", "{timeout: 0s, " + _V1 + "}", [_TO_V1], ["timeout"]),
    ("a timeout of days", "{timeout: 48h, " + _V1 + "}", [{**_TO_V1, "timeout": "24h"}], ["timeout"]),
    (
        "a delay for half of the calls",
        "{fault: {delay: {percentage: {value: 50}, fixedDelay: 7s}}, " + _V1 + "}",
        [{**_TO_V1, "fault": {"delay": {"duration": "7s", "share": "50%"}}}],
        [],
    ),
    (
        "the old percent",
        "{fault: {abort: {percent: 10, httpStatus: 503}, delay: {percent: 100, fixedDelay: 100ms}}, "
        + _V1
        + "}",
        [
            {
                **_TO_V1,
                "fault": {"delay": {"duration": "100ms"}, "abort": {"status": "UNAVAILABLE", "share": "10%"}},
            }
        ],
        [],
    ),
    (
        "a fraction of a percent",
        "{fault: {abort: {percentage: {value: 0.1}, httpStatus: 400}}, " + _V1 + "}",
        [{**_TO_V1, "fault": {"abort": {"status": "INVALID_ARGUMENT", "share": "0.1%"}}}],
        [],
    ),
    (
        "a fault without a percentage is for nobody",
        "{fault: {abort: {grpcStatus: UNAVAILABLE}}, " + _V1 + "}",
        [{**_TO_V1, "fault": {"abort": {"status": "UNAVAILABLE", "share": "0%"}}}],
        [],
    ),
    (
        "a success cannot be made up",
        "{fault: {abort: {percentage: {value: 5}, httpStatus: 200}}, " + _V1 + "}",
        [_TO_V1],
        ["fault.abort.httpStatus"],
    ),
    (
        "a mirror",
        "{mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 12.5}, " + _V1 + "}",
        [{**_TO_V1, "mirror": [{"service": "reviews", "subset": "v2", "share": "12.5%"}]}],
        [],
    ),
    (
        "mirrors old and new",
        "{mirrors: [{destination: {host: a}}, {destination: {host: b}, percentage: {value: 1}}], "
        + _V1
        + "}",
        [{**_TO_V1, "mirror": [{"service": "a"}, {"service": "b", "share": "1%"}]}],
        [],
    ),
    (
        "the part of a mirror that is not there",
        "{mirrorPercentage: {value: 0}, mirrorPercent: 5, mirror_percent: 0, " + _V1 + "}",
        [_TO_V1],
        [],
    ),
    ("a mirror outside", "{mirror: {host: log.example.com}, " + _V1 + "}", [_TO_V1], ["mirror.host"]),
    (
        "a redirect to a service",
        "{redirect: {authority: newratings.default.svc.cluster.local, uri: /v1/x, redirectCode: 302}}",
        [{"redirect": {"service": "newratings"}}],
        ["redirect.redirectCode", "redirect.uri"],
    ),
    (
        "a redirect to a path",
        "{redirect: {uri: /v1/x}}, {" + _V1 + "}",
        [_TO_V1],
        ["redirect", "redirect.uri"],
    ),
    (
        "a failure in the service's place",
        "{directResponse: {status: 503, body: {string: later}}}",
        [{"fault": {"abort": {"status": "UNAVAILABLE"}}}],
        ["directResponse.body"],
    ),
    (
        "an answer in its place",
        "{directResponse: {status: 200}}, {" + _V1 + "}",
        [_TO_V1],
        ["directResponse.status"],
    ),
    (
        "a rewrite, headers, CORS and names change nothing about where calls go",
        "{name: a, rewrite: {uri: /b}, headers: {request: {set: {x: y}}}, corsPolicy: {allowOrigins: [{exact: '*'}]}, "
        + _V1
        + "}",
        [_TO_V1],
        ["corsPolicy", "headers", "name", "rewrite"],
    ),
    (
        "a destination in another namespace",
        "{route: [{destination: {host: reviews.prod.svc.cluster.local}}]}, {" + _V1 + "}",
        [_TO_V1],
        ["route", "route[0].destination.host"],
    ),
    (
        "a delegate that is not here",
        "{match: [{uri: {prefix: /}}], delegate: {name: other, namespace: x}}, {" + _V1 + "}",
        [_TO_V1],
        ["delegate"],
    ),
]


@pytest.mark.parametrize(("http", "rules", "gone"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_rules(http: str, rules: list[dict[str, Any]], gone: list[str]) -> None:
    """Each rule comes to what its row says, what is lost is named by its path, and nothing else is."""
    found = of("VirtualService", f"hosts: [reviews]\nhttp: [{http}]")
    assert documents(found) == [{"kind": "Route", "spec": {"target": {"service": "reviews"}, "rules": rules}}]
    paths = [path.removeprefix("spec.http[0]").removeprefix(".") for path in lost(found)]
    assert sorted(path.removeprefix("spec.http") for path in paths) == sorted(gone)
    round_trip(found)


@pytest.mark.parametrize(
    ("fields", "noted"),
    [
        ("mirrorPercentage: {value: 0}", ["mirrorPercentage"]),
        ("mirrorPercentage: {}, mirror_percent: 0", ["mirrorPercentage", "mirror_percent"]),
        ("mirrors: [{destination: {host: a}}], mirrorPercent: 5", ["mirrorPercent"]),
        ("mirror: {host: a}, mirrorPercent: 5", []),
        ("mirror: {host: a}, mirrorPercentage: {value: 1}, mirrorPercent: 5", ["mirrorPercent"]),
    ],
)
def test_a_part_of_no_mirror_is_named(fields: str, noted: list[str]) -> None:
    """How much is mirrored means nothing where nothing is, and counts once where it is said twice: no field is
    dropped in silence, and each has a reason of its own."""
    found = of("VirtualService", f"hosts: [reviews]\nhttp: [{{{fields}, {_V1}}}]")
    assert sorted(path.removeprefix("spec.http[0].") for path in notes(found)) == noted
    assert not lost(found)


def test_what_no_rule_is_about_is_refused() -> None:
    """A VirtualService without a rule for the rest answers it with 404, and so do callers; not where a rule that
    might be
    about it was left out, which is said."""
    conditional = "{match: [{headers: {a: {exact: x}}}], " + _V1 + "}"
    (route,) = documents(of("VirtualService", f"hosts: [reviews]\nhttp: [{conditional}]"))
    assert route["spec"]["rules"][-1] == _REFUSED
    left_out = "{match: [{uri: {exact: /x}}], " + _V1 + "}"
    found = of("VirtualService", f"hosts: [reviews]\nhttp: [{conditional}, {left_out}]")
    (route,) = documents(found)
    assert len(route["spec"]["rules"]) == 1
    assert [each.path for each in found.serious] == ["spec.http", "spec.http[1].match[0].uri"]


def test_rules_out_of_reach() -> None:
    """What stands below a rule for every call is left out and named, because ours refuse what is never reached."""
    found = of("VirtualService", f"hosts: [reviews]\nhttp: [{{{_V1}}}, {{{_V1}}}, {{{_V1}}}]")
    assert len(documents(found)[0]["spec"]["rules"]) == 1
    assert lost(found) == ["spec.http[1]", "spec.http[2]"]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("[reviews]", [("x", None, "reviews")]),
        ("[Reviews.default.svc.cluster.local]", [("x", None, "reviews")]),
        ("[reviews.default.svc]", [("x", None, "reviews")]),
        ("[reviews.prod.svc.cluster.local]", [("x", "prod", "reviews")]),
        ("[a, b]", [("x-a", None, "a"), ("x-b", None, "b")]),
        ("['*.default.svc.cluster.local']", [("x", None, None)]),
        ("[a, api.example.com]", [("x", None, "a")]),
        ("[api.example.com]", []),
        ("['*.local']", [("x", None, None)]),
    ],
)
def test_hosts(hosts: str, expected: list[tuple[str, str | None, str | None]]) -> None:
    """A Route for each host that is a service, in the namespace where that is; a wildcard is about all services."""
    rule = (
        "{route: [{destination: {host: other.prod.svc.cluster.local}}]}" if "prod" in hosts else f"{{{_V1}}}"
    )
    found = of("VirtualService", f"hosts: {hosts}\nhttp: [{rule}]")
    values = [each.value for each in found.converted]
    assert [
        (
            each["metadata"]["name"],
            each["metadata"].get("namespace"),
            each["spec"].get("target", {}).get("service"),
        )
        for each in values
    ] == expected
    named = [each for each in found.untranslated if "api.example.com" in each.reason]
    assert bool(named) is ("api.example.com" in hosts)


def test_namespaces_of_documents() -> None:
    """A document's namespace is the policy's; a host of another one moves the policy there, and says so."""
    found = of("VirtualService", f"hosts: [reviews]\nhttp: [{{{_V1}}}]", extra="namespace: shop")
    assert found.converted[0].value["metadata"] == {"name": "x", "namespace": "shop"}
    moved = of(
        "VirtualService",
        "hosts: [reviews.prod.svc.cluster.local]\nhttp: [{route: [{destination: {host: reviews}}]}]",
        extra="namespace: shop",
    )
    assert moved.converted[0].value["metadata"]["namespace"] == "prod"
    assert notes(moved) == ["spec.hosts[0]"]


def test_gateways_decide_which_calls_are_meant() -> None:
    """A VirtualService of gateways alone says nothing about calls between services; with `mesh` beside them it does, by
    the rules that are not for a gateway."""
    rules = f"{{match: [{{gateways: [gw], uri: {{prefix: /x}}}}], {_V1}}}, {{match: [{{gateways: [mesh]}}], {_V1}}}"
    alone = of("VirtualService", f"hosts: [reviews]\ngateways: [gw]\nhttp: [{rules}]")
    assert [each["kind"] for each in documents(alone)] == ["Gateway"]
    both = of("VirtualService", f"hosts: [reviews]\ngateways: [gw, mesh]\nhttp: [{rules}]")
    route = next(each for each in documents(both) if each["kind"] == "Route")
    assert route["spec"]["rules"] == [_TO_V1]


def test_connections_have_no_meaning() -> None:
    """Routes of TCP and TLS are named as a whole; without rules for HTTP there is no Route."""
    found = of(
        "VirtualService",
        "hosts: [mongo]\ntcp: [{match: [{port: 27017}], route: [{destination: {host: mongo}}]}]\n"
        "tls: [{match: [{sniHosts: [a]}], route: [{destination: {host: mongo}}]}]",
    )
    assert documents(found) == []
    assert lost(found) == ["spec.tcp", "spec.tls"]


DELEGATES = [
    text_of(
        "VirtualService",
        """
        hosts: [reviews]
        http:
        - match: [{headers: {a: {exact: x}}}]
          timeout: 3s
          delegate: {name: inner}
        - route: [{destination: {host: reviews, subset: v1}}]
        """,
        name="outer",
    ),
    text_of(
        "VirtualService",
        """
        http:
        - match: [{headers: {b: {exact: y}}}]
          route: [{destination: {host: reviews, subset: v2}}]
        - timeout: 1s
          route: [{destination: {host: reviews, subset: v3}}]
        """,
        name="inner",
    ),
]


def test_delegates() -> None:
    """A delegate's rules stand in the place of the rule that names it, under the conditions of both, in any order of
    the
    documents; what the rule says beside it holds where the delegate says nothing."""
    for texts in (DELEGATES, DELEGATES[::-1]):
        found = translate("---\n".join(texts), "x.yaml")
        (route,) = documents(found)
        assert route["spec"]["rules"] == [
            {
                "match": {"headers": {"a": "x", "b": "y"}},
                "split": [{"service": "reviews", "subset": "v2"}],
                "timeout": "3s",
            },
            {
                "match": {"headers": {"a": "x"}},
                "split": [{"service": "reviews", "subset": "v3"}],
                "timeout": "1s",
            },
            _TO_V1,
        ]
        assert lost(found) == []
    alone = translate(DELEGATES[1], "x.yaml")
    assert documents(alone) == []
    assert [each.severity for each in alone.untranslated] == ["serious"]


@pytest.mark.parametrize(
    ("http", "line", "said"),
    [
        ("[{route: [{destination: {host: reviews, subset: all}}]}]", 6, "reserved by the mesh"),
        ("[{match: [{headers: {a: {regex: '('}}}], " + _V1 + "}]", 6, "is no regular expression of RE2"),
        ("[{}]", 6, "leads nowhere: give it a route, redirect, directResponse or delegate"),
        ("[{route: [{destination: {host: a}}, {destination: {host: b}}]}]", 6, "the weights are all 0"),
        ("[{retries: {retryOn: 5xxx}, " + _V1 + "}]", 6, "did you mean 5xx?"),
        ("[{fault: {abort: {grpcStatus: UNAVAILABEL}}, " + _V1 + "}]", 6, "did you mean UNAVAILABLE?"),
        (
            "[{mirror: {host: a}, mirrorPercentage: {value: 120}, " + _V1 + "}]",
            6,
            "must be from 0 to 100, got 120",
        ),
        ("[{" + _V1 + "}]\ngateways: [mesh]\nhosts: ['*']", 7, "only gateways take every host"),
        ("[{redirect: {uri: /}, " + _V1 + "}]", 6, "says route and redirect: only one of them can hold"),
    ],
)
def test_what_istio_would_refuse_too(http: str, line: int, said: str) -> None:
    """What cannot be meant is an error at its line, and never half a policy."""
    with pytest.raises(PolicyError) as caught:
        of("VirtualService", f"http: {http}" if "hosts:" in http else f"hosts: [reviews]\nhttp: {http}")
    assert said in str(caught.value)
    assert caught.value.line == line
