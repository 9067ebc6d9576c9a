"""The last configuration that a service used, on disk: what it starts with while the store does not answer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from nats_mesh.config.value import MAX_VALUE
from nats_mesh.policy.bus.disk import CacheError, read_kept, replace_kept

__all__ = ["ConfigCache"]

_DIGEST = 64
_MAX_BYTES = MAX_VALUE + _DIGEST + 1


class ConfigCache:
    """The file of one service, for one store (``identity``: namespace, servers, account); without a ``folder`` nothing
    is kept. Every method blocks."""

    def __init__(self, folder: str, service: str, identity: Iterable[str]) -> None:
        digest = hashlib.sha256("\n".join(identity).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._path = os.path.join(folder, f"config-{service}-{digest}") if folder else ""

    def load(self) -> bytes | None:
        """What was kept; ``None`` where there is nothing. :class:`CacheError` where it cannot be used."""
        data = read_kept(self._path, _MAX_BYTES + 1) if self._path else None
        if data is None:
            return None
        value = data[_DIGEST + 1 :]
        if len(data) > _MAX_BYTES or data[:_DIGEST] != hashlib.sha256(value).hexdigest().encode():
            raise CacheError(f"{self._path} is damaged: it is not used")
        return value

    def save(self, value: bytes | None) -> None:
        """Keep ``value``, or nothing. :class:`CacheError` where that cannot be."""
        if not self._path:
            return
        if value is not None:
            replace_kept(self._path, hashlib.sha256(value).hexdigest().encode() + b"\n", value)
            return
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"{self._path} cannot be deleted: {error.strerror or error}") from None
