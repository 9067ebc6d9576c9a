"""The words that all of ``why`` shares: shares, places, instances. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats_mesh.calling.exchange import Target
from nats_mesh_cli.hints import listed
from nats_mesh_cli.output import Record

__all__ = [
    "ROUNDING", "aim_text", "faults_at", "name_of", "named", "short", "unknown",
]  # fmt: skip

#: What adding shares up may lose, which are sums of products: nearer to all of them than this is all of them.
ROUNDING: Final = 1e-9


def aim_text(target: Target) -> str:
    """Where calls go: `reviews.get`, or `reviews.get/v2` for its subset `v2`."""
    return f"{target.label}/{target.subset}" if target.subset else target.label


def unknown(layer: Record) -> str:
    """What only the instances could say, and nobody asked them."""
    layer["present"], layer["reason"] = None, "not known: nobody was asked"
    return str(layer["reason"])


def faults_at(record: Record, instance: Record) -> list[Record]:
    """What operators injected into an instance for calls of this endpoint: its own fault, else that of all."""
    own = [fault for fault in instance["faults"] if fault["endpoint"] == record["name"]]
    return own or [fault for fault in instance["faults"] if fault["endpoint"] == ""]


def named(instances: Sequence[Record]) -> str:
    """Some instances, each with its version and labels."""
    return listed(_told(each) for each in instances)


def _told(instance: Record) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(instance["labels"].items()))
    return f"{short(instance)} {instance['version']}{f' ({labels})' if labels else ''}"


def short(instance: Record) -> str:
    """What people call an instance."""
    return str(instance["host_pid"] or instance["instance"])


def name_of(identifier: str, instances: Sequence[Record]) -> str:
    """What people call the instance of this id."""
    return next((short(each) for each in instances if each["instance"] == identifier), identifier)
