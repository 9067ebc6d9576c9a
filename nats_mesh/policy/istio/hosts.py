"""What Istio's hosts, labels and principals are called on the mesh."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["MESH_WIDE", "NO_SERVICE", "ROOT", "Host", "Names", "name_of", "service_of_labels"]

#: The namespace whose policies hold in all of an Istio mesh.
ROOT: Final = "istio-system"
MESH_WIDE: Final = (
    "Istio's whole mesh: here it holds in the namespace that it is applied to, so apply it in each"
)
NO_SERVICE: Final = (
    "names no service of the mesh: a short name, or name.namespace.svc.cluster.local, or a host that a ServiceEntry in "
    "these files has"
)

#: Labels whose value is the name of a service, the most telling first.
_SERVICE_LABELS = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app", "k8s-app")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_BAD = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME = 63


class Host(msgspec.Struct, frozen=True):
    """What a host means: a ``service`` (empty: every service) of a ``namespace`` (empty: of whichever it is said in).
    ``mesh``: of every namespace."""

    service: str = ""
    namespace: str = ""
    mesh: bool = False


class Names:
    """Hosts as services. ``outside`` has the services that stand for hosts outside, by the host."""

    def __init__(self) -> None:
        self.outside: dict[str, str] = {}

    def host(self, text: str) -> Host | None:
        """What a host of the mesh means, or ``None``."""
        host = text.strip().lower().removesuffix(".")
        if (service := self.outside.get(host)) is not None:
            return Host(service)
        if host in ("*", "*.local", "*.cluster.local", "*.svc.cluster.local"):
            return Host(mesh=True)
        parts = host.split(".")
        if len(parts) == 1:
            return Host(host) if _NAME.fullmatch(host) else None
        if len(parts) >= 3 and parts[2] == "svc" and _NAME.fullmatch(parts[1]):
            if parts[0] == "*":
                return Host("", parts[1])
            return Host(parts[0], parts[1]) if _NAME.fullmatch(parts[0]) else None
        return None


def name_of(*parts: str) -> str:
    """A name for a policy, from names of Kubernetes, which may be longer and have dots."""
    whole = "-".join(part for part in parts if part)
    name = _BAD.sub("-", whole).strip("-") or "policy"
    if len(name) > _MAX_NAME or name in ("all", "anonymous"):
        digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: _MAX_NAME - 9]}-{digest}"
    return name


def service_of_labels(labels: Mapping[str, str]) -> tuple[str, list[str]]:
    """The service that workloads with these labels are of, and the labels that say something else; no service where
    none of the usual labels is there."""
    for label in _SERVICE_LABELS:
        value = labels.get(label, "")
        if _NAME.fullmatch(value):
            said = {key for key in _SERVICE_LABELS if labels.get(key) == value}
            return value, [key for key in labels if key not in said]
    return "", list(labels)
