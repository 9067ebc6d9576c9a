"""From files to policies: Istio's documents translated, those of the mesh's own read as they are.

Documents are told apart by their `apiVersion`. All files of one call are one world: a Gateway may stand in another file
than the VirtualService that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from nats_mesh.policy.istio.api_common import METADATA, OF_KUBERNETES
from nats_mesh.policy.istio.api_destination_rule import DESTINATION_RULE
from nats_mesh.policy.istio.api_gateway import GATEWAY, SERVICE_ENTRY
from nats_mesh.policy.istio.api_security import AUTHORIZATION_POLICY, REQUEST_AUTHENTICATION
from nats_mesh.policy.istio.api_telemetry import TELEMETRY
from nats_mesh.policy.istio.api_virtual_service import VIRTUAL_SERVICE
from nats_mesh.policy.istio.authentication import translate_request_authentication
from nats_mesh.policy.istio.authorization import translate_authorization_policies
from nats_mesh.policy.istio.destination_rule import translate_destination_rule
from nats_mesh.policy.istio.found import Severity, Translation
from nats_mesh.policy.istio.gateways import translate_gateways
from nats_mesh.policy.istio.items import Item, Source
from nats_mesh.policy.istio.service_entry import name_outside, translate_service_entry
from nats_mesh.policy.istio.shapes import Message, check, joined
from nats_mesh.policy.istio.telemetry import translate_telemetry
from nats_mesh.policy.istio.virtual_service import translate_virtual_service
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.kinds import shown
from nats_mesh.policy.problems import Problems, hint, place
from nats_mesh.policy.reader import Node, read
from nats_mesh.policy.schema import KINDS

__all__ = ["ISTIO_KINDS", "is_istio", "translate", "translate_files"]


class _Kind(NamedTuple):
    """A kind of Istio's: its group, the versions of it, its fields."""

    group: str
    versions: tuple[str, ...]
    spec: Message


_NETWORKING: Final = ("networking.istio.io", ("v1alpha3", "v1beta1", "v1"))
_SECURITY: Final = ("security.istio.io", ("v1beta1", "v1"))

#: The kinds that are translated.
ISTIO_KINDS: Mapping[str, _Kind] = {
    "VirtualService": _Kind(*_NETWORKING, VIRTUAL_SERVICE),
    "DestinationRule": _Kind(*_NETWORKING, DESTINATION_RULE),
    "Gateway": _Kind(*_NETWORKING, GATEWAY),
    "ServiceEntry": _Kind(*_NETWORKING, SERVICE_ENTRY),
    "AuthorizationPolicy": _Kind(*_SECURITY, AUTHORIZATION_POLICY),
    "RequestAuthentication": _Kind(*_SECURITY, REQUEST_AUTHENTICATION),
    "Telemetry": _Kind("telemetry.istio.io", ("v1alpha1", "v1"), TELEMETRY),
}
#: The others, and why they have no meaning.
_OTHER_KINDS: Mapping[str, str] = {
    "PeerAuthentication": "the bus knows who calls by their credentials: set TLS and identity there",
    "Sidecar": "there are no sidecars: a process knows of the services that it calls",
    "EnvoyFilter": "there is no Envoy",
    "ProxyConfig": "there are no proxies",
    "WasmPlugin": "there are no proxies: interceptors of a service are its own code",
    "WorkloadEntry": "instances announce themselves, wherever they run",
    "WorkloadGroup": "instances announce themselves, wherever they run",
    "IstioOperator": "there is no control plane to install",
}
#: What the server of Kubernetes adds to a document, which nobody has set.
_KEPT_BY_KUBERNETES: Final = (
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion", "selfLink",
    "uid", "managedFields", "clusterName",
)  # fmt: skip
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
DRY_RUN: Final = "istio.io/dry-run"
_MAX_ITEMS: Final = 10_000


def is_istio(api_version: object) -> bool:
    """Whether an `apiVersion` is one of Istio's."""
    return isinstance(api_version, str) and ".istio.io/" in api_version


def translate(content: bytes | str, file: str = "", *, namespace: str = "default") -> Translation:
    """The policies that a file comes to, and what of it they do not say; documents of the mesh's own may stand in it,
    too.

    ``namespace`` is the one that documents without one are for: a policy still names none then. Everything that is
    wrong with the file is one :class:`~nats_mesh.errors.PolicyError`. Pure.
    """
    return translate_files([(content, file)], namespace=namespace)


