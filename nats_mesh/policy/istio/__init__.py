"""Istio's own YAML as policies of the mesh: what has a meaning is translated, what has none is named by its path."""

from nats_mesh.policy.istio.found import Converted, Severity, Translation, Untranslated
from nats_mesh.policy.istio.translate import is_istio, translate, translate_files
from nats_mesh.policy.istio.writing import yaml_of

__all__ = [
    "Converted",
    "Severity",
    "Translation",
    "Untranslated",
    "is_istio",
    "translate",
    "translate_files",
    "yaml_of",
]
