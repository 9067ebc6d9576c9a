"""The fields of Istio's AuthorizationPolicy and RequestAuthentication (security.istio.io: v1beta1 and v1)."""

from __future__ import annotations

from nats_mesh.policy.istio.api_common import SELECTOR, TARGET_REF
from nats_mesh.policy.istio.shapes import DURATION, FLAG, TEXT, Field, Shape, enum, lost, many, message

__all__ = ["AUTHORIZATION_POLICY", "REQUEST_AUTHENTICATION"]

_VALUES = many(TEXT, filled=True)
_SOURCE = message(
    "Source",
    {
        name: _VALUES
        for word in (
            "principals", "requestPrincipals", "namespaces", "ipBlocks", "remoteIpBlocks", "serviceAccounts",
        )
        for name in (word, f"not{word[0].upper()}{word[1:]}")
    },
)  # fmt: skip
_OPERATION = message(
    "Operation",
    {
        name: _VALUES
        for word in ("hosts", "ports", "methods", "paths")
        for name in (word, f"not{word[0].upper()}{word[1:]}")
    },
)
_RULE = message(
    "Rule",
    {
        "from": many(message("From", {"source": _SOURCE}, required=("source",)), filled=True),
        "to": many(message("To", {"operation": _OPERATION}, required=("operation",)), filled=True),
        "when": many(
            message("Condition", {"key": TEXT, "values": _VALUES, "notValues": _VALUES}, required=("key",)),
            filled=True,
        ),
    },
    empty=True,
)
_TARGETS: dict[str, Shape | Field] = {
    "selector": SELECTOR,
    "targetRef": TARGET_REF,
    "targetRefs": many(TARGET_REF),
}

AUTHORIZATION_POLICY = message(
    "AuthorizationPolicy",
    {
        **_TARGETS,
        "rules": many(_RULE),
        "action": enum("ALLOW", "DENY", "AUDIT", "CUSTOM"),
        "provider": message("ExtensionProvider", {"name": TEXT}),
    },
    one_of=(("selector", "targetRef", "targetRefs"),),
)

_NO_TOKENS = "tokens come in the header `authorization` alone, as `Bearer`"
_RULE_JWT = message(
    "JWTRule",
    {
        "issuer": TEXT,
        "audiences": many(TEXT),
        "jwksUri": TEXT,
        "jwks_uri": TEXT,
        "jwks": TEXT,
        "fromHeaders": many(message("JWTHeader", {"name": TEXT, "prefix": TEXT}, required=("name",))),
        "fromParams": lost(many(TEXT).shape, _NO_TOKENS),
        "fromCookies": lost(many(TEXT).shape, _NO_TOKENS),
        "outputPayloadToHeader": lost(TEXT, "claims are handed on as `ctx.claims`"),
        "forwardOriginalToken": lost(FLAG, "a service that wants to hand a token on does so itself"),
        "outputClaimToHeaders": lost(
            many(message("ClaimToHeader", {"header": TEXT, "claim": TEXT})).shape,
            "claims are handed on as `ctx.claims`",
        ),
        "timeout": lost(DURATION, "keys are fetched beside the calls, which never wait for them"),
        "spaceDelimitedClaims": lost(many(TEXT).shape, "claims are compared as they stand in the token"),
    },
    one_of=(("jwksUri", "jwks_uri", "jwks"),),
)  # fmt: skip

REQUEST_AUTHENTICATION = message(
    "RequestAuthentication",
    {**_TARGETS, "jwtRules": many(_RULE_JWT)},
    one_of=(("selector", "targetRef", "targetRefs"),),
)
