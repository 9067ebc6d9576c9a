"""All documents of one translation, and the policies that come of them."""

from __future__ import annotations

import functools
from typing import Any, Final

from nats_mesh.core.deadline import MAX_TIMEOUT_S
from nats_mesh.core.presence import check_labels
from nats_mesh.errors import ConfigError
from nats_mesh.policy.decode import decode_node
from nats_mesh.policy.istio.found import Converted, made
from nats_mesh.policy.istio.hosts import ROOT, Host, Names
from nats_mesh.policy.istio.items import Item, Report, Source
from nats_mesh.policy.kinds import DURATION, SHARE
from nats_mesh.policy.problems import Problems, place
from nats_mesh.policy.reader import Node
from nats_mesh.policy.schema import API_VERSION

__all__ = ["OTHER_NAMESPACE", "World", "duration", "share"]

OTHER_NAMESPACE: Final = "a call stays in its namespace"


class World:
    """What is known while documents are translated. ``namespace`` is the one that documents without one are for."""

    def __init__(self, namespace: str, problems: Problems) -> None:
        self.namespace = namespace
        self.problems = problems
        self.report = Report(problems)
        self.names = Names()
        self.converted: list[Converted] = []
        self.delegated: set[int] | None = (
            None  # the virtual services that others delegate to, once somebody asked
        )
        self.specs: dict[str, list[Item]] = {}  # the specs of Istio's documents, by kind

    @functools.cached_property
    def delegates(self) -> dict[tuple[str, str], Item]:
        """The virtual services without hosts, by namespace and name: others hand requests on to them."""
        every = self.of_kind("VirtualService")
        return {(self.within(each.source), each.source.name): each for each in every if not each.has("hosts")}

    @functools.cached_property
    def issuers(self) -> list[str]:
        """The issuers that these files name, the longest name first."""
        every = self.of_kind("RequestAuthentication")
        found = {rule.text("issuer") for spec in every for rule in spec.many("jwtRules")}
        return sorted(found - {""}, key=len, reverse=True)

    def of_kind(self, kind: str) -> list[Item]:
        """The specs of the documents of a kind, in their order."""
        return self.specs.get(kind, [])

    def within(self, source: Source) -> str:
        """The namespace that a document is for."""
        return source.namespace or self.namespace

    def of_host(self, source: Source, host: Host, path: str, line: int) -> str:
        """The namespace of a policy about ``host``, as the policy says it; empty where it says none."""
        if host.mesh or (source.namespace == ROOT and not host.service and not host.namespace):
            return ""
        if host.namespace and host.namespace != self.within(source):
            source.lost(path, line, f"holds in the namespace {host.namespace}, where the service is", "info")
            return host.namespace
        return source.namespace

    def emit(
        self, source: Source, kind: str, name: str, namespace: str, spec: dict[str, Any], line: int = 0
    ) -> None:
        """Add a policy, unless the schema finds something wrong with it."""
        metadata: dict[str, Any] = {"name": made(name, source.line)}
        if namespace:
            metadata["namespace"] = namespace
        if labels := self._labels(source):
            metadata["labels"] = labels
        document = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        node = made(
            document, line or source.line, f"{source.title}, {place(source.file, line or source.line)}"
        )
        self.add(node, source.file, source.title)

    def add(self, node: Node, file: str, origin: str = "") -> None:
        """Add a document of the mesh's own."""
        policy = decode_node(node, file, self.problems)
        if policy is not None:
            self.converted.append(Converted(policy=policy, node=node, origin=origin))

    def _labels(self, source: Source) -> dict[str, Node]:
        node = source.labels
        kept: dict[str, Node] = {}
        if node is None or not isinstance(node.value, dict):
            return kept
        for key, value in node.value.items():
            where, line = f"metadata.labels.{key}", node.key_lines[key]
            try:
                check_labels({key: str(value.value or "")})
                if not value.value:
                    raise ConfigError("is empty")
                kept[key] = made(value.value, line)
            except ConfigError as error:
                source.lost(where, line, f"is no label of a policy: {error}")
        return kept


def duration(item: Item, name: str) -> Node | None:
    """A duration as policies write it; ``None`` where it is not there. What is longer than a day is a day, and said."""
    seconds = item.seconds(name)
    if seconds is None:
        return None
    line = item.line(name)
    if seconds > MAX_TIMEOUT_S:
        item.lost(name, "is more than the longest time here, which holds in its place: 24h")
        seconds = MAX_TIMEOUT_S
    return made(DURATION.write(seconds), line)


def share(item: Item, name: str, percent: float | None) -> Node | None:
    """A share as policies write it, from a number of percent; ``None`` where there is none, or where it is a
    mistake."""
    if percent is None:
        return None
    if not 0.0 <= percent <= 100.0:
        item.source.wrong(item.at(name), item.line(name), f"must be from 0 to 100, got {percent:g}")
        return None
    return made(SHARE.write(percent / 100.0), item.line(name))
