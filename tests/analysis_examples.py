"""One example for each finding of `policy analyze`, and what it looks like once it is mended.

docs/analysis.md shows them, and a test holds that the first is found and the second is not.
"""

from __future__ import annotations

import textwrap

import msgspec

from nats_mesh.policy.analysis import Endpoint, Instance, Service, World

__all__ = ["EXAMPLES", "WORLD", "Example", "written"]

#: What runs in the examples that are about a running mesh.
WORLD = World(
    services={
        "orders": Service(
            endpoints={
                "get": Endpoint(timeout_s=2.0, idempotent=True, concurrency=64),
                "list": Endpoint(timeout_s=2.0, idempotent=True, concurrency=64),
                "place": Endpoint(timeout_s=3.0, idempotent=False, concurrency=64),
            },
            instances=(
                Instance(id="A", version="1.0.0", labels={"track": "stable"}),
                Instance(id="B", version="1.0.0", labels={"track": "stable"}),
                Instance(id="C", version="2.0.0", labels={"track": "canary"}),
            ),
        ),
        "billing": Service(
            endpoints={
                "charge": Endpoint(timeout_s=None, idempotent=False, concurrency=256),
                "get": Endpoint(timeout_s=None, idempotent=True, concurrency=256),
            },
            instances=(Instance(id="D", version="1.0.0"),),
        ),
        "web": Service(endpoints={"home": Endpoint()}, instances=(Instance(id="E", version="3.1.0"),)),
    }
)

#: A document: its kind, and its spec.
_Doc = tuple[str, str]


class Example(msgspec.Struct, frozen=True):
    """Documents in which the finding stands, and documents in which it does not. ``live``: it needs a running mesh."""

    bad: tuple[_Doc, ...]
    good: tuple[_Doc, ...]
    live: bool = False
    mode: str = ""


def written(documents: tuple[_Doc, ...]) -> str:
    """Documents as a file."""
    found = []
    for place, (kind, spec) in enumerate(documents):
        name = "orders" if not place else f"orders-{place + 1}"
        kind, _, other = kind.partition("/")
        body = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
        found.append(
            f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{name: {other or name}}}\nspec:\n{body}\n"
        )
    return "---\n".join(found)


def _d(spec: str) -> _Doc:
    return "Destination", spec


def _r(spec: str) -> _Doc:
    return "Route", spec


def _l(spec: str) -> _Doc:
    return "Limit", spec


def _a(spec: str) -> _Doc:
    return "Access", spec


def _rules(rules: str, target: str = "{service: orders}") -> _Doc:
    return _r(f"target: {target}\nrules:\n{textwrap.indent(textwrap.dedent(rules).strip(chr(10)), '  ')}")


_SUBSETS = _d(
    """
    target: {service: orders}
    subsets:
      v1: {version: 1.0.0}
      v2: {version: 2.0.0}
    """
)
_ALLOW_WEB = _a("target: {service: orders}\nrules:\n  - {action: ALLOW, callers: [web]}")
_TOKENS: _Doc = (
    "Authentication",
    "target: {service: orders}\nissuers:\n  - {issuer: 'https://id.example.com', jwks: 'https://id.example.com/keys'}\n"
    "required: true",
)
_STEPS = "steps:\n  - {weight: 10, for: 5m}\n  - {weight: 50, for: 5m}\n"


def _rollout(more: str, to: str = "v2") -> _Doc:
    return "Rollout", f"target: {{service: orders}}\nfrom: v1\nto: {to}\n{_STEPS}{more}"


