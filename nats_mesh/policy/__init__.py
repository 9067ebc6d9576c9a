"""Policies: read from files, checked, and made into the rules that the data path uses."""

from nats_mesh.errors import PolicyError
from nats_mesh.policy.decode import Policy, parse
from nats_mesh.policy.explain import explain, json_schema
from nats_mesh.policy.files import PolicyFolder, load_folder
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.rules import InboundRules, OutboundRules

__all__ = [
    "InboundRules",
    "OutboundRules",
    "Policy",
    "PolicyError",
    "PolicyFolder",
    "PolicySet",
    "explain",
    "json_schema",
    "load_folder",
    "parse",
]
