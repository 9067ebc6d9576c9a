"""Documents that together say everything a policy can say, for tests."""

from __future__ import annotations

import json
import textwrap

__all__ = ["GOOD", "written"]


def written(kind: str, spec: str, name: str = "x") -> str:
    """A policy whose spec (from line 5 on) is ``spec``."""
    text = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    metadata = f"{{name: {name}, namespace: default, labels: {{a: b}}}}"
    return f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {metadata}\nspec:\n{text}\n"


_JWKS = json.dumps(
    {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}]}
)

#: A name, the kind, the spec.
GOOD: list[tuple[str, str, str]] = [
    (
        "destination",
        "Destination",
        """
        target: {service: orders, endpoints: [get]}
        timeout: 2s
        idempotent: true
        retry:
          attempts: 3
          perTryTimeout: 1s
          retryOn: [refused]
          backoff: {initial: 10ms, max: 1s, multiplier: 2, jitter: 10%}
          budget: {ratio: 10%, floor: 5/s, window: 10s}
        hedge: {delay: 5ms, maxExtra: 1, maxRatio: 10%}
        breaker:
          failureRatio: 50%
          window: 10s
          minCalls: 5
          consecutive: 5
          slowCall: 1s
          slowRatio: 50%
          open: 1s
          maxOpen: 10s
          jitter: 10%
          permits: 1
          successes: 1
          verdicts: {callers: 2, window: 10s}
        ejection:
          consecutive: 5
          successRatio: 80%
          window: 10s
          minCalls: 5
          silent: 3
          base: 10s
          max: 1m
          maxRatio: 50%
          panicRatio: 50%
          verdicts: {callers: 2, window: 10s, drain: true}
        balancer:
          name: consistent_hash
          header: tenant
          bound: 1.5
          slowStart: 10s
          locality: true
          localityHealthy: 70%
          ewmaDecay: 5s
        """,
    ),
    (
        "hedge",
        "Destination",
        "target: {service: orders}\nhedge: {quantile: 95%, minDelay: 1ms}\nbalancer: random",
    ),
    (
        "subsets",
        "Destination",
        "target: {service: orders}\nsubsets: {v1: {version: 1.0.0}, v2: {version: 2.0.0-rc.1, labels: {zone: eu}}}",
    ),
    ("subset", "Destination", "target: {service: orders, subset: v1}\ntimeout: 1s"),
    ("throttle", "Destination", "target: {service: orders}\nthrottle: 100/s"),
    (
        "throttle in full",
        "Destination",
        "target: {service: orders}\nthrottle: {rate: 100/s, burst: 20, concurrency: 8, pending: 10, timeout: 50ms}",
    ),
    (
        "off",
        "Destination",
        "target: {service: orders}\nthrottle: off\nhedge: false\nbreaker: {consecutive: false}",
    ),
    (
        "route",
        "Route",
        """
        target: {service: orders}
        rules:
          - match:
              - callers: [web, adm*, "*"]
                endpoints: [get]
                headers:
                  a: text
                  b: {exact: x}
                  c: {prefix: x, invert: true}
                  d: {suffix: x}
                  e: {regex: "x|y"}
                  f: {present: true}
                  g: {absent: true}
                  h: {range: {start: 1, end: 9}}
                share: 50%
            split:
              - {subset: v1, weight: 90}
              - {service: orders-next, weight: 10}
            mirror: [{subset: v2, share: 10%}]
            fault: {delay: {duration: 1s, share: 5%}, abort: {status: UNAVAILABLE, share: 5%}}
            sticky: {header: tenant}
            timeout: 1s
            retry: {attempts: 2}
            idempotent: true
          - match: {callers: [cron]}
            redirect: {service: orders-batch, endpoint: get}
            mirror: {service: audit}
            sticky: {identity: true}
        """,
    ),
    (
        "sticky by claim",
        "Route",
        "target: {service: orders}\nrules: [{split: [{weight: 1}], sticky: {claim: sub}}]",
    ),
    (
        "limit",
        "Limit",
        """
        target: {service: orders}
        concurrency:
          limit: 64
          leaveQueue: true
          adaptive: {min: 4, max: 64, tolerance: 1.5, window: 500ms}
        rate: {limit: 100/s, burst: 20, scope: global, keys: [caller, endpoint, "header:X-Tenant", "claim:sub"]}
        quota: {amount: 5000000, window: 30d, keys: [caller]}
        queue: {size: 100, timeout: 50ms, order: lifo}
        priority: {critical: [web, "gate*"], sheddable: [cron], trust: [], reserve: 20%, shedAt: 70%}
        """,
    ),
    (
        "limit in short",
        "Limit",
        "target: {service: orders}\nconcurrency: {adaptive: off}\nrate: 100/s\nqueue: 50",
    ),
    (
        "access",
        "Access",
        """
        target: {service: orders}
        mode: dry-run
        default: deny
        rules:
          - name: reads
            action: ALLOW
            callers: [web, anonymous]
            notCallers: [web-test]
            endpoints: ["get*"]
            notEndpoints: [getAll]
            headers: {tenant: {present: true}, channel: shop}
            claims: {groups: admins, realm.roles: {prefix: shop}, "https://example.com/x": {absent: true}}
          - action: DENY
            callers: ["test-*"]
          - action: AUDIT
        """,
    ),
    ("access closed", "Access", "target: {service: orders}\ndefault: deny"),
    (
        "authentication",
        "Authentication",
        f"""
        target: {{service: orders, endpoints: [get]}}
        required: true
        issuers:
          - issuer: https://login.example.com
          - issuer: https://accounts.example.com
            audiences: [orders, shop]
            jwks: https://accounts.example.com/keys?v=1
            algorithms: [RS256, EdDSA]
            leeway: 10s
            header: X-Token
            prefix: "JWT "
            claims: [sub, groups]
            forward: true
          - issuer: partner
            jwks: {{url: "https://partner.example.com:8443/jwks.json", refresh: 10m}}
            claims: []
          - issuer: file
            jwks: {{file: /etc/keys.json}}
          - issuer: inline
            jwks: {{inline: '{_JWKS}'}}
        """,
    ),
    (
        "telemetry",
        "Telemetry",
        """
        target: {service: orders}
        tracing: {sampling: 10%}
        accessLog: {mode: on, share: 1%}
        slow: {threshold: 500ms}
        tap: {payloads: true, redact: [X-Card], redactFields: [card.number, "**.iban"], rate: 10/s}
        labels: {team: shop}
        objectives:
          - name: available
            availability: 99.9%
            window: 30d
          - name: fast
            latency: {threshold: 300ms, share: 99%}
        """,
    ),
    (
        "telemetry in short",
        "Telemetry",
        """
        target: {service: orders}
        tracing: 5%
        accessLog: errors
        slow: {timesP99: 3}
        tap: off
        objectives: {availability: 99%}
        """,
    ),
    ("nothing told", "Telemetry", "target: {service: orders}\naccessLog: off\nslow: off\ntracing: 0%"),
    (
        "gateway",
        "Gateway",
        """
        gateways: ["edge-*"]
        ingress:
          - hosts: [shop.example.com, "*.example.com"]
            port: 8443
            tls: {certificate: /tls/crt, key: /tls/key, clientCa: /tls/ca, minVersion: "1.3"}
            maxBody: 64KiB
            cors:
              origins: ["https://example.com"]
              methods: [GET, POST]
              headers: [X-A]
              expose: [X-B]
              credentials: true
              maxAge: 1h
            routes:
              - {path: "/orders/{id}", methods: [GET], service: orders, endpoint: get, timeout: 1s}
              - {path: "/api/orders/*", headers: {x-a: b}, query: {v: "2"}, service: orders}
              - {path: /, service: web, endpoint: home}
          - {port: 8080, httpsRedirect: true}
        egress:
          - {service: pay, hosts: [api.pay.example], port: 8443, scheme: https, methods: [POST], paths: ["/v1/*"]}
        """,
    ),
    (
        "gateway in short",
        "Gateway",
        'ingress: {routes: [{path: /orders, service: orders}]}\negress: {service: pay, hosts: ["*"], scheme: http}',
    ),
    (
        "rollout",
        "Rollout",
        """
        target: {service: orders}
        from: v1
        to: v2
        interval: 5s
        consecutive: 2
        onFailure: pause
        deadline: 2d
        sticky: {header: X-User}
        steps:
          - {weight: 5, for: 2m}
          - {weight: 25, pause: true}
          - {weight: 100, for: 1d}
        gates:
          errorRate: {max: 1%, increase: 0.5%, minCalls: 100}
          latency: {quantile: 95%, max: 300ms, ratio: 1.2, minCalls: 100}
        """,
    ),
    (
        "rollout in short",
        "Rollout",
        """
        target: {service: orders}
        from: v1
        to: v2
        steps: [{weight: 10, for: 90s, pause: false}, {weight: 100}]
        gates: {errorRate: 1%, latency: 250ms}
        """,
    ),
]
