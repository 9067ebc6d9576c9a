"""Whom a member knows of that may not answer for himself: its peers not heard for long, and the services it calls.

An instance that hangs answers no question, and whoever asks has not heard it before: only others know that it is there.
What they say decides nothing; it says whom to ask, and of whom the server knows whether he listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Final

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Name
from nats_mesh.errors import UNREADABLE
from nats_mesh.model import is_name

__all__ = [
    "MAX_CALLED",
    "MAX_OVERDUE",
    "Overdue",
    "called_in",
    "called_metadata",
    "overdue_in",
    "overdue_metadata",
]

#: How many peers one instance tells of, and how many of the services it calls a member does.
MAX_OVERDUE: Final = 32
MAX_CALLED: Final = 64
#: How much of an answer is read (characters).
_MAX_TEXT: Final = 16 << 10
_PEERS: Final = "mesh.peers"
_CALLS: Final = "mesh.calls"


class Overdue(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that its peer heard ``heard_s`` seconds ago; ``name`` is its ``host-pid``, empty where not known."""

    instance: Name
    name: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{0,160}\Z")] = ""
    heard_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


_decode_list = at_first_use(lambda: msgspec.json.Decoder(list[msgspec.Raw]).decode)
_decode = at_first_use(lambda: msgspec.json.Decoder(Overdue).decode)


def overdue_metadata(found: list[Overdue]) -> dict[str, str]:
    """What an instance says of its peers; nothing where it has none."""
    return {_PEERS: msgspec.json.encode(found).decode()} if found else {}


def overdue_in(metadata: Mapping[str, str]) -> list[Overdue]:
    """What an instance said of its peers; what cannot be read is nothing, and takes nothing from the others."""
    text = metadata.get(_PEERS, "")
    found: list[Overdue] = []
    if not text or len(text) > _MAX_TEXT:
        return found
    with suppress(*UNREADABLE):
        for each in _decode_list(text)[:MAX_OVERDUE]:
            with suppress(*UNREADABLE):
                found.append(_decode(each))
    return found


def called_metadata(services: Iterable[str]) -> dict[str, str]:
    """What a member says of whom it calls, by name; of more than :data:`MAX_CALLED` the first ones."""
    names = sorted(each for each in set(services) if is_name(each))[:MAX_CALLED]
    return {_CALLS: ",".join(names)} if names else {}


def called_in(metadata: Mapping[str, str]) -> list[str]:
    """The services that a member said it calls."""
    text = metadata.get(_CALLS, "")
    names = text.split(",", MAX_CALLED)[:MAX_CALLED] if len(text) <= _MAX_TEXT else []
    return [each for each in names if is_name(each)]