def translate_files(files: Iterable[tuple[bytes | str, str]], *, namespace: str = "default") -> Translation:
    """As :func:`translate`, for several files that belong together: contents and names."""
    problems = Problems()
    world = World(namespace, problems)
    reading = _Reading(world)
    for content, file in files:
        reading.file(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content, file)
    _translate(world)
    problems.raise_if_any()
    found = world.report.found
    return Translation(
        converted=tuple(world.converted),
        untranslated=tuple([each for each in found if each.severity != "info"]),
        notes=tuple([each for each in found if each.severity == "info"]),
    )


_EACH: tuple[tuple[str, Callable[[Item, World], None]], ...] = (
    ("ServiceEntry", translate_service_entry),
    ("DestinationRule", translate_destination_rule),
    ("VirtualService", translate_virtual_service),
    ("RequestAuthentication", translate_request_authentication),
    ("Telemetry", translate_telemetry),
)


def _translate(world: World) -> None:
    if world.problems:
        return  # what is half wrong would only be translated into more mistakes
    for spec in world.of_kind("ServiceEntry"):
        name_outside(spec, world)
    for kind, one in _EACH:
        for spec in world.of_kind(kind):
            one(spec, world)
    translate_gateways(world)
    translate_authorization_policies(world)
    for specs in world.specs.values():
        for spec in specs:
            spec.source.finish()