EXAMPLES: dict[str, Example] = {
    "NM0001": Example(
        (_d("target: {service: orders}\nbalancer: {slowStart: 30s}"),),
        (_d("target: {service: orders}\nbalancer: {name: least_request, slowStart: 30s}"),),
    ),
    "NM0002": Example(
        (_ALLOW_WEB,),
        (_d("target: {service: orders}\ntimeout: 2s"),),
    ),
    "NM0101": Example(
        (_d("target: {service: oders}\ntimeout: 4s"),),
        (_d("target: {service: orders}\ntimeout: 4s"),),
        live=True,
    ),
    "NM0102": Example(
        (_rules("- match: {headers: {beta: 'yes'}}\n  redirect: {service: orders-beta}"),),
        (_rules("- match: {headers: {beta: 'yes'}, endpoints: [get]}\n  redirect: {service: billing}"),),
        live=True,
    ),
    "NM0103": Example(
        (_SUBSETS, _rules("- split: [{subset: v3}]")),
        (_SUBSETS, _rules("- split: [{subset: v2}]")),
    ),
    "NM0104": Example(
        (_d("target: {service: orders, endpoints: [lst]}\ntimeout: 2s"),),
        (_d("target: {service: orders, endpoints: [list]}\ntimeout: 2s"),),
        live=True,
    ),
    "NM0105": Example(
        (_rules("- redirect: {service: billing}", "{service: orders, endpoints: [place]}"),),
        (
            _rules(
                "- redirect: {service: billing, endpoint: charge}", "{service: orders, endpoints: [place]}"
            ),
        ),
        live=True,
    ),
    "NM0106": Example(
        (_rules("- match: {callers: [webb]}\n  timeout: 4s"),),
        (_rules("- match: {callers: [web]}\n  timeout: 4s"),),
        live=True,
    ),
    "NM0201": Example(
        (
            _rules(
                """
                - match: {headers: {user: {prefix: j}}}
                  timeout: 1s
                - match: {headers: {user: jason}, callers: [web]}
                  timeout: 9s
                """
            ),
        ),
        (
            _rules(
                """
                - match: {headers: {user: jason}, callers: [web]}
                  timeout: 9s
                - match: {headers: {user: {prefix: j}}}
                  timeout: 1s
                """
            ),
        ),
    ),
    "NM0202": Example(
        (_rules("- match:\n    - {callers: ['web-*']}\n    - {callers: [web-eu]}\n  timeout: 3s"),),
        (_rules("- match:\n    - {callers: ['web-*']}\n    - {callers: [mobile]}\n  timeout: 3s"),),
    ),
    "NM0203": Example(
        (_rules("- match: {endpoints: [list]}\n  timeout: 3s", "{service: orders, endpoints: [get]}"),),
        (_rules("- match: {endpoints: [list]}\n  timeout: 3s", "{service: orders, endpoints: [get, list]}"),),
    ),
    "NM0204": Example(
        (_SUBSETS, _rules("- match: {share: 0%}\n  split: [{subset: v2}]")),
        (_SUBSETS, _rules("- match: {share: 1%}\n  split: [{subset: v2}]")),
    ),
    "NM0301": Example(
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 90}, {subset: v2, weight: 20}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 80}, {subset: v2, weight: 20}]")),
    ),
    "NM0302": Example(
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 100}, {subset: v2, weight: 0}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 99}, {subset: v2, weight: 1}]")),
    ),
    "NM0303": Example(
        (_SUBSETS, _rules("- split: [{subset: v2, weight: 10}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 90}, {subset: v2, weight: 10}]")),
    ),
    "NM0304": Example(
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 90}, {subset: v2}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 90}, {subset: v2, weight: 10}]")),
    ),
    "NM0305": Example(
        (_SUBSETS, _rules("- split: [{subset: v2}]\n  sticky: {header: user}")),
        (_SUBSETS, _rules("- split: [{subset: v1}, {subset: v2}]\n  sticky: {header: user}")),
    ),
    "NM0306": Example(
        (
            _SUBSETS,
            _rules(
                "- match: {headers: {user: {absent: true}}}\n  split: [{subset: v1}, {subset: v2}]\n"
                "  sticky: {header: user}"
            ),
        ),
        (
            _SUBSETS,
            _rules(
                "- match: {headers: {user: {present: true}}}\n  split: [{subset: v1}, {subset: v2}]\n"
                "  sticky: {header: user}"
            ),
        ),
    ),
    "NM0401": Example(
        (_d("target: {service: orders}\ntimeout: 2s"), _d("target: {service: orders}\nbalancer: random")),
        (_d("target: {service: orders}\ntimeout: 2s\nbalancer: random"),),
    ),
    "NM0402": Example(
        (
            _d("target: {service: orders}\ntimeout: 2s"),
            ("Destination/orders", "target: {service: billing}\ntimeout: 1s"),
        ),
        (
            _d("target: {service: orders}\ntimeout: 2s"),
            ("Destination/billing", "target: {service: billing}\ntimeout: 1s"),
        ),
    ),
    "NM0403": Example(
        (_d("target: {service: orders, endpoints: [get]}\ntimeout: 300ms"), _rules("- timeout: 2s")),
        (
            _d("target: {service: orders, endpoints: [get]}\ntimeout: 300ms"),
            _rules("- match: {callers: [batch]}\n  timeout: 2s"),
        ),
    ),
    "NM0404": Example(
        (
            _d("target: {service: orders}\ntimeout: 4s"),
            _d("target: {service: orders, endpoints: [get, list, place]}\ntimeout: 5s"),
        ),
        (
            _d("target: {service: orders}\ntimeout: 4s"),
            _d("target: {service: orders, endpoints: [place]}\ntimeout: 5s"),
        ),
        live=True,
    ),
    "NM0405": Example(
        (
            _l("target: {service: orders}\nconcurrency: {limit: 64}"),
            _l("target: {service: orders, endpoints: [list]}\nconcurrency: {limit: 200}"),
        ),
        (
            _l("target: {service: orders}\nconcurrency: {limit: 64}"),
            _l("target: {service: orders, endpoints: [list]}\nconcurrency: {limit: 20}"),
        ),
    ),
    "NM0406": Example(
        (
            _l("target: {service: orders}\nconcurrency: {leaveQueue: true}"),
            _l("target: {service: orders}\nconcurrency: {limit: 9, leaveQueue: false}"),
        ),
        (
            _l("target: {service: orders}\nconcurrency: {leaveQueue: true}"),
            _l("target: {service: orders}\nconcurrency: {limit: 9}"),
        ),
    ),
    "NM0407": Example(
        (_l("target: {service: orders}\nconcurrency: {limit: 100}"),),
        (_l("target: {service: orders}\nconcurrency: {limit: 32}"),),
        live=True,
    ),
    "NM0408": Example(
        (
            _SUBSETS,
            _rollout("gates: {errorRate: 1%}"),
            _rules("- split: [{subset: v1, weight: 90}, {subset: v2, weight: 10}]"),
        ),
        (_SUBSETS, _rollout("gates: {errorRate: 1%}"), _rules("- timeout: 2s")),
    ),
    "NM0409": Example(
        (_l("rate: 100/s"), _l("target: {service: orders}\nrate: 500/s")),
        (_l("rate: 100/s"), _l("target: {service: orders}\nrate: {limit: 500/s, keys: [caller]}")),
    ),
    "NM0501": Example(
        (
            _d("target: {service: orders}\nsubsets:\n  v3: {version: 3.0.0}"),
            _rules("- match: {headers: {beta: 'yes'}}\n  split: [{subset: v3}]"),
        ),
        (_SUBSETS, _rules("- match: {headers: {beta: 'yes'}}\n  split: [{subset: v2}]")),
        live=True,
    ),
    "NM0502": Example(
        (_d("target: {service: orders}\nsubsets:\n  v3: {version: 3.0.0}"),),
        (_SUBSETS,),
        live=True,
    ),
    "NM0503": Example(
        (_SUBSETS, _rules("- split: [{subset: v1}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 9}, {subset: v2, weight: 1}]")),
    ),
    "NM0504": Example(
        (_d("target: {service: orders}\nsubsets:\n  v2: {version: 2.0.0}\n  canary: {version: 2.0.0}"),),
        (
            _d(
                "target: {service: orders}\nsubsets:\n  v2: {version: 2.0.0}\n  canary: {labels: {track: canary}}"
            ),
        ),
    ),
    "NM0505": Example(
        (_SUBSETS, _rules("- split: [{weight: 90}, {subset: v2, weight: 10}]")),
        (_SUBSETS, _rules("- split: [{subset: v1, weight: 90}, {subset: v2, weight: 10}]")),
    ),
    "NM0506": Example(
        (
            _SUBSETS,
            _d("target: {service: orders, subset: v2}\ntimeout: 4s"),
            _rules("- split: [{subset: v1}]"),
        ),
        (
            _SUBSETS,
            _d("target: {service: orders, subset: v2}\ntimeout: 4s"),
            _rules("- split: [{subset: v1}, {subset: v2}]"),
        ),
    ),
    "NM0601": Example(
        (_a("target: {service: orders}\ndefault: deny"),),
        (_a("target: {service: orders}\ndefault: deny\nrules:\n  - {action: ALLOW, callers: [web]}"),),
    ),
    "NM0602": Example(
        (_ALLOW_WEB, _a("target: {service: orders}\nrules:\n  - {action: DENY, callers: ['*']}")),
        (_ALLOW_WEB, _a("target: {service: orders}\nrules:\n  - {action: DENY, callers: [batch]}")),
    ),
    "NM0603": Example(
        (
            _a(
                """
                target: {service: orders}
                rules:
                  - {action: ALLOW, callers: [web-beta]}
                  - {action: ALLOW, callers: [mobile]}
                  - {action: DENY, callers: ['web-*']}
                """
            ),
        ),
        (
            _a(
                """
                target: {service: orders}
                rules:
                  - {action: ALLOW, callers: [web-beta]}
                  - {action: ALLOW, callers: [mobile]}
                  - {action: DENY, callers: ['web-*'], notCallers: [web-beta]}
                """
            ),
        ),
    ),
    "NM0604": Example(
        (
            _a(
                "target: {service: orders}\nrules:\n  - {action: ALLOW, callers: [web], endpoints: [get, list]}"
            ),
        ),
        (
            _a(
                "target: {service: orders}\ndefault: deny\n"
                "rules:\n  - {action: ALLOW, callers: [web], endpoints: [get, list]}"
            ),
        ),
        live=True,
    ),
    "NM0605": Example(
        (_ALLOW_WEB,),
        (_a("target: {service: orders}\nrules:\n  - {action: DENY, endpoints: [place]}"),),
        mode="open",
    ),
    "NM0606": Example(
        (_a("target: {service: orders}\nrules:\n  - {action: ALLOW, claims: {role: staff}}"),),
        (_TOKENS, _a("target: {service: orders}\nrules:\n  - {action: ALLOW, claims: {role: staff}}")),
    ),
    "NM0607": Example(
        (_a("target: {service: orders}\nmode: dry-run\nrules:\n  - {action: DENY, callers: [batch]}"),),
        (_a("target: {service: orders}\nmode: enforce\nrules:\n  - {action: DENY, callers: [batch]}"),),
    ),
    "NM0608": Example(
        (
            _a(
                "target: {service: orders}\nrules:\n  - {action: ALLOW, callers: [web]}\n"
                "  - {action: ALLOW, callers: [web], endpoints: [get]}"
            ),
        ),
        (
            _a(
                "target: {service: orders}\nrules:\n  - {action: ALLOW, callers: [web]}\n"
                "  - {action: ALLOW, callers: [batch], endpoints: [get]}"
            ),
        ),
    ),
    "NM0609": Example(
        (_a("target: {service: orders, endpoints: [get]}\nrules:\n  - {action: DENY, endpoints: [place]}"),),
        (
            _a(
                "target: {service: orders, endpoints: [place]}\nrules:\n  - {action: DENY, endpoints: [place]}"
            ),
        ),
    ),
    "NM0610": Example(
        (
            (_TOKENS[0], _TOKENS[1].replace("required: true", "required: false")),
            _a("target: {service: orders}\nrules:\n  - {action: DENY, claims: {role: guest}}"),
        ),
        (_TOKENS, _a("target: {service: orders}\nrules:\n  - {action: DENY, claims: {role: guest}}")),
    ),
    "NM0611": Example(
        (_a("target: {service: orders}\nrules:\n  - {action: DENY, callers: ['*']}"),),
        (_a("target: {service: orders}\nrules:\n  - {action: DENY, callers: [batch]}"),),
    ),
    "NM0701": Example(
        (_d("target: {service: orders, endpoints: [place]}\ntimeout: 500ms"),),
        (_d("target: {service: orders, endpoints: [place]}\ntimeout: 3s"),),
        live=True,
    ),
    "NM0702": Example(
        (_d("target: {service: orders}\ntimeout: 1s\nretry: {attempts: 3, perTryTimeout: 500ms}"),),
        (_d("target: {service: orders}\ntimeout: 2s\nretry: {attempts: 3, perTryTimeout: 500ms}"),),
    ),
    "NM0703": Example(
        (_d("target: {service: orders}\ntimeout: 1s\nretry: {attempts: 3, perTryTimeout: 400ms}"),),
        (_d("target: {service: orders}\ntimeout: 1s\nretry: {attempts: 3, perTryTimeout: 300ms}"),),
    ),
    "NM0704": Example(
        (
            _rules(
                "- match: {headers: {user: jason}}\n  fault: {delay: {duration: 7s}}\n  timeout: 3s\n- timeout: 3s"
            ),
        ),
        (
            _rules(
                "- match: {headers: {user: jason}}\n  fault: {delay: {duration: 2s}}\n  timeout: 3s\n- timeout: 3s"
            ),
        ),
    ),
    "NM0705": Example(
        (_d("target: {service: orders}\ntimeout: 1s\nidempotent: true\nhedge: {delay: 2s}"),),
        (_d("target: {service: orders}\ntimeout: 1s\nidempotent: true\nhedge: {delay: 50ms}"),),
    ),
    "NM0706": Example(
        (
            _d(
                "target: {service: orders}\ntimeout: 200ms\nretry: {attempts: 2, backoff: {initial: 1s, max: 2s}}"
            ),
        ),
        (_d("target: {service: orders}\ntimeout: 200ms\nretry: {attempts: 2, backoff: {initial: 20ms}}"),),
    ),
    "NM0707": Example(
        (_d("target: {service: orders}\ntimeout: 1s\nbreaker: {slowCall: 2s, slowRatio: 50%}"),),
        (_d("target: {service: orders}\ntimeout: 1s\nbreaker: {slowCall: 500ms, slowRatio: 50%}"),),
    ),
    "NM0708": Example(
        (("Telemetry", "target: {service: orders, endpoints: [get]}\nslow: 2s"),),
        (("Telemetry", "target: {service: orders, endpoints: [get]}\nslow: 500ms"),),
        live=True,
    ),
    "NM0801": Example(
        (
            _d(
                "target: {service: orders}\nidempotent: false\nretry: {attempts: 3, retryOn: [refused, unavailable]}"
            ),
        ),
        (_d("target: {service: orders}\nidempotent: false\nretry: {attempts: 3, retryOn: [refused]}"),),
    ),
    "NM0802": Example(
        (_d("target: {service: orders}\nidempotent: false\nhedge: {delay: 50ms}"),),
        (_d("target: {service: orders}\nidempotent: true\nhedge: {delay: 50ms}"),),
    ),
    "NM0803": Example(
        (_SUBSETS, _rules("- mirror: {subset: v2}", "{service: orders, endpoints: [place]}")),
        (_SUBSETS, _rules("- mirror: {subset: v2}", "{service: orders, endpoints: [list]}")),
        live=True,
    ),
    "NM0804": Example(
        (_d("target: {service: orders}\nretry: {attempts: 3, budget: {ratio: 0%, floor: 0/s}}"),),
        (_d("target: {service: orders}\nretry: {attempts: 3, budget: {ratio: 10%}}"),),
    ),
    "NM0901": Example(
        (_d("target: {service: orders}\nejection: {consecutive: 3}"),),
        (_d("target: {service: orders}\nbalancer: least_request\nejection: {consecutive: 3}"),),
    ),
    "NM0902": Example(
        (_d("ejection: {consecutive: 3}"),),
        (_d("ejection: {consecutive: 3}"), _d("target: {service: orders}\nbalancer: peak_ewma")),
    ),
    "NM0903": Example(
        (_d("target: {service: orders}\nbreaker: {minCalls: 100000, window: 1s}"),),
        (_d("target: {service: orders}\nbreaker: {minCalls: 100, window: 10s}"),),
    ),
    "NM0904": Example(
        (_d("target: {service: orders}\nbreaker: {failureRatio: 100%}"),),
        (_d("target: {service: orders}\nbreaker: {failureRatio: 100%, consecutive: 5}"),),
    ),
    "NM0905": Example(
        (_rules("- fault: {abort: {status: UNAVAILABLE}}"),),
        (_rules("- match: {headers: {user: jason}}\n  fault: {abort: {status: UNAVAILABLE}}"),),
    ),
    "NM0906": Example(
        (_d("target: {service: orders}\nbalancer: {name: least_request, locality: true}"),),
        (_d("target: {service: orders}\nbalancer: least_request"),),
        live=True,
    ),
    "NM0907": Example(
        (_d("target: {service: billing, endpoints: [get]}\nhedge: {delay: 50ms}"),),
        (_d("target: {service: orders, endpoints: [get]}\nhedge: {delay: 50ms}"),),
        live=True,
    ),
    "NM0908": Example(
        (
            _d("target: {service: orders}\nbalancer: least_request"),
            _l("target: {service: orders}\nconcurrency: {leaveQueue: true}"),
        ),
        (
            _d("target: {service: orders}\nbalancer: queue"),
            _l("target: {service: orders}\nconcurrency: {leaveQueue: true}"),
        ),
    ),
    "NM0909": Example(
        (_SUBSETS, _rules("- split: [{subset: v2}]\n  mirror: {subset: v2}")),
        (_SUBSETS, _rules("- split: [{subset: v1}]\n  mirror: {subset: v2}")),
    ),
    "NM1001": Example(
        (_SUBSETS, _rollout("")),
        (_SUBSETS, _rollout("gates: {errorRate: 1%, latency: {max: 300ms}}")),
    ),
    "NM1002": Example(
        (
            _d("target: {service: orders}\nsubsets:\n  v1: {version: 1.0.0}\n  v3: {version: 3.0.0}"),
            _rollout("gates: {errorRate: 1%}", "v3"),
        ),
        (_SUBSETS, _rollout("gates: {errorRate: 1%}")),
        live=True,
    ),
    "NM1003": Example(
        (
            _SUBSETS,
            _rollout("gates: {latency: {max: 3s}}"),
            _d("target: {service: orders, subset: v2}\ntimeout: 1s"),
        ),
        (
            _SUBSETS,
            _rollout("gates: {latency: {max: 300ms}}"),
            _d("target: {service: orders, subset: v2}\ntimeout: 1s"),
        ),
    ),
}
