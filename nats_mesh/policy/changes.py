"""What differs between two sets of policies, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nats_mesh.policy.decode import Policy

__all__ = ["MAX_NAMES", "changes_text"]

#: How many policies are named; further ones are counted.
MAX_NAMES: Final = 8


def changes_text(before: Iterable[Policy], now: Iterable[Policy]) -> str:
    """``new Route/a; changed Destination/b; deleted Limit/c``, at most :data:`MAX_NAMES` names of it.

    Policies are compared by what they say: a file that was read again and says the same has changed nothing.
    """
    old, new = tuple(before), tuple(now)
    # By identity first: a set that follows another one has taken over what stays.
    had, has = set(map(id, old)), set(map(id, new))
    gone = {policy.name: policy for policy in old if id(policy) not in has}
    come = {policy.name: policy for policy in new if id(policy) not in had}
    found = {
        "new": [name for name in come if name not in gone],
        "changed": [name for name in come if name in gone and come[name].document != gone[name].document],
        "deleted": [name for name in gone if name not in come],
    }
    room, more, parts = MAX_NAMES, 0, []
    for word, names in found.items():
        if shown := names[:room]:
            parts.append(f"{word} {', '.join(shown)}")
        room -= len(shown)
        more += len(names) - len(shown)
    if more:
        parts.append(f"and {more} more")
    return "; ".join(parts) or "nothing differs"
