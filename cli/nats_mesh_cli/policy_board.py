"""The policies on the bus as views that go on show them: read now and then, as the store tells no observer of changes.

``top`` and ``dashboard`` both look at a :class:`Board`, so that they cannot know different things.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from nats_mesh import Mesh
from nats_mesh.errors import MeshError
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.output import counted

__all__ = ["MAX_POLICIES", "Board", "Reader"]

#: How many policies are shown; that there are more is the ``problem``.
MAX_POLICIES: Final = 2000
_NO_STORE: Final = (
    "no policy store in this namespace: members follow files, or nothing ('nats-mesh policy apply' makes one)"
)
#: How long the store may take to answer (seconds).
_TIMEOUT_S: Final = 2.0
#: How often it is read; where members tell of a newer revision, so soon after (seconds).
_READ_S: Final = 5.0
_SOON_S: Final = 0.5


class Board:
    """What was read last. ``known`` is false until the store has answered, ``head`` is ``None`` where there is none.
    ``problem`` says what is missing and why; what was read before stays."""

    def __init__(self) -> None:
        self.known = False
        self.problem = ""
        self.head: tuple[int, int] | None = None
        self.revisions: tuple[Revision, ...] = ()
        self._applied = (0, 0)
        #: What some said to have applied before the store was read, which then had less: it is no revision of it.
        self._made_up = (0, 0)
        self._stale = anyio.Event()

    @property
    def applied(self) -> tuple[int, int]:
        """The newest revision that some say they have applied."""
        return self._applied

    def take(
        self, head: tuple[int, int], revisions: Sequence[Revision], applied: tuple[int, int] = (0, 0)
    ) -> None:
        """What stands in the store now. ``applied`` is :attr:`applied` as it was before that was asked."""
        self._made_up = applied if applied > head else (0, 0)
        self.known, self.problem, self.head = True, "", head
        found = sorted(revisions, key=lambda each: each.key)
        self.revisions = tuple(found[:MAX_POLICIES])
        if more := len(found) - len(self.revisions):
            self.problem = f"{counted(more, 'more policy is', 'more policies are')} not listed"

    def absent(self) -> None:
        """There is no store."""
        self.known, self.problem, self.head, self.revisions = True, _NO_STORE, None, ()

    def fail(self, problem: str) -> None:
        """The store cannot be read."""
        self.problem = one_line(f"the policy store cannot be read: {problem}")

    def head_with(self, applied: tuple[int, int]) -> tuple[int, int]:
        """The revision that members ought to have: the store's, or what some have ``applied`` where it was not read
        since, or nobody can read it. (0, 0): there are no policies. What a member said before the store was read, and
        the store does not have, puts nobody behind."""
        if applied != self._applied:  # somebody follows what was not read yet
            self._applied = applied
            self._stale.set()
        if self.head is None:
            return applied
        if applied == self._made_up:
            return self.head
        return max(self.head, applied) if applied[0] == self.head[0] else self.head

    def doubt(self) -> None:
        """It may have changed: have it read soon."""
        self._stale.set()

    async def doubted(self) -> None:
        """Return when it may have changed."""
        await self._stale.wait()
        self._stale = anyio.Event()


class Reader:
    """Reads the store of a mesh's namespace onto a :class:`Board`."""

    def __init__(self, mesh: Mesh, board: Board) -> None:
        client = mesh.client
        self._transport = client.transport
        self._board = board
        self._open = False
        self._store = PolicyStore(
            mesh.namespace, transport=client.transport, mux=client.mux, timeout_s=_TIMEOUT_S
        )

    async def read(self) -> None:
        """Look once. Whatever goes wrong stands on the board: the rest of the view does without policies."""
        try:
            if not self._open:
                await self._store.open(make=False)
                self._open = True
            applied = self._board.applied
            found = await self._store.snapshot()
        except KvAbsentError:
            self._open = False
            self._board.absent()
        except MeshError as error:
            self._open = False
            self._board.fail(str(error))
        else:
            self._board.take((found.epoch, found.sequence), list(found.policies.values()), applied)

    async def pause(self) -> None:
        """Return when it is time to look again, and the bus is there."""
        while True:
            with anyio.move_on_after(_READ_S):
                await self._board.doubted()
                await anyio.sleep(_SOON_S)
            if self._transport.connected:
                return
