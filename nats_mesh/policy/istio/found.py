"""What a translation gives: policies, and what of Istio's documents is not in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from nats_mesh.policy.decode import Policy
from nats_mesh.policy.problems import place
from nats_mesh.policy.reader import Node

__all__ = ["Converted", "Made", "Severity", "Translation", "Untranslated", "made"]

Severity: TypeAlias = Literal["serious", "warning", "info"]
"""``serious``: calls go other ways than Istio's document says, or other calls are let in. ``warning``: a setting that
has no meaning here. ``info``: nothing is lost, the mesh does it by itself or a little differently."""


class Untranslated(msgspec.Struct, frozen=True):
    """Something of an Istio document that the policies do not say, by its path in that document, and why."""

    file: str
    line: int
    path: str
    reason: str
    severity: Severity
    document: str = ""

    def __str__(self) -> str:
        where = place(self.file, self.line)
        return ": ".join(
            part for part in (where, f"{self.document} {self.path}".strip(), self.reason) if part
        )


class Converted(msgspec.Struct, frozen=True, eq=False):
    """One policy. ``node`` is its document as it would be written, with the lines and origins of its file;
    ``origin`` is the Istio document (`VirtualService/reviews`), empty for one that was the mesh's own already."""

    policy: Policy
    node: Node
    origin: str = ""

    @property
    def value(self) -> dict[str, Any]:
        """The document as plain values, in the order of its fields."""
        plain: dict[str, Any] = self.node.plain()
        return plain


class Translation(msgspec.Struct, frozen=True, eq=False):
    """The outcome. ``untranslated`` has what is lost, ``notes`` what is only different or needs no setting."""

    converted: tuple[Converted, ...] = ()
    untranslated: tuple[Untranslated, ...] = ()
    notes: tuple[Untranslated, ...] = ()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies, in the order of the documents they come from."""
        return tuple([each.policy for each in self.converted])

    @property
    def serious(self) -> tuple[Untranslated, ...]:
        """What makes calls go other ways, or lets other calls in, than Istio's documents say."""
        return tuple([each for each in self.untranslated if each.severity == "serious"])


class Made(Node):
    """A value of a policy that was made here; ``origin`` says what of the Istio document it comes from."""

    __slots__ = ("origin",)

    def __init__(self, value: Any, line: int, origin: str = "") -> None:
        super().__init__(value, line)
        self.origin = origin


def made(value: Any, line: int, origin: str = "") -> Node:
    """A value for a policy, from line ``line``. What is inside may be plain, or made before, with a line of its own."""
    if isinstance(value, Node):
        return value
    if isinstance(value, dict):
        inside = {key: made(each, line) for key, each in value.items()}
        node: Node = Made(inside, line, origin)
        node.key_lines = {key: each.line for key, each in inside.items()}
        return node
    if isinstance(value, Iterable) and not isinstance(value, str):
        return Made([made(each, line) for each in value], line, origin)
    return Made(value, line, origin)
