"""The mesh for scripts and notebooks: the same calls without ``async``, from any thread."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from msgspec import UNSET

from nats_mesh.calling.gathering import Gathered, Want
from nats_mesh.errors import ConfigError
from nats_mesh.model import CallOptions, HeadersLike, Reply

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from nats_mesh.mesh import Mesh

__all__ = ["BlockingMesh"]

T = TypeVar("T")


class BlockingMesh:
    """``with Mesh("script").blocking() as mesh: mesh.call("orders.place", order)``.

    The connection lives on an event loop in a thread of its own; calls may come from several threads.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        if self._portal is not None:
            raise ConfigError(f"mesh {self._mesh.name!r} is open already")
        from anyio.from_thread import start_blocking_portal  # which nobody else needs

        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._mesh))
            self._stack = stack.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal = None
        self._stack.close()

    @overload
    def call(
        self, target: Any, value: Any = None, *, returns: type[T], **options: Unpack[CallOptions]
    ) -> T: ...

    @overload
    def call(
        self, target: Any, value: Any = None, *, returns: Any = ..., **options: Unpack[CallOptions]
    ) -> Any: ...

    def call(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Any:
        """As :meth:`nats_mesh.Mesh.call`; blocks this thread until the value or the error is there."""
        return self.request(target, value, returns=returns, **options).value

    def request(
        self, target: Any, value: Any = None, *, returns: Any = UNSET, **options: Unpack[CallOptions]
    ) -> Reply[Any]:
        """As :meth:`nats_mesh.Mesh.request`."""

        async def run() -> Reply[Any]:
            return await self._mesh.request(target, value, returns=returns, **options)

        return self._loop().call(run)

    @overload
    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: type[T],
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Gathered[T]: ...

    @overload
    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = ...,
        want: Want = ...,
        timeout: float | None = ...,
        headers: HeadersLike | None = ...,
        codec: str | None = ...,
    ) -> Gathered[Any]: ...

    def gather(
        self,
        target: Any,
        value: Any = None,
        *,
        returns: Any = UNSET,
        want: Want = "all",
        timeout: float | None = None,
        headers: HeadersLike | None = None,
        codec: str | None = None,
    ) -> Gathered[Any]:
        """As :meth:`nats_mesh.Mesh.gather`."""

        async def run() -> Gathered[Any]:
            return await self._mesh.gather(
                target, value, returns=returns, want=want, timeout=timeout, headers=headers, codec=codec
            )

        return self._loop().call(run)

    def _loop(self) -> BlockingPortal:
        if self._portal is None:
            raise ConfigError(f"mesh {self._mesh.name!r} is not open; use 'with Mesh(…).blocking() as mesh:'")
        return self._portal

    def __repr__(self) -> str:
        return f"<BlockingMesh {self._mesh!r}>"
