"""The configuration of a running instance, for what the service does beside its calls: its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar, cast

from nats_mesh.config.follower import ConfigFollower

__all__ = ["Configuration"]

T = TypeVar("T")


class Configuration(Generic[T]):
    """What a lifespan gets as its second argument, where it takes one: the configuration that its service declares.

    ``value`` is what holds now, from before the lifespan begins. Iterating gives that value, and then each one that
    replaces it, until the instance leaves: of several that came while the last one was still being worked on the
    newest. A value that does not fit is never among them. Once the instance has left iterating gives nothing, and ends.
    """

    def __init__(self, follower: ConfigFollower) -> None:
        self._follower = follower

    @property
    def value(self) -> T:
        """The declared struct, as it holds now."""
        return cast("T", self._follower.value)

    @property
    def revision(self) -> int:
        """The revision in the store that it is; 0 for the struct's own defaults, and for what was kept on disk."""
        return self._follower.revision

    async def __aiter__(self) -> AsyncIterator[T]:
        follower = self._follower
        while not follower.closed:
            changed = follower.changed  # taken before the value: what changes from here on is not missed
            yield self.value
            await changed.wait()

    def __repr__(self) -> str:
        return f"<Configuration {self.revision}: {self.value!r}>"
