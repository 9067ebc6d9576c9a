"""The policies on the bus, as the page lists them: read now and then, as the store tells no observer of changes."""

from __future__ import annotations

from typing import Final

from nats_mesh import Mesh
from nats_mesh.errors import MeshError
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh.wire.kv import KvAbsentError
from nats_mesh_cli.errors import one_line
from nats_mesh_cli.output import Record
from nats_mesh_cli.policy_bus import StoreReader
from nats_mesh_cli.policy_history import policy_record

__all__ = ["Board", "Reader"]

#: How long the store may take to answer, and how many policies the page lists.
_TIMEOUT_S: Final = 2.0
MAX_POLICIES: Final = 2000
_GUARD: Final = "Access/"


class Board:
    """What was read last. ``known`` is false until the store has answered; ``problem`` says why it does not."""

    def __init__(self) -> None:
        self.known = False
        self.problem = ""
        self.head = (0, 0)
        self.policies: tuple[Record, ...] = ()
        self._guarded: frozenset[str] = frozenset()

    def guards(self, service: str) -> bool:
        """Whether a policy of access is about ``service``."""
        return service in self._guarded or "*" in self._guarded

    def take(self, head: tuple[int, int], revisions: list[Revision]) -> None:
        """What stands in the store now."""
        self.known, self.problem, self.head = True, "", head
        records = [policy_record(each) for each in sorted(revisions, key=lambda each: each.key)]
        self.policies = tuple(records[:MAX_POLICIES])
        more = len(records) - len(self.policies)
        if more:
            self.problem = f"{more} more policies are not listed"
        self._guarded = frozenset(
            str(each["target"]).partition("/")[0]
            for each in records
            if str(each["policy"]).startswith(_GUARD)
        )

    def fail(self, problem: str) -> None:
        """The store cannot be read: what was read before stays."""
        self.problem = one_line(problem)


class Reader:
    """Reads the store of a mesh's namespace onto a :class:`Board`."""

    def __init__(self, mesh: Mesh, board: Board) -> None:
        self._board = board
        self._store = StoreReader(mesh, _TIMEOUT_S)

    async def read(self) -> None:
        """Look once. Whatever goes wrong stands on the board: the rest of the view does without policies."""
        try:
            found = await self._store.read()
        except KvAbsentError:
            self._board.take((0, 0), [])
            self._board.fail("this namespace has no policy store: members follow files, or nothing")
        except MeshError as error:
            self._board.fail(str(error))
        else:
            self._board.take((found.epoch, found.sequence), list(found.policies.values()))
