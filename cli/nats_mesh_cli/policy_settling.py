"""Until a change that everybody has acknowledged is in effect, too: callers follow no route to a subset that is younger
than a second (:mod:`nats_mesh.calling.holding`), so whoever waits for a change that brings one waits that long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import anyio

from nats_mesh.calling.holding import HOLD_S
from nats_mesh.changing import Prepared
from nats_mesh.core.rules import SubsetRules
from nats_mesh.policy import PolicySet
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.problems import Problems

__all__ = ["settle"]

#: By how much a timer of somebody else may be late (seconds).
_LATE_S: Final = 0.1


async def settle(prepared: Prepared, wanted: Mapping[str, Document | None], *, namespace: str) -> None:
    """Wait where the change names a subset that was not there before."""
    after = {**prepared.current, **wanted}
    if not _subsets(after.values(), namespace) <= _subsets(prepared.current.values(), namespace):
        await anyio.sleep(HOLD_S + _LATE_S)


def _subsets(documents: Iterable[Document | None], namespace: str) -> frozenset[tuple[str, SubsetRules]]:
    policies = [each.policy for each in documents if each is not None]
    return PolicySet.collect(policies, Problems(), namespace=namespace).all_subsets()