class _Reading:
    """Sorts the documents of files."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[tuple[str, str, str], Source] = {}
        self._documents = 0

    def file(self, content: bytes, file: str) -> None:
        """Take the documents of a file."""
        for node in read(content, file, self._world.problems):
            self._document(node, file)

    def _document(self, node: Node, file: str) -> None:
        value = node.value
        if not isinstance(value, dict):
            self._world.add(node, file)  # which says what is wrong with it
            return
        version, kind = _text(value.get("apiVersion")), _text(value.get("kind"))
        if kind.endswith("List") and "items" in value:
            self._list(node, value["items"], file)
        elif is_istio(version):
            self._istio(node, version, kind, file)
        elif self._is_foreign(node, version, kind, file):
            line = node.key_lines["kind"]
            name = _text(_inside(node, "metadata", "name"))
            source = Source(file, node.line, kind, name, "", self._world.report)
            source.lost("kind", line, f"{kind} of {version} is no policy")
        else:
            self._world.add(node, file)

    def _list(self, node: Node, items: Node, file: str) -> None:
        if not isinstance(items.value, list) or len(items.value) > _MAX_ITEMS:
            text = f"must be a list of up to {_MAX_ITEMS} documents, got {shown(items.plain())}"
            self._world.problems.add(text, file=file, line=node.key_lines["items"], path="items")
            return
        for key, each in (node.value if isinstance(node.value, dict) else {}).items():
            if key not in ("apiVersion", "kind", "items", "metadata") and each.value is not None:
                text = f"is no field of a list; {hint(key, ('apiVersion', 'kind', 'metadata', 'items'))}"
                self._world.problems.add(text, file=file, line=node.key_lines[key], path=joined("", key))
        for each in items.value:
            if isinstance(each.value, dict) and _text(each.value.get("kind")).endswith("List"):
                self._world.problems.add("a list stands in a list", file=file, line=each.line, path="items")
            else:
                self._document(each, file)

    def _is_foreign(self, node: Node, version: str, kind: str, file: str) -> bool:
        """Whether it is a document of somebody else's, as they stand beside Istio's in files of Kubernetes."""
        if not version or not kind or version.startswith("mesh/"):
            return False
        if kind in ISTIO_KINDS and not version.startswith("gateway.networking.k8s.io/"):
            group, versions, _ = ISTIO_KINDS[kind]
            known = [f"{group}/{each}" for each in versions]
            text = f"{shown(version)} has no {kind}: {hint(version, known)}"
            self._world.problems.add(text, file=file, line=node.key_lines["apiVersion"], path="apiVersion")
            return True
        return kind not in KINDS or version.startswith("gateway.networking.k8s.io/")

    def _istio(self, node: Node, version: str, kind: str, file: str) -> None:
        problems = self._world.problems
        known = ISTIO_KINDS.get(kind)
        if known is None and kind in _OTHER_KINDS:
            name = _text(_inside(node, "metadata", "name"))
            source = Source(file, node.line, kind, name, "", self._world.report)
            source.lost("kind", node.key_lines["kind"], _OTHER_KINDS[kind])
            return
        if known is None:
            line = node.key_lines.get("kind", node.line)
            text = f"{shown(kind)} is no kind of Istio's; {hint(kind, (*ISTIO_KINDS, *_OTHER_KINDS))}"
            problems.add(text, file=file, line=line, path="kind")
            return
        group, _, number = version.partition("/")
        if group != known.group or number not in known.versions:
            versions = [f"{known.group}/{each}" for each in known.versions]
            text = f"{shown(version)} has no {kind}; {hint(version, versions)}"
            problems.add(text, file=file, line=node.key_lines["apiVersion"], path="apiVersion")
            return
        before = len(problems)
        spec = self._checked(node, known.spec, file)
        if len(problems) > before:
            return
        made = self._source(node, kind, file)
        if made is not None:
            self._world.specs.setdefault(kind, []).append(Item(made, spec, known.spec, "spec"))

    def _checked(self, node: Node, shape: Message, file: str) -> Node:
        """The spec of a document whose fields are checked."""
        problems = self._world.problems
        assert isinstance(node.value, dict)
        for key, each in node.value.items():
            if key not in ("apiVersion", "kind", "metadata", "spec", "status") and each.value is not None:
                text = f"is no field here; {hint(key, ('apiVersion', 'kind', 'metadata', 'spec'))}"
                problems.add(text, file=file, line=node.key_lines[key], path=joined("", key))
        metadata = node.value.get("metadata")
        if metadata is None or metadata.value is None:
            problems.add(
                "is missing: what the document is called", file=file, line=node.line, path="metadata"
            )
        else:
            check(METADATA, metadata, "metadata", node.key_lines["metadata"], file, problems)
        spec = node.value.get("spec")
        if spec is None or spec.value is None:
            spec = Node({}, node.line)
        check(shape, spec, "spec", node.key_lines.get("spec", node.line), file, problems)
        return spec

    def _source(self, node: Node, kind: str, file: str) -> Source | None:
        assert isinstance(node.value, dict)
        metadata = Item(
            Source(file, node.line, kind, "", "", self._world.report),
            node.value["metadata"],
            METADATA,
            "metadata",
        )
        name = metadata.text("name") or metadata.text("generateName").rstrip("-")
        namespace = metadata.text("namespace")
        if not name:
            text = "is missing: what the document is called"
            self._world.problems.add(text, file=file, line=node.line, path="metadata.name")
            return None
        source = Source(file, node.line, kind, name, namespace, self._world.report)
        other = self._seen.setdefault((kind, namespace, name), source)
        if other is not source:
            text = f"{source.title} stands at {place(other.file, other.line)}, too: keep one of them"
            self._world.problems.add(text, file=file, line=metadata.line("name"), path="metadata.name")
            return None
        source.labels = metadata.take("labels")
        metadata.source = source
        _annotations(metadata, source)
        for field in _KEPT_BY_KUBERNETES:
            metadata.note(field, OF_KUBERNETES)
        for field in ("ownerReferences", "finalizers", "generateName"):
            metadata.lost(field, OF_KUBERNETES)
        metadata.finish()
        status = node.value.get("status")
        if status is not None and status.value not in (None, {}):
            source.lost("status", node.key_lines["status"], OF_KUBERNETES, "info")
        return source


def _annotations(metadata: Item, source: Source) -> None:
    node = metadata.take("annotations")
    if node is None or not isinstance(node.value, dict):
        return
    for key, each in node.value.items():
        if key == DRY_RUN and source.kind == "AuthorizationPolicy":
            source.annotations[key] = _text(each)
        else:
            severity: Severity = "info" if key == _LAST_APPLIED else "warning"
            source.lost(
                joined("metadata.annotations", key),
                node.key_lines[key],
                "policies have no annotations",
                severity,
            )


def _text(node: Node | None) -> str:
    return node.value if node is not None and isinstance(node.value, str) else ""


def _inside(node: Node, *path: str) -> Node | None:
    found: Node | None = node
    for key in path:
        found = found.value.get(key) if found is not None and isinstance(found.value, dict) else None
    return found
