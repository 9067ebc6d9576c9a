"""What a policy about workloads is about: Istio selects them by labels, the mesh by the name of their service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.hosts import MESH_WIDE, ROOT, name_of, service_of_labels
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.world import World
from nats_mesh.policy.reader import Node

__all__ = ["NO_LABEL", "Aim", "aims_of", "emit_widely"]

NO_LABEL: Final = "names no service: workloads are known by the label app (or app.kubernetes.io/name)"
_GATEWAY: Final = "is about a gateway of Istio's: what a gateway lets in is said by the Gateway itself"


class Aim(NamedTuple):
    """A service, or with an empty name the whole namespace. ``others`` are labels that select some of its instances
    alone; ``unknown``: labels that name no service at all."""

    service: str
    namespace: str
    others: tuple[str, ...]
    unknown: bool
    path: str
    line: int

    @property
    def target(self) -> dict[str, Node]:
        """The field `target` of a policy, where it has one."""
        return {"target": made({"service": self.service}, self.line)} if self.service else {}


def aims_of(spec: Item, world: World) -> list[Aim]:
    """What a document is about; nothing where it is about gateways alone, which is said."""
    source = spec.source
    namespace = source.namespace
    if namespace == ROOT:
        namespace = ""
        source.lost("metadata.namespace", source.line, MESH_WIDE, "info")
    found: list[Aim] = []
    refs = [each for each in (spec.one("targetRef"), *spec.many("targetRefs")) if each is not None]
    for ref in refs:
        kind, name = ref.text("kind"), ref.text("name")
        ref.text("group")
        elsewhere = ref.text("namespace")
        if elsewhere and elsewhere != world.within(source):
            ref.lost("namespace", "is another namespace: a policy holds in its own alone", "serious")
        elif kind == "Service":
            found.append(Aim(name, namespace, (), False, ref.at("name"), ref.line("name")))
        elif kind == "ServiceEntry" and (outside := _outside(name, world)):
            found.append(Aim(outside, namespace, (), False, ref.at("name"), ref.line("name")))
        else:
            ref.lost(
                "kind",
                _GATEWAY if kind != "ServiceEntry" else "no such ServiceEntry is in these files",
                "serious",
            )
    if refs:
        return found
    selector = spec.one("selector")
    labels = {} if selector is None else selector.pairs("matchLabels")
    if selector is None or not labels:
        return [Aim("", namespace, (), False, spec.path, spec.line())]
    if "istio" in labels or any(
        "gateway" in str(labels.get(key, "")) for key in ("app", "service.istio.io/canonical-name")
    ):
        selector.lost("matchLabels", _GATEWAY, "serious")
        return []
    service, others = service_of_labels(labels)
    return [
        Aim(
            service,
            namespace,
            tuple(others),
            not service,
            selector.at("matchLabels"),
            selector.line("matchLabels"),
        )
    ]


def _outside(name: str, world: World) -> str:
    """The service that stands for the hosts of a ServiceEntry."""
    for spec in world.of_kind("ServiceEntry"):
        if spec.source.name == name:
            return next(
                (world.names.outside[host] for host in spec.words("hosts") if host in world.names.outside), ""
            )
    return ""


def emit_widely(
    spec: Item, world: World, kind: str, aims: Sequence[Aim], made_for: Callable[[Aim], dict[str, Any]]
) -> None:
    """Add a policy of ``kind`` for each of ``aims``, of what ``made_for`` makes of it: of a service it is about every
    instance, whatever else the labels say, which is told."""
    for aim in aims:
        if aim.unknown:
            spec.source.lost(aim.path, aim.line, NO_LABEL, "serious")
            continue
        if aim.others:
            text = f"holds for every instance of {aim.service}, whatever its {', '.join(aim.others)}"
            spec.source.lost(aim.path, aim.line, text)
        name = name_of(spec.source.name, aim.service if len(aims) > 1 else "")
        world.emit(spec.source, kind, name, aim.namespace, made_for(aim))
