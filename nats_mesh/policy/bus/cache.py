"""The last policies that the store gave, on disk: what a member starts with while the store does not answer.

One file for each store, replaced as a whole. What is damaged, foreign or too large counts as none, and a disk
that is full or may not be written costs a warning: the cache is a help, and never a condition.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.replica import MAX_KEYS, MAX_TOTAL_BYTES, Record
from nats_mesh.errors import UNREADABLE
from nats_mesh.policy.bus.disk import CacheError, read_kept, replace_kept

__all__ = ["CacheError", "Cached", "PolicyCache", "default_cache_dir"]

_FIRST_LINE: Final = b"nats-mesh policies 1\n"
_MAX_BYTES: Final = 2 * MAX_TOTAL_BYTES
_DIGEST: Final = 64
_HEAD: Final = len(_FIRST_LINE) + _DIGEST + 1


class Cached(NamedTuple):
    """What was kept: the revision it is at, the server's time of that message, and the newest record of every key."""

    epoch: int
    applied: int
    stamp: str
    records: tuple[Record, ...]


class _Body(msgspec.Struct, array_like=True):
    namespace: str
    epoch: int
    applied: int
    stamp: str
    records: tuple[tuple[int, str, bytes | None, str, str, bool, str, int], ...]


_decode = at_first_use(lambda: msgspec.msgpack.Decoder(_Body).decode)
_encode = msgspec.msgpack.Encoder().encode


def default_cache_dir(env: Mapping[str, str]) -> str:
    """Where this platform keeps what programs may lose; empty where the user has no home."""
    if sys.platform == "win32":
        base = env.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.join(env["HOME"], "Library", "Caches") if env.get("HOME") else ""
    else:
        base = env.get("XDG_CACHE_HOME") or (os.path.join(env["HOME"], ".cache") if env.get("HOME") else "")
    return os.path.join(base, "nats-mesh") if os.path.isabs(base) else ""


class PolicyCache:
    """The file of one store: of ``namespace``, as ``identity`` (servers and account) sees it. Every method blocks."""

    def __init__(self, folder: str, namespace: str, identity: Iterable[str]) -> None:
        digest = hashlib.sha256("\n".join((namespace, *identity)).encode("utf-8", "surrogatepass"))
        self.folder = folder
        self.path = os.path.join(folder, f"policies-{namespace}-{digest.hexdigest()[:16]}")
        self._namespace = namespace
        self._written: tuple[int, int, str] | None = None

    def load(self) -> Cached | None:
        """What was kept; ``None`` where there is nothing. :class:`CacheError` where it cannot be used."""
        data = read_kept(self.path, _MAX_BYTES + 1)
        return None if data is None else self._read(data)

    def _read(self, data: bytes) -> Cached:
        head, body = data[:_HEAD], memoryview(data)[_HEAD:]
        if len(data) > _MAX_BYTES or not head.startswith(_FIRST_LINE):
            raise CacheError(f"{self.path} is no cache of policies: delete it")
        if hashlib.sha256(body).hexdigest().encode() != head[len(_FIRST_LINE) : -1]:
            raise CacheError(f"{self.path} is damaged: it is not used")
        try:
            said = _decode(body)
        except UNREADABLE as error:
            raise CacheError(f"{self.path} is damaged: {error}") from None
        if (
            said.namespace != self._namespace
            or len(said.records) > MAX_KEYS
            or min(said.epoch, said.applied) < 1
        ):
            raise CacheError(f"{self.path} is not of this store: it is not used")
        return Cached(said.epoch, said.applied, said.stamp, tuple(Record(*each) for each in said.records))

    def save(self, kept: Cached) -> None:
        """Keep this in the place of what was there. :class:`CacheError` where that cannot be."""
        at = (kept.epoch, kept.applied, kept.stamp)
        if at == self._written:
            return
        body = _encode(_Body(self._namespace, kept.epoch, kept.applied, kept.stamp, kept.records))
        if len(body) > _MAX_BYTES - _HEAD:
            raise CacheError(f"{self.path} would have {len(body)} bytes: policies are not kept on disk")
        head = _FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n"
        replace_kept(self.path, head, body)
        self._written = at
