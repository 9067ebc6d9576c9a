"""What JetStream says where it does not do something, and making a stream of as much as the server has room for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.errors import UNREADABLE

__all__ = [
    "ACCOUNT_FULL",
    "NAME_TAKEN",
    "NOT_FOUND",
    "NO_CLUSTER",
    "NO_PEERS",
    "NO_STORAGE",
    "STORE_FAILED",
    "TOO_LARGE",
    "WRONG_SEQUENCE",
    "Taken",
    "Trouble",
    "first_that_fits",
    "read_taken",
    "wants_room",
]

#: Codes of JetStream's errors. Of a stream that is made: there is none of the name, or there is one and it is another;
#: the server is no cluster; no server of the cluster is fit for it (the description says whether for want of room).
NOT_FOUND: Final = 10059
NAME_TAKEN: Final = 10058
NO_CLUSTER: Final = 10074
NO_PEERS: Final = 10005
#: Of a message: another revision stands there than was expected, and it is larger than the stream takes.
WRONG_SEQUENCE: Final = 10071
TOO_LARGE: Final = 10054
#: What the stream's own limits do not allow, as its bytes; the limits of the server's disk, and of the account.
STORE_FAILED: Final = 10077
NO_STORAGE: Final = 10047
ACCOUNT_FULL: Final = 10002


class Trouble(msgspec.Struct):
    """An error of JetStream's: ``err_code`` is one of those above, or another; ``code`` is as HTTP's are."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Taken(msgspec.Struct):
    """What a stream answers to a message that it keeps, or that it does not."""

    stream: str = ""
    error: Trouble | None = None


_decode_taken = at_first_use(lambda: msgspec.json.Decoder(Taken).decode)


def read_taken(payload: bytes) -> Taken | None:
    """``None``: it is something else that answers there."""
    try:
        return _decode_taken(payload)
    except UNREADABLE:
        return None


class _Said(Protocol):
    @property
    def error(self) -> Trouble | None: ...


A = TypeVar("A", bound=_Said)


def wants_room(error: Trouble | None) -> bool:
    """Whether a stream was not made for want of room: one that reserves less may find some."""
    return error is not None and (
        error.err_code == NO_STORAGE or (error.err_code == NO_PEERS and "storage" in error.description)
    )


async def first_that_fits(sizes: Sequence[int], create: Callable[[int], Awaitable[A]]) -> A:
    """What is said to ``create`` with the first of ``sizes`` (bytes, the largest first) that there is room for: the
    server may set all of a stream's size aside when it is made. What is said to the last one where there is for none.
    """
    for max_bytes in sizes[:-1]:
        said = await create(max_bytes)
        if not wants_room(said.error):
            return said
    return await create(sizes[-1])
